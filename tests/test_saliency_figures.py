"""Pages of saliency maps show each map relative to its maximum, beside its galaxy, and survive odd input."""

from functools import partial

import numpy as np
import pytest
from conftest import shown_images, texts, within_the_page

from deepmerge.errors import InputError
from deepmerge.jobs import saliency_figures
from deepmerge.plots import canvas, images
from deepmerge.plots.canvas import save

pytestmark = pytest.mark.usefixtures("no_warnings")

NOTE = "Simulated demo data – not Illustris"
IMAGES = np.random.default_rng(0).normal(size=(2, 3, 9, 7, 2))
MAPS = np.abs(IMAGES[..., 0])
CAPTIONS = ["galaxy 1 (past)  P = 0.93 pristine, 0.71 noisy", "galaxy 2", "galaxy 3"]
NAMES = ["pristine", "noisy"]
KINDS, CERTAINTIES = ["TP", "TP", "FN"], ["confident"] * 3
COMPARISON = partial(saliency_figures.comparison, IMAGES, MAPS, CAPTIONS, NAMES)
PANELS = partial(saliency_figures.panels, IMAGES[0], MAPS[0], MAPS[1], CAPTIONS, KINDS, CERTAINTIES)
BUILDERS = {"panels": PANELS, "comparison": COMPARISON}
ODD_SHAPES = [((0, 5, 5, 2), 0), ((1, 1, 1, 1), -1e300), ((1, 3, 90, 5), np.nan), ((2, 60, 3, 1), np.inf)]


@pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)
def test_title_and_note_are_written_within_the_page(build):
    title, note = " ".join(["title"] * 30), " ".join([NOTE] * 8)
    figure = build(title=title, note=note)
    assert {title, note} <= set(texts(figure))
    assert figure.get_figwidth() == canvas.PAGE
    assert within_the_page(figure)


@pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)
def test_the_same_page_is_saved_as_the_same_bytes(build, tmp_path):
    first, second = (save(build(note=NOTE), tmp_path / name) for name in ("one", "two"))
    assert first[0].read_bytes() == second[0].read_bytes()


def test_panels_show_each_map_relative_to_its_maximum():
    image, strong = np.zeros((1, 6, 6, 1)), np.zeros((1, 6, 6))
    strong[0, 2, 3] = 40.0
    masks = strong > 0
    show = partial(saliency_figures.panels, image, captions=["g"], kinds=["TP"], certainties=["confident"])
    figure = show(merger_maps=strong, non_merger_maps=-strong, masks=masks)
    (plain, merger, other, _) = shown_images(figure)
    np.testing.assert_array_equal(merger, shown_images(show(merger_maps=strong / 80, non_merger_maps=-strong))[1])
    assert (plain == 0).all()
    assert (merger.sum(axis=-1) > 0).sum() == 1
    assert (other == 0).all()
    found = texts(figure)
    assert {"g", "True positives", "true features of the merger", "all zero", "no false positives"} <= set(found)
    assert sum(bool(axes.collections) for axes in figure.axes) == 2


@pytest.mark.parametrize(("shape", "fill"), ODD_SHAPES)
def test_panels_of_any_shape_and_content(shape, fill):
    count, stack = shape[0], np.full(shape, fill)
    maps, masks = stack[..., 0], np.ones(shape[:3], dtype=bool)
    filters = [f"F{i}" for i in range(shape[3])]
    figure = saliency_figures.panels(
        stack, maps, maps, ["a name " * 12] * count, ["FP"] * count, ["uncertain"] * count, masks=masks, filters=filters
    )
    assert texts(figure).count("all zero") == 2 * count
    assert {"no true positives", "no true negatives", "no false negatives"} <= set(texts(figure))


def test_a_comparison_has_a_row_a_galaxy_and_a_pair_a_variant():
    figure = COMPARISON(filters=["F814W", "F160W"])
    written = texts(figure)
    assert {"galaxy 1 (past) P = 0.93 pristine, 0.71 noisy", "galaxy 3", *NAMES} <= set(written)
    assert written.count("F160W (log)") == written.count("map") == 2
    *panels, _ = shown_images(figure)  # the last one is the key
    assert len(panels) == 3 * 4
    for galaxy in range(3):
        for variant in range(2):
            plain = panels[4 * galaxy + 2 * variant]
            np.testing.assert_array_equal(plain, images.stretch(IMAGES[variant, galaxy, ..., -1]))
    other = saliency_figures.comparison(IMAGES, MAPS * 50, CAPTIONS, NAMES)
    np.testing.assert_allclose(shown_images(other)[1], panels[1])  # each map relative to its own maximum


def test_a_comparison_has_a_heading_where_another_group_begins():
    figure = COMPARISON(groups=["True positives", "True positives", "False positives"], note=NOTE)
    assert texts(figure).count("True positives") == texts(figure).count("False positives") == 1
    assert within_the_page(figure)
    assert COMPARISON(note=NOTE).get_figheight() < figure.get_figheight()


def test_captions_break_where_told_and_where_they_must():
    caption = "galaxy 1 (past)  P(merger):\n0.93 pristine\n" + 60 * "w"
    figure = saliency_figures.comparison(IMAGES[:, :1], MAPS[:, :1], [caption], NAMES)
    (written,) = [text.get_text() for text in figure.texts if text.get_text().startswith("galaxy")]
    assert written.split("\n")[:3] == ["galaxy 1 (past)", "P(merger):", "0.93 pristine"]
    assert written.count("w") == 60
    assert max(map(len, written.split("\n"))) < 40


def test_a_comparison_outlines_features_and_says_when_a_map_is_all_zero():
    masks = np.zeros((3, 9, 7), dtype=bool)
    masks[1, 3:5, 2:4] = True
    figure = saliency_figures.comparison(IMAGES, [MAPS[0], -MAPS[1]], CAPTIONS, NAMES, masks=masks)
    assert texts(figure).count("all zero") == 3
    assert "true features of the merger" in texts(figure)
    assert sum(bool(axes.collections) for axes in figure.axes) == 2


@pytest.mark.parametrize("variants", [1, saliency_figures.MOST_VARIANTS])
@pytest.mark.parametrize(("shape", "fill"), ODD_SHAPES)
def test_a_comparison_of_any_shape_and_content(variants, shape, fill):
    images = [np.full(shape, fill)] * variants
    maps = [stack[..., 0] for stack in images]
    names = ["a name " * 12] * variants
    figure = saliency_figures.comparison(images, maps, ["a caption  " * 20] * shape[0], names, masks=maps[0] < 0)
    assert texts(figure).count("all zero") == shape[0] * variants
    assert ("no galaxies" in texts(figure)) == (shape[0] == 0)
    assert within_the_page(figure)


@pytest.mark.parametrize(
    "call",
    [
        partial(saliency_figures.panels, IMAGES[0], MAPS[0], MAPS[0, :1], CAPTIONS, KINDS, CERTAINTIES),
        partial(saliency_figures.panels, IMAGES[0], MAPS[0], MAPS[0], CAPTIONS, ["tp"] * 3, CERTAINTIES),
        partial(saliency_figures.panels, IMAGES[0], MAPS[0], MAPS[0], CAPTIONS, KINDS, ["sure"] * 3),
        partial(saliency_figures.comparison, [], [], [], []),
        partial(saliency_figures.comparison, IMAGES, MAPS[:1], CAPTIONS, NAMES),
        partial(saliency_figures.comparison, IMAGES, MAPS[:, :1], CAPTIONS, NAMES),
        partial(saliency_figures.comparison, [IMAGES[0], IMAGES[1, :, :5]], MAPS, CAPTIONS, NAMES),
        partial(saliency_figures.comparison, IMAGES, MAPS, CAPTIONS[:1], NAMES),
        partial(saliency_figures.comparison, IMAGES, MAPS, CAPTIONS, NAMES[:1]),
        partial(saliency_figures.comparison, IMAGES, MAPS, CAPTIONS, NAMES, masks=MAPS),
        partial(saliency_figures.comparison, IMAGES, MAPS, CAPTIONS, NAMES, filters=["a"]),
        partial(saliency_figures.comparison, [np.ones((500, 2, 2, 1))], [np.ones((500, 2, 2))], ["a"] * 500, ["b"]),
    ],
)
def test_wrong_input_is_an_input_error_that_says_what_was_expected(call):
    with pytest.raises(InputError, match=r"expected .*, received "):
        call()
