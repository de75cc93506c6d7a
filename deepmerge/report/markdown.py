"""Tables of a report as Markdown, and putting them between the marks of a text such as README.md."""

from collections.abc import Sequence

from deepmerge.errors import InputError
from deepmerge.report.page import Table

# What would end a cell, or be taken for markup that hides what it names.
_ESCAPED = str.maketrans({"\\": r"\\", "|": r"\|", "<": "&lt;", "&": "&amp;", "\n": " "})


def markdown_table(table: Table) -> str:
    """Write a table as GitHub Flavored Markdown, its columns aligned, its caption as a paragraph below it."""
    lines = [[text.translate(_ESCAPED) for text in row] for row in (table.header, *table.rows)]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * width for width in widths]
    written = "".join(_line(cells, widths) for cells in (lines[0], rule, *lines[1:]))
    return f"{written}\n{table.caption.translate(_ESCAPED)}\n" if table.caption else written


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return f"| {' | '.join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))} |\n"


def replace_between(text: str, begin_marker: str, end_marker: str, new: str) -> str:
    """Put `new` on lines of its own between the two markers, in place of what stood there; once more changes nothing.

    Raises InputError unless either marker stands in `text` once, the end behind the begin, and neither in `new`.
    """
    for marker in (begin_marker, end_marker):
        if (count := text.count(marker)) != 1:
            raise InputError(f"text: expected the marker {marker!r} once, received it {count} times")
        if marker in new:
            raise InputError(f"new text: expected none of the markers, received {marker!r} in it")
    before, _, rest = text.partition(begin_marker)
    _, found, after = rest.partition(end_marker)
    if not found:
        raise InputError(f"text: expected {end_marker!r} behind {begin_marker!r}, received it before")
    return f"{before}{begin_marker}\n{new.strip()}\n{end_marker}{after}"
