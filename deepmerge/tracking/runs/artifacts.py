"""Log to the open run, and read what a run holds: parameters, metrics, its model, tables and files."""

import importlib.metadata
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.data.dataset_source_registry import get_dataset_source_from_json
from mlflow.data.numpy_dataset import NumpyDataset
from mlflow.entities import Metric, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.models import Model, infer_signature
from mlflow.tracking import MlflowClient

from deepmerge.errors import InputError
from deepmerge.files import folder_aside
from deepmerge.tracking import passwords
from deepmerge.tracking.runs import integrity
from deepmerge.tracking.runs.opening import active_id

MODEL = "model_id"  # tag with MLflow's id of the model, when that is whole
TRAINED = "trained"  # tag of the runs that hold a model
FINGERPRINT = "data_fingerprint"  # tag that tells the data of a run from others of the same name
MOST_METRICS = 1000  # that MLflow takes at a time
SERVING_PACKAGES = ("mlflow", "tensorflow", "keras", "numpy")


def log_parameters(parameters: Mapping[str, Any]) -> None:
    """Log settings as they were used. What the launcher logged already, perhaps in another spelling, stays."""
    run_id = active_id()
    present = mlflow.get_run(run_id).data.params
    mlflow.log_params({key: value for key, value in parameters.items() if key not in present}, run_id=run_id)


def log_data(images: np.ndarray, labels: np.ndarray, source: Path, name: str, digest: str) -> None:
    """Note which data the run used; `digest` is our own, since MLflow's looks at the first pixels only."""
    place = get_dataset_source_from_json(json.dumps({"uri": str(source.resolve())}), source_type="local")
    mlflow.log_input(NumpyDataset(images, place, labels, name, digest), context="training")


def log_metrics(metrics: Mapping[str, float], step: int | None = None) -> None:
    """Log metrics on the run and on its model, where it has one; undefined ones (NaN) are left out."""
    defined = {name: float(value) for name, value in metrics.items() if np.isfinite(value)}
    run_id = active_id()
    run = mlflow.get_run(run_id) if step is None else None
    of_model = model_id(run) if run and _models_of(run) else None
    mlflow.log_metrics(defined, step=step, run_id=run_id, model_id=of_model)


def logged_steps(metric: str) -> set[int]:
    """Steps at which a metric stands on the open run."""
    return {entry.step for entry in MlflowClient().get_metric_history(active_id(), metric)}


def log_history(values: Mapping[str, Sequence[float]], ends: Sequence[float]) -> None:
    """Log metrics of all epochs, a value for each; ends: when each ended, in seconds since 1970."""
    entries = [
        Metric(name, float(value), round(1000 * end), step)
        for name, series in values.items()
        for step, (value, end) in enumerate(zip(series, ends, strict=True), 1)
        if np.isfinite(value)
    ]
    for start in range(0, len(entries), MOST_METRICS):
        MlflowClient().log_batch(active_id(), entries[start : start + MOST_METRICS])


def log_model(
    model: Any, example: np.ndarray, predictions: np.ndarray, metadata: Mapping[str, Any], trained: str = "yes"
) -> None:
    """Save a Keras model with its `metadata`, and mark the run: only with yes it can be the newest of its data set.

    It is the one model of the run. Another one, which a process may have left that was killed meanwhile, is deleted.
    """
    for earlier in _models_of(mlflow.get_run(active_id())):
        MlflowClient().delete_logged_model(earlier)
    logged = mlflow.tensorflow.log_model(
        model,
        name="model",
        signature=infer_signature(example, predictions),
        input_example=example,
        pip_requirements=[f"{name}=={importlib.metadata.version(name)}" for name in SERVING_PACKAGES],
        metadata=dict(metadata),
    )
    digests = integrity.digests(_folder(logged.model_id))
    set_tags({MODEL: logged.model_id, TRAINED: trained, integrity.FILES: digests})


def model_metadata(run: Run) -> dict[str, Any]:
    """The metadata that `log_model` saved with the run's model. Raises InputError when the run has none."""
    return dict(Model.load(model_file(run).parents[1]).metadata or {})


def model_file(run: Run) -> Path:
    """Local path of the Keras file of the run's model.

    Raises InputError when the run has none, or its files are not those that were logged.
    """
    try:
        folder = _folder(model_id(run))
    except (MlflowException, OSError) as error:
        words = " ".join(str(error).split())
        raise InputError(
            f"the model of run {run.info.run_id} should lie at {passwords.hidden(str(run.info.artifact_uri))}, "
            f"but: {words}; bring the artifacts back, or train anew"
        ) from None
    integrity.require_unchanged(run, folder)
    return folder / "data" / "model.keras"


def model_id(run: Run) -> str:
    """MLflow's id of the run's model. Raises InputError when the run has none."""
    # Runs of before have no tag.
    for found in [run.data.tags[MODEL]] if MODEL in run.data.tags else _models_of(run):
        return found
    raise InputError(f"run should hold a trained model, got {run.info.run_id} ({run.info.run_name}), which has none")


def _models_of(run: Run) -> list[str]:
    return [str(output.model_id) for output in run.outputs.model_outputs or ()] if run.outputs else []


def _folder(model: str) -> Path:
    return Path(mlflow.artifacts.download_artifacts(f"models:/{model}"))


def set_tags(tags: Mapping[str, str]) -> None:
    """Add tags to the open run, all or none."""
    MlflowClient().log_batch(active_id(), tags=[RunTag(name, str(value)) for name, value in tags.items()])


def describe(text: str) -> None:
    """Write what the run's page in the UI says first, in Markdown."""
    set_tags({"mlflow.note.content": text})


def log_json(content: Any, path: str) -> None:
    """Log a JSON artifact."""
    log_text(json.dumps(content, indent=2), path)


def log_text(text: str, path: str) -> None:
    """Log a text artifact."""
    mlflow.log_text(text, path, run_id=active_id())


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
    mlflow.log_artifact(str(path), run_id=active_id())


@contextmanager
def artifact_folder(path: str) -> Iterator[Path]:
    """Yield a folder; when the body succeeds, all files in it become artifacts below `path`."""
    with folder_aside("deepmerge") as folder:
        yield folder
        mlflow.log_artifacts(str(folder), None if path == "." else path, run_id=active_id())


def read_artifact(run: Run, path: str) -> Path:
    """Local path of an artifact of a run. Raises InputError when the run does not hold it."""
    try:
        return Path(mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path=path))
    except (MlflowException, OSError):
        raise InputError(
            f"run {run.info.run_id} should hold {path}, but does not; was it trained with this version of deepmerge?"
        ) from None


def read_json(run: Run, path: str) -> Any:
    """Content of a JSON artifact of a run."""
    return json.loads(read_artifact(run, path).read_text())
