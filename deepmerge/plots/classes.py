"""How a model tells classes apart: the confusion matrix, and the scores of each stage."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from deepmerge.estimate import Estimate
from deepmerge.plots.canvas import COLUMN, NORMAL, PAGE, canvas, styled
from deepmerge.plots.checks import as_probabilities, expect, numbers, words
from deepmerge.plots.marks import STAGES, THRESHOLD, legend_above

SCORES = np.linspace(0, 1, 21)  # borders of the bins


def shares_by_score(scores: np.ndarray) -> np.ndarray:
    """Return the share of the scores (n,), 0 to 1 or NaN, in each bin of SCORES; 0 without any."""
    counts = np.histogram(scores[~np.isnan(scores)], SCORES)[0]
    return counts / max(counts.sum(), 1)


@styled
def confusion_matrix(
    counts: ArrayLike,
    intervals: ArrayLike | None = None,
    *,
    names: Sequence[str] = ("non-merger", "merger"),
    title: str = "Confusion matrix",
    note: str | None = None,
) -> Figure:
    """Draw counts and fractions of the true class, with their 95 % intervals if given.

    `counts` (k, k) by true and predicted class, as `names` (k,) has them: [[TN, FP], [FN, TP]]; `intervals` (k, k, 2)
    holds (low, high) of each fraction, 0 to 1. A class without images has no fraction: a dash on grey. Raises
    InputError for other shapes or counts that are not whole numbers from 0.
    """
    classes = len(names)
    table = numbers("counts", counts, classes, classes)
    whole = bool((np.isfinite(table) & (table == np.abs(np.rint(table)))).all())
    expect(whole, "counts", "whole numbers from 0", table.tolist())
    unknown = np.full((classes, classes, 2), np.nan)
    ends = numbers("intervals", unknown if intervals is None else intervals, classes, classes, 2)
    totals = table.sum(axis=1, keepdims=True)
    fractions = np.divide(table, totals, out=np.full(table.shape, np.nan), where=totals > 0)

    width = COLUMN if classes == 2 else PAGE * 0.7
    figure = canvas(width, 3.35 if classes == 2 else width * 0.92, title, note)
    axes = figure.subplots()
    colours = colormaps["cividis"].with_extremes(bad="#DDDDDD")
    axes.imshow(np.ma.masked_invalid(fractions), cmap=colours, vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(table):
        percent = Estimate(*(100 * np.array([fractions[row, column], *ends[row, column]])))
        text = percent.text(".1f").replace(" [", " %\n[") if percent.has_interval else f"{percent.text('.1f')} %"
        centred: dict[str, Any] = {"ha": "center", "color": "white" if percent.value < 60 else "black"}
        axes.text(column, row - 0.04, f"{count:.0f}", va="bottom", fontsize=13, fontweight="bold", **centred)
        axes.text(column, row + 0.05, "–" if np.isnan(percent.value) else text, va="top", fontsize=NORMAL, **centred)
    sized = [f"{name}\n(n = {total:.0f})" for name, total in zip(names, totals[:, 0], strict=True)]
    axes.set_xticks(range(classes), list(names))
    axes.set_yticks(range(classes), sized, rotation=90, va="center", ha="center", linespacing=1.3)
    axes.tick_params(length=0, labelsize=NORMAL)
    axes.tick_params(axis="y", pad=14)
    axes.spines[:].set_visible(False)
    for border in np.arange(classes - 1) + 0.5:
        axes.axhline(border, color="white", linewidth=2)
        axes.axvline(border, color="white", linewidth=2)
    axes.set(xlabel="Predicted class", ylabel="True class")
    return figure


@styled
def score_histogram(
    probabilities: ArrayLike, stages: Sequence[str], *, title: str = "Scores by stage", note: str | None = None
) -> Figure:
    """Draw the distribution of the merger probability in each stage, each normalised to 1.

    `probabilities` (n,), 0 to 1, NaN left out and counted in the legend; `stages` (n,) of past, future,
    non-merger, or merger where the stage is unknown. Raises InputError for other shapes, values or words.
    """
    scores = as_probabilities("probabilities", probabilities)
    labels = np.array(words("stages", stages, len(scores), STAGES), dtype=str)

    figure = canvas(COLUMN, 2.9, title, note)
    axes = figure.subplots()
    for stage, (name, colour, dashes) in STAGES.items():
        of_stage = labels == stage
        if not of_stage.any():
            continue
        lost = int(np.isnan(scores[of_stage]).sum())
        label = f"{name} (n = {of_stage.sum() - lost}{f', {lost} undefined' if lost else ''})"
        shares = shares_by_score(scores[of_stage])
        axes.stairs(shares, SCORES, fill=True, color=colour, alpha=0.15, linewidth=0, zorder=1)
        axes.stairs(shares, SCORES, color=colour, linestyle=dashes, linewidth=1.2, label=label, zorder=2)
    axes.axvline(0.5, **THRESHOLD)
    axes.set(xlabel="Predicted merger probability", ylabel="Fraction of the class per bin", xlim=(0, 1))
    axes.set_ylim(bottom=0)
    legend_above(axes, 2)
    return figure
