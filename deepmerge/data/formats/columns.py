"""What the columns of tables are called: the usual names, and those that an experiment file gives."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from deepmerge import config
from deepmerge.data.formats import tables
from deepmerge.errors import InputError

# Names are compared without regard to capitals, blanks, hyphens and underscores; the first that there is counts.
LABELS = ("label", "labels", "y", "class", "merger", "is merger", "ans")  # the last one of Galaxy10
IDS = (
    *("galaxy_id", "gal id", "subhalo id", "object id", "obj id", "source id", "target id", "id"),
    *("galaxy", "object", "name"),
)
FILES = ("file", "filename", "file name", "file path", "file loc", "path", "image", "image file", "image path")
RA = ("ra", "ra deg", "ra j2000", "right ascension", "alpha j2000", "ra icrs")
DEC = ("dec", "de", "dec deg", "dec j2000", "de j2000", "declination", "delta j2000", "de icrs")
USUAL = {"id": IDS, "label": LABELS, "file": FILES, "ra": RA, "dec": DEC}
OURS = {"id": "galaxy_id", "label": "label", "ra": "ra", "dec": "dec"}  # what they are called from here on
LIMITS = {"ra": (-180, 360), "dec": (-90, 90)}  # degrees


def find(names: Sequence[str], wanted: Sequence[str]) -> str | None:
    """The name that is the first of the wanted ones, in whatever spelling; None where there is none."""
    plain = {tables.plain(name): name for name in reversed(names)}
    return next((plain[tables.plain(name)] for name in wanted if tables.plain(name) in plain), None)


def wanted(what: str, asked: config.Columns) -> tuple[str, ...]:
    """The names that the column `what` (a key of USUAL) may have: the one asked for, or the usual ones."""
    name = getattr(asked, what)
    return USUAL[what] if name is None else (name,) if isinstance(name, str) else tuple(name)


def named(table: pd.DataFrame, asked: config.Columns, where: Path | str, labelled: bool = False) -> pd.DataFrame:
    """A table of text whose id, label, RA and Dec (degrees) are called galaxy_id, label, ra, dec, where it has them.

    Images that are `labelled` elsewhere need no label: only one that is asked for, or is called so, is taken.
    Raises InputError where it lacks a column that was asked for, has none of the usual names for the id but one that
    may be it, or holds an RA or Dec that is none.
    """
    names, units = list(table.columns), table.attrs.get("units", {})
    renamed = {}
    for what, ours in OURS.items():
        usual = what != "label" or not labelled or asked.label is not None
        name = find(names, wanted(what, asked) if usual else [ours])
        if name is None and getattr(asked, what) is not None:
            raise InputError(
                f"{where} should have a column {getattr(asked, what)}, as columns.{what} says, got {', '.join(names)}"
            )
        if name is not None:
            renamed[name] = ours
    # A column that bears our name, and is not the one that was asked for, has to make way.
    table = table.drop(columns=[name for name in names if name in renamed.values() and name not in renamed])
    table = table.rename(columns=renamed)
    if "galaxy_id" not in table:
        near = [name for name in names if tables.plain(name).endswith("id")]
        if near:
            raise InputError(
                f"{where} should have the galaxy's id, the same for all images of a galaxy, in a column galaxy_id, "
                f"got {', '.join(near)}; name the right one: columns: {{id: {near[0]}}}"
            )
    for name in LIMITS:
        if name in table:
            source = next((old for old, new in renamed.items() if new == name), name)
            angles = degrees(table[name], units.get(source), name, where)
            as_they_are = pd.to_numeric(table[name], errors="coerce") == angles
            table[name] = table[name].where(as_they_are, ["" if np.isnan(one) else repr(float(one)) for one in angles])
    return table


def degrees(cells: pd.Series, unit: object, kind: str, where: Path | str) -> np.ndarray:
    """Angles of text in degrees, (n,) float64, NaN where a cell is empty.

    `unit` is that of the column, where its file names one; cells that are all sexagesimal are hours for `kind` "ra",
    degrees for "dec". Raises InputError for what is no angle, or lies outside LIMITS.
    """
    from astropy import units
    from astropy.coordinates import Angle

    there = (cells != "").to_numpy()
    angles = np.array(pd.to_numeric(cells, errors="coerce"), float)
    undefined = there & ~np.isfinite(angles)
    if undefined.any() and (undefined == there).all():
        try:
            sexagesimal = units.hourangle if kind == "ra" else units.deg
            angles[there] = Angle(cells[there].tolist(), unit=sexagesimal).deg
            undefined = there & ~np.isfinite(angles)
        except (ValueError, units.UnitsError, TypeError):
            pass
    elif unit and not str(unit).lower().startswith("deg"):  # degrees, too, which astropy does not know
        try:
            one = units.Unit(unit)
            angles = angles * (15 if one == units.hour else one.to(units.deg))
        except (units.UnitConversionError, ValueError, TypeError):
            raise InputError(f"{kind} in {where} should be an angle, got the unit {unit}; give it in degrees") from None
    if undefined.any():
        row = int(np.argmax(undefined))
        raise InputError(
            f"{kind} in {where} should be degrees, or sexagesimal in every row, got {cells.iloc[row]!r} in data row "
            f"{row}"
        )
    low, high = LIMITS[kind]
    wrong = np.flatnonzero((angles < low) | (angles > high))
    if len(wrong):
        raise InputError(
            f"{kind} in {where} should be degrees from {low} to {high}, got {cells.iloc[wrong[0]]!r} in data row "
            f"{wrong[0]} ({len(wrong)} such rows); convert it, or name another column: columns: {{{kind}: …}}"
        )
    return angles
