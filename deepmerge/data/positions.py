"""Catalogues of objects on the sky, in whichever format: cells of text, RA and Dec in degrees.

CSV (also packed), ECSV, FITS tables, VOTable and Parquet. Ids stay as they are written. Names of columns are read
without regard to case, blanks, ``_`` and ``-``.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from deepmerge.data import catalogue as catalogues
from deepmerge.data.formats import fits_file, fits_table, tables
from deepmerge.errors import InputError

RA = ("ra", "ra deg", "right ascension", "raj2000", "ra icrs", "alpha j2000")
DEC = ("dec", "dec deg", "declination", "dej2000", "decj2000", "de icrs", "delta j2000")
FORMATS = {".ecsv": "ascii.ecsv", ".vot": "votable", ".votable": "votable", ".xml": "votable"}
LIMITS = {"ra": (-180, 360), "dec": (-90, 90)}
PARQUET = (".parquet", ".pq")


def read(path: Path) -> pd.DataFrame:
    """The cells of a catalogue as text, "" where one is empty; columns galaxy_id, ra and dec first, then the others.

    ra, dec: (n,) float64 in degrees (ICRS), whatever the file has them in: degrees, another unit that the file names,
    or sexagesimal, RA in hours then. galaxy_id: the first of `fits_table.IDS` that there is, else absent. Raises
    InputError for a file that cannot be read, without positions, or with positions that are none.
    """
    cells, units = _cells(path, "ra", "dec")
    ra_name, dec_name = named(cells, RA), named(cells, DEC)
    if ra_name is None or dec_name is None:
        raise InputError(
            f"catalogue {path} should have columns ra and dec in degrees, got {', '.join(cells.columns) or 'none'}; "
            "name them so"
        )
    ra = _degrees(cells[ra_name], units.get(ra_name), "ra", path)
    dec = _degrees(cells[dec_name], units.get(dec_name), "dec", path)
    others = cells.drop(columns=[ra_name, dec_name])
    identity = named(others, fits_table.IDS)
    found = others if identity is None else others.drop(columns=identity)
    found.insert(0, "ra", ra)
    found.insert(1, "dec", dec)
    if identity is not None:
        found.insert(0, "galaxy_id", cells[identity])
    return found


def identities(path: Path, count: int) -> pd.DataFrame:
    """galaxy_id, ra and dec of `count` images, those of them that a catalogue with a row an image has, in this order.

    Ids as `catalogue.identities` has them. Raises InputError for another number of rows, for none of these columns, and
    for what `read` refuses.
    """
    cells, units = _cells(path, "galaxy_id")
    if len(cells) != count:
        raise InputError(f"catalogue {path} should have {count} rows, one for each image, got {len(cells)}")
    found: dict[str, Any] = {}
    if (name := named(cells, fits_table.IDS)) is not None:
        found["galaxy_id"] = catalogues.identities(cells[name], path)
    for kind, wanted in (("ra", RA), ("dec", DEC)):
        if (name := named(cells, wanted)) is not None:
            found[kind] = _degrees(cells[name], units.get(name), kind, path)
    if not found:
        raise InputError(f"catalogue {path} should have galaxy_id, ra or dec, got {', '.join(cells.columns)}")
    return pd.DataFrame(found)


def named(cells: pd.DataFrame, wanted: Sequence[str]) -> str | None:
    """The column of a table that has the first of the `wanted` names, however it is spelled; None where none has."""
    plain = {tables.plain(name): name for name in reversed(cells.columns)}
    return next((plain[tables.plain(name)] for name in wanted if tables.plain(name) in plain), None)


def _cells(path: Path, *needed: str) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The columns of a file as text, and their units where it names any; `needed`: what a CSV's header should have."""
    if not path.is_file():
        raise InputError(f"catalogue expected at {path}, where there is no file")
    suffix = path.suffix.lower()
    if suffix in PARQUET:
        return _of_parquet(path), {}
    if suffix in FORMATS or (fits_file.plain_name(path.name) != path.name and ".csv" not in path.suffixes):
        return _of_astropy(path, FORMATS.get(suffix, "fits"))
    header = _header(path)
    return tables.read(path, "catalogue", header or needed), {}


def _header(path: Path) -> list[str]:
    """Names of ids and positions in the first line of a text file that has any: that is the header of its table."""
    if path.suffix in (".gz", ".bz2", ".xz"):
        return []
    known = {tables.plain(name) for name in (*RA, *DEC, *fits_table.IDS)}
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        for line in file:
            words = [word.strip(' "#\n') for word in re.split(r"[,;|\t]", line)]
            if found := [word for word in words if tables.plain(word) in known]:
                return found
            if line.strip() and not line.startswith("#"):
                break
    return []


def _of_parquet(path: Path) -> pd.DataFrame:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"catalogue {path} should be a Parquet file, but: {_line(error)}") from None
    return pd.DataFrame({name: _texts(table[name].to_pylist()) for name in table.column_names}, dtype=str)


def _of_astropy(path: Path, kind: str) -> tuple[pd.DataFrame, dict[str, Any]]:
    import warnings

    from astropy.table import Table
    from astropy.utils.exceptions import AstropyWarning

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AstropyWarning)
            warnings.simplefilter("ignore", UserWarning)  # units that FITS does not know
            table = Table.read(path, format=kind)
    except Exception as error:  # the readers raise whatever they meet
        raise InputError(f"catalogue {path} should be a table ({kind}), but: {_line(error)}") from None
    flat = [name for name in table.colnames if table[name].ndim == 1]
    return (
        pd.DataFrame({name: _texts(table[name].tolist()) for name in flat}, dtype=str),
        {name: table[name].unit for name in flat if table[name].unit is not None},
    )


def _texts(values: list[Any]) -> list[str]:
    """Cells as text: nothing for what is missing, floats to their last digit."""
    found = []
    for value in values:
        if isinstance(value, bytes):
            value = value.decode(errors="replace")
        missing = value is None or (isinstance(value, float) and np.isnan(value)) or np.ma.is_masked(value)
        found.append("" if missing else str(value).strip())
    return found


def _degrees(cells: pd.Series, unit: Any, kind: str, path: Path) -> np.ndarray:
    """Angles in degrees, (n,), all of them within the limits."""
    from astropy import units
    from astropy.coordinates import Angle

    angles = pd.to_numeric(cells, errors="coerce").to_numpy(float)
    undefined = np.flatnonzero(~np.isfinite(angles))
    if len(undefined) == len(cells) > 0:
        try:
            angles = np.array(Angle(cells.tolist(), unit=units.hourangle if kind == "ra" else units.deg).deg, float)
            undefined = np.flatnonzero(~np.isfinite(angles))
        except (ValueError, units.UnitsError, TypeError):
            pass
    elif unit is not None:
        try:
            angles = np.array((angles * unit).to_value(units.deg), float)
        except (units.UnitConversionError, TypeError):
            raise InputError(f"{kind} in {path} should be an angle, got the unit {unit}; give it in degrees") from None
    if len(undefined):
        raise InputError(
            f"{kind} in {path} should be degrees, or sexagesimal in every row, got {cells[undefined[0]]!r} in data row "
            f"{undefined[0]}"
        )
    limits = LIMITS[kind]
    wrong = np.flatnonzero((angles < limits[0]) | (angles > limits[1]))
    if len(wrong):
        raise InputError(
            f"{kind} in {path} should be degrees from {limits[0]} to {limits[1]}, got {cells[wrong[0]]!r} in data row "
            f"{wrong[0]} ({len(wrong)} such rows)"
        )
    return angles


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
