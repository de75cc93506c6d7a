"""Noise and blur that are added to images, and the noise of one sample above that of another."""

import numpy as np
import pytest
from conftest import blob

from deepmerge.config import Missing
from deepmerge.data import noise
from deepmerge.data.noise import Degradation, Noise
from deepmerge.errors import InputError

SIDE = 48
PLAIN = (None, None)


def galaxies(count, seed=0):
    """Images (n, H, W, 2) of round galaxies of all sizes, brighter in the first filter."""
    rng = np.random.default_rng(seed)
    one = [rng.uniform(5, 60) * blob(SIDE, *rng.uniform(-2, 2, 2), rng.uniform(2, 6)) for _ in range(count)]
    return np.stack(one)[..., np.newaxis].astype(np.float32) * np.array([1.0, 0.5], np.float32)


def noised(images, sigma, gain, seed=1):
    """By plain numpy, in double precision."""
    rng = np.random.default_rng(seed)
    variance = np.square(sigma) + np.maximum(images, 0) / np.asarray(gain, float)
    return (images + rng.normal(size=images.shape) * np.sqrt(variance)).astype(np.float32)


def streams(count, seed=0):
    return noise.draws(seed, np.arange(count))


def test_noise_has_the_variance_of_sky_and_light():
    levels = np.array([-5.0, 0.0, 10.0, 1000.0], np.float32)
    images = np.broadcast_to(levels[:, None, None, None], (4, 300, 300, 2))
    found = noise.add(images, Noise(np.array([0.5, 2.0]), np.array([4.0, np.inf])), streams(4)) - images
    assert found.dtype == np.float32
    expected = np.stack([0.25 + np.maximum(levels, 0) / 4, np.full(4, 4.0)], axis=1)
    np.testing.assert_allclose(found.var(axis=(1, 2)), expected, rtol=0.03)
    np.testing.assert_allclose(found.mean(axis=(1, 2)), 0, atol=0.3)


@pytest.mark.parametrize("unit", [1e-30, 1e30])
def test_noise_is_the_same_in_other_units(unit):
    images, sky = galaxies(3), Noise(np.array([0.4, 0.4]), np.array([20.0, 5.0]))
    here = noise.add(images, sky, streams(3))
    there = noise.add((images * unit).astype(np.float32), Noise(sky.sigma * unit, sky.gain / unit), streams(3))
    np.testing.assert_allclose(there / unit, here, rtol=1e-4, atol=1e-4)


def test_each_image_has_a_stream_of_its_own():
    images, sky = galaxies(4), Noise(np.full(2, 0.4), np.full(2, 20.0))
    together = noise.add(images, sky, streams(4))
    alone = [noise.add(images[[i]], sky, noise.draws(0, np.array([i])))[0] for i in range(4)]
    np.testing.assert_array_equal(together, alone)
    assert len({(one - image).tobytes() for one, image in zip(together, images, strict=True)}) == 4
    first = {noise.draws(seed, np.array([number]))[0].integers(2**62) for seed in (0, 1, [0, 1]) for number in (0, 1)}
    assert len(first) == 6


def test_a_blur_widens_a_star_and_keeps_its_light():
    star = np.zeros((1, 41, 41, 2), np.float32)
    star[0, 20, 20] = 1000
    found = noise.blur(star, np.array([1.5, 3.0]))
    axis = np.arange(41) - 20.0
    for number, sigma in enumerate((1.5, 3.0)):
        light = found[0, ..., number].sum(axis=0)
        assert light.sum() == pytest.approx(1000, rel=1e-3)
        assert np.sqrt((light * axis**2).sum() / light.sum()) == pytest.approx(sigma, rel=0.01)


@pytest.mark.parametrize("value", [-99.0, "nan"])
def test_missing_pixels_stay_and_spoil_no_neighbour(value):
    sentinel = np.float32(value)
    images = np.full((2, 32, 32, 2), 7, np.float32)
    images[:, 10:14, 5:9] = sentinel
    gaps = ~(images == 7)
    change = Degradation(np.array([2.0, 1.0]), None, Missing.model_validate({"value": value}))
    np.testing.assert_allclose(change(images, streams(2))[~gaps], 7, rtol=1e-5)
    change = Degradation(np.array([2.0, 1.0]), Noise(np.full(2, 0.1), np.full(2, 9.0)), change.missing)
    found = change(images, streams(2))
    np.testing.assert_array_equal(found[gaps], np.broadcast_to(sentinel, gaps.sum()))
    assert np.isfinite(found[~gaps]).all()
    assert np.abs(found[~gaps] - 7).max() < 6


def test_blur_comes_before_noise():
    images, sky = galaxies(2), Noise(np.full(2, 0.4), np.full(2, 20.0))
    width = np.array([1.0, 2.0])
    expected = noise.add(noise.blur(images, width), sky, streams(2))
    np.testing.assert_array_equal(Degradation(width, sky)(images, streams(2)), expected)
    np.testing.assert_array_equal(Degradation(None, None)(images, streams(2)), images)


@pytest.mark.parametrize("same", [True, False])
def test_the_noise_that_is_lacking_is_what_was_put_in(same):
    sigma, gain = np.array([0.4, 0.2]), np.array([20.0, 5.0])
    source = galaxies(300)
    found = noise.measure(source, noised(source if same else galaxies(300, 7), sigma, gain), PLAIN)
    np.testing.assert_allclose(found.sigma, sigma, rtol=0.03)
    np.testing.assert_allclose(found.gain, gain, rtol=0.25)


def test_noise_that_the_source_has_already_does_not_count():
    clean = galaxies(300)
    source = noised(clean, [0.3, 0.3], [np.inf, np.inf], seed=2)
    target = noised(clean, [0.5, 0.5], [np.inf, np.inf])
    np.testing.assert_allclose(noise.measure(source, target, PLAIN).sigma, 0.4, rtol=0.05)


@pytest.mark.parametrize("unit", [1e-20, 1e20])
def test_the_measurement_knows_no_units(unit):
    source = galaxies(120)
    target = noised(source, [0.4, 0.2], [20.0, 5.0])
    here = noise.measure(source, target, PLAIN)
    there = noise.measure((source * unit).astype(np.float32), (target * unit).astype(np.float32), PLAIN)
    np.testing.assert_allclose(there.sigma / unit, here.sigma, rtol=1e-3)
    np.testing.assert_allclose(there.gain * unit, here.gain, rtol=1e-2)


@pytest.mark.parametrize("value", [-99.0, "nan"])
def test_missing_pixels_are_no_noise(value):
    source = galaxies(120)
    target = noised(source, [0.4, 0.2], [20.0, 5.0])
    whole = noise.measure(source, target, PLAIN)
    rng = np.random.default_rng(3)
    for images in (source, target):
        images[rng.random(images.shape) < 0.01] = np.float32(value)
    missing = Missing.model_validate({"value": value})
    found = noise.measure(source, target, (missing, missing))
    np.testing.assert_allclose(found.sigma, whole.sigma, rtol=0.02)
    np.testing.assert_allclose(found.gain, whole.gain, rtol=0.25)


def test_images_that_are_no_noisier_lack_nothing_that_could_be_added():
    noisy = noised(galaxies(60), [0.4, 0.4], [20.0, 20.0])
    with pytest.raises(InputError, match=r"noisier than those to train on, got no more noise in filter 1"):
        noise.measure(noisy, galaxies(60), PLAIN)
    with pytest.raises(InputError, match="noisier"):
        noise.measure(np.zeros((3, 8, 8, 1), np.float32), np.zeros((3, 8, 8, 1), np.float32), PLAIN)
