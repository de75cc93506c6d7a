"""The figures say what the numbers say, carry their warning, and survive odd input."""

import sys
from functools import partial

import matplotlib as mpl
import numpy as np
import pytest
from conftest import shown_images, texts
from matplotlib.figure import Figure

from deepmerge.errors import InputError
from deepmerge.estimate import Estimate
from deepmerge.plots import images
from deepmerge.plots.canvas import save
from deepmerge.plots.classes import confusion_matrix, score_histogram
from deepmerge.plots.history import history
from deepmerge.plots.reliability import Bins, reliability
from deepmerge.plots.roc import RocCurve, roc

pytestmark = pytest.mark.usefixtures("no_warnings")

NOTE = "Simulated demo data – not Illustris"
GRID = np.linspace(0, 1, 11)
HISTORY = {
    "log_loss": [0.7, 0.5, 0.4],
    "val_log_loss": [0.8, 0.6, 0.65],
    "accuracy": [0.5, 0.7, 0.8],
    "val_accuracy": [0.5, 0.66, 0.64],
}
CURVE = RocCurve(GRID, GRID**0.5, GRID**0.6, GRID**0.4, Estimate(0.912, 0.881, 0.941), (0.2, 0.447), "noisy")
IMAGES = np.random.default_rng(0).normal(size=(3, 9, 7, 2))
RELIABLE = Bins([0.1, 0.9], [Estimate(0.2, 0.1, 0.3), Estimate(0.8)], {"images": [30, 12]})
BUILDERS = {
    "history": partial(history, HISTORY, 2),
    "confusion_matrix": partial(confusion_matrix, [[812, 188], [30, 70]]),
    "roc": partial(roc, [CURVE]),
    "reliability": partial(reliability, {"": RELIABLE}),
    "score_histogram": partial(score_histogram, [0.1, 0.6, 0.9], ["non-merger", "past", "future"]),
    "gallery": partial(images.gallery, IMAGES, ["a", "b", "c"], ["F814W", "F160W"]),
}


def lines(axes):
    return {line.get_label(): line for line in axes.get_lines()}


@pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)
def test_title_note_and_labels_are_written_within_the_page_and_no_setting_is_touched(build):
    settings = dict(mpl.rcParams)
    title, note = " ".join(["title"] * 30), " ".join([NOTE] * 8)
    figure = build(title=title, note=note)
    assert dict(mpl.rcParams) == settings
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()
    assert isinstance(figure, Figure)
    assert {title, note} <= set(texts(figure))
    for axes in figure.axes:
        if axes.axison and not axes.images:
            assert axes.get_ylabel()
            assert any(other.get_xlabel() for other in figure.axes)
    drawn, page = figure.get_tightbbox(), figure.get_size_inches()
    assert (drawn.min >= 0).all()
    assert (drawn.max <= page).all()


def test_history_draws_the_lists_against_epochs_from_one():
    figure = history({**HISTORY, "learning_rate": [1e-3, 1e-3, 5e-4]}, 2)
    loss, accuracy, rate = figure.axes
    for axes, key in ((loss, "log_loss"), (accuracy, "accuracy")):
        for label, name in (("training", key), ("validation", f"val_{key}")):
            assert lines(axes)[label].get_xdata().tolist() == [1, 2, 3]
            assert lines(axes)[label].get_ydata().tolist() == HISTORY[name]
    assert rate.get_lines()[0].get_ydata().tolist() == [1e-3, 1e-3, 5e-4]
    assert "epoch kept (2)" in texts(figure)
    assert all(tick == int(tick) for tick in rate.get_xticks())
    assert [a.get_ylabel() for a in figure.axes] == ["Log loss", "Accuracy", "Learning rate"]
    assert rate.get_xlabel() == "Epoch"


@pytest.mark.parametrize("epochs", [0, 1, 2000])
def test_history_of_any_length_with_undefined_values(epochs):
    values = np.random.default_rng(1).random(epochs)
    values[::3] = np.nan
    values[1::7] = np.inf
    keys = [*HISTORY, "learning_rate"]
    assert history(dict.fromkeys(keys, values), epochs or None).axes
    assert history(dict.fromkeys(keys, np.full(epochs, np.nan))).axes
    assert history(dict.fromkeys(keys, np.zeros(epochs))).axes


def test_confusion_matrix_writes_counts_fractions_and_intervals():
    intervals = [[[0.78, 0.84], [0.16, 0.22]], [[0.2, 0.4], [0.6, 0.8]]]
    figure = confusion_matrix([[812, 188], [30, 70]], intervals)
    expected = {
        "812",
        "188",
        "30",
        "70",
        "81.2 % [78.0, 84.0]",
        "30.0 % [20.0, 40.0]",
        "non-merger (n = 1000)",
    }
    assert expected <= set(texts(figure))
    axes = figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Predicted class", "True class")
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["non-merger", "merger"]
    np.testing.assert_allclose(shown_images(figure)[0], [[0.812, 0.188], [0.3, 0.7]])


def test_confusion_matrix_without_mergers_has_no_fraction_there():
    found = texts(confusion_matrix([[3, 1], [0, 0]], np.full((2, 2, 2), np.nan)))
    assert found.count("–") == 2
    assert "75.0 %" in found


def test_roc_draws_curves_bands_operating_points_and_areas():
    other = RocCurve([0, 0.5, 1], [0, np.nan, 1], auc=Estimate(float("nan")), label="pristine")
    figure = roc([CURVE, other])
    axes = figure.axes[0]
    line = lines(axes)["noisy"]
    np.testing.assert_array_equal(line.get_xydata(), np.column_stack([GRID, GRID**0.5]))
    assert {"noisy: AUC 0.912 [0.881, 0.941]", "pristine: AUC undefined"} <= set(texts(figure))
    (band,) = axes.collections
    corners = band.get_paths()[0].vertices
    assert all((corners == point).all(axis=1).any() for point in np.column_stack([GRID, GRID**0.6]))
    assert any(line.get_xydata().tolist() == [[0.2, 0.447]] for line in axes.get_lines())
    assert {"chance", "95 % interval", "threshold 0.5", "False positive rate"} <= set(texts(figure))


def test_long_names_of_many_models_keep_the_roc_curves_within_the_page():
    curves = [RocCurve(GRID, GRID, label="run $x_1^{b$ " * 9)] * 7
    figure = roc(curves)
    drawn = figure.get_tightbbox()
    assert (drawn.min >= 0).all()
    assert (drawn.max <= figure.get_size_inches()).all()


def test_roc_of_nothing_and_of_one_point():
    assert roc([]).axes
    assert roc([RocCurve([0.5], [np.nan])] * 9).axes


def test_reliability_draws_points_intervals_and_counts():
    figure = reliability({"": RELIABLE})
    axes, below = figure.axes
    points = [line for line in axes.get_lines() if line.get_marker() == "o"]
    np.testing.assert_array_equal([point.get_xydata()[0] for point in points], [[0.1, 0.2], [0.9, 0.8]])
    assert [point.get_markerfacecolor() == "white" for point in points] == [False, True]
    np.testing.assert_array_equal([bar.get_segments()[0] for bar in axes.collections], [[[0.1, 0.1], [0.1, 0.3]]])
    values, edges, _ = below.patches[0].get_data()
    assert values.tolist() == [30, 12]
    assert edges.tolist() == [0, 0.5, 1]
    assert below.get_xlabel() == "Predicted merger probability"
    assert {"perfect calibration", "no interval"} <= set(texts(figure))


@pytest.mark.parametrize("bins", [0, 1, 100])
def test_reliability_of_any_number_of_bins_all_empty(bins):
    nothing = Bins(np.full(bins, np.nan), [Estimate(np.nan)] * bins, {"images": np.zeros(bins)})
    assert reliability({"": nothing}).axes


def test_score_histogram_normalises_each_stage_and_counts_the_undefined():
    scores = [0.05, 0.17, 0.17, np.nan, 1.0, 0.9]
    figure = score_histogram(scores, ["non-merger"] * 4 + ["merger"] * 2)
    axes = figure.axes[0]
    outlines = {patch.get_label(): patch.get_data().values for patch in axes.patches}
    np.testing.assert_allclose(outlines["non-merger (n = 3, 1 undefined)"][1:4], [1 / 3, 0, 2 / 3])
    np.testing.assert_allclose(outlines["merger (n = 2)"][18:], [0.5, 0.5])
    assert "threshold 0.5" in texts(figure)


@pytest.mark.parametrize("scores", [[], [np.nan], [0.5]])
def test_score_histogram_of_next_to_nothing(scores):
    assert score_histogram(scores, ["past"] * len(scores)).axes


def test_stretch_keeps_order_and_ignores_a_hot_pixel():
    image = np.random.default_rng(2).normal(0, 1, (40, 40))
    image[10:20, 10:20] += np.linspace(5, 50, 100).reshape(10, 10)
    shades = images.stretch(image)
    assert shades.min() == 0
    assert shades.max() == 1
    order = np.argsort(image, axis=None)
    assert (np.diff(shades.ravel()[order]) >= 0).all()
    hot = image.copy()
    hot[0, 0] = 1e9
    np.testing.assert_allclose(images.stretch(hot)[1:], shades[1:], atol=0.05)


@pytest.mark.parametrize("factor", [1e-300, 1.0, 1e305])
def test_stretch_does_not_depend_on_the_unit(factor):
    np.testing.assert_allclose(images.stretch(IMAGES[0, ..., 0] * factor), images.stretch(IMAGES[0, ..., 0]))


@pytest.mark.parametrize(
    "pixels",
    [
        np.where(np.arange(1600) == 7, 0.0, 3.0),
        np.where(np.arange(1600) == 7, 3.0, 0.0),
        np.linspace(-1, 1, 1600) * 1.7e308,
        (np.arange(1600) % 256).astype(np.uint8),
        np.arange(1600) % 9 == 0,
        10.0 ** np.linspace(-30, 30, 1600),
    ],
    ids=["dark spot", "bright spot", "huge", "uint8", "bool", "heavy tail"],
)
def test_stretch_spans_dark_to_bright(pixels):
    shades = images.stretch(pixels.reshape(40, 40))
    assert shades.min() == 0
    assert 0.3 < shades.max() <= 1


def test_stretch_of_constants_and_what_is_not_finite():
    assert (images.stretch(np.full((3, 3), 7)) == 0).all()
    assert np.isnan(images.stretch(np.full((3, 3), np.nan))).all()
    image = IMAGES[0, ..., 0].copy()
    image[0, :3] = np.nan, np.inf, -np.inf
    shades = images.stretch(image)
    assert np.isnan(shades[0, :3]).all()
    assert np.isfinite(shades[1:]).all()


def test_gallery_has_a_row_a_filter_and_keeps_groups_together():
    groups = ["past", "non-merger", "past"]
    figure = images.gallery(IMAGES, ["a", "b", "c"], ["F814W", "F160W"], groups)
    assert {"a", "b", "c", "F814W", "F160W", "past", "non-merger"} <= set(texts(figure))
    expected = [images.stretch(IMAGES[i, ..., f]) for f in (0, 1) for i in (0, 2, 1)]
    np.testing.assert_array_equal(shown_images(figure), expected)


@pytest.mark.parametrize(
    ("shape", "fill"), [((0, 5, 5, 2), 0), ((1, 1, 1, 1), -1e300), ((1, 3, 90, 5), np.nan), ((7, 60, 3, 1), np.inf)]
)
def test_images_of_any_shape_and_content(shape, fill):
    given, names = np.full(shape, fill), ["a name " * 12] * shape[0]
    filters = [f"F{i}" for i in range(shape[3])]
    figure = images.gallery(given, names, filters, names)
    assert len(shown_images(figure)) == shape[0] * shape[3]


@pytest.mark.parametrize(
    "call",
    [
        partial(history, {"log_loss": [1.0]}),
        partial(history, {**HISTORY, "log_loss": [1.0]}),
        partial(history, HISTORY, 4),
        partial(history, {**HISTORY, "log_loss": ["a", "b", "c"]}),
        partial(confusion_matrix, [1, 2]),
        partial(confusion_matrix, [[1, 2], [-1, 0]]),
        partial(confusion_matrix, [[1, 2], [1, 0]], [[1, 2], [3, 4]]),
        partial(roc, [RocCurve(GRID, [1])]),
        partial(roc, [RocCurve(GRID, GRID, low=GRID)]),
        partial(reliability, {"": RELIABLE._replace(images={"images": [1]})}),
        partial(reliability, {"": RELIABLE._replace(observed=[Estimate(0.2)])}),
        partial(reliability, {}),
        partial(score_histogram, [0.5, 1.5], ["past", "past"]),
        partial(score_histogram, [0.5], ["post"]),
        partial(score_histogram, [0.5], []),
        partial(images.gallery, IMAGES[0], ["a"], ["f"]),
        partial(images.gallery, IMAGES, ["a"], ["f", "g"]),
        partial(images.gallery, np.zeros((2000, 5, 5, 1)), ["a"] * 2000, ["f"]),
    ],
)
def test_wrong_input_is_an_input_error_that_says_what_was_expected(call):
    with pytest.raises(InputError, match=r"expected .*, received "):
        call()


@pytest.mark.parametrize("build", [BUILDERS["roc"], BUILDERS["gallery"]], ids=["roc", "gallery"])
def test_the_same_figure_is_saved_as_the_same_bytes(build, tmp_path):
    first = save(build(note=NOTE), tmp_path / "one" / "figure.png", pdf=True)
    second = save(build(note=NOTE), tmp_path / "two" / "figure", pdf=True)
    assert [path.name for path in first] == [path.name for path in second] == ["figure.png", "figure.pdf"]
    for one, two in zip(first, second, strict=True):
        assert one.read_bytes() == two.read_bytes()
    assert first[0].read_bytes().startswith(b"\x89PNG")
    assert first[1].read_bytes().startswith(b"%PDF")
    assert b"CreationDate" not in first[1].read_bytes()


def test_save_keeps_dots_of_a_name_and_writes_pdf_only_if_asked(tmp_path):
    assert save(BUILDERS["roc"](), str(tmp_path / "model.v1")) == [tmp_path / "model.v1.png"]
    assert [path.name for path in tmp_path.iterdir()] == ["model.v1.png"]


def test_a_failure_leaves_no_file(tmp_path, monkeypatch):
    figure = BUILDERS["confusion_matrix"]()
    savefig = figure.savefig

    def fail_on_pdf(path, *, format, **options):
        savefig(path, format=format, **options)
        if format == "pdf":
            raise OSError("disk full")

    monkeypatch.setattr(figure, "savefig", fail_on_pdf)
    with pytest.raises(OSError, match="disk full"):
        save(figure, tmp_path / "figure", pdf=True)
    assert not list(tmp_path.iterdir())
