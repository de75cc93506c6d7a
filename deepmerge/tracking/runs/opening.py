"""Open and close MLflow runs: where they are kept, and how they end whatever becomes of their process."""

import json
import logging
import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient, fluent
from mlflow.tracking.context.registry import resolve_tags

from deepmerge import stopping
from deepmerge.tracking import database, environment, launcher, outbox, passwords, processes, soundness
from deepmerge.tracking.plugin import EXPERIMENT, experiment_id
from deepmerge.tracking.runs import delivery
from deepmerge.tracking.runs.provenance import STARTED_IN, code_state, process
from deepmerge.tracking.runs.writing import Opened, write, writing_to

log = logging.getLogger(__name__)

DATABASE = Path("mlflow.db")
FAILURE = "failure"  # tag with the reason why a run did not end well
MOST = 1000  # runs that are looked at for one whose process is gone


_closed: set[str] = set()  # stores whose runs this process has looked at


def connect() -> None:
    """Choose the tracking store: MLFLOW_TRACKING_URI, or else ``mlflow.db`` in the working directory.

    In the temporary copy that `dvc exp run --temp` works in, it is the one of the project itself, which stays. A
    database file is made if need be. What earlier commands could not deliver is sent. Runs that look as if they ran
    are closed where their process was on this machine and is gone. Raises InputError where the database was left half
    made, or its artifacts do not lie where it says.
    """
    choose_store()
    url = mlflow.get_tracking_uri()
    database.make_store(url)
    soundness.require_sound(url)
    if url not in _closed:
        _closed.add(url)
        _send_left()
        _close_abandoned()


def choose_store() -> None:
    """Let MLflow use the store that `connect` says, without asking it anything."""
    environment.prepare()
    database.wait_for_locks()
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        mlflow.set_tracking_uri(f"sqlite:///{project() / DATABASE}")


def store() -> str:
    """The tracking store, as messages may show it: without a password."""
    return passwords.hidden(mlflow.get_tracking_uri())


def project() -> Path:
    """The working directory or, in a temporary copy of it that DVC made, the one that was copied."""
    here = Path.cwd()
    return next((parent.parent for parent in here.parents if parent.name == ".dvc"), here)


def _choose_experiment() -> None:
    """Select the experiment, unless the environment gives its id or `mlflow run` has already chosen."""
    if os.environ.get("MLFLOW_RUN_ID") or os.environ.get("MLFLOW_EXPERIMENT_ID"):
        return
    # In a copy, MLflow would put artifacts into the working directory, which DVC deletes.
    in_a_copy = project() != Path.cwd() and database.path_of(mlflow.get_tracking_uri()) == project() / DATABASE
    location = (project() / soundness.ARTIFACTS / EXPERIMENT).as_uri() if in_a_copy else None
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
    mlflow.set_experiment(experiment_id=experiment_id(name, location))


@contextmanager
def new_run(name: str, tags: Mapping[str, str]) -> Iterator[str]:
    """Start a run, or adopt the one that `mlflow run` made for this process; yields its id.

    The run ends FINISHED, or FAILED with the error in its tag `failure` when the body raises, or KILLED when stopped.
    """
    connect()
    _choose_experiment()
    # An adopted run keeps the random name that the launcher gave it unless renamed.
    named = {"mlflow.runName": name, **code_state(), **process(), **tags}
    with _ended_truthfully(mlflow.start_run(run_name=name, tags=named)) as run_id:
        yield run_id


@contextmanager
def reopened(run: Run, at_once: bool = False) -> Iterator[None]:
    """Write to a run that has ended; it stays so, whatever becomes of this process.

    at_once: nothing goes through the outbox, for what may only be done when all before it stands on the server.
    """
    _link_launcher(run.info.run_id)
    with writing_to(Opened(run), project(), at_once):
        yield


@contextmanager
def continued(run_id: str | None, name: str, tags: Mapping[str, str]) -> Iterator[str]:
    """Go on in a run that an earlier command left, whatever became of it; a new one where MLflow knows no such run."""
    connect()
    if run_id is None or not knows(run_id):
        with new_run(name, tags) as made:
            yield made
        return
    _link_launcher(run_id)
    client = MlflowClient()
    client.set_tag(run_id, launcher.PROCESS, launcher.named())  # before it runs, or it would seem abandoned
    run = mlflow.start_run(run_id=run_id)
    if FAILURE in run.data.tags:
        client.delete_tag(run_id, FAILURE)
    with _ended_truthfully(run, is_new=False):
        yield run_id


@contextmanager
def child(parent: str, name: str, tags: Mapping[str, str]) -> Iterator[str]:
    """Start a run below the run `parent`, which is open here."""
    below = {**_own(), **tags, "mlflow.parentRunId": parent}
    with _ended_truthfully(mlflow.start_run(run_name=name, tags=below, nested=True)) as run_id:
        yield run_id


def begin_below(parent: str, name: str, tags: Mapping[str, str], parameters: Mapping[str, Any]) -> str:
    """Begin a run below the run `parent`, one of several at a time; its id, for `log_below` and `end_below`."""
    client = MlflowClient()
    below = {**resolve_tags(), **_own(), **tags, "mlflow.parentRunId": parent}
    experiment = client.get_run(parent).info.experiment_id
    run_id = client.create_run(experiment, tags=below, run_name=name).info.run_id
    client.log_batch(run_id, params=[Param(key, str(value)) for key, value in parameters.items()])
    return run_id


def log_below(run_id: str, metrics: Mapping[str, float], step: int = 0, tags: Mapping[str, str] | None = None) -> None:
    """Log metrics, but undefined ones (NaN), and tags on a run that `begin_below` began."""
    now = round(1000 * time.time())
    entries = [Metric(name, float(value), now, step) for name, value in metrics.items() if math.isfinite(value)]
    MlflowClient().log_batch(run_id, entries, tags=[RunTag(name, value) for name, value in (tags or {}).items()])


def end_below(run_id: str, status: str, failure: str | None = None) -> None:
    """End such a run, with the reason where it did not end well; a warning where MLflow knows no such run."""
    client = MlflowClient()
    try:
        if failure is not None:
            client.set_tag(run_id, FAILURE, passwords.scrubbed(failure)[:500])
        client.set_terminated(run_id, status)
    except MlflowException as error:
        log.warning("run %s could not be ended: %s", run_id, passwords.scrubbed(error.message))


def put_below(run_id: str, parent: str) -> None:
    """Let a run stand below another one than before."""
    MlflowClient().set_tag(run_id, "mlflow.parentRunId", parent)


def knows(run_id: str) -> bool:
    """Whether MLflow has the run, and it was not deleted."""
    try:
        return mlflow.get_run(run_id).info.lifecycle_stage == "active"
    except MlflowException:
        return False


def _send_left() -> None:
    """Send what earlier commands could not deliver to the store, and tell what still cannot be."""
    url = mlflow.get_tracking_uri()
    if not outbox.is_for(url):
        return
    _, failed = outbox.send_left(outbox.place(project(), url), delivery.deliver)
    for folder, why in failed.items():
        log.warning("What %s holds could not be delivered yet: %s", folder, why)


def _own() -> dict[str, str]:
    """Tags of a run below another: where the command was started, and which process writes it."""
    return {STARTED_IN: str(Path.cwd()), launcher.PROCESS: launcher.named()}


@contextmanager
def _ended_truthfully(run: Run, is_new: bool = True) -> Iterator[str]:
    """Write to a run that MLflow has begun, and end it as the body does."""
    status = "FINISHED"
    with writing_to(Opened(run, is_new), project()):
        try:
            yield run.info.run_id
        except BaseException as error:
            status = "KILLED" if isinstance(error, (KeyboardInterrupt, SystemExit)) else "FAILED"
            write({"kind": "tags", "values": {FAILURE: _reason(error, status)}})
            raise
        finally:
            write(delivery.end(status))
            _forget(run.info.run_id)


def _reason(error: BaseException, status: str) -> str:
    if status == "KILLED":
        return stopping.reason(error)
    return passwords.scrubbed(f"{type(error).__name__}: {error}")[:500]


def _forget(run_id: str) -> None:
    """Let MLflow forget that a run is open without telling the server, which mlflow.end_run would wait for."""
    stack = fluent._active_run_stack.get()  # no public function does it; MLflow's version is pinned
    stack[:] = [run for run in stack if run.info.run_id != run_id]
    os.environ.pop("MLFLOW_RUN_ID", None)


def _close_abandoned() -> None:
    """End the runs that look as if they ran, but whose process was on this machine and is gone."""
    experiments = [experiment.experiment_id for experiment in mlflow.search_experiments()]
    condition = f"attributes.status = 'RUNNING' and tags.`{launcher.PROCESS}` LIKE '%'"
    url = mlflow.get_tracking_uri()
    waiting = outbox.waiting(outbox.place(project(), url))  # their own ends are still to be told
    for run in MlflowClient().search_runs(experiments, condition, max_results=MOST):
        if run.info.run_id in waiting:
            continue
        try:
            is_gone = processes.is_gone(json.loads(run.data.tags[launcher.PROCESS]))
        except (ValueError, KeyError, TypeError, AttributeError):  # not written by us
            continue
        if is_gone:
            end_below(run.info.run_id, "KILLED", "process gone")


def _link_launcher(run_id: str) -> None:
    """`mlflow run -e evaluate` makes a run of its own; put it beneath the run of the model that it judges."""
    launcher = os.environ.pop("MLFLOW_RUN_ID", None)
    if launcher and launcher != run_id:
        client = MlflowClient()
        client.set_tag(launcher, "mlflow.parentRunId", run_id)
        client.set_tag(launcher, "mlflow.note.content", f"Launched by `mlflow run`; the results are in run {run_id}.")
