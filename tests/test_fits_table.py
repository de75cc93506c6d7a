import numpy as np
import pytest
from astropy.io import fits

from deepmerge.data.formats import fits_file, fits_table
from deepmerge.errors import InputError

IMAGES = np.zeros((4, 1, 32, 32), "f4")
LABELS = [1, 0, 0, 1]
BIG = 2**62 + np.arange(4)


def column(name, values, form="K", **more):
    return fits.Column(name, form, array=np.asarray(values), **more)


def read(path, *columns, before=(), behind=()):
    table = fits.BinTableHDU.from_columns(columns)
    fits.HDUList([fits.PrimaryHDU(IMAGES), *before, table, *behind]).writeto(path / "x.fits", overwrite=True)
    with fits_file.opened(path / "x.fits") as file:
        return fits_table.read(file)


def other_table(rows):
    return fits.BinTableHDU.from_columns([column("label", np.zeros(rows, int))])


@pytest.mark.parametrize("name", ["label", "LABEL", "Labels", "y", "Y", "class", "is_merger", "IsMerger", "Merger"])
@pytest.mark.parametrize("form", ["B", "L", "D", "J", "1K"])
def test_labels_are_found_by_name_in_any_type(tmp_path, name, form):
    labels, catalogue = read(tmp_path, column("id", BIG), column(name, LABELS, form))
    assert (labels.dtype, labels.tolist()) == (np.uint8, LABELS)
    assert list(catalogue) == ["galaxy_id"]


def test_the_only_column_is_the_label_whatever_its_name(tmp_path):
    labels, catalogue = read(tmp_path, column("whatever", LABELS))
    assert (labels.tolist(), catalogue) == (LABELS, None)


def test_label_goes_before_its_other_names_which_are_kept(tmp_path):
    labels, catalogue = read(tmp_path, column("class", [7, 8, 9, 7]), column("ID", BIG), column("Label", LABELS))
    assert labels.tolist() == LABELS
    assert catalogue["class"].tolist() == [7, 8, 9, 7]


def test_the_first_table_with_a_row_for_each_image_is_taken(tmp_path):
    labels, _ = read(tmp_path, column("label", LABELS), before=[other_table(3)], behind=[other_table(4)])
    assert labels.tolist() == LABELS


@pytest.mark.parametrize(
    "name",
    ["galaxy_id", "GALAXY_ID", "galaxyID", "objid", "OBJ_ID", "object_id", "SubhaloID", "source_id", "id", "name"],
)
@pytest.mark.parametrize(
    ("form", "ids"),
    [
        ("K", BIG),
        ("K", -BIG),
        ("J", [5, 5, 7, 7]),
        ("12A", ["NGC 1", "M 31", "007", "NA"]),
        ("D", [2**53 - 1, 3, 3, -4]),
        ("E", [2**24 - 1, 3, 3, -4]),
    ],
)
def test_ids_are_exact(tmp_path, name, form, ids):
    _, catalogue = read(tmp_path, column(name, ids, form), column("label", LABELS))
    assert catalogue["galaxy_id"].tolist() == list(ids)


def test_unsigned_ids_are_exact(tmp_path):
    ids = np.arange(4, dtype="u8") + np.uint64(2**63 + 1)
    _, catalogue = read(tmp_path, column("id", ids, "K", bzero=2**63), column("label", LABELS))
    assert catalogue["galaxy_id"].tolist() == ids.tolist()


def test_texts_are_stripped(tmp_path):
    _, catalogue = read(tmp_path, column("id", [" a", "b  ", " c d ", "e"], "6A"), column("label", LABELS))
    assert catalogue["galaxy_id"].tolist() == ["a", "b", "c d", "e"]


def test_the_more_telling_name_is_the_galaxys(tmp_path):
    _, catalogue = read(tmp_path, column("ID", range(4)), column("Galaxy_ID", [3, 3, 5, 5]), column("label", LABELS))
    assert list(catalogue) == ["galaxy_id", "id"]
    assert catalogue["galaxy_id"].tolist() == [3, 3, 5, 5]


def test_all_else_of_one_value_a_row_is_kept_in_lower_case(tmp_path, caplog):
    with caplog.at_level("INFO"):
        _, catalogue = read(
            tmp_path,
            column("label", LABELS),
            column("objid", BIG),
            column("VIEW", [0, 1, 0, 1]),
            column("Copy", [False, True, False, True], "L"),
            column("STAGE", ["past ", "non-merger", "non-merger", "future"], "12A"),
            column("log_mstar", [9.5, np.nan, 10.25, 11], "E"),
            column("snap", [BIG[0], -1, BIG[2], BIG[3]], null=-1),
            column("flux", np.ones((4, 3)), "3E"),
            column("z", np.ones(4), "1D"),
        )
    catalogue.to_csv(tmp_path / "x.csv", index=False)
    assert (tmp_path / "x.csv").read_text().splitlines()[:3] == [
        "galaxy_id,view,copy,stage,log_mstar,snap,z",
        f"{BIG[0]},0,0,past,9.5,{BIG[0]},1.0",
        f"{BIG[1]},1,1,non-merger,,,1.0",
    ]
    assert "where they hold more than a number or a text: flux" in caplog.text


def test_without_an_id_each_image_is_a_galaxy_and_that_is_said(tmp_path, caplog):
    _, catalogue = read(tmp_path, column("label", LABELS), column("mass", [1.5, 2, 3, 4], "D"))
    assert catalogue["galaxy_id"].tolist() == [0, 1, 2, 3]
    assert catalogue["mass"].tolist() == [1.5, 2, 3, 4]
    assert "each image counts as a galaxy of its own" in caplog.text


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ([column("c0", LABELS), column("c1", LABELS)], r"one column.*label.*got \['c0', 'c1'\]"),
        ([column("label", [0, 1, 2, 1])], r"4 labels, .* got 4 of the values \[0, 1, 2\]"),
        ([column("label", [0, 1, np.nan, 1], "D")], "4 labels"),
        ([column("label", [0, 1, 9, 1], null=9), column("id", BIG)], "4 labels"),
        ([column("label", np.ones((4, 2)), "2K"), column("id", BIG)], "4 labels.*got 8"),
        ([column("label", [0, 1, 1])], "4 labels for 4 images, got 3 rows in HDU 1"),
        ([column("label", LABELS), column("id", [1, 2, 2**53, 4], "D")], "whole numbers below 9007199254740992 as ids"),
        ([column("label", LABELS), column("id", [1e17, 2, 3, 4], "D")], "float64, got 1e\\+17. Save ids as"),
        ([column("label", LABELS), column("id", [1, 2, 2**24, 4], "E")], "below 16777216 .*float32"),
        ([column("label", LABELS), column("id", [1.5, 2, 3, 4], "D")], "got 1.5"),
        ([column("label", LABELS), column("id", [1, np.inf, 3, 4], "D")], "got inf"),
        ([column("label", LABELS), column("id", [1, np.nan, 3, 4], "D")], "got none in row 1"),
        ([column("label", LABELS), column("id", [1, 2, -9, 4], null=-9)], "got none in row 2"),
        ([column("label", LABELS), column("id", ["a", "b", "c", " "], "3A")], "got none in row 3"),
        ([column("label", LABELS), column("id", LABELS, "L")], "got true and false"),
        ([column("label", LABELS), column("Halo_ID", BIG)], "got Halo_ID. Name the one that all images of a galaxy"),
    ],
)
def test_wrong_tables_are_explained_in_one_line(tmp_path, columns, message):
    with pytest.raises(InputError, match=message) as refusal:
        read(tmp_path, *columns)
    assert "\n" not in str(refusal.value)
