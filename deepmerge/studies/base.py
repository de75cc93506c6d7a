"""What makes a study: what it declares, what it finds, and the one runner that logs it."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from deepmerge import config
from deepmerge.data import dataset as datasets
from deepmerge.data.dataset import Dataset
from deepmerge.estimate import METRICS, Estimate, flat, read
from deepmerge.jobs.run import LEAKS, SIMULATED, Results, log_figures, open_run, write_json, write_table
from deepmerge.model import devices
from deepmerge.plots.forest import Line, forest
from deepmerge.tracking import runs

RESULT = "study.json"  # what a report reads of a study
SHARE, DIFFERENCE = (0.0, 1.0), (-1.0, 1.0)  # between which a metric lies, and a difference of two
SHOWN = {name: METRICS[name].label for name in ("auc", "balanced_accuracy")}  # columns of a forest plot, with labels

TABULATED = (*SHOWN, "galaxy_auc")


class Caption(NamedTuple):
    """The title of a figure, and a sentence on how to read it."""

    title: str
    text: str


MODEL_FIGURES = {
    "roc": Caption("ROC curve", "Completeness against the share of non-mergers that are called mergers."),
    "reliability": Caption(
        "Reliability", "Share of mergers among images of a predicted probability, at the sample's own ratio."
    ),
    "confusion_matrix": Caption("Confusion matrix", "Images by true and predicted class, at a probability of 0.5."),
    "stage_confusion": Caption(
        "Confusion matrix of stages", "Images by true stage, and by the one that the network finds most probable."
    ),
    "scores": Caption("Scores by stage", "How the predicted probabilities of each stage are spread."),
    "history": Caption("Training history", "The weights kept are those of the star."),
    "gradcam": Caption(
        "Where the network looked", "What spoke for a merger and against it, in images of every kind of answer."
    ),
}


@dataclass(frozen=True)
class Study:
    """What a kind of study declares: the title and command line ({}: data set) of its section in a report.

    captions, tables: of the figures and tables that the section shows, by the name of their file.
    """

    kind: str
    title: str
    command: str
    captions: Mapping[str, Caption]
    tables: Mapping[str, str]


@dataclass(frozen=True)
class Findings:
    """What a study found: a sentence in Markdown, estimates and plain facts by name, tables and figures by file."""

    sentence: str
    estimates: Mapping[str, Estimate | float | str]
    tables: Mapping[str, pd.DataFrame]
    figures: Mapping[str, Figure]


def conduct(
    study: Study,
    experiment: config.Experiment,
    data: Dataset,
    measure: Callable[[str], Findings],
    *,
    note: str | None = None,
    tags: Mapping[str, str] | None = None,
    pdf: bool = False,
    out: Path | None = None,
) -> Results:
    """Open the run of a study, measure in it, log the findings and return the results, stored flat.

    measure: takes the run's id, for trainings below it; note: a warning, written behind the sentence. Numbers become
    metrics of the run; results (RESULT, for reports) and tables (CSV) go to the run and the folder `out`.
    """
    with open_run(study.kind, experiment, data, tags=tags) as run_id:
        findings = measure(run_id)
        results: Results = {"run_id": run_id}
        for name, estimate in findings.estimates.items():
            results |= estimate.flat(name) if isinstance(estimate, Estimate) else {name: estimate}
        runs.describe(" ".join(filter(None, (findings.sentence, note))))
        log_figures(findings.figures, pdf)
        runs.log_metrics({name: value for name, value in results.items() if isinstance(value, float | int)})
        with runs.artifact_folder(".") as artifacts:
            for folder in filter(None, (artifacts, out)):
                write_json(results, folder / RESULT)
                for name, table in findings.tables.items():
                    write_table(table, folder / f"{name}.csv")
    return results


def warnings(run: runs.Run) -> list[str]:
    """Warnings that belong on all that is made of a run's model: simulated data, a leaking split."""
    tags = run.data.tags
    return [SIMULATED] * (tags["data_source"] == "simulated") + [LEAKS] * (tags["split"] == "rows")


def opened(experiment: config.Experiment) -> Dataset:
    """The data set of an experiment, ready for training. Raises InputError where pixels are not finite."""
    devices.prepare()
    data = datasets.read(experiment.data, experiment.name)
    datasets.require_finite(data)
    return data


def named(table: pd.DataFrame, column: str) -> dict[str, float]:
    """Each number of a table under the name of its line (what `column` says), fit for MLflow, and of its own column."""
    return {
        f"{re.sub(r'[^a-zA-Z0-9]+', '_', line[column]).strip('_')}_{name}": float(line[name])
        for line in table.to_dict("records")
        for name in table.columns
        if name != column
    }


def compared(metrics: Mapping[str, Estimate], change: Mapping[str, Estimate]) -> dict[str, float]:
    """The metrics TABULATED and their paired change against a reference: `test_…` and `change_…` of a table."""
    return flat({name: metrics[name] for name in TABULATED}, "test") | flat(
        {name: change[name] for name in TABULATED}, "change"
    )


def comparison(
    table: pd.DataFrame, groups: Sequence[int], change: str, *, guess: float | None, title: str, note: str | None
) -> Figure:
    """Draw a table of `compared` lines, named by its first column: the metrics SHOWN and the change of AUC.

    groups: colour of each line; change: title of the last column; guess: what guessing gives, a line to compare with.
    """
    columns = {**{f"test_{name}": label for name, label in SHOWN.items()}, "change_auc": change}
    lines = [
        Line(str(line[table.columns[0]]), [read(line, name) for name in columns], group)
        for line, group in zip(table.to_dict("records"), groups, strict=True)
    ]
    return forest(lines, list(columns.values()), references=[guess, guess, 0.0], title=title, note=note)


def mean_with_interval(values: ArrayLike, bounds: tuple[float, float] = SHARE, overlap: float = 0.0) -> Estimate:
    """Mean of a number within `bounds` over several trainings, (n,), with its 95 % interval.

    overlap: tested galaxies over those trained on, where the trainings share galaxies, being other splits of the same
    sample: they scatter less than trainings on other samples would, and the variance of the mean is (1/n + overlap)
    that of one (Nadeau & Bengio 2003, Machine Learning 52, 239). 0 where they are independent.

    Student's t for the logit of the mean's place between the bounds, its error by the delta method (Brown, Cai &
    DasGupta 2001, Stat. Sci. 16, 101): near the middle the usual interval, near a bound a lopsided one that never gets
    there. The ends are NaN where nothing scatters: one training, all values equal, or a mean at a bound.
    """
    from scipy import special, stats

    array = np.asarray(values, float)
    mean = float(array.mean())
    low, high = bounds
    below, above = mean - low, high - mean
    if len(array) < 2 or not (np.ptp(array) > 0 and below > 0 and above > 0):
        return Estimate(mean, np.nan, np.nan)
    error = array.std(ddof=1) * np.sqrt(1 / len(array) + overlap)
    half = stats.t.ppf(0.975, len(array) - 1) * error * (high - low) / (below * above)
    middle = np.log(below / above)
    ends = low + (high - low) * special.expit([middle - half, middle + half])
    return Estimate(mean, min(float(ends[0]), mean), max(float(ends[1]), mean))
