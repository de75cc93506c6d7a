import numpy as np
import pandas as pd
import pytest

import deepmerge as dm
from deepmerge.studies.shortcuts import statistics

SIZE = 32


@pytest.fixture
def images():
    return np.random.default_rng(0).normal(5, 1, (12, 2, SIZE, SIZE))


def tables(images, **more):
    labels = np.arange(len(images)) % 2
    return statistics.of_images(dm.Dataset.from_arrays(images, labels, **more))


def test_fluxes_are_sums_and_colours(images):
    flux = images.sum((2, 3))
    expected = np.column_stack([flux, flux[:, 0] / flux[:, 1]])
    np.testing.assert_allclose(tables(images)["fluxes"], expected)


def test_quantiles_go_from_the_faintest_to_the_brightest_pixel(images):
    table = tables(images)["quantiles"].to_numpy().reshape(12, 2, -1)
    np.testing.assert_array_equal(table[:, :, 0], images.min((2, 3)))
    np.testing.assert_array_equal(table[:, :, -1], images.max((2, 3)))
    assert (np.diff(table, axis=2) >= 0).all()


def test_the_profile_has_the_mean_of_each_ring_and_covers_the_frame():
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    image = np.hypot(x, y)
    profile = tables(np.stack([[image]] * 2))["radial profile"].to_numpy()[0]
    assert (np.diff(profile) > 0).all()
    assert profile[-1] > SIZE / 2  # the corners count


def test_the_edge_sees_the_outer_frame_alone(images):
    before = tables(images)["edge frame"]
    images[:, :, 2:-2, 2:-2] += 100
    pd.testing.assert_frame_equal(tables(images)["edge frame"], before)
    images[:, :, 0] += 1
    assert (tables(images)["edge frame"][0] > before[0]).all()


def test_noise_is_the_scatter_of_the_pixels_and_no_gradient():
    rng = np.random.default_rng(1)
    gradient = np.linspace(0, 500, SIZE)
    images = gradient + rng.normal(0, [[[[2.0]], [[7.0]]]], (6, 2, SIZE, SIZE))
    np.testing.assert_allclose(tables(images)["noise"], [[2.0, 7.0]] * 6, rtol=0.15)


def test_missing_pixels_are_counted_by_kind(images):
    images[0, 0, 0, :8] = np.nan
    images[1, 1, :2] = 0
    images[2, 0, :4] = -99
    table = tables(images)["missing pixels"].to_numpy().reshape(12, 2, 3)
    assert table[0, 0, 0] == 8 / SIZE**2
    assert table[1, 1, 1] == 2 / SIZE
    assert table[2, 0, 2] == 4 / SIZE
    assert (table[3:, :, :2] == 0).all()
    assert (table[3:, :, 2] == 1 / SIZE**2).all()


@pytest.mark.parametrize("name", ["fluxes", "quantiles", "radial profile", "edge frame", "missing pixels"])
def test_a_flip_changes_no_statistic(images, name):
    pd.testing.assert_frame_equal(tables(images)[name], tables(images[:, :, ::-1])[name])


def test_coordinates_are_those_of_the_catalogue(images):
    catalogue = pd.DataFrame({"galaxy_id": range(12), "ra": np.linspace(10, 11, 12), "dec": np.linspace(-1, 1, 12)})
    statistic = tables(images, catalogue=catalogue)["coordinates"]
    np.testing.assert_allclose(statistic, catalogue[["ra", "dec"]])
    assert "coordinates" not in tables(images)
