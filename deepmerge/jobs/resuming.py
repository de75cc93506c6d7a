"""Going on with a training that was interrupted: what a command notes while it works, so that the same one finds it."""

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from deepmerge import config
from deepmerge.closure import closure, fingerprint
from deepmerge.data import targets
from deepmerge.data.dataset import Dataset
from deepmerge.data.splits import Split
from deepmerge.files import hidden_folder, replacing
from deepmerge.jobs import networks
from deepmerge.model import devices
from deepmerge.model.training import TrainingDiverged
from deepmerge.tracking import runs

log = logging.getLogger(__name__)

FOLDER = Path(".deepmerge", "trainings")
NOTE, CHECKPOINT = "note.json", "checkpoint.npz"
KEPT_SECONDS = 30 * 86400  # after which nobody is expected to come back to an interrupted training


class Unfinished:
    """The run of a training and which of its steps are done, noted in a folder; without one nothing is remembered."""

    def __init__(self, folder: Path | None = None, conditions: Mapping[str, Any] | None = None) -> None:
        self._folder, self._conditions = folder, dict(conditions or {})
        self.run_id: str | None = None
        self._done: dict[str, Any] = {}
        if folder is not None:
            self._read(folder)

    @property
    def checkpoint(self) -> Path | None:
        """Where the training is kept after each epoch."""
        return None if self._folder is None else self._folder / CHECKPOINT

    def begin(self, run_id: str) -> None:
        """Note the run that the training is in. What was done in another one counts for nothing."""
        if run_id != self.run_id:
            self.run_id, self._done = run_id, {}
        self._write()

    def once(self, step: str, do: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """The results of a step: of `do`, unless an earlier process has done it."""
        if step not in self._done:
            self._done[step] = dict(do())
            self._write()
        return dict(self._done[step])

    def _read(self, folder: Path) -> None:
        try:
            note = json.loads((folder / NOTE).read_text())
            conditions, run_id, done = (note[name] for name in ("conditions", "run_id", "done"))
        except (OSError, ValueError, KeyError, TypeError):
            conditions, run_id, done = {}, None, {}
        others = [name for name in self._conditions if conditions.get(name) != self._conditions[name]]
        if run_id is not None and others:
            log.warning(
                "A training like this one was interrupted (run %s), but with other %s: it begins anew",
                run_id,
                " and ".join(others),
            )
        if run_id is None or others:
            shutil.rmtree(folder, ignore_errors=True)
            hidden_folder(folder)
        else:
            log.info("This training was interrupted (run %s): it goes on where it was", run_id)
            self.run_id, self._done = run_id, done

    def _write(self) -> None:
        if self._folder is None:
            return
        note = {"conditions": self._conditions, "run_id": self.run_id, "done": self._done}
        try:
            with replacing(self._folder / NOTE) as aside:
                aside.write_text(json.dumps(note))
        except OSError as error:
            log.warning("Could not note how far the training is: %s", error)


@contextmanager
def remembered(experiment: config.Experiment, data: Dataset, split: Split, threads: int) -> Iterator[Unfinished]:
    """What an earlier process left of the training of this experiment, `prepared`, on these data; gone when it is done.

    Another experiment, data or split is another training. With other code, threads, devices or packages it begins anew,
    and says so. Nothing is remembered on several devices, where it was not shown that a training goes on to the same
    numbers, and where another process is at the same training.
    """
    if devices.strategy().num_replicas_in_sync > 1:
        yield Unfinished()
        return
    folder = runs.project() / FOLDER / _identity(experiment, data, split)
    with ExitStack() as stack:
        try:
            hidden_folder(folder.parent)
            _remove_old(folder.parent)
            lock = stack.enter_context(FileLock(folder.with_suffix(".lock"), timeout=0))
            unfinished = Unfinished(folder, _conditions(threads))
        except Timeout:
            log.warning("Another process is at the same training: this one is a run of its own, not to be resumed")
            unfinished, lock = Unfinished(), None
        except OSError as error:
            log.warning("The training could not be resumed if it were interrupted: %s", error)
            unfinished, lock = Unfinished(), None
        is_done = True
        try:
            yield unfinished
        except BaseException as error:
            is_done = isinstance(error, TrainingDiverged)  # it would do so again
            raise
        finally:
            if lock is not None and is_done:
                shutil.rmtree(folder, ignore_errors=True)
                Path(lock.lock_file).unlink(missing_ok=True)


def _identity(experiment: config.Experiment, data: Dataset, split: Split) -> str:
    """What tells a training from others: 32 hexadecimal digits of data, split and settings.

    Of a network's files the content matters, not where they lie.
    """
    settings = experiment.model_dump(mode="json", include={"name", "network", "training", "params"})
    network = experiment.network
    settings["network"] |= {"architecture": network.title if network.source else network.architecture, "start": None}
    depends = {
        **settings,
        **networks.digests(network, experiment.name),
        **targets.digests(experiment.training),
        **experiment.data.model_dump(mode="json", include={"missing"}),
        "data": data.fingerprint,
        "split": [split.protocol, split.seed, split.fingerprint],
    }
    return hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:32]


def _conditions(threads: int) -> dict[str, Any]:
    """What has to be the same, for a training to go on to the same numbers."""
    return {
        "code": fingerprint(closure(["deepmerge.model.training"])),
        "threads": threads,
        "devices": devices.kind(),
        "packages": {name: version(name) for name in ("tensorflow", "keras", "numpy")},
    }


def _remove_old(folder: Path) -> None:
    """Remove what was left so long ago that nobody comes back to it."""
    for note in folder.glob(f"*/{NOTE}"):
        if time.time() - note.stat().st_mtime > KEPT_SECONDS:
            shutil.rmtree(note.parent, ignore_errors=True)
