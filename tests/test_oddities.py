from dataclasses import replace

import numpy as np
import pytest

from deepmerge import config
from deepmerge.data import oddities
from deepmerge.data.dataset import Dataset


def images(dtype="f4"):
    return np.random.default_rng(0).normal(20, 5, (12, 2, 32, 32)).astype(dtype)


def said(pixels, missing=None):
    data = Dataset.from_arrays(pixels, np.arange(12) % 2, galaxy_id=np.arange(12), filters=["g", "r"])
    found = oddities.Oddities(replace(data, missing=missing))
    for start in (0, 5):
        found.add(pixels[start : 5 if start == 0 else 12])
    return found.said()


@pytest.mark.parametrize("dtype", ["f4", ">f8", "i2"])
def test_plain_images_have_nothing_odd(dtype):
    assert said(images(dtype) * 3 - 40) == []


@pytest.mark.parametrize("value", [-99, -999, 9999])
def test_sentinels_are_counted_unless_the_experiment_names_them(value):
    pixels = images()
    pixels[[4, 9], 1, 3, 3] = value
    [line] = said(pixels)
    assert line.startswith(
        f"2 of 12 images hold the value {value}, which often stands for a missing pixel, the first in row 4"
    )
    assert "data.missing" in line
    assert said(pixels, config.Missing(value=(float(value),))) == []


def test_a_number_among_others_is_no_sentinel():
    assert said(images("f4") * 30 - 600 - 99) == []


def test_saturated_images_are_counted():
    pixels = images()
    pixels[7, 0, :5, :5] = 500
    assert said(pixels) == ["1 of 12 images are saturated: many pixels share the highest value, the first in row 7"]


@pytest.mark.parametrize("place", [np.s_[:, 0], np.s_[:, -1], np.s_[:, :, :3], np.s_[:, :, -1]])
def test_constant_borders_are_counted(place):
    pixels = images()
    pixels[2][place] = 0
    assert said(pixels) == ["1 of 12 images have a constant border, the first in row 2"]


def test_filters_in_units_of_their_own_are_named():
    pixels = images()
    pixels[:, 1] *= 1e5
    [line] = said(pixels)
    assert "pixels of r spread 9.5e+04 × as far as those of g" in line


def test_magnitudes_and_pictures_are_told():
    pixels = np.abs(images("i2")) * 3
    pixels[:, 0] = -20 - pixels[:, 0] ** 2
    negative, picture = said(pixels)
    assert negative.startswith("pixels of g are all negative, at most -")
    assert "pixels of r are whole numbers from" in picture


def test_gaps_and_undefined_pixels_are_passed_over():
    pixels = images()
    pixels[:, :, :2] = np.nan
    assert said(pixels) == []


def test_before_a_training_some_rows_are_looked_at(monkeypatch):
    monkeypatch.setattr(oddities, "SAMPLE", 6)
    pixels = images()
    pixels[0, 0, 0, 0] = -99
    data = Dataset.from_arrays(pixels, np.arange(12) % 2, galaxy_id=np.arange(12))
    assert "1 of 6 images hold the value -99" in oddities.warnings(data, np.arange(12))[0]
    assert oddities.warnings(data, np.arange(1, 12)) == []
