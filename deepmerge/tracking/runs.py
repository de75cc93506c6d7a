"""MLflow runs: one run is one trained model with everything that is known of it."""

import importlib.metadata
import json
import logging
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

# The environment is set before MLflow is imported: it reads these then.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "false")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

import mlflow
import numpy as np
import pandas as pd
from mlflow.data.dataset_source_registry import get_dataset_source_from_json
from mlflow.data.numpy_dataset import NumpyDataset
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.models import Model, infer_signature
from mlflow.tracking import MlflowClient

from deepmerge.errors import InputError
from deepmerge.tracking import database, passwords, soundness
from deepmerge.tracking.plugin import EXPERIMENT, experiment_id

log = logging.getLogger(__name__)
# It logs the traceback of what it raises, and how it makes its tables.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)

DATABASE = Path("mlflow.db")
LAST = "last"
TRAINED = "trained"  # tag of the runs that hold a model
FAILURE = "failure"  # tag with the reason why a run did not end well
FINGERPRINT = "data_fingerprint"  # tag that tells the data of a run from others of the same name
STARTED_IN = "started_in"  # tag with the folder where the command was given, at which relative paths begin
PAGE = 10  # runs that are asked for at a time
MOST = 1000  # runs that are looked at to tell what there is
SERVING_PACKAGES = ("mlflow", "tensorflow", "keras", "numpy")


def connect() -> None:
    """Choose the tracking store: MLFLOW_TRACKING_URI, or else ``mlflow.db`` in the working directory.

    In the temporary copy that `dvc exp run --temp` works in, it is the one of the project itself, which stays. A
    database file is made if need be. Raises InputError where it was left half made, or its artifacts do not lie where
    it says.
    """
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        mlflow.set_tracking_uri(f"sqlite:///{project() / DATABASE}")
    database.make_store(mlflow.get_tracking_uri())
    soundness.require_sound(mlflow.get_tracking_uri())


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
    with mlflow.start_run(run_name=name, tags={**_code_state(), **_pipeline(), **tags}) as run, _ended_truthfully():
        # An adopted run keeps the random name that the launcher gave it unless renamed.
        mlflow.set_tag("mlflow.runName", name)
        yield run.info.run_id


@contextmanager
def reopened(run: Run) -> Iterator[None]:
    """Write to a run that has ended; its status and its duration stay those of the training, also after a failure."""
    # RUNNING: somebody else writes to it, or was killed right after it had begun to.
    status = "FINISHED" if run.info.status == "RUNNING" else run.info.status

    def restore() -> None:
        MlflowClient().set_terminated(run.info.run_id, status, run.info.end_time)

    _link_launcher(run.info.run_id)
    mlflow.start_run(run_id=run.info.run_id)
    restore()  # should this process be killed, the run does not look as if it ran for ever
    try:
        yield
    finally:
        mlflow.end_run(status)
        restore()


@contextmanager
def continued(run_id: str | None, name: str, tags: Mapping[str, str]) -> Iterator[str]:
    """Go on in a run that an earlier command left, whatever became of it; a new one where MLflow knows no such run."""
    connect()
    if run_id is None or not knows(run_id):
        with new_run(name, tags) as made:
            yield made
        return
    _link_launcher(run_id)
    with mlflow.start_run(run_id=run_id), _ended_truthfully():
        if FAILURE in mlflow.get_run(run_id).data.tags:
            mlflow.delete_tag(FAILURE)
        yield run_id


@contextmanager
def child(
    parent: str, name: str, tags: Mapping[str, str], stops: tuple[type[BaseException], ...] = ()
) -> Iterator[str]:
    """Start a run below the run `parent`, open here or in another process; `stops` are no failures: KILLED."""
    below = {STARTED_IN: str(Path.cwd()), **tags, "mlflow.parentRunId": parent}
    with mlflow.start_run(run_name=name, tags=below, nested=True) as run, _ended_truthfully(stops):
        yield run.info.run_id


def abandon(run_id: str, reason: str) -> None:
    """End a run whose process is gone as KILLED, with the reason; nothing where MLflow knows no such run."""
    client = MlflowClient()
    try:
        client.set_tag(run_id, FAILURE, reason)
        client.set_terminated(run_id, "KILLED")
    except MlflowException as error:
        log.warning("run %s could not be ended: %s", run_id, passwords.scrubbed(error.message))


@contextmanager
def _ended_truthfully(stops: tuple[type[BaseException], ...] = ()) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        if isinstance(error, (KeyboardInterrupt, SystemExit, *stops)):
            mlflow.end_run("KILLED")
            raise
        mlflow.set_tag(FAILURE, passwords.scrubbed(f"{type(error).__name__}: {error}")[:500])
        raise


def _link_launcher(run_id: str) -> None:
    """`mlflow run -e evaluate` makes a run of its own; put it beneath the run of the model that it judges."""
    launcher = os.environ.pop("MLFLOW_RUN_ID", None)
    if launcher and launcher != run_id:
        client = MlflowClient()
        client.set_tag(launcher, "mlflow.parentRunId", run_id)
        client.set_tag(launcher, "mlflow.note.content", f"Launched by `mlflow run`; the results are in run {run_id}.")


def find(model: str, dataset: str, fingerprint: str | None = None) -> Run:
    """The run of a trained model.

    `model` is a run id, a ``models:/`` URI, the path of a ``run.json`` that `train` wrote, or 'last' for the newest of
    `dataset`. Where the `fingerprint` of the data that are meant is given, the run trained on these: others may be
    called the same. Raises InputError when there is none, and for a run that did not end well.
    """
    connect()
    hint = ""
    if model.endswith(".json"):
        hint = f"; {model} is of another store: train anew, in the pipeline with dvc repro --force train@{dataset}"
        model = _noted_run(Path(model))
    client = MlflowClient()
    try:
        if model == LAST:
            return _last_run(dataset, fingerprint)
        if model.startswith("models:/"):
            run = client.get_run(_run_behind(client, model))
        elif re.fullmatch(r"[0-9a-f]{32}", model):
            run = client.get_run(model)
        else:
            raise InputError(
                "model should be 'last', a run id of 32 hexadecimal digits, a models:/ URI or a run.json, got "
                f"{model!r}"
            )
    except MlflowException as error:
        raise InputError(
            f"model should exist in {store()}, got {model!r}: {passwords.scrubbed(error.message)}{hint}"
        ) from None
    _require_ended_well(run)
    if fingerprint is not None and run.data.tags.get(FINGERPRINT) != fingerprint:
        raise InputError(
            f"model should be trained on the data of {dataset} (fingerprint {fingerprint}), got {_told(run)}; train "
            f"anew, or name the experiment file of those data"
        )
    return run


def _require_ended_well(run: Run) -> None:
    """Raise InputError for a run whose training failed or was stopped, or goes on in another process."""
    active = mlflow.active_run()
    if not _ended_well(run) and not (active and active.info.run_id == run.info.run_id):
        why = run.data.tags.get(FAILURE, "it was stopped, or is not at its end yet")
        raise InputError(
            f"model should be of a run that ended well, got run {run.info.run_id}, which is {run.info.status} ({why}); "
            f"train anew"
        )


def _ended_well(run: Run) -> bool:
    """Whether a run ended FINISHED; one that is open again keeps the end of its training."""
    return run.info.status == "FINISHED" or (run.info.status == "RUNNING" and bool(run.info.end_time))


def _told(run: Run) -> str:
    """A run and its data, for a message."""
    tags = run.data.tags
    return (
        f"run {run.info.run_id} of {tags.get('dataset', 'no data set')!r}, started in "
        f"{tags.get(STARTED_IN, 'an unknown folder')}, with other data (fingerprint {tags.get(FINGERPRINT)})"
    )


def _noted_run(path: Path) -> str:
    try:
        return str(json.loads(path.read_text())["run_id"])
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(
            f"model should be a file with a run_id, as 'deepmerge train --out' writes it, got {path}"
        ) from None


def _last_run(dataset: str, fingerprint: str | None) -> Run:
    named = f"tags.dataset = '{dataset}' and tags.{TRAINED} = 'yes'"
    same = "" if fingerprint is None else f" and tags.{FINGERPRINT} = '{fingerprint}'"
    found = next(_trained_runs(named + same), None)
    if found is not None:
        return found
    other = next(_trained_runs(named), None)
    if other is not None:
        raise InputError(
            f"expected a model trained on the data of {dataset} (fingerprint {fingerprint}) in {store()}, found only "
            f"{_told(other)}; train anew, or name the experiment file of those data"
        )
    others = {run.data.tags["dataset"] for run in islice(_trained_runs(f"tags.{TRAINED} = 'yes'"), MOST)}
    raise InputError(
        f"expected a trained model of dataset {dataset!r} in {store()}, found none "
        f"(of others: {', '.join(sorted(others)) or 'none'}); "
        f"train one with 'deepmerge train {dataset}', or name a run id with --model"
    )


def _trained_runs(condition: str) -> Iterator[Run]:
    """Runs that ended well, newest first."""
    going = "attributes.status != 'FAILED' and attributes.status != 'KILLED'"
    return filter(_ended_well, _newest_runs(f"{condition} and {going}"))


def _newest_runs(condition: str, experiments: Sequence[str] | None = None) -> Iterator[Run]:
    """Runs of these experiments, by default of all, newest first, asked for as they are needed."""
    if experiments is None:
        experiments = [e.experiment_id for e in mlflow.search_experiments()]
    token = None
    while token != "":
        page = MlflowClient().search_runs(
            list(experiments), condition, max_results=PAGE, order_by=["start_time DESC"], page_token=token
        )
        yield from page
        token = page.token or ""


def newest(datasets: Sequence[str]) -> list[Run]:
    """The newest run with a trained model of each data set that has one; by name alone."""
    connect()
    found = (next(_trained_runs(f"tags.dataset = '{name}' and tags.{TRAINED} = 'yes'"), None) for name in datasets)
    return [run for run in found if run is not None]


def newest_studies(kind: str, dataset: str, fingerprint: str | None = None) -> Iterator[Run]:
    """Finished runs of this kind about a data set, newest first; of these data, where a fingerprint tells of them."""
    connect()
    same = "" if fingerprint is None else f" and tags.{FINGERPRINT} = '{fingerprint}'"
    condition = f"tags.kind = '{kind}' and tags.dataset = '{dataset}' and attributes.status = 'FINISHED'{same}"
    yield from _newest_runs(condition)


def newest_study(kind: str, command: str, dataset: str, fingerprint: str | None = None) -> Run:
    """The newest finished run of this kind; InputError, with the command that makes one, where there is none."""
    found = next(newest_studies(kind, dataset, fingerprint), None)
    if found is None:
        data = "" if fingerprint is None else f" (fingerprint {fingerprint})"
        raise InputError(
            f"expected a run of kind {kind} about {dataset!r}{data} in {store()}, found none; make one with '{command}'"
        )
    return found


def _run_behind(client: MlflowClient, uri: str) -> str:
    name = uri.removeprefix("models:/")
    if "@" in name:
        return client.get_model_version_by_alias(*name.split("@", 1)).run_id
    if "/" in name:
        return client.get_model_version(*name.split("/", 1)).run_id
    return client.get_logged_model(name).source_run_id


def log_parameters(parameters: Mapping[str, Any]) -> None:
    """Log settings as they were used. What the launcher logged already, perhaps in another spelling, stays."""
    present = mlflow.get_run(active_id()).data.params
    mlflow.log_params({key: value for key, value in parameters.items() if key not in present})


def log_data(images: np.ndarray, labels: np.ndarray, source: Path, name: str, digest: str) -> None:
    """Note which data the run used; `digest` is our own, since MLflow's looks at the first pixels only."""
    place = get_dataset_source_from_json(json.dumps({"uri": str(source.resolve())}), source_type="local")
    mlflow.log_input(NumpyDataset(images, place, labels, name, digest), context="training")


def log_metrics(metrics: Mapping[str, float], step: int | None = None) -> None:
    """Log metrics on the run and on its model, where it has one; undefined ones (NaN) are left out."""
    defined = {name: float(value) for name, value in metrics.items() if np.isfinite(value)}
    mlflow.log_metrics(defined, step=step, model_id=_model_id(mlflow.get_run(active_id())) if step is None else None)


def log_model(
    model: Any, example: np.ndarray, predictions: np.ndarray, told: Mapping[str, Any], trained: str = "yes"
) -> None:
    """Save a Keras model with signature, example and what `told` says of it, and mark the run as trained.

    Another mark than yes keeps the run from being the newest model of its data set.
    """
    mlflow.tensorflow.log_model(
        model,
        name="model",
        signature=infer_signature(example, predictions),
        input_example=example,
        pip_requirements=[f"{name}=={importlib.metadata.version(name)}" for name in SERVING_PACKAGES],
        metadata=dict(told),
    )
    mlflow.set_tag(TRAINED, trained)


def model_told(run: Run) -> dict[str, Any]:
    """What `log_model` was told of the run's model. Raises InputError when the run has none."""
    return dict(Model.load(model_file(run).parents[1]).metadata or {})


def model_file(run: Run) -> Path:
    """Local path of the Keras file of the run's model. Raises InputError when the run has none."""
    model_id = _model_id(run)
    if model_id is None:
        raise InputError(
            f"run should hold a trained model, got {run.info.run_id} ({run.info.run_name}), which has none"
        )
    return Path(mlflow.artifacts.download_artifacts(f"models:/{model_id}"), "data", "model.keras")


def _model_id(run: Run) -> str | None:
    outputs = run.outputs.model_outputs if run.outputs else []
    return outputs[0].model_id if outputs else None


def read_json(run: Run, path: str) -> Any:
    """Content of a JSON artifact of a run."""
    return json.loads(read_artifact(run, path).read_text())


def describe(text: str) -> None:
    """Write what the run's page in the UI says first, in Markdown."""
    mlflow.set_tag("mlflow.note.content", text)


def log_json(content: Any, path: str) -> None:
    """Log a JSON artifact."""
    mlflow.log_text(json.dumps(content, indent=2), path)


def log_table(table: pd.DataFrame, path: str) -> None:
    """Log a table as an artifact; the suffix of `path` chooses CSV or Parquet."""
    with artifact_folder(str(Path(path).parent)) as folder:
        target = folder / Path(path).name
        if target.suffix == ".parquet":
            table.to_parquet(target, index=False)
        else:
            table.to_csv(target, index=False)


def log_file(path: Path) -> None:
    """Log a file as an artifact of its name."""
    mlflow.log_artifact(str(path))


def knows(run_id: str) -> bool:
    """Whether MLflow has the run, and it was not deleted."""
    try:
        return mlflow.get_run(run_id).info.lifecycle_stage == "active"
    except MlflowException:
        return False


@contextmanager
def artifact_folder(path: str) -> Iterator[Path]:
    """Yield a folder; when the body succeeds, all files in it become artifacts below `path`."""
    with tempfile.TemporaryDirectory(prefix="deepmerge-") as name:
        yield Path(name)
        mlflow.log_artifacts(name, None if path == "." else path)


def read_artifact(run: Run, path: str) -> Path:
    """Local path of an artifact of a run. Raises InputError when the run does not hold it."""
    try:
        return Path(mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path=path))
    except (MlflowException, OSError):
        raise InputError(
            f"run {run.info.run_id} should hold {path}, but does not; was it trained with this version of deepmerge?"
        ) from None


def log_environment() -> None:
    """Log versions of Python and of all packages, and the changes against the commit when there are any."""
    packages = sorted({f"{d.metadata['Name']}=={d.version}" for d in importlib.metadata.distributions()}, key=str.lower)
    mlflow.log_text("\n".join(packages) + "\n", "environment/packages.txt")
    machine = {"python": sys.version, "platform": platform.platform(), "processors": os.cpu_count()}
    log_json(machine, "environment/machine.json")
    difference = _git("diff", "HEAD")
    if difference:
        mlflow.log_text(difference, "environment/uncommitted.diff")


def _code_state() -> dict[str, str]:
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return {"git_commit": "none", "git_dirty": "unknown"}
    # The pipeline writes these while it runs; data are told apart by their fingerprint, settings are on the run.
    written = [f":(exclude,top){path}" for path in ("dvc.lock", "data.dvc", "experiments/tuned")]
    changes = _git("status", "--porcelain", "--", ":/", *written)
    return {"git_commit": commit.strip(), "git_dirty": "yes" if changes else "no"}


def _pipeline() -> dict[str, str]:
    """From which folder this process was started, and which DVC stage and experiment it is, if any."""
    told = {
        STARTED_IN: str(Path.cwd()),
        "dvc_stage": os.environ.get("DVC_STAGE"),
        "dvc_experiment": os.environ.get("DVC_EXP_NAME"),
    }
    return {tag: value for tag, value in told.items() if value}


def _git(*arguments: str) -> str | None:
    """Output of a git command on the folder of this code; None where it is not in a repository."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=30
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def for_workers() -> dict[str, str]:
    """Environment variables that let other processes write to the store and the experiment of the open run."""
    experiment = mlflow.get_run(active_id()).info.experiment_id
    return {"MLFLOW_TRACKING_URI": mlflow.get_tracking_uri(), "MLFLOW_EXPERIMENT_ID": experiment}


def active_id() -> str:
    """Id of the run that is open."""
    run = mlflow.active_run()
    if run is None:
        raise RuntimeError("no MLflow run is open")
    return run.info.run_id
