"""Figures of a trained network's numbers: arrays in, `matplotlib.figure.Figure` out.

Every figure has a `title` and, in a frame beneath it, a `note` where a reader must be warned ("Simulated demo
data – not Illustris"). All are one column wide (3.5 in). `save` writes them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import ArrayLike

from deepmerge.estimate import Estimate
from deepmerge.plots.canvas import (
    BLUE,
    COLUMN,
    GREEN,
    GREY,
    NORMAL,
    ORANGE,
    PURPLE,
    SKY,
    SMALL,
    VERMILLION,
    canvas,
    expect,
    numbers,
    save,
    styled,
    words,
    wrapped,
)

__all__ = ["RocCurve", "confusion_matrix", "history", "reliability", "roc", "save", "score_histogram"]

# Name, colour, line style of each stage; future mergers are drawn over past ones, so they are dashed.
STAGES = {
    "non-merger": ("non-merger", BLUE, "-"),
    "past": ("past merger", VERMILLION, "-"),
    "future": ("future merger", PURPLE, "--"),
    "merger": ("merger", VERMILLION, "-"),
}


def _legend_above(axes: Axes, columns: int, **options: object) -> Legend:
    """Put the legend over the axes, where it covers no data."""
    place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.1, "borderpad": 0.2}
    spacing = {"columnspacing": 1.2, "handlelength": 1.6, "handletextpad": 0.5}
    return axes.legend(ncols=columns, **{**place, **spacing, **options})


@styled
def history(
    history: Mapping[str, Sequence[float]],
    best_epoch: int | None = None,
    *,
    title: str = "Training history",
    note: str | None = None,
) -> Figure:
    """Draw log loss and accuracy against epoch, and the learning rate in a third panel if it is there.

    `history` has equally long lists `log_loss`, `val_log_loss`, `accuracy`, `val_accuracy` and perhaps
    `learning_rate`, one value an epoch; other keys are ignored. `best_epoch` counts from 1. NaN leaves a gap.
    Raises InputError for a missing key, unequal lengths or a `best_epoch` outside of the training.
    """
    keys = ["log_loss", "val_log_loss", "accuracy", "val_accuracy"]
    expect(set(keys) <= set(history), "history", f"the keys {keys}", sorted(history))
    has_rate = "learning_rate" in history
    keys += ["learning_rate"] * has_rate
    count = len(history["log_loss"])
    curves = {key: numbers(f"history[{key!r}]", history[key], count) for key in keys}
    if best_epoch is not None:
        expect(1 <= best_epoch <= count, "best_epoch", f"an epoch from 1 to {count}", best_epoch)

    figure = canvas(COLUMN, 3.8 + 1.1 * has_rate, title, note)
    ratios = [3, 3] + [2] * has_rate
    panels = figure.subplots(len(ratios), 1, sharex=True, height_ratios=ratios)
    epochs = np.arange(1, count + 1)
    marker = "o" if count <= 30 else ""  # a lone epoch, or one between NaNs, has no line to be seen by
    line: dict[str, Any] = {"marker": marker, "markersize": 2.5, "linewidth": 1.4 if count <= 200 else 0.6}
    for axes, key, label in zip(panels, ("log_loss", "accuracy"), ("Log loss", "Accuracy"), strict=False):
        axes.plot(epochs, curves[key], color=BLUE, label="training", **line)
        values = curves[f"val_{key}"]
        axes.plot(epochs, values, color=VERMILLION, label="validation", **line)
        axes.set_ylabel(label)
        if best_epoch is not None:
            star: dict[str, Any] = {
                "marker": "*",
                "markersize": 9,
                "markeredgecolor": "black",
                "markeredgewidth": 0.6,
            }
            axes.plot(best_epoch, values[best_epoch - 1], color=ORANGE, linestyle="", zorder=4, **star)
    if has_rate:
        panels[2].plot(epochs, curves["learning_rate"], color=GREEN, **line)
        panels[2].set_ylabel("Learning rate")
        if (curves["learning_rate"] > 0).any():
            panels[2].set_yscale("log")
            panels[2].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panels[2].yaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:g}"))
            panels[2].yaxis.set_minor_locator(NullLocator())
    if best_epoch is not None:
        for axes in panels:
            axes.axvline(best_epoch, color=GREY, linewidth=0.8, linestyle=":", zorder=0)
        panels[0].plot([], [], color=ORANGE, linestyle="", label=f"best epoch ({best_epoch})", **star)
    panels[-1].set_xlabel("Epoch")
    panels[-1].set_xlim(0.5, max(count, 1) + 0.5)
    panels[-1].xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    figure.align_ylabels()
    _legend_above(panels[0], 3)
    return figure


@styled
def confusion_matrix(
    counts: ArrayLike,
    intervals: ArrayLike | None = None,
    *,
    title: str = "Confusion matrix",
    note: str | None = None,
) -> Figure:
    """Draw counts and fractions of the true class, with their 95 % intervals if given.

    `counts` (2, 2) is [[TN, FP], [FN, TP]]; `intervals` (2, 2, 2) holds (low, high) of each fraction, 0 to 1.
    A class without images has no fraction: a dash on grey. Raises InputError for other shapes or counts that
    are not whole numbers from 0.
    """
    table = numbers("counts", counts, 2, 2)
    whole = bool(np.isfinite(table).all() and (table >= 0).all() and (table == np.round(table)).all())
    expect(whole, "counts", "whole numbers from 0", table.tolist())
    ranges = None if intervals is None else numbers("intervals", intervals, 2, 2, 2)
    totals = table.sum(axis=1)
    fractions = np.divide(table, totals[:, None], out=np.full((2, 2), np.nan), where=totals[:, None] > 0)

    figure = canvas(COLUMN, 3.35, title, note)
    axes = figure.subplots()
    colours = colormaps["cividis"].with_extremes(bad="#DDDDDD")
    axes.imshow(np.ma.masked_invalid(fractions), cmap=colours, vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(table):
        fraction = fractions[row, column]
        lines = ["–" if np.isnan(fraction) else f"{100 * fraction:.1f} %"]
        if ranges is not None and np.isfinite([fraction, *ranges[row, column]]).all():
            low, high = 100 * ranges[row, column]
            lines.append(f"[{low:.1f}, {high:.1f}]")
        centred: dict[str, Any] = {"ha": "center", "color": "white" if fraction < 0.6 else "black"}
        axes.text(column, row - 0.04, f"{count:.0f}", va="bottom", fontsize=13, fontweight="bold", **centred)
        axes.text(column, row + 0.05, "\n".join(lines), va="top", fontsize=NORMAL, **centred)
    names = ["non-merger", "merger"]
    axes.set_xticks([0, 1], names)
    sized = [f"{name}\n(n = {total:.0f})" for name, total in zip(names, totals, strict=True)]
    axes.set_yticks([0, 1], sized, rotation=90, va="center", ha="center", linespacing=1.3)
    axes.tick_params(length=0, labelsize=NORMAL)
    axes.tick_params(axis="y", pad=14)
    axes.spines[:].set_visible(False)
    axes.axhline(0.5, color="white", linewidth=2)
    axes.axvline(0.5, color="white", linewidth=2)
    axes.set(xlabel="Predicted class", ylabel="True class")
    return figure


@dataclass(frozen=True, eq=False)
class RocCurve:
    """One model's ROC curve: `tpr` and its 95 % band on the grid `fpr` (each (k,), 0 to 1).

    `auc` is (value, low, high); `operating_point` is (fpr, tpr) at the decision threshold.
    """

    fpr: ArrayLike
    tpr: ArrayLike
    low: ArrayLike | None = None
    high: ArrayLike | None = None
    auc: tuple[float, float, float] | None = None
    operating_point: tuple[float, float] | None = None
    label: str = "model"


def _roc_label(curve: RocCurve) -> str:
    """Return name and AUC of a curve for the legend."""
    if curve.auc is None:
        return curve.label
    return f"{curve.label}: AUC {Estimate(*numbers(f'auc of {curve.label}', curve.auc, 3)).text()}"


@styled
def roc(
    curves: Sequence[RocCurve], *, threshold: float = 0.5, title: str = "ROC curve", note: str | None = None
) -> Figure:
    """Draw one or more ROC curves with their bands, AUCs and operating points, and the diagonal of chance.

    `threshold` is only named in the legend. Raises InputError for arrays that do not match, or half a band.
    """
    labels = [wrapped(_roc_label(curve), COLUMN - 0.9, SMALL) for curve in curves]
    figure = canvas(COLUMN, 3.45 + 0.15 * sum(label.count("\n") + 1 for label in labels), title, note)
    axes = figure.subplots()
    palette = [BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY]
    handles: list[Artist] = []
    for index, (curve, label) in enumerate(zip(curves, labels, strict=True)):
        fpr = numbers(f"fpr of {curve.label}", curve.fpr, None)
        tpr = numbers(f"tpr of {curve.label}", curve.tpr, len(fpr))
        colour, dashes = palette[index % len(palette)], ["-", "--", "-.", ":"][index % 4]
        expect((curve.low is None) == (curve.high is None), f"band of {curve.label}", "low and high", "one of them")
        if curve.low is not None and curve.high is not None:
            low = numbers(f"low of {curve.label}", curve.low, len(fpr))
            high = numbers(f"high of {curve.label}", curve.high, len(fpr))
            axes.fill_between(fpr, low, high, color=colour, alpha=0.2, linewidth=0)
        handles += axes.plot(fpr, tpr, color=colour, linestyle=dashes, label=label, zorder=3, clip_on=False)
        if curve.operating_point is not None:
            x, y = numbers(f"operating point of {curve.label}", curve.operating_point, 2)
            axes.plot(x, y, marker="o", color=colour, markersize=6, markeredgecolor="white", zorder=4, clip_on=False)
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1, zorder=1)
    key: list[Artist] = []
    if any(curve.operating_point is not None for curve in curves):
        key.append(Line2D([], [], marker="o", color=GREY, linestyle="", label=f"threshold {threshold:g}"))
    if any(curve.low is not None for curve in curves):
        key.append(Patch(color=GREY, alpha=0.3, linewidth=0, label="95 % interval"))
    key.append(Line2D([], [], color=GREY, linestyle=":", linewidth=1, label="chance"))
    axes.set(xlabel="False positive rate", ylabel="True positive rate (completeness)", xlim=(0, 1), ylim=(0, 1))
    axes.set_aspect("equal")
    # Two legends over the axes: the key next to it, the models above the key.
    axes.add_artist(_legend_above(axes, 3, handles=key))
    _legend_above(axes, 1, handles=handles, bbox_to_anchor=(0, 1.06))
    return figure


@styled
def reliability(
    mean_probability: ArrayLike,
    fraction: ArrayLike,
    low: ArrayLike,
    high: ArrayLike,
    counts: ArrayLike,
    *,
    edges: ArrayLike | None = None,
    title: str = "Reliability",
    note: str | None = None,
) -> Figure:
    """Draw the observed fraction of mergers against the predicted probability, over a histogram of images.

    All arrays (k,): mean probability and merger fraction of each bin with the 95 % interval of the fraction
    (0 to 1, NaN for an empty bin), and the number of images; `edges` (k + 1,), of equally wide bins if not
    given. Raises InputError for shapes that do not match.
    """
    images = numbers("counts", counts, None)
    bins = len(images)
    names = ("mean_probability", "fraction", "low", "high")
    x, y, bottom, top = (
        numbers(name, values, bins) for name, values in zip(names, (mean_probability, fraction, low, high), strict=True)
    )
    borders = np.linspace(0, 1, bins + 1) if edges is None else numbers("edges", edges, bins + 1)

    figure = canvas(COLUMN, 4.1, title, note)
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=[3.2, 1])
    # Not errorbar(): it takes lengths and refuses an interval that does not hold its value.
    axes.vlines(x, bottom, top, color=BLUE, linewidth=1)
    for ends in (bottom, top):
        axes.plot(x, ends, color=BLUE, linestyle="", marker="_", markersize=5)
    axes.plot(x, y, color=BLUE, marker="o", markersize=4, label="model, 95 % interval")
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1, zorder=0, label="perfect calibration")
    axes.set(ylabel="Fraction of mergers", xlim=(0, 1), ylim=(-0.02, 1.02))
    below.stairs(images, borders, fill=True, color=BLUE, alpha=0.5, linewidth=0)
    below.set(ylabel="Images", xlabel="Predicted merger probability")
    below.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    figure.align_ylabels()
    _legend_above(axes, 2)
    return figure


@styled
def score_histogram(
    probabilities: ArrayLike,
    stages: Sequence[str],
    *,
    threshold: float = 0.5,
    bins: int = 20,
    title: str = "Scores by stage",
    note: str | None = None,
) -> Figure:
    """Draw the distribution of the merger probability in each stage, each normalised to 1.

    `probabilities` (n,), 0 to 1, NaN left out and counted in the legend; `stages` (n,) of past, future,
    non-merger, or merger where the stage is unknown. Raises InputError for other shapes, values or words.
    """
    scores = numbers("probabilities", probabilities, None)
    labels = np.array(words("stages", stages, len(scores), STAGES), dtype=str)
    known = ~np.isnan(scores)
    inside = (scores[known] >= 0) & (scores[known] <= 1)
    expect(bool(inside.all()), "probabilities", "values from 0 to 1", scores[known][~inside][:3].tolist())
    expect(bins >= 1, "bins", "1 or more", bins)

    figure = canvas(COLUMN, 2.9, title, note)
    axes = figure.subplots()
    for stage, (name, colour, dashes) in STAGES.items():
        of_stage = labels == stage
        if not of_stage.any():
            continue
        counts, borders = np.histogram(scores[of_stage & known], bins, range=(0, 1))
        lost = int((of_stage & ~known).sum())
        label = f"{name} (n = {counts.sum()}{f', {lost} undefined' if lost else ''})"
        shares = counts / max(counts.sum(), 1)
        axes.stairs(shares, borders, fill=True, color=colour, alpha=0.15, linewidth=0, zorder=1)
        axes.stairs(shares, borders, color=colour, linestyle=dashes, linewidth=1.2, label=label, zorder=2)
    axes.axvline(threshold, color="black", linewidth=0.9, linestyle=":", label=f"threshold {threshold:g}")
    axes.set(xlabel="Predicted merger probability", ylabel="Fraction of the class per bin", xlim=(0, 1))
    axes.set_ylim(bottom=0)
    _legend_above(axes, 2)
    return figure
