"""ROC curves with their bands, areas and operating points."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import ArrayLike

from deepmerge.estimate import Estimate
from deepmerge.plots.canvas import COLUMN, GREY, NBSP, SMALL, canvas, styled, wrapped
from deepmerge.plots.checks import expect, numbers
from deepmerge.plots.marks import THRESHOLD, diagonal, handle, legend_above, look


@dataclass(frozen=True, eq=False)
class RocCurve:
    """One model's ROC curve: `tpr` and its 95 % band on the grid `fpr` (each (k,), 0 to 1).

    `operating_point` is (fpr, tpr) at the threshold 0.5.
    """

    fpr: ArrayLike
    tpr: ArrayLike
    low: ArrayLike | None = None
    high: ArrayLike | None = None
    auc: Estimate | None = None
    operating_point: tuple[float, float] | None = None
    label: str = "model"

    def text(self) -> str:
        """Name and AUC for a legend, which breaks no number off its interval."""
        return self.label if self.auc is None else f"{self.label}: {f'AUC {self.auc.text()}'.replace(' ', NBSP)}"


def curves_on(axes: Axes, curves: Sequence[RocCurve]) -> None:
    """Draw curves with bands and operating points, and the diagonal of chance, each in the `look` of its number.

    Raises InputError for arrays that do not match, or half a band.
    """
    diagonal(axes, "chance")
    for index, curve in enumerate(curves):
        fpr = numbers(f"fpr of {curve.label}", curve.fpr, None)
        tpr = numbers(f"tpr of {curve.label}", curve.tpr, len(fpr))
        style = look(index) | {"marker": ""}
        expect((curve.low is None) == (curve.high is None), f"band of {curve.label}", "low and high", "one of them")
        if curve.low is not None and curve.high is not None:
            low, high = (numbers(f"band of {curve.label}", end, len(fpr)) for end in (curve.low, curve.high))
            axes.fill_between(fpr, low, high, color=style["color"], alpha=0.2, linewidth=0)
        axes.plot(fpr, tpr, label=curve.label, zorder=3, clip_on=False, **style)
        if curve.operating_point is not None:
            x, y = numbers(f"operating point of {curve.label}", curve.operating_point, 2)
            mark = {"marker": "o", "markersize": 6, "markeredgecolor": "white", "linestyle": ""}
            axes.plot(x, y, zorder=4, clip_on=False, **style | mark)
    axes.set(xlabel="False positive rate", ylabel="True positive rate (completeness)", xlim=(0, 1), ylim=(0, 1))


def key(curves: Sequence[RocCurve]) -> list[Artist]:
    """Return the legend's handles of what is common to the curves."""
    handles: list[Artist] = []
    if any(curve.operating_point is not None for curve in curves):
        handles.append(handle(THRESHOLD["label"], marker="o", color=GREY, linestyle=""))
    if any(curve.low is not None for curve in curves):
        handles.append(Patch(color=GREY, alpha=0.3, linewidth=0, label="95 % interval"))
    return [*handles, handle("chance", color=GREY, linestyle=":", linewidth=1)]


def models(texts: Sequence[str], width: float, kind: str = "linestyle") -> list[Artist]:
    """Return a handle a model for a legend, its line or its marker (`kind`), the text broken to `width` inches."""
    other = {"linestyle": {"marker": ""}, "marker": {"linestyle": ""}}[kind]
    return [handle(wrapped(text, width, SMALL), **look(i) | other) for i, text in enumerate(texts)]


@styled
def roc(curves: Sequence[RocCurve], *, title: str = "ROC curve", note: str | None = None) -> Figure:
    """Draw one or more ROC curves with their bands, AUCs and operating points, and the diagonal of chance.

    Raises InputError for arrays that do not match, or half a band.
    """
    handles = models([curve.text() for curve in curves], COLUMN - 0.9)
    lines = sum(str(each.get_label()).count("\n") + 1 for each in handles)
    figure = canvas(COLUMN, 3.45 + 0.15 * lines, title, note)
    axes = figure.subplots()
    curves_on(axes, curves)
    axes.set_aspect("equal")
    # Two legends over the axes: the key next to it, the models above the key.
    axes.add_artist(legend_above(axes, 3, key(curves)))
    legend_above(axes, 1, handles, (0, 1.06))
    return figure
