"""The bootstrap draws galaxies with all their images, of each class as many as there are, in any order of rows."""

import numpy as np
import pytest
from conftest import predictions
from hypothesis import given
from hypothesis import strategies as st

from deepmerge.analysis.bootstrap import bands, resampled
from deepmerge.analysis.sample import Band, Sample
from deepmerge.errors import InputError


def test_a_resample_draws_as_many_galaxies_of_each_class():
    y, p, galaxy = predictions()
    (weights,) = resampled(Sample.of(y, p, galaxy), 200, 0)
    merger = np.unique(galaxy) % 3 == 0
    assert (weights[:, merger].sum(axis=1) == merger.sum()).all()
    assert (weights[:, ~merger].sum(axis=1) == (~merger).sum()).all()
    assert weights.mean() == 1
    assert weights.var(axis=0).mean() == pytest.approx(1, abs=0.05)


def test_the_classes_are_drawn_independently():
    y, p, galaxy = predictions()
    same_size = np.isin(galaxy % 3, (0, 1))
    (weights,) = resampled(Sample.of(y[same_size], p[same_size], galaxy[same_size]), 500, 0)
    merger = np.unique(galaxy[same_size]) % 3 == 0
    together = np.corrcoef(weights[:, merger].ravel(), weights[:, ~merger].ravel())[0, 1]
    assert abs(together) < 0.03


@st.composite
def samples(draw):
    """Labels, probabilities, galaxies of a few images, and another order of them."""
    n = draw(st.integers(1, 25))
    labels = draw(st.lists(st.sampled_from([0, 1]), min_size=n, max_size=n))
    p = draw(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]) | st.floats(0, 1), min_size=n, max_size=n))
    galaxies = draw(st.lists(st.integers(0, 8), min_size=n, max_size=n))
    return *map(np.array, (labels, p, galaxies)), np.array(draw(st.permutations(range(n))))


def images_of_classes(sample):
    """What of a sample is measured here: its images of either class, and their mean probability."""
    totals = sample.sums(np.column_stack([np.ones(len(sample.labels)), sample.probabilities]))

    def measure(weights):
        images, scores = np.moveaxis(np.tensordot(weights, totals, axes=1), 2, 0)
        return {"images": images, "score": scores / images}

    return measure


@given(samples())
def test_the_order_of_rows_does_not_matter(drawn):
    *columns, order = drawn
    one, other = Sample.of(*columns), Sample.of(*(column[order] for column in columns))
    draws, others = (list(resampled(sample, 20, 0)) for sample in (one, other))
    np.testing.assert_array_equal(draws, others)
    ours, theirs = (bands(sample, images_of_classes(sample), 20, 0) for sample in (one, other))
    for name, band in ours.items():
        np.testing.assert_allclose(theirs[name], band, rtol=1e-12, err_msg=name)


@given(samples())
def test_galaxies_bring_all_their_images_and_each_stratum_keeps_its_size(drawn):
    sample = Sample.of(*drawn[:3])
    images = sample.images()
    assert images.sum(axis=0).tolist() == [sum(sample.labels == 0), sum(sample.labels == 1)]
    strata = (images > 0) @ (1, 2)
    for weights in resampled(sample, 20, 0):
        for stratum in (1, 2, 3):
            assert (weights[:, strata == stratum].sum(axis=1) == (strata == stratum).sum()).all()


@given(samples())
def test_intervals_are_in_order_and_within_the_range_of_what_is_averaged(drawn):
    sample = Sample.of(*drawn[:3])
    band = bands(sample, images_of_classes(sample), 20, 0)["score"]
    for label, low, high in zip((0, 1), band.low, band.high, strict=True):
        p = sample.probabilities[sample.labels == label]
        if np.isfinite(low):
            assert p.min() - 1e-12 <= low <= high <= p.max() + 1e-12


def test_ranked_images_fall_in_probability_and_stay_whole():
    sample = Sample.of(*predictions(decimals=1))
    ranked = sample.ranked()
    assert (np.diff(ranked.probabilities) <= 0).all()
    np.testing.assert_array_equal(sorted(zip(*ranked, strict=True)), sorted(zip(*sample, strict=True)))


def test_where_a_class_has_a_single_galaxy_there_is_no_resample_and_no_interval():
    sample = Sample.of([0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4], [1, 2, 3, 3])
    assert list(resampled(sample, 100, 0)) == []
    band = bands(sample, images_of_classes(sample), 100, 0)["images"]
    assert band.value.tolist() == [2, 2]
    assert np.isnan([band.low, band.high]).all()


def test_intervals_without_width_or_support_are_left_out():
    band = Band(*np.array([[0.5, 1, 0.5], [0.4, 1, 0.3], [0.6, 1, 0.7]]))
    np.testing.assert_array_equal(band.with_width().low, [0.4, np.nan, 0.3])
    flat = band.with_width(np.array([True, True, False])).flat("x")
    assert list(flat) == ["x", "x_low", "x_high"]
    np.testing.assert_array_equal(list(flat.values()), [[0.5, 1, 0.5], [0.4, np.nan, np.nan], [0.6, np.nan, np.nan]])


@pytest.mark.parametrize("resamples", [-1, 10.5])
def test_resamples_are_a_whole_number(resamples):
    with pytest.raises(InputError, match="resamples should be a whole number"):
        list(resampled(Sample.of(*predictions()), resamples, 0))


def test_a_threshold_lies_between_0_and_1_and_calls_what_reaches_it():
    sample = Sample.of([0, 1], [0.4, 0.5], [1, 2])
    assert sample.called(0.5).tolist() == [False, True]
    with pytest.raises(InputError, match=r"threshold should lie in \[0, 1\], got 50"):
        sample.called(50)
