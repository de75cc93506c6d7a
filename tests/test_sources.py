"""Data sets from images in every format, each written to a real file of it."""

import gzip
import os
import re
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import yaml
from astropy.io import fits
from astropy.table import Table
from PIL import Image

import deepmerge as dm
from deepmerge import config
from deepmerge.errors import InputError

REAL = Path(os.environ.get("DEEPMERGE_REAL_DATA", Path(__file__).parents[2] / "shared" / "real")) / "efigi"
RNG = np.random.default_rng(5)
PIXELS = RNG.integers(0, 255, (6, 3, 36, 36), dtype=np.uint8)
IDS = ["007", "7", "NGC 1", "NGC 1", "M 31", "x"]  # one galaxy twice, and two that a number would make one
LABELS = np.array([1, 0, 1, 1, 0, 0], np.uint8)
TABLE = {"objid": IDS, "merger": LABELS, "RA": [10.5, 359, 0, 0, 90, 1], "Dec": [-5.0, 90, 0, 0, 1, 1]}


@pytest.fixture
def load(tmp_path):
    """Open a data set as an experiment file in tmp_path names it."""

    def load(images, **data):
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump({"data": {"images": str(images), **data}}))
        return dm.load(str(path))

    return load


def pictures(folder, pixels=PIXELS, suffix="png"):
    """Write pictures, and give their names."""
    (folder / "images").mkdir()
    for number, image in enumerate(pixels):
        Image.fromarray(np.moveaxis(image, 0, 2)).save(folder / "images" / f"{number}.{suffix}")
    return [f"images/{number}.{suffix}" for number in range(len(pixels))]


def require(data, images=PIXELS):
    """That a data set holds the sample of this module."""
    np.testing.assert_array_equal(data.images, images)
    assert data.labels.tolist() == LABELS.tolist()
    assert data.catalogue["galaxy_id"].tolist() == IDS
    assert data.catalogue["ra"].tolist() == TABLE["RA"]
    assert data.catalogue["dec"].tolist() == TABLE["Dec"]
    assert data.catalogued


WRITERS = {
    "csv": lambda table, path: pd.DataFrame(table).to_csv(path, index=False),
    "csv.gz": lambda table, path: pd.DataFrame(table).to_csv(path, index=False),
    "parquet": lambda table, path: pd.DataFrame(table).to_parquet(path),
    "ecsv": lambda table, path: Table(table).write(path),
    "fits": lambda table, path: Table(table).write(path),
    "vot": lambda table, path: Table(table).write(path, format="votable"),
}


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_table_of_any_format_names_pictures(tmp_path, load, suffix):
    WRITERS[suffix]({**TABLE, "file": pictures(tmp_path)}, tmp_path / f"galaxies.{suffix}")
    data = load(f"galaxies.{suffix}")
    require(data)
    assert data.filters == ("red", "green", "blue")
    assert data.catalogue["file"][0] == "images/0.png"


@pytest.mark.parametrize("kind", ["pictures", "npy", "hdf5"])
def test_filters_are_chosen_in_the_order_that_is_asked_for(tmp_path, load, kind):
    if kind == "pictures":
        WRITERS["csv"]({**TABLE, "file": pictures(tmp_path)}, tmp_path / "images.csv")
        data = load("images.csv", filters=[2, 0])
        assert data.filters == ("blue", "red")
    elif kind == "npy":
        np.save(tmp_path / "images.npy", PIXELS)
        WRITERS["csv"](TABLE, tmp_path / "table.csv")
        data = load("images.npy", catalogue="table.csv", filters=[2, 0])
    else:
        with h5py.File(tmp_path / "images.h5", "w") as file:
            for name, values in {"images": PIXELS, **TABLE}.items():
                file[name] = values
        data = load("images.h5:images", filters=[2, 0])
    require(data, PIXELS[:, [2, 0]])


def test_filters_that_are_not_there_are_refused(tmp_path, load):
    WRITERS["csv"]({**TABLE, "file": pictures(tmp_path)}, tmp_path / "images.csv")
    with pytest.raises(InputError, match="3 filters, counted from 0; 'filters:' wants number 3"):
        load("images.csv", filters=[0, 3])
    with pytest.raises(InputError, match=r"data.filters' should be different whole numbers from 0 on, got \[1, 1\]"):
        load("images.csv", filters=[1, 1])


def test_a_folder_with_a_catalogue_is_read_by_it(tmp_path, load):
    WRITERS["csv"]({**TABLE, "file": pictures(tmp_path)}, tmp_path / "catalogue.csv")
    require(load("."))


def test_jpeg_is_read_as_pillow_decodes_it(tmp_path, load):
    names = pictures(tmp_path, suffix="jpg")
    WRITERS["csv"]({**TABLE, "file": names}, tmp_path / "galaxies.csv")
    require(load("galaxies.csv"), [np.moveaxis(np.asarray(Image.open(tmp_path / name)), 2, 0) for name in names])


def test_a_folder_of_class_folders_gives_the_labels(tmp_path, load):
    for number, image in enumerate(PIXELS):
        folder = tmp_path / "stamps" / ("Merger", "non merger")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.moveaxis(image, 0, 2)).save(folder / f"{number}.png")
    data = load("stamps")
    assert data.labels.tolist() == [1, 1, 1, 0, 0, 0]
    np.testing.assert_array_equal(data.images, PIXELS[[0, 2, 4, 1, 3, 5]])
    assert data.catalogue["file"][0] == "Merger/0.png"
    assert not data.catalogued


@pytest.mark.parametrize("ending", ["fits", "fits.gz"])
def test_a_column_of_files_for_each_filter(tmp_path, load, ending):
    pixels = RNG.normal(size=(6, 2, 40, 36)).astype(np.float32)
    table = {"id": IDS, "is_merger": LABELS}
    for number, band in enumerate("gr"):
        table[f"{band}_path"] = [f"{band}{row}.{ending}" for row in range(6)]
        for row in range(6):
            fits.PrimaryHDU(pixels[row, number]).writeto(tmp_path / f"{band}{row}.{ending}")
    WRITERS["csv"](table, tmp_path / "galaxies.csv")
    data = load("galaxies.csv", columns={"file": ["g_path", "r_path"]})
    np.testing.assert_array_equal(data.images, pixels)
    assert data.filters == ("g", "r")


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("dataset", ["", ":images", ":part/images"])
def test_hdf5_with_channels_first_or_last(tmp_path, load, last, dataset):
    with h5py.File(tmp_path / "galaxies.h5", "w") as file:
        group = file.create_group("part") if "/" in dataset else file
        group["images"] = np.moveaxis(PIXELS, 1, 3) if last else PIXELS
        for name, values in TABLE.items():
            group[name] = values
    require(load(f"galaxies.h5{dataset}"))


def test_galaxy10_with_the_class_that_means_mergers(tmp_path, load):
    with h5py.File(tmp_path / "Galaxy10_DECals.h5", "w") as file:
        file.create_dataset("images", data=np.moveaxis(PIXELS, 1, 3), compression="gzip")
        file["ans"] = np.array([1, 0, 9, 3, 1, 2], np.uint8)
        file["ra"], file["dec"], file["redshift"] = np.arange(6.0), -np.arange(6.0), np.full(6, np.nan)
    data = load("Galaxy10_DECals.h5:images", mergers=[1])
    assert data.labels.tolist() == [1, 0, 0, 0, 1, 0]
    assert data.catalogue["dec"].tolist() == [0, -1, -2, -3, -4, -5]
    with pytest.raises(InputError, match=r"the labels are 1, 0, 9, 3, 2: say which of them mean a merger"):
        load("Galaxy10_DECals.h5:images")


def test_fits_cube_with_a_table_in_any_hdu(tmp_path, load):
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(PIXELS[::-1], name="OTHER"), fits.ImageHDU(PIXELS, name="SCI")]
    fits.HDUList([*hdus, fits.BinTableHDU(Table(TABLE))]).writeto(tmp_path / "galaxies.fits")
    require(load("galaxies.fits"))
    np.testing.assert_array_equal(load("galaxies.fits:OTHER").images, PIXELS[::-1])
    np.testing.assert_array_equal(load("galaxies.fits:1").images, PIXELS[::-1])
    packed = gzip.compress((tmp_path / "galaxies.fits").read_bytes())
    (tmp_path / "packed.fits.gz").write_bytes(packed)
    require(load("packed.fits.gz"))


def test_tile_compressed_scaled_fits(tmp_path, load):
    hdu = fits.CompImageHDU(np.arange(6 * 36 * 36, dtype=np.int16).reshape(6, 1, 36, 36), compression_type="RICE_1")
    hdu.writeto(tmp_path / "galaxies.fits.fz")
    np.save(tmp_path / "y.npy", LABELS)
    data = load("galaxies.fits.fz", labels="y.npy")
    np.testing.assert_array_equal(data.images, np.arange(6 * 36 * 36).reshape(6, 1, 36, 36))


def test_npy_with_labels_and_ids_of_a_parquet_catalogue(tmp_path, load):
    np.save(tmp_path / "x.npy", PIXELS)
    WRITERS["parquet"](TABLE, tmp_path / "galaxies.parquet")
    require(load("x.npy", catalogue="galaxies.parquet"))


def test_npy_is_cropped_to_a_size_and_left_alone_without(tmp_path, load):
    np.save(tmp_path / "x.npy", PIXELS)
    np.save(tmp_path / "y.npy", LABELS)
    np.testing.assert_array_equal(load("x.npy", labels="y.npy", size=32).images, PIXELS[:, :, 2:34, 2:34])
    assert (tmp_path / ".deepmerge").exists()
    assert load("x.npy", labels="y.npy").images.filename == tmp_path / "x.npy"


def test_npy_with_channels_last_is_turned_without_a_copy(tmp_path, load):
    np.save(tmp_path / "x.npy", np.moveaxis(PIXELS, 1, 3))
    np.save(tmp_path / "y.npy", LABELS)
    images = load("x.npy", labels="y.npy").images
    np.testing.assert_array_equal(images, PIXELS)
    assert images.base is not None


def test_stages_tell_the_labels_where_nothing_else_does(tmp_path, load):
    stages = ["past", "Non-Merger", "future", "future", "non-merger", "non-merger"]
    WRITERS["csv"]({"id": IDS, "stage": stages, "file": pictures(tmp_path)}, tmp_path / "galaxies.csv")
    data = load("galaxies.csv")
    assert data.labels.tolist() == LABELS.tolist()
    assert data.catalogue["stage"].tolist()[:2] == ["past", "non-merger"]


def test_a_column_that_may_be_the_id_is_not_guessed(tmp_path, load):
    WRITERS["csv"]({"simid": IDS, "label": LABELS, "file": pictures(tmp_path)}, tmp_path / "galaxies.csv")
    with pytest.raises(InputError, match=r"in a column galaxy_id, got simid; name the right one: columns: {id: simid}"):
        load("galaxies.csv")
    assert load("galaxies.csv", columns={"id": "simid"}).catalogue["galaxy_id"].tolist() == IDS


def test_a_cache_elsewhere_and_files_elsewhere(tmp_path, load):
    (tmp_path / "stamps").mkdir()
    pictures(tmp_path / "stamps")
    WRITERS["csv"]({**TABLE, "name": [f"{n}.png" for n in range(6)]}, tmp_path / "galaxies.csv")
    require(load("galaxies.csv", cache="fast", folder="stamps/images", columns={"file": "name", "id": "objid"}))
    assert list((tmp_path / "fast").glob("*.npy"))
    assert not (tmp_path / ".deepmerge").exists()


def test_what_a_table_says_against_the_labels_is_refused(tmp_path, load):
    np.save(tmp_path / "y.npy", 1 - LABELS)
    WRITERS["fits"]({"id": IDS, "label": LABELS, "file": pictures(tmp_path)}, tmp_path / "galaxies.fits")
    with pytest.raises(InputError, match=r"label in .* should be that of the arrays"):
        load("galaxies.fits", labels="y.npy")


def test_a_catalogue_beside_a_file_that_has_labels_is_compared_with_them(tmp_path, load):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["images"], file["label"] = PIXELS, LABELS
    WRITERS["csv"]({"id": IDS, "label": LABELS}, tmp_path / "same.csv")
    WRITERS["csv"]({"id": IDS, "label": 1 - LABELS}, tmp_path / "other.csv")
    assert load("x.h5", catalogue="same.csv").catalogue["galaxy_id"].tolist() == IDS
    with pytest.raises(InputError, match=r"label in .*other.csv should be that of the arrays"):
        load("x.h5", catalogue="other.csv")


def test_a_galaxy_of_two_classes_is_refused_in_any_format(tmp_path, load):
    table = {"id": ["a", "b", "c", "c", "d", "e"], "label": [1, 0, 1, 0, 0, 1], "file": pictures(tmp_path)}
    WRITERS["parquet"](table, tmp_path / "galaxies.parquet")
    with pytest.raises(InputError, match="the images of a galaxy should have one label, but galaxy c has 1"):
        load("galaxies.parquet")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\x89HDF\r\n\x1a\n broken", "should be a readable HDF5 file"),
        (b"PAR1 broken", "is none of|something that starts b'PAR1"),
        (b"", "something that starts b''"),
    ],
)
def test_what_is_no_image_is_refused(tmp_path, load, content, said):
    (tmp_path / "x.bin").write_bytes(content)
    with pytest.raises(InputError, match=said):
        load("x.bin")


def test_images_without_labels_are_refused(tmp_path, load):
    WRITERS["csv"]({"id": IDS, "file": pictures(tmp_path)}, tmp_path / "galaxies.csv")
    with pytest.raises(InputError, match="should come with labels, got the columns galaxy_id, file"):
        load("galaxies.csv")


def test_the_examples_of_the_docs_are_settings():
    page = (Path(__file__).parents[1] / "docs" / "howto" / "own-images.md").read_text()
    examples = [yaml.safe_load(block)["data"] for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)]
    assert len(examples) > 5
    for example in examples:
        config.Data.model_validate(example)


@pytest.mark.skipif(not REAL.exists(), reason=f"the EFIGI stamps are not in {REAL}")
def test_real_stamps_as_they_are(tmp_path, load):
    data = load(REAL, size=75)
    assert (data.images.shape, data.images.dtype) == ((876, 3, 75, 75), np.uint8)
    assert data.labels.sum() == 146
    one = np.asarray(Image.open(REAL / data.catalogue["file"][500]))
    np.testing.assert_array_equal(data.images[500], np.moveaxis(one[6:81, 6:81], 2, 0))
