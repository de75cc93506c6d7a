"""What can be told without looking at shapes? Simple statistics by forest, on grouped folds."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from deepmerge import config
from deepmerge.analysis import metrics
from deepmerge.data import copies, protocols
from deepmerge.data import dataset as datasets
from deepmerge.data.dataset import Dataset
from deepmerge.data.splits import Split
from deepmerge.estimate import Estimate, flat, read
from deepmerge.jobs.run import Results, warning
from deepmerge.plots.forest import Line, forest
from deepmerge.progress import progress_bar
from deepmerge.studies import base
from deepmerge.studies.base import SHOWN, Caption, Findings, Study
from deepmerge.studies.baselines import forests
from deepmerge.studies.shortcuts import statistics

STUDY = Study(
    "shortcuts",
    "What simple statistics know of the label",
    "deepmerge study shortcuts {}",
    captions={
        "shortcuts": Caption(
            "Simple statistics",
            "A Random Forest on each, over all galaxies, each scored by a forest that had not seen it.",
        )
    },
    tables={"shortcuts": "what simple statistics know of the label, without any shape"},
)
TOGETHER = "all together"
# Of what a network gains over guessing: a statistic that reaches so much of it may be what the network looks at. Ours:
# a statistic that explains most of a score should be named before anyone speaks of shapes.
NEAR = 2 / 3


def find_shortcuts(experiment: config.Experiment, folds: int, pdf: bool = False, out: Path | None = None) -> Results:
    """Ask a Random Forest on each group of simple statistics for the label, in grouped folds over all galaxies.

    Raises InputError where a stage has fewer galaxies than there are folds.
    """
    data = datasets.read(experiment.data, experiment.name)
    splits = protocols.cross(data, experiment.split, folds)
    copies.require_apart(data, splits)
    note = warning(data, splits[0])

    def measure(_: str) -> Findings:
        tables = statistics.of_images(data)
        tables[TOGETHER] = pd.concat(tables, axis=1)
        lines = []
        with progress_bar(f"{len(tables)} groups of statistics of {data.name}", len(tables)) as advance:
            for name, table in tables.items():
                table.columns = [str(column) for column in table.columns]
                lines.append({"statistics": name, **flat(_judged(data, table, splits), "test")})
                advance(note=name)
        knowledge = pd.DataFrame(lines)
        figure = forest(
            [Line(str(line["statistics"]), [read(line, f"test_{name}") for name in SHOWN], 1) for line in lines],
            list(SHOWN.values()),
            references=[0.5, 0.5],
            title=f"What can be told of {data.name} without shapes",
            note=note,
        )
        facts = {"folds": folds, "galaxies": int(data.galaxies.max() + 1)}
        return Findings(
            sentence(knowledge),
            {**facts, **base.named(knowledge, "statistics")},
            {"shortcuts": knowledge},
            {"shortcuts": figure},
        )

    return base.conduct(STUDY, experiment, data, measure, note=note, tags={"split": "galaxy"}, pdf=pdf, out=out)


def _judged(data: Dataset, table: pd.DataFrame, splits: list[Split]) -> dict[str, Estimate]:
    """The metrics SHOWN of a forest on a table of statistics, each galaxy scored by one that had not seen it."""
    rows, scores, fold = [], [], []
    for number, split in enumerate(splits):
        train = np.concatenate([split.train.rows, split.validation.rows])
        scores.append(forests.scores(forests.RANDOM_FOREST, table, data.labels, train)[split.test.rows])
        rows.append(split.test.rows)
        fold.append(np.full(len(split.test), number))
    tested = np.concatenate(rows)
    evaluation = metrics.evaluate(
        data.labels[tested], np.concatenate(scores), data.galaxies[tested], np.concatenate(fold)
    )
    return {name: evaluation.metrics[name] for name in SHOWN}


def sentence(table: pd.DataFrame) -> str:
    """The group of statistics that knows most of the label, and how much it knows."""
    lines = table[table["statistics"] != TOGETHER].to_dict("records")
    best = max(lines, key=lambda line: line["test_auc"])
    return (
        f"Without any shape, AUC **{read(best, 'test_auc').text()}** from {best['statistics']} alone, the best of "
        f"{len(lines)} groups of simple statistics."
    )


def near(measured: Mapping[str, float], network: float) -> str | None:
    """A warning where a statistic reaches NEAR of what the network gains over guessing; None where none does.

    measured: metrics of the study's run, `<statistics>_test_auc` among them; network: AUC of the network.
    """
    suffix = "_test_auc"
    aucs = {name.removesuffix(suffix): value for name, value in measured.items() if name.endswith(suffix)}
    aucs.pop(TOGETHER.replace(" ", "_"), None)
    name, auc = max(aucs.items(), key=lambda item: item[1], default=("", 0.5))
    if not network > 0.5 or auc - 0.5 < NEAR * (network - 0.5):
        return None
    words = name.replace("_", " ")
    return f"Possible shortcut: {words} alone, without any shape: AUC {auc:.3f}, the network {network:.3f}"
