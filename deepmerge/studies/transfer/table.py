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
CALIBRATION = ("log_loss_at_balance", "calibration_error_at_balance")


class Scored(NamedTuple):
    """Test images of one sample, each scored by the networks that had not seen it, one a seed.

    lines: one an image (row, label, galaxy, fold); probability: (seeds, images).
    """

    lines: pd.DataFrame
    probability: np.ndarray


def of_scores(scores: Mapping[str, tuple[Scored, Scored]]) -> pd.DataFrame:
    """One line a training: metrics on the target with the paired change against NONE, AUC on the source, calibration.

    `recovered` is the share of what NONE loses in AUC on the target, against training on it, that a training has back.
    Intervals are over galaxies and seeds; `change_auc_p` is Holm's for all lines but NONE and LABELLED.
    """
    nothing = scores[NONE][1].probability
    lines = []
    for name, (source, target) in scores.items():
        measured, change, p = _on_target(target, nothing)
        lines.append(
            {
                "training": name,
                **base.compared(measured, change),
                "change_auc_p": p if name not in (NONE, LABELLED) else np.nan,
                **flat({"auc": _over_seeds(source)["auc"]}, "source"),
                **flat({metric: measured[metric] for metric in CALIBRATION}, "test"),
                "test_calibration_slope": _slope(target),
                "source_calibration_slope": _slope(source),
            }
        )
    found = pd.DataFrame(lines)
    auc = found.set_index("training")["test_auc"]
    lost = auc[LABELLED] - auc[NONE]
    recovered = (found["test_auc"] - auc[NONE]) / lost if lost > 0 else np.nan
    return found.assign(recovered=recovered, change_auc_p=intervals.holm(found["change_auc_p"].to_numpy(float)))


def _on_target(scored: Scored, nothing: np.ndarray) -> tuple[dict[str, Estimate], dict[str, Estimate], float]:
    """Metrics, their paired change against the scores of `nothing` for the same images, and p of that in AUC."""
    lines = scored.lines
    labels, galaxies, fold = (lines[name].to_numpy() for name in ("label", "galaxy", "fold"))
    change = metrics.difference(labels, scored.probability, nothing, galaxies, fold)
    return _over_seeds(scored), change, metrics.p_value(labels, scored.probability, nothing, galaxies, fold)


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
    share = lines[best]["recovered"]
    back = f", {share:.0%} of what was lost" if np.isfinite(share) else ""
    return f"{text} Best without labels: {best}, {auc[best]}{back}."


def figure(table: pd.DataFrame, title: str, note: str | None) -> Figure:
    """Draw the metrics on the target and the AUC on the source, a line a training."""
    columns = {**{f"test_{name}": label for name, label in SHOWN.items()}, "source_auc": "AUC on the source"}
    lines = [
        Line(str(line["training"]), [read(line, name) for name in columns], int(line["training"] == LABELLED))
        for line in table.to_dict("records")
    ]
    return forest(lines, list(columns.values()), references=[0.5, 0.5, 0.5], title=title, note=note)
