import numpy as np
import pandas as pd
import pytest
from conftest import catalogues
from hypothesis import given
from hypothesis import strategies as st

from deepmerge.data import catalogue
from deepmerge.data.released import layout
from deepmerge.errors import InputError

LABELS = np.array([1, 1, 0, 0, 0, 0], np.uint8)
IDS = ["A", "A", "B", "B", "C", "C"]
STAGED = ["past", "past", "non-merger", "non-merger", "non-merger", "non-merger"]


@pytest.fixture
def read(tmp_path):
    """Write columns as a CSV, each cell as str() has it, and read that as the catalogue of six images."""

    def read(labels=LABELS, separator=",", **columns):
        columns = {"galaxy_id": IDS, **columns}
        lines = [columns, *zip(*columns.values(), strict=True)]
        path = tmp_path / "c.csv"
        path.write_text("".join(separator.join(map(str, line)) + "\n" for line in lines))
        return catalogue.read(path, labels)

    return read


def refused(read, said, **columns):
    with pytest.raises(InputError, match=said) as error:
        read(**columns)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("ids", "dtype"),
    [
        ([7, 7, -5, -5, 0, 0], np.int64),
        ([2**63 - 1, 2**63 - 1, 2**63 - 2, 2**63 - 2, -(2**63), -(2**63)], np.int64),
        ([1234567890123456789] * 2 + [1234567890123456788] * 4, np.int64),
        ([2**64 - 1, 2**64 - 1, 2**64 - 2, 2**64 - 2, 1, 1], np.uint64),
        ([10**25, 10**25, 10**25 + 1, 10**25 + 1, 5, 5], object),
        ([2**53, 2**53, 2**53 + 1, 2**53 + 1, 1, 1], np.int64),
    ],
)
def test_whole_numbers_are_ids_to_the_last_digit(read, ids, dtype):
    found = read(galaxy_id=ids)["galaxy_id"]
    assert (found.tolist(), found.dtype) == (ids, dtype)


@pytest.mark.parametrize(
    ("written", "ids"),
    [
        (["12.0", "12.0", "7.0", "7.0", "-3.0", "-3.0"], [12, 12, 7, 7, -3, -3]),
        (["12", "12.0", "7", "7.00", "1e5", "100000"], [12, 12, 7, 7, 100000, 100000]),
        (["1.200000000000000000e+01"] * 2 + ["7e0"] * 2 + ["0.0"] * 2, [12, 12, 7, 7, 0, 0]),
        (["9007199254740991.0"] * 2 + ["9007199254740990.0"] * 4, [2**53 - 1] * 2 + [2**53 - 2] * 4),
        ([2**60, 2**60, 2**60 + 1, 2**60 + 1, "1.0", "1.0"], [2**60] * 2 + [2**60 + 1] * 2 + [1, 1]),
    ],
)  # fmt: skip
def test_ids_that_a_program_wrote_as_floats_are_the_whole_numbers(read, written, ids):
    found = read(galaxy_id=written)["galaxy_id"]
    assert (found.tolist(), found.dtype) == (ids, np.int64)


@pytest.mark.parametrize(
    "ids",
    [
        ["NGC 1", "NGC 1", "M 31", "M 31", "12", "12"],
        ["NA", "NA", "nan", "nan", "null", "None"],
        ["N/A", "N/A", "NaN", "NaN", "-", "--"],
        ["007", "007", "7", "7", "8", "8"],
        ["+7", "+7", "7", "7", "-0", "-0"],
        ["1.5", "1.5", "2.5", "2.5", "10.25", "10.25"],
        ["12e45", "12e45", "1a2b", "1a2b", "12000", "12000"],
        ["1_0", "1_0", "10", "10", "0x1", "0x1"],
        ["True", "True", "False", "False", "inf", "inf"],
        ["9" * 120, "9" * 120, "9" * 119, "9" * 119, "1", "1"],
        ["1e999999", "1e999999", "1", "1", "2", "2"],
        ["٣", "٣", "3", "3", "é", "é"],
    ],
)
def test_other_ids_are_text_as_it_is_written(read, ids):
    assert read(galaxy_id=ids)["galaxy_id"].tolist() == ids


def test_blanks_around_ids_do_not_make_them_others(read):
    assert read(galaxy_id=[" A", "A ", "\tB", "B\xa0", "C", " C "])["galaxy_id"].tolist() == IDS


@pytest.mark.parametrize(
    ("ids", "row"),
    [
        (["9007199254740992.0"] * 6, 0),
        (["1", "1", "2", "2", "1.2345678901234568e+18", "3"], 4),
        (["1e300"] * 6, 0),
        (["-1e16"] * 6, 0),
        (["NGC 1", "NGC 1", "x", "1.2345678901234568e+18", "y", "y"], 3),
        (["1.23457e+08"] * 2 + ["1.23458e+08"] * 4, 0),
        (["1.23457E+11"] * 2 + ["NGC 1"] * 4, 0),
    ],
)
def test_float_ids_that_lost_digits_are_refused(read, ids, row):
    refused(read, rf"got {ids[row].replace('+', '.')} in data row {row}, a float that lacks digits", galaxy_id=ids)


@pytest.mark.parametrize("ids", [["12", "12", "12.0", "x", "y", "z"], ["1.1", "1.1", "1.10", "1.10", "2", "2"]])
def test_one_number_in_two_spellings_beside_other_ids_is_refused(read, ids):
    refused(read, f"in one way, got {ids[0]} in data row 0 and {ids[2]} in data row 2", galaxy_id=ids)


def test_ids_that_differ_in_blanks_or_capitals_are_mentioned(read, caplog):
    read(galaxy_id=["NGC 1", "NGC 1", "ngc1", "ngc1", "M 31", "M 31"])
    assert "'NGC 1' and 'ngc1' count as two galaxies" in caplog.text


def test_a_galaxy_of_both_classes_is_refused_with_its_rows(read):
    said = r"galaxy A has 1 in data row 0 and 0 in data row 4 \(2 such galaxies\)"
    refused(read, said, galaxy_id=["A", "B", "C", "B", "A", "C"], labels=np.array([1, 1, 0, 0, 0, 0]))
    refused(read, said, galaxy_id=["A", "B", "C", "B", "A", "C"], stage=STAGED)
    refused(read, "galaxy 12 has 1 in data row 0 and 0 in data row 2", galaxy_id=["12", "12.0", "12", 3, 4, 5])


@pytest.mark.parametrize("name", ["galaxy_id", "view", "copy", "stage", "label", "row"])
def test_what_is_known_of_some_rows_alone_is_refused(read, name):
    given = {"galaxy_id": IDS, "view": [0, 1] * 3, "copy": [0] * 6, "stage": STAGED, "label": LABELS, "row": range(6)}
    refused(read, f"complete in {name}, got nothing in data row 4", **{name: [*given[name][:4], " ", given[name][5]]})


@pytest.mark.parametrize("copies", [["0", "1"] * 3, ["0.0", "1.0"] * 3, ["False", "True"] * 3, ["0", "4"] * 3])
def test_copies_are_told_from_originals(read, copies):
    found = read(copy=copies)
    assert (found["copy"] == 0).tolist() == [True, False] * 3
    assert found["view"].tolist() == [0] * 6


@pytest.mark.parametrize("word", ["no", "yes", "original", "T", "-1", "0.5", "nan", "inf", "0x1", "1st"])
def test_copies_that_are_no_numbers_are_refused(read, word):
    refused(
        read, f"copy in .* whole numbers, 0 for an original .* got '{word}' in data row 3", copy=[0, 0, 0, word, 0, 0]
    )


@pytest.mark.parametrize("copies", [[1] * 6, [1, 2] * 3, ["1.0", "2.0"] * 3, ["True"] * 6, [0, 1, 0, 1, 1, 2]])
def test_a_galaxy_without_an_original_is_refused(read, copies):
    missing = "C" if 0 in copies else "A"
    refused(read, f"got '.*' in data row . and no 0 for galaxy {missing} .* count from 0", copy=copies)


def test_views_that_are_copies_alone_are_mentioned(read, caplog):
    read(copy=[0, 1] * 3, view=[0, 0] * 3)
    assert not caplog.text
    read(copy=[0, 1] * 3, view=[0, 1] * 3)
    assert "3 views in" in caplog.text


@pytest.mark.parametrize(
    ("written", "views"),
    [
        (["0", "1"] * 3, [0, 1] * 3),
        (["x", "NA"] * 3, ["x", "NA"] * 3),
        (["1", "NA"] * 3, ["1", "NA"] * 3),
        (["0.5", "1.5"] * 3, [0.5, 1.5] * 3),
    ],
)
def test_views_are_numbers_or_text(read, written, views):
    assert read(view=written)["view"].tolist() == views


@pytest.mark.parametrize("spelled", ["non-merger", "Non-Merger", " NON MERGER ", "non_merger", "nonmerger"])
def test_stages_may_be_spelled_freely(read, spelled):
    assert read(stage=["past", "Past", *[spelled] * 4])["stage"].tolist() == STAGED


def test_unknown_stages_are_refused_with_their_row(read):
    refused(read, "one of past, future, .* got 'merging' in data row 1", stage=["past", "merging", *STAGED[2:]])


@pytest.mark.parametrize("words", ["1 0", "1.0 0.0", "True False", "true 0", "Merger non-merger"])
def test_labels_of_the_catalogue_agree_with_the_array(read, words):
    merger, other = words.split()
    label = [merger] * 2 + [other] * 4
    read(label=label)
    for column in ("label", "Label", " LABEL "):
        said = r"label in .* 1 in data row 1, got '.*' \(2 such rows\); bring both into the same order"
        refused(read, said, **{column: [label[0], *label[2:], label[0]]})


@pytest.mark.parametrize("word", ["spiral", "2", "nan", "0.5"])
def test_labels_that_are_no_class_are_refused(read, word):
    refused(read, f"label in .* got '{word}' .* another name if it is no label", label=[word] * 6)


@pytest.mark.parametrize("rows", [range(1, 7), range(5, -1, -1), [0, 1, 2, 3, 5, 4], "abcdef", [0.5] * 6])
def test_rows_of_another_order_are_refused(read, rows):
    read(row=range(6))
    refused(read, "row in .* count from 0 in the order of the arrays", row=rows)


def test_quantities_are_numbers_and_nan_where_not_known(read):
    found = read(separator=";", M20=["-1.5", "", "nan", "NA", "--", "1e-3"], log_mstar=range(6), mag=["1", *"abcde"])
    np.testing.assert_array_equal(found["m20"], [-1.5, np.nan, np.nan, np.nan, np.nan, 1e-3])
    assert found["log_mstar"].tolist() == list(range(6))
    assert found["mag"].tolist() == ["1", *"abcde"]


@pytest.mark.parametrize("cell", ["10,5", "high", "1.5 dex", "1.5.2"])
@pytest.mark.parametrize("name", ["log_mstar", "concentration", "m20"])
def test_text_among_quantities_is_refused_with_its_row(read, name, cell):
    said = f"{name} in .* should be numbers, .* got '{cell}' in data row 2"
    refused(read, said, separator=";", **{name: [1, 2, cell, 4, 5, 6]})


@pytest.mark.parametrize(("name", "meant"), [("views", "view"), ("galaxy", "galaxy_id"), ("Rows", "row")])
def test_near_misses_of_names_are_mentioned(read, caplog, name, meant):
    read(**{name: range(6)})
    assert f"column {name} of" in caplog.text
    assert f"if it is the {meant}, call it so" in caplog.text


def test_columns_of_other_names_are_kept_without_a_word(read, caplog):
    found = read(mag=range(6), image=[f"{i}.fits" for i in range(6)], encounter=["none"] * 6)
    assert {"mag", "image", "encounter"} <= set(found)
    assert not caplog.text


def test_a_separator_behind_each_row_moves_no_column(tmp_path):
    path = tmp_path / "c.csv"
    rows = "".join(f"{i},{galaxy},{20 + i / 7:.5f},\n" for i, galaxy in enumerate(IDS))
    path.write_text("image,galaxy_id,mag\n" + rows)
    with pytest.raises(InputError, match="3, got 4 in line 2"):
        catalogue.read(path, LABELS)
    path.write_text("image,galaxy_id,mag,\n" + rows)
    assert catalogue.read(path, LABELS)["galaxy_id"].tolist() == IDS


def test_the_release_is_read_as_it_is_written(tmp_path):
    written = layout.layout_catalogue().assign(m20=np.linspace(-3, 0, layout.ROWS) ** 3)
    written.loc[::2, "m20"] = np.nan
    written.to_csv(tmp_path / "c.csv", index=False)
    labels = (written["stage"] != "non-merger").to_numpy().astype(np.uint8)
    pd.testing.assert_frame_equal(catalogue.read(tmp_path / "c.csv", labels), written.astype({"stage": "str"}))


def test_without_a_file_the_release_has_its_layout_and_others_a_galaxy_an_image(caplog):
    assert catalogue.read(None, LABELS)["galaxy_id"].tolist() == list(range(6))
    assert "each of the 6 images counts as a galaxy of its own" in caplog.text
    with pytest.raises(InputError, match="row 0 of the release layout has stage 'merger' and label 0"):
        catalogue.read(None, np.zeros(layout.ROWS, np.uint8))


NAMES = st.text("abcXYZ019 .-_é;,'\"", min_size=1).map(str.strip).filter(bool)


@given(catalogues(), st.data())
def test_any_catalogue_is_the_same_after_it_was_written_and_read(tmp_path_factory, table, data):
    numbers = st.one_of(st.just(np.nan), st.floats(-1e6, 1e6))
    table["log_mstar"] = data.draw(st.lists(numbers, min_size=len(table), max_size=len(table)))
    table["remark"] = data.draw(NAMES.map("x {}".format))
    labels = (table["stage"] != "non-merger").to_numpy().astype(np.uint8)
    path = tmp_path_factory.mktemp("catalogue") / "c.csv"
    table.to_csv(path, index=False, sep=data.draw(st.sampled_from([",", ";", "\t", "|"])))
    back = catalogue.read(path, labels)
    pd.testing.assert_frame_equal(back, table, check_dtype=False, rtol=1e-15)
    back.to_csv(path, index=False)
    pd.testing.assert_frame_equal(catalogue.read(path, labels), back)
    pd.testing.assert_frame_equal(catalogue.from_table(back, labels), back)
