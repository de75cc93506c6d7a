"""A catalogue: which galaxy each image shows, from which side, and what else is known of it; read and checked."""

import difflib
import logging
import re
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from deepmerge import config
from deepmerge.data.formats import any_table, columns, tables
from deepmerge.data.released import layout
from deepmerge.errors import InputError

log = logging.getLogger(__name__)

STAGES = ("past", "future", "merger", "non-merger")  # 'merger': a merger of unknown stage
NUMBERS = ("log_mstar", "concentration", "m20")  # quantities that studies ask about
POSITION = ("ra", "dec")
COLUMNS = ("galaxy_id", "view", "copy", "stage", *NUMBERS, *POSITION, "label", "row")
MISSING = ("", "nan", "na", "n/a", "null", "none", "<na>", "--")  # how programs write a number that is not known
EXACT = 2**53  # from here on a float no longer holds every whole number

_USUAL = config.Columns()
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,99}")  # as it is written in one way alone: '007' and '+7' are names
_NUMBER = re.compile(r"[+-]?([0-9]{1,99}(\.[0-9]{0,99})?|\.[0-9]{1,99})(e[+-]?[0-9]{1,3})?", re.IGNORECASE)
_CLASSES = {
    "true": 1,
    "false": 0,
    "merger": 1,
    "nonmerger": 0,
    "mergers": 1,
    "nonmergers": 0,
}  # labels that are words, by their plain spelling


def read(path: Path | None, labels: np.ndarray) -> pd.DataFrame:
    """The catalogue of images with these labels, (N,): N rows with at least galaxy_id, view, copy and stage.

    Without a file each image is a galaxy of its own, but for as many images as the release has. What a file does not
    say is filled in: no copies, views in their order, the stage as the label has it. Ids are whole numbers where all of
    them are, else text as it is written. Raises InputError where a file does not fit the labels or contradicts itself.
    """
    if path is not None:
        return from_table(table(path), labels, path)
    if len(labels) == layout.ROWS:
        return _complete(layout.layout_catalogue(), labels, "the release layout")
    log.warning("no catalogue: each of the %d images counts as a galaxy of its own", len(labels))
    return _complete(pd.DataFrame({"galaxy_id": np.arange(len(labels))}), labels, "the row numbers")


def table(path: Path, asked: config.Columns = _USUAL, labelled: bool = True) -> pd.DataFrame:
    """The cells of a catalogue file of any format, as text, by the names of COLUMNS; see `columns.named`."""
    cells = any_table.read(path, "catalogue", [columns.wanted("id", asked)], COLUMNS)
    return columns.named(cells, asked, path, labelled)


def from_table(cells: pd.DataFrame, labels: np.ndarray, where: Path | str = "the table given") -> pd.DataFrame:
    """The catalogue of images with these labels, (N,), from a table: filled in and checked as by `read`."""
    cells = cells.reset_index(drop=True)
    cells = cells.astype(object).where(cells.notna(), "").astype(str)
    if "galaxy_id" not in cells:
        raise InputError(f"the catalogue should have a column galaxy_id, got {', '.join(map(str, cells.columns))}")
    return _complete(_checked(cells, labels, where), labels, where)


def _complete(catalogue: pd.DataFrame, labels: np.ndarray, where: Path | str) -> pd.DataFrame:
    """The catalogue with the columns that a file may leave out, its stages and classes checked."""
    if "copy" not in catalogue:
        catalogue["copy"] = 0
    if "view" not in catalogue:
        catalogue["view"] = catalogue.groupby(["galaxy_id", "copy"]).cumcount()
    if "stage" not in catalogue:
        catalogue["stage"] = np.where(labels == 1, "merger", "non-merger")
    _check_stages(catalogue["stage"], labels, where)
    _check_classes(catalogue["galaxy_id"], labels, where)
    return catalogue


def identities(cells: pd.Series, path: Path | str) -> pd.Series:
    """Galaxy ids from the cells of a table: whole numbers if all are, else text. Raises InputError for floats that lost
    digits.
    """
    return _ids(cells, path)


def agree(cells: pd.Series, values: pd.Series) -> np.ndarray:
    """Where the cells of a table, (n,) text, say what `values`, (n,), are; (n,) bool. Numbers may be spelled freely."""
    texts, expected = cells.to_numpy(object), values.astype(str).to_numpy(object)
    same = texts == expected
    if pd.api.types.is_numeric_dtype(values):
        for i in np.flatnonzero(~same):
            same[i] = bool(_NUMBER.fullmatch(texts[i])) and Decimal(texts[i]) == Decimal(expected[i])
    return same


def classes(cells: pd.Series) -> pd.Series:
    """Labels from the cells of a table: 0 or 1 (or another number), NaN where a cell is no label."""
    words = cells.map({cell: _CLASSES.get(tables.plain(cell), np.nan) for cell in cells.unique()})
    return _or_nan(cells).fillna(words)


def stages(cells: pd.Series) -> pd.Series:
    """The cells of a table as STAGES spells them; those that are no stage as they are."""
    words = {tables.plain(stage): stage for stage in STAGES}
    return cells.map({cell: words.get(tables.plain(cell), cell) for cell in cells.unique()})


def _checked(cells: pd.DataFrame, labels: np.ndarray, path: Path | str) -> pd.DataFrame:
    """The columns of a catalogue from cells of text."""
    if len(cells) != len(labels):
        raise InputError(
            f"catalogue {path} should have {len(labels)} rows, one for each image, got {len(cells)} rows and columns "
            f"{', '.join(cells.columns)}"
        )
    for name in cells.columns.intersection(sorted({*COLUMNS} - {*NUMBERS, *POSITION})):
        if (row := _first(cells[name] == "")) is not None:
            raise InputError(f"catalogue {path} should be complete in {name}, got nothing in data row {row}")
    _check_rows(cells, labels, path)
    _warn_of_near_misses(cells, path)
    ids = _ids(cells["galaxy_id"], path)
    convert: dict[str, Callable[[pd.Series], pd.Series]] = {
        "galaxy_id": lambda _: ids,
        "copy": lambda column: _copies(column, ids, path),
        "stage": stages,
    }
    numbers = partial(_numbers, path=path)
    catalogue = pd.DataFrame({name: convert.get(name, numbers)(cells[name]) for name in cells.columns})
    if {"copy", "view"} <= set(catalogue):
        lost = int((catalogue.groupby(["galaxy_id", "view"])["copy"].min() > 0).sum())
        if lost:
            log.warning("%d views in %s are there as copies alone: a split by galaxy leaves these out", lost, path)
    return catalogue


def _check_rows(cells: pd.DataFrame, labels: np.ndarray, path: Path | str) -> None:
    """Raise InputError where the catalogue itself says that its rows are in another order than the arrays."""
    for name, values, numbers, mend in (
        ("row", np.arange(len(labels)), _or_nan, "count from 0 in the order of the arrays"),
        ("label", labels, classes, "bring both into the same order"),
    ):
        if name not in cells:
            continue
        wrong = numbers(cells[name]) != values
        if (row := _first(wrong)) is not None:
            raise InputError(
                f"{name} in {path} should be that of the arrays, {values[row]} in data row {row}, got "
                f"{cells[name][row]!r} ({wrong.sum()} such rows); {mend}, or give the column another name if it is no "
                f"{name} of these images"
            )


def _warn_of_near_misses(cells: pd.DataFrame, path: Path | str) -> None:
    spelled = {tables.plain(name): name for name in COLUMNS}
    for name in cells.columns.difference(list(COLUMNS)):
        for near in difflib.get_close_matches(tables.plain(name), spelled, 1, 0.8):
            log.warning("column %s of %s is not used; if it is the %s, call it so", name, path, spelled[near])


def _ids(cells: pd.Series, path: Path | str) -> pd.Series:
    """Galaxy ids: whole numbers if all are, also where a program wrote them as 12.0 or 1.2e+01; else text."""
    names = cells.unique().tolist()
    numbers = {name: Decimal(name) for name in names if _NUMBER.fullmatch(name)}
    floats = {name: number for name, number in numbers.items() if not name.lstrip("+-").isdigit()}
    whole = all(
        _INTEGER.fullmatch(name) or (name in floats and floats[name] == floats[name].to_integral_value())
        for name in names
    )
    for name, number in floats.items():
        rounded = "." in name and int(number.as_tuple().exponent) > 0  # as 1.23457e+11, by spreadsheets
        # Beside names, 12e45 may be one, as hashes are; 1.2e+46 is a number.
        if rounded or (abs(number) >= EXACT and (whole or re.search(r"[.+]", name))):
            raise InputError(
                f"galaxy_id in {path} should be whole numbers or text, got {name} in data row {_first(cells == name)}, "
                "a float that lacks digits, so that several galaxies may have become one; "
                "write the ids anew, from where they come, as whole numbers or text"
            )
    if whole:
        return pd.Series([int(numbers[name]) for name in cells])
    written: dict[Decimal, str] = {}
    for name, number in numbers.items():
        other = written.setdefault(number, name)
        if other != name and (other in floats or name in floats):
            raise InputError(
                f"galaxy_id in {path} should be written in one way, got {other} in data row {_first(cells == other)} "
                f"and {name} in data row {_first(cells == name)}; write all ids as whole numbers or text"
            )
    alike: dict[str, str] = {}
    for name in names:
        other = alike.setdefault("".join(name.split()).casefold(), name)
        if other != name:
            log.warning("%r and %r count as two galaxies in %s; they differ in blanks or capitals", other, name, path)
    return cells


def _copies(cells: pd.Series, ids: pd.Series, path: Path | str) -> pd.Series:
    """Number of the copy that each image is of another, 0 = the original; as read, False and True stay so."""
    words = cells.str.lower()
    copies = words == "true" if words.isin(["true", "false"]).all() else _or_nan(cells)
    if (row := _first(~(copies >= 0) | (copies % 1 != 0))) is not None:
        raise InputError(
            f"copy in {path} should be whole numbers, 0 for an original and 1, 2 … for its flipped or turned copies, "
            f"got {cells[row]!r} in data row {row}; leave the column out where there are no copies"
        )
    lost = ~ids.isin(ids[copies == 0])
    if (row := _first(lost)) is not None:
        raise InputError(
            f"copy in {path} should be 0 for one image of each galaxy at least, its original, got {cells[row]!r} in "
            f"data row {row} and no 0 for galaxy {ids[row]} ({ids[lost].nunique()} such galaxies); count from 0, or "
            "leave the column out where there are no copies"
        )
    return copies


def _numbers(cells: pd.Series, path: Path | str) -> pd.Series:
    """A column of numbers, NaN where one is missing; the text of a column that is none.

    Raises InputError for text in a column that should be numbers.
    """
    present = ~cells.str.lower().isin(MISSING)
    numbers = _or_nan(cells.where(present))
    row = _first(present & numbers.isna())
    if row is not None and cells.name in NUMBERS:
        raise InputError(
            f"{cells.name} in {path} should be numbers, empty where not known, got {cells[row]!r} in data row {row}"
        )
    return cells if row is not None or (cells.name == "view" and not present.all()) else numbers


def _check_stages(stages: pd.Series, labels: np.ndarray, where: Path | str) -> None:
    if (row := _first(~stages.isin(STAGES))) is not None:
        raise InputError(
            f"stage in {where} should be one of {', '.join(STAGES)}, got {stages[row]!r} in data row {row}"
        )
    wrong = (stages != "non-merger") != (labels == 1)
    if (row := _first(wrong)) is not None:
        raise InputError(
            f"stage and label should agree on what is a merger, but row {row} of {where} "
            f"has stage {stages[row]!r} and label {labels[row]} ({wrong.sum()} such rows)"
        )


def _check_classes(ids: pd.Series, labels: np.ndarray, where: Path | str) -> None:
    mixed = ids[pd.Series(labels).groupby(ids).transform("nunique") > 1]
    if len(mixed):
        rows = mixed.index[mixed == mixed.iloc[0]]
        other = rows[labels[rows] != labels[rows[0]]][0]
        raise InputError(
            f"the images of a galaxy should have one label, but galaxy {mixed.iloc[0]} has {labels[rows[0]]} in data "
            f"row {rows[0]} and {labels[other]} in data row {other} ({mixed.nunique()} such galaxies); "
            f"mend the labels, or the galaxy ids in {where}"
        )


def _or_nan(cells: pd.Series) -> pd.Series:
    """The numbers that cells hold, NaN where one holds none."""
    return pd.to_numeric(cells, errors="coerce")


def _first(condition: pd.Series) -> int | None:
    """The first row where a column (n,) is true, None where it never is."""
    return int(condition.argmax()) if condition.any() else None
