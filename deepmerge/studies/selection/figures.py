"""Figures of where a model works: selection function, stages, score against mass, agreement of views.

They draw the tables of `selection`. A hollow point has no interval: too few galaxies, or nothing that went wrong.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from deepmerge.estimate import read
from deepmerge.plots.canvas import BLUE, COLUMN, GREY, NORMAL, PAGE, SMALL, VERMILLION, canvas, styled, wrapped
from deepmerge.plots.checks import as_probabilities, expect, numbers, words
from deepmerge.plots.forest import Line, forest
from deepmerge.plots.marks import COLOURS, ROUND, STAGES, THRESHOLD, handle, interval, legend_above, point
from deepmerge.studies.selection.rates import AGREEMENT, NOT_MEASURED, WHOLE

MOST_PROPERTIES = 4  # columns on a page: the counts of six bins still fit
SHOWN_RATES = {
    "completeness": "Completeness",
    "purity_at_balance": "Purity at balance",
    "false_positive_rate": "False positive rate",
}
MASS_WITHIN = (0.86, 0.39)  # share of the images within a contour: 2 and 1 σ of a normal distribution in the plane
FEWEST_IN_CONTOUR = 20  # images
FEWEST_IN_MEDIAN = 30  # images in each bin of the running median
CLASSES = {"merger": VERMILLION, "non-merger": BLUE}

_NO_INTERVAL = "no interval (too few galaxies or errors)"
_RATE = {"ylim": (-0.04, 1.04), "yticks": np.linspace(0, 1, 6)}


@styled
def selection(tables: Mapping[str, pd.DataFrame], *, note: str | None = None) -> Figure:
    """Draw the rates of SHOWN_RATES against properties, a column each, under the number of galaxies in each bin.

    `tables` maps what to write on the axis ("log M* (solar masses)") to a table of `selection.by_bins`. A point is at
    the median of its bin, its horizontal bar is the bin, its vertical bar the 95 % interval; dashes and shade are the
    whole sample. Raises InputError unless there are 1 to MOST_PROPERTIES tables.
    """
    expect(1 <= len(tables) <= MOST_PROPERTIES, "tables", f"1 to {MOST_PROPERTIES} properties", len(tables))
    figure = canvas(PAGE, 4.9, "Selection function", note)
    heights = [0.55, *[1.0] * len(SHOWN_RATES)]
    panels = figure.subplots(len(heights), len(tables), squeeze=False, sharex="col", height_ratios=heights)
    unmeasured = hollow = False
    for (counts, *below), (name, table) in zip(panels.T, tables.items(), strict=True):
        first = counts is panels[0, 0]
        bins = table[table["bin"] != WHOLE]
        places = _places(bins)
        _counts(counts, bins, places, SMALL * min(1, 26 / (len(bins) * len(tables))), named=first)
        for axes, (rate, label) in zip(below, SHOWN_RATES.items(), strict=True):
            _rates(axes, table, rate, places)
            axes.tick_params(labelleft=first)
            axes.set_ylabel(wrapped(label, 0.9, NORMAL) if first else "")
            estimates = [read(row, rate) for row in bins.to_dict("records")]
            hollow |= any(np.isfinite(each.value) and not each.has_interval for each in estimates)
        below[-1].set_xlabel(wrapped(name, (PAGE - 0.6) / len(tables) - 0.2, NORMAL))
        unmeasured |= NOT_MEASURED in set(bins["bin"])
    handles: list[Artist] = [
        handle(**point("black"), linestyle="-", linewidth=1, label="bin, 95 % interval"),
        handle(color=GREY, linestyle="--", linewidth=1, label="whole sample"),
    ]
    if unmeasured:
        handles.append(handle(**point("black", "s"), linestyle="", label="property not measured"))
    if hollow:
        handles.append(handle(**point("black", hollow=True), linestyle="", label=_NO_INTERVAL))
    figure.align_ylabels(panels[1:, 0])
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


class _Places(NamedTuple):
    """Where bins are on the x axis: points and ends, ticks, limits; what is beyond `divider` is not measured."""

    x: np.ndarray
    low: np.ndarray
    high: np.ndarray
    ticks: np.ndarray
    limits: tuple[float, float]
    divider: float


def _places(bins: pd.DataFrame) -> _Places:
    """Place each bin by its values, and what is not measured apart at the right."""
    x, low, high = (bins[name].to_numpy(dtype=float) for name in ("centre", "low", "high"))
    apart = np.isnan(x)
    start, end = (low[~apart].min(), high[~apart].max()) if not apart.all() else (0.0, 1.0)
    width = (end - start) or 1.0
    left, divider = start - 0.05 * width, end + 0.05 * width
    x, low, high = (np.where(apart, end + 0.14 * width, each) for each in (x, low, high))
    ticks = np.asarray(MaxNLocator(4, steps=ROUND).tick_values(start, end))
    ticks = ticks[(ticks >= left) & (ticks <= divider) & ~apart.all()]
    return _Places(x, low, high, ticks, (left, end + 0.23 * width if apart.any() else divider), divider)


def _counts(axes: Axes, bins: pd.DataFrame, places: _Places, size: float, *, named: bool) -> None:
    """Write the galaxies of each bin, evenly spaced, with a line from each to its bin below."""
    axes.set(xlim=places.limits, ylim=(0, 1))
    spaced = np.interp(np.arange(len(bins)) + 0.5, (0, len(bins)), places.limits)
    mergers = bins["merger_galaxies"]
    for below, above, merger, other in zip(places.x, spaced, mergers, bins["galaxies"] - mergers, strict=True):
        axes.plot([above, below], [0.3, -0.05], color=GREY, linewidth=0.5, clip_on=False)
        for y, count, colour in ((0.8, merger, VERMILLION), (0.48, other, BLUE)):
            axes.text(above, y, f"{count}", ha="center", va="center", color=colour, fontsize=size)
    axes.set_yticks([0.8, 0.48], ["mergers", "non-mergers"] if named else ["", ""])
    axes.tick_params(length=0, labelbottom=False)
    axes.spines[:].set_visible(False)


def _rates(axes: Axes, table: pd.DataFrame, rate: str, places: _Places) -> None:
    """Draw one rate in each bin, over that of the whole sample."""
    sample = read(table[table["bin"] == WHOLE].iloc[0].to_dict(), rate)
    axes.axhspan(sample.low, sample.high, color=GREY, alpha=0.15, linewidth=0, zorder=0)
    axes.axhline(sample.value, color=GREY, linestyle="--", linewidth=1, zorder=1)
    bins = table[table["bin"] != WHOLE]
    axes.hlines(bins[rate], places.low, places.high, color="black", linewidth=0.8)
    for row, x in zip(bins.to_dict("records"), places.x, strict=True):
        marker = "s" if row["bin"] == NOT_MEASURED else "o"
        interval(axes, read(row, rate), x, "black", marker, upright=True)
    if places.divider < places.limits[1]:
        axes.axvline(places.divider, color=GREY, linewidth=0.5, linestyle=":")
    axes.set_xticks(places.ticks)
    axes.set(**_RATE)


def stages(table: pd.DataFrame, *, note: str | None = None) -> Figure:
    """Draw the completeness of each merger stage and the false positive rate, with 95 % intervals and counts.

    `table` is that of `selection.by_stage`. Raises InputError for one without stages.
    """
    lines = []
    for row in table.to_dict("records"):
        name, colour, _ = STAGES[row["stage"]]
        rate = row["rate"].replace("_", " ")
        counts = f"{row['galaxies']} galaxies, {row['images']} images"
        lines.append(Line(f"{name}, {rate}\n{counts}", [read(row, "value")], COLOURS.index(colour)))
    return forest(lines, ["Share predicted merger"], title="By stage", note=note)


@styled
def score_and_mass(
    log_mass: ArrayLike, probabilities: ArrayLike, stages: Sequence[str], *, note: str | None = None
) -> Figure:
    """Draw the merger probability of images against stellar mass, a panel a stage (Ciprijanovic et al. 2020, fig. 7).

    `log_mass` (n,) in log solar masses, NaN left out and counted; `probabilities` (n,), 0 to 1; `stages` (n,) of
    past, future, non-merger, or merger where the stage is unknown. Contours hold MASS_WITHIN of the images, the line
    is the median of the probability in bins of equally many images. Raises InputError for other shapes or words.
    """
    scores = as_probabilities("probabilities", probabilities)
    masses = numbers("log_mass", log_mass, len(scores))
    labels = np.array(words("stages", stages, len(scores), STAGES), dtype=str)
    present = [stage for stage in STAGES if (labels == stage).any()]
    expect(bool(present), "stages", "one image or more", len(labels))

    figure = canvas(PAGE, 2.75, "Merger probability and stellar mass", note)
    panels = figure.subplots(1, len(present), squeeze=False, sharex=True, sharey=True)[0]
    for axes, stage in zip(panels, present, strict=True):
        name, colour, _ = STAGES[stage]
        of_stage = labels == stage
        used = of_stage & np.isfinite(masses) & np.isfinite(scores)
        x, y = masses[used], scores[used]
        # A few hundred faint points make a grey, thousands a blot.
        alpha = float(np.clip(60 / max(len(x), 1), 0.08, 0.5))
        axes.scatter(x, y, s=6, color=colour, alpha=alpha, linewidth=0, rasterized=True)
        _contours(axes, x, y, colour)
        axes.plot(*running_median(x, y), color="black", marker="o", markersize=3, zorder=4)
        axes.axhline(0.5, **THRESHOLD)
        lost = int(of_stage.sum() - used.sum())
        axes.set_title(f"{name} (n = {len(x)}{f', {lost} without mass' if lost else ''})")
        axes.set_xlabel("log M* (solar masses)")
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=ROUND))
    panels[0].set(ylabel="Merger probability", **_RATE)
    if (finite := masses[np.isfinite(masses)]).size:
        spare = 0.05 * np.ptp(finite) or 0.5
        panels[0].set_xlim(finite.min() - spare, finite.max() + spare)
    within = " and ".join(f"{100 * share:.0f} %" for share in sorted(MASS_WITHIN))
    key: list[Artist] = [
        handle(color="black", marker="o", markersize=3, label="running median"),
        handle(color=GREY, linewidth=1, label=f"contours hold {within} of the images"),
        handle(**THRESHOLD),
    ]
    figure.legend(handles=key, loc="outside lower center", ncols=len(key))
    return figure


def _contours(axes: Axes, x: np.ndarray, y: np.ndarray, colour: str) -> None:
    """Draw the contours that hold MASS_WITHIN of the points; none for few points or points on a line."""
    from scipy.stats import gaussian_kde

    if len(x) < FEWEST_IN_CONTOUR:
        return
    try:
        smooth = gaussian_kde([x, y])
    except np.linalg.LinAlgError:
        return

    def density(points: np.ndarray) -> np.ndarray:
        # Mirrored at 0 and 1: no probability leaks out, and scores that pile up at the ends stay there.
        return sum(smooth([points[0], mirrored]) for mirrored in (points[1], -points[1], 2 - points[1]))

    margin = 3 * np.sqrt(smooth.covariance[0, 0])
    grid = np.meshgrid(np.linspace(x.min() - margin, x.max() + margin, 80), np.linspace(0, 1, 80))
    heights = density(np.reshape(grid, (2, -1))).reshape(80, 80)
    levels = np.quantile(density(np.stack([x, y])), [1 - share for share in MASS_WITHIN])
    if 0 < levels[0] < levels[1]:
        axes.contour(*grid, heights, levels=levels, colors=colour, linewidths=[0.8, 1.4])


def running_median(x: np.ndarray, y: np.ndarray) -> tuple[list[float], list[float]]:
    """Return the medians of x and y in up to 8 bins of equally many points by rising x."""
    order = np.argsort(x, kind="stable")
    bins = np.array_split(order, min(8, len(x) // FEWEST_IN_MEDIAN)) if len(x) >= FEWEST_IN_MEDIAN else []
    return [float(np.median(x[each])) for each in bins], [float(np.median(y[each])) for each in bins]


@styled
def agreement(table: pd.DataFrame, *, note: str | None = None) -> Figure:
    """Draw the share of galaxies that are right from one, most and all views, against independent views.

    `table` is that of `selection.view_agreement`; its intraclass correlations stand in the legend.
    """
    expect(len(table) > 0, "table", "one class or more", len(table))
    figure = canvas(COLUMN, 3.2, "Agreement of views", note)
    axes = figure.subplots()
    handles: list[Artist] = []
    for number, row in enumerate(table.to_dict("records")):
        colour = CLASSES[row["class"]]
        for place, name in enumerate(AGREEMENT):
            x = place + 0.36 * (number - (len(table) - 1) / 2)
            interval(axes, read(row, name), x, colour, upright=True)
            axes.plot(x + 0.12, row[f"{name}_expected"], **point(colour, "D", hollow=True))
        correlation = read(row, "intraclass_correlation").text()
        label = f"{row['class']} ({row['galaxies']} galaxies), correlation between views {correlation}"
        handles.append(handle(**point(colour), linestyle="-", linewidth=1.2, label=wrapped(label, 2.4, SMALL)))
    expected = "if views erred independently"
    handles.append(handle(**point(GREY, "D", hollow=True), linestyle="", label=expected))
    axes.set_xticks(range(len(AGREEMENT)), ["at least\none view", "more than\nhalf", "all views"])
    axes.set(xlim=(-0.5, len(AGREEMENT) - 0.5), ylabel="Share of galaxies that are right", **_RATE)
    axes.tick_params(axis="x", length=0, labelsize=NORMAL)
    legend_above(axes, 1, handles)
    return figure
