"""Pages of grids: maps of filters × layers, what the layers make of a galaxy, and the mean maps of groups of images.

All raise InputError for shapes that do not match and for more than a page holds.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from deepmerge.plots.canvas import GREY, NORMAL, PAGE, SMALL, Page, lines_height, styled, wrapped
from deepmerge.plots.checks import expect, numbers, words
from deepmerge.plots.images import (
    GAP,
    HEAT,
    MARGIN,
    ON_IMAGE,
    cell_size,
    image_panel,
    image_stack,
    map_key,
    overlay_panel,
    stretch,
)

MOST_LAYERS = 5
MOST_FILTERS = 8
MOST_GROUPS = 8


class Group(NamedTuple):
    """The mean of `size` images: (H, W, F) of the images, (H, W) of what spoke for a merger and against one."""

    name: str
    size: int
    image: np.ndarray
    merger_map: np.ndarray
    non_merger_map: np.ndarray


@styled
def layer_grid(
    images: ArrayLike,
    maps: Mapping[str, ArrayLike],
    captions: Sequence[str],
    filters: Sequence[str],
    *,
    masks: ArrayLike | None = None,
    title: str = "Maps of the layers",
    note: str | None = None,
) -> Figure:
    """Draw galaxies in every filter, a row a filter, each with its map of several layers over it, a column a layer.

    images (n, H, W, F); maps: by the name of a layer (n, H, W), at most MOST_LAYERS of them; captions (n,). A map is
    the same in all filters, over whose light it is drawn to be compared with each.
    """
    pixels = image_stack(images)
    count, *shape = pixels.shape[:3]
    expect(1 <= len(maps) <= MOST_LAYERS, "maps", f"1 to {MOST_LAYERS} layers", len(maps))
    heats = {name: numbers(f"maps of {name}", heat, count, *shape) for name, heat in maps.items()}
    bands = words("filters", filters, pixels.shape[-1])
    texts = words("captions", captions, count)
    outlines = np.zeros(pixels.shape[:3], bool) if masks is None else numbers("masks", masks, count, *shape) > 0

    page = Page(PAGE)
    cell, tall = cell_size(PAGE - MARGIN, max(len(maps) + 1, 5), pixels)
    places = [MARGIN + number * (cell + GAP) for number in range(len(maps) + 1)]
    heads = [wrapped(name, cell, SMALL) for name in ("image (log)", *maps)]
    depth = max(lines_height(head, SMALL) for head in heads)
    for x, head in zip(places, heads, strict=True):
        page.write(x + cell / 2, head, depth, ha="center", va="bottom")
    page.y += depth + 0.06
    for i, text in enumerate(texts):
        heading = wrapped(text, PAGE - MARGIN, NORMAL, "bold")
        page.write(MARGIN, heading, fontsize=NORMAL, fontweight="bold")
        page.y += lines_height(heading, NORMAL) + 0.03
        for number, band in enumerate(bands):
            page.write(MARGIN - 0.05, wrapped(band, tall, SMALL), tall / 2, ha="right", va="center", rotation=90)
            grey = stretch(pixels[i, ..., number])
            page.panel(places[0], 0, cell, tall, image_panel(grey))
            for x, heat in zip(places[1:], heats.values(), strict=True):
                page.panel(x, 0, cell, tall, overlay_panel(grey, heat[i], outlines[i]))
            page.y += tall + GAP
        page.y += 0.08
    if not texts:
        page.write(PAGE / 2, "no galaxies", 0.1, ha="center", color=GREY)
        page.y += 0.35
    map_key(page, bool(outlines.any()))
    return page.build(title, note)


@styled
def activation_grid(
    image: ArrayLike,
    features: Mapping[str, ArrayLike],
    labels: Sequence[str],
    filters: Sequence[str],
    *,
    title: str = "Activations",
    note: str | None = None,
) -> Figure:
    """Draw an image (H, W, F), and below what each layer makes of it: by its name features (h, w, k), a row a layer.

    Of each layer the MOST_FILTERS filters that change most within the image, in their order, each from its own minimum
    to its own maximum; at most MOST_LAYERS layers. labels: a text for each layer.
    """
    expect(1 <= len(features) <= MOST_LAYERS, "features", f"1 to {MOST_LAYERS} layers", len(features))
    stacks = {name: numbers(f"features of {name}", each, None, None, None) for name, each in features.items()}
    texts = words("labels", labels, len(features))
    pixels = image_stack(np.asarray(image)[np.newaxis])
    bands = words("filters", filters, pixels.shape[-1])

    page = Page(PAGE)
    cell, tall = cell_size(PAGE - MARGIN, MOST_FILTERS, pixels)
    places = [MARGIN + number * (cell + GAP) for number in range(MOST_FILTERS)]
    shown = min(len(bands), MOST_FILTERS)
    page.captions(
        [x + cell / 2 for x in places[:shown]], [f"{band} (log)" for band in bands[:shown]], cell, ha="center"
    )
    page.write(MARGIN - 0.05, "image", tall / 2, ha="right", va="center", rotation=90)
    for number, x in enumerate(places[:shown]):
        page.panel(x, 0, cell, tall, image_panel(stretch(pixels[0, ..., number])))
    page.y += tall + 3 * GAP
    for text, stack in zip(texts, stacks.values(), strict=True):
        page.write(MARGIN, wrapped(text, PAGE - MARGIN, SMALL, "bold"), fontweight="bold")
        page.y += lines_height(text, SMALL) + 0.02
        spread = stack.std(axis=(0, 1))
        for number, x in zip(np.sort(np.argsort(-spread, kind="stable")[:MOST_FILTERS]), places, strict=False):
            page.panel(x, 0, cell, tall, _activation_panel(stack[..., number], f"{number}"))
        page.y += tall + 2 * GAP
    return page.build(title, note)


@styled
def mean_maps(groups: Sequence[Group], filters: Sequence[str], *, title: str, note: str | None = None) -> Figure:
    """Draw groups of images, a column each: mean image in the last filter, mean map for a merger, and against one.

    Maps are in logits and on one scale, so that groups compare. At most MOST_GROUPS.
    """
    expect(1 <= len(groups) <= MOST_GROUPS, "groups", f"1 to {MOST_GROUPS} groups", len(groups))
    stack = image_stack([group.image for group in groups])
    pairs = [(group.merger_map, group.non_merger_map) for group in groups]
    heats = numbers("maps", pairs, len(groups), 2, *stack.shape[1:3])
    band = words("filters", filters, stack.shape[-1])[-1]
    largest = float(heats.max()) or 1.0

    page = Page(PAGE)
    cell, tall = cell_size(PAGE - MARGIN, max(len(groups), 4), stack)
    places = [MARGIN + number * (cell + GAP) for number in range(len(groups))]
    heads = [f"{group.name}\n{group.size} image{'s' * (group.size != 1)}" for group in groups]
    page.captions([x + cell / 2 for x in places], heads, cell, ha="center")
    rows = [f"mean {band} (log)", "for a merger", "against one"]
    for row, label in enumerate(rows):
        page.write(MARGIN - 0.05, wrapped(label, tall, SMALL), tall / 2, ha="right", va="center", rotation=90)
        for number, x in enumerate(places):
            shades = stretch(stack[number, ..., -1]) if row == 0 else heats[number, row - 1]
            page.panel(x, 0, cell, tall, image_panel(shades) if row == 0 else _heat_panel(shades, largest))
        page.y += tall + GAP

    def scale(axes: Axes) -> None:
        axes.imshow(np.tile(np.linspace(0, 1, 256), (2, 1)), cmap=HEAT, aspect="auto", extent=(0, largest, 0, 1))
        axes.set(xticks=[0, largest / 2, largest], yticks=[])
        axes.set_xticklabels([f"{tick:.2g}" for tick in (0, largest / 2, largest)])
        axes.set_xlabel("Mean map (logits)", fontsize=SMALL)

    page.y += 0.05
    page.panel(MARGIN, 0, 1.6, 0.1, scale)
    page.y += 0.5
    return page.build(title, note)


def _heat_panel(heat: np.ndarray, largest: float) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        axes.set_axis_off()
        axes.imshow(heat, cmap=HEAT, vmin=0, vmax=largest, origin="lower", interpolation="nearest")

    return draw


def _activation_panel(shades: np.ndarray, name: str) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        axes.set_axis_off()
        axes.imshow(shades, cmap=HEAT, origin="lower", interpolation="nearest", aspect="auto")
        axes.text(0.04, 0.04, name, fontsize=SMALL, transform=axes.transAxes, **ON_IMAGE)

    return draw
