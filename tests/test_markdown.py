import re

import pytest

from deepmerge.errors import InputError
from deepmerge.report.markdown import markdown_table, replace_between
from deepmerge.report.page import Table

TEXT = "# Title\n<!-- begin -->\nold\n<!-- end -->\nrest\n"
MARKERS = ("<!-- begin -->", "<!-- end -->")


def cells(line):
    """Split a line of a table where its bars are not escaped, and unescape."""
    inner = re.split(r"(?<!\\)(?:\\\\)*\|", line)[1:-1]
    return [re.sub(r"\\([\\|])", r"\1", cell.strip()) for cell in inner]


def test_a_table_is_written_aligned_with_its_caption_below():
    table = Table("Test images.", ["metric", "pristine"], [["AUC", "0.966 [0.939, 0.989]"], ["Brier", "undefined"]])
    assert markdown_table(table) == (
        "| metric | pristine             |\n"
        "| ------ | -------------------- |\n"
        "| AUC    | 0.966 [0.939, 0.989] |\n"
        "| Brier  | undefined            |\n"
        "\n"
        "Test images.\n"
    )


@pytest.mark.parametrize("text", ["a|b", r"a\|b", r"a\b", "||", ""])
def test_bars_and_backslashes_of_a_cell_do_not_end_it(text):
    lines = markdown_table(Table("", ["name", text], [["row", text]])).splitlines()
    assert cells(lines[0]) == ["name", text]
    assert cells(lines[2]) == ["row", text]


def test_a_cell_stays_on_its_line_and_brings_no_markup():
    written = markdown_table(Table("a <b> & c", ["x\ny"], [["<script>"]]))
    assert "| x y" in written
    assert "<" not in written
    assert "a &lt;b> &amp; c" in written


def test_what_stands_between_the_markers_is_replaced_and_nothing_else():
    assert replace_between(TEXT, *MARKERS, "new\n") == TEXT.replace("old", "new")
    assert replace_between(TEXT, *MARKERS, r"\1 \g<0>") == TEXT.replace("old", r"\1 \g<0>")


def test_replacing_twice_changes_nothing_more():
    once = replace_between("a <!-- begin --><!-- end --> b", *MARKERS, "\nnew")
    assert once == "a <!-- begin -->\nnew\n<!-- end --> b"
    assert replace_between(once, *MARKERS, "\nnew") == once


@pytest.mark.parametrize(
    ("text", "new", "message"),
    [
        ("nothing", "new", "'<!-- begin -->' once, received it 0 times"),
        ("<!-- begin -->", "new", "'<!-- end -->' once, received it 0 times"),
        (TEXT + TEXT, "new", "once, received it 2 times"),
        ("<!-- end --> <!-- begin -->", "new", "received it before"),
        (TEXT, "<!-- end -->", "expected none of the markers"),
    ],
)
def test_markers_that_do_not_name_one_place_are_refused(text, new, message):
    with pytest.raises(InputError, match=re.escape(message)):
        replace_between(text, *MARKERS, new)
