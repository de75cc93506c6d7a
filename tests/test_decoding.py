import numpy as np
import pandas as pd
import pytest
from astropy.io import fits
from PIL import Image

from deepmerge import config
from deepmerge.data.formats import decoding, files
from deepmerge.errors import InputError

PIXELS = np.random.default_rng(2).integers(0, 255, (150, 40, 36), dtype=np.uint8)


@pytest.fixture
def sample(tmp_path):
    """Pictures and a table that names them; more columns or settings by keyword."""
    for row, image in enumerate(PIXELS):
        Image.fromarray(image).save(tmp_path / f"{row}.png")
    return table(tmp_path, [f"{row}.png" for row in range(len(PIXELS))])


def table(folder, names):
    labels = np.arange(len(names)) % 2
    pd.DataFrame({"id": np.arange(len(names)), "label": labels, "file": names}).to_csv(folder / "t.csv", index=False)
    return folder / "t.csv"


def decoded(path, workers=1, **settings):
    data = config.Data(images=path, cache=path.parent / "cache", **settings)
    return decoding.of_files(files.listed(path, data), data, workers)


def left(path):
    """What decoding has left in the cache that would count."""
    return [file.name for file in (path.parent / "cache").glob("*.npy")]


def test_several_processes_decode_as_one_does(sample):
    several = decoded(sample, workers=2)
    np.testing.assert_array_equal(several[:, 0], PIXELS)
    [name] = left(sample)
    (sample.parent / "cache" / name).unlink()
    np.testing.assert_array_equal(decoded(sample), several)


def test_images_are_decoded_once_until_a_file_changes(sample, monkeypatch):
    decoded(sample)
    with monkeypatch.context() as patch:
        patch.setattr(decoding, "_decode", None)  # called, it would fail
        decoded(sample)
    Image.fromarray(PIXELS[1]).save(sample.parent / "0.png")
    np.testing.assert_array_equal(decoded(sample)[0, 0], PIXELS[1])
    assert len(left(sample)) == 2


def test_sizes_have_caches_of_their_own(sample):
    assert decoded(sample, size=32).shape == (150, 1, 32, 32)
    assert decoded(sample, size=34, resize="resample").shape == (150, 1, 34, 34)


def test_bad_files_are_told_together_and_nothing_is_left(sample):
    (sample.parent / "16.png").write_bytes((sample.parent / "16.png").read_bytes()[:600])
    (sample.parent / "70.png").write_bytes(b"")
    (sample.parent / "71.png").write_text("no image")
    Image.fromarray(PIXELS[0][:33]).save(sample.parent / "149.png")
    with pytest.raises(InputError) as refusal:
        decoded(sample, workers=2)
    said = str(refusal.value)
    assert "file 17 of 150, 16.png: truncated; file 71 of 150, 70.png: empty; file 72 of 150, 71.png: no image" in said
    assert "file 150 of 150, 149.png: 33 × 36 pixels, 1 channel, uint8, expected 40 × 36" in said
    assert "\n" not in said
    assert not left(sample)
    assert not list((sample.parent / "cache").glob(".*.npy"))


def test_ten_bad_files_are_told_of_many(sample):
    for row in range(3, 150):
        (sample.parent / f"{row}.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"file 4 of 150.*file 13 of 150.*, and perhaps further ones") as refusal:
        decoded(sample)
    assert str(refusal.value).count(": empty") == 10
    for row in range(3):
        (sample.parent / f"{row}.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"file 1 of 150.*file 10 of 150"):
        decoded(sample)


def test_blank_and_scaled_fits_stamps_are_floats(tmp_path):
    hdu = fits.PrimaryHDU(np.arange(1600, dtype=np.int16).reshape(40, 40))
    hdu.header["BLANK"] = 7
    hdu.writeto(tmp_path / "a.fits")
    fits.setval(tmp_path / "a.fits", "BSCALE", value=0.5)
    sci = fits.ImageHDU(np.full((40, 40), 3.0), name="SCI")
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.zeros((40, 40)), name="ERR"), sci]).writeto(tmp_path / "b.fits")
    images = decoded(table(tmp_path, ["a.fits", "b.fits"]))
    assert images.dtype == np.float32
    assert np.isnan(images[0, 0, 0, 7])
    assert images[0, 0, 0, 8] == 4
    assert (images[1] == 3).all()


def test_a_truncated_fits_stamp_is_named(tmp_path):
    for name in "ab":
        fits.PrimaryHDU(np.ones((60, 60))).writeto(tmp_path / f"{name}.fits")
    (tmp_path / "b.fits").write_bytes((tmp_path / "b.fits").read_bytes()[:9000])
    with pytest.raises(InputError, match=r"file 2 of 2, b.fits: truncated"):
        decoded(table(tmp_path, ["a.fits", "b.fits"]))


def test_array_smaller_than_the_size_is_refused(tmp_path):
    np.save(tmp_path / "x.npy", PIXELS[:, np.newaxis])
    data = config.Data(images=tmp_path / "x.npy", labels=tmp_path / "y.npy", size=38, cache=tmp_path / "cache")
    with pytest.raises(InputError, match=r"x.npy have 40 × 36 pixels, too few for size 38; .*'resize: resample'"):
        decoding.of_array(data, data.images, None, (150, 1, 40, 36), PIXELS[:, np.newaxis].__getitem__)
