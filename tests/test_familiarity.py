import json
from dataclasses import replace

import numpy as np
import pytest

from deepmerge import config
from deepmerge.data import splits
from deepmerge.data.dataset import Dataset
from deepmerge.model import familiarity
from deepmerge.model.familiarity import MARGIN, Comparison, Familiar


def images(count=60, seed=0):
    """A faint galaxy of random brightness on noise, in two filters."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-16:16, -16:16]
    light = np.exp(-np.hypot(x, y) / 4) * rng.lognormal(3, 1, (count, 2, 1, 1))
    return (light + rng.normal(0, 1, (count, 2, 32, 32))).astype(np.float32)


def familiar(pixels=None, missing=None):
    pixels = images() if pixels is None else pixels
    data = Dataset.from_arrays(pixels, np.arange(len(pixels)) % 2, galaxy_id=np.arange(len(pixels)))
    return familiarity.measure(replace(data, missing=missing), splits.make(data, config.Split()))


def test_quantiles_are_those_of_numpy_and_undefined_with_an_undefined_pixel():
    pixels = images(3)
    pixels[1, 0, 4, 4] = np.nan
    found = familiarity.quantiles(pixels)
    by_hand = np.moveaxis(np.quantile(pixels.reshape(3, 2, -1).astype(float), familiarity.LEVELS, axis=-1), 0, -1)
    np.testing.assert_allclose(found[[0, 2]], by_hand[[0, 2]])
    np.testing.assert_allclose(found[1, 1], by_hand[1, 1])
    assert np.isnan(found[1, 0]).all()


def test_pixels_that_are_missing_do_not_count():
    missing = config.Missing(value=(-99.0,))
    gaps = images()
    gaps[..., :5] = -99
    np.testing.assert_allclose(
        familiarity.quantiles(gaps, missing), familiarity.quantiles(images()[..., 5:]), rtol=1e-6
    )
    assert Comparison(familiar(gaps, missing)).add(gaps).max() <= MARGIN


@pytest.mark.parametrize(
    "change",
    [lambda x: 1000 * x, lambda x: x / 1000, lambda x: 10 * x, lambda x: x + 20, lambda x: np.abs(x), lambda x: x * 0],
)
def test_other_units_backgrounds_and_noise_are_unlike(change):
    compared = Comparison(familiar())
    assert (compared.add(change(images(40, seed=1))) > MARGIN).mean() > 0.95
    assert "40 images" in compared.said()


def test_other_galaxies_of_the_kind_are_like():
    compared = Comparison(familiar(images(200)))
    compared.add(images(200, seed=1))
    assert compared.unlike <= 0.05 * compared.seen


def test_pieces_make_the_same_as_the_whole_and_the_line_tells_where_and_how_much():
    given = images(30, seed=1)
    given[20] *= 1000
    whole, pieces = Comparison(familiar()), Comparison(familiar())
    found = whole.add(given)
    np.testing.assert_array_equal(np.concatenate([pieces.add(given[i : i + 7]) for i in range(0, 30, 7)]), found)
    assert whole.said() == pieces.said()
    assert "the most row 20, where " in whole.said()


def test_metadata_in_json_bring_back_the_same():
    one = familiar(missing=config.Missing(value=("nan", -99.0)))
    two = Familiar.of_metadata(json.loads(json.dumps(one.metadata(), allow_nan=False)))
    np.testing.assert_array_equal(Comparison(two).add(images(9) * 5), Comparison(one).add(images(9) * 5))
    assert (two.filters, two.missing) == (one.filters, one.missing)


def test_images_that_are_mostly_masked_with_zeros_can_be_compared():
    pixels = images()
    pixels[:, :, 8:] = 0
    assert Comparison(familiar(pixels)).add(pixels).max() <= MARGIN
