"""Score a trained model on galaxies that it has never seen."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from deepmerge.analysis import metrics, stages
from deepmerge.analysis.measures import FALSE_POSITIVE_RATES
from deepmerge.data import split_table
from deepmerge.data.catalogue import POSITION
from deepmerge.data.splits import Part
from deepmerge.estimate import Estimate, flat
from deepmerge.jobs.judged import PREDICTIONS, Judged, reload
from deepmerge.jobs.run import Results, log_figures, warning, write_json, write_table
from deepmerge.model import prediction
from deepmerge.plots.classes import confusion_matrix, score_histogram
from deepmerge.plots.reliability import Bins, reliability
from deepmerge.plots.roc import RocCurve, roc
from deepmerge.tracking import runs

HEADLINE = ("auc", "balanced_accuracy", "galaxy_auc")


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


def stages_of(table: pd.DataFrame) -> stages.Stages | None:
    """How well predictions tell stages, of the images whose stage is known; None where they do not say any."""
    if not set(prediction.STAGES) <= set(table):
        return None
    known = table[table["stage"].isin(stages.STAGES)]
    each = [known[name].to_numpy() for name in prediction.STAGES]
    probabilities = np.column_stack([*each, 1 - known["probability"].to_numpy()])
    return stages.evaluate(known["stage"].tolist(), probabilities, known["galaxy_id"].to_numpy())


def stage_matrix(told: stages.Stages, note: str | None) -> Figure:
    """What images of each stage are called."""
    shares = told.confusion_fraction
    ends = np.stack([shares.low, shares.high], -1)
    return confusion_matrix(told.confusion, ends, names=stages.STAGES, title="Confusion matrix of stages", note=note)


def log_evaluation(
    evaluation: metrics.Evaluation, test: pd.DataFrame, name: str, note: str | None, pdf: bool
) -> Results:
    """Log metrics and figures of the predictions in `test` on the open run; returns the metrics, stored flat."""
    results = flat(evaluation.metrics, "test")
    figures = drawn(evaluation, test, name, note)
    if (told := stages_of(test)) is not None:
        results |= flat(told.metrics, "test")
        figures["stage_confusion"] = stage_matrix(told, note)
    galaxies = test["galaxy_id"].nunique()
    runs.log_metrics({**results, "test_images": len(test), "test_galaxies": galaxies})
    auc, accuracy, of_galaxies = (evaluation.metrics[metric].text() for metric in HEADLINE)
    runs.describe(
        f"**Test AUC {auc}**, balanced accuracy {accuracy}: {len(test)} images, {galaxies} galaxies, 95 % intervals "
        f"over galaxies. AUC of galaxies, each by the mean of its views: {of_galaxies}. {note or ''}"
    )
    log_figures(figures, pdf)
    return results


def predictions(judged: Judged) -> pd.DataFrame:
    """One line an image of every part: split, row, transform, galaxy_id, view, stage, label, probability.

    And past_probability and future_probability, where the network tells stages; galaxy_probability, the mean over the
    views of a galaxy; ra and dec where the catalogue has them.
    """
    table = split_table.described(judged.split.table(), judged.data)
    placed = judged.data.catalogue.filter(POSITION).iloc[table["row"]].reset_index(drop=True)
    table = pd.concat([table, placed], axis=1)
    everything = Part(table["row"].to_numpy(), table["transform"].to_numpy())
    table = table.assign(**prediction.columns(judged.outputs(everything)))
    views = table.groupby(["split", "galaxy_id", "label"])["probability"]
    return table.assign(galaxy_probability=views.transform("mean"))


def roc_curve(evaluation: metrics.Evaluation, label: str) -> RocCurve:
    """The ROC curve of an evaluation, with its band, its AUC and the point of the threshold."""
    rates = evaluation.confusion_fraction.value
    return RocCurve(
        FALSE_POSITIVE_RATES,
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
    write_table(pd.DataFrame({"fpr": FALSE_POSITIVE_RATES, **rates}), out / "roc.csv")
    fractions = dict(zip(("fraction", "low", "high"), evaluation.fraction, strict=True))
    table = pd.DataFrame({"probability": evaluation.probability, **fractions, "count": evaluation.count})
    write_table(table[table["count"] > 0], out / "reliability.csv")
    classes = np.array(["non-merger", "merger"])
    predicted = classes[(test["probability"] >= 0.5).astype(int)]
    write_table(pd.DataFrame({"true": classes[test["label"]], "predicted": predicted}), out / "confusion.csv")
    write_json(results, out / "metrics.json")
