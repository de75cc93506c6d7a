"""Figures of galaxy images: examples, and saliency maps laid over them.

Panels are placed in inches from the top of the page: no automatic layout sets square images as tightly.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import ArrayLike

from deepmerge.plots.canvas import COLUMN, GREY, NORMAL, PAGE, SKY, SMALL, Page, styled, wrapped
from deepmerge.plots.checks import expect, numbers, words

GREYS = colormaps["gray"].with_extremes(bad=SKY)
HEAT = colormaps["inferno"]
OUTLINE = SKY
# White with a black rim is legible on any noise.
ON_IMAGE: dict[str, Any] = {"color": "white", "path_effects": [withStroke(linewidth=1.8, foreground="black")]}
DIMMED = 0.6  # brightness of a galaxy below its map, lest a white nucleus outshine it
GAP, MARGIN = 0.05, 0.25  # inches between panels, and left of them


def stretch(image: ArrayLike) -> np.ndarray:
    """Return the logarithmic stretch of one image (H, W) of any real type, as float64 from 0 to 1.

    y = log(1 + (x − b)/s) / log(1 + (t − b)/s), cut to [0, 1]. With σ = 1.4826 × the median distance to the
    median: b = median − σ, which makes the sky nearly black, but not below the minimum; t = the 99.8th
    percentile, lest a hot pixel darken the rest, but at least b + 10σ, so that noise about a faint galaxy
    stays dim; s = 2σ, but at least (t − b)/1000, so that an image without noise shows 3 decades. Negative
    pixels are ordinary values. What is not finite becomes NaN, a constant image 0.
    """
    pixels = np.array(image, dtype=float)
    pixels[~np.isfinite(pixels)] = np.nan
    values = pixels[np.isfinite(pixels)]
    if not values.size or values.min() == values.max():
        return pixels * 0.0
    # Scaled first: the range of values near the largest float would overflow.
    largest = np.abs(values).max()
    pixels, values = pixels / largest, values / largest
    sky = np.median(values)
    noise = 1.4826 * np.median(np.abs(values - sky))
    black = max(sky - noise, values.min())
    reach = max(np.percentile(values, 99.8) - black, 10 * noise)
    if reach <= 0:  # a few odd pixels on a flat sky
        black, reach = values.min(), values.max() - values.min()
    softening = max(2 * noise, reach / 1000)
    return np.log1p(np.clip(pixels - black, 0, reach) / softening) / np.log1p(reach / softening)


@styled
def gallery(
    images: ArrayLike,
    titles: Sequence[str],
    filters: Sequence[str],
    groups: Sequence[str] | None = None,
    *,
    title: str = "Example galaxies",
    note: str | None = None,
) -> Figure:
    """Draw example galaxies in a logarithmic `stretch`: a column an example, a row a filter.

    `images` (n, H, W, F), any real type; `titles` (n,); `filters` (F,) in order of wavelength; `groups` (n,) puts
    equal names together under a heading. Pixels that are not finite are light blue. Raises InputError for shapes that
    do not match, or more images than a page holds.
    """
    pixels = image_stack(images)
    count, depth = len(pixels), pixels.shape[-1]
    titles, filters = words("titles", titles, count), words("filters", filters, depth)
    headings = [""] * count if groups is None else words("groups", groups, count)

    columns = 6 if count > 3 else max(count, 2)
    page = Page(PAGE if count > 3 else COLUMN)
    cell, tall = cell_size(page.width - MARGIN, columns, pixels)
    for line in _lines(headings, columns):
        places = [(MARGIN + column * (cell + GAP), i) for column, i in enumerate(line)]
        for name in dict.fromkeys(headings[i] for i in line if headings[i]):
            group = [x for x, i in places if headings[i] == name]
            page.write(group[0], name, fontsize=NORMAL, fontweight="bold")
            page.panel(group[0], 0.18, group[-1] + cell - group[0], 0.01, rule)
        page.y += 0.24 if any(headings) else 0
        page.captions([x + cell / 2 for x, _ in places], [titles[i] for i in line], cell, ha="center")
        for row, label in enumerate(filters):
            page.write(MARGIN - 0.05, label, tall / 2, ha="right", va="center", rotation=90)
            for x, i in places:
                page.panel(x, 0, cell, tall, image_panel(stretch(pixels[i, ..., row])))
            page.y += tall + GAP
        page.y += 0.08
    if not count:
        page.write(page.width / 2, "no examples", 0.1, ha="center", color=GREY)
        page.y += 0.35
    return page.build(title, note)


def _lines(groups: Sequence[str], columns: int) -> list[list[int]]:
    """Return the indices of each line: groups in order of appearance, broken only if longer than a line."""
    lines: list[list[int]] = []
    for name in dict.fromkeys(groups):
        members = [i for i, group in enumerate(groups) if group == name]
        for part in (members[start : start + columns] for start in range(0, len(members), columns)):
            if lines and len(lines[-1]) + len(part) <= columns:
                lines[-1] += part
            else:
                lines.append(part)
    return lines


def cell_size(room: float, columns: int, pixels: np.ndarray) -> tuple[float, float]:
    """Return width and height in inches of an image where `columns` fill the room; 3 : 1 at most."""
    width = room / columns - GAP
    return width, width * float(np.clip(pixels.shape[1] / pixels.shape[2], 1 / 3, 3))


def rule(axes: Axes) -> None:
    """Draw a thin line along the axes."""
    axes.set_axis_off()
    axes.axhline(0, color=GREY, linewidth=0.8)


def image_stack(images: ArrayLike) -> np.ndarray:
    """Return images (n, H, W, F) as float64, none of H, W, F being 0."""
    pixels = numbers("images", images, None, None, None, None)
    expect(min(pixels.shape[1:]) > 0, "images", "at least one filter and pixel", pixels.shape)
    return pixels


def image_panel(shades: np.ndarray) -> Callable[[Axes], None]:
    """Return what draws shades (H, W), 0 to 1."""

    def draw(axes: Axes) -> None:
        axes.set_axis_off()
        axes.imshow(shades, cmap=GREYS, vmin=0, vmax=1, origin="lower", interpolation="nearest")

    return draw


def overlay_panel(grey: np.ndarray, heat: np.ndarray, outline: np.ndarray) -> Callable[[Axes], None]:
    """Return what draws a map over its galaxy, and the outline of the true features."""

    def draw(axes: Axes) -> None:
        positive = np.where(np.isfinite(heat) & (heat > 0), heat, 0.0)
        largest = positive.max()
        axes.set_axis_off()
        shades = DIMMED * np.nan_to_num(grey)
        axes.imshow(_blend(shades, positive / (largest or 1)), origin="lower", interpolation="nearest")
        if min(outline.shape) > 1 and outline.any() and not outline.all():
            axes.contour(outline, levels=[0.5], colors=[OUTLINE], linewidths=0.9)
        if not largest:
            axes.text(0.5, 0.04, "all zero", fontsize=SMALL, ha="center", transform=axes.transAxes, **ON_IMAGE)

    return draw


def _blend(grey: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Return colours (H, W, 3) of a map over shades (H, W), both 0 to 1; a map of 0 leaves the shade."""
    weight = 0.8 * np.sqrt(heat)[..., None]
    return (1 - weight) * grey[..., None] + weight * HEAT(heat)[..., :3]


def map_key(page: Page, outlined: bool) -> None:
    """Write the colour scale of the maps, and what the outline means, at the foot of the page."""

    def scale(axes: Axes) -> None:
        ramp = np.tile(np.linspace(0, 1, 256), (2, 1))
        axes.imshow(_blend(np.zeros_like(ramp), ramp), aspect="auto", extent=(0, 1, 0, 1))
        axes.set(xticks=[0, 0.5, 1], yticks=[])
        axes.set_xlabel("Map / its maximum", fontsize=SMALL)

    def line(axes: Axes) -> None:
        axes.set_axis_off()
        axes.plot([0, 1], [0, 0], color=OUTLINE, linewidth=1.5)

    page.y += 0.05
    page.panel(MARGIN, 0, 1.6, 0.1, scale)
    if outlined:
        page.panel(MARGIN + 2.0, 0, 0.25, 0.1, line)
        x = MARGIN + 2.3
        page.write(x, wrapped("true features of the merger", page.width - x - 0.05, SMALL), -0.01)
    page.y += 0.5
