import gzip
import json
import logging
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from typer.testing import CliRunner

from deepmerge import cli, config
from deepmerge.data import cutouts, dataset
from deepmerge.errors import InputError

SCALE = 0.06  # arcseconds a pixel


def header(shape=(200, 240), scale=SCALE, center=(150.0, 2.0), turned=0.0, kinds=("RA---TAN", "DEC--TAN")):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = list(kinds)
    wcs.wcs.crval = center
    wcs.wcs.crpix = [shape[1] / 2 + 0.5, shape[0] / 2 + 0.5]
    angle = np.radians(turned)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    wcs.wcs.cd = turn @ np.diag([-scale / 3600, scale / 3600])
    return wcs.to_header()


def pixels(shape=(200, 240), seed=1):
    return np.random.default_rng(seed).normal(5, 1, shape).astype(">f4")


@pytest.fixture
def mosaic(tmp_path):
    """Write a mosaic; its path."""

    def write(name="r.fits", data=None, head=None, **keys):
        data = pixels() if data is None else data
        hdu = fits.PrimaryHDU(data, header(data.shape) if head is None else head)
        hdu.header.update(keys)
        hdu.writeto(tmp_path / name, overwrite=True)
        return tmp_path / name

    return write


# Places (x, y) in pixels of the mosaic that `header` describes, and what becomes of their objects.
PLACES = np.array([(120, 100), (60, 70), (5, 100), (500, 100), (180, 150)]) + 0.3


def objects(places=PLACES, head=None):
    sky = WCS(header() if head is None else head).pixel_to_world(*places.T)
    ids = [f"G{number}" for number in range(len(places))]
    labels = np.arange(len(places)) % 2
    return pd.DataFrame({"galaxy_id": ids, "ra": sky.ra.deg, "dec": sky.dec.deg, "merger": labels, "z": 0.5})


@pytest.fixture
def catalogue(tmp_path):
    """Write a catalogue; its path."""

    def write(table=None, name="mine.csv"):
        table = objects() if table is None else table
        path = tmp_path / name
        if name.endswith(".csv"):
            table.to_csv(path, index=False)
        elif name.endswith(".parquet"):
            table.to_parquet(path)
        else:
            kind = {"ecsv": "ascii.ecsv", "fits": "fits", "vot": "votable"}[path.suffix[1:]]
            Table.from_pandas(table.astype({"galaxy_id": "O"})).write(path, format=kind)
        return path

    return write


def window(data, x, y, size=32):
    """What a cutout of even size should hold, cut by hand."""
    x, y = (int(np.ceil(middle - size / 2)) for middle in (x, y))
    return data[y : y + size, x : x + size]


def test_images_are_those_around_the_positions_and_all_the_rest_is_reported(mosaic, catalogue, tmp_path, caplog):
    one, two = pixels(), pixels((200, 240), 2)
    with caplog.at_level(logging.WARNING, logger="deepmerge"):
        done = cutouts.cut(catalogue(), [mosaic("a.fits", one), mosaic("b.fits", two)], tmp_path / "out", size=32)
    images = np.load(tmp_path / "out" / "mine_X.npy")
    assert (images.shape, images.dtype) == ((3, 2, 32, 32), np.float32)
    for image, (x, y) in zip(images, PLACES[[0, 1, 4]], strict=True):
        np.testing.assert_array_equal(image, [window(one, x, y), window(two, x, y)])
    table = pd.read_csv(tmp_path / "out" / "mine_catalogue.csv")
    assert table["galaxy_id"].tolist() == ["G0", "G1", "G4"]
    assert table["catalogue_row"].tolist() == [0, 1, 4]
    assert list(table) == ["galaxy_id", "ra", "dec", "label", "z", "catalogue_row"]
    np.testing.assert_array_equal(table["ra"], objects()["ra"][[0, 1, 4]])
    left = pd.read_csv(tmp_path / "out" / "mine_left_out.csv")
    assert left[["galaxy_id", "catalogue_row", "reason"]].to_numpy().tolist() == [
        ["G2", 2, "over the edge of the a mosaic"],
        ["G3", 3, "not on the a mosaic"],
    ]
    assert sum("1 of 5 objects left out" in record.getMessage() for record in caplog.records) == 2
    assert (done["images"], done["left_out"]) == (3, 2)


def test_the_experiment_beside_the_images_reads_them_with_labels_and_positions(mosaic, catalogue, tmp_path):
    done = cutouts.cut(catalogue(), [mosaic()], tmp_path / "out", size=32, filters=["F814W"])
    experiment = config.load(done["experiment"])
    data = dataset.read(experiment.data, experiment.name)
    assert data.labels.tolist() == [0, 1, 0]
    assert data.filters == ("F814W",)
    np.testing.assert_array_equal(data.catalogue["dec"], objects()["dec"][[0, 1, 4]])
    assert data.catalogued


@pytest.mark.parametrize("name", ["mine.csv", "mine.ecsv", "mine.fits", "mine.vot", "mine.parquet"])
def test_a_catalogue_may_have_any_format(mosaic, catalogue, tmp_path, name):
    cutouts.cut(
        catalogue(objects().astype({"galaxy_id": str}), name), [mosaic("r_mosaic.fits")], tmp_path / "out", size=32
    )
    table = pd.read_csv(tmp_path / "out" / "mine_catalogue.csv")
    assert table["galaxy_id"].tolist() == ["G0", "G1", "G4"]
    np.testing.assert_array_equal(table["ra"], objects()["ra"][[0, 1, 4]])
    assert np.load(tmp_path / "out" / "mine_y.npy").tolist() == [0, 1, 0]


def test_long_ids_of_a_fits_table_lose_no_digit(mosaic, tmp_path):
    ids = 2**62 + np.arange(5)
    Table({"objid": ids, "RA": objects()["ra"], "DEC": objects()["dec"]}).write(tmp_path / "t.fits")
    cutouts.cut(tmp_path / "t.fits", [mosaic()], tmp_path / "out", size=32)
    assert pd.read_csv(tmp_path / "out" / "t_catalogue.csv")["galaxy_id"].tolist() == ids[[0, 1, 4]].tolist()


@pytest.mark.parametrize("kind", ["sexagesimal", "hour unit", "galactic"])
def test_positions_are_understood_in_other_forms(mosaic, catalogue, tmp_path, kind):
    table, head = objects(), header()
    sky = SkyCoord(table["ra"], table["dec"], unit="deg")
    if kind == "sexagesimal":
        table["ra"], table["dec"] = (
            sky.ra.to_string("hour", sep=":", precision=6),
            sky.dec.to_string(sep=":", precision=6),
        )
        path = catalogue(table)
    elif kind == "hour unit":
        path = tmp_path / "mine.ecsv"
        units = {"ra": "hourangle", "dec": "rad"}
        Table({"id": table["galaxy_id"], "ra": sky.ra.hour, "dec": sky.dec.rad}, units=units).write(path)
    else:
        center = SkyCoord(150, 2, unit="deg").galactic
        head = header(center=(center.l.deg, center.b.deg), kinds=("GLON-TAN", "GLAT-TAN"))
        path = catalogue(galactic(head))
    cutouts.cut(path, [mosaic(head=head)], tmp_path / "out", size=32)
    images = np.load(tmp_path / "out" / "mine_X.npy")
    for image, (x, y) in zip(images, PLACES[[0, 1, 4]], strict=True):
        np.testing.assert_array_equal(image[0], window(pixels(), x, y))


def galactic(head):
    sky = WCS(head).pixel_to_world(*PLACES.T).icrs
    return pd.DataFrame({"galaxy_id": range(5), "ra": sky.ra.deg, "dec": sky.dec.deg})


def test_scaled_and_packed_mosaics_give_their_physical_values(catalogue, tmp_path):
    stored = np.arange(200 * 240, dtype=np.int32).reshape(200, 240).astype(np.int16)
    hdu = fits.PrimaryHDU(stored, header())
    hdu.writeto(tmp_path / "raw.fits")
    with (tmp_path / "raw.fits").open("rb") as file:
        text = file.read()
    cards = b"".join(card.ljust(80) for card in (b"BSCALE  =                  0.5", b"BZERO   =                 10.0"))
    place = text.index(b"END" + b" " * 77)
    (tmp_path / "scaled.fits").write_bytes(text[:place] + cards + text[place : place + 80] + text[place + 240 :])
    with (tmp_path / "scaled.fits").open("rb") as file, gzip.open(tmp_path / "scaled.fits.gz", "wb") as packed:
        shutil.copyfileobj(file, packed)
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(stored, header())]).writeto(tmp_path / "tiled.fits.fz")
    paths = [tmp_path / name for name in ("scaled.fits", "scaled.fits.gz", "tiled.fits.fz")]
    cutouts.cut(catalogue(), paths, tmp_path / "out", size=32, filters=["a", "b", "c"])
    expected = window(stored, *PLACES[0]).astype(np.float32)
    image = np.load(tmp_path / "out" / "mine_X.npy")[0]
    np.testing.assert_array_equal(image, [0.5 * expected + 10, 0.5 * expected + 10, expected])


def test_mosaics_may_have_other_shapes_on_one_grid(mosaic, catalogue, tmp_path):
    large = pixels()
    head = header()
    part = fits.Header(head, copy=True)
    part["CRPIX1"], part["CRPIX2"] = head["CRPIX1"] - 30, head["CRPIX2"] - 20
    paths = [mosaic("a.fits", large), mosaic("b.fits", large[20:180, 30:160], part)]
    cutouts.cut(catalogue(), paths, tmp_path / "out", size=32)
    images = np.load(tmp_path / "out" / "mine_X.npy")
    assert len(images) == 2
    np.testing.assert_array_equal(images[:, 0], images[:, 1])
    reasons = pd.read_csv(tmp_path / "out" / "mine_left_out.csv").set_index("galaxy_id")["reason"]
    assert reasons["G4"] == "not on the b mosaic"


def test_blank_parts_are_reported_and_few_nan_pixels_are_told_to_the_experiment(mosaic, catalogue, tmp_path, caplog):
    data = pixels()
    data[60:80, 50:70] = 0
    data[150, 180] = np.nan
    places = np.concatenate([PLACES, [(125, 105)]])
    done = cutouts.cut(catalogue(objects(places)), [mosaic(data=data)], tmp_path / "out", size=32)
    left = pd.read_csv(tmp_path / "out" / "mine_left_out.csv")
    assert left["reason"][left["galaxy_id"] == "G1"].tolist() == ["blank (NaN or 0) in the r mosaic"]
    assert "1 images have pixels that are NaN" in caplog.text
    assert config.load(done["experiment"]).data.missing.value == ("nan",)
    assert done["images"] == 3


def test_a_catalogue_without_labels_gives_images_to_predict(mosaic, catalogue, tmp_path):
    done = cutouts.cut(catalogue(objects().drop(columns="merger")), [mosaic()], tmp_path / "out", size=32)
    assert "experiment" not in done
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"mine_X.npy", "mine_catalogue.csv", "mine_left_out.csv", "mine_source.json"}


def test_filters_are_named_by_headers_or_files(mosaic, catalogue, tmp_path):
    table = catalogue()
    cutouts.cut(table, [mosaic("a.fits", FILTER="F814W"), mosaic("b.fits", FILTER="F160W")], tmp_path / "1", size=32)
    cutouts.cut(table, [mosaic("a.fits", FILTER="F814W"), mosaic("b.fits", FILTER="F814W")], tmp_path / "2", size=32)
    found = [json.loads((tmp_path / n / "mine_source.json").read_text())["filters"] for n in "12"]
    assert found == [["F814W", "F160W"], ["a", "b"]]


def test_older_files_stay_unless_they_are_to_be_replaced(mosaic, catalogue, tmp_path):
    cutouts.cut(catalogue(), [mosaic()], tmp_path / "out", size=32)
    with pytest.raises(InputError, match=r"is there already; .*--overwrite"):
        cutouts.cut(catalogue(), [mosaic()], tmp_path / "out", size=32)
    unlabelled = catalogue(objects().drop(columns="merger"))
    cutouts.cut(unlabelled, [mosaic()], tmp_path / "out", size=32, overwrite=True)
    assert not (tmp_path / "out" / "mine_y.npy").exists()


def refused(match, catalogue, mosaics, tmp_path, **options):
    with pytest.raises(InputError, match=match) as caught:
        cutouts.cut(catalogue, mosaics, tmp_path / "out", **{"size": 32, **options})
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (lambda t: t.drop(columns="dec"), "a column ra and a column dec, .*got columns galaxy_id, ra, merger, z"),
        (
            lambda t: t.assign(ra=t["ra"] + 360),
            r"ra in .* should be degrees from -180 to 360, got '5(09|10).*data row 0",
        ),
        (lambda t: t.assign(dec=-91.5), r"dec in .* should be degrees from -90 to 90, got '-91.5' in data row 0 \(5 "),
        (lambda t: t.assign(ra=["x", *t["ra"][1:]]), r"ra in .* should be degrees, or sexagesimal .*'x' in data row 0"),
        (lambda t: t.assign(ra=[*t["ra"][:4], np.nan]), r"ra in .* should be degrees.*got none in data row 4"),
        (lambda t: t.assign(ra=t["ra"] / 15), r"got none that does: 5 not on the r mosaic; ra seems to be in hours"),
        (lambda t: t.assign(ra=100.0), r"got none that does: 5 not on the r mosaic; check"),
        (
            lambda t: t.assign(merger=[0, 1, 2, 0, 1]),
            r"merger in .* should be 1 \(merger\) or 0 .* got '2' in data row 2",
        ),
        (lambda t: t[:0], "should hold at least one object, got none"),
    ],
)
def test_catalogues_that_do_not_do_are_refused(mosaic, catalogue, tmp_path, changed, said):
    refused(said, catalogue(changed(objects())), [mosaic()], tmp_path)


def test_pixels_of_another_size_are_refused_with_both(mosaic, catalogue, tmp_path):
    other = mosaic("b.fits", head=header(scale=0.13))
    refused(
        r"pixels of one size, got 0\.06″ in .*r\.fits and 0\.13″ in .*b\.fits", catalogue(), [mosaic(), other], tmp_path
    )


def test_a_mosaic_that_lies_otherwise_is_refused(mosaic, catalogue, tmp_path):
    other = mosaic("b.fits", head=header(turned=20))
    refused(r"lie the same way round.*270\.0° in .* and 2[59]0\.0°", catalogue(), [mosaic(), other], tmp_path)


@pytest.mark.parametrize(
    ("head", "data", "said"),
    [
        (fits.Header(), None, r"should have a celestial WCS .* got none, none"),
        (header(kinds=("FREQ", "VELO")), None, r"should have a celestial WCS .* got FREQ, VELO"),
        (fits.Header(), np.zeros((2, 3, 4), np.float32), r"should hold an image with two axes, got \[\(2, 3, 4\)\]"),
    ],
)
def test_mosaics_without_a_place_on_the_sky_are_refused(mosaic, catalogue, tmp_path, head, data, said):
    refused(said, catalogue(), [mosaic(data=data, head=head)], tmp_path)


def test_broken_files_are_refused(mosaic, catalogue, tmp_path):
    (tmp_path / "text.fits").write_text("no FITS")
    refused(r"text\.fits should be a FITS file", catalogue(), [tmp_path / "text.fits"], tmp_path)
    whole = mosaic().read_bytes()
    (tmp_path / "short.fits").write_bytes(whole[: len(whole) // 2])
    refused(r"short\.fits.*truncated", catalogue(), [tmp_path / "short.fits"], tmp_path)
    backwards = whole.replace(b"NAXIS2  =                  200", b"NAXIS2  =                 -200")
    (tmp_path / "back.fits").write_bytes(backwards)
    refused(r"back\.fits should ", catalogue(), [tmp_path / "back.fits"], tmp_path)
    (tmp_path / "bad.parquet").write_text("no")
    refused(r"should be a readable Parquet file", tmp_path / "bad.parquet", [mosaic()], tmp_path)
    (tmp_path / "bad.vot").write_text("no")
    refused(r"should be a readable VOTable file", tmp_path / "bad.vot", [mosaic()], tmp_path)
    refused("where there is no file", tmp_path / "nowhere.csv", [mosaic()], tmp_path)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": 31}, "size should be at least 32"),
        ({"blank": 1}, "blank should be a share"),
        ({"filters": ["a", "b"]}, "filters should be 1 different names"),
        ({"stem": "a/b"}, "stem should be a plain name"),
    ],
)
def test_options_that_do_not_do_are_refused(mosaic, catalogue, tmp_path, options, said):
    refused(said, catalogue(), [mosaic()], tmp_path, **options)


def test_the_command_says_in_one_line_what_is_wrong(mosaic, catalogue, tmp_path):
    words = ["data", "cutouts", str(catalogue()), str(mosaic()), "--out", str(tmp_path / "out"), "--size", "32"]
    done = CliRunner().invoke(cli.app, words)
    assert done.exit_code == 0
    assert re.search(r"images\s+3", done.output)
