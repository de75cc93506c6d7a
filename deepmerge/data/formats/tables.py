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


def read(path: Path, what: str, needed: Sequence[str | Sequence[str]], known: Sequence[str] = ()) -> pd.DataFrame:
    """Read a table with a header into columns of text, stripped of blanks; empty cells are "".

    Separators are commas, semicolons, tabs or bars, whichever divides the header into the `needed` names; lines of
    comment (#) may precede it, and columns without a name are left out. A header may spell `needed` and `known` names
    in capitals, or with blanks or hyphens. In place of a needed name, a list of them wants one of these. `what` names
    the table in messages.

    Raises InputError for a file that cannot be read, a header without the needed names or with one twice, and a line
    with more or fewer fields than the header: nothing tells to which columns they belong.
    """
    lines = _lines(path, what)
    alternatives = [[names] if isinstance(names, str) else list(names) for names in needed]
    spelled = {plain(name): name for name in (*(names[0] for names in alternatives if len(names) == 1), *known)}
    start, separator = _header(lines, path, what, alternatives, spelled)
    names = _names(lines[start], separator, spelled)
    named = [name for name in names if name]
    repeated = next((name for name in named if named.count(name) > 1), None)
    if repeated is not None:
        raise InputError(f"{what} {path} should have each column once, got {repeated} twice; rename or drop one")
    rows = list(_rows(lines, start, separator, len(names), path, what))
    columns = zip(*rows, strict=True) if rows else ((),) * len(names)
    cells = {name: [cell.strip() for cell in column] for name, column in zip(names, columns, strict=True) if name}
    return pd.DataFrame(cells, dtype="str")


def plain(text: str) -> str:
    """A word without what people spell differently: capitals, blanks, hyphens and underscores."""
    return re.sub(r"[\s_-]", "", text).casefold()


def _lines(path: Path, what: str) -> list[str]:
    try:
        with _OPENERS.get(path.suffix, open)(path, "rb") as file:
            text = file.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{what} {path} should be a CSV file in UTF-8, but: {error}; save it as such") from None
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise InputError(f"{what} {path} should be a readable CSV file, but: {error}") from None
    return list(io.StringIO(text, newline=""))


def _reader(lines: Sequence[str], separator: str) -> Any:
    return csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=True)


def _names(line: str, separator: str, spelled: dict[str, str]) -> list[str]:
    """The column names that a header holds, as `spelled` where they are known; none where it cannot be divided."""
    try:
        names = [name.lstrip("#").strip() for name in next(_reader([line], separator))]
    except csv.Error:
        return []
    return [spelled.get(plain(name), name) for name in names]


def _header(
    lines: Sequence[str], path: Path, what: str, needed: list[list[str]], spelled: dict[str, str]
) -> tuple[int, str]:
    """Place of the header among the lines, and what separates its names."""
    found: list[str] = []
    for start, line in enumerate(lines):
        if not line.strip():
            continue
        names = {separator: _names(line, separator, spelled) for separator in SEPARATORS}
        fitting = [separator for separator in SEPARATORS if _holds(names[separator], needed)]
        if fitting:
            # A name that stands alone fits them all; the other lines tell.
            body = lines[start + 1 :]
            return start, max(fitting, key=lambda s: (len(names[s]), any(s in line.strip() for line in body)))
        found = max(names.values(), key=len)
        if not line.startswith("#"):
            break
    raise InputError(
        f"{what} {path} should have in its first line {' and '.join(f'a column {names[0]}' for names in needed)}, "
        f"separated by commas, semicolons, tabs or |, got columns {', '.join(found) or 'none'}"
    )


def _holds(names: list[str], needed: list[list[str]]) -> bool:
    """Whether one of each list of names is there, in whatever spelling."""
    there = {plain(name) for name in names}
    return all(any(plain(name) in there for name in alternatives) for alternatives in needed)


def _rows(lines: Sequence[str], start: int, separator: str, width: int, path: Path, what: str) -> Iterator[list[str]]:
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
                    f"{what} {path} should have as many fields in each line as in its header, {width}, "
                    f"got {len(row)} in line {start + 1 + reader.line_num}; {mend}"
                )
            yield row
    except csv.Error as error:
        line = start + 1 + reader.line_num
        raise InputError(f"{what} {path} should be a readable CSV file, but: {error} in line {line}") from None
