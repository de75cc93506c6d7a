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
from deepmerge.tracking.plugin import EXPERIMENT

log = logging.getLogger(__name__)
# It logs the traceback of what it raises, and how it makes its tables.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)

DATABASE = Path("mlflow.db")
LAST = "last"
TRAINED = "trained"  # tag of the runs that hold a model
FAILURE = "failure"  # tag with the reason why a run did not end well
SERVING_PACKAGES = ("mlflow", "tensorflow", "keras", "numpy")


def connect() -> None:
    """Choose the tracking store: MLFLOW_TRACKING_URI, or else ``mlflow.db`` in the working directory.

    In the temporary copy that `dvc exp run --temp` works in, it is the one of the project itself, which stays.
    """
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        mlflow.set_tracking_uri(f"sqlite:///{project() / DATABASE}")


def project() -> Path:
    """The working directory or, in a temporary copy of it that DVC made, the one that was copied."""
    here = Path.cwd()
    return next((parent.parent for parent in here.parents if parent.name == ".dvc"), here)


def _choose_experiment() -> None:
    """Select the experiment, unless the environment names one or `mlflow run` has already chosen."""
    if not any(os.environ.get(name) for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME")):
        in_a_copy = project() != Path.cwd() and not os.environ.get("MLFLOW_TRACKING_URI")
        if in_a_copy and mlflow.get_experiment_by_name(EXPERIMENT) is None:
            # MLflow would put artifacts into the working directory, which DVC deletes.
            mlflow.create_experiment(EXPERIMENT, artifact_location=(project() / "mlruns" / EXPERIMENT).as_uri())
        mlflow.set_experiment(EXPERIMENT)


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
    _link_launcher(run.info.run_id)
    mlflow.start_run(run_id=run.info.run_id)
    try:
        yield
    finally:
        mlflow.end_run(run.info.status)
        MlflowClient().set_terminated(run.info.run_id, run.info.status, run.info.end_time)


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
    below = {**tags, "mlflow.parentRunId": parent}
    with mlflow.start_run(run_name=name, tags=below, nested=True) as run, _ended_truthfully(stops):
        yield run.info.run_id


def abandon(run_id: str, reason: str) -> None:
    """End a run whose process is gone as KILLED, with the reason; nothing where MLflow knows no such run."""
    client = MlflowClient()
    try:
        client.set_tag(run_id, FAILURE, reason)
        client.set_terminated(run_id, "KILLED")
    except MlflowException as error:
        log.warning("run %s could not be ended: %s", run_id, error.message)


@contextmanager
def _ended_truthfully(stops: tuple[type[BaseException], ...] = ()) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        if isinstance(error, (KeyboardInterrupt, SystemExit, *stops)):
            mlflow.end_run("KILLED")
            raise
        mlflow.set_tag(FAILURE, f"{type(error).__name__}: {error}"[:500])
        raise


def _link_launcher(run_id: str) -> None:
    """`mlflow run -e evaluate` makes a run of its own; put it beneath the run of the model that it judges."""
    launcher = os.environ.pop("MLFLOW_RUN_ID", None)
    if launcher and launcher != run_id:
        client = MlflowClient()
        client.set_tag(launcher, "mlflow.parentRunId", run_id)
        client.set_tag(launcher, "mlflow.note.content", f"Launched by `mlflow run`; the results are in run {run_id}.")


def find(model: str, dataset: str) -> Run:
    """The run of a trained model.

    `model` is a run id, a ``models:/`` URI, the path of a ``run.json`` that `train` wrote, or 'last' for the newest of
    `dataset`. Raises InputError when there is none.
    """
    connect()
    hint = ""
    if model.endswith(".json"):
        hint = f"; {model} is of another store: train anew, in the pipeline with dvc repro --force train@{dataset}"
        model = _noted_run(Path(model))
    client = MlflowClient()
    try:
        if model == LAST:
            return _last_run(dataset)
        if model.startswith("models:/"):
            return client.get_run(_run_behind(client, model))
        if re.fullmatch(r"[0-9a-f]{32}", model):
            return client.get_run(model)
    except MlflowException as error:
        store = mlflow.get_tracking_uri()
        raise InputError(f"model should exist in {store}, got {model!r}: {error.message}{hint}") from None
    raise InputError(
        f"model should be 'last', a run id of 32 hexadecimal digits, a models:/ URI or a run.json, got {model!r}"
    )


def _noted_run(path: Path) -> str:
    try:
        return str(json.loads(path.read_text())["run_id"])
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(
            f"model should be a file with a run_id, as 'deepmerge train --out' writes it, got {path}"
        ) from None


def _last_run(dataset: str) -> Run:
    runs = _trained_runs(f"tags.dataset = '{dataset}' and tags.{TRAINED} = 'yes'")
    if not runs:
        others = {run.data.tags["dataset"] for run in _trained_runs(f"tags.{TRAINED} = 'yes'", most=1000)}
        raise InputError(
            f"expected a trained model of dataset {dataset!r} in {mlflow.get_tracking_uri()}, found none "
            f"(of others: {', '.join(sorted(others)) or 'none'}); "
            f"train one with 'deepmerge train {dataset}', or name a run id with --model"
        )
    return runs[0]


def _trained_runs(condition: str, most: int = 1) -> list[Run]:
    experiments = [e.experiment_id for e in mlflow.search_experiments()]
    return mlflow.search_runs(
        experiments, condition, order_by=["start_time DESC"], max_results=most, output_format="list"
    )


def newest(datasets: Sequence[str]) -> list[Run]:
    """The newest run with a trained model of each data set that has one."""
    connect()
    found = [_trained_runs(f"tags.dataset = '{name}' and tags.{TRAINED} = 'yes'") for name in datasets]
    return [runs[0] for runs in found if runs]


def studies(kind: str, dataset: str) -> list[Run]:
    """Finished runs of this kind about a data set, newest first."""
    connect()
    experiments = [e.experiment_id for e in mlflow.search_experiments()]
    found = f"tags.kind = '{kind}' and tags.dataset = '{dataset}' and attributes.status = 'FINISHED'"
    return mlflow.search_runs(experiments, found, order_by=["start_time DESC"], max_results=10, output_format="list")


def newest_study(kind: str, dataset: str, command: str) -> Run:
    """The newest finished run of this kind; InputError, with the command that makes one, where there is none."""
    found = studies(kind, dataset)
    if not found:
        raise InputError(
            f"expected a run of kind {kind} about {dataset!r} in {mlflow.get_tracking_uri()}, found none; make one "
            f"with '{command}'"
        )
    return found[0]


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
    """Which DVC stage and experiment this process is, if any."""
    told = {"dvc_stage": os.environ.get("DVC_STAGE"), "dvc_experiment": os.environ.get("DVC_EXP_NAME")}
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
