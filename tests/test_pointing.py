"""The pointing game: how often maps point at a mask."""

import itertools
from dataclasses import asdict

import numpy as np
import pytest

from deepmerge.analysis.saliency.pointing import pointing, pooled
from deepmerge.errors import InputError


def point(values, row, column, value=9.0):
    values = values.copy()
    values[row, column] = value
    return values


def test_pointing_counts_hits_and_quotes_what_chance_would_give():
    flat = np.ones((4, 4))
    mask = point(np.zeros((4, 4)), 1, 2, 1)
    light = np.stack([point(flat, 1, 2), point(flat, 0, 0), flat, flat, -flat])
    found = pointing(
        np.stack([point(flat, 1, 2), point(flat, 3, 3), point(flat, 1, 2), flat * 0, flat * 0]),
        np.stack([mask, mask, mask * 0, mask, mask * 0]),
        light,
    )
    assert found.hit_rate == 0.5
    assert found.by_area == 1 / 16
    assert found.by_light == pytest.approx((9 / 24 + 1 / 24) / 2)
    assert found.brightest_pixel == 0.5
    assert (found.used, found.empty_masks, found.empty_maps) == (2, 2, 1)


def test_tied_maxima_count_in_part_and_light_below_zero_not_at_all():
    mask = np.zeros((1, 2, 2))
    mask[0, 0] = 1
    found = pointing(np.full((1, 2, 2), 3.0), mask, np.array([[[3.0, -5], [1, 0]]]))
    assert found.hit_rate == 0.5
    assert found.by_light == 0.75
    dark = pointing(np.full((1, 2, 2), 3.0), mask, np.zeros((1, 2, 2)))
    assert dark.by_light == dark.by_area == 0.5


@pytest.mark.parametrize("n", [0, 3])
def test_pointing_without_masks_is_nan(n):
    found = pointing(np.ones((n, 2, 2)), np.zeros((n, 2, 2)), np.ones((n, 2, 2)))
    assert np.isnan([found.hit_rate, found.by_area, found.by_light, found.brightest_pixel]).all()
    assert (found.used, found.empty_masks) == (0, n)


def test_random_maps_point_no_better_than_area():
    rng = np.random.default_rng(0)
    masks = rng.uniform(size=(4000, 6, 6)) < 0.25
    found = pointing(rng.uniform(size=masks.shape), masks, rng.uniform(size=masks.shape))
    assert found.hit_rate == pytest.approx(found.by_area, abs=0.03)
    assert found.by_area == pytest.approx(0.25, abs=0.01)


def test_pooled_games_are_the_game_on_all_images():
    rng = np.random.default_rng(0)
    maps, masks, light = rng.uniform(size=(30, 5, 5)), rng.uniform(size=(30, 5, 5)) < 0.2, rng.uniform(size=(30, 5, 5))
    maps[3], masks[7], masks[20:25] = 0, False, False  # the fourth part has no image to play with
    cuts = [0, 2, 11, 20, 25, 30, 30]
    parts = [slice(*ends) for ends in itertools.pairwise(cuts)]
    found = pooled([pointing(maps[part], masks[part], light[part]) for part in parts])
    assert asdict(found) == pytest.approx(asdict(pointing(maps, masks, light)))
    nothing = pooled([pointing(maps[:0], masks[:0], light[:0])])
    assert (np.isnan(nothing.hit_rate), nothing.used) == (True, 0)


def test_pointing_names_wrong_input():
    with pytest.raises(InputError, match="one shape"):
        pointing(np.ones((2, 3, 3)), np.ones((2, 3, 3)), np.ones((2, 4, 4)))
    with pytest.raises(InputError, match="finite"):
        pointing(np.full((1, 3, 3), np.nan), np.ones((1, 3, 3)), np.ones((1, 3, 3)))
