"""Figures of studies: measurements with intervals, one a line, and what two protocols claim."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from deepmerge.estimate import Estimate
from deepmerge.plots.canvas import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PAGE,
    PURPLE,
    SKY,
    SMALL,
    VERMILLION,
    canvas,
    expect,
    styled,
    wrapped,
)

COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
LABEL = 1.9  # inches for the names of the lines
LINE = 0.24  # inches of a line


class Line(NamedTuple):
    """One measurement of a forest plot: its name, a value with interval for each column, and its group (colour).

    faint: single values that the line sums up, one list a column, drawn beneath.
    """

    name: str
    estimates: Sequence[Estimate]
    group: int = 0
    faint: Sequence[Sequence[float]] = ()


@styled
def forest(
    lines: Sequence[Line],
    columns: Sequence[str],
    *,
    references: Sequence[float | None] = (),
    groups: Sequence[str] = (),
    title: str,
    note: str | None = None,
) -> Figure:
    """Draw measurements with their intervals beneath one another, one panel a column, the numbers written beside.

    references: where each column has a line to compare with (0 for a difference, 0.5 for chance), or None. groups:
    names of the lines' groups for a legend. An undefined estimate leaves its place empty. Raises InputError where a
    line has not one estimate (and list of single values, if any) a column, or its group no colour, and for references
    that are not one a column.
    """
    sizes = (len(lines), len(columns))
    expect(min(sizes) > 0, "forest plot", "a line and a column at least", sizes)
    marks = list(references) or [None] * len(columns)
    expect(len(marks) == len(columns), "references", f"none or {len(columns)}, one a column", marks)
    expect(len(groups) <= len(COLOURS), "groups", f"at most {len(COLOURS)}", len(groups))
    for line in lines:
        expect(len(line.estimates) == len(columns), f"line {line.name}", f"{len(columns)} estimates", line.estimates)
        expect(0 <= line.group < len(COLOURS), f"line {line.name}", f"a group below {len(COLOURS)}", line.group)
        fits = len(line.faint) in (0, len(columns))
        expect(fits, f"line {line.name}", f"none or {len(columns)} lists of single values", line.faint)
    names = [wrapped(line.name, LABEL - 0.1, SMALL) for line in lines]
    depths = [max(LINE, LINE * 0.62 * (name.count("\n") + 1)) for name in names]
    places = np.cumsum(depths) - np.array(depths) / 2
    figure = canvas(PAGE, sum(depths) + 0.75 + 0.2 * bool(groups), title, note)
    panels = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    for number, (axes, column, reference) in enumerate(zip(panels, columns, marks, strict=True)):
        if reference is not None:
            axes.axvline(reference, color=GREY, linewidth=0.8, linestyle=":", zorder=0)
        for line, y in zip(lines, places, strict=True):
            value, low, high = line.estimates[number]
            colour = COLOURS[line.group]
            if line.faint:
                axes.plot(line.faint[number], np.full(len(line.faint[number]), y), "o", color=colour, alpha=0.35,
                          markersize=3, markeredgewidth=0)  # fmt: skip
            if not np.isfinite(value):
                continue
            axes.plot([low, high], [y, y], color=colour, linewidth=1.4)
            axes.plot(value, y, "o", color=colour, markersize=4.5)
            said = line.estimates[number].text().replace(" [", "\n[").replace("-", "−")
            axes.text(1.02, y, said, transform=axes.get_yaxis_transform(), va="center", fontsize=SMALL - 1.0)
        axes.set_xlabel(column)
        axes.set_ylim(sum(depths), 0)
        axes.set_yticks(places, names)
        axes.tick_params(axis="y", length=0)
        axes.margins(x=0.08)
        axes.locator_params(axis="x", nbins=4)
        axes.grid(axis="x", color="#E4E4E4", linewidth=0.6, zorder=-1)
    if groups:
        for number, group in enumerate(groups):
            panels[0].plot([], [], "o-", color=COLOURS[number], markersize=4.5, label=group)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(groups))
    return figure
