"""The figures that set models side by side say what the numbers say, carry their warning, and survive odd input."""

import sys
from dataclasses import replace
from functools import partial

import matplotlib as mpl
import numpy as np
import pytest
from conftest import shown_images, texts, within_the_page
from matplotlib.figure import Figure

from deepmerge.errors import InputError
from deepmerge.estimate import Estimate
from deepmerge.jobs.compare import figures
from deepmerge.plots import canvas
from deepmerge.plots.marks import look
from deepmerge.plots.roc import RocCurve

pytestmark = pytest.mark.usefixtures("no_warnings")

NOTE = "Simulated demo data – not Illustris"
NAN = float("nan")
GRID = np.linspace(0, 1, 11)
CURVE = RocCurve(GRID, GRID**0.5, GRID**0.6, GRID**0.4, Estimate(0.912, 0.881, 0.941), (0.2, 0.447), "pristine")
ESTIMATES = [
    (0.912, 0.881, 0.941),
    (0.935, 0.89, 0.96),
    (0.8, 0.75, 0.85),
    (0.7, 0.6, 0.8),
    (0.6, 0.5, 0.7),
    (0.15, 0.1, 0.2),
    (0.05, 0.06, 0.1),
]
METRICS = {name: Estimate(*values) for name, values in zip(figures.SHOWN, ESTIMATES, strict=True)}
SCORES, LABELS = [0.07, 0.17, 0.17, NAN, 1.0, 0.9], [0, 0, 0, 0, 1, 1]
PRISTINE = figures.Entry(CURVE, METRICS, SCORES, LABELS)
OTHER = {name: Estimate(value - 0.02, low - 0.02, high - 0.02) for name, (value, low, high) in METRICS.items()}
NOISY = figures.Entry(RocCurve(GRID, GRID**0.8, auc=OTHER["auc"], label="noisy"), OTHER, [0.37, 0.67, 0.77], [0, 1, 1])
UNDEFINED = replace(
    PRISTINE,
    metrics=dict.fromkeys(METRICS, Estimate(NAN)),
    roc=RocCurve([0.5], [NAN], auc=Estimate(NAN), label="pristine"),
)
AUC = {(0, 0): Estimate(0.871, 0.83, 0.9), (0, 1): Estimate(0.702, 0.65, 0.75), (1, 1): Estimate(0.801)}
NAMES = ["pristine", "noisy"]
MATRIX = partial(figures.cross_matrix, AUC, NAMES)
BUILDERS = {
    "comparison": partial(figures.comparison, [PRISTINE, NOISY]),
    "cross_matrix": MATRIX,
}


def named(figure, label):
    """The axes with a label of this beginning."""
    return next(axes for axes in figure.axes if label in axes.get_ylabel() + axes.get_xlabel())


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


def test_comparison_draws_and_writes_every_estimate():
    figure = figures.comparison([PRISTINE, NOISY])
    names = [["AUC", "AUC of galaxies", "Balanced accuracy", "Purity at balance", "Completeness"]]
    names.append(["Brier score at balance", "Calibration error at balance"])
    written = texts(figure)
    rows = list(figures.SHOWN)
    for axes, shown in zip((named(figure, "Higher is better"), named(figure, "Lower is better")), names, strict=True):
        assert [tick.get_text() for tick in axes.get_yticklabels()] == shown
        here = [rows.pop(0) for _ in shown]
        expected = [entry.metrics[name] for entry in (PRISTINE, NOISY) for name in here]
        points = [line.get_xydata()[0] for line in axes.get_lines()]
        intervals = [bar.get_segments()[0] for bar in axes.collections]
        for (value, low, high), point, interval in zip(expected, points, intervals, strict=True):
            assert point[0] == value
            np.testing.assert_array_equal(interval, [[low, point[1]], [high, point[1]]])
            assert f"{value:.3f} [{low:.3f}, {high:.3f}]" in written
        lowest, highest = axes.get_xlim()
        assert lowest < min(low for _, low, _ in expected)
        assert highest > max(high for _, _, high in expected)
    assert any("both classes weigh the same" in text for text in written)


def test_comparison_draws_curves_with_bands_and_areas():
    figure = figures.comparison([PRISTINE, NOISY])
    axes = named(figure, "False positive rate")
    lines = {line.get_label(): line for line in axes.get_lines()}
    np.testing.assert_array_equal(lines["pristine"].get_xydata(), np.column_stack([GRID, GRID**0.5]))
    np.testing.assert_array_equal(lines["noisy"].get_xydata(), np.column_stack([GRID, GRID**0.8]))
    assert lines["pristine"].get_color() != lines["noisy"].get_color()
    assert lines["pristine"].get_linestyle() != lines["noisy"].get_linestyle()
    (band,) = axes.collections
    corners = band.get_paths()[0].vertices
    assert all((corners == point).all(axis=1).any() for point in np.column_stack([GRID, GRID**0.6]))
    assert any(line.get_xydata().tolist() == [[0.2, 0.447]] for line in axes.get_lines())
    expected = {"pristine: AUC 0.912 [0.881, 0.941]", "noisy: AUC 0.892 [0.861, 0.921]", "threshold 0.5", "chance"}
    assert expected <= set(texts(figure))


def test_comparison_normalises_the_scores_of_each_class_and_counts_the_undefined():
    figure = figures.comparison([PRISTINE, NOISY])
    mergers, others = named(figure, "Share of mergers"), named(figure, "Share of non-mergers")
    expected = {mergers: [{18: 0.5, 19: 0.5}, {13: 0.5, 15: 0.5}], others: [{1: 1 / 3, 3: 2 / 3}, {7: 1.0}]}
    for axes, shares in expected.items():
        for outline, share in zip(axes.patches, shares, strict=True):
            values, borders, _ = outline.get_data()
            np.testing.assert_allclose(values, [share.get(i, 0) for i in range(20)])
            np.testing.assert_allclose(borders, np.linspace(0, 1, 21))
    counted = {"pristine: 2 mergers, 3 non-mergers, 1 undefined", "noisy: 2 mergers, 1 non-mergers"}
    assert counted <= set(texts(figure))


@pytest.mark.parametrize(
    "entries",
    [
        [PRISTINE],
        [UNDEFINED],
        [UNDEFINED, NOISY],
        [replace(PRISTINE, roc=replace(CURVE, label="run $x_1^{b$ " * 9))] * figures.MOST_MODELS,
        [replace(PRISTINE, probabilities=[], labels=[])],
    ],
    ids=["one", "undefined", "undefined beside defined", "most, with long names", "no images"],
)
def test_comparison_of_odd_models_stays_within_the_page(entries):
    figure = figures.comparison(entries)
    assert within_the_page(figure)
    undefined = sum(entry is UNDEFINED for entry in entries)
    assert texts(figure).count("undefined") == undefined * len(METRICS)
    assert texts(figure).count("pristine: AUC undefined") == undefined


def test_an_interval_that_is_not_defined_is_neither_drawn_nor_written():
    bare = Estimate(0.8)
    figure = figures.comparison([replace(NOISY, roc=replace(CURVE, auc=bare), metrics=dict.fromkeys(METRICS, bare))])
    assert texts(figure).count("0.800") == len(METRICS)
    assert "pristine: AUC 0.800" in texts(figure)
    assert not any(axes.collections for axes in figure.axes[1:3])
    assert not any("nan" in text for text in texts(figure))


def test_no_two_models_look_the_same():
    looks = [look(index) for index in range(figures.MOST_MODELS)]
    for part in ("linestyle", "marker"):
        assert len({(look["color"], look[part]) for look in looks}) == len(looks)


def test_cross_matrix_writes_value_and_interval_into_every_cell():
    figure = MATRIX()
    axes = named(figure, "Judged on")
    np.testing.assert_array_equal(shown_images(figure)[0], [[0.871, 0.702], [NAN, 0.801]])
    cells = {tuple(map(int, text.get_position())): " ".join(text.get_text().split()) for text in axes.texts}
    assert cells == {
        (0, 0): "0.871 [0.830, 0.900]",
        (1, 0): "0.702 [0.650, 0.750]",
        (0, 1): "not comparable",
        (1, 1): "0.801",
    }
    assert [tick.get_text() for tick in axes.get_xticklabels()] == NAMES
    assert [tick.get_text() for tick in axes.get_yticklabels()] == NAMES
    assert axes.get_ylabel() == "Trained on"
    assert "AUC" in texts(figure)


def test_text_is_legible_on_every_colour_of_the_matrix():
    def luminance(colour):
        colour = np.array(mpl.colors.to_rgb(colour))
        return np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]

    for colour in figures.SEQUENCE(np.linspace(0, 1, 256)):
        dark, bright = sorted([luminance(colour[:3]), luminance(figures.ink(colour))])
        assert (bright + 0.05) / (dark + 0.05) >= 4.5  # level AA of WCAG 2.1


@pytest.mark.parametrize(("count", "value"), [(1, 0.5), (8, NAN), (3, -3e5)])
def test_cross_matrix_of_any_size_and_content(count, value):
    auc = {pair: Estimate(value, value, value) for pair in np.ndindex(count, count)}
    figure = figures.cross_matrix(auc, [f"a_very_long_name_{i} " * 4 for i in range(count)])
    assert within_the_page(figure)
    assert len(named(figure, "Judged on").texts) == count**2


@pytest.mark.parametrize(
    "call",
    [
        partial(figures.comparison, []),
        partial(figures.comparison, [PRISTINE] * (figures.MOST_MODELS + 1)),
        partial(figures.comparison, [replace(PRISTINE, metrics={"auc": METRICS["auc"]})]),
        partial(figures.comparison, [replace(PRISTINE, roc=RocCurve(GRID, [1]))]),
        partial(figures.comparison, [replace(PRISTINE, roc=RocCurve(GRID, GRID, low=GRID))]),
        partial(figures.comparison, [replace(PRISTINE, labels=[0, 1])]),
        partial(figures.comparison, [replace(PRISTINE, labels=[0, 0, 0, 0, 1, 2])]),
        partial(figures.comparison, [replace(NOISY, probabilities=[0.3, 0.6, 1.7])]),
        partial(figures.cross_matrix, {}, []),
        partial(figures.cross_matrix, {}, ["a"] * 9),
        partial(figures.cross_matrix, {(0, 2): Estimate(0.5)}, NAMES),
    ],
)
def test_wrong_input_is_an_input_error_that_says_what_was_expected(call):
    with pytest.raises(InputError, match=r"expected .*, received "):
        call()


def test_the_same_figure_is_saved_as_the_same_bytes(tmp_path):
    first = canvas.save(MATRIX(note=NOTE), tmp_path / "one")
    second = canvas.save(MATRIX(note=NOTE), tmp_path / "two")
    assert first[0].read_bytes() == second[0].read_bytes()
