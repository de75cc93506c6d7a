"""Marks that figures are made of: a value with its interval, lines to compare with, legends; looks of models, stages.

They draw on axes that the caller brings; `forest`, `roc` and `reliability` are made of them.
"""

from collections.abc import Sequence
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from deepmerge.estimate import Estimate
from deepmerge.plots.canvas import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILLION

# The lengths 6, 5 and 4 tell 12 models apart by colour and line, 30 by colour and marker.
COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
MARKERS = ("o", "s", "D", "^", "v")
DASHES = ("-", "--", "-.", ":")
# Name, colour, line style of each stage; future mergers are drawn over past ones, so they are dashed.
STAGES = {
    "non-merger": ("non-merger", BLUE, "-"),
    "past": ("past merger", VERMILLION, "-"),
    "future": ("future merger", PURPLE, "--"),
    "merger": ("merger", VERMILLION, "-"),
}
BEST: dict[str, Any] = {"marker": "*", "markersize": 9, "markeredgecolor": "black", "markeredgewidth": 0.6}
BEST |= {"color": ORANGE, "linestyle": "", "zorder": 6}
BAND = "#F3F3F3"
ROUND = [1, 2, 5, 10]  # steps of ticks
THRESHOLD: dict[str, Any] = {"color": "black", "linewidth": 0.9, "linestyle": ":", "label": "threshold 0.5"}


def look(index: int) -> dict[str, Any]:
    """Return colour, line and marker of the model of this number, from 0."""
    cycles = {"color": COLOURS, "linestyle": DASHES, "marker": MARKERS}
    return {name: values[index % len(values)] for name, values in cycles.items()}


def point(colour: str, marker: str = "o", *, hollow: bool = False) -> dict[str, Any]:
    """Return the look of a point; a hollow one has no interval."""
    face, edge, width = ("white", colour, 0.9) if hollow else (colour, "white", 0.5)
    edges = {"markerfacecolor": face, "markeredgecolor": edge, "markeredgewidth": width}
    return {"color": colour, "marker": marker, "markersize": 4.5, **edges}


def whisker(axes: Axes, estimate: Estimate, place: float, colour: str, *, upright: bool = False) -> None:
    """Draw the interval of an estimate, if it has one: along x at the height `place`, or upright at the x `place`."""
    if estimate.has_interval:
        # Not errorbar(): it refuses an interval that does not hold its value.
        (axes.vlines if upright else axes.hlines)(place, estimate.low, estimate.high, color=colour, linewidth=1.3)


def interval(
    axes: Axes, estimate: Estimate, place: float, colour: str, marker: str = "o", *, upright: bool = False
) -> None:
    """Draw an estimate where `whisker` draws its interval, as a point that is hollow without one."""
    whisker(axes, estimate, place, colour, upright=upright)
    x, y = (place, estimate.value) if upright else (estimate.value, place)
    axes.plot(x, y, **point(colour, marker, hollow=not estimate.has_interval), linestyle="", zorder=3)


def diagonal(axes: Axes, label: str) -> None:
    """Draw the line from (0, 0) to (1, 1)."""
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1, zorder=0, label=label)


def handle(label: str, **drawn: Any) -> Artist:
    """Return what a legend shows of a mark that is drawn so."""
    return Line2D([], [], label=label, **drawn)


def legend_above(
    axes: Axes, columns: int, handles: Sequence[Artist] | None = None, place: tuple[float, float] = (0, 1)
) -> Legend:
    """Put the legend over the axes, where it covers no data."""
    return axes.legend(handles=handles, ncols=columns, loc="lower left", bbox_to_anchor=place, borderaxespad=0.1)


def say(axes: Axes, text: str) -> None:
    """Write in the middle of the axes why they are empty."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=GREY)


def unit(*sides: Axis) -> None:
    """Give axes from 0 to 1 few ticks."""
    for side in sides:
        side.set_major_locator(FixedLocator([0, 0.5, 1]))
        side.set_major_formatter("{x:g}")


def log_ticks(side: Axis, steps: Sequence[float]) -> None:
    """Give a logarithmic axis ticks at `steps` times powers of ten, written plainly."""
    side.set_major_locator(LogLocator(subs=steps, numticks=6))
    side.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    side.set_minor_locator(NullLocator())
