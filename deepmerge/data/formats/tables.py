"""Tables of text (CSV), read strictly: every cell as it is written, and none in another's column."""

import bz2
import csv
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from deepmerge.errors import InputError

SEPARATORS = (",", ";", "\t", "|")
_OPENERS: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


def read(path: Path, what: str, needed: Sequence[str | Sequence[str]], optional: Sequence[str] = ()) -> pd.DataFrame:
    """Read a table with a header into columns of text, stripped of blanks; empty cells are "".

    Separators are commas, semicolons, tabs or bars, whichever divides the header into the `needed` names; lines of
    comment (#) may precede it, and columns without a name are left out. A header may spell `needed` and `optional`
    names in capitals, or with blanks or hyphens. In place of a needed name, a list of them wants one of these. `what`
    names the table in messages.

    Raises InputError for a file that cannot be read, a header without the needed names or with one twice, and a line
    with more or fewer fields than the header: nothing tells to which columns they belong.
    """
    title = f"{what} {path}"
    lines = _lines(path, title)
    alternatives = [[names] if isinstance(names, str) else list(names) for names in needed]
    spelled = {plain(name): name for name in (*(names[0] for names in alternatives if len(names) == 1), *optional)}
    start, separator = _header(lines, title, alternatives, spelled)
    names = _names(lines[start], separator, spelled)
    repeated = next((name for name in names if name and names.count(name) > 1), None)
    if repeated is not None:
        raise InputError(f"{title} should have each column once, got {repeated} twice; rename or drop one")
    rows = list(_rows(lines, start, separator, len(names), title))
    table = pd.DataFrame(rows, columns=range(len(names)), dtype="str")
    table = table.loc[:, [bool(name) for name in names]].apply(lambda column: column.str.strip())
    return table.set_axis([name for name in names if name], axis=1)


def plain(text: str) -> str:
    """A word without what people spell differently: capitals, blanks, hyphens and underscores."""
    return re.sub(r"[\s_-]", "", text).casefold()


def _lines(path: Path, title: str) -> list[str]:
    try:
        with _OPENERS.get(path.suffix, open)(path, "rb") as file:
            text = file.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{title} should be a CSV file in UTF-8, but: {error}; save it as such") from None
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise InputError(f"{title} should be a readable CSV file, but: {error}") from None
    if "\0" in text:
        number = text[: text.index("\0")].count("\n") + 1
        raise InputError(f"{title} should be a CSV file, but holds a null character in line {number}; save it as text")
    return list(io.StringIO(text, newline=""))


def _reader(lines: Sequence[str], separator: str) -> Any:
    return csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=True)


def _names(line: str, separator: str, spelled: dict[str, str]) -> list[str]:
    """The column names in a header, in our spelling where they are ours; none where it cannot be divided."""
    try:
        names = [name.lstrip("#").strip() for name in next(_reader([line], separator))]
    except csv.Error:
        return []
    return [spelled.get(plain(name), name) for name in names]


def _header(lines: Sequence[str], title: str, needed: list[list[str]], spelled: dict[str, str]) -> tuple[int, str]:
    """Place of the header among the lines, and what separates its names."""
    columns: list[str] = []
    for start, line in enumerate(lines):
        if not line.strip():
            continue
        names = {separator: _names(line, separator, spelled) for separator in SEPARATORS}
        fitting = [separator for separator in SEPARATORS if _holds(names[separator], needed)]
        if fitting:
            # A name that stands alone fits them all; the other lines tell.
            body = lines[start + 1 :]
            return start, max(fitting, key=lambda s: (len(names[s]), any(s in line.strip() for line in body)))
        columns = max(names.values(), key=len)
        if not line.startswith("#"):
            break
    raise InputError(
        f"{title} should have in its first line {' and '.join(f'a column {names[0]}' for names in needed)}, "
        f"separated by commas, semicolons, tabs or |, got columns {', '.join(columns) or 'none'}"
    )


def _holds(names: list[str], needed: list[list[str]]) -> bool:
    """Whether one of each list of names is there, in whatever spelling."""
    there = {plain(name) for name in names}
    return all(any(plain(name) in there for name in alternatives) for alternatives in needed)


def _rows(lines: Sequence[str], start: int, separator: str, width: int, title: str) -> Iterator[list[str]]:
    reader = _reader(lines[start + 1 :], separator)
    try:
        for row in reader:
            if not row or (len(row) == 1 < width and not row[0].strip()):  # a blank line
                continue
            if len(row) != width:
                if len(row) < width:
                    mend = "write fields that are not known as empty ones"
                elif any(cell.strip() for cell in row[width:]):
                    mend = f"put text that holds {separator!r} in double quotes, and give each column a name"
                else:
                    mend = f"take away the {separator!r} at the end of the lines, or end the header with one, too"
                raise InputError(
                    f"{title} should have as many fields in each line as in its header, {width}, "
                    f"got {len(row)} in line {start + 1 + reader.line_num}; {mend}"
                )
            yield row
    except csv.Error as error:
        line = start + 1 + reader.line_num
        raise InputError(f"{title} should be a readable CSV file, but: {error} in line {line}") from None
