"""Figures that set models side by side: their metrics, their scores on each other's data, where they looked.

Arrays in, `matplotlib.figure.Figure` out, in the style of `figures`; `canvas.save` writes them. A model keeps its
colour, marker and line style through all the panels of a figure.
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
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from deepmerge.estimate import AT_BALANCE, METRICS, Estimate
from deepmerge.plots.canvas import (
    BLUE,
    COLUMN,
    GREEN,
    GREY,
    NORMAL,
    ORANGE,
    PAGE,
    PURPLE,
    SKY,
    SMALL,
    TALLEST,
    VERMILLION,
    Page,
    canvas,
    expect,
    lines_height,
    numbers,
    styled,
    words,
    wrapped,
)
from deepmerge.plots.figures import RocCurve
from deepmerge.plots.images import GAP, cell_size, image_panel, image_stack, map_key, overlay_panel, rule, stretch

SHOWN = (
    "auc",
    "balanced_accuracy",
    "purity_at_balance",
    "completeness",
    "brier_at_balance",
    "calibration_error_at_balance",
)
# The lengths 6, 5 and 4 tell 12 models apart by colour and line, 30 by colour and marker.
PALETTE = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
MARKERS = ("o", "s", "D", "^", "v")
DASHES = ("-", "--", "-.", ":")
MOST_MODELS, MOST_COLUMNS, MOST_VARIANTS = 12, 8, 6
CLASSES = ("mergers", "non-mergers")
ROUND = [1, 2, 5, 10]  # steps of ticks
# Blues without its first shades, which are the white of the page.
SEQUENCE = ListedColormap(colormaps["Blues"](np.linspace(0.12, 1, 256))).with_extremes(bad="#E4E4E4")
BAND = "#F3F3F3"
NBSP = "\N{NO-BREAK SPACE}"


@dataclass(frozen=True, eq=False)
class Entry:
    """One model judged on its test set.

    `metrics` as of `metrics.evaluate`; `roc` holds its curve, whose label is not used and whose AUC, if it has
    none, is that of `metrics`; `probabilities` (n,) of a merger, NaN if undefined; `labels` (n,) 0 or 1 = merger.
    """

    label: str
    metrics: Mapping[str, Estimate]
    roc: RocCurve
    probabilities: ArrayLike
    labels: ArrayLike


@styled
def comparison(
    entries: Sequence[Entry],
    *,
    metrics: Sequence[str] = SHOWN,
    threshold: float = 0.5,
    bins: int = 20,
    title: str = "Comparison of models",
    note: str | None = None,
) -> Figure:
    """Draw metrics with their 95 % intervals, ROC curves, and scores of either class, of 1 to 12 models.

    `metrics` names those drawn, of `metrics.point_metrics` without its counts; every entry must have them. An
    undefined value is said to be, an undefined interval left out. `threshold` is named in the legends and drawn
    among the scores. Raises InputError for other names, numbers of models, or arrays that do not match.
    """
    expect(1 <= len(entries) <= MOST_MODELS, "entries", f"1 to {MOST_MODELS} models", len(entries))
    expect(bins >= 1, "bins", "1 or more", bins)
    estimates = [_estimates(entry, metrics) for entry in entries]
    curves = [_curve(entry) for entry in entries]
    shares, counted = zip(*(_shares(entry, bins) for entry in entries), strict=True)

    page = Page(PAGE)
    balanced = any(name.endswith(AT_BALANCE) for name in metrics)
    _heading(page, 0.1, "(a) Metrics", "at balance = both classes weigh the same" if balanced else "")
    page.y += 0.2
    _legend(page, 1.75, _handles([entry.label for entry in entries], 3.4, "marker"), [])
    page.write(5.61, "value [95 % interval]", -0.15, color=GREY)
    for direction, better in (("Higher is better →", 1), ("← Lower is better", -1)):
        rows = [name for name in metrics if METRICS[name].better == better]
        if rows:
            values = np.array([[found[name] for name in rows] for found in estimates])
            height = len(rows) * (0.14 * len(entries) + 0.1)
            page.panel(1.75, 0, 3.75, height, _forest(values, [METRICS[name].label for name in rows], direction))
            page.y += height + 0.45

    key: list[Artist] = [Line2D([], [], color=GREY, linestyle=":", linewidth=1, label="chance")]
    if any(curve.low is not None for curve in curves):
        key.insert(0, Patch(color=GREY, alpha=0.3, linewidth=0, label="95 % interval"))
    if any(curve.operating_point is not None for curve in curves):
        key.insert(0, Line2D([], [], marker="o", color=GREY, linestyle="", label=f"threshold {threshold:g}"))
    cut = Line2D([], [], color="black", linestyle=":", linewidth=0.9, label=f"threshold {threshold:g}")
    areas = [
        f"{curve.label}: {f'AUC {Estimate(*curve.auc).text()}'.replace(' ', NBSP)}"
        for curve in curves
        if curve.auc is not None
    ]
    left, right, side, gap = 0.55, 4.25, 2.75, 0.16
    _heading(page, 0.1, "(b) ROC curves")
    _heading(page, 3.8, "(c) Scores of either class")
    page.y += 0.2
    top = page.y
    bottoms = []
    for x, texts, rest in ((left, areas, key), (right, counted, [cut])):
        page.y = top
        _legend(page, x, _handles(texts, side - 0.35), rest)
        bottoms.append(page.y)
    page.y = max(bottoms)
    page.panel(left, 0, side, side, _roc(curves))
    half = (side - gap) / 2
    for row, name in enumerate(CLASSES):
        scores = _scores([share[row] for share in shares], name, threshold)
        page.panel(right, row * (half + gap), side, half, scores)
    page.y += side + 0.45
    return page.build(title, note)


@styled
def cross_matrix(
    values: ArrayLike,
    lows: ArrayLike,
    highs: ArrayLike,
    trained_on: Sequence[str],
    judged_on: Sequence[str],
    *,
    metric: str = "AUC",
    title: str = "Across data sets",
    note: str | None = None,
) -> Figure:
    """Draw how well each model does on each data set: value and 95 % interval in every cell.

    `values`, `lows`, `highs` (k models, m data sets), m up to 8; an undefined value is "not comparable", an
    undefined interval left out. `trained_on` (k,) and `judged_on` (m,) are their names. Raises InputError for
    shapes that do not match.
    """
    table = numbers("values", values, None, None)
    rows, columns = table.shape
    limits = np.stack([numbers(name, ends, rows, columns) for name, ends in (("lows", lows), ("highs", highs))], -1)
    models, judges = words("trained_on", trained_on, rows), words("judged_on", judged_on, columns)
    expect(rows > 0 and 0 < columns <= MOST_COLUMNS, "values", f"a model and 1 to {MOST_COLUMNS} sets", table.shape)

    width, margin = (COLUMN, 0.75) if columns <= 2 else (PAGE, 1.4 if columns <= 5 else 0.75)
    cell = (width - margin - 1.0) / columns
    texts = {}
    for place, value in np.ndenumerate(table):
        said = Estimate(value, *limits[place]).text().replace(" [", "\n[") if np.isfinite(value) else "not\ncomparable"
        texts[place] = "\n".join(wrapped(line, cell - 0.06, SMALL) for line in said.split("\n"))
    models, judges = [wrapped(name, margin, SMALL) for name in models], [wrapped(name, cell, SMALL) for name in judges]
    tallest = max(lines_height(text, SMALL) for text in [*models, *texts.values()])
    body = rows * max(tallest + 0.12, 0.5, 1.1 / rows)
    height = body + 0.3 + max(lines_height(name, SMALL) for name in judges)
    expect(height <= TALLEST, "values", f"few enough models for {TALLEST:.0f} inches", f"{height:.0f} inches")

    figure = canvas(width, height, title, note)
    axes = figure.subplots()
    known = np.isfinite(table)
    scale = Normalize(*_range(table[known], 0.1))
    shown = axes.imshow(np.ma.masked_array(table, ~known), cmap=SEQUENCE, norm=scale, aspect="auto")
    for (row, column), text in texts.items():
        ink = _ink(SEQUENCE(scale(table[row, column]))) if known[row, column] else "black"
        axes.text(column, row, text, ha="center", va="center", fontsize=SMALL, color=ink, linespacing=1.3)
    axes.set_xticks(range(columns), judges)
    axes.set_yticks(range(rows), models)
    axes.set_xticks(np.arange(1, columns) - 0.5, minor=True)
    axes.set_yticks(np.arange(1, rows) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    axes.set(xlabel="Judged on", ylabel="Trained on")
    bar = figure.colorbar(shown, ax=axes, pad=0.03, fraction=0.05, aspect=15)
    bar.set_label(wrapped(metric, body, NORMAL))
    bar.locator = MaxNLocator(5, steps=ROUND)
    bar.outline.set_visible(False)
    return figure


@styled
def gradcam_comparison(
    images: Sequence[ArrayLike],
    maps: Sequence[ArrayLike],
    captions: Sequence[str],
    columns: Sequence[str],
    *,
    masks: ArrayLike | None = None,
    filters: Sequence[str] | None = None,
    shown: int = -1,
    title: str = "Saliency maps compared",
    note: str | None = None,
) -> Figure:
    """Draw galaxies in several variants, each beside its model's map: image | map | image | map …, a row a galaxy.

    `columns` names 1 to 6 variants, each with `images` (n, F, H, W), of which filter `shown` (of `filters`, if
    named) is drawn in a logarithmic `stretch`, and `maps` (n, H, W) of its model. `captions` (n,) stand left of
    the rows, a line break or two spaces beginning a new line. `masks` (n, H, W), true on the true features of
    the merger, are outlined on the maps. Each map is divided by its own maximum, negative or undefined values
    counting as 0; a map without positive values is labelled "all zero". Raises InputError for shapes that do not
    match, or more images than a page holds.
    """
    variants = words("columns", columns, len(images))
    expect(1 <= len(variants) <= MOST_VARIANTS, "images", f"1 to {MOST_VARIANTS} variants", len(variants))
    expect(len(maps) == len(variants), "maps", f"those of {len(variants)} variants", len(maps))
    pixels = [image_stack(stack) for stack in images]
    stack = (len(pixels[0]), *pixels[0].shape[2:])
    heats = [numbers(f"maps of {name}", heat, *stack) for name, heat in zip(variants, maps, strict=True)]
    for name, planes in zip(variants, pixels, strict=True):
        numbers(f"images of {name}", planes, stack[0], None, *stack[1:])
        depth = planes.shape[1]
        expect(-depth <= shown < depth, "shown", f"one of {depth} filters", shown)
    band = "image" if filters is None else words("filters", filters, pixels[0].shape[1])[shown]
    outlines = np.zeros(stack) if masks is None else numbers("masks", masks, *stack)
    said = words("captions", captions, stack[0])

    page = Page(COLUMN if len(variants) == 1 else PAGE)
    margin = 1.1 if len(variants) == 1 else 1.6
    between = 2 * GAP  # more than within a pair
    cell, tall = cell_size(page.width - margin - between * len(variants), 2 * len(variants), pixels[0])
    starts = [margin + number * (2 * (cell + GAP) + between) for number in range(len(variants))]
    heads = [wrapped(name, 2 * cell, NORMAL, "bold") for name in variants]
    depth = max(lines_height(head, NORMAL) for head in heads)
    for x, head in zip(starts, heads, strict=True):
        page.write(x + cell + GAP / 2, head, depth, ha="center", va="bottom", fontsize=NORMAL, fontweight="bold")
        page.panel(x, depth + 0.04, 2 * cell + GAP, 0.01, rule)
    page.y += depth + 0.1
    middles = [x + step + cell / 2 for x in starts for step in (0, cell + GAP)]
    page.captions(middles, [f"{band} (log)", "saliency map"] * len(variants), cell, ha="center")
    for i, caption in enumerate(said):
        caption = "\n".join(
            wrapped(part, margin - 0.2, SMALL) for part in caption.replace("  ", "\n").splitlines() if part
        )
        height = max(tall, lines_height(caption, SMALL))
        page.write(0.1, caption, height / 2, va="center")
        for x, planes, heat in zip(starts, pixels, heats, strict=True):
            grey = stretch(planes[i, shown])
            page.panel(x, (height - tall) / 2, cell, tall, image_panel(grey))
            drawn = overlay_panel(grey, heat[i], outlines[i] > 0)
            page.panel(x + cell + GAP, (height - tall) / 2, cell, tall, drawn)
        page.y += height + GAP
    if not said:
        page.write(page.width / 2, "no galaxies", 0.1, ha="center", color=GREY)
        page.y += 0.35
    map_key(page, bool((outlines > 0).any()))
    return page.build(title, note)


def _range(values: np.ndarray, least: float) -> tuple[float, float]:
    """Return the ends of a scale that holds the values, if any, and is not narrower than `least`."""
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    spare = max(least - (high - low), 0) / 2
    return low - spare, high + spare


def _ink(colour: Sequence[float]) -> str:
    """Return black or white, whichever contrasts more with a colour (WCAG 2.1 relative luminance)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    return "black" if np.dot(linear, [0.2126, 0.7152, 0.0722]) > 0.179 else "white"


def _look(index: int) -> dict[str, Any]:
    """Return colour, line and marker of a model."""
    return {
        "color": PALETTE[index % len(PALETTE)],
        "linestyle": DASHES[index % len(DASHES)],
        "marker": MARKERS[index % len(MARKERS)],
    }


def _handles(labels: Sequence[str], width: float, kind: str = "linestyle") -> list[Artist]:
    """Return a handle a model for a legend, its label broken to `width` inches: its line or its marker."""
    other = {"linestyle": {"marker": ""}, "marker": {"linestyle": ""}}[kind]
    return [Line2D([], [], label=wrapped(text, width, SMALL), **_look(i) | other) for i, text in enumerate(labels)]


def _heading(page: Page, x: float, title: str, rest: str = "") -> None:
    page.write(x, title, fontsize=NORMAL, fontweight="bold")
    page.write(PAGE - 0.1, rest, 0.01, ha="right", color=GREY)


def _legend(page: Page, x: float, models: Sequence[Artist], key: Sequence[Artist]) -> None:
    """Place a legend, a line a model and a last one for what is common to them, and step below it."""
    look = {"loc": "upper left", "borderaxespad": 0, "borderpad": 0, "handlelength": 2.2, "handletextpad": 0.5}
    height = sum(lines_height(str(handle.get_label()), SMALL) + 0.03 for handle in models)

    def draw(axes: Axes) -> None:
        axes.set_axis_off()
        axes.add_artist(axes.legend(handles=models, labelspacing=0.35, **look))
        if key:
            below = {"ncols": len(key), "columnspacing": 1.2, "bbox_to_anchor": (0, 0)}
            axes.legend(handles=key, **look | below)

    page.panel(x, 0, 1.0, height, draw)
    page.y += height + 0.16 * bool(key) + 0.05


def _estimates(entry: Entry, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Return (value, low, high) of the metrics of an entry."""
    unknown = [name for name in names if name not in METRICS]
    expect(bool(names) and not unknown, "metrics", f"some of {list(METRICS)}", unknown or "none")
    lacking = [name for name in names if name not in entry.metrics]
    expect(not lacking, f"metrics of {entry.label}", f"all of {list(names)}", f"none for {lacking}")
    return {name: numbers(f"{name} of {entry.label}", entry.metrics[name], 3) for name in names}


def _curve(entry: Entry) -> RocCurve:
    """Return the ROC curve of an entry, checked, with its label and its AUC."""
    name, curve = entry.label, entry.roc
    expect((curve.low is None) == (curve.high is None), f"band of {name}", "low and high", "one of them")
    fpr = numbers(f"fpr of {name}", curve.fpr, None)
    length = len(fpr)
    auc = numbers(f"auc of {name}", entry.metrics.get("auc", (np.nan,) * 3) if curve.auc is None else curve.auc, 3)
    point = curve.operating_point
    return RocCurve(
        fpr,
        numbers(f"tpr of {name}", curve.tpr, length),
        None if curve.low is None else numbers(f"low of {name}", curve.low, length),
        None if curve.high is None else numbers(f"high of {name}", curve.high, length),
        (float(auc[0]), float(auc[1]), float(auc[2])),
        None if point is None else tuple(numbers(f"operating point of {name}", point, 2)),
        name,
    )


def _shares(entry: Entry, bins: int) -> tuple[list[np.ndarray], str]:
    """Return the share of each of CLASSES per bin of score, (bins,) each, and how many images there are."""
    scores = numbers(f"probabilities of {entry.label}", entry.probabilities, None)
    labels = numbers(f"labels of {entry.label}", entry.labels, len(scores))
    expect(bool(np.isin(labels, (0, 1)).all()), f"labels of {entry.label}", "0 or 1", np.unique(labels)[:5].tolist())
    known = ~np.isnan(scores)
    inside = (scores[known] >= 0) & (scores[known] <= 1)
    expect(
        bool(inside.all()), f"probabilities of {entry.label}", "values from 0 to 1", scores[known][~inside][:3].tolist()
    )
    shares, counted = [], []
    for label, name in zip((1, 0), CLASSES, strict=True):
        counts = np.histogram(scores[known & (labels == label)], bins, range=(0, 1))[0]
        shares.append(counts / max(counts.sum(), 1))
        counted.append(f"{counts.sum()}{NBSP}{name}")
    lost = [f"{(~known).sum()} undefined"] if not known.all() else []
    return shares, f"{entry.label}: {', '.join(counted + lost)}"


def _forest(values: np.ndarray, names: Sequence[str], direction: str) -> Callable[[Axes], None]:
    """Return what draws values (models, metrics, 3) with their intervals, a band a metric, and writes them."""

    def draw(axes: Axes) -> None:
        count = len(values)
        beside: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "fontsize": SMALL, "va": "center"}
        for row in range(0, len(names), 2):
            axes.axhspan(row - 0.5, row + 0.5, color=BAND, linewidth=0, zorder=0)
        for (model, row), value in np.ndenumerate(values[..., 0]):
            y = row + (model - (count - 1) / 2) * 0.14 / (0.14 * count + 0.1)
            look = _look(model) | {"linestyle": ""}
            # Not errorbar(): it refuses an interval that does not hold its value.
            axes.hlines(y, *values[model, row, 1:], color=look["color"], linewidth=1.4)
            axes.plot(value, y, markersize=5, markeredgecolor="white", markeredgewidth=0.5, **look)
            axes.text(1.03, y, Estimate(*values[model, row]).text(), **beside)
        shown = values[np.isfinite(values)]
        low, high = _range(shown, 0.05)
        margin = 0.04 * (high - low)
        axes.set_xlim(low - margin, high + margin)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(7, steps=ROUND))
        axes.grid(axis="x", color="#D8D8D8", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.set_xlabel(direction)

    return draw


def _roc(curves: Sequence[RocCurve]) -> Callable[[Axes], None]:
    """Return what draws curves with their bands and operating points, and the diagonal of chance."""

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1, zorder=1)
        for index, curve in enumerate(curves):
            look = _look(index) | {"marker": ""}
            if curve.low is not None and curve.high is not None:
                axes.fill_between(curve.fpr, curve.low, curve.high, color=look["color"], alpha=0.2, linewidth=0)
            axes.plot(curve.fpr, curve.tpr, zorder=3, clip_on=False, label=curve.label, **look)
            if curve.operating_point is not None:
                point = {"marker": "o", "markersize": 6, "markeredgecolor": "white", "linestyle": ""}
                axes.plot(*curve.operating_point, zorder=4, clip_on=False, **_look(index) | point)
        axes.set(xlabel="False positive rate", ylabel="True positive rate (completeness)", xlim=(0, 1), ylim=(0, 1))

    return draw


def _scores(shares: Sequence[np.ndarray], name: str, threshold: float) -> Callable[[Axes], None]:
    """Return what draws the distribution of the score of one class by each model."""

    def draw(axes: Axes) -> None:
        borders = np.linspace(0, 1, len(shares[0]) + 1)
        for index, share in enumerate(shares):
            look = _look(index)
            axes.stairs(
                share, borders, color=look["color"], linestyle=look["linestyle"], linewidth=1.2, zorder=2, clip_on=False
            )
        axes.axvline(threshold, color="black", linewidth=0.9, linestyle=":", zorder=1)
        axes.set(ylabel=f"Share of {name}", xlim=(0, 1))
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_locator(MaxNLocator(4, steps=ROUND))
        if name == CLASSES[-1]:
            axes.set_xlabel("Predicted merger probability")
        else:
            axes.tick_params(axis="x", labelbottom=False)

    return draw
