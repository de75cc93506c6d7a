"""Labels and catalogue from the table beside the images of a FITS file.

Names of columns are read without regard to case and to ``_``, ``-`` and blanks. The label is the first of LABELS that
there is, or the only column; the galaxy's id is the first of IDS. All columns of one number or text a row, other than
the label, go into the catalogue, in lower case.
"""

import logging

import numpy as np
import pandas as pd

from deepmerge.data.formats.columns import IDS, LABELS, find
from deepmerge.data.formats.fits_file import FitsFile, FitsTable
from deepmerge.data.formats.tables import plain
from deepmerge.errors import InputError

logger = logging.getLogger(__name__)


def read(file: FitsFile) -> tuple[np.ndarray, pd.DataFrame | None]:
    """Labels (N,) uint8, and a catalogue of N rows or None, from the first table with a row for each of the N images.

    The catalogue has a column galaxy_id: a row's number where no column is an id. Raises InputError where there is no
    such table or no label in it, a label is not 0 or 1, or an id is missing, no whole number, or too large for its
    floating-point column to hold exactly.
    """
    count = file.shape[0]
    table = next((table for table in file.tables if table.rows == count), None)
    if table is None:
        others = ", ".join(f"{table.rows} rows in {table.place}" for table in file.tables) or "none"
        raise InputError(f"Expected in {file.path} a table of labels, {count} labels for {count} images, got {others}.")
    columns = table.columns()
    name = next(iter(columns)) if len(columns) == 1 else find(list(columns), LABELS)
    if name is None:
        raise InputError(
            f"Expected in {table.place} of {file.path} a table of one column, the label, or with a column "
            f"{', '.join(LABELS)}, got {list(columns)}. Rename the column of the labels."
        )
    return _labels(table, columns.pop(name)), _catalogue(table, columns)


def _labels(table: FitsTable, values: np.ndarray) -> np.ndarray:
    if values.shape != (table.rows,) or np.ma.is_masked(values) or not np.isin(values, (0, 1)).all():
        raise InputError(
            f"Expected in {table.place} of {table.path} {table.rows} labels, 1 (merger) or 0, one an image, "
            f"got {values.size} of the values {np.unique(values)[:5].tolist()}."
        )
    return np.asarray(values).astype(np.uint8)


def _catalogue(table: FitsTable, columns: dict[str, np.ndarray]) -> pd.DataFrame | None:
    scalar = {name: values for name, values in columns.items() if values.ndim == 1 and values.dtype.kind in "biufU"}
    where = f"{table.place} of {table.path}"
    if left_out := [name for name in columns if name not in scalar]:
        logger.info("Not kept of %s, where they hold more than a number or a text: %s", where, ", ".join(left_out))
    if not scalar:
        return None
    name = find(list(scalar), IDS)
    if name is None:
        if unknown := [name for name in scalar if plain(name).endswith("id")]:
            raise InputError(
                f"Expected in {where} the galaxy's id in a column {', '.join(IDS)}, got {', '.join(unknown)}. Name "
                "the one that all images of a galaxy share galaxy_id."
            )
        logger.warning("No column of %s is a galaxy's id: each image counts as a galaxy of its own.", where)
        ids = np.arange(table.rows)
    else:
        ids = _ids(f"{name} in {where}", scalar.pop(name))
    catalogue: dict[str, np.ndarray | pd.Series] = {"galaxy_id": ids}
    for other, values in scalar.items():
        catalogue.setdefault(other.strip().lower(), _cells(values))
    return pd.DataFrame(catalogue)


def _ids(where: str, values: np.ndarray) -> np.ndarray:
    """Ids as whole numbers or text, none of them changed by a bit."""
    missing = np.ma.getmaskarray(values) | (values == "" if values.dtype.kind == "U" else np.asarray(pd.isna(values)))
    if missing.any():
        raise InputError(f"Expected an id in every row of {where}, got none in row {np.argmax(missing)} (from 0).")
    if values.dtype.kind == "b":
        raise InputError(f"Expected whole numbers or text as ids in {where}, got true and false.")
    if values.dtype.kind == "f":
        limit = 2 ** (np.finfo(values.dtype).nmant + 1)  # here neighbours begin to be rounded to the same number
        wrong = (np.abs(values) >= limit) | (values != np.round(values))
        if wrong.any():
            raise InputError(
                f"Expected whole numbers below {limit} as ids in {where}, which holds {values.dtype}, got "
                f"{values[wrong][0]}. Save ids as integers or text."
            )
        return values.astype(np.int64)
    return np.asarray(values)


def _cells(values: np.ndarray) -> np.ndarray | pd.Series:
    """Values as a CSV file should have them: 0 and 1 for false and true, nothing where there is none."""
    if values.dtype.kind == "b":
        return values.astype(np.uint8)
    if np.ma.is_masked(values):
        return pd.Series(np.asarray(values).astype(object)).mask(np.ma.getmaskarray(values))
    return np.asarray(values)
