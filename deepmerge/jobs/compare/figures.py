"""Figures that set models side by side: their metrics and curves, and their scores on each other's data.

A model keeps its colour, marker and line style through all the panels of a figure.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from deepmerge.estimate import METRICS, Estimate
from deepmerge.plots import roc
from deepmerge.plots.canvas import COLUMN, GREY, NBSP, NORMAL, PAGE, SMALL, Page, canvas, lines_height, styled, wrapped
from deepmerge.plots.checks import as_probabilities, expect, numbers
from deepmerge.plots.classes import SCORES, shares_by_score
from deepmerge.plots.forest import intervals
from deepmerge.plots.marks import BAND, ROUND, THRESHOLD, handle, look

SHOWN = (
    "auc",
    "galaxy_auc",
    "balanced_accuracy",
    "purity_at_balance",
    "completeness",
    "brier_at_balance",
    "calibration_error_at_balance",
)
MOST_MODELS, MOST_COLUMNS = 12, 8
CLASSES = ("mergers", "non-mergers")
# Blues without its first shades, which are the white of the page.
SEQUENCE = ListedColormap(colormaps["Blues"](np.linspace(0.12, 1, 256))).with_extremes(bad="#E4E4E4")


@dataclass(frozen=True, eq=False)
class Entry:
    """One model judged on its test set.

    `roc` holds its name, curve and AUC; `metrics` as of `metrics.evaluate`; `probabilities` (n,) of a merger, NaN if
    undefined; `labels` (n,) 0 or 1 = merger.
    """

    roc: roc.RocCurve
    metrics: Mapping[str, Estimate]
    probabilities: ArrayLike
    labels: ArrayLike


@styled
def comparison(entries: Sequence[Entry], *, title: str = "Comparison of models", note: str | None = None) -> Figure:
    """Draw the metrics SHOWN with their 95 % intervals, ROC curves, and scores of either class, of 1 to 12 models.

    Undefined values are written as such. Raises InputError for a missing metric, other numbers of models, or
    arrays that do not match.
    """
    expect(1 <= len(entries) <= MOST_MODELS, "entries", f"1 to {MOST_MODELS} models", len(entries))
    for entry in entries:
        lacking = [name for name in SHOWN if name not in entry.metrics]
        expect(not lacking, f"metrics of {entry.roc.label}", f"all of {list(SHOWN)}", f"none for {lacking}")
    curves = [entry.roc for entry in entries]
    shares, counted = zip(*(_shares(entry) for entry in entries), strict=True)

    page = Page(PAGE)
    _heading(page, 0.1, "(a) Metrics", "at balance = both classes weigh the same")
    page.y += 0.2
    _legend(page, 1.95, roc.models([curve.label for curve in curves], 3.4, "marker"), [])
    page.write(5.71, "value [95 % interval]", -0.15, color=GREY)
    for direction, better in (("Higher is better →", 1), ("← Lower is better", -1)):
        rows = [name for name in SHOWN if METRICS[name].better == better]
        height = len(rows) * (0.14 * len(entries) + 0.1)
        page.panel(1.95, 0, 3.65, height, _metrics([entry.metrics for entry in entries], rows, direction))
        page.y += height + 0.45

    left, right, side, gap = 0.55, 4.25, 2.75, 0.16
    _heading(page, 0.1, "(b) ROC curves")
    _heading(page, 3.8, "(c) Scores of either class")
    page.y += 0.2
    top = page.y
    bottoms = []
    areas = [curve.text() for curve in curves]
    for x, texts, rest in ((left, areas, roc.key(curves)), (right, counted, [handle(**THRESHOLD)])):
        page.y = top
        _legend(page, x, roc.models(texts, side - 0.35), rest)
        bottoms.append(page.y)
    page.y = max(bottoms)
    page.panel(left, 0, side, side, lambda axes: roc.curves_on(axes, curves))
    half = (side - gap) / 2
    for row, name in enumerate(CLASSES):
        page.panel(right, row * (half + gap), side, half, _scores([share[row] for share in shares], name))
    page.y += side + 0.45
    return page.build(title, note)


@styled
def cross_matrix(
    auc: Mapping[tuple[int, int], Estimate],
    names: Sequence[str],
    *,
    title: str = "Across data sets",
    note: str | None = None,
) -> Figure:
    """Draw how well each model does on each data set: AUC and 95 % interval in every cell.

    `auc` by the numbers of the data sets that a model was trained and judged on, of 1 to MOST_COLUMNS `names`; a pair
    that is missing or undefined is "not comparable". Raises InputError for other numbers.
    """
    count = len(names)
    expect(0 < count <= MOST_COLUMNS, "names", f"1 to {MOST_COLUMNS} data sets", count)
    strange = [pair for pair in auc if not all(0 <= number < count for number in pair)]
    expect(not strange, "auc", f"pairs of numbers below {count}", strange)
    table = np.full((count, count), np.nan)
    for pair, estimate in auc.items():
        table[pair] = estimate.value
    defined = np.isfinite(table)

    width, margin = (COLUMN, 0.75) if count <= 2 else (PAGE, 1.4 if count <= 5 else 0.75)
    cell = (width - margin - 1.0) / count
    texts = {}
    for place in np.ndindex(table.shape):
        text = auc[place].text().replace(" [", "\n[") if defined[place] else "not\ncomparable"
        texts[place] = wrapped(text, cell - 0.06, SMALL)
    models, judges = [wrapped(name, margin, SMALL) for name in names], [wrapped(name, cell, SMALL) for name in names]
    tallest = max(lines_height(text, SMALL) for text in [*models, *texts.values()])
    body = count * max(tallest + 0.12, 0.5, 1.1 / count)
    figure = canvas(width, body + 0.3 + max(lines_height(name, SMALL) for name in judges), title, note)
    axes = figure.subplots()
    scale = Normalize(*_range(table[defined], 0.1))
    shown = axes.imshow(np.ma.masked_array(table, ~defined), cmap=SEQUENCE, norm=scale, aspect="auto")
    for (row, column), text in texts.items():
        colour = ink(SEQUENCE(scale(table[row, column]))) if defined[row, column] else "black"
        axes.text(column, row, text, ha="center", va="center", fontsize=SMALL, color=colour, linespacing=1.3)
    axes.set_xticks(range(count), judges)
    axes.set_yticks(range(count), models)
    axes.set_xticks(np.arange(1, count) - 0.5, minor=True)
    axes.set_yticks(np.arange(1, count) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    axes.set(xlabel="Judged on", ylabel="Trained on")
    bar = figure.colorbar(shown, ax=axes, pad=0.03, fraction=0.05, aspect=15)
    bar.set_label(METRICS["auc"].label)
    bar.locator = MaxNLocator(5, steps=ROUND)
    bar.outline.set_visible(False)
    return figure


def _range(values: np.ndarray, least: float) -> tuple[float, float]:
    """Return the ends of a scale that holds the values, if any, and is not narrower than `least`."""
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    spare = max(least - (high - low), 0) / 2
    return low - spare, high + spare


def ink(colour: Sequence[float]) -> str:
    """Return black or white, whichever contrasts more with a colour (WCAG 2.1 relative luminance)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    return "black" if np.dot(linear, [0.2126, 0.7152, 0.0722]) > 0.179 else "white"


def _heading(page: Page, x: float, title: str, rest: str = "") -> None:
    page.write(x, title, fontsize=NORMAL, fontweight="bold")
    page.write(PAGE - 0.1, rest, 0.01, ha="right", color=GREY)


def _legend(page: Page, x: float, models: Sequence[Artist], key: Sequence[Artist]) -> None:
    """Place a legend, a line a model and a last one for what is common to them, and step below it."""
    place: dict[str, Any] = {"loc": "upper left", "borderaxespad": 0, "borderpad": 0, "handlelength": 2.2}
    height = sum(lines_height(str(handle.get_label()), SMALL) + 0.03 for handle in models)

    def draw(axes: Axes) -> None:
        axes.set_axis_off()
        axes.add_artist(axes.legend(handles=models, labelspacing=0.35, **place))
        if key:
            axes.legend(handles=key, ncols=len(key), bbox_to_anchor=(0, 0), **place)

    page.panel(x, 0, 1.0, height, draw)
    page.y += height + 0.16 * bool(key) + 0.05


def _shares(entry: Entry) -> tuple[list[np.ndarray], str]:
    """Return the shares by score of each of CLASSES, and how many images there are."""
    name = entry.roc.label
    scores = as_probabilities(f"probabilities of {name}", entry.probabilities)
    labels = numbers(f"labels of {name}", entry.labels, len(scores))
    expect(bool(np.isin(labels, (0, 1)).all()), f"labels of {name}", "0 or 1", np.unique(labels)[:5].tolist())
    defined = ~np.isnan(scores)
    counted = [
        f"{(defined & (labels == label)).sum()}{NBSP}{each}" for label, each in zip((1, 0), CLASSES, strict=True)
    ]
    lost = [f"{(~defined).sum()} undefined"] if not defined.all() else []
    return [shares_by_score(scores[labels == label]) for label in (1, 0)], f"{name}: {', '.join(counted + lost)}"


def _metrics(models: Sequence[Mapping[str, Estimate]], rows: Sequence[str], direction: str) -> Callable[[Axes], None]:
    """Return what draws the metrics `rows` of each model beneath one another, a band a metric."""

    def draw(axes: Axes) -> None:
        count = len(models)
        for row in range(0, len(rows), 2):
            axes.axhspan(row - 0.5, row + 0.5, color=BAND, linewidth=0, zorder=0)
        step = 0.14 / (0.14 * count + 0.1)
        cells = [(model, row) for model in range(count) for row in range(len(rows))]
        looks = [(look(model)["color"], look(model)["marker"]) for model, _ in cells]
        places = [row + (model - (count - 1) / 2) * step for model, row in cells]
        estimates = [models[model][rows[row]] for model, row in cells]
        intervals(axes, estimates, places, looks, ticks=7, one_line=True)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_yticks(range(len(rows)), [METRICS[name].label for name in rows])
        axes.set_xlabel(direction)

    return draw


def _scores(shares: Sequence[np.ndarray], name: str) -> Callable[[Axes], None]:
    """Return what draws the distribution of the score of one class by each model."""

    def draw(axes: Axes) -> None:
        for index, share in enumerate(shares):
            style = {part: look(index)[part] for part in ("color", "linestyle")}
            axes.stairs(share, SCORES, linewidth=1.2, zorder=2, clip_on=False, **style)
        axes.axvline(0.5, **THRESHOLD)
        axes.set(ylabel=f"Share of {name}", xlim=(0, 1))
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_locator(MaxNLocator(4, steps=ROUND))
        axes.tick_params(labelbottom=name == CLASSES[-1])
        axes.set_xlabel("Predicted merger probability" if name == CLASSES[-1] else "")

    return draw
