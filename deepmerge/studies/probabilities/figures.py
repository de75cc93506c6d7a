"""Figures of what probabilities mean: reliability of several methods, purity at merger fractions, gain and cost.

They draw the tables of `calibration`. An interval that the sample does not support is neither drawn nor written.
"""

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from deepmerge.analysis.calibration import REFERENCE
from deepmerge.estimate import Estimate, read
from deepmerge.plots.canvas import BLUE, COLUMN, GREY, NBSP, PAGE, VERMILLION, Page, styled
from deepmerge.plots.checks import expect
from deepmerge.plots.forest import Line, forest
from deepmerge.plots.marks import point, unit, whisker
from deepmerge.plots.reliability import Bins, reliability

MOST_FRACTIONS = 4
GLYPHS = {"o": "●", "D": "◆"}
MARKS = {"o": BLUE, "D": VERMILLION}
# What `costs` draws of the metrics of `calibration.gains`, and the side of 0 that is better.
CHANGES = {
    "log_loss_at_balance": ("Log loss", -1),
    "calibration_error_at_balance": ("Calibration error", -1),
    "auc": ("AUC", 1),
}


def calibration(
    tables: Mapping[str, pd.DataFrame], errors: Mapping[str, Estimate], *, note: str | None = None
) -> Figure:
    """Draw observed against predicted, a panel a method, over the number of images of each class.

    `tables` is, by method, the table of `calibration.reliability`; `errors` its calibration error (ECE) at the same
    merger fraction, which stands over the panel. A point is hollow where its bin holds one class only. Raises
    InputError for too many methods.
    """
    panels = {}
    for method, table in tables.items():
        observed = [read(row, "observed") for row in table.to_dict("records")]
        images = {"non-mergers": table["non_mergers"], "mergers": table["mergers"]}
        panels[f"{method}\nECE {errors[method].text()}"] = Bins(table["probability"], observed, images)
    return reliability(panels, title="Calibration where half are mergers", note=note)


@styled
def purity_completeness(
    curves: Mapping[str, pd.DataFrame], chosen: Mapping[str, float] | None = None, *, note: str | None = None
) -> Figure:
    """Draw purity against completeness at 1 to 4 merger fractions, with marks and numbers at two thresholds.

    `curves`: by the title of a panel ("10 % mergers"), a table of `calibration.operating_points` with dense thresholds,
    0.5 among them, which is marked. `chosen`: another threshold of the table to mark, for some curves. The band is the
    95 % interval of the purity at a threshold, drawn over the completeness there; below stand the images predicted
    merger, rightly and wrongly. Raises InputError for other input.
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
                lines.append(f"{metric} {read(row, metric).text('.2f')}")
            lines.append(f"{row['tp']:.0f} right, {row['fp']:.0f} wrong")
            down = side + 0.48 + 0.62 * number
            page.write(x - 0.08, GLYPHS[marker], down, color=MARKS[marker])
            page.write(x + 0.06, "\n".join(lines), down, linespacing=1.2)
    page.y += side + 0.5 + 0.62 * max(map(len, marks.values()))
    return page.build("Purity and completeness by merger fraction", note)


def costs(gains: pd.DataFrame, costs: Mapping[str, Mapping[str, float]], *, note: str | None = None) -> Figure:
    """Draw the change of log loss, calibration error and AUC of each method, whose cost stands beneath its name.

    `gains` is the table of `calibration.gains`; `costs` gives, by method, kinds of cost ("training", "prediction") in
    units of one network's. Raises InputError for a table without methods, or a method without a cost.
    """
    methods = [method for method in gains["method"].unique() if method != REFERENCE]
    expect(bool(methods), "gains", "methods besides the reference", "none")
    without = [method for method in methods if method not in costs]
    expect(not without, "costs", "one for every method", f"none for {without}")
    table = {(row["method"], row["metric"]): row for row in gains.to_dict("records")}
    lines = []
    for method in methods:
        cost = ", ".join(f"{kind} ×{NBSP}{factor:.3g}" for kind, factor in costs[method].items())
        changes = [read(table[method, metric], "change") for metric in CHANGES]
        lines.append(Line(f"{method}\n{cost}", changes))
    return forest(
        lines,
        [f"{name}\nreference {table[REFERENCE, metric]['value']:.3f}" for metric, (name, _) in CHANGES.items()],
        references=[0.0] * len(CHANGES),
        better=[better for _, better in CHANGES.values()],
        caption="change from the reference (shaded: better)",
        title="What each method gains, and what it costs",
        note=note,
    )


def _row(name: str, table: pd.DataFrame, threshold: float) -> dict[Hashable, Any]:
    """Return the row of a threshold."""
    rows = np.flatnonzero(np.isclose(table["threshold"], threshold, rtol=0, atol=1e-9))
    expect(len(rows) > 0, f"curve of {name}", f"the threshold {threshold} among its own", f"{len(table)} others")
    return table.iloc[rows[0]].to_dict()


def _curve(table: pd.DataFrame, marks: list[tuple[str, dict[Hashable, Any]]], first: bool) -> Callable[[Axes], None]:
    """Return what draws purity against completeness, with its band, and marks with their intervals."""

    def draw(axes: Axes) -> None:
        ordered = table.sort_values("threshold")
        x = ordered["completeness"]
        axes.fill_between(x, ordered["purity_low"], ordered["purity_high"], color=GREY, alpha=0.2, linewidth=0)
        axes.plot(x, ordered["purity"], color=GREY, zorder=2, clip_on=False)
        for marker, row in marks:
            purity, completeness = read(row, "purity"), read(row, "completeness")
            whisker(axes, purity, completeness.value, MARKS[marker], upright=True)
            whisker(axes, completeness, purity.value, MARKS[marker])
            axes.plot(completeness.value, purity.value, **point(MARKS[marker], marker), zorder=4)
        unit(axes.xaxis, axes.yaxis)
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xlabel="Completeness", ylabel="Purity" if first else "")
        axes.tick_params(labelleft=first)

    return draw
