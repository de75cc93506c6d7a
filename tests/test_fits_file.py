import bz2
import gzip
import lzma
import re

import numpy as np
import pytest
from astropy.io import fits

from deepmerge.data.formats import fits_file
from deepmerge.errors import InputError

IMAGES = np.random.default_rng(0).normal(0, 100, (12, 2, 33, 34)).astype("f4")
PACKERS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}


def table():
    return fits.BinTableHDU.from_columns([fits.Column("label", "B", array=np.arange(12) % 2)])


def write(path, *hdus):
    fits.HDUList(list(hdus)).writeto(path)
    return path


def read(path, size=5):
    with fits_file.opened(path) as file:
        pieces = [file.read(slice(start, start + size)) for start in range(0, file.shape[0], size)]
        assert sum(map(len, pieces)) == file.shape[0]
        return np.concatenate(pieces)


PLACES = {
    "primary": [fits.PrimaryHDU(IMAGES)],
    "primary, then a table": [fits.PrimaryHDU(IMAGES), table()],
    "extension": [fits.PrimaryHDU(), fits.ImageHDU(IMAGES), table()],
    "extension behind a table": [fits.PrimaryHDU(), table(), fits.ImageHDU(IMAGES)],
    "extension behind a preview": [fits.PrimaryHDU(IMAGES[0, 0]), fits.ImageHDU(IMAGES)],
    "first of two": [fits.PrimaryHDU(), fits.ImageHDU(IMAGES, name="A"), fits.ImageHDU(-IMAGES, name="B")],
    "SCI of two": [fits.PrimaryHDU(), fits.ImageHDU(-IMAGES, name="ERR"), fits.ImageHDU(IMAGES, name="sci")],
    "SCI, not the primary": [fits.PrimaryHDU(-IMAGES), fits.ImageHDU(IMAGES, name="SCI")],
    "SCI of too few axes": [fits.PrimaryHDU(), fits.ImageHDU(IMAGES[0], name="SCI"), fits.ImageHDU(IMAGES)],
    "tile-compressed": [
        fits.PrimaryHDU(),
        fits.CompImageHDU(IMAGES, compression_type="GZIP_2", quantize_level=0),
        table(),
    ],
    "several images a tile": [
        fits.PrimaryHDU(),
        fits.CompImageHDU(IMAGES, compression_type="GZIP_1", quantize_level=0, tile_shape=(7, 2, 33, 34)),
    ],
}


@pytest.mark.parametrize("packer", [None, *PACKERS])
@pytest.mark.parametrize("place", PLACES)
def test_images_are_found_wherever_they_stand_and_however_they_are_packed(tmp_path, place, packer):
    path = write(tmp_path / "x.fits", *PLACES[place])
    if packer:
        path.write_bytes(PACKERS[packer](path.read_bytes()))  # known by content, whatever its name
    np.testing.assert_array_equal(read(path), IMAGES)


def test_what_is_taken_of_several_is_said_in_one_line(tmp_path, caplog):
    with caplog.at_level("INFO"):
        read(write(tmp_path / "x.fits", *PLACES["SCI of two"]))
    [record] = caplog.records
    assert f"The images of {tmp_path}/x.fits are those of HDU 2 (SCI); not read: HDU 1 (ERR)" == record.getMessage()


def test_one_candidate_is_nothing_to_speak_of(tmp_path, caplog):
    with caplog.at_level("INFO"):
        read(write(tmp_path / "x.fits", *PLACES["extension behind a preview"]))
    assert caplog.records == []


@pytest.mark.parametrize(("kind", "level"), [("RICE_1", 16), ("HCOMPRESS_1", 16), ("GZIP_1", 16), ("GZIP_1", 0)])
def test_tile_compressed_floats_are_what_astropy_decodes(tmp_path, kind, level):
    hdu = fits.CompImageHDU(IMAGES, compression_type=kind, quantize_level=level, tile_shape=(1, 1, 33, 34))
    path = write(tmp_path / "x.fits.fz", fits.PrimaryHDU(), hdu)
    expected = fits.getdata(path, 1)
    np.testing.assert_array_equal(read(path, 1), expected)
    assert np.abs(expected - IMAGES).max() < 10


@pytest.mark.parametrize("wrap", [fits.ImageHDU, fits.CompImageHDU])
def test_scaling_and_blank_pixels_are_applied_in_extensions(tmp_path, wrap):
    stored = np.arange(2 * 32 * 32, dtype=np.int16).reshape(2, 1, 32, 32)
    hdu = wrap(stored)
    hdu.header["BLANK"] = 7
    path = write(tmp_path / "x.fits", fits.PrimaryHDU(), hdu)
    with fits.open(path, mode="update", do_not_scale_image_data=True, disable_image_compression=True) as hdus:
        hdus[1].header["BSCALE"], hdus[1].header["BZERO"] = 0.5, 10.0
    np.testing.assert_array_equal(read(path, 1), np.where(stored == 7, np.nan, stored * 0.5 + 10))


@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "f4", "f8"])
def test_tile_compressed_images_of_any_type(tmp_path, dtype):
    stored = np.abs(IMAGES).astype(dtype)
    hdu = fits.CompImageHDU(stored, compression_type="GZIP_1", quantize_level=0)
    np.testing.assert_array_equal(read(write(tmp_path / "x.fits.fz", fits.PrimaryHDU(), hdu)), stored)


@pytest.mark.parametrize(
    ("hdus", "message"),
    [
        ([fits.PrimaryHDU()], r"images \(N, filters, H, W\), got HDU 0 \(PRIMARY\): no data\."),
        ([fits.PrimaryHDU(), table()], r"HDU 1: a table of 12 rows \(label\)"),
        ([fits.PrimaryHDU(), *[fits.ImageHDU(image[0]) for image in IMAGES]], "and 9 more HDUs.*stack them"),
        ([fits.PrimaryHDU(IMAGES[0, 0]), fits.ImageHDU(IMAGES[1, 0])], "An HDU for each image or each filter"),
        ([fits.PrimaryHDU(), *[fits.ImageHDU(IMAGES[:, f], name=f"F{f}") for f in (0, 1)]], r"HDU 2 \(F1\).*stack"),
        ([fits.PrimaryHDU(), *[fits.CompImageHDU(image[0]) for image in IMAGES[:3]]], "in one HDU"),
    ],
)
def test_other_layouts_are_refused_in_one_line_that_lists_what_there_is(tmp_path, hdus, message):
    path = write(tmp_path / "x.fits", *hdus)
    with pytest.raises(InputError, match=message) as refusal, fits_file.opened(path):
        pass
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("shape", [(33, 34), (2, 33, 34)])
def test_a_single_image_is_opened_so_that_its_reader_can_say_what_is_wrong(tmp_path, shape):
    path = write(
        tmp_path / "x.fits", fits.PrimaryHDU(), fits.CompImageHDU(IMAGES[0][-1] if len(shape) == 2 else IMAGES[0])
    )
    with fits_file.opened(path) as file:
        assert file.shape == shape


@pytest.mark.parametrize("place", ["primary, then a table", "extension", "tile-compressed"])
@pytest.mark.parametrize("packer", [None, *PACKERS])
@pytest.mark.parametrize("share", [0.0003, 0.2, 0.7, 0.9])
def test_truncated_files_are_refused_when_they_are_opened(tmp_path, place, packer, share):
    path = write(tmp_path / "x.fits", *PLACES[place])
    content = PACKERS[packer](path.read_bytes()) if packer else path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with (
        pytest.raises(InputError, match=r"truncated|cannot be read|starts|got HDU 0") as refusal,
        fits_file.opened(path),
    ):
        pass
    assert "\n" not in str(refusal.value)


SIZES = {
    "negative": ("primary, then a table", {"NAXIS3": "-2"}),
    "text": ("primary", {"NAXIS3": "'many'"}),
    "text, very often": ("primary", {"NAXIS3": "'many'", "NAXIS4": "9223372036854775807"}),
    "a fraction": ("primary", {"NAXIS3": "1.5"}),
    "rows below 0": ("primary, then a table", {"NAXIS2": "-999999"}),
    "negative within what is compressed": ("tile-compressed", {"ZNAXIS3": "-2"}),
    "more than fits into memory": (
        "tile-compressed",
        {"ZNAXIS3": "2", "ZNAXIS2": "4000000000", "ZTILE2": "4000000000"},
    ),
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes_that_are_none_are_refused_in_one_line(tmp_path, name):
    place, changes = SIZES[name]
    path = write(tmp_path / "x.fits", *PLACES[place])
    content = path.read_bytes()
    for keyword, value in changes.items():
        content, times = re.subn(rf"{keyword:8}= .{{20}}".encode(), f"{keyword:8}= {value:>20}".encode(), content)
        assert times
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"negative size|of the shape|cannot be read|fits into memory|truncated"):
        read(path)


@pytest.mark.parametrize("packer", PACKERS)
def test_a_truncated_file_that_was_packed_is_refused(tmp_path, packer):
    path = write(tmp_path / "x.fits", *PLACES["extension"])
    path.write_bytes(PACKERS[packer](path.read_bytes()[:20_000]))
    with pytest.raises(InputError, match="is truncated: its headers announce at least"), fits_file.opened(path):
        pass


def test_a_damaged_tile_is_an_error_of_one_line_when_it_is_read(tmp_path):
    path = write(tmp_path / "x.fits", *PLACES["tile-compressed"])
    with fits.open(path, disable_image_compression=True) as hdus:
        start = hdus[1].fileinfo()["datLoc"]
    content = bytearray(path.read_bytes())
    content[start + 20_000 : start + 40_000] = b"\xff" * 20_000
    path.write_bytes(content)
    with pytest.raises(InputError, match="cannot be read as one") as refusal:
        read(path, 1)
    assert "\n" not in str(refusal.value)


def test_a_packed_file_is_not_unpacked_anew_for_each_piece(tmp_path, monkeypatch):
    path = write(tmp_path / "x.fits", *PLACES["extension"])
    path.write_bytes(gzip.compress(path.read_bytes()))
    went_back = []

    class Counted(gzip.GzipFile):
        def seek(self, offset, whence=0):
            went_back.extend([offset] * (whence == 0 and offset < self.tell()))
            return super().seek(offset, whence)

    monkeypatch.setitem(fits_file.UNPACK, b"\x1f\x8b", Counted)
    np.testing.assert_array_equal(read(path, 1), IMAGES)
    assert len(went_back) < len(IMAGES) / 3


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("my survey.fits", "my survey"),
        ("a.b.fit.gz", "a.b"),
        ("A.FITS.FZ", "A"),
        ("a.fits.fz.xz", "a"),
        ("a.fz", "a"),
        ("a.fts.bz2", "a"),
        ("fits", "fits"),
        (".fits", ""),
    ],
)
def test_plain_names(name, plain):
    assert fits_file.plain_name(name) == plain
