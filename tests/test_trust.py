"""Numbers that say how far maps can be believed: each on cases whose answer is known, then on whole networks."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pandas as pd
import pytest
from keras import layers
from scipy import stats

from deepmerge.analysis.trust import measures, removal
from deepmerge.analysis.trust.table import COLUMNS, Table, mean, table, verdict
from deepmerge.analysis.trust.trial import AREA, LIGHT, key, trial
from deepmerge.errors import InputError
from deepmerge.estimate import Estimate

SIDE = 12


def noisy(n=4, side=SIDE, filters=2, seed=0):
    return np.random.default_rng(seed).normal(size=(n, side, side, filters)).astype(np.float32)


def hole(side=SIDE, at=np.s_[4:7, 5:9], n=1):
    mask = np.zeros((n, side, side), bool)
    mask[:, *at] = True
    return mask


# --- taking pixels out -------------------------------------------------------------------------------------


def test_what_is_not_removed_stays_as_it_is():
    images, removed = noisy(), np.random.default_rng(1).random((4, SIDE, SIDE)) < 0.4
    found = removal.imputed(images, removed, 0)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[~removed], images[~removed])
    assert (found[removed] != images[removed]).all()


def test_a_hole_in_a_plane_is_filled_with_the_plane():
    """A plane is the mean of its neighbours everywhere, and along its level lines it has no noise."""
    plane = np.repeat(np.arange(SIDE, dtype=np.float32)[:, None], SIDE, 1)[None, ..., None]
    np.testing.assert_allclose(removal.imputed(plane, hole(), 0), plane, atol=1e-5)


def test_imputed_pixels_solve_the_equations_of_their_neighbours():
    image, removed = noisy(1)[0, ..., 0].astype(float), np.random.default_rng(2).random((SIDE, SIDE)) < 0.6
    unknown = [tuple(place) for place in np.argwhere(removed)]
    system, right = np.eye(len(unknown)), np.zeros(len(unknown))
    for number, (y, x) in enumerate(unknown):
        near = {
            (y + a, x + b): (1 / 6 if 0 in (a, b) else 1 / 12)
            for a in (-1, 0, 1)
            for b in (-1, 0, 1)
            if (a, b) != (0, 0) and 0 <= y + a < SIDE and 0 <= x + b < SIDE
        }
        for place, weight in near.items():
            share = weight / sum(near.values())
            if place in unknown:
                system[number, unknown.index(place)] -= share
            else:
                right[number] += share * image[place]
    expected = image.copy()
    expected[removed] = np.linalg.solve(system, right)
    noise = removal.pixel_noise(image[None, ..., None])[0, 0]
    scatter = np.random.default_rng([5, 0]).normal(size=(SIDE, SIDE, 1))[..., 0]
    expected[removed] += (noise * scatter)[removed]
    found = removal.imputed(image[None, ..., None], removed[None], 5)[0, ..., 0]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_noise_of_a_hole_is_that_of_its_image_in_each_filter():
    images = noisy(1, 80) * [1.0, 30.0]
    np.testing.assert_allclose(removal.pixel_noise(images), [[1.0, 30.0]], rtol=0.05)
    removed = hole(80, np.s_[10:70, 10:70])
    filled = removal.imputed(images, removed, 0)[removed]
    np.testing.assert_allclose(filled.std(axis=0), [1.0, 30.0], rtol=0.1)


def test_an_image_of_which_nothing_is_left_is_its_median_and_noise():
    image = np.full((1, SIDE, SIDE, 1), 3.0)
    np.testing.assert_array_equal(removal.imputed(image, np.ones((1, SIDE, SIDE), bool), 0), image)


def test_the_same_seed_gives_the_same_images_and_another_one_others():
    images, removed = noisy(), hole(n=4)
    first, again, other = (removal.imputed(images, removed, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first[removed] != other[removed]).all()


def test_mirroring_away_takes_a_blob_and_leaves_what_is_symmetric():
    galaxy = noisy(2)
    galaxy += galaxy[:, ::-1, ::-1]
    blob = hole(at=np.s_[1:3, 2:5], n=2)
    with_blob = galaxy + 50 * blob[..., None]
    np.testing.assert_allclose(removal.mirrored(with_blob, blob, 0), galaxy, atol=1e-5)
    middle = hole(at=np.s_[5:7, 5:7], n=2)  # its own mirror image
    found = removal.mirrored(galaxy, middle, 0)
    np.testing.assert_array_equal(found, removal.imputed(galaxy, middle, 0))


# --- numbers of single maps --------------------------------------------------------------------------------


def test_energy_and_hits_count_empty_maps_as_misses_and_leave_empty_masks_out():
    mask = hole(4, np.s_[0:1, 0:2], n=5)
    mask[4] = False
    maps = np.zeros((5, 4, 4))
    maps[0, 0, 0], maps[0, 3, 3] = 3, 1
    maps[1, 2, 2] = 1
    maps[2] = 1
    np.testing.assert_allclose(measures.energy(maps, mask), [0.75, 0, 2 / 16, 0, np.nan])
    np.testing.assert_allclose(measures.hits(maps, mask), [1, 0, 2 / 16, 0, np.nan])


def test_no_maps_have_no_numbers():
    nothing = np.empty((0, 4, 4))
    assert len(measures.hits(nothing, nothing)) == len(measures.energy(nothing, nothing)) == 0


def test_likeness_is_spearmans_and_knows_of_empty_maps():
    one, other = np.maximum(noisy(3)[..., 0], 0), np.maximum(noisy(3, seed=1)[..., 0] + noisy(3)[..., 0], 0)
    expected = [stats.spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(one, other, strict=True)]
    np.testing.assert_allclose(measures.likeness(one, other), expected)
    np.testing.assert_allclose(measures.likeness(one, one**3), 1)
    nothing = np.zeros_like(one)
    assert measures.likeness(nothing, nothing).tolist() == [1, 1, 1]
    assert measures.likeness(nothing, one).tolist() == [0, 0, 0]


def test_pixels_are_ordered_from_the_highest_and_ties_by_chance():
    maps = np.array([[[1.0, 4.0], [0.0, 2.0]]])
    assert measures.order(maps, 0).tolist() == [[1, 3, 0, 2]]
    even = np.ones((2, 6, 6))
    first, second = measures.order(even, 0)
    assert sorted(first) == list(range(36))
    assert first.tolist() != second.tolist()
    np.testing.assert_array_equal(measures.order(even, 0), [first, second])


@pytest.mark.parametrize("measure", [measures.energy, measures.hits])
def test_wrong_maps_are_named(measure):
    with pytest.raises(InputError, match="one shape"):
        measure(np.ones((2, 3, 3)), np.ones((2, 4, 4)))
    with pytest.raises(InputError, match="finite"):
        measure(np.full((1, 3, 3), np.nan), np.ones((1, 3, 3)))


# --- a network that is known -------------------------------------------------------------------------------

PATCH = hole(at=np.s_[2:5, 7:10])[0]


def reads(where, gain=2.0):
    """A network whose logit is the light in some pixels, through a ReLU, so that maps of layers exist."""
    inputs = keras.Input((SIDE, SIDE, 2))
    x = layers.Conv2D(2, 1, use_bias=False, activation="relu", name="copy")(inputs)
    model = keras.Model(inputs, layers.Dense(1, activation="sigmoid")(layers.Flatten()(x)))
    kernel = np.repeat(where[..., None], 2, -1).reshape(-1, 1) * gain
    model.set_weights([np.eye(2)[None, None], kernel, np.zeros(1)])
    return model


@pytest.fixture(scope="module")
def galaxies():
    """Images of noise 0.1 with a blob in PATCH, and a brighter one elsewhere."""
    images = 0.1 * noisy(30)
    images[:, PATCH] += 1
    images[:, 9:11, 8:10] += 5
    return images, np.repeat(np.arange(15), 2), np.repeat(PATCH[None], 30, 0)


@pytest.fixture(scope="module")
def tried(galaxies):
    images, ids, masks = galaxies
    return trial(reads(PATCH), images, ids, [("hirescam", None), ("integrated", None)], masks)


def test_maps_of_a_network_that_reads_the_feature_pass_every_test(tried):
    found = table(tried)
    for name in (key("hirescam", "copy"), key("integrated", "pixels")):
        line = found.lines[name]
        assert line["energy"].value == pytest.approx(1, abs=1e-3)
        assert line["hit"].value == 1
        assert line["deletion_over_light"].low > 0
        assert line["deletion_over_area"].low > 0
        assert line["randomised"].value < 0.5
        assert line["shaken"].value > 0.9
        assert line["empty"].value == 0
        assert line["agreement"].value > 0.9
        assert verdict(found, name, "HiRes-CAM").startswith("Maps by HiRes-CAM show what this network uses: without")
        assert "it uses the features of mergers" in verdict(found, name, "HiRes-CAM")
        assert "lie on these more" in verdict(found, name, "HiRes-CAM")
    assert (found.images, found.galaxies) == (30, 15)
    np.testing.assert_allclose(found.mirrored.value, -found.logit.value, rtol=0.15)


def test_the_baselines_are_the_light_and_the_area(tried, galaxies):
    images, _, masks = galaxies
    found = table(tried)
    assert found.lines[AREA]["energy"].value == pytest.approx(PATCH.mean())
    assert found.lines[AREA]["hit"].value == pytest.approx(PATCH.mean())
    light = np.maximum(images[..., -1], 0)
    share = (light * masks).sum((1, 2)) / light.sum((1, 2))
    assert found.lines[LIGHT]["energy"].value == pytest.approx(share.mean())
    assert found.lines[LIGHT]["hit"].value == 0
    assert set(found.lines[LIGHT]) == {"energy", "hit", "deletion", "insertion", "empty"}


def test_a_network_that_reads_something_else_is_told(galaxies):
    images, ids, masks = galaxies
    elsewhere = hole(at=np.s_[9:11, 8:10])[0]
    found = table(trial(reads(elsewhere), images, ids, [("hirescam", None)], masks))
    assert "hardly uses the features of mergers" in verdict(found, key("hirescam", "copy"), "HiRes-CAM")
    assert found.lines[key("hirescam", "copy")]["energy"].value < 0.01


def test_without_masks_there_is_all_but_what_they_tell(galaxies):
    images, ids, _ = galaxies
    found = table(trial(reads(PATCH), images, ids, [("hirescam", None)]))
    assert np.isnan(found.mirrored.value)
    line = found.lines[key("hirescam", "copy")]
    of_masks = {"energy", "energy_over_light", "hit", "agreement", "seeds"}
    assert set(line) == set(COLUMNS) - of_masks
    assert "features of mergers" not in verdict(found, key("hirescam", "copy"), "HiRes-CAM")


def test_the_network_is_as_it_was_and_the_numbers_come_again(tried, galaxies):
    images, ids, masks = galaxies
    model = reads(PATCH)
    before = model.get_weights()
    again = trial(model, images, ids, [("hirescam", None), ("integrated", None)], masks)
    assert all((a == b).all() for a, b in zip(before, model.get_weights(), strict=True))
    pd.testing.assert_frame_equal(again.maps, tried.maps, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(again.likeness, tried.likeness, atol=1e-5)


# --- the table and its sentence ----------------------------------------------------------------------------


def test_means_have_the_standard_error_of_galaxies():
    rng = np.random.default_rng(0)
    values, ids = rng.normal(5, 1, 400), np.arange(400)
    found = mean(values, ids)
    error = values.std(ddof=1) / 20
    assert found.value == pytest.approx(values.mean())
    assert (found.high - found.low) / 2 == pytest.approx(1.966 * error, rel=0.01)
    twice = mean(np.repeat(values, 2), np.repeat(ids, 2))  # the views of a galaxy say nothing new
    np.testing.assert_allclose(twice, found)


def test_maps_of_networks_of_other_seeds_are_compared(galaxies):
    images, ids, _ = galaxies
    elsewhere = np.zeros_like(PATCH)
    elsewhere[9:11, 8:10] = True
    alike, other = (
        table(trial(reads(PATCH), images, ids, [("hirescam", None)], other_seeds=[network])).lines[
            key("hirescam", "copy")
        ]
        for network in (reads(PATCH), reads(elsewhere))
    )
    assert alike["seeds"].value == pytest.approx(1)
    assert other["seeds"].value < 0.2
    assert "seeds" not in table(trial(reads(PATCH), images, ids, [("hirescam", None)])).lines[key("hirescam", "copy")]


def test_means_leave_out_what_is_undefined_and_shares_stay_within_their_bounds():
    assert mean(np.array([1.0, np.nan, 3.0]), np.array([1, 2, 3])).value == 2
    assert np.isnan(mean(np.array([np.nan]), np.array([1])).value)
    assert not mean(np.array([1.0, 2.0]), np.array([1, 1])).has_interval
    share = mean((np.arange(40) < 1).astype(float), np.arange(40), share=True)
    assert 0 < share.low < share.value < share.high < 1


def line(**numbers):
    usual = {"deletion": 3.0, "deletion_over_area": 2.0, "deletion_over_light": 1.0, "randomised": 0.1}
    usual |= {"turned": 0.9, "shaken": 0.9, "energy_over_light": 0.2}
    return {name: Estimate(value, value - 0.1, value + 0.1) for name, value in (usual | numbers).items()}


def judged(mirrored=-2.0, **numbers):
    lines = {"m": line(**numbers), LIGHT: {"deletion": Estimate(2.0, 1.9, 2.1)}}
    return verdict(Table(lines, Estimate(5.0), Estimate(mirrored, mirrored - 0.1, mirrored + 0.1), 60, 20), "m", "X")


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ({"randomised": 0.8}, "do not show what this network learned"),
        ({"deletion_over_area": 0.05}, "do not show what this network uses"),
        ({"deletion_over_light": 0.05}, "no better than the light itself does"),
        (
            {},
            "it uses the features of mergers (mirrored away: −2.00 [−2.10, −1.90] of 5.00), and the maps lie on these "
            "more",
        ),
        ({"energy_over_light": 0.0}, "lie on these no more"),
        ({"mirrored": -0.3}, "it hardly uses the features of mergers"),
        ({"mirrored": 1.0}, "it hardly uses the features of mergers"),
        ({"turned": 0.4}, "they change when the image is turned (0.40)."),
        ({"seeds": 0.3}, "than the light does; networks of other seeds have other maps (0.30)."),
        ({"turned": 0.4, "shaken": 0.1}, "they change when the image is turned (0.40) or a little noisier (0.10)."),
    ],
)
def test_the_sentence_follows_from_the_numbers(numbers, said):
    found = judged(**numbers).replace("-", "−")
    assert said in found
    assert found.count(".") - found.count("0.") >= 1
    assert "\n" not in found


def test_the_table_is_a_frame_of_one_line_a_number(tried):
    frame = table(tried).frame()
    assert list(frame) == ["map", "measure", "value", "low", "high"]
    assert not frame.duplicated(["map", "measure"]).any()
    assert set(frame["map"]) == {"", key("hirescam", "copy"), key("integrated", "pixels"), LIGHT, AREA}
