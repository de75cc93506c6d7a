"""The figures of probabilities show the tables they are given, and show no interval that a sample cannot support."""

from functools import partial
from itertools import combinations

import numpy as np
import pytest
from conftest import texts

from deepmerge.analysis import calibration, metrics
from deepmerge.errors import InputError
from deepmerge.estimate import Estimate, read
from deepmerge.plots.canvas import PAGE
from deepmerge.studies.probabilities import figures

pytestmark = pytest.mark.usefixtures("no_warnings")

NOTE = "Simulated demo data – not Illustris"


def sample(galaxies=40, mergers=12):
    rng = np.random.default_rng(0)
    galaxy = np.repeat(np.arange(galaxies), 4)
    labels = (galaxy < mergers).astype(int)
    return labels, np.where(labels == 1, rng.beta(3, 2, len(labels)), rng.beta(2, 3, len(labels))), galaxy


Y, P, G = sample()
RELIABILITY = calibration.reliability(Y, P, G)
ERROR = Estimate(0.083, np.nan, np.nan)
POINTS = calibration.operating_points(Y, P, G, 0.1, np.linspace(0, 1, 41))
METHODS = {"temperature": calibration.tempered(P, 2.0), "ensemble": np.sqrt(P)}
GAINS = calibration.gains(Y, G, P, METHODS)
COSTS = {"temperature": {"training": 1, "prediction": 1}, "ensemble": {"training": 5, "prediction": 4.99}}
LONG = "a method with a name that does not fit, of course, in any one line of a panel"


def reliable(count):
    names = [LONG, "isotonic", "MC dropout", "ensemble", "more"][:count]
    return partial(figures.calibration, dict.fromkeys(names, RELIABILITY), dict.fromkeys(names, ERROR))


def pure(count):
    names = [LONG, "18 % mergers", "10 % mergers", "3 % mergers"][:count]
    return partial(figures.purity_completeness, dict.fromkeys(names, POINTS), {LONG: 0.7})


BUILDERS = {
    **{f"calibration of {count}": reliable(count) for count in (1, 2, 5)},
    **{f"purity at {count}": pure(count) for count in (1, 4)},
    "costs": partial(figures.costs, GAINS, COSTS),
    "costs of one kind": partial(
        figures.costs,
        GAINS.replace({"method": {"ensemble": LONG}}),
        {"temperature": {"prediction": 1}, LONG: {"prediction": 5}},
    ),
}


@pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)
def test_a_long_note_and_all_else_are_written_within_the_page(build):
    note = " ".join([NOTE] * 8)
    figure = build(note=note)
    assert note in texts(figure)
    drawn, page = figure.get_tightbbox(), figure.get_size_inches()
    assert (drawn.min >= 0).all()
    assert (drawn.max <= page).all()
    assert page[0] <= PAGE


@pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)
def test_no_text_lies_over_another(build):
    figure = build(note=NOTE)
    boxes = [(text.get_text(), text.get_window_extent()) for text in figure.texts if text.get_text()]
    for axes in figure.axes:
        axis = axes.xaxis.get_tightbbox()  # of the ticks in view and the label
        boxes += [("axis", axis)] if axes.axison and axis is not None else []
    assert len(boxes) >= 3
    for (one, box), (other, its) in combinations(boxes, 2):
        across = min(box.x1, its.x1) - max(box.x0, its.x0)
        down = min(box.y1, its.y1) - max(box.y0, its.y0)
        assert across <= 0 or down <= 0, (one, other)


def test_a_panel_of_calibration_shows_its_table_and_its_error():
    figure = figures.calibration({"isotonic": RELIABILITY}, {"isotonic": ERROR})
    above, below = figure.axes[:2]
    assert "isotonic ECE 0.083" in texts(figure)
    held = RELIABILITY["observed_low"].notna()
    points = above.get_lines()[1:]
    at = [line.get_xydata()[0] for line in points]
    np.testing.assert_array_equal(at, RELIABILITY[["probability", "observed"]])
    assert [line.get_markerfacecolor() != "white" for line in points] == held.tolist()
    drawn = [bar.get_segments()[0][:, 1].tolist() for bar in above.collections]
    assert drawn == RELIABILITY.loc[held, ["observed_low", "observed_high"]].to_numpy().tolist()
    counts = [patch.get_data().values.tolist() for patch in below.patches]
    assert counts == [RELIABILITY["non_mergers"].tolist(), RELIABILITY["mergers"].tolist()]


def test_an_undefined_error_is_said_to_be_undefined():
    figure = figures.calibration({"isotonic": RELIABILITY}, {"isotonic": Estimate(*[np.nan] * 3)})
    assert "isotonic ECE undefined" in texts(figure)


def test_purity_and_completeness_are_drawn_marked_and_said():
    figure = figures.purity_completeness({"10 %": POINTS, "again": POINTS}, {"again": 0.7})
    curve, half = figure.axes[0].get_lines()
    np.testing.assert_array_equal(curve.get_xdata(), POINTS["completeness"])
    np.testing.assert_array_equal(curve.get_ydata(), POINTS["purity"])
    for threshold, line in ((0.5, half), (0.7, figure.axes[1].get_lines()[2])):
        row = POINTS[np.isclose(POINTS["threshold"], threshold)].iloc[0]
        assert (line.get_xdata()[0], line.get_ydata()[0]) == (row["completeness"], row["purity"])
        ends = f"[{row['purity_low']:.2f}, {row['purity_high']:.2f}]"
        assert sum(
            text.startswith(f"threshold {threshold:g} purity {row['purity']:.2f} {ends} completeness")
            and text.endswith(f"{row['tp']:.0f} right, {row['fp']:.0f} wrong")
            for text in texts(figure)
        ) == (2 if threshold == 0.5 else 1)


def test_a_purity_without_false_positives_is_said_without_an_interval():
    table = calibration.operating_points([0, 0, 1, 1], [0.1, 0.3, 0.4, 0.9], np.arange(4), 0.03, [0.2, 0.5])
    figure = figures.purity_completeness({"3 %": table})
    assert any("purity 1.00 completeness 0.50 [0.00, 1.00] 1 right, 0 wrong" in text for text in texts(figure))


def test_costs_show_each_change_its_interval_and_the_better_side():
    figure = figures.costs(GAINS, COSTS)
    for axes, (metric, (_, better)) in zip(figure.axes, figures.CHANGES.items(), strict=True):
        rows = GAINS[(GAINS["metric"] == metric) & (GAINS["method"] != calibration.REFERENCE)]
        points = [line for line in axes.get_lines() if line.get_marker() == "o"]
        assert [line.get_xdata()[0] for line in points] == rows["change"].tolist()
        shaded = axes.patches[0].get_extents().transformed(axes.transData.inverted())
        assert (shaded.x1 > 1e-6) == (better > 0)
        assert (shaded.x0 < -1e-6) == (better < 0)
        low, high = axes.get_xlim()
        drawn = rows[["change", "change_low", "change_high"]].stack().dropna()  # a calibration error has no interval
        assert len(drawn) == len(rows) * (1 if metric in metrics.WITHOUT_INTERVAL else 3)
        assert low < drawn.min() <= drawn.max() < high
    row = GAINS.set_index(["method", "metric"]).loc[("ensemble", "log_loss_at_balance")]
    assert read(row.to_dict(), "change").text().replace("-", "−") in texts(figure)
    assert {"temperature training × 1, prediction × 1", "ensemble training × 5, prediction × 4.99"} <= set(
        texts(figure)
    )
    assert not any("−0.000" in text for text in texts(figure))  # of a temperature, which leaves the AUC alone


def test_changes_without_intervals_are_still_drawn():
    bare = calibration.gains(Y, G, P, METHODS)
    assert not any("nan" in text for text in texts(figures.costs(bare, COSTS)))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: figures.calibration({}, {}), "1 to 5 panels, received 0"),
        (lambda: figures.purity_completeness({}), "1 to 4 merger fractions, received 0"),
        (lambda: figures.purity_completeness({"a": POINTS}, {"b": 0.5}), r"thresholds for some of \['a'\]"),
        (lambda: figures.purity_completeness({"a": POINTS}, {"a": 0.501}), "the threshold 0.501 among"),
        (lambda: figures.costs(GAINS, {"ensemble": {"training": 5}}), r"none for \['temperature'\]"),
        (lambda: figures.costs(GAINS[GAINS["method"] == "reference"], COSTS), "besides the reference"),
    ],
)
def test_wrong_input_is_named(build, message):
    with pytest.raises(InputError, match=message):
        build()
