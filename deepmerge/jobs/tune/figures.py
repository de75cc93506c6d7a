"""Figures of a search for settings: trials in, `matplotlib.figure.Figure` out.

`objective` is in plain words (validation log loss); `default` is the number of the trial with the experiment's own
settings. All raise InputError for an unknown state or direction, and for a complete trial without a value.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator

from deepmerge.jobs.tune.trials import AGES, COLOURS, MANY, MARKERS, STEPS, Direction, Scale, TrialPoint
from deepmerge.plots.canvas import BLUE, COLUMN, NORMAL, ORANGE, PAGE, SMALL, canvas, styled, wrapped
from deepmerge.plots.checks import expect, numbers
from deepmerge.plots.marks import handle, legend_above, log_ticks, say

PANELS = 3  # in a row of `slices`


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
    """Draw the value of every trial, of a pruned one that of its last epoch, and the best so far."""
    scale = Scale(trials, direction, default)
    figure = canvas(COLUMN, 3.3, title, note)
    axes = figure.subplots()
    order = [trial.number for trial in trials]
    scale.draw(axes, order, trials)
    handles = scale.handles()
    complete = sorted((trial for trial in trials if trial.is_complete), key=lambda trial: trial.number)
    if complete:
        steps = [trial.number for trial in complete]
        best = (np.minimum if direction == "minimize" else np.maximum).accumulate([trial.height for trial in complete])
        line: dict[str, Any] = {"color": ORANGE, "linewidth": 1.2, "drawstyle": "steps-post", "zorder": 1}
        handles += axes.plot([*steps, max(order)], [*best, best[-1]], label="best so far", **line)
    scale.label(axes, objective)
    first, last = min(order, default=0), max(order, default=0)
    room = 0.03 * (last - first) + 0.5
    axes.set_xlim(first - room, last + room)
    axes.xaxis.set_major_locator(MaxNLocator(7, steps=STEPS, integer=True, min_n_ticks=1))
    axes.set_xlabel("Trial")
    legend_above(axes, 2, handles)
    return figure


@styled
def importances(
    importances: Mapping[str, float], *, title: str = "Importance of the settings", note: str | None = None
) -> Figure:
    """Draw how much of the variation of the objective goes back to each setting, the largest share first.

    `importances` by name of the setting, 0 to 1, NaN = undefined; without any the figure says so. Raises InputError
    for other than numbers.
    """
    shares = numbers("importances", list(importances.values()), len(importances))
    order = np.argsort(-shares, kind="stable")  # NaN last
    names = [wrapped(_readable(name), 1.2, SMALL) for name in importances]

    figure = canvas(COLUMN, 0.55 + max(0.27 * len(shares), 0.5), title, note)
    axes = figure.subplots()
    widths = np.nan_to_num(shares[order])
    bars = axes.barh(range(len(order)), widths, height=0.65, color=BLUE)
    texts = ["undefined" if np.isnan(share) else f"{share:.2f}" for share in shares[order]]
    axes.bar_label(bars, texts, padding=3, fontsize=SMALL)
    axes.set_yticks(range(len(order)), [names[i] for i in order])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(max(len(order), 1) - 0.4, -0.6)
    axes.set_xlim(0, 1.15 * max(widths, default=0) or 1)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=STEPS))
    axes.set_xlabel("Share of the variation explained")
    if not importances:
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
    which the dots are spread. A trial without a setting is left out of its panel. Raises InputError for values of a
    `log_scaled` setting that are not above 0, too.
    """
    scale = Scale(trials, direction, default)
    settings = list(dict.fromkeys(name for trial in trials for name in trial.params))
    count = max(len(settings), 1)
    columns = min(count, PANELS)
    rows = -(-count // columns)
    width = COLUMN if columns == 1 else PAGE
    handles = scale.handles()
    abreast = min(3 if columns > 1 else 2, max(len(handles), 1))
    figure = canvas(width, 1.95 * rows + 0.16 * -(-len(handles) // abreast) + 0.06, title, note)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    panels = grid.ravel()
    complete = [trial.number for trial in trials if trial.is_complete]
    oldest, newest = min(complete, default=0), max(complete, default=0)
    ages = Normalize(oldest, max(newest, oldest + 1))
    for axes, name in zip(panels, settings, strict=False):
        having = [trial for trial in trials if name in trial.params]
        places = _setting_axis(axes, name, having, name in log_scaled, (width - 0.8) / columns)
        scale.draw(axes, places, having, ages)
        axes.set_xlabel(wrapped(_readable(name), (width - 0.8) / columns, NORMAL))
    if not settings:
        say(panels[0], "no trial came to have settings")
        panels[0].set_xticks([])
        panels[0].set_xlabel("Setting")
    for row in grid:
        scale.label(row[0], objective)
    for axes in panels[count:]:
        axes.set_axis_off()
    if len(complete) > 1:
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

    Parts of a curve far worse than most are beyond the axis.
    """
    scale = Scale(trials, direction, default, [value for trial in trials for value in trial.epochs])
    figure = canvas(COLUMN, 3.3, title, note)
    axes = figure.subplots()
    handles: list[Artist] = []
    for state, colour in COLOURS.items():
        members = [trial for trial in trials if trial.state == state]
        courses = [trial.course for trial in members if np.isfinite(trial.epochs).any()]
        depth = 1 if state == "pruned" else 2
        alpha = 0.75 if len(courses) < MANY else 0.3
        thin: dict[str, Any] = {"colors": colour, "linewidths": 0.7, "alpha": alpha, "zorder": depth}
        axes.add_collection(LineCollection(courses, label=state, **thin), autolim=False)
        # A curve of one epoch is no line: its end alone can be seen.
        marked = [course for course in courses if state != "complete" or len(course) == 1]
        ends = np.array([course[np.isfinite(course[:, 1])][-1] for course in marked]).reshape(-1, 2)
        mark: dict[str, Any] = {"color": colour, "marker": MARKERS[state], "markersize": 3, "linewidth": 0.7}
        axes.plot(ends[:, 0], ends[:, 1], zorder=depth, **mark | {"linestyle": ""})
        if members:
            line = mark | ({"marker": ""} if state == "complete" else {})
            handles.append(handle(f"{state} ({len(members)})", **line))
    for trial in trials:
        if len(trial.epochs) and trial.number in (scale.best, default):
            is_best = trial.number == scale.best
            look = ("-", ORANGE, 2.2) if is_best else ("--", "black", 1.2)
            style: dict[str, Any] = dict(zip(("linestyle", "color", "linewidth"), look, strict=True))
            style |= {"marker": "o" if len(trial.epochs) == 1 else "", "markersize": 4, "zorder": 5 - is_best}
            words = [f"best: trial {trial.number}"] * is_best + ["default settings"] * (trial.number == default)
            handles += axes.plot(*trial.course.T, label=", ".join(words), **style)
    length = max((len(trial.epochs) for trial in trials), default=0) or 1
    scale.label(axes, objective)
    axes.set_xlim(1 - 0.03 * length, 1.03 * length)
    axes.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    axes.set_xlabel("Epoch")
    legend_above(axes, 2, handles)
    return figure


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
