import bz2
import gzip
import lzma

import pandas as pd
import pytest

from deepmerge.data.formats import tables
from deepmerge.errors import InputError

LINES = [("galaxy_id", "mag", "note"), ("A 1", "21.5", "x"), ("B", "", "y z"), ("0012", "1e5", "NA")]


@pytest.fixture
def read(tmp_path):
    """Write text or bytes to a file and read it as a table that needs a galaxy_id."""

    def read(content, name="t.csv", needed=("galaxy_id",), known=("view",)):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return tables.read(path, "catalogue", needed, known)

    return read


def text(separator=",", end="\n", before="", after="", lines=LINES):
    return "".join(before + separator.join(line) + after + end for line in lines)


def cells(table):
    return [tuple(table.columns), *table.itertuples(index=False, name=None)]


@pytest.mark.parametrize(
    "content",
    [
        text(),
        text(";"),
        text("\t"),
        text("|"),
        text(", "),
        text(" ,"),
        text(" ; ", before=" ", after=" "),
        text(end="\r\n"),
        text(end="\r"),
        text().rstrip("\n"),
        text() + "\n\n  \n",
        "\n" + text(),
        "\n\n".join(text().splitlines()),
        "\ufeff" + text(),
        "# a comment, with commas\n#\n" + text(),
        "# " + text(),
        text(after=","),
        text(";", before=";"),
        text('","', before='"', after='"'),
        text('", "', before='"', after='"'),
    ],
)
def test_the_same_table_is_read_however_it_is_written(read, content):
    assert cells(read(content)) == LINES


@pytest.mark.parametrize(("name", "pack"), [("t.csv.gz", gzip), ("t.csv.bz2", bz2), ("t.csv.xz", lzma)])
def test_packed_tables_are_read(read, name, pack):
    assert cells(read(pack.compress(text().encode()), name)) == LINES
    with pytest.raises(InputError, match="should be a readable CSV file, but"):
        read(pack.compress(text().encode())[:-20], name)
    with pytest.raises(InputError, match="should be a readable CSV file, but"):
        read(text(), name)


def test_quotes_keep_separators_line_breaks_and_quotes(read):
    table = read('galaxy_id,note\n"A, 1","two\nlines"\nB,"a ""b"""\n')
    assert cells(table)[1:] == [("A, 1", "two\nlines"), ("B", 'a "b"')]


@pytest.mark.parametrize("spelled", ["Galaxy_ID", "GALAXY_ID", "galaxy id", "galaxy-id", "GalaxyID", " galaxy_id "])
def test_known_names_may_be_spelled_otherwise(read, spelled):
    assert read(f"{spelled},View,Mag\n1,2,3\n").columns.tolist() == ["galaxy_id", "view", "Mag"]


def test_a_table_of_one_column_needs_no_separator(read):
    assert read("galaxy_id\n7\n8\n")["galaxy_id"].tolist() == ["7", "8"]
    assert read('galaxy_id\n"a;b"\n')["galaxy_id"].tolist() == ["a;b"]
    assert read("galaxy_id\n").empty


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("image,galaxy_id,mag\n0,7,21.5,\n1,7,21.6,\n", "in its header, 3, got 4 in line 2; take away the ','"),
        ("image;galaxy_id\n0;7\n1;7;\n", "in its header, 2, got 3 in line 3; take away the ';' at the end"),
        ("galaxy_id\n7,\n7,\n", "in its header, 1, got 2 in line 2"),
        ("galaxy_id\n7\n7;past\n", "in its header, 1, got 2 in line 3"),
        ("galaxy_id,mag\nr0,7,21.5\n", "in its header, 2, got 3 in line 2; put text that holds ',' in double quotes"),
        ("# c\n\ngalaxy_id,mag\n7,1\nNGC 1, NGC 2,3\n", "got 3 in line 5"),
        ('galaxy_id,mag\n"a\nb",1\n7\n', "got 1 in line 4; write fields that are not known as empty ones"),
        ("galaxy_id,mag,mag\n7,1,2\n", "each column once, got mag twice"),
        ("galaxy_id,mag, mag \n7,1,2\n", "each column once, got mag twice"),
        ("galaxy_id,Galaxy_ID\n7,1\n", "each column once, got galaxy_id twice"),
        ("id,mag\n7,1\n", "a column galaxy_id, .* got columns id, mag"),
        ("galaxy_id mag\n7 1\n", "separated by commas, semicolons, tabs or |, got columns galaxy_id mag"),
        ("# %ECSV 1.0\n# ---\n# - {name: galaxy_id}\ngalaxy_id mag\n7 1\n", "got columns galaxy_id mag"),
        ("", "got columns none"),
        ("\n \n", "got columns none"),
        ('galaxy_id,mag\n7,"1\n8,2\n', "readable CSV file, but: unexpected end of data in line 3"),
        ('galaxy_id,mag\n"7"8,1\n', "readable CSV file, but: .* in line 2"),
        ("galaxy_id,mag\n7," + "9" * 200_000 + "\n", "readable CSV file, but: field larger than"),
        ("galaxy_id,name\n7,André\n".encode("latin-1"), "CSV file in UTF-8, but: .* save it as such"),
        (text().encode("utf-16"), "CSV file in UTF-8"),
        (text().encode("utf-16-le"), "a null character in line 1; save it as text"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_without_a_guess_is_refused(read, content, said):
    with pytest.raises(InputError, match=said) as refused:
        read(content)
    assert "\n" not in str(refused.value)


def test_missing_files_and_folders_are_explained(tmp_path):
    for path in (tmp_path / "no.csv", tmp_path):
        with pytest.raises(InputError, match=f"split table {path} should be a readable CSV file, but"):
            tables.read(path, "split table", ["row"])


def test_what_pandas_writes_comes_back(read):
    table = pd.DataFrame({"galaxy_id": ["NA", "a,b", 'say "x"', "-1"], "view": ["0", "1", "", "3"]}, dtype="str")
    pd.testing.assert_frame_equal(read(table.to_csv(index=False)), table)
    pd.testing.assert_frame_equal(read(table.to_csv()), table)
