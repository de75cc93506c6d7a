"""Trials as figures show them: their marks, and the part of the objective's range that is worth showing.

The axis of the objective shows where most trials are: those far worse than the rest stand at its edge as triangles,
those without a value at its foot.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.ticker import MaxNLocator

from deepmerge.plots.canvas import BLUE, GREY, NORMAL, VERMILLION, wrapped
from deepmerge.plots.checks import expect
from deepmerge.plots.marks import BEST, handle, say

State = Literal["complete", "pruned", "failed"]
Direction = Literal["minimize", "maximize"]  # the words of Optuna

COLOURS = {"complete": BLUE, "pruned": GREY, "failed": VERMILLION}
MARKERS = {"complete": "o", "pruned": "x", "failed": "X"}
DEFAULT: dict[str, Any] = {"marker": "D", "markersize": 7.5, "markerfacecolor": "none", "markeredgewidth": 0.9}
DEFAULT |= {"color": "black", "linestyle": "", "zorder": 5}
# Beyond the scale is what is farther from the best than FAR times the third quartile, and than NEAR of its value.
FAR, NEAR = 3, 0.25
MANY = 100  # trials from which on marks are smaller and curves paler
STEPS = [1, 2, 2.5, 5, 10]  # of ticks
# Without its first shades, which are nearly the white of the page.
AGES = ListedColormap(colormaps["Blues"](np.linspace(0.3, 1, 256)))


@dataclass(frozen=True)
class TrialPoint:
    """One trial of a search.

    `value` of the objective, which a complete trial must have; `params` by name of the setting; `epochs` the
    objective after each epoch from the first, NaN where there is none.
    """

    number: int
    state: State
    value: float | None = None
    params: Mapping[str, float | int | str | bool | None] = field(default_factory=dict)
    epochs: Sequence[float] = ()

    @property
    def height(self) -> float:
        """The value, of a pruned trial without one that of its last epoch; NaN for none, as of failed trials."""
        if self.state == "failed":
            return np.nan
        if self.value is None and self.state == "pruned":
            return next((float(value) for value in reversed(self.epochs) if np.isfinite(value)), np.nan)
        return np.nan if self.value is None else float(self.value)

    @property
    def is_complete(self) -> bool:
        """Whether it ran to its end with a finite value."""
        return self.state == "complete" and bool(np.isfinite(self.height))

    @property
    def course(self) -> np.ndarray:
        """Epoch and objective, (epochs, 2)."""
        return np.column_stack([np.arange(1, len(self.epochs) + 1), np.asarray(self.epochs, dtype=float)])


class Scale:
    """The range of the objective worth showing, and the marks of trials on an axis of that range.

    `default` is the number of the trial with the experiment's own settings; `values` are what is shown, by default the
    height of each trial. Raises InputError for an unknown state or direction, and for a complete trial without a value.
    """

    def __init__(
        self,
        trials: Sequence[TrialPoint],
        direction: Direction,
        default: int | None,
        values: Sequence[float] | None = None,
    ) -> None:
        expect(direction in ("minimize", "maximize"), "direction", "minimize or maximize", direction)
        for trial in trials:
            expect(trial.state in COLOURS, f"state of trial {trial.number}", f"one of {list(COLOURS)}", trial.state)
            has_value = trial.state != "complete" or not np.isnan(trial.height)
            expect(has_value, f"value of the complete trial {trial.number}", "a number", trial.value)
        self.trials, self.default = trials, default
        self.sign = 1 if direction == "minimize" else -1
        self.triangle = "^" if self.sign > 0 else "v"
        complete = [trial for trial in trials if trial.is_complete]
        self.best = min(complete, key=lambda trial: self.sign * trial.height).number if complete else None
        shown = [trial.height for trial in trials] if values is None else values
        # A pruned trial stands at an early epoch, so that it is the complete ones that tell what is usual.
        usual = [trial.height for trial in complete] if values is None and complete else shown
        costs, common = (np.sort(self.sign * np.array(each, float)[np.isfinite(each)]) for each in (shown, usual))
        self.empty = not costs.size
        first, last = (0.0, 1.0) if self.empty else costs[[0, -1]]
        count = len(common)
        quartile = common[max(3 * (count - 1) // 4, min(1, count - 1))] if count else first
        far = FAR if values is None else 2 * FAR  # curves begin far from where they end
        reach = min(last - first, max(far * (quartile - first), NEAR * abs(first)))
        reach = max(reach, 0.02 * abs(first)) or 1.0
        self.low, self.high = sorted((self.sign * first, self.sign * (first + reach)))
        self.margin = 0.06 * reach
        self.foot = self.low - 2 * self.margin
        has_foot = values is None and any(np.isnan(trial.height) for trial in trials)
        self.bottom = (self.foot if has_foot else self.low) - self.margin

    def draw(
        self,
        axes: Axes,
        places: Sequence[float] | np.ndarray,
        trials: Sequence[TrialPoint],
        ages: Normalize | None = None,
    ) -> None:
        """Mark trials at horizontal `places`; complete ones are shaded by their number if `ages` is given."""
        size = 4.5 if len(trials) < MANY else 2.5
        for x, trial in zip(places, trials, strict=True):
            y = self.foot if np.isnan(trial.height) else float(np.clip(trial.height, self.low, self.high))
            colour = AGES(ages(trial.number)) if ages and trial.state == "complete" else COLOURS[trial.state]
            marker = self.triangle if self._is_beyond(trial) else MARKERS[trial.state]
            axes.plot(x, y, marker=marker, color=colour, markersize=size, markeredgewidth=0.9, linestyle="", zorder=3)
            if trial.number == self.default:
                axes.plot(x, y, **DEFAULT)
            if trial.number == self.best:
                axes.plot(x, y, **BEST)

    def handles(self) -> list[Artist]:
        """What the legend says of the marks, with numbers of trials."""
        states: list[str] = [trial.state for trial in self.trials]
        marks = [(state, COLOURS[state], MARKERS[state], states.count(state)) for state in COLOURS]
        marks.append(("beyond the scale", GREY, self.triangle, sum(map(self._is_beyond, self.trials))))
        small: dict[str, Any] = {"markersize": 4.5, "linestyle": ""}
        handles = [
            handle(f"{label} ({count})", color=colour, marker=marker, **small)
            for label, colour, marker, count in marks
            if count
        ]
        heights = {trial.number: trial.height for trial in self.trials}
        if self.default in heights:
            handles.append(handle("default settings", **DEFAULT))
        if self.best is not None:
            handles.append(handle(f"best: {heights[self.best]:.4g} (trial {self.best})", **BEST))
        return handles

    def label(self, axes: Axes, objective: str) -> None:
        """Set range, ticks and label of the axis of the objective."""
        better = "lower" if self.sign > 0 else "higher"
        axes.set_ylim(self.bottom, self.high + self.margin)
        axes.set_ylabel(f"{wrapped(objective[:1].upper() + objective[1:], 2.2, NORMAL)}\n({better} is better)")
        if not self.empty:
            axes.yaxis.set_major_locator(MaxNLocator(6, steps=STEPS))
            return
        axes.set_yticks([])
        if not axes.texts:
            say(axes, "no trial has a value")

    def _is_beyond(self, trial: TrialPoint) -> bool:
        """Whether a trial is so far off that it stands at the edge; NaN is nowhere."""
        return trial.height < self.low or trial.height > self.high
