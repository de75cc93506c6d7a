"""Pages of galaxies beside their saliency maps: those of one model, and those of several models compared.

Both draw the last filter of the images (n, H, W, F) in a logarithmic `stretch`, and outline `masks` (n, H, W), true on
the true features of the merger. Each map (n, H, W) is divided by its own maximum, negative or undefined values counting
as 0; a map without positive values is labelled "all zero". Both raise InputError for shapes that do not match, unknown
words, or more images than a page holds.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from deepmerge.plots.canvas import COLUMN, GREY, NORMAL, PAGE, SMALL, Page, lines_height, styled, wrapped
from deepmerge.plots.checks import expect, numbers, words
from deepmerge.plots.images import (
    GAP,
    MARGIN,
    cell_size,
    image_panel,
    image_stack,
    map_key,
    overlay_panel,
    rule,
    stretch,
)

KINDS = {"TP": "true positives", "FP": "false positives", "TN": "true negatives", "FN": "false negatives"}
CERTAINTIES = {"confident": "most confident", "uncertain": "most uncertain"}
MOST_VARIANTS = 6


@styled
def panels(
    images: ArrayLike,
    merger_maps: ArrayLike,
    non_merger_maps: ArrayLike,
    captions: Sequence[str],
    kinds: Sequence[str],
    certainties: Sequence[str],
    *,
    masks: ArrayLike | None = None,
    filters: Sequence[str] | None = None,
    title: str = "Saliency maps",
    note: str | None = None,
) -> Figure:
    """Draw galaxies with what spoke for either class: image | merger map | non-merger map, on a wide page.

    `captions` (n,); `kinds` (n,) of KINDS, each in rows of its own; `certainties` (n,) of confident (left half),
    uncertain (right).
    """
    pixels = image_stack(images)
    count, *shape = pixels.shape[:3]
    maps = [numbers("merger_maps", merger_maps, count, *shape)]
    maps.append(numbers("non_merger_maps", non_merger_maps, count, *shape))
    outlines = _outlines(masks, pixels)
    captions = words("captions", captions, count)
    kinds = words("kinds", kinds, count, KINDS)
    certainties = words("certainties", certainties, count, CERTAINTIES)

    page = Page(PAGE)
    halves = [MARGIN, MARGIN + (PAGE - MARGIN) / 2 + GAP]
    cell, tall = cell_size(PAGE - MARGIN - 2 * GAP, 6, pixels)
    step = cell + GAP
    for x, certainty in zip(halves, CERTAINTIES.values(), strict=True):
        page.write(x + 1.5 * step, certainty, ha="center", fontsize=NORMAL, fontweight="bold")
        for column, label in enumerate((f"{_band(filters, pixels)} (log)", "for merger", "for non-merger")):
            page.write(x + column * step + cell / 2, label, 0.17, ha="center")
    page.y += 0.34
    for kind, kind_name in KINDS.items():
        left, right = (
            [i for i in range(count) if (kinds[i], certainties[i]) == (kind, certainty)] for certainty in CERTAINTIES
        )
        if not left and not right:
            page.write(halves[0], f"no {kind_name}", 0.05, color=GREY)
            page.y += 0.3
        for row in range(max(len(left), len(right))):
            pair = [half[row] if row < len(half) else None for half in (left, right)]
            page.captions(halves, ["" if i is None else captions[i] for i in pair], 3 * step - GAP)
            page.write(MARGIN - 0.05, kind_name.capitalize(), tall / 2, ha="right", va="center", rotation=90)
            for x, i in zip(halves, pair, strict=True):
                if i is not None:
                    _draw_row(page, x, 0, (cell, tall), pixels[i], [heats[i] for heats in maps], outlines[i])
            page.y += tall + GAP
        page.y += 0.08
    map_key(page, bool(outlines.any()))
    return page.build(title, note)


@styled
def comparison(
    images: Sequence[ArrayLike],
    maps: Sequence[ArrayLike],
    captions: Sequence[str],
    columns: Sequence[str],
    *,
    masks: ArrayLike | None = None,
    filters: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    title: str = "Saliency maps compared",
    note: str | None = None,
) -> Figure:
    """Draw galaxies in several variants, each beside its model's map: image | map | image | map …, a row a galaxy.

    `columns` names 1 to MOST_VARIANTS variants, each with `images` and the `maps` of its model. `captions` (n,) stand
    left of the rows, a line break or two spaces beginning a new line; `groups` (n,) puts a heading above each row whose
    group is another than that of the row before.
    """
    variants = words("columns", columns, len(images))
    expect(1 <= len(variants) <= MOST_VARIANTS, "images", f"1 to {MOST_VARIANTS} variants", len(variants))
    expect(len(maps) == len(variants), "maps", f"those of {len(variants)} variants", len(maps))
    pixels = [image_stack(stack) for stack in images]
    shape = pixels[0].shape[:3]
    heats = [numbers(f"maps of {name}", heat, *shape) for name, heat in zip(variants, maps, strict=True)]
    for name, stack in zip(variants, pixels, strict=True):
        numbers(f"images of {name}", stack, *shape, None)
    band, outlines = _band(filters, pixels[0]), _outlines(masks, pixels[0])
    texts = words("captions", captions, shape[0])
    headings = [""] * shape[0] if groups is None else words("groups", groups, shape[0])

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
    page.captions(middles, [f"{band} (log)", "map"] * len(variants), cell, ha="center")
    for i, text in enumerate(texts):
        if headings[i] != (headings[i - 1] if i else ""):
            page.write(0.1, headings[i], 0.04, fontsize=NORMAL, fontweight="bold")
            page.y += 0.24
        caption = wrapped(text.replace("  ", "\n"), margin - 0.2, SMALL)
        height = max(tall, lines_height(caption, SMALL))
        page.write(0.1, caption, height / 2, va="center")
        for x, stack, heat in zip(starts, pixels, heats, strict=True):
            _draw_row(page, x, (height - tall) / 2, (cell, tall), stack[i], [heat[i]], outlines[i])
        page.y += height + GAP
    if not texts:
        page.write(page.width / 2, "no galaxies", 0.1, ha="center", color=GREY)
        page.y += 0.35
    map_key(page, bool(outlines.any()))
    return page.build(title, note)


def _band(filters: Sequence[str] | None, pixels: np.ndarray) -> str:
    """The name of the filter that is drawn."""
    return "image" if filters is None else words("filters", filters, pixels.shape[-1])[-1]


def _outlines(masks: ArrayLike | None, pixels: np.ndarray) -> np.ndarray:
    shape = pixels.shape[:3]
    return np.zeros(shape, bool) if masks is None else numbers("masks", masks, *shape) > 0


def _draw_row(
    page: Page,
    x: float,
    y: float,
    size: tuple[float, float],
    image: np.ndarray,
    heats: Sequence[np.ndarray],
    outline: np.ndarray,
) -> None:
    """Draw an image (H, W, F) and right of it its maps, in cells of this size (inches)."""
    grey = stretch(image[..., -1])
    drawn = [image_panel(grey), *(overlay_panel(grey, heat, outline) for heat in heats)]
    for column, panel in enumerate(drawn):
        page.panel(x + column * (size[0] + GAP), y, *size, panel)
