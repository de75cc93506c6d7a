"""The figures of a search say what its trials say, carry their warning, and survive odd studies."""

import sys
from dataclasses import replace
from functools import partial

import matplotlib as mpl
import numpy as np
import pytest
from conftest import texts, within_the_page
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from deepmerge.errors import InputError
from deepmerge.jobs.tune import figures
from deepmerge.jobs.tune.trials import TrialPoint
from deepmerge.plots import canvas

pytestmark = pytest.mark.usefixtures("no_warnings")

NOTE = "Simulated demo data – not Illustris"
NAN, INF = float("nan"), float("inf")
LOSS = "validation log loss"


def setting(number):
    return {"dropout": 0.1 * number, "l2": 10.0**-number, "schedule": "cosine" if number % 2 else "constant"}


TRIALS = [
    TrialPoint(0, "complete", 0.50, setting(1), [0.9, 0.6, 0.50]),
    TrialPoint(1, "complete", 0.55, setting(2), [0.8, 0.6, 0.55]),
    TrialPoint(2, "pruned", None, setting(3), [0.9, 0.58]),
    TrialPoint(3, "failed", None, setting(4), [0.7, NAN]),
    TrialPoint(4, "complete", 0.45, setting(5), [0.6, 0.5, 0.45]),
    TrialPoint(5, "complete", 0.48, setting(2), [0.6, 0.48, 0.50]),
]
BUILDERS = {
    "history": partial(figures.history, TRIALS, LOSS, "minimize"),
    "importances": partial(figures.importances, {"dropout": 0.1, "learning_rate": 0.7, "l2": 0.2}),
    "slices": partial(figures.slices, TRIALS, LOSS, "minimize", ("l2",)),
    "curves": partial(figures.curves, TRIALS, LOSS, "minimize"),
}
OF_TRIALS = {
    "history": figures.history,
    "slices": partial(figures.slices, log_scaled=("learning_rate",)),
    "curves": figures.curves,
}


def marks(axes, marker):
    """Places of the marks of this kind, a row each, in order of drawing."""
    lines = [line for line in axes.get_lines() if line.get_marker() == marker and line.get_linestyle() == "None"]
    return np.array([line.get_xydata()[0] for line in lines]).reshape(-1, 2)


def panel(figure, setting):
    [found] = [axes for axes in figure.axes if axes.get_xlabel() == setting]
    return found


@pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)
def test_title_and_note_are_written_within_the_page_and_no_setting_is_touched(build):
    settings = dict(mpl.rcParams)
    title, note = " ".join(["title"] * 30), " ".join([NOTE] * 8)
    figure = build(title=title, note=note)
    assert dict(mpl.rcParams) == settings
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()
    assert isinstance(figure, Figure)
    assert {title, note} <= set(texts(figure))
    assert figure.get_figwidth() in (canvas.COLUMN, canvas.PAGE)
    assert within_the_page(figure)


def test_history_marks_every_trial_at_its_value_by_its_number():
    figure = BUILDERS["history"]()
    [axes] = figure.axes
    assert marks(axes, "o").tolist() == [[0, 0.50], [1, 0.55], [4, 0.45], [5, 0.48]]
    assert marks(axes, "D").tolist() == [[0, 0.50]]
    assert marks(axes, "*").tolist() == [[4, 0.45]]
    assert {"Trial", "complete (4)", "pruned (1)", "failed (1)", "default settings"} <= set(texts(figure))
    assert {"best: 0.45 (trial 4)", "Validation log loss (lower is better)"} <= set(texts(figure))


def test_history_stands_pruned_trials_at_their_last_epoch_and_failed_ones_below_all_values():
    trials = [*TRIALS, TrialPoint(6, "complete", 0.7)]
    [axes] = figures.history(trials, LOSS, "minimize").axes
    assert marks(axes, "x").tolist() == [[2, 0.58]]
    [(number, height)] = marks(axes, "X")
    assert number == 3
    assert axes.get_ylim()[0] < height < 0.45


@pytest.mark.parametrize(
    ("direction", "expected"), [("minimize", [5, 5, 3, 3, 2, 2]), ("maximize", [5, 7, 7, 7, 7, 7])]
)
def test_the_best_so_far_is_that_of_complete_trials_in_order_of_their_numbers(direction, expected):
    values = {0: 5, 2: 7, 3: 3, 5: 4, 6: 2}
    trials = [TrialPoint(number, "complete", value) for number, value in reversed(values.items())]
    trials += [TrialPoint(1, "pruned", 1), TrialPoint(4, "pruned", 99), TrialPoint(8, "failed", 0)]
    [axes] = figures.history(trials, "objective", direction).axes
    [line] = [line for line in axes.get_lines() if line.get_label() == "best so far"]
    assert line.get_drawstyle() == "steps-post"
    assert line.get_xdata().tolist() == [*values, 8]
    assert line.get_ydata().tolist() == expected


@pytest.mark.parametrize("sign", [1, -1])
def test_values_far_worse_than_most_stand_at_the_edge_and_leave_the_others_their_room(sign):
    values = [0.4, 0.42, 400.0, 0.41, 0.45, INF, 0.43, 0.44]
    trials = [TrialPoint(i, "complete", sign * value) for i, value in enumerate(values)]
    figure = figures.history(trials, "objective", "minimize" if sign > 0 else "maximize")
    [axes] = figure.axes
    edge = marks(axes, "^" if sign > 0 else "v")
    assert edge[:, 0].tolist() == [2, 5]
    assert "beyond the scale (2)" in texts(figure)
    low, high = sorted(sign * limit for limit in axes.get_ylim())
    assert low < 0.4
    assert (low < sign * edge[:, 1]).all()
    assert (sign * edge[:, 1] < high).all()
    assert high - low < 5 * (0.45 - 0.4)
    assert sorted(marks(axes, "o")[:, 0]) == [0, 1, 3, 4, 6, 7]


@pytest.mark.parametrize("factor", [1e-9, 1.0, 1e9])
def test_what_is_beyond_the_scale_does_not_depend_on_the_unit(factor):
    values = np.random.default_rng(0).lognormal(0, 1.5, 60)
    figure = figures.history([TrialPoint(i, "complete", v * factor) for i, v in enumerate(values)], LOSS, "minimize")
    expected = figures.history([TrialPoint(i, "complete", v) for i, v in enumerate(values)], LOSS, "minimize")
    assert marks(figure.axes[0], "^")[:, 0].tolist() == marks(expected.axes[0], "^")[:, 0].tolist()
    assert 0 < len(marks(expected.axes[0], "^")) < 15


def test_importances_stand_from_the_largest_to_the_smallest_with_their_numbers():
    figure = BUILDERS["importances"]()
    [axes] = figure.axes
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["learning rate", "l2", "dropout"]
    assert [bar.get_width() for bar in axes.patches] == [0.7, 0.2, 0.1]
    assert [text.get_text() for text in axes.texts] == ["0.70", "0.20", "0.10"]
    assert axes.yaxis_inverted()


def test_importances_that_are_undefined_or_not_there_are_said_to_be():
    [axes] = figures.importances({"a": NAN, "b": 0.0}).axes
    assert [text.get_text() for text in axes.texts] == ["0.00", "undefined"]
    assert "too few complete trials to tell" in texts(figures.importances({}))
    assert within_the_page(figures.importances({"a_long_name_of_a_setting" * 3: 1.0}))


def test_slices_show_value_against_each_setting_on_its_own_axis():
    figure = BUILDERS["slices"]()
    dropout, l2 = panel(figure, "dropout"), panel(figure, "l2")
    np.testing.assert_allclose(marks(dropout, "o"), [[0.1, 0.50], [0.2, 0.55], [0.5, 0.45], [0.2, 0.48]])
    np.testing.assert_allclose(marks(l2, "o"), [[1e-1, 0.50], [1e-2, 0.55], [1e-5, 0.45], [1e-2, 0.48]])
    assert (dropout.get_xscale(), l2.get_xscale()) == ("linear", "log")
    for axes in (dropout, l2):
        assert len(marks(axes, "x")) == len(marks(axes, "X")) == 1
        assert marks(axes, "*")[:, 1].tolist() == [0.45]
        assert marks(axes, "D")[:, 1].tolist() == [0.50]
        assert axes.get_ylim() == dropout.get_ylim()
        ticks = [tick.get_text() for tick in axes.get_xticklabels()]
        assert ticks
        assert "$" not in "".join(ticks)  # the style draws no mathematics


def test_slices_spread_categories_around_their_own_tick():
    axes = panel(BUILDERS["slices"](), "schedule")
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["constant", "cosine"]
    places = marks(axes, "o")[:, 0]
    np.testing.assert_array_equal(np.round(places), [1, 0, 1, 0])
    assert len(set(places)) == 4


def test_truth_values_are_categories_and_a_few_whole_numbers_are_the_ticks():
    params = [{"augment": bool(i % 2), "batch_size": 2 ** (4 + i % 3)} for i in range(6)]
    trials = [TrialPoint(i, "complete", 0.5, each) for i, each in enumerate(params)]
    figure = figures.slices(trials, LOSS, "minimize", ("batch_size",))
    assert [tick.get_text() for tick in panel(figure, "augment").get_xticklabels()] == ["False", "True"]
    assert [tick.get_text() for tick in panel(figure, "batch size").get_xticklabels()] == ["16", "32", "64"]


def test_later_trials_are_darker_in_slices():
    axes = panel(BUILDERS["slices"](), "dropout")
    shades = [line.get_color() for line in axes.get_lines() if line.get_marker() == "o"]
    brightness = [np.dot(mpl.colors.to_rgb(shade), [0.2126, 0.7152, 0.0722]) for shade in shades]
    assert np.all(np.diff(brightness) < 0)


def test_a_setting_that_some_trials_did_not_have_is_drawn_for_the_others():
    trials = [*TRIALS, TrialPoint(6, "complete", 0.46, {"width": 3})]
    figure = figures.slices(trials, LOSS, "minimize")
    assert marks(panel(figure, "width"), "o").tolist() == [[3, 0.46]]
    assert len(marks(panel(figure, "dropout"), "o")) == 4


def test_curves_draw_every_epoch_and_single_out_the_best_and_the_default():
    figure = BUILDERS["curves"]()
    [axes] = figure.axes
    drawn = {group.get_label(): group for group in axes.collections}
    assert [len(group.get_segments()) for group in drawn.values()] == [4, 1, 1]
    np.testing.assert_array_equal(drawn["pruned"].get_segments()[0], [[1, 0.9], [2, 0.58]])
    assert to_hex(drawn["pruned"].get_color()[0]).upper() == canvas.GREY
    assert marks(axes, "x").tolist() == [[2, 0.58]]
    assert marks(axes, "X").tolist() == [[1, 0.7]]  # its last epoch with a number
    lines = {line.get_label(): line for line in axes.get_lines()}
    best = lines["best: trial 4"]
    np.testing.assert_array_equal(best.get_xydata(), [[1, 0.6], [2, 0.5], [3, 0.45]])
    assert best.get_linewidth() > 2 * drawn["complete"].get_linewidth()[0]
    assert lines["default settings"].get_ydata().tolist() == [0.9, 0.6, 0.50]


def test_the_default_settings_may_be_the_best_ones_or_of_another_trial_or_unknown():
    found = texts(figures.curves(TRIALS, LOSS, "minimize", default=4))
    assert "best: trial 4, default settings" in found
    [axes] = figures.history(TRIALS, LOSS, "minimize", default=5).axes
    assert marks(axes, "D").tolist() == [[5, 0.48]]
    assert "default settings" not in texts(figures.history(TRIALS, LOSS, "minimize", default=None))


def study(count, state="complete", **params):
    rng = np.random.default_rng(count)
    states = [state] * count if state != "mixed" else rng.choice(["complete", "pruned", "failed"], count)
    losses = rng.lognormal(-1, 0.3, (count, 12))
    return [
        TrialPoint(i, str(s), None if s == "failed" else epochs.min(), params, epochs[: 1 + i % 12])
        for i, (s, epochs) in enumerate(zip(states, losses, strict=True))
    ]


ODD = {
    "none": [],
    "one": study(1, dropout=0.3),
    "one epoch each": [replace(trial, epochs=[0.4]) for trial in study(9)],
    "all pruned": study(7, "pruned", dropout=0.0),
    "pruned before the first epoch": [TrialPoint(i, "pruned", None, {"dropout": 0.1}) for i in range(3)],
    "all failed": study(4, "failed", dropout=0.3, learning_rate=1e-3),
    "failed before it had settings": [TrialPoint(0, "failed")],
    "all the same": [TrialPoint(i, "complete", 0.4, {"learning_rate": 1e-3}, [0.4]) for i in range(5)],
    "all zero": [TrialPoint(i, "complete", 0.0, {"dropout": 0.0}, [0.0, 0.0]) for i in range(5)],
    "all infinite": [TrialPoint(i, "complete", INF, {"dropout": 0.0}, [INF, NAN]) for i in range(5)],
    "negative": [TrialPoint(i, "complete", -1.0 - i, {"dropout": -2.0}, [-1.0]) for i in range(5)],
    "200": study(200, "mixed", dropout=0.2, learning_rate=1e-4, augment=True, schedule="cosine"),
    "long names": study(9, **{"a long name " * 5: "a long choice " * 5, "$x_1^{b$": None, "b": 1, "c": 2, "d": 3}),
}


@pytest.mark.parametrize("build", OF_TRIALS.values(), ids=OF_TRIALS)
@pytest.mark.parametrize("name", ODD)
def test_odd_studies_are_drawn_within_the_page(name, build):
    direction = "minimize" if len(name) % 2 else "maximize"  # both, without drawing all twice
    figure = build(ODD[name], LOSS, direction, note=NOTE)
    assert within_the_page(figure)
    assert NOTE in texts(figure)
    assert any("is better" in text for text in texts(figure))


@pytest.mark.parametrize("trials", [[], study(4, "failed")])
def test_a_study_without_any_value_is_said_to_have_none(trials):
    assert "no trial has a value" in texts(figures.history(trials, LOSS, "minimize"))


@pytest.mark.parametrize(
    "call",
    [
        partial(figures.history, TRIALS, LOSS, "minimise"),
        partial(figures.history, [TrialPoint(0, "running", 0.5)], LOSS, "minimize"),
        partial(figures.history, [TrialPoint(0, "complete")], LOSS, "minimize"),
        partial(figures.curves, [TrialPoint(0, "complete", NAN)], LOSS, "minimize"),
        partial(figures.slices, [TrialPoint(0, "complete", 0.5, {"l2": 0.0})], LOSS, "minimize", ("l2",)),
        partial(figures.importances, {"l2": "much"}),
    ],
)
def test_wrong_input_is_an_input_error_that_says_what_was_expected(call):
    with pytest.raises(InputError, match=r"expected .*, received "):
        call()


@pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)
def test_the_same_figure_is_saved_as_the_same_bytes(build, tmp_path):
    first, second = (canvas.save(build(note=NOTE), tmp_path / name) for name in ("one", "two"))
    assert first[0].read_bytes() == second[0].read_bytes()
