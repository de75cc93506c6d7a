"""The course of a training: log loss, accuracy and learning rate by epoch."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from deepmerge.estimate import METRICS
from deepmerge.plots.canvas import BLUE, COLUMN, GREEN, GREY, VERMILLION, canvas, styled
from deepmerge.plots.checks import expect, numbers
from deepmerge.plots.marks import BEST, ROUND, legend_above, log_ticks


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
    needed = ["log_loss", "val_log_loss", "accuracy", "val_accuracy"]
    expect(set(needed) <= set(history), "history", f"the keys {needed}", sorted(history))
    has_rate = "learning_rate" in history
    count = len(history["log_loss"])
    curves = {key: numbers(f"history[{key!r}]", history[key], count) for key in needed + ["learning_rate"] * has_rate}
    expect(best_epoch is None or 1 <= best_epoch <= count, "best_epoch", f"an epoch from 1 to {count}", best_epoch)

    figure = canvas(COLUMN, 3.8 + 1.1 * has_rate, title, note)
    panels = figure.subplots(2 + has_rate, 1, sharex=True, height_ratios=[3, 3] + [2] * has_rate)
    epochs = np.arange(1, count + 1)
    marker = "o" if count <= 30 else ""  # a lone epoch, or one between NaNs, has no line to be seen by
    line: dict[str, Any] = {"marker": marker, "markersize": 2.5, "linewidth": 1.4 if count <= 200 else 0.6}
    for axes, key in zip(panels, ("log_loss", "accuracy"), strict=False):
        axes.plot(epochs, curves[key], color=BLUE, label="training", **line)
        axes.plot(epochs, curves[f"val_{key}"], color=VERMILLION, label="validation", **line)
        axes.set_ylabel(METRICS[key].label)
    if has_rate:
        panels[2].plot(epochs, curves["learning_rate"], color=GREEN, **line)
        panels[2].set_ylabel("Learning rate")
        if (curves["learning_rate"] > 0).any():
            panels[2].set_yscale("log")
            log_ticks(panels[2].yaxis, (1, 2, 5))
    if best_epoch is not None:
        for axes, key in zip(panels, ("val_log_loss", "val_accuracy"), strict=False):
            axes.plot(best_epoch, curves[key][best_epoch - 1], **BEST, label=f"epoch kept ({best_epoch})")
        for axes in panels:
            axes.axvline(best_epoch, color=GREY, linewidth=0.8, linestyle=":", zorder=0)
    panels[-1].set_xlabel("Epoch")
    panels[-1].set_xlim(0.5, max(count, 1) + 0.5)
    panels[-1].xaxis.set_major_locator(MaxNLocator(7, steps=ROUND, integer=True, min_n_ticks=1))
    figure.align_ylabels()
    legend_above(panels[0], 3)
    return figure
