"""One function a command: train, evaluate, explain. Each composes data, model, analysis and tracking."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from mlflow.entities import Run

from deepmerge import config
from deepmerge.analysis import figures, image_figures, metrics, saliency
from deepmerge.data import dataset as datasets
from deepmerge.data import splits
from deepmerge.data.batches import gather
from deepmerge.data.dataset import Dataset
from deepmerge.data.splits import Split
from deepmerge.errors import InputError
from deepmerge.model import devices, prediction, training
from deepmerge.progress import progress_bar
from deepmerge.tracking import runs

log = logging.getLogger(__name__)

EXAMPLES = 6  # galaxies of each stage in the gallery
PANELS = 2  # galaxies of each kind and certainty among the saliency panels
RECORD = "experiment.json"
SPLIT_TABLE = "split.csv"
PREDICTIONS = "predictions.parquet"
HEADLINE = ("auc", "balanced_accuracy")
SIMULATED = "Simulated demo data, not Illustris"
LEAKS = "Random-row split, as published: test galaxies are in the training set"

Results = dict[str, Any]


def main(experiment: config.Experiment, layer: str | None, pdf: bool) -> Results:
    """Train, evaluate and explain one model, in one run."""
    with _training_run(experiment) as (data, split):
        trained = _train(experiment, data, split, pdf)
        judged = _load(runs.find(trained["run_id"], experiment.name), data, split)
        return {**trained, **_evaluate(judged, pdf), **_gradcam(judged, layer, pdf)}


def train(experiment: config.Experiment, pdf: bool) -> Results:
    """Train on the training part of a data set; the validation part decides when to stop."""
    with _training_run(experiment) as (data, split):
        return _train(experiment, data, split, pdf)


def evaluate(dataset: str, model: str, pdf: bool) -> Results:
    """Score a trained model on its test galaxies; the results go to the model's own run."""
    judged = _reload(dataset, model)
    with runs.reopened(judged.run):
        return {"run_id": judged.run.info.run_id, **_evaluate(judged, pdf)}


def gradcam(dataset: str, model: str, layer: str | None, pdf: bool) -> Results:
    """Map what speaks for either class in every test image; the results go to the model's own run."""
    judged = _reload(dataset, model)
    with runs.reopened(judged.run):
        return {"run_id": judged.run.info.run_id, **_gradcam(judged, layer, pdf)}


@dataclass(frozen=True)
class _Judged:
    """A trained model, its run, and the data and split that it was trained on."""

    run: Run
    data: Dataset
    split: Split
    model: keras.Model


@contextmanager
def _training_run(experiment: config.Experiment) -> Iterator[tuple[Dataset, Split]]:
    threads = devices.prepare()
    data = datasets.read(experiment.data, experiment.name)
    datasets.require_finite(data)
    split = splits.make(data, experiment.split)
    tags = {
        "dataset": experiment.name,
        "data_source": data.data_source,
        "data_fingerprint": data.fingerprint,
        "split": split.protocol,
        "split_fingerprint": split.fingerprint,
        "threads": str(threads),
    }
    with runs.new_run(f"{experiment.name}-{experiment.network.architecture}", tags):
        runs.log_parameters({"dataset": experiment.name, **experiment.settings()})
        runs.log_environment()
        runs.log_json(experiment.model_dump(mode="json"), RECORD)
        runs.log_table(_with_galaxies(split.table(), data), SPLIT_TABLE)
        runs.log_data(data.images, data.labels, experiment.data.images, data.name, data.fingerprint)
        if split.protocol == "rows":
            shared = splits.shared_galaxies(data, split)
            log.warning("%s (%.0f %% of the test images)", LEAKS, 100 * shared)
            runs.log_metrics({"test_shared_galaxies": shared})
        yield data, split


def _reload(dataset: str, model: str) -> _Judged:
    devices.prepare()
    run = runs.find(model, Path(dataset).stem)
    experiment = config.from_record(runs.read_json(run, RECORD), f"{RECORD} of run {run.info.run_id}")
    data = datasets.read(experiment.data, experiment.name)
    trained_on = run.data.tags["data_fingerprint"]
    if data.fingerprint != trained_on:
        raise InputError(
            f"{experiment.data.images} and its labels and catalogue should be those of run {run.info.run_id} "
            f"(fingerprint {trained_on}), got {data.fingerprint}; bring the old data back or train anew"
        )
    table = pd.read_csv(runs.read_artifact(run, SPLIT_TABLE))
    return _load(run, data, splits.from_table(table, run.data.tags["split"]))


def _load(run: Run, data: Dataset, split: Split) -> _Judged:
    return _Judged(run, data, split, prediction.load(runs.model_file(run)))


def _train(experiment: config.Experiment, data: Dataset, split: Split, pdf: bool) -> Results:
    with progress_bar(f"Training on {data.name}", experiment.training.epochs) as advance:

        def report(epoch: int, values: Mapping[str, float]) -> None:
            runs.log_metrics({_metric_name(name): value for name, value in values.items()}, step=epoch)
            advance(note=f"validation loss {values['val_loss']:.3f}")

        trained = training.train(data, split, experiment, report)
    best = {
        f"best_{name}": values[trained.best_epoch - 1]
        for name, values in trained.history.items()
        if name.startswith("val_")
    }
    example = gather(data.images, split.train.rows[:2])
    runs.log_model(trained.model, example, np.asarray(trained.model(example, training=False)))
    runs.log_metrics({"best_epoch": trained.best_epoch, **best})
    runs.log_json(trained.history, "history.json")
    note = _note(data, split)
    drawn = {
        "history": figures.history(trained.history, trained.best_epoch, note=note),
        "examples": _examples(data, split, note),
    }
    _log_figures(drawn, pdf)
    return {"run_id": runs.active_id(), "best_epoch": trained.best_epoch, **best}


def _evaluate(judged: _Judged, pdf: bool) -> Results:
    data, split = judged.data, judged.split
    table = _with_galaxies(split.table(), data)
    table["label"] = data.labels[table["row"]]
    table["stage"] = data.catalogue["stage"].to_numpy()[table["row"]]
    rows, transforms = table["row"].to_numpy(), table["transform"].to_numpy()
    with progress_bar(f"Scoring {data.name}", len(rows)) as advance:
        table["probability"] = prediction.predict(judged.model, data.images, rows, transforms, advance)
    runs.log_table(table, PREDICTIONS)

    test = table[table["split"] == "test"]
    found = metrics.evaluate(test["label"].to_numpy(), test["probability"].to_numpy(), test["galaxy_id"].to_numpy())
    measured = metrics.flat(found.metrics, "test")
    runs.log_metrics({**measured, "test_images": len(test), "test_galaxies": test["galaxy_id"].nunique()})
    auc, accuracy = (f"{e.value:.3f} [{e.low:.3f}, {e.high:.3f}]" for e in (found.metrics[name] for name in HEADLINE))
    runs.describe(
        f"**Test AUC {auc}**, balanced accuracy {accuracy}: {len(test)} images of {test['galaxy_id'].nunique()} galaxies, "
        f"95 % intervals over galaxies. {_note(data, split) or ''}"
    )
    _log_figures(_evaluation_figures(found, test, judged), pdf)
    return measured


def _evaluation_figures(found: metrics.Evaluation, test: pd.DataFrame, judged: _Judged) -> dict[str, Figure]:
    note = _note(judged.data, judged.split)
    fractions, band, reliable = found.confusion_fraction, found.true_positive_rate, found.fraction
    curve = figures.RocCurve(
        metrics.FALSE_POSITIVE_RATES,
        *band,
        auc=found.metrics["auc"],
        operating_point=(fractions.value[0, 1], fractions.value[1, 1]),
        label=judged.data.name,
    )
    return {
        "confusion_matrix": figures.confusion_matrix(
            found.confusion, np.stack([fractions.low, fractions.high], -1), note=note
        ),
        "roc": figures.roc([curve], note=note),
        "reliability": figures.reliability(found.probability, *reliable, found.count, note=note),
        "scores": figures.score_histogram(test["probability"].to_numpy(), test["stage"].tolist(), note=note),
    }


def _gradcam(judged: _Judged, layer: str | None, pdf: bool) -> Results:
    data, part = judged.data, judged.split.test
    explainer = saliency.GradCam(judged.model, layer)
    labels = data.labels[part.rows]
    probabilities = prediction.predict(judged.model, data.images, part.rows, part.transforms)
    with runs.artifact_folder("saliency") as folder:
        maps = np.lib.format.open_memmap(
            folder / "test_maps.npy", "w+", np.float32, (len(part), len(saliency.TARGETS), *data.images.shape[2:])
        )
        start = 0
        with progress_bar(f"Grad-CAM on {data.name}", len(part)) as advance:
            for piece in explainer.batches(prediction.batches(data.images, part.rows, part.transforms)):
                maps[start : start + len(piece)] = piece
                start += len(piece)
                advance(len(piece))
        maps.flush()
        table = pd.DataFrame(
            {"row": part.rows, "transform": part.transforms, "label": labels, "probability": probabilities}
        )
        _with_galaxies(table, data).to_csv(folder / "test_maps.csv", index=False)
        (folder / "README.txt").write_text(
            f"test_maps.npy (images, targets, height, width): Grad-CAM of layer {explainer.layer.name} for the "
            f"targets {', '.join(saliency.TARGETS)}, in units of the logit, not normalised.\n"
            "Line i of test_maps.csv is image i.\n"
        )
        _log_figures({"gradcam": _panels(judged, maps, labels, probabilities)}, pdf)
        pointing = _pointing(judged, maps, labels, probabilities)
    runs.log_metrics(pointing)
    return {"gradcam_layer": explainer.layer.name, **pointing}


def _panels(judged: _Judged, maps: np.ndarray, labels: np.ndarray, probabilities: np.ndarray) -> Figure:
    data, part = judged.data, judged.split.test
    galaxies = data.catalogue["galaxy_id"].to_numpy()[part.rows]
    chosen = saliency.panel_rows(labels, probabilities, per_kind=PANELS, galaxies=galaxies)
    picks = [
        (row, kind, certainty)
        for kind, panel in chosen.items()
        for certainty, rows in panel._asdict().items()
        for row in rows
    ]
    rows = np.array([row for row, _, _ in picks], dtype=np.int64)
    shown = np.moveaxis(gather(data.images, part.rows[rows], part.transforms[rows]), -1, 1)
    masks = None
    if data.masks is not None:
        masks = gather(data.masks[:, np.newaxis], part.rows[rows], part.transforms[rows])[..., 0]
    return image_figures.gradcam_panels(
        shown,
        maps[rows, 0],
        maps[rows, 1],
        captions=[f"galaxy {galaxies[row]}   P(merger) = {probabilities[row]:.2f}" for row in rows],
        kinds=[kind for _, kind, _ in picks],
        certainties=[certainty for _, _, certainty in picks],
        masks=masks,
        filters=data.filters,
        note=_note(data, judged.split),
    )


def _pointing(judged: _Judged, maps: np.ndarray, labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """How often the merger map of a true positive peaks on the known merger features, where these are known."""
    data, part = judged.data, judged.split.test
    if data.masks is None:
        return {}
    hits = np.flatnonzero((labels == 1) & (probabilities >= 0.5))
    rows, transforms = part.rows[hits], part.transforms[hits]
    masks = gather(data.masks[:, np.newaxis], rows, transforms)[..., 0]
    game = saliency.pointing(maps[hits, 0], masks, gather(data.images, rows, transforms)[..., -1])
    return {f"test_pointing_{name}": float(value) for name, value in asdict(game).items()}


def _examples(data: Dataset, split: Split, note: str | None) -> Figure:
    """A gallery of training galaxies, the first view of each; the test galaxies stay unseen."""
    catalogue = data.catalogue.iloc[split.train.rows]
    first = catalogue[~catalogue["galaxy_id"].duplicated()].groupby("stage", sort=False).head(EXAMPLES)
    first = first.sort_values("stage", key=lambda stages: stages.map(datasets.STAGES.index), kind="stable")
    rows = first.index.to_numpy()
    return image_figures.gallery(
        np.asarray(data.images[rows]),
        titles=[f"galaxy {galaxy}" for galaxy in first["galaxy_id"]],
        filters=data.filters,
        groups=first["stage"].tolist(),
        note=note,
    )


def _with_galaxies(table: pd.DataFrame, data: Dataset) -> pd.DataFrame:
    known = data.catalogue.iloc[table["row"].to_numpy()]
    return table.assign(galaxy_id=known["galaxy_id"].to_numpy(), view=known["view"].to_numpy())


def _metric_name(name: str) -> str:
    return name if name.startswith("val_") else f"train_{name}"


def _note(data: Dataset, split: Split) -> str | None:
    parts = [SIMULATED] * (data.data_source == "simulated") + [LEAKS] * (split.protocol == "rows")
    return ". ".join(parts) or None


def _log_figures(drawn: Mapping[str, Figure], pdf: bool) -> None:
    with runs.artifact_folder("figures") as folder:
        for name, figure in drawn.items():
            figures.save(figure, folder / name, pdf=pdf)
