import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from astropy.table import MaskedColumn, Table
from pyarrow import parquet

from deepmerge import config
from deepmerge.data import catalogue
from deepmerge.data.formats import any_table, columns
from deepmerge.errors import InputError

LARGE = 1237648720693755918  # more digits than a float has


def read(path, needed=(), known=()):
    return any_table.read(path, "table", needed, known)


def test_whole_numbers_beside_nothing_keep_all_digits(tmp_path):
    parquet.write_table(pa.table({"id": pa.array([LARGE, None, LARGE + 1], pa.int64())}), tmp_path / "t.parquet")
    column = MaskedColumn([LARGE, 0, LARGE + 1], mask=[False, True, False])
    Table({"id": column}).write(tmp_path / "t.ecsv")
    Table({"id": column}).write(tmp_path / "t.vot", format="votable")
    Table({"id": column}).write(tmp_path / "t.fits")
    for name in ("t.parquet", "t.ecsv", "t.vot", "t.fits"):
        assert read(tmp_path / name)["id"].tolist() == [str(LARGE), "", str(LARGE + 1)], name


def test_text_is_stripped_and_stays_text_in_every_format(tmp_path):
    words = ["007", " NGC 1", "1e5", "é"]
    parquet.write_table(pa.table({"id": words}), tmp_path / "t.parquet")
    Table({"id": words}).write(tmp_path / "t.ecsv")
    Table({"id": words}).write(tmp_path / "t.vot", format="votable")
    for name in ("t.parquet", "t.ecsv", "t.vot"):
        assert read(tmp_path / name)["id"].tolist() == ["007", "NGC 1", "1e5", "é"], name


def test_ids_that_a_float_rounded_are_refused_in_every_format(tmp_path):
    ids = np.array([20000000, 20000002, 3], np.float32)
    parquet.write_table(pa.table({"galaxy_id": ids}), tmp_path / "t.parquet")
    Table({"galaxy_id": ids}).write(tmp_path / "t.fits")
    for name in ("t.parquet", "t.fits"):
        with pytest.raises(InputError, match="a float that lacks digits"):
            catalogue.read(tmp_path / name, np.array([1, 0, 1]))


def test_names_are_spelled_freely_and_needed_ones_have_to_be_there(tmp_path):
    Table({"Galaxy ID": [1], "STAGE": ["past"]}).write(tmp_path / "t.ecsv")
    assert list(read(tmp_path / "t.ecsv", [["galaxy_id"]], ["galaxy_id", "stage"])) == ["galaxy_id", "stage"]
    with pytest.raises(InputError, match="should have a column file or path, got Galaxy ID, STAGE"):
        read(tmp_path / "t.ecsv", [["file", "path"]])


@pytest.mark.parametrize("name", ["t.ecsv", "t.fits", "t.xml"])
def test_positions_in_other_units_become_degrees_and_other_angles_stay(tmp_path, name):
    table = Table({"id": [1, 2], "ra": [1.0, 2.0], "dec": [0.1, -0.1], "size": [3.0, 4.0]})
    table["ra"].unit, table["dec"].unit, table["size"].unit = "hourangle" if name != "t.fits" else "h", "rad", "arcsec"
    table.write(tmp_path / name, format="votable" if name == "t.xml" else None)
    found = columns.named(read(tmp_path / name), config.Columns(), name)
    np.testing.assert_allclose(found["ra"].astype(float), [15, 30], rtol=1e-15)
    np.testing.assert_allclose(found["dec"].astype(float), np.degrees([0.1, -0.1]))
    assert found["size"].astype(float).tolist() == [3, 4]


def test_columns_of_several_values_a_row_are_left_out(tmp_path):
    Table({"id": [1, 2], "spectrum": np.ones((2, 5))}).write(tmp_path / "t.fits")
    assert list(read(tmp_path / "t.fits")) == ["id"]


@pytest.mark.parametrize("name", ["t.parquet", "t.vot", "t.ecsv", "t.fits"])
def test_a_broken_table_is_refused_in_one_line(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x00broken\n\n")
    with pytest.raises(InputError, match=name) as refusal:
        read(tmp_path / name)
    assert "\n" not in str(refusal.value)


def test_a_missing_table_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"table expected at .*, where there is no file"):
        read(tmp_path / "no.csv")


def test_csv_is_read_as_ever(tmp_path):
    pd.DataFrame({"objid": ["1", "2"], "z": ["0.10", ""]}).to_csv(tmp_path / "t.csv", index=False, sep=";")
    assert read(tmp_path / "t.csv", [["id", "objid"]]).to_dict("list") == {"objid": ["1", "2"], "z": ["0.10", ""]}
    assert catalogue.table(tmp_path / "t.csv", config.Columns())["galaxy_id"].tolist() == ["1", "2"]
