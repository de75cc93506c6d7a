"""Tables in the formats that astronomers have, read into cells of text: CSV, ECSV, Parquet, FITS and VOTable."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from deepmerge.data.formats import fits_file, tables
from deepmerge.data.formats.columns import find
from deepmerge.errors import InputError

PARQUET, VOTABLE, ECSV = (".parquet", ".pq"), (".vot", ".votable", ".xml"), (".ecsv",)
TEXT = (".csv", ".tsv", ".txt")
SUFFIXES = (*TEXT, *PARQUET, *VOTABLE, *ECSV)


def is_table(path: Path) -> bool:
    """Whether a file is a table by its name; FITS, which may be one or not, is none here."""
    return path.name.lower().removesuffix(".gz").endswith(SUFFIXES)


def read(path: Path, what: str, needed: Sequence[str | Sequence[str]], known: Sequence[str] = ()) -> pd.DataFrame:
    """Read a table into columns of text, stripped of blanks, numbers as they are and nothing where there is none.

    `needed` names, or several of which one is needed, and `known` ones may be spelled in capitals, or with blanks or
    hyphens; `what` names the table in messages. Columns of more than a number or a text a row are left out.
    ``attrs["units"]`` are the units of columns, where the file names any. Raises InputError for a file that cannot be
    read, and one without the needed columns.
    """
    name = path.name.lower().removesuffix(".gz")
    with path.open("rb") if path.is_file() else _nothing(path, what) as file:
        start = file.read(7)
    units: dict[str, Any] = {}
    if name.endswith(PARQUET) or start.startswith(b"PAR1"):
        columns = _explained(_parquet, path, what, "Parquet")
    elif name.endswith(VOTABLE):
        columns, units = _explained(_votable, path, what, "VOTable")
    elif name.endswith(ECSV) or start == b"# %ECSV":
        columns, units = _explained(_ecsv, path, what, "ECSV")
    elif name.endswith(TEXT) or not fits_file.is_fits(path):
        return tables.read(path, what, needed, known)
    else:
        found = fits_file.read_table(path)
        if found is None:
            raise InputError(f"{what} {path} should hold a table, got a FITS file without one")
        columns, units = found
    table = as_text(columns, units)
    spelled = {name: find(known, [name]) or name for name in table.columns}
    table.columns = pd.Index(spelled.values())
    table.attrs["units"] = {spelled[name]: unit for name, unit in table.attrs["units"].items()}
    for names in needed:
        choices = [names] if isinstance(names, str) else names
        if find(list(table.columns), choices) is None:
            raise InputError(
                f"{what} {path} should have a column {' or '.join(choices)}, got {', '.join(table.columns) or 'none'}"
            )
    return table


def as_text(columns: Mapping[str, np.ndarray], units: Mapping[str, Any] | None = None) -> pd.DataFrame:
    """Columns (n,), perhaps masked, as cells of text; those of other shapes are left out. Units go into ``attrs``."""
    flat = {name: values for name, values in columns.items() if values.ndim == 1 and values.dtype.kind != "V"}
    table = pd.DataFrame({name.strip(): _cells(values) for name, values in flat.items()}, dtype="str")
    table.attrs["units"] = {name.strip(): str(unit) for name, unit in (units or {}).items() if unit and name in flat}
    return table


def _cells(values: np.ndarray) -> list[str]:
    missing, plain = np.ma.getmaskarray(values), np.ma.getdata(values)
    if plain.dtype.kind == "f":
        missing = missing | np.isnan(plain)
        if plain.dtype.itemsize < 8:
            # Beyond these digits neighbours were rounded to the same number; written so, nobody takes it for an id.
            large = np.abs(plain) >= 2 ** (np.finfo(plain.dtype).nmant + 1)
            digits = np.finfo(plain.dtype).precision - 1
            cells = [f"{v:.{digits}e}" if big else str(v) for v, big in zip(plain, large, strict=True)]
            return ["" if none else cell for cell, none in zip(cells, missing, strict=True)]
    words = (value.decode(errors="replace") if isinstance(value, bytes) else str(value) for value in plain.tolist())
    return ["" if none else word.strip() for word, none in zip(words, missing, strict=True)]


def _parquet(path: Path) -> dict[str, np.ndarray]:
    """Whole numbers stay whole beside nothing, which pandas would make floats of."""
    from pyarrow import parquet, types

    columns = {}
    table = parquet.ParquetFile(path).read()
    for name in table.column_names:
        column = table[name]
        if types.is_nested(column.type):
            continue
        if types.is_floating(column.type):
            columns[name] = column.to_numpy()
        else:
            missing = column.is_null().to_numpy()
            columns[name] = np.ma.array(np.array(column.to_pylist(), dtype=object), mask=missing)
    return columns


def _votable(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    from astropy.io.votable import parse_single_table

    return _of_astropy(parse_single_table(path).to_table(use_names_over_ids=True))


def _ecsv(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    from astropy.table import Table

    return _of_astropy(Table.read(path, format="ascii.ecsv"))


def _of_astropy(table: Any) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    # A column that is more than an array (a time, a position) is left out.
    plain = [name for name in table.colnames if isinstance(table[name], np.ndarray)]
    return {name: _array(table[name]) for name in plain}, {name: table[name].unit for name in plain}


def _array(column: Any) -> np.ndarray:
    values = np.ma.asarray(column) if np.ma.isMaskedArray(column) else np.asarray(column)
    return np.ma.array(np.ma.getdata(values), mask=np.ma.getmaskarray(values))


def _explained(read: Any, path: Path, what: str, kind: str) -> Any:
    """What `read` gives; whatever the reader of a format raises on a broken file, which is much, as an InputError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return read(path)
    except MemoryError:
        raise
    except Exception as error:
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{what} {path} should be a readable {kind} file, but: {said}") from error


def _nothing(path: Path, what: str) -> Any:
    raise InputError(f"{what} expected at {path}, where there is no file")
