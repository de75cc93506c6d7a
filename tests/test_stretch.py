import keras
import numpy as np
import pytest

from deepmerge.errors import InputError
from deepmerge.model import stretch

KINDS = ("standard", "asinh", "log")
EXPONENTS = (-30, -20, -8, -3, 3, 8, 20, 30)


def galaxies(count=16, size=48, seed=0, noise=0.02, units=(1.0, 1.0)):
    """Exponential profiles with noise (n, H, W, F), as they come in float32 in these units."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] - size / 2
    radius = np.hypot(y, x)[..., None]
    light = rng.uniform(0.5, 2, (count, 1, 1, 1)) * np.exp(-radius / rng.uniform(2, 5, (count, 1, 1, 1)))
    return ((light * [1.0, 0.6] + rng.normal(0, noise, (count, size, size, 2))) * units).astype(np.float32)


def layers_on(images, kind, pixels):
    inputs = keras.Input(images.shape[1:])
    return keras.Model(inputs, stretch.layers(inputs, kind, pixels)).predict_on_batch(images)


def standardised(images, kind):
    """What the first convolution gets of images by whose pixels the stretch was measured."""
    return layers_on(images, kind, stretch.measure(images, kind))


@pytest.mark.parametrize("kind", [*KINDS, "raw"])
def test_the_layers_equal_the_formula(kind):
    given = galaxies()
    pixels = stretch.measure(given, kind)
    expected = (stretch.stretch(given, kind, pixels.softening) - pixels.mean) / np.sqrt(pixels.variance)
    got = layers_on(given, kind, pixels)
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-5)
    if kind != "raw":
        np.testing.assert_allclose(got.mean((0, 1, 2)), 0, atol=1e-3)
        np.testing.assert_allclose(got.std((0, 1, 2)), 1, atol=1e-3)


@pytest.mark.parametrize("noise", [0.02, 0.0], ids=["noisy", "pristine"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("exponent", EXPONENTS)
def test_the_same_galaxies_in_other_units_look_the_same_to_the_network(exponent, kind, noise):
    here, there = (standardised(galaxies(noise=noise, units=(unit, unit)), kind) for unit in (1.0, 10.0**exponent))
    np.testing.assert_allclose(there, here, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_each_filter_may_have_units_of_its_own(kind):
    mixed = standardised(galaxies(units=(1e-25, 1e25)), kind)
    np.testing.assert_allclose(mixed, standardised(galaxies(), kind), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_units_that_differ_by_a_power_of_two_change_nothing_at_all(kind):
    """Dividing by the unit, a power of two, rounds nothing."""
    np.testing.assert_array_equal(
        standardised(galaxies(units=(2.0**70, 2.0**-70)), kind), standardised(galaxies(), kind)
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("unit", [1e-8, 1.0, 1e8])
def test_images_that_are_mostly_masked_with_0_have_a_scale_too(kind, unit):
    given = galaxies(units=(unit, unit))
    given[:, :, 10:] = 0
    expected = galaxies()
    expected[:, :, 10:] = 0
    assert (np.median(np.abs(given), axis=(0, 1, 2)) == 0).all()
    np.testing.assert_allclose(standardised(given, kind), standardised(expected, kind), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("kind", [*KINDS, "raw"])
@pytest.mark.parametrize("value", [0.0, 7.0, -3e-9, 1e20])
def test_pixels_that_are_all_alike_are_refused(kind, value):
    given = galaxies()
    given[..., 1] = value
    with pytest.raises(InputError, match=r"training pixels of filter 2, .*, should differ from pixel to pixel, got "):
        stretch.measure(given, kind)


def test_a_background_that_drowns_the_galaxies_in_float32_is_refused():
    given = galaxies() + np.float32(1e7)
    with pytest.raises(InputError, match="subtract a constant background"):
        stretch.measure(given, "standard")
    stretch.measure(galaxies() + np.float32(10), "standard")


@pytest.mark.parametrize("unit", [1e-8, 1e-3, 1e8, 1e12])
def test_raw_pixels_that_a_network_cannot_take_as_they_are_are_refused(unit):
    with pytest.raises(InputError, match=r"'raw', should have a standard deviation of 0.03 to 100000, got"):
        stretch.measure(galaxies(units=(unit, unit)), "raw")
    stretch.measure(galaxies(), "raw")


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_layers_give_is_checked(kind):
    given = galaxies()
    right = stretch.measure(given, kind)
    stretch.require_standardised(given, kind, right)
    for wrong in (
        stretch.PixelStatistics(right.softening, right.mean + 0.1, right.variance),
        stretch.PixelStatistics(right.softening, right.mean, right.variance * 1.1),
    ):
        with pytest.raises(InputError, match="should have mean 0 and variance 1 in each filter, got means"):
            stretch.require_standardised(given, kind, wrong)


@pytest.mark.parametrize("kind", KINDS)
def test_units_beyond_float32_are_refused_once_the_layers_are_built(kind):
    given = (galaxies().astype(np.float64) * 1e-41).astype(np.float32)  # subnormal numbers: few digits, or flushed to 0
    with pytest.raises(InputError, match="float32 cannot hold images of these units"):
        stretch.require_standardised(given, kind, stretch.measure(given, kind))


def test_the_arcsinh_is_that_of_numpy_from_the_smallest_to_the_largest_pixels():
    inputs = keras.Input((7,))
    model = keras.Model(inputs, stretch.arcsinh(inputs))
    x = np.array([[0.0, 1e-30, 1e-6, 0.01, 1.0, 300.0, 1e17]], np.float32)
    for signed in (x, -x):
        np.testing.assert_allclose(model(signed).numpy(), np.arcsinh(signed.astype(np.float64)), rtol=5e-7)
    assert np.isfinite(model(np.full((1, 7), 3e38, np.float32)).numpy()).all()
