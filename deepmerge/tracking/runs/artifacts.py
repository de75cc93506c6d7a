"""Log to the open run, and read what a run holds: parameters, metrics, its model, tables and files."""

import importlib.metadata
import json
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
from deepmerge.files import folder_aside
from deepmerge.tracking import looks, passwords
from deepmerge.tracking.runs import delivery, integrity
from deepmerge.tracking.runs.delivery import MODEL
from deepmerge.tracking.runs.provenance import environment
from deepmerge.tracking.runs.writing import active_id, holds_only_ours, is_open, parcel_of, write

MODEL_FOLDER = "logged-model"  # where a model lies among the files of a parcel
FINGERPRINT = "data_fingerprint"  # tag that tells the data of a run from others of the same name
SERVING_PACKAGES = ("mlflow", "tensorflow", "keras", "numpy")


def log_parameters(parameters: Mapping[str, Any]) -> None:
    """Log settings as they were used. What the launcher logged already, perhaps in another spelling, stays."""
    write({"kind": "parameters", "values": {name: str(value) for name, value in parameters.items()}})


def log_data(images: np.ndarray, labels: np.ndarray, source: Path, name: str, digest: str) -> None:
    """Note which data the run used; `digest` is our own, since MLflow's looks at the first pixels only."""
    place = get_dataset_source_from_json(json.dumps({"uri": str(source.resolve())}), source_type="local")
    write({"kind": "data", "data": NumpyDataset(images, place, labels, name, digest).to_dict()})


def log_metrics(metrics: Mapping[str, float], step: int | None = None) -> None:
    """Log metrics on the run and on its model, where it has one; undefined ones (NaN) are left out."""
    defined = {name: float(value) for name, value in metrics.items() if np.isfinite(value)}
    write(delivery.metrics(defined, step))


def logged_steps(metric: str) -> set[int]:
    """Steps at which a metric stands on the open run."""
    if holds_only_ours(active_id()):
        return set()  # a process that goes on in a run asks for the steps of the one before it
    return {entry.step for entry in MlflowClient().get_metric_history(active_id(), metric)}


def log_history(values: Mapping[str, Sequence[float]], ends: Sequence[float]) -> None:
    """Log metrics of all epochs, a value for each; ends: when each ended, in seconds since 1970."""
    write(delivery.history(values, ends))


def log_model(
    model: Any, example: np.ndarray, predictions: np.ndarray, metadata: Mapping[str, Any], trained: str = "yes"
) -> None:
    """Save a Keras model with its `metadata`, and mark the run: only with yes it can be the newest of its data set.

    It is the one model of the run. Another one, which a process may have left that was killed meanwhile, is deleted.
    """
    with _folder_to_write() as folder:
        mlflow.tensorflow.save_model(
            model,
            str(folder / MODEL_FOLDER),
            signature=infer_signature(example, predictions),
            input_example=example,
            pip_requirements=[f"{name}=={importlib.metadata.version(name)}" for name in SERVING_PACKAGES],
            metadata=dict(metadata),
        )
        place = f"{folder.name}/{MODEL_FOLDER}"
        write({"kind": "model", "folder": place, "id": uuid.uuid4().hex, "trained": trained}, folder.parent)


def model_metadata(run: Run) -> dict[str, Any]:
    """The metadata that `log_model` saved with the run's model. Raises InputError when the run has none."""
    return dict(Model.load(model_file(run).parents[1]).metadata or {})


def model_file(run: Run) -> Path:
    """Local path of the Keras file of the run's model.

    Raises InputError when the run has none, or its files are not those that were logged.
    """
    if (here := _kept(run, f"{MODEL_FOLDER}/data/model.keras")) is not None:
        return here
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
    for found in [run.data.tags[MODEL]] if MODEL in run.data.tags else delivery.models_of(run):
        return found
    raise InputError(f"run should hold a trained model, got {run.info.run_id} ({run.info.run_name}), which has none")


def _folder(model: str) -> Path:
    # Not by models:/, since MLflow then writes a file beside the model that it reads.
    return Path(mlflow.artifacts.download_artifacts(MlflowClient().get_logged_model(model).artifact_location))


def set_tags(tags: Mapping[str, str]) -> None:
    """Add tags to the open run, all or none."""
    write({"kind": "tags", "values": {name: str(value) for name, value in tags.items()}})


def describe(text: str) -> None:
    """Write what the run's page in the UI says first, in Markdown."""
    set_tags({"mlflow.note.content": text})


def log_json(content: Any, path: str) -> None:
    """Log a JSON artifact."""
    log_text(json.dumps(content, indent=2), path)


def log_text(text: str, path: str) -> None:
    """Log a text artifact."""
    with artifact_folder(str(Path(path).parent)) as folder:
        (folder / Path(path).name).write_text(text, encoding="utf-8")


def log_environment() -> None:
    """Log what the run's code ran with: packages, machine, changes against the commit."""
    with artifact_folder("environment") as folder:
        for name, text in environment().items():
            (folder / name).write_text(text, encoding="utf-8")


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
    with artifact_folder(".") as folder:
        shutil.copyfile(path, folder / path.name)


@contextmanager
def artifact_folder(path: str) -> Iterator[Path]:
    """Yield a folder; when the body succeeds, all files in it become artifacts below `path`."""
    with _folder_to_write() as folder:
        below = folder / path
        below.mkdir(parents=True, exist_ok=True)
        yield below
        write({"kind": "files", "folder": folder.name}, folder.parent)


@contextmanager
def _folder_to_write() -> Iterator[Path]:
    """Yield a folder for files that are to be written to the open run: in its parcel, or a temporary one."""
    parcel = parcel_of(active_id())
    if parcel is None:
        with folder_aside("deepmerge") as folder:
            yield folder
        return
    folder = parcel.new_folder()
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()  # its number is taken
        raise


def count_look(run_id: str, images: str) -> None:
    """Note that the model of a run scored test images, of which `images` is the fingerprint."""
    if is_open(run_id):
        write({"kind": "look", "images": images})
    else:
        looks.count(run_id, images)


def _kept(run: Run, path: str) -> Path | None:
    """A file that this process wrote to the run and may still have to deliver."""
    parcel = parcel_of(run.info.run_id)
    return None if parcel is None else parcel.find(path)


def read_artifact(run: Run, path: str) -> Path:
    """Local path of an artifact of a run. Raises InputError when the run does not hold it."""
    if (here := _kept(run, path)) is not None:
        return here
    try:
        if holds_only_ours(run.info.run_id):
            raise FileNotFoundError(path)
        return Path(mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path=path))
    except (MlflowException, OSError):
        raise InputError(
            f"run {run.info.run_id} should hold {path}, but does not; was it trained with this version of deepmerge?"
        ) from None


def read_json(run: Run, path: str) -> Any:
    """Content of a JSON artifact of a run."""
    return json.loads(read_artifact(run, path).read_text())
