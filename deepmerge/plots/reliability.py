"""Reliability diagrams: how often images are mergers that a model gives some probability."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from deepmerge.estimate import Estimate
from deepmerge.plots.canvas import BLUE, COLUMN, GREY, NORMAL, PAGE, SMALL, VERMILLION, canvas, styled, wrapped
from deepmerge.plots.checks import expect, numbers
from deepmerge.plots.marks import ROUND, diagonal, handle, interval, point, unit

MOST_PANELS = 5
LOOKS = {"images": (BLUE, "-"), "non-mergers": (BLUE, "-"), "mergers": (VERMILLION, "--")}


class Bins(NamedTuple):
    """Equally wide bins of probability (k,): its mean, the share of mergers, and images by the names of LOOKS.

    Probability and share are 0 to 1, NaN for an empty bin.
    """

    probability: ArrayLike
    observed: Sequence[Estimate]
    images: Mapping[str, ArrayLike]


@styled
def reliability(panels: Mapping[str, Bins], *, title: str = "Reliability", note: str | None = None) -> Figure:
    """Draw the observed share of mergers against the predicted probability, a panel a heading, over counts of images.

    A hollow point has no interval. Raises InputError for more than MOST_PANELS panels or shapes that do not match.
    """
    count = len(panels)
    expect(1 <= count <= MOST_PANELS, "reliability", f"1 to {MOST_PANELS} panels", count)
    width, height, above = (COLUMN, 4.1, 3.2) if count == 1 else (COLUMN if count == 2 else PAGE, 3.6, 2.4)
    figure = canvas(width, height, title, note)
    grid = figure.subplots(2, count, sharex=True, sharey="row", squeeze=False, height_ratios=[above, 1])
    for (upper, lower), (heading, bins) in zip(grid.T, panels.items(), strict=True):
        x = numbers("probability", bins.probability, None)
        expect(len(bins.observed) == len(x), "observed", f"{len(x)} estimates", len(bins.observed))
        diagonal(upper, "perfect calibration")
        for place, estimate in zip(x, bins.observed, strict=True):
            interval(upper, estimate, place, BLUE, upright=True)
        for name, images in bins.images.items():
            colour, dashes = LOOKS[name]
            lower.stairs(numbers(name, images, len(x)), np.linspace(0, 1, len(x) + 1), color=colour, linestyle=dashes)
        upper.set_title(wrapped(heading, width / count - 0.3, SMALL), fontsize=SMALL)
        lower.set_xlabel(wrapped("Predicted merger probability", width / count - 0.3, NORMAL))
        if count > 1:
            unit(upper.xaxis, upper.yaxis)
        lower.yaxis.set_major_locator(MaxNLocator(3, steps=ROUND, integer=True))
    grid[0, 0].set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), ylabel="Fraction of mergers")
    grid[1, 0].set(ylabel="Images")
    grid[1, 0].set_ylim(bottom=0)
    figure.align_ylabels()
    handles = [
        handle("perfect calibration", color=GREY, linestyle=":", linewidth=1),
        handle("with 95 % interval", linestyle="", **point(BLUE)),
        handle("no interval", linestyle="", **point(BLUE, hollow=True)),
    ]
    if len(names := dict.fromkeys(name for bins in panels.values() for name in bins.images)) > 1:
        handles += [handle(name, color=LOOKS[name][0], linestyle=LOOKS[name][1]) for name in names]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles) if width == PAGE else 3)
    return figure
