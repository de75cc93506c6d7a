"""Score a trained model on galaxies that it has never seen."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from deepmerge.analysis import metrics
from deepmerge.data import split_table
from deepmerge.data.catalogue import POSITION
from deepmerge.data.splits import Part
from deepmerge.estimate import Estimate, flat
from deepmerge.jobs.judged import PREDICTIONS, Judged, reload
from deepmerge.jobs.run import Results, log_figures, warning, write_json, write_table
from deepmerge.plots.classes import confusion_matrix, score_histogram
from deepmerge.plots.reliability import Bins, reliability
from deepmerge.plots.roc import RocCurve, roc
from deepmerge.tracking import runs

HEADLINE = ("auc", "balanced_accuracy")


def evaluate(dataset: str, model: str, pdf: bool = False, out: Path | None = None) -> Results:
    """Score a trained model on its test galaxies; the results go to the model's own run.

    `out` is a folder for ``metrics.json`` and the tables behind the figures.
    """
    judged = reload(dataset, model)
    with runs.reopened(judged.run):
        return {"run_id": judged.run.info.run_id, **evaluate_in_run(judged, pdf, out)}


def evaluate_in_run(judged: Judged, pdf: bool, out: Path | None = None) -> Results:
    """Score a model in its own run, which is open."""
    table = predictions(judged)
    runs.log_table(table, PREDICTIONS)
    test = table[table["split"] == "test"]
    evaluation = measured(test)
    results = log_evaluation(evaluation, test, judged.data.name, warning(judged.data, judged.split), pdf)
    if out is not None:
        _write_tables(evaluation, test, results, out)
    return results


def measured(table: pd.DataFrame) -> metrics.Evaluation:
    """The evaluation of predictions, a line an image."""
    return metrics.evaluate(*(table[name].to_numpy() for name in ("label", "probability", "galaxy_id")))


def log_evaluation(
    evaluation: metrics.Evaluation, test: pd.DataFrame, name: str, note: str | None, pdf: bool
) -> Results:
    """Log metrics and figures of the predictions in `test` on the open run; returns the metrics, stored flat."""
    results = flat(evaluation.metrics, "test")
    galaxies = test["galaxy_id"].nunique()
    runs.log_metrics({**results, "test_images": len(test), "test_galaxies": galaxies})
    auc, accuracy = (evaluation.metrics[metric].text() for metric in HEADLINE)
    runs.describe(
        f"**Test AUC {auc}**, balanced accuracy {accuracy}: {len(test)} images, {galaxies} galaxies, 95 % intervals "
        f"over galaxies. {note or ''}"
    )
    log_figures(drawn(evaluation, test, name, note), pdf)
    return results


def predictions(judged: Judged) -> pd.DataFrame:
    """One line an image of every part: split, row, transform, galaxy_id, view, stage, label, probability.

    And ra and dec where the catalogue has them.
    """
    table = split_table.described(judged.split.table(), judged.data)
    placed = judged.data.catalogue.filter(POSITION).iloc[table["row"]].reset_index(drop=True)
    table = pd.concat([table, placed], axis=1)
    everything = Part(table["row"].to_numpy(), table["transform"].to_numpy())
    return table.assign(probability=judged.scores(everything, afresh=True))


def roc_curve(evaluation: metrics.Evaluation, label: str) -> RocCurve:
    """The ROC curve of an evaluation, with its band, its AUC and the point of the threshold."""
    rates = evaluation.confusion_fraction.value
    return RocCurve(
        metrics.FALSE_POSITIVE_RATES,
        *evaluation.true_positive_rate,
        auc=evaluation.metrics["auc"],
        operating_point=(rates[0, 1], rates[1, 1]),
        label=label,
    )


def drawn(evaluation: metrics.Evaluation, test: pd.DataFrame, name: str, note: str | None) -> dict[str, Figure]:
    """The figures of an evaluation of the images in `test`."""
    counts, fractions = evaluation.confusion, evaluation.confusion_fraction
    observed = [Estimate(*numbers) for numbers in zip(*evaluation.fraction, strict=True)]
    bins = Bins(evaluation.probability, observed, {"images": evaluation.count})
    return {
        "confusion_matrix": confusion_matrix(counts, np.stack([fractions.low, fractions.high], -1), note=note),
        "roc": roc([roc_curve(evaluation, name)], note=note),
        "reliability": reliability({"": bins}, note=note),
        "scores": score_histogram(test["probability"].to_numpy(), test["stage"].tolist(), note=note),
    }


def _write_tables(evaluation: metrics.Evaluation, test: pd.DataFrame, results: Results, out: Path) -> None:
    rates = dict(zip(("tpr", "low", "high"), evaluation.true_positive_rate, strict=True))
    write_table(pd.DataFrame({"fpr": metrics.FALSE_POSITIVE_RATES, **rates}), out / "roc.csv")
    fractions = dict(zip(("fraction", "low", "high"), evaluation.fraction, strict=True))
    table = pd.DataFrame({"probability": evaluation.probability, **fractions, "count": evaluation.count})
    write_table(table[table["count"] > 0], out / "reliability.csv")
    classes = np.array(["non-merger", "merger"])
    predicted = classes[(test["probability"] >= 0.5).astype(int)]
    write_table(pd.DataFrame({"true": classes[test["label"]], "predicted": predicted}), out / "confusion.csv")
    write_json(results, out / "metrics.json")
