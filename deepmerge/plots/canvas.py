"""What every figure shares: style, page and `save`.

No pyplot and no figure manager: nothing stays open, and importing this module draws nothing. Widths are those
of A&A. Colours are those of Okabe & Ito (2008, https://jfly.uni-koeln.de/color/), told apart by colour-blind
readers.
"""

import io
import textwrap
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from deepmerge.files import replacing
from deepmerge.plots.checks import expect

COLUMN, PAGE = 3.5, 7.1  # inches
BLUE, VERMILLION, GREEN, PURPLE, SKY, ORANGE = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"
GREY = "#6B6B6B"
SMALL, NORMAL, LARGE = 7.0, 8.0, 9.0  # points
TALLEST = 150.0  # inches: 30 000 pixels at 200 dpi, below the 65 536 that the Agg canvas can hold
NBSP = "\N{NO-BREAK SPACE}"
FONT = "DejaVu Sans"  # ships with matplotlib, hence the same on every machine
STYLE = {
    "axes.labelsize": NORMAL,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": NORMAL,
    "figure.dpi": 200,
    "font.sans-serif": [FONT],
    "font.size": NORMAL,
    "legend.borderpad": 0.2,
    "legend.columnspacing": 1.2,
    "legend.fontsize": SMALL,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "legend.handletextpad": 0.5,
    "lines.linewidth": 1.4,
    "pdf.fonttype": 42,  # journals refuse the default Type 3 fonts
    "text.parse_math": False,  # a "$" in a user's file name is a dollar
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
}
P = ParamSpec("P")


def styled(build: Callable[P, Figure]) -> Callable[P, Figure]:
    """Make `build` draw in the style of this module, whatever the user's matplotlibrc, and restore that.

    Matplotlib holds its style for the whole process: do not build figures in several threads at once.
    """

    @wraps(build)
    def built(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with style.context(["default", STYLE]):
            figure = build(*args, **kwargs)
            # Ticks are made at the first drawing: draw while the style holds, not when somebody saves.
            figure.draw_without_rendering()
            if figure.get_layout_engine() is not None:
                # Axes of fixed aspect settle at the second drawing; after it the layout is final.
                figure.draw_without_rendering()
                figure.set_layout_engine("none")
        return figure

    return built


def wrapped(text: str, width: float, size: float, weight: str = "normal") -> str:
    """Break the lines of `text`, within words if need be, to at most `width` inches."""
    font = FontProperties(family=FONT, size=size, weight=weight)
    letters = max(len(text), 1)
    while True:
        lines = [line for part in text.splitlines() for line in textwrap.wrap(part, letters) or [""]]
        points = max((text_to_path.get_text_width_height_descent(line, font, False)[0] for line in lines), default=0)
        if points <= 72 * width or letters == 1:
            return "\n".join(lines)
        letters = max(min(letters - 1, int(letters * 72 * width / points)), 1)


def lines_height(text: str, size: float) -> float:
    """Return the height in inches of the lines of `text`."""
    return (text.count("\n") + 1) * 1.25 * size / 72 if text else 0.0


class Picture(Figure):
    """A figure that a notebook shows as a picture, without pyplot."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi="figure")
        return buffer.getvalue()


def canvas(width: float, height: float, title: str, note: str | None, *, constrained: bool = True) -> Figure:
    """Return a figure with title and note above a body of `width` × `height` inches, at its bottom.

    The constrained layout, if wanted, keeps the axes within the body.
    """
    title = wrapped(title, width - 0.2, LARGE, "bold")
    note = wrapped(note or "", width - 0.3, SMALL)
    title_height = lines_height(title, LARGE) + 0.08 * bool(title)
    total = height + title_height + (lines_height(note, SMALL) + 0.14 * bool(note))
    figure = Picture(figsize=(width, total), facecolor="white")
    if constrained:
        figure.set_layout_engine("constrained", w_pad=0.06, h_pad=0.05, rect=(0, 0, 1, height / total))
    top: dict[str, Any] = {"ha": "center", "va": "top", "linespacing": 1.15}
    if title:
        figure.text(0.5, 1 - 0.06 / total, title, fontsize=LARGE, fontweight="bold", **top)
    if note:
        frame = {"boxstyle": "square,pad=0.3", "facecolor": "#FDEBD8", "edgecolor": VERMILLION, "linewidth": 1}
        figure.text(0.5, 1 - (title_height + 0.08) / total, note, fontsize=SMALL, bbox=frame, **top)
    return figure


class Page:
    """Panels and texts at places in inches from the top left, drawn by `build` when the height of the page is known.

    `y` is the top of the line being filled.
    """

    def __init__(self, width: float) -> None:
        self.width, self.y = width, 0.05
        self._texts: list[tuple[float, float, str, dict[str, Any]]] = []
        self._panels: list[tuple[float, float, float, float, Callable[[Axes], None]]] = []

    def write(self, x: float, text: str, down: float = 0.0, **look: object) -> None:
        """Place a text, its top at `down` below the current line unless `look` says otherwise."""
        self._texts.append((x, self.y + down, text, {"va": "top", "fontsize": SMALL, **look}))

    def captions(self, places: Sequence[float], texts: Sequence[str], width: float, **look: object) -> None:
        """Write a line of captions, flush at the bottom, and step below it."""
        broken = [wrapped(text, width, SMALL) for text in texts]
        depth = max(lines_height(text, SMALL) for text in broken)
        for x, text in zip(places, broken, strict=True):
            self.write(x, text, depth, va="bottom", **look)
        self.y += depth + 0.04

    def panel(self, x: float, down: float, width: float, height: float, draw: Callable[[Axes], None]) -> None:
        """Place axes, `down` below the current line, on which `draw` is to draw."""
        self._panels.append((x, self.y + down, width, height, draw))

    def build(self, title: str, note: str | None) -> Figure:
        """Return the figure; raise InputError if the page is longer than can be drawn."""
        expect(self.y <= TALLEST, "images", f"few enough for {TALLEST:.0f} inches", f"{self.y:.0f} inches")
        figure = canvas(self.width, self.y, title, note, constrained=False)
        total = figure.get_figheight()
        for x, y, text, look in self._texts:
            figure.text(x / self.width, (self.y - y) / total, text, **look)
        for x, y, width, height, draw in self._panels:
            bottom = (self.y - y - height) / total
            draw(figure.add_axes((x / self.width, bottom, width / self.width, height / total)))
        return figure


def save(figure: Figure, path: str | Path, *, pdf: bool = False) -> list[Path]:
    """Write `figure` as PNG, and as PDF if asked; return the files written.

    A suffix .png or .pdf of `path` is put aside, any other is part of the name. The same figure gives the
    same bytes: neither date nor version is stored. A failure while drawing leaves no file.
    """
    path = Path(path)
    stem = path.with_suffix("") if path.suffix.lower() in (".png", ".pdf") else path
    undated = {"png": {"Software": None}, "pdf": {"Creator": None, "Producer": None, "CreationDate": None}}
    paths = {kind: stem.with_name(f"{stem.name}.{kind}") for kind in ["png"] + ["pdf"] * pdf}
    with style.context(["default", STYLE]), ExitStack() as files:
        for kind, target in paths.items():
            aside = files.enter_context(replacing(target))
            figure.savefig(aside, format=kind, dpi="figure", metadata=undated[kind])
    return list(paths.values())
