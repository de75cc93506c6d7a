"""The run that this process writes to: through the outbox where a server keeps it, at once where a file does."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

import mlflow
from mlflow.entities import Run, RunData, RunTag

from deepmerge.tracking import outbox
from deepmerge.tracking.outbox import Parcel
from deepmerge.tracking.runs import delivery


@dataclass
class Opened:
    """A run that is written to: through a parcel, or at once where there is none."""

    run: Run  # as it was when it was opened
    is_new: bool = False  # whether all that is in it was written by this process
    parcel: Parcel | None = None
    tags: dict[str, str] = field(default_factory=dict)  # that were set since


_open: ContextVar[Opened | None] = ContextVar("open", default=None)


def active_id() -> str:
    """Id of the run that is written to."""
    return opened().run.info.run_id


def opened() -> Opened:
    """The run that is written to."""
    found = _open.get()
    if found is None:
        raise RuntimeError("no MLflow run is open")
    return found


def is_open(run_id: str) -> bool:
    """Whether this process writes to the run."""
    found = _open.get()
    return found is not None and found.run.info.run_id == run_id


def parcel_of(run_id: str) -> Parcel | None:
    """What this process has still to deliver of the run, if it writes to it and not at once."""
    return opened().parcel if is_open(run_id) else None


def as_known(run_id: str) -> Run | None:
    """The run with its tags, without asking the server, where this process has still to deliver some; else None."""
    if parcel_of(run_id) is None:
        return None
    run = opened().run
    tags = [RunTag(name, value) for name, value in {**run.data.tags, **opened().tags}.items()]
    return Run(run.info, RunData(tags=tags))


def holds_only_ours(run_id: str) -> bool:
    """Whether all that is in the run was written by this process, to a parcel: nothing more is on the server."""
    return parcel_of(run_id) is not None and opened().is_new


def write(entry: outbox.Entry, files: Path | None = None) -> None:
    """Write an entry to the open run: into its parcel or, where it has none, at once, with its files below `files`."""
    run = opened()
    if entry["kind"] == "tags":
        run.tags.update(entry["values"])
    if run.parcel is not None:
        run.parcel.put(entry)
    else:
        delivery.deliver(active_id(), entry, files or Path())


@contextmanager
def writing_to(run: Opened, project: Path, at_once: bool = False) -> Iterator[None]:
    """Let the body write to a run, and wait for what is to be delivered of it; the outbox is in the `project`."""
    url = mlflow.get_tracking_uri()
    if outbox.is_for(url) and not at_once:
        run.parcel = Parcel(outbox.place(project, url), run.run.info.run_id, url, delivery.deliver)
    token = _open.set(run)
    at_most = math.inf
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        at_most = outbox.STOPPED_PATIENCE
        raise
    finally:
        _open.reset(token)
        if run.parcel is not None:
            run.parcel.close(outbox.PATIENCE, at_most)
