import numpy as np
import pytest

from deepmerge.data.formats.sizes import channels_first, fit
from deepmerge.errors import InputError


def test_a_crop_keeps_the_centre_as_it_is():
    images = np.arange(2 * 41 * 44).reshape(2, 41, 44)
    np.testing.assert_array_equal(fit(images, 33, "crop"), images[:, 4:37, 5:38])


def test_resampling_keeps_surface_brightness_and_where_things_are():
    rows, columns = np.mgrid[:80, :80] - 39.5
    image = (5 + np.exp(-((rows - 10) ** 2 + columns**2) / 200)).astype(np.float32)[np.newaxis]
    small = fit(image, 40, "resample")
    assert small.dtype == np.float32
    np.testing.assert_allclose(small.mean(), image.mean(), rtol=1e-3)
    np.testing.assert_allclose(small[0], image[0].reshape(40, 2, 40, 2).mean((1, 3)), atol=0.02)
    assert np.unravel_index(small.argmax(), small.shape)[1] in (24, 25)


def test_resampling_takes_the_central_square_and_keeps_the_type():
    image = np.zeros((3, 40, 60), np.uint8)
    image[:, :, 10:50] = 255
    np.testing.assert_array_equal(fit(image, 80, "resample"), np.full((3, 80, 80), 255, np.uint8))


def test_too_small_an_image_is_not_cropped():
    with pytest.raises(InputError, match="40 × 30 pixels, too few for size 32"):
        fit(np.zeros((1, 40, 30)), 32, "crop")


@pytest.mark.parametrize("shape", [(5, 3, 40, 50), (5, 40, 50, 3)])
def test_channels_come_first(shape):
    assert channels_first(np.zeros(shape)).shape == (5, 3, 40, 50)


def test_a_single_filter_may_have_no_axis():
    assert channels_first(np.zeros((5, 40, 50))).shape == (5, 1, 40, 50)
