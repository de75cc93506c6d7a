"""What the trainings reach on source and target, in a table, a sentence and a figure."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from deepmerge.analysis import intervals, metrics, miscalibration
from deepmerge.analysis.sample import Sample
from deepmerge.estimate import Estimate, flat, read
from deepmerge.plots.forest import Line, forest
from deepmerge.studies import base
from deepmerge.studies.base import SHOWN

NONE, LABELLED = "as it is", "trained on the target"
RECOVERED = "recovered"
CALIBRATION = ("log_loss_at_balance", "calibration_error_at_balance")


class Scored(NamedTuple):
    """Test images of one sample, each scored by the networks that had not seen it, one a seed.

    lines: one an image (row, label, galaxy, fold); probability: (seeds, images).
    """

    lines: pd.DataFrame
    probability: np.ndarray


def of_scores(scores: Mapping[str, tuple[Scored, Scored]]) -> pd.DataFrame:
    """One line a training: metrics on the target with the paired change against NONE, AUC on the source, calibration.

    RECOVERED is the share of what NONE loses in AUC on the target, against training on it, that a training has back.
    Intervals are over galaxies and seeds; `change_auc_p` is Holm's for all lines but NONE and LABELLED.
    """
    nothing, everything = (scores[name][1].probability for name in (NONE, LABELLED))
    lines = []
    for name, (source, target) in scores.items():
        labels, galaxies, fold = (target.lines[column].to_numpy() for column in ("label", "galaxy", "fold"))
        measured = _over_seeds(target)
        change = metrics.difference(labels, target.probability, nothing, galaxies, fold)
        p = metrics.p_value(labels, target.probability, nothing, galaxies, fold)
        share = metrics.recovered(labels, target.probability, nothing, everything, galaxies, fold)
        lines.append(
            {
                "training": name,
                **base.compared(measured, change),
                "change_auc_p": p if name not in (NONE, LABELLED) else np.nan,
                **share.flat(RECOVERED),
                **flat({"auc": _over_seeds(source)["auc"]}, "source"),
                **flat({metric: measured[metric] for metric in CALIBRATION}, "test"),
                "test_calibration_slope": _slope(target),
                "source_calibration_slope": _slope(source),
            }
        )
    found = pd.DataFrame(lines)
    return found.assign(change_auc_p=intervals.holm(found["change_auc_p"].to_numpy(float)))


def _over_seeds(scored: Scored) -> dict[str, Estimate]:
    lines = scored.lines
    labels, galaxies, fold = (lines[name].to_numpy() for name in ("label", "galaxy", "fold"))
    return metrics.over_seeds(labels, scored.probability, galaxies, fold)


def _slope(scored: Scored) -> float:
    """The calibration slope, the mean over the seeds; 1 is right, below 1 too sure."""
    labels, galaxies = scored.lines["label"].to_numpy(), scored.lines["galaxy"].to_numpy()
    samples = [Sample.of(labels, each, galaxies) for each in scored.probability]
    return float(np.mean([miscalibration.measure(sample)[miscalibration.SLOPE].value for sample in samples]))


def sentence(table: pd.DataFrame, target: str) -> str:
    """What is lost on the target, and what carries over best."""
    lines = {str(line["training"]): line for line in table.to_dict("records")}
    auc = {name: read(line, "test_auc").text() for name, line in lines.items()}
    text = f"AUC on {target}: **{auc[NONE]}** {NONE}, {auc[LABELLED]} {LABELLED}."
    others = [name for name in lines if name not in (NONE, LABELLED)]
    best = max(others, key=lambda name: lines[name]["test_auc"])
    share = read(lines[best], RECOVERED)
    if share.low <= 0:
        return f"{text} Without labels nothing brings back any of it for certain; highest: {best}, {auc[best]}."
    percent = Estimate(*(100 * end for end in share))
    back = f", {percent.text('.0f')} % of what was lost" if np.isfinite(share.value) else ""
    return f"{text} Best without labels: {best}, {auc[best]}{back}."


def figure(table: pd.DataFrame, title: str, note: str | None) -> Figure:
    """Draw the metrics on the target, the share of the loss recovered and the AUC on the source, a line a training."""
    shown = {f"test_{name}": label for name, label in SHOWN.items()}
    columns = {**shown, RECOVERED: "Share of the loss recovered", "source_auc": "AUC on the source"}
    lines = [
        Line(str(line["training"]), [read(line, name) for name in columns], int(line["training"] == LABELLED))
        for line in table.to_dict("records")
    ]
    return forest(lines, list(columns.values()), references=[0.5, 0.5, 1.0, 0.5], title=title, note=note)
