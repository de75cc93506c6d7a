import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deepmerge.data import check, copies, likeness
from deepmerge.data.dataset import Dataset
from deepmerge.data.turns import transform

REAL = Path(os.environ.get("DEEPMERGE_REAL_DATA", Path(__file__).parents[2] / "shared" / "real"))


def galaxies(count=60, noise=1.0, seed=0, size=48):
    """Galaxies of various sizes and shapes on noise, in two filters."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] - size / 2
    turn, length, axis, flux = (rng.uniform(*limits, (count, 1, 1)) for limits in ((0, 3), (3, 9), (0.3, 1), (5, 60)))
    u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    light = flux * np.exp(-np.hypot(u, v / axis) / length)
    return (light[:, np.newaxis] * [[[1]], [[0.7]]] + rng.normal(0, noise, (count, 2, size, size))).astype(np.float32)


def made(images, galaxy_id=None):
    ids = np.arange(len(images)) if galaxy_id is None else galaxy_id
    return Dataset.from_arrays(images, np.asarray(ids) % 2, galaxy_id=ids)


def found(data):
    described = np.concatenate([likeness.describe(data.images[:20]), likeness.describe(data.images[20:])])
    return likeness.pairs(data, described, copies.keys(data.images))


def again(image, code, shift, noise, seed=1):
    moved = np.roll(transform(image, code), shift, (1, 2))
    return moved + np.random.default_rng(seed).normal(0, noise, image.shape).astype(image.dtype)


@pytest.mark.parametrize("code", range(8))
@pytest.mark.parametrize(("shift", "noise"), [((0, 0), 0.5), ((2, -1), 0.2), ((-2, 2), 0.5)])
def test_a_galaxy_that_was_turned_shifted_and_made_noisier_is_found(code, shift, noise):
    images = galaxies()
    images[50] = again(images[11], code, shift, noise)
    assert [(one, other) for one, other, _ in found(made(images))] == [(11, 50)]


@pytest.mark.parametrize("noise", [1.0, 0.001])
def test_different_galaxies_are_told_apart(noise):
    assert found(made(galaxies(200, noise))) == []


def test_views_of_one_galaxy_and_the_very_same_pixels_are_no_near_duplicates():
    images = galaxies()
    images[50], images[51] = again(images[11], 3, (1, 1), 0.2), images[12]
    ids = np.arange(60)
    ids[50] = 11
    assert found(made(images, ids)) == []


def test_oblong_constant_and_undefined_images_do_no_harm():
    images = galaxies()[..., :40].copy()
    images[3], images[4] = 0, np.nan
    images[50] = again(images[11], 2, (1, 0), 0.2)
    assert [(one, other) for one, other, _ in found(made(images))] == [(11, 50)]


def test_the_check_warns_of_them():
    images = galaxies()
    images[50] = again(images[10], 5, (1, 0), 0.2)
    [line] = check.check(made(images)).warnings
    assert line.startswith(
        "1 pairs of images under different galaxy ids are nearly the same, turned or shifted; the most"
    )
    assert "in rows 10 and 50" in line


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real galaxies at {REAL}")
def test_real_galaxies_are_told_apart_and_found_again():
    images = np.load(REAL / "efigi_dev_X.npy").astype(np.float32)
    ids = pd.factorize(pd.read_csv(REAL / "efigi_dev_catalogue.csv")["galaxy_id"])[0]
    labels = np.arange(len(images)) % 2
    plain = Dataset.from_arrays(images, labels, galaxy_id=np.arange(len(images)))
    assert len(ids) == len(images)
    assert found(plain) == []
    copies_made = {(row, len(images) - 1 - row) for row in range(60)}
    for row, other in copies_made:
        images[other] = again(images[row], row % 8, (2, -1), 2.0, seed=row)
    twice = {(one, other) for one, other, _ in found(Dataset.from_arrays(images, labels, galaxy_id=plain.galaxies))}
    assert twice <= copies_made
    assert len(twice) >= 57  # about one in a hundred has its copy beyond the nearest neighbours that are compared
