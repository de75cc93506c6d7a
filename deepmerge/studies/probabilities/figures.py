"""Figures of what probabilities mean: reliability of several methods, purity at merger fractions, gain and cost.

Tables of `calibration` in, `matplotlib.figure.Figure` out, in the style of `figures`; `canvas.save` writes them.
An interval that the sample does not support is neither drawn nor written.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator

from deepmerge.analysis.calibration import REFERENCE
from deepmerge.estimate import Estimate, read
from deepmerge.jobs.compare.figures import BAND, ROUND
from deepmerge.plots.canvas import (
    BLUE,
    COLUMN,
    GREY,
    NORMAL,
    PAGE,
    SMALL,
    VERMILLION,
    Page,
    expect,
    lines_height,
    styled,
    wrapped,
)

MOST_METHODS, MOST_FRACTIONS, MOST_COSTS = 5, 4, 2
GLYPHS = {"o": "●", "D": "◆"}
MARKS = {"o": BLUE, "D": VERMILLION}
CLASSES = (("non_mergers", BLUE, "-"), ("mergers", VERMILLION, "--"))
POINT: dict[str, Any] = {"color": BLUE, "linestyle": "", "marker": "o", "markersize": 3.5, "clip_on": False}
HOLLOW = POINT | {"markerfacecolor": "white"}
CHANGE = ["change", "change_low", "change_high"]
# What `costs` draws of the metrics of `calibration.gains`, and the side of 0 that is better.
CHANGES = {
    "log_loss_at_balance": ("Log loss", -1),
    "calibration_error_at_balance": ("Calibration error", -1),
    "auc": ("AUC", 1),
}


@styled
def calibration(
    reliability: Mapping[str, pd.DataFrame],
    errors: Mapping[str, Estimate],
    *,
    title: str = "Calibration where half are mergers",
    note: str | None = None,
) -> Figure:
    """Draw observed against predicted, a panel for each of 1 to 5 methods, over the number of images of each class.

    `reliability` is, by method, the table of `calibration.reliability`; `errors` its calibration error (ECE) at the
    same merger fraction, which stands over the panel. A hollow point has no interval, as where its bin holds one
    class only. Raises InputError for other numbers of methods or a missing error.
    """
    count = len(reliability)
    expect(1 <= count <= MOST_METHODS, "reliability", f"tables of 1 to {MOST_METHODS} methods", count)
    lacking = [method for method in reliability if method not in errors]
    expect(not lacking, "errors", "one for every method", f"none for {lacking}")

    most = max(int(table[["mergers", "non_mergers"]].to_numpy().max()) for table in reliability.values())
    page = Page(COLUMN if count <= 2 else PAGE)
    left, gap = 0.55, 0.17
    side = (page.width - left - 0.1 + gap) / count - gap
    places = [left + number * (side + gap) for number in range(count)]
    headings = ["\n".join([wrapped(name, side, SMALL), f"ECE {errors[name].text()}"]) for name in reliability]
    deepest = max(lines_height(heading, SMALL) for heading in headings)
    for x, heading in zip(places, headings, strict=True):
        page.write(x + side / 2, heading, deepest, ha="center", va="bottom", linespacing=1.15)
    page.y += deepest + 0.1
    for x, table in zip(places, reliability.values(), strict=True):
        page.panel(x, 0, side, 1.9, _reliable(table, x == left))
        page.panel(x, 2.05, side, 0.75, _counts(table, most, x == left))
    middle = (left + page.width - 0.1) / 2
    page.write(middle, "Predicted merger probability", 3.05, ha="center", fontsize=NORMAL)
    page.y += 3.25
    columns, tall = (5, 0.2) if page.width == PAGE else (2, 0.5)
    page.panel(0.1, 0, page.width - 0.2, tall, _key(columns))
    page.y += tall
    return page.build(title, note)


@styled
def purity_completeness(
    curves: Mapping[str, pd.DataFrame],
    chosen: Mapping[str, float] | None = None,
    *,
    title: str = "Purity and completeness by merger fraction",
    note: str | None = None,
) -> Figure:
    """Draw purity against completeness at 1 to 4 merger fractions; mark and say both at the threshold 0.5 and another.

    `curves` is, by what a reader is told of the fraction ("10 % mergers"), the table of
    `calibration.operating_points`; its thresholds should lie densely and hold 0.5. `chosen` gives another of its
    thresholds to some of the curves. The band is the 95 % interval of the purity at a threshold, drawn over the
    completeness there; below stand the images called mergers, rightly and wrongly, on which a point rests.
    Raises InputError for other input.
    """
    expect(1 <= len(curves) <= MOST_FRACTIONS, "curves", f"1 to {MOST_FRACTIONS} merger fractions", len(curves))
    others = dict(chosen or {})
    expect(set(others) <= set(curves), "chosen", f"thresholds for some of {list(curves)}", list(others))
    marks = {
        name: [("o", _row(name, table, 0.5))] + ([("D", _row(name, table, others[name]))] if name in others else [])
        for name, table in curves.items()
    }

    left, gap = 0.5, 0.17
    side = (PAGE - left - 0.1 + gap) / MOST_FRACTIONS - gap
    places = [left + number * (side + gap) for number in range(len(curves))]
    page = Page(max(COLUMN, places[-1] + side + 0.1))
    page.captions([x + side / 2 for x in places], list(curves), side, ha="center", fontweight="bold")
    page.y += 0.06
    for x, (name, table) in zip(places, curves.items(), strict=True):
        page.panel(x, 0, side, side, _curve(table, marks[name], x == left))
        for number, (marker, row) in enumerate(marks[name]):
            lines = [f"threshold {row['threshold']:.3g}"]
            for metric in ("purity", "completeness"):
                lines.append(f"{metric} {read(row.to_dict(), metric).text('.2f')}")
            lines.append(f"{row['tp']:.0f} right, {row['fp']:.0f} wrong")
            down = side + 0.48 + 0.62 * number
            page.write(x - 0.08, GLYPHS[marker], down, color=MARKS[marker])
            page.write(x + 0.06, "\n".join(lines), down, linespacing=1.2)
    page.y += side + 0.5 + 0.62 * max(map(len, marks.values()))
    return page.build(title, note)


@styled
def costs(
    gains: pd.DataFrame,
    costs: Mapping[str, Mapping[str, float]],
    *,
    title: str = "What each method gains, and what it costs",
    note: str | None = None,
) -> Figure:
    """Draw the change of log loss, calibration error and AUC of each method beside its cost.

    With 95 % intervals, but for the calibration error, which has none.

    `gains` is the table of `calibration.gains`; `costs` gives, by method, 1 or 2 kinds of cost ("training",
    "prediction") in units of one network's; others than those of the table are left out. Raises InputError for other
    kinds or a method without a cost.
    """
    methods = [method for method in gains["method"].unique() if method != REFERENCE]
    expect(bool(methods), "gains", "methods besides the reference", "none")
    lacking = [method for method in methods if method not in costs]
    expect(not lacking, "costs", "one for every method", f"none for {lacking}")
    kinds = list(costs[methods[0]])
    expect(1 <= len(kinds) <= MOST_COSTS, "costs", f"1 to {MOST_COSTS} kinds", kinds)
    unlike = [method for method in methods if set(costs[method]) != set(kinds)]
    expect(not unlike, "costs", f"the kinds {kinds} of every method", f"others of {unlike}")

    page = Page(PAGE)
    left, side, gap = 1.3, 1.4, 0.12
    names = [wrapped(method, left - 0.2, SMALL) for method in methods]
    step = max(0.36, *(lines_height(name, SMALL) + 0.08 for name in names))
    height = step * len(methods)
    heads = [wrapped(kind, 0.62, SMALL) for kind in kinds]
    for number, (metric, (name, _)) in enumerate(CHANGES.items()):
        middle = left + number * (side + gap) + side / 2
        page.write(middle, name, ha="center", fontsize=NORMAL, fontweight="bold")
        of_reference = gains.loc[(gains["method"] == REFERENCE) & (gains["metric"] == metric), "value"].item()
        page.write(middle, f"reference {of_reference:.3f}", 0.15, ha="center", color=GREY)
    columns = [PAGE - 0.35 - 0.7 * number for number in range(len(kinds))][::-1]
    page.write(float(np.mean(columns)), "Cost", ha="center", fontsize=NORMAL, fontweight="bold")
    for x, head in zip(columns, heads, strict=True):
        page.write(x, head, 0.15, ha="center", color=GREY)
    page.y += 0.2 + max(lines_height(head, SMALL) for head in heads)
    for row, (method, name) in enumerate(zip(methods, names, strict=True)):
        middle = (row + 0.5) * step
        page.write(0.1, name, middle, va="center")
        for x, kind in zip(columns, kinds, strict=True):
            page.write(x, f"× {costs[method][kind]:.3g}", middle, ha="center", va="center")
    for number, (metric, (_, better)) in enumerate(CHANGES.items()):
        changes = gains[gains["metric"] == metric].set_index("method").loc[methods, CHANGE].to_numpy()
        page.panel(left + number * (side + gap), 0, side, height, _forest(changes, better))
    page.y += height + 0.28
    page.write(left + 1.5 * side + gap, "change from the reference (shaded: better)", ha="center")
    page.y += 0.2
    return page.build(title, note)


def _reliable(table: pd.DataFrame, first: bool) -> Callable[[Axes], None]:
    """Return what draws the points of a reliability table and their intervals; those without one are hollow."""

    def draw(axes: Axes) -> None:
        x, held = table["probability"], table["observed_low"].notna()
        axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1, zorder=0)
        axes.vlines(x, table["observed_low"], table["observed_high"], color=BLUE, linewidth=1)
        axes.plot(x[held], table["observed"][held], **POINT)
        axes.plot(x[~held], table["observed"][~held], **HOLLOW)
        _unit(axes.xaxis, axes.yaxis)
        axes.set(xlim=(0, 1), ylim=(-0.03, 1.03))
        axes.tick_params(labelbottom=False, labelleft=first)
        axes.set_ylabel("Fraction of mergers" if first else "")

    return draw


def _counts(table: pd.DataFrame, most: int, first: bool) -> Callable[[Axes], None]:
    """Return what draws the images of each class per bin, on a scale that ends at `most`."""

    def draw(axes: Axes) -> None:
        borders = np.linspace(0, 1, len(table) + 1)
        for name, colour, dashes in CLASSES:
            axes.stairs(table[name], borders, color=colour, linestyle=dashes, linewidth=1.1, clip_on=False)
        _unit(axes.xaxis)
        axes.set(xlim=(0, 1), ylim=(0, most))
        axes.yaxis.set_major_locator(MaxNLocator(3, steps=ROUND, integer=True))
        axes.tick_params(labelleft=first)
        axes.set_ylabel("Images" if first else "")

    return draw


def _key(columns: int) -> Callable[[Axes], None]:
    """Return what draws the legend of `calibration`."""

    def draw(axes: Axes) -> None:
        axes.set_axis_off()
        handles = [
            Line2D([], [], color=GREY, linestyle=":", linewidth=1, label="perfect calibration"),
            Line2D([], [], **POINT, label="with 95 % interval"),
            Line2D([], [], **HOLLOW, label="no interval"),
        ]
        for name, colour, dashes in CLASSES:
            handles.append(Line2D([], [], color=colour, linestyle=dashes, label=name.replace("_", "-")))
        axes.legend(handles=handles, loc="center", ncols=columns, borderpad=0)

    return draw


def _unit(*sides: Axis) -> None:
    """Give axes from 0 to 1 few ticks."""
    for side in sides:
        side.set_major_locator(FixedLocator([0, 0.5, 1]))
        side.set_major_formatter("{x:g}")


def _row(name: str, table: pd.DataFrame, threshold: float) -> pd.Series:
    """Return the row of a threshold."""
    rows = np.flatnonzero(np.isclose(table["threshold"], threshold, rtol=0, atol=1e-9))
    expect(len(rows) > 0, f"curve of {name}", f"the threshold {threshold} among its own", f"{len(table)} others")
    return table.iloc[rows[0]]


def _curve(table: pd.DataFrame, marks: list[tuple[str, pd.Series]], first: bool) -> Callable[[Axes], None]:
    """Return what draws purity against completeness, with its band, and marks with their intervals."""

    def draw(axes: Axes) -> None:
        ordered = table.sort_values("threshold")
        x = ordered["completeness"]
        axes.fill_between(x, ordered["purity_low"], ordered["purity_high"], color=GREY, alpha=0.2, linewidth=0)
        axes.plot(x, ordered["purity"], color=GREY, zorder=2, clip_on=False)
        for marker, row in marks:
            colour = MARKS[marker]
            axes.vlines(row["completeness"], row["purity_low"], row["purity_high"], color=colour, linewidth=1, zorder=3)
            axes.hlines(
                row["purity"], row["completeness_low"], row["completeness_high"], color=colour, linewidth=1, zorder=3
            )
            axes.plot(
                row["completeness"], row["purity"], color=colour, marker=marker, markersize=5, zorder=4, clip_on=False
            )
        _unit(axes.xaxis, axes.yaxis)
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="Completeness", ylabel="Purity" if first else "")
        axes.tick_params(labelleft=first)

    return draw


def _forest(values: np.ndarray, better: int) -> Callable[[Axes], None]:
    """Return what draws changes (methods, 3) from top to bottom, each under its value and interval in words."""

    def draw(axes: Axes) -> None:
        for row, (value, low, high) in enumerate(values):
            # Not errorbar(): it refuses an interval that does not hold its value.
            axes.hlines(row + 0.2, low, high, color=BLUE)
            axes.plot(value, row + 0.2, color=BLUE, marker="o", markersize=4.5, markeredgecolor="white")
            said = Estimate(value, low, high).text("+z.3f").replace("-", "−")
            axes.text(
                0.5, row - 0.2, said, transform=axes.get_yaxis_transform(), ha="center", va="center", fontsize=SMALL
            )
        known = np.append(values[np.isfinite(values)], [-1e-3, 1e-3])
        margin = 0.08 * np.ptp(known)
        ends = known.min() - margin, known.max() + margin
        axes.axvspan(0, ends[better > 0], color=BAND, linewidth=0, zorder=0)
        # Beside the points only: the words stand between.
        rows = np.arange(len(values))
        axes.vlines(np.zeros(len(rows)), rows, rows + 0.4, color="black", linewidth=0.9, linestyle=":", zorder=1)
        axes.set(xlim=ends, ylim=(len(values) - 0.5, -0.5), yticks=[])
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(3, steps=ROUND))

    return draw
