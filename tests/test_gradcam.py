"""Which images maps are asked of, what is written of them, and the pages that show them."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits
from conftest import shown_images, texts, within_the_page

from deepmerge.analysis.trust.table import Table
from deepmerge.data.dataset import Dataset
from deepmerge.data.splits import Part
from deepmerge.errors import InputError
from deepmerge.estimate import Estimate
from deepmerge.jobs.gradcam import chosen, files, judging
from deepmerge.jobs.gradcam.grid_figures import Group, activation_grid, layer_grid, mean_maps
from deepmerge.plots import canvas

# --- the selection -----------------------------------------------------------------------------------------

COUNT = 40


@pytest.fixture
def judged():
    """A model of 40 images, two a galaxy, whose score of row r is r / 40; every other one of its test is a merger."""
    labels = (np.arange(COUNT) // 2 % 2).astype(np.uint8)
    data = Dataset.from_arrays(np.zeros((COUNT, 1, 32, 32)), labels, galaxy_id=np.arange(COUNT) // 2 + 100)
    test = Part(np.arange(20, COUNT), np.zeros(20, np.uint8))

    def scores(part):
        return (test if part == "test" else part).rows / COUNT

    return SimpleNamespace(data=data, split=SimpleNamespace(test=test), scores=scores, masks=lambda *images: None)


def rows_of(text, judged):
    return chosen.parse(text).images(judged).table["row"].tolist()


def test_rows_and_ranges_are_taken_in_their_order(judged):
    assert rows_of("rows:30,2,5-7", judged) == [30, 2, 5, 6, 7]
    assert chosen.parse("rows:30,2,5-7").name == "rows-30-2-5-7"


def test_galaxies_bring_all_their_images(judged):
    table = chosen.parse("galaxies:101,119").images(judged).table
    assert table["row"].tolist() == [2, 3, 38, 39]
    assert table["galaxy_id"].tolist() == [101, 101, 119, 119]
    assert table["probability"].tolist() == [row / COUNT for row in table["row"]]


def test_wrong_ones_are_the_false_ones_the_surest_first(judged):
    table = chosen.parse("wrong").images(judged).table
    assert set(table["outcome"]) == {"FP"}
    assert table["row"].tolist() == [37, 36, 33, 32, 29, 28, 25, 24, 21, 20]
    assert ((table["probability"] >= 0.5) != (table["label"] == 1)).all()


def test_confident_and_uncertain_ones_are_of_every_outcome_and_one_an_galaxy(judged):
    confident, uncertain = (chosen.parse(word).images(judged).table for word in ("confident", "uncertain"))
    assert confident["probability"].max() == 39 / COUNT
    assert not confident["galaxy_id"][confident["outcome"] == "TP"].duplicated().any()
    assert not set(confident["row"]) & set(uncertain["row"])
    assert rows_of("all", judged) == list(range(20, 40))


@pytest.mark.parametrize("text", ["best", "rows:", "rows", "galaxies: ,", "views:3", ""])
def test_another_selection_is_answered_with_what_there_is(text):
    with pytest.raises(
        InputError, match=r"selection should be all, confident, .* galaxies:12,15 or the path of images, got "
    ):
        chosen.parse(text)


@pytest.mark.parametrize("entry", ["a", "3-", "7-3", "-3", "1.5", "0-99999999", "9" * 40])
def test_rows_that_are_none_are_named(entry):
    with pytest.raises(InputError, match="selection should give"):
        chosen.parse(f"rows:2,{entry}")


def test_rows_and_galaxies_that_the_data_lack_are_named(judged):
    with pytest.raises(InputError, match="rows 0 … 39 of arrays, got 40"):
        rows_of("rows:3,40", judged)
    with pytest.raises(InputError, match=r"galaxies of arrays \(100, .*, got '7'"):
        rows_of("galaxies:101,7", judged)


# --- what is judged ----------------------------------------------------------------------------------------


def test_methods_go_by_name_or_all_together():
    assert judging.methods_of(None) == ()
    assert judging.methods_of("hirescam, occlusion") == ("hirescam", "occlusion")
    assert len(judging.methods_of("all")) == 8
    with pytest.raises(InputError, match=r"methods should be 'all' or some of gradcam, .*, got 'cam'"):
        judging.methods_of("hirescam,cam")


def test_recognised_mergers_are_of_as_many_galaxies_as_possible():
    count = 4 * judging.IMAGES
    table = pd.DataFrame({"galaxy_id": np.arange(count) // 4, "label": 1, "probability": 0.9})
    table.loc[::4, "probability"] = 0.1
    found = judging.recognised(table)
    assert len(found) == found["galaxy_id"].nunique() == judging.IMAGES
    assert (found["probability"] == 0.9).all()
    pd.testing.assert_frame_equal(judging.recognised(table), found)
    assert judging.recognised(table.head(30)).index.is_monotonic_increasing
    assert judging.recognised(table.assign(label=0)).empty


def test_the_metrics_of_a_run_are_those_of_its_maps_and_of_the_light():
    one = Estimate(0.5, 0.4, 0.6)
    lines = {"hirescam/conv_3": {"energy": one, "empty": one}, "light": {"energy": one, "deletion": one}}
    found = judging.Trust("hirescam/conv_3", Table(lines, one, Estimate(-1.0), 60, 20), "Good.").metrics()
    assert found["test_saliency_energy_low"] == 0.4
    assert found["test_light_deletion"] == 0.5
    assert found["test_saliency_mirrored"] == -1
    assert not [name for name in found if "empty" in name]


# --- files -------------------------------------------------------------------------------------------------


def test_fits_has_a_cube_for_each_target_and_a_row_for_each_plane(tmp_path):
    maps = np.random.default_rng(0).random((3, 2, 5, 7)).astype(np.float32)
    table = pd.DataFrame({"row": [4, 5, 6], "galaxy_id": ["a", "b", "c"], "stage": "past", "probability": 0.5})
    files.write_fits(tmp_path / "m.fits", maps, ("merger", "non-merger"), table, {"METHOD": "Grad-CAM"})
    with fits.open(tmp_path / "m.fits") as units:
        units.verify("exception")
        assert [unit.name for unit in units] == ["PRIMARY", "MERGER", "NON-MERGER", "IMAGES"]
        np.testing.assert_array_equal(units["NON-MERGER"].data, maps[:, 1])
        assert units["MERGER"].header["BUNIT"] == "logit"
        assert units[0].header["METHOD"] == "Grad-CAM"
        assert units["IMAGES"].data["galaxy_id"].tolist() == ["a", "b", "c"]
        assert units["IMAGES"].data["row"].tolist() == [4, 5, 6]


def test_a_note_says_what_the_maps_are(tmp_path):
    explainer = SimpleNamespace(method=SimpleNamespace(title="Grad-CAM"), layer="conv_3")
    files.write_readme(tmp_path, "maps", explainer, ("merger",))
    assert "Grad-CAM of conv_3, for the targets merger, in units" in (tmp_path / "README.txt").read_text("utf-8")


# --- pages -------------------------------------------------------------------------------------------------

IMAGES = np.random.default_rng(0).normal(size=(2, 9, 7, 2))
MAPS = {"HiRes-CAM\nconv_1": np.abs(IMAGES[..., 0]), "HiRes-CAM\nconv_2": np.zeros((2, 9, 7))}


@pytest.mark.usefixtures("no_warnings")
def test_layers_are_drawn_over_every_filter():
    masks = np.zeros((2, 9, 7), bool)
    masks[0, 2:5, 2:5] = True
    figure = layer_grid(IMAGES, MAPS, ["True positive: galaxy 3", "x" * 200], ["F814W", "F160W"], masks=masks, note="N")
    assert len(shown_images(figure)) == 2 * 2 * 3 + 1  # and the key
    assert texts(figure).count("F814W") == 2
    assert texts(figure).count("all zero") == 4
    assert sum(bool(axes.collections) for axes in figure.axes) == 4
    assert (figure.get_figwidth(), within_the_page(figure)) == (canvas.PAGE, True)


@pytest.mark.usefixtures("no_warnings")
def test_no_galaxies_and_odd_pixels_can_be_drawn():
    assert "no galaxies" in texts(layer_grid(IMAGES[:0], {"a": MAPS["HiRes-CAM\nconv_2"][:0]}, [], ["a", "b"]))
    odd = np.full((1, 5, 40, 1), np.nan)
    assert within_the_page(layer_grid(odd, {"a name " * 9: odd[..., 0]}, ["a"], ["F160W"]))


@pytest.mark.usefixtures("no_warnings")
def test_activations_are_those_of_the_filters_that_change_most_in_their_order():
    features = np.random.default_rng(0).normal(size=(6, 5, 1)) * np.arange(12)
    few = {"conv_2": features[..., :3], "dead": features * 0}
    figure = activation_grid(IMAGES[0], {"conv_1": features, **few}, ["first", "b", "c"], ["F814W", "F160W"], note="N")
    assert len(shown_images(figure)) == 2 + 8 + 3 + 8
    shown = [text for text in texts(figure) if text.isdigit()]
    assert shown[:11] == [*"4567", "8", "9", "10", "11", *"012"]
    assert within_the_page(figure)
    with pytest.raises(InputError, match="features: expected 1 to 5 layers"):
        activation_grid(IMAGES[0], {}, [], ["a", "b"])


@pytest.mark.usefixtures("no_warnings")
def test_mean_maps_are_on_one_scale():
    strong, weak = np.full((9, 7), 4.0), np.full((9, 7), 1.0)
    groups = [Group("True positives", 12, IMAGES[0], strong, weak), Group("past", 1, IMAGES[1], weak, weak * 0)]
    figure = mean_maps(groups, ["F814W", "F160W"], title="Mean maps", note="N")
    assert {"True positives 12 images", "past 1 image"} <= set(texts(figure))
    heats = [axes.images[0] for axes in figure.axes if axes.images][2:6]
    assert {heat.get_clim() for heat in heats} == {(0.0, 4.0)}
    assert within_the_page(figure)


def test_more_than_a_page_holds_is_refused():
    with pytest.raises(InputError, match="maps: expected 1 to 5 layers"):
        layer_grid(IMAGES, {str(n): MAPS["HiRes-CAM\nconv_1"] for n in range(6)}, ["a", "b"], ["a", "b"])
    with pytest.raises(InputError, match="groups: expected 1 to 8 groups"):
        mean_maps([], ["a"], title="t")
