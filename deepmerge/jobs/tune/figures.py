"""Figures of a search for settings: trials in, `matplotlib.figure.Figure` out, in the style of `figures`.

The states look the same in all of them. The axis of the objective shows where most trials are: those far worse than
the rest stand at its edge as triangles, those without a value at its foot.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator

from deepmerge.plots.canvas import BLUE, COLUMN, GREY, NORMAL, ORANGE, PAGE, SMALL, VERMILLION, canvas, styled, wrapped
from deepmerge.plots.checks import expect, numbers
from deepmerge.plots.marks import BEST, handle, legend_above, log_ticks, say

State = Literal["complete", "pruned", "failed"]
Direction = Literal["minimize", "maximize"]  # the words of Optuna
Setting = float | int | str | bool | None

COLOURS = {"complete": BLUE, "pruned": GREY, "failed": VERMILLION}
MARKERS = {"complete": "o", "pruned": "x", "failed": "X"}
DEFAULT: dict[str, Any] = {"marker": "D", "markersize": 7.5, "markerfacecolor": "none", "markeredgewidth": 0.9}
DEFAULT |= {"color": "black", "linestyle": "", "zorder": 5}
# Beyond the scale is what is farther from the best than FAR times the third quartile, and than NEAR of its value.
FAR, NEAR = 3, 0.25
MANY = 100  # trials from which on marks are smaller and curves paler
STEPS = [1, 2, 2.5, 5, 10]  # of ticks
PANELS = 3  # in a row of `slices`
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
    params: Mapping[str, Setting] = field(default_factory=dict)
    epochs: Sequence[float] = ()


@styled
def history(
    trials: Sequence[TrialPoint],
    objective: str,
    direction: Direction,
    *,
    default: int | None = 0,
    title: str = "Search history",
    note: str | None = None,
) -> Figure:
    """Draw the value of every trial and the best so far.

    `objective` in plain words (validation log loss); `default` is the number of the trial with the experiment's
    own settings. A pruned trial stands at its value or else that of its last epoch. Raises InputError for an
    unknown state or direction, and for a complete trial without a value.
    """
    scale = _Scale(trials, direction)
    figure = canvas(COLUMN, 3.3, title, note)
    axes = figure.subplots()
    order = [trial.number for trial in trials]
    scale.draw(axes, order, trials, default)
    handles = scale.handles(trials, default)
    done = sorted((trial for trial in trials if _complete(trial)), key=lambda trial: trial.number)
    if done:
        steps = [trial.number for trial in done]
        best = (np.minimum if direction == "minimize" else np.maximum).accumulate([_value(trial) for trial in done])
        line: dict[str, Any] = {"color": ORANGE, "linewidth": 1.2, "drawstyle": "steps-post", "zorder": 1}
        handles += axes.plot([*steps, max(order)], [*best, best[-1]], label="best so far", **line)
    scale.label(axes, objective)
    first, last = (min(order), max(order)) if order else (0, 0)
    room = 0.03 * (last - first) + 0.5
    axes.set_xlim(first - room, last + room)
    axes.xaxis.set_major_locator(MaxNLocator(7, steps=STEPS, integer=True, min_n_ticks=1))
    axes.set_xlabel("Trial")
    legend_above(axes, 2, handles)
    return figure


@styled
def importances(
    importances: Mapping[str, float],
    *,
    title: str = "Importance of the settings",
    note: str | None = None,
) -> Figure:
    """Draw how much of the variation of the objective goes back to each setting, the largest share first.

    `importances` by name of the setting, 0 to 1, NaN = undefined; without any the figure says so. Raises
    InputError for what is no number.
    """
    shares = numbers("importances", list(importances.values()), len(importances))
    order = sorted(range(len(shares)), key=lambda i: (np.isnan(shares[i]), -np.nan_to_num(shares[i])))
    names = [wrapped(_readable(name), 1.2, SMALL) for name in importances]

    figure = canvas(COLUMN, 0.55 + max(0.27 * len(shares), 0.5), title, note)
    axes = figure.subplots()
    axes.barh(range(len(order)), np.nan_to_num(shares[order]), height=0.65, color=BLUE)
    for row, i in enumerate(order):
        text = "undefined" if np.isnan(shares[i]) else f"{shares[i]:.2f}"
        axes.annotate(
            text, (np.nan_to_num(shares[i]), row), (3, 0), textcoords="offset points", va="center", fontsize=SMALL
        )
    axes.set_yticks(range(len(order)), [names[i] for i in order])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(max(len(order), 1) - 0.4, -0.6)
    axes.set_xlim(0, 1.15 * np.nanmax([*shares, 0]) or 1)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=STEPS))
    axes.set_xlabel("Share of the variation explained")
    if not order:
        say(axes, "too few complete trials to tell")
    return figure


@styled
def slices(
    trials: Sequence[TrialPoint],
    objective: str,
    direction: Direction,
    log_scaled: Collection[str] = (),
    *,
    default: int | None = 0,
    title: str = "Settings tried",
    note: str | None = None,
) -> Figure:
    """Draw the value of every trial against each setting, a panel a setting; later trials are darker.

    Settings named in `log_scaled` have a logarithmic axis; those with texts or truth values have categories, over
    which the dots are spread. A trial without a setting is left out of its panel. Raises InputError as `history`
    does, and for values of a `log_scaled` setting that are not above 0.
    """
    scale = _Scale(trials, direction)
    settings = list(dict.fromkeys(name for trial in trials for name in trial.params))
    count = max(len(settings), 1)
    columns = min(count, PANELS)
    rows = -(-count // columns)
    width = COLUMN if columns == 1 else PAGE
    handles = scale.handles(trials, default)
    abreast = min(3 if columns > 1 else 2, max(len(handles), 1))
    figure = canvas(width, 1.95 * rows + 0.16 * -(-len(handles) // abreast) + 0.06, title, note)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    panels = grid.ravel()
    order = [trial.number for trial in trials if _complete(trial)]
    ages = Normalize(min(order, default=0), max(max(order, default=0), min(order, default=0) + 1))
    for axes, name in zip(panels, settings, strict=False):
        having = [trial for trial in trials if name in trial.params]
        places = _setting_axis(axes, name, having, name in log_scaled, (width - 0.8) / columns)
        scale.draw(axes, places, having, default, ages)
        axes.set_xlabel(wrapped(_readable(name), (width - 0.8) / columns, NORMAL))
    if not settings:
        say(panels[0], "no trial came to have settings")
        panels[0].set_xticks([])
        panels[0].set_xlabel("Setting")
    for row in grid:
        scale.label(row[0], objective)
    for axes in panels[count:]:
        axes.set_axis_off()
    if len(order) > 1:
        shades = figure.colorbar(ScalarMappable(ages, AGES), ax=grid, pad=0.02, fraction=0.05, aspect=12 * rows)
        shades.set_label("Trial")
        shades.locator = MaxNLocator(5, steps=STEPS, integer=True)
        shades.outline.set_visible(False)
    figure.legend(handles=handles, ncols=abreast, loc="outside lower center")
    return figure


@styled
def curves(
    trials: Sequence[TrialPoint],
    objective: str,
    direction: Direction,
    *,
    default: int | None = 0,
    title: str = "Course of every trial",
    note: str | None = None,
) -> Figure:
    """Draw the objective of each trial against epoch; the best is bold, a mark ends those that were cut short.

    Parts of a curve far worse than most are beyond the axis. Raises InputError as `history` does.
    """
    scale = _Scale(trials, direction, [value for trial in trials for value in trial.epochs])
    figure = canvas(COLUMN, 3.3, title, note)
    axes = figure.subplots()
    handles: list[Artist] = []
    for state, colour in COLOURS.items():
        members = [trial for trial in trials if trial.state == state]
        drawn = [_course(trial) for trial in members if np.isfinite(trial.epochs).any()]
        depth = 1 if state == "pruned" else 2
        paleness = 0.75 if len(drawn) < MANY else 0.3
        thin: dict[str, Any] = {"colors": colour, "linewidths": 0.7, "alpha": paleness, "zorder": depth}
        axes.add_collection(LineCollection(drawn, label=state, **thin), autolim=False)
        # A curve of one epoch is no line: its end alone can be seen.
        marked = [course for course in drawn if state != "complete" or len(course) == 1]
        ends = np.array([course[np.isfinite(course[:, 1])][-1] for course in marked]).reshape(-1, 2)
        mark: dict[str, Any] = {"color": colour, "marker": MARKERS[state], "markersize": 3, "linewidth": 0.7}
        axes.plot(ends[:, 0], ends[:, 1], zorder=depth, **mark | {"linestyle": ""})
        if members:
            shown = mark | ({"marker": ""} if state == "complete" else {})
            handles.append(handle(label=f"{state} ({len(members)})", **shown))
    for trial in trials:
        if len(trial.epochs) and trial.number in (scale.best, default):
            best = trial.number == scale.best
            look: dict[str, Any] = {"color": "black", "linewidth": 1.2, "linestyle": "--"}
            if best:
                look = {"color": ORANGE, "linewidth": 2.2}
            course = _course(trial)
            look |= {"marker": "o" if len(course) == 1 else "", "markersize": 4, "zorder": 5 - best}
            text = [f"best: trial {trial.number}"] * best + ["default settings"] * (trial.number == default)
            handles += axes.plot(course[:, 0], course[:, 1], label=", ".join(text), **look)
    length = max((len(trial.epochs) for trial in trials), default=0) or 1
    scale.label(axes, objective)
    axes.set_xlim(1 - 0.03 * length, 1.03 * length)
    axes.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    axes.set_xlabel("Epoch")
    legend_above(axes, 2, handles)
    return figure


class _Scale:
    """The range of the objective worth showing, and the marks of trials on an axis of that range."""

    def __init__(
        self, trials: Sequence[TrialPoint], direction: Direction, values: Sequence[float] | None = None
    ) -> None:
        expect(direction in ("minimize", "maximize"), "direction", "minimize or maximize", direction)
        for trial in trials:
            expect(trial.state in COLOURS, f"state of trial {trial.number}", f"one of {list(COLOURS)}", trial.state)
            lacking = trial.state == "complete" and np.isnan(_value(trial))
            expect(not lacking, f"value of the complete trial {trial.number}", "a number", trial.value)
        self.sign = 1 if direction == "minimize" else -1
        done = [trial for trial in trials if _complete(trial)]
        self.best = min(done, key=lambda trial: self.sign * _value(trial)).number if done else None
        shown = [_value(trial) for trial in trials] if values is None else values
        # A pruned trial stands at an early epoch, so that it is the complete ones that tell what is usual.
        usual = [_value(trial) for trial in done] if values is None and done else shown
        costs, common = (np.sort(self.sign * np.array(each, float)[np.isfinite(each)]) for each in (shown, usual))
        self.empty = not costs.size
        first, last = (0.0, 1.0) if self.empty else costs[[0, -1]]
        count = len(common)
        quartile = common[max(3 * (count - 1) // 4, min(1, count - 1))] if count else first
        far = FAR if values is None else 2 * FAR  # curves begin far from where they end
        reach = min(last - first, max(far * (quartile - first), NEAR * abs(first)))
        reach = max(reach, 0.02 * abs(first)) or 1.0
        self.low, self.high = sorted((self.sign * first, self.sign * (first + reach)))
        lost = values is None and any(np.isnan(_value(trial)) for trial in trials)
        self.margin = 0.06 * reach
        self.foot = self.low - 2 * self.margin
        self.bottom = self.foot - self.margin if lost else self.low - self.margin

    def place(self, trial: TrialPoint) -> float:
        """Height at which a trial stands."""
        value = _value(trial)
        return self.foot if np.isnan(value) else float(np.clip(value, self.low, self.high))

    def beyond(self, trial: TrialPoint) -> bool:
        """Whether a trial is so far off that it stands at the edge."""
        value = _value(trial)
        return not np.isnan(value) and self.place(trial) != value

    def draw(
        self,
        axes: Axes,
        places: Sequence[float] | np.ndarray,
        trials: Sequence[TrialPoint],
        default: int | None,
        ages: Normalize | None = None,
    ) -> None:
        """Mark trials at horizontal `places`; complete ones are shaded by their number if `ages` is given."""
        size = 4.5 if len(trials) < MANY else 2.5
        for x, trial in zip(places, trials, strict=True):
            y = self.place(trial)
            colour = AGES(ages(trial.number)) if ages and trial.state == "complete" else COLOURS[trial.state]
            marker = self._triangle() if self.beyond(trial) else MARKERS[trial.state]
            axes.plot(x, y, marker=marker, color=colour, markersize=size, markeredgewidth=0.9, linestyle="", zorder=3)
            if trial.number == default:
                axes.plot(x, y, **DEFAULT)
            if trial.number == self.best:
                axes.plot(x, y, **BEST)

    def handles(self, trials: Sequence[TrialPoint], default: int | None) -> list[Artist]:
        """What the legend says of the marks, with numbers of trials."""
        small: dict[str, Any] = {"markersize": 4.5, "linestyle": ""}
        found: list[Artist] = []
        for state, colour in COLOURS.items():
            count = sum(trial.state == state for trial in trials)
            if count:
                found.append(handle(color=colour, marker=MARKERS[state], label=f"{state} ({count})", **small))
        off = sum(map(self.beyond, trials))
        if off:
            found.append(handle(color=GREY, marker=self._triangle(), label=f"beyond the scale ({off})", **small))
        if any(trial.number == default for trial in trials):
            found.append(handle(label="default settings", **DEFAULT))
        for trial in trials:
            if trial.number == self.best:
                found.append(handle(label=f"best: {_value(trial):.4g} (trial {trial.number})", **BEST))
        return found

    def label(self, axes: Axes, objective: str) -> None:
        """Set range, ticks and label of the axis of the objective."""
        better = "lower" if self.sign > 0 else "higher"
        axes.set_ylim(self.bottom, self.high + self.margin)
        axes.set_ylabel(f"{wrapped(_capital(objective), 2.2, NORMAL)}\n({better} is better)")
        if self.empty:
            axes.set_yticks([])
            if not axes.texts:
                say(axes, "no trial has a value")
        else:
            axes.yaxis.set_major_locator(MaxNLocator(6, steps=STEPS))

    def _triangle(self) -> str:
        return "^" if self.sign > 0 else "v"


def _value(trial: TrialPoint) -> float:
    """Where a trial stands, NaN for nowhere: a failed one has no value, a pruned one that of its last epoch."""
    if trial.state == "failed":
        return np.nan
    known = [value for value in trial.epochs if np.isfinite(value)] if trial.state == "pruned" else []
    value = trial.value if trial.value is not None else known[-1] if known else np.nan
    return float(value)


def _complete(trial: TrialPoint) -> bool:
    return trial.state == "complete" and bool(np.isfinite(_value(trial)))


def _course(trial: TrialPoint) -> np.ndarray:
    """Epoch and objective, (epochs, 2)."""
    return np.column_stack([np.arange(1, len(trial.epochs) + 1), np.asarray(trial.epochs, dtype=float)])


def _setting_axis(axes: Axes, name: str, trials: Sequence[TrialPoint], log_scaled: bool, width: float) -> np.ndarray:
    """Prepare the axis of a setting on a panel of `width` inches; return the place of each trial on it."""
    values: list[Any] = [trial.params[name] for trial in trials]
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in values):
        names = sorted({str(value) for value in values})
        axes.set_xticks(range(len(names)), [wrapped(text, width / len(names), SMALL) for text in names])
        axes.set_xlim(-0.6, len(names) - 0.4)
        # Multiples of the golden ratio spread evenly, however many there are.
        spread = np.array([trial.number for trial in trials]) * 0.618034 % 1 - 0.5
        return np.array([names.index(str(value)) for value in values]) + 0.5 * spread
    places = numbers(name, values, len(values))
    low, high = places.min(), places.max()
    if log_scaled:
        expect(low > 0, f"{name}, which is log_scaled,", "values above 0", low)
        axes.set_xscale("log")
        room = max((high / low) ** 0.06, 1.1)
        axes.set_xlim(low / room, high * room)
        between = (1, 2, 5) if high / low < 10 else (1, 3) if high / low < 60 else (1,)
        log_ticks(axes.xaxis, between)
    else:
        room = 0.06 * (high - low) or 0.1 * abs(high) or 0.1
        axes.set_xlim(low - room, high + room)
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=STEPS))
    if all(isinstance(value, int) for value in values) and len(set(values)) <= 5:
        axes.xaxis.set_major_locator(FixedLocator(sorted(set(values))))
    return places


def _readable(name: str) -> str:
    return name.replace("_", " ")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
