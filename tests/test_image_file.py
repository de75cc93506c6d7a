import gzip

import numpy as np
import pytest
from astropy.io import fits

from deepmerge.data.formats.image_file import open_images
from deepmerge.errors import InputError

IMAGES = np.random.default_rng(0).normal(0, 100, (11, 2, 33, 34))


def in_pieces(path, size=4):
    with open_images(path) as file:
        pieces = list(file.pieces(size))
    assert all(len(piece) <= size for piece in pieces)
    assert sum(map(len, pieces)) == file.shape[0]
    return np.concatenate(pieces)


@pytest.mark.parametrize("dtype", ["<f4", ">f4", ">f8", "<f2", ">i2", "u1", "?"])
@pytest.mark.parametrize("order", "CF")
def test_npy_of_any_numeric_type_is_read_in_pieces(tmp_path, dtype, order):
    stored = np.asarray(np.abs(IMAGES), dtype=dtype, order=order)
    np.save(tmp_path / "images.npy", stored)
    np.testing.assert_array_equal(in_pieces(tmp_path / "images.npy"), stored)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, np.int16, np.uint16, np.int32])
def test_fits_of_any_numeric_type_is_read_in_pieces(tmp_path, dtype):
    stored = np.abs(IMAGES).astype(dtype)
    fits.PrimaryHDU(stored).writeto(tmp_path / "images.fits")
    np.testing.assert_array_equal(in_pieces(tmp_path / "images.fits"), stored)


def test_scaling_of_fits_is_applied_and_blank_pixels_are_undefined(tmp_path):
    stored = np.arange(2 * 1 * 32 * 32, dtype=np.int16).reshape(2, 1, 32, 32)
    hdu = fits.PrimaryHDU(stored)
    hdu.header["BLANK"] = 7
    hdu.writeto(tmp_path / "images.fits")
    fits.setval(tmp_path / "images.fits", "BSCALE", value=0.5)
    fits.setval(tmp_path / "images.fits", "BZERO", value=10.0)
    expected = np.where(stored == 7, np.nan, stored * 0.5 + 10)
    np.testing.assert_array_equal(in_pieces(tmp_path / "images.fits", 1), expected)


@pytest.mark.parametrize("rest", [[], [fits.BinTableHDU.from_columns([fits.Column("label", "J", array=[1] * 11)])]])
def test_fits_may_end_with_a_table_of_labels_or_not(tmp_path, rest):
    fits.HDUList([fits.PrimaryHDU(IMAGES), *rest]).writeto(tmp_path / "images.dat")  # known by its content
    np.testing.assert_array_equal(in_pieces(tmp_path / "images.dat"), IMAGES)


def test_no_image_at_all_is_no_piece(tmp_path):
    np.save(tmp_path / "images.npy", IMAGES[:0])
    with open_images(tmp_path / "images.npy") as file:
        assert (file.shape, list(file.pieces(4))) == ((0, 2, 33, 34), [])


def truncated(path):
    path.write_bytes(path.read_bytes()[:-5000])


def write_bad(path, kind):
    if kind == "text":
        path.write_text("row,pixel\n1,2\n")
    elif kind == "pickled npy":
        np.save(path, np.array([{}, None]), allow_pickle=True)
    elif kind == "complex npy":
        np.save(path, IMAGES.astype(complex))
    elif kind == "text npy":
        np.save(path, np.array(["a", "b"]))
    elif kind == "npz":
        with path.open("wb") as file:
            np.savez(file, IMAGES)
    elif kind == "truncated npy":
        np.save(path, IMAGES)
        truncated(path)
    elif kind == "truncated fits":
        fits.PrimaryHDU(IMAGES).writeto(path)
        truncated(path)
    elif kind == "compressed fits":
        path.write_bytes(b"\x1f\x8b\x08 and so on")
    elif kind == "folder":
        path.mkdir()


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("nothing", "x.npy", "images expected at .*, where there is no file"),
        ("folder", "x.npy", "should hold a table catalogue.csv that names files, or a folder of images for each class"),
        ("text", "x.csv", "table of files .* should have in its first line a column file, .* got columns row, pixel"),
        ("text", "x.fits", "Expected a FITS file, but"),
        ("npz", "x.npz", "should be an npy, FITS or HDF5 file, a table .* got .*x.npz, something that starts b'PK"),
        ("pickled npy", "x.npy", "should be a plain numeric npy file"),
        ("complex npy", "x.npy", "should be a numeric npy array, got complex128"),
        ("text npy", "x.npy", "should be a numeric npy array"),
        ("truncated npy", "x.npy", "should be a plain numeric npy file, but"),
        ("truncated fits", "x.fits", "is truncated"),
        ("compressed fits", "x.fits", "truncated or damaged: it cannot be unpacked"),
    ],
)
def test_anything_else_is_refused_in_one_line_that_says_why(tmp_path, kind, name, message):
    write_bad(tmp_path / name, kind)
    with pytest.raises(InputError, match=message) as refusal, open_images(tmp_path / name):
        pass
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("stored", "hint"),
    [
        (np.moveaxis(IMAGES, 1, -1), "seem to be channels last: save np.moveaxis"),
        (IMAGES[0], r"seems to be a single image: save images\[np.newaxis\]"),
        (IMAGES[:, :1], r"\(11, 1, 33, 34\)$"),
        (IMAGES[:, :, :-1], r"\(11, 2, 32, 34\)$"),
        (IMAGES[:, 0], r"\(11, 33, 34\)$"),
        (IMAGES[0, 0], r"seems to be one filter of a single image: save np.stack\(filters\)\[np.newaxis\]"),
    ],
)
def test_images_of_another_shape_are_refused_with_a_guess_at_what_happened(tmp_path, stored, hint):
    np.save(tmp_path / "images.npy", stored)
    with (
        open_images(tmp_path / "images.npy") as file,
        pytest.raises(InputError, match=r"should have shape \(N, 2, 33, 34\), channels first, got .*" + hint),
    ):
        file.require((2, 33, 34))


def test_a_missing_axis_of_a_single_filter_is_named(tmp_path):
    np.save(tmp_path / "images.npy", IMAGES[:, 0])
    with open_images(tmp_path / "images.npy") as file, pytest.raises(InputError, match=r"images\[:, np.newaxis\]"):
        file.require((1, 33, 34))


def test_a_stamp_in_an_extension_is_told_by_its_shape(tmp_path):
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(IMAGES[0, 0])]).writeto(tmp_path / "stamp.fits.fz")
    with (
        open_images(tmp_path / "stamp.fits.fz") as file,
        pytest.raises(InputError, match=r"got \(33, 34\); it seems to be one filter of a single image"),
    ):
        file.require((2, 33, 34))


@pytest.mark.parametrize("name", ["x.fits.gz", "x.dat"])
def test_packed_fits_is_read_in_pieces(tmp_path, name):
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(IMAGES)]).writeto(tmp_path / "x.fits")
    (tmp_path / name).write_bytes(gzip.compress((tmp_path / "x.fits").read_bytes()))
    np.testing.assert_array_equal(in_pieces(tmp_path / name), IMAGES)


def test_a_length_that_the_model_leaves_open_may_be_any(tmp_path):
    np.save(tmp_path / "images.npy", IMAGES)
    with open_images(tmp_path / "images.npy") as file:
        file.require((2, None, 34))
        with pytest.raises(InputError, match=r"\(N, 2, any, 35\)"):
            file.require((2, None, 35))
