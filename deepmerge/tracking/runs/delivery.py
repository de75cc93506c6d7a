"""Tell MLflow what was written to a run: at once, or later as the outbox does. Told twice, it stands there once."""

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelOutput, Metric, Param, Run, RunTag
from mlflow.models import Model
from mlflow.models.model import MLMODEL_FILE_NAME
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

from deepmerge.files import replacing
from deepmerge.tracking import looks
from deepmerge.tracking.outbox import Entry
from deepmerge.tracking.runs import integrity

MODEL = "model_id"  # tag with MLflow's id of the model, when that is whole
TRAINED = "trained"  # tag of the runs that hold a model
ENTRY = "entry"  # tag of a model: which one of the run's it is
MOST_METRICS = 1000  # that MLflow takes in one request
AT_ONCE = 100  # parameters, or tags, that MLflow takes in one request


def deliver(run_id: str, entry: Entry, files: Path) -> None:
    """Write an entry to a run; the files that it names lie below `files`. Raises what MLflow raises."""
    _TO[entry["kind"]](MlflowClient(), run_id, entry, files)


def metrics(values: Mapping[str, float], step: int | None) -> dict[str, Any]:
    """Metrics of the run and, where they are of no step, of its model; as of now."""
    return {"kind": "metrics", "values": dict(values), "step": step, "time": _now()}


def history(values: Mapping[str, Sequence[float]], ends: Sequence[float]) -> dict[str, Any]:
    """Metrics of all epochs; ends: when each ended, in seconds since 1970. Undefined ones (NaN) are left out."""
    points = [
        (name, float(value), round(1000 * end), step)
        for name, series in values.items()
        for step, (value, end) in enumerate(zip(series, ends, strict=True), 1)
        if math.isfinite(value)
    ]
    return {"kind": "history", "points": points}


def end(status: str) -> dict[str, Any]:
    """The end of a run, as of now."""
    return {"kind": "end", "status": status, "time": _now()}


def models_of(run: Run) -> list[str]:
    """MLflow's ids of the models of a run."""
    return [str(output.model_id) for output in run.outputs.model_outputs or ()] if run.outputs else []


def _now() -> int:
    return time.time_ns() // 1_000_000


def _metrics(client: MlflowClient, run_id: str, entry: Entry, files: Path) -> None:
    step, model = entry["step"], None
    if step is None:
        run = client.get_run(run_id)
        held = models_of(run)
        model = run.data.tags.get(MODEL, held[0]) if held else None
    client.log_batch(
        run_id,
        metrics=[
            Metric(name, value, entry["time"], step or 0, model_id=model) for name, value in entry["values"].items()
        ],
    )


def _history(client: MlflowClient, run_id: str, entry: Entry, files: Path) -> None:
    for start in range(0, len(entry["points"]), MOST_METRICS):
        points = entry["points"][start : start + MOST_METRICS]
        client.log_batch(run_id, metrics=[Metric(*point) for point in points])


def _parameters(client: MlflowClient, run_id: str, entry: Entry, files: Path) -> None:
    present = client.get_run(run_id).data.params
    missing = [Param(name, value) for name, value in entry["values"].items() if name not in present]
    for start in range(0, len(missing), AT_ONCE):
        client.log_batch(run_id, params=missing[start : start + AT_ONCE])


def _tags(client: MlflowClient, run_id: str, entry: Entry, files: Path) -> None:
    client.log_batch(run_id, tags=[RunTag(name, value) for name, value in entry["values"].items()])


def _data(client: MlflowClient, run_id: str, entry: Entry, files: Path) -> None:
    data = DatasetInput(Dataset(**entry["data"]), [InputTag(MLFLOW_DATASET_CONTEXT, "training")])
    client.log_inputs(run_id, [data])


def _files(client: MlflowClient, run_id: str, entry: Entry, files: Path) -> None:
    client.log_artifacts(run_id, str(files / entry["folder"]))


def _look(client: MlflowClient, run_id: str, entry: Entry, files: Path) -> None:
    looks.count(run_id, entry["images"])


def _end(client: MlflowClient, run_id: str, entry: Entry, files: Path) -> None:
    client.set_terminated(run_id, entry["status"], entry["time"])


def _model(client: MlflowClient, run_id: str, entry: Entry, files: Path) -> None:
    """It is the one model of the run; another one, which a process may have left that was killed, is deleted."""
    folder = files / entry["folder"]
    run = client.get_run(run_id)
    experiment = run.info.experiment_id
    found = client.search_logged_models([experiment], f"source_run_id = '{run_id}'")
    ours = [model for model in found if model.tags.get(ENTRY) == entry["id"]]
    for other in {*models_of(run), *(model.model_id for model in found)} - {model.model_id for model in ours[:1]}:
        client.delete_logged_model(other)
    if ours:
        model = ours[0]
    else:
        model = client.create_logged_model(experiment, "model", run_id, {ENTRY: entry["id"]}, run.data.params)
    if model.model_id not in models_of(run):
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, 0)])
    described = Model.load(str(folder))
    described.model_id = described.model_uuid = model.model_id
    described.run_id, described.artifact_path = run_id, model.artifact_location
    with replacing(folder / MLMODEL_FILE_NAME) as aside:  # this process may be reading it
        described.save(str(aside))
    client.log_model_artifacts(model.model_id, str(folder))
    client.finalize_logged_model(model.model_id, "READY")
    told = {MODEL: model.model_id, TRAINED: entry["trained"], integrity.FILES: integrity.digests(folder)}
    client.log_batch(run_id, tags=[RunTag(name, value) for name, value in told.items()])


_TO = {
    "metrics": _metrics,
    "history": _history,
    "parameters": _parameters,
    "tags": _tags,
    "data": _data,
    "files": _files,
    "look": _look,
    "model": _model,
    "end": _end,
}
