"""Colours of thumbnails, and pictures in packs."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from deepmerge.errors import InputError
from deepmerge.gallery import packs, thumbnails
from deepmerge.gallery.thumbnails import STRETCHES, UNDEFINED, colours, heat, shrunk


def galaxies(count=4, filters=2, seed=0, noise=1.0):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-16:16, -16:16]
    light = 300 * np.exp(-np.hypot(x, y) / 3)
    return (light + rng.normal(0, noise, (count, filters, 32, 32))).astype(np.float32)


@pytest.mark.parametrize("stretch", STRETCHES)
@pytest.mark.parametrize("filters", [1, 2, 3, 5])
def test_the_centre_is_bright_the_sky_dark_and_the_long_wavelength_red(stretch, filters):
    images = galaxies(filters=filters)
    images[:, -1, 4:7, 4:7] += 200  # in the reddest filter alone
    found = colours(images, stretch)
    assert found.shape == (4, 32, 32, 3)
    assert found.dtype == np.uint8
    assert (found[:, 16, 16].mean(-1) > 180).all()
    assert found[:, :3, 20:].mean() < 60
    red, _, blue = np.moveaxis(found[:, 5, 5].astype(int), -1, 0)
    assert (red == blue).all() if filters == 1 else (red > blue + 50).all()


@pytest.mark.parametrize("stretch", STRETCHES)
@pytest.mark.parametrize("factor", [1e-30, 1e-3, 7.0, 1e30])
def test_units_and_a_constant_background_change_nothing(stretch, factor):
    images = galaxies().astype(np.float64)
    difference = colours(images, stretch).astype(int) - colours(images * factor + 3 * factor, stretch)
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("stretch", STRETCHES)
def test_pixels_that_are_not_finite_have_a_colour_of_their_own_and_leave_the_others_alone(stretch):
    images = galaxies()
    holes = images.copy()
    holes[1, 0, 3, 3] = np.nan
    holes[2] = np.inf
    found = colours(holes, stretch)
    assert tuple(found[1, 3, 3]) == UNDEFINED
    assert (found[2] == UNDEFINED).all()
    np.testing.assert_array_equal(found[0], colours(images, stretch)[0])


@pytest.mark.parametrize(
    "image",
    [np.zeros((1, 2, 8, 8)), np.full((1, 2, 8, 8), -5), np.ones((1, 1, 8, 8), bool), np.full((1, 2, 8, 8), 1e308)],
)
def test_images_without_any_light_are_black(image, no_warnings):
    assert not colours(image).any()


@pytest.mark.parametrize("share_missing", [0, 0.3])
def test_the_white_point_and_the_sky_are_those_of_plain_quantiles(share_missing):
    images = galaxies(filters=1)
    images[np.random.default_rng(2).random(images.shape) < share_missing] = np.nan
    found = colours(images, "log")
    for image, picture in zip(images[:, 0].astype(float), found[..., 0], strict=True):
        sky = np.nanmedian(image)
        noise = 1.4826 * np.nanmedian(np.abs(image - sky))
        reach = max(np.nanquantile(image, 0.997) - sky, 15 * noise)
        soft = max(2 * noise / reach, 1e-3)
        by_hand = 255 * np.log1p(np.clip((image - sky) / reach, 0, 1) / soft) / np.log1p(1 / soft)
        there = np.isfinite(image)
        assert np.abs(picture[there] - by_hand[there]).max() <= 0.51


def test_one_odd_pixel_on_a_flat_sky_is_seen():
    image = np.zeros((1, 1, 40, 40))
    image[0, 0, 3, 3] = 1
    assert colours(image)[0, 3, 3].tolist() == [255, 255, 255]


def test_wrong_shapes_and_stretches_are_refused():
    with pytest.raises(InputError, match=r"shape \(n, F, H, W\), got \(2, 8, 8\)"):
        colours(np.zeros((2, 8, 8)))
    with pytest.raises(InputError, match="log, asinh, got 'sqrt'"):
        colours(np.zeros((1, 1, 8, 8)), "sqrt")


def test_large_images_shrink_by_means_and_small_ones_stay():
    images = np.arange(2 * 1 * 200 * 100, dtype=float).reshape(2, 1, 200, 100)
    found = shrunk(images, 96)
    assert found.shape == (2, 1, 66, 33)
    assert found[0, 0, 0, 0] == images[0, 0, 1:4, 0:3].mean()
    assert shrunk(images, 200) is images


def test_a_map_is_orange_for_a_merger_blue_against_and_black_where_it_is_zero():
    maps = np.zeros((1, 2, 4, 4))
    maps[0, 0, 0, 0], maps[0, 1, 1, 1], maps[0, 0, 2, 2] = 4, 4, 1
    found = heat(maps)[0].astype(int)
    assert found[0, 0, 0] > found[0, 0, 2]
    assert found[1, 1, 2] > found[1, 1, 0]
    assert abs(found[2, 2, 0] * 4 - found[0, 0, 0]) <= 4
    assert not found[3].any()
    assert not heat(np.zeros((2, 2, 4, 4))).any()


def decoded(held, i):
    block = "".join(held.blocks)
    start = sum(held.lengths[:i])
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(held.header + block[start : start + held.lengths[i]]))))


@pytest.mark.parametrize("side", [7, 8, 32, 75, 96])
def test_header_and_scan_one_behind_the_other_are_the_picture(side):
    pictures = np.random.default_rng(1).integers(0, 256, (5, side, side + 3, 3)).astype(np.uint8)
    held = packs.Packs()
    held.add(pictures[:2])
    held.add(pictures[:0])
    held.add(pictures[2:])
    assert len(held) == 5
    for i in range(5):
        plain = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(pictures[i, ::-1])).save(
            plain, "JPEG", quality=packs.QUALITY, subsampling=0
        )
        np.testing.assert_array_equal(decoded(held, i), np.asarray(Image.open(plain)))


def test_blocks_hold_so_many_pictures_each():
    held = packs.Packs()
    held.add(np.zeros((packs.PACK + 1, 8, 8, 3), np.uint8))
    sizes = [len(block) for block in held.blocks]
    assert sizes == [sum(held.lengths[: packs.PACK]), held.lengths[-1]]


def test_pictures_of_another_size_are_refused():
    held = packs.Packs()
    held.add(np.zeros((1, 8, 8, 3), np.uint8))
    with pytest.raises(InputError, match="8 × 8"):
        held.add(np.zeros((1, 9, 8, 3), np.uint8))
    with pytest.raises(InputError, match="uint8"):
        held.add(np.zeros((1, 8, 8, 3)))


def test_the_filters_of_a_picture_are_those_that_are_told():
    assert thumbnails.channels(1) == (0, 0, 0)
    assert thumbnails.channels(2) == (1, -1, 0)
    assert thumbnails.channels(3) == (2, 1, 0)
    assert thumbnails.channels(6) == (5, 2, 0)
