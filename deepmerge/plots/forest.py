"""Forest plot: measurements with their 95 % intervals beneath one another, the numbers written beside them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from deepmerge.estimate import Estimate
from deepmerge.plots.canvas import GREY, PAGE, SMALL, canvas, styled, wrapped
from deepmerge.plots.checks import expect
from deepmerge.plots.marks import BAND, COLOURS, ROUND, handle, interval, point, say

LABEL = 1.9  # inches for the names of the lines
LINE = 0.24  # inches of a line
NARROWEST = 0.02  # range of an axis


class Line(NamedTuple):
    """One measurement of a forest plot: its name, a value with interval for each column, and its group (colour).

    faint: single values that the line sums up, one list a column, drawn beneath.
    """

    name: str
    estimates: Sequence[Estimate]
    group: int = 0
    faint: Sequence[Sequence[float]] = ()


def intervals(
    axes: Axes,
    estimates: Sequence[Estimate],
    places: Sequence[float],
    looks: Sequence[tuple[str, str]],
    *,
    reference: float | None = None,
    better: int = 0,
    ticks: int = 4,
    one_line: bool = False,
) -> None:
    """Draw estimates (n,) at the heights `places` (n,) in `looks` (n,) of colour and marker, their numbers beside them.

    reference: where to draw a line to compare with; better: the side of it to shade, +1 right, −1 left; ticks: at most
    so many intervals between them; one_line: do not break the numbers before their interval, and write "undefined"
    where the place is empty otherwise.
    """
    for estimate, y, (colour, marker) in zip(estimates, places, looks, strict=True):
        if np.isfinite(estimate.value):
            interval(axes, estimate, y, colour, marker)
        elif not one_line:
            continue
        text, size = estimate.text().replace("-", "−"), SMALL
        if not one_line:
            text, size = text.replace(" [", "\n["), SMALL - 1
        axes.text(1.02, y, text, transform=axes.get_yaxis_transform(), va="center", fontsize=size)
    axes.margins(x=0.08)
    if reference is not None:
        axes.axvline(reference, color=GREY, linewidth=0.8, linestyle=":", zorder=0.5)
    low, high = axes.get_xlim()
    spare = max(NARROWEST - (high - low), 0) / 2
    low, high = low - spare, high + spare
    if reference is not None and better:
        axes.axvspan(reference, high if better > 0 else low, color=BAND, linewidth=0, zorder=0)
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(MaxNLocator(ticks, steps=ROUND))
    axes.xaxis.set_major_formatter("{x:g}")  # no zeros behind, lest neighbours touch
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color="#E4E4E4", linewidth=0.6)
    axes.set_axisbelow(True)


@styled
def forest(
    lines: Sequence[Line],
    columns: Sequence[str],
    *,
    references: Sequence[float | None] = (),
    better: Sequence[int] = (),
    groups: Sequence[str] = (),
    caption: str = "",
    title: str,
    note: str | None = None,
) -> Figure:
    """Draw measurements with their intervals beneath one another, one panel a column, the numbers written beside.

    references: where each column has a line to compare with (0 for a difference, 0.5 for chance), or None. better: the
    side of it to shade in each column, +1 right, −1 left, 0 none. groups: names of the lines' groups for a legend.
    caption: in small print, on what was measured. An undefined estimate leaves its place empty; a point without
    interval is hollow. Raises InputError for nothing to draw, for groups without a colour, and where a line,
    `references` or `better` has not one entry a column.
    """
    count = len(columns)
    expect(min(len(lines), count) > 0, "forest plot", "a line and a column at least", (len(lines), count))
    expect(len(groups) <= len(COLOURS), "groups", f"at most {len(COLOURS)}", len(groups))
    for name, sides in (("references", references), ("better", better)):
        expect(len(sides) in (0, count), name, f"none or {count}, one a column", sides)
    for line in lines:
        expect(len(line.estimates) == count, f"line {line.name}", f"{count} estimates", line.estimates)
        expect(0 <= line.group < len(COLOURS), f"line {line.name}", f"a group below {len(COLOURS)}", line.group)
        fits = len(line.faint) in (0, count)
        expect(fits, f"line {line.name}", f"none or {count} lists of single values", line.faint)

    names = [wrapped(line.name, LABEL - 0.1, SMALL) for line in lines]
    depths = np.array([max(LINE, LINE * 0.62 * (name.count("\n") + 1)) for name in names])
    places = (np.cumsum(depths) - depths / 2).tolist()
    caption = wrapped(caption, PAGE - 0.3, SMALL)
    figure = canvas(PAGE, depths.sum() + 0.75 + 0.2 * bool(groups) + 0.2 * bool(caption), title, note)
    panels = figure.subplots(1, count, sharey=True, squeeze=False)[0]
    looks = [(COLOURS[line.group], "o") for line in lines]
    for number, (axes, column) in enumerate(zip(panels, columns, strict=True)):
        for line, y in zip(lines, places, strict=True):
            if line.faint:
                dots: dict[str, Any] = {"color": COLOURS[line.group], "alpha": 0.35, "markersize": 3}
                axes.plot(line.faint[number], [y] * len(line.faint[number]), "o", markeredgewidth=0, **dots)
        estimates = [line.estimates[number] for line in lines]
        measured = any(np.isfinite(estimate.value) for estimate in estimates)
        compared: Any = {"reference": references[number]} if references and measured else {}
        shaded = better[number] if better else 0
        intervals(axes, estimates, places, looks, better=shaded, ticks=max(3, 8 // count), **compared)
        if not measured:
            say(axes, "not measured")
            axes.xaxis.set_major_locator(NullLocator())
        axes.set_xlabel(column)
        axes.set_ylim(depths.sum(), 0)
        axes.set_yticks(places, names)
    handles = [handle(group, linestyle="-", **point(COLOURS[number])) for number, group in enumerate(groups)]
    if handles or caption:
        below: Any = {"loc": "outside lower center", "ncols": max(len(groups), 1), "title_fontsize": SMALL}
        figure.legend(handles=handles, title=caption or None, **below).get_title().set_color(GREY)
    return figure
