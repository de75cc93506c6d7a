"""Catalogues of objects on the sky, in whichever format: ids as they are written, RA and Dec in degrees."""

from pathlib import Path
from typing import Any

import pandas as pd

from deepmerge.data import catalogue as catalogues
from deepmerge.data.formats import any_table
from deepmerge.data.formats.columns import DEC, IDS, RA, degrees, find
from deepmerge.errors import InputError


def read(path: Path) -> pd.DataFrame:
    """The cells of a catalogue as text, "" where one is empty; columns galaxy_id, ra and dec first, then the others.

    ra, dec: (n,) float64 in degrees (ICRS), whatever the file has them in: degrees, another unit that the file names,
    or sexagesimal, RA in hours then. galaxy_id: the first of IDS that there is, else absent. Raises InputError for a
    file that cannot be read, without positions, or with positions that are none.
    """
    cells = any_table.read(path, "catalogue", [RA, DEC])
    found: dict[str, Any] = {}
    taken = []
    if (name := find(list(cells.columns), IDS)) is not None:
        found["galaxy_id"] = cells[name]
        taken.append(name)
    for kind, wanted in (("ra", RA), ("dec", DEC)):
        taken.append(str(find(list(cells.columns), wanted)))
        found[kind] = _angles(cells, taken[-1], kind, path)
        if (empty := found[kind].isna()).any():
            raise InputError(
                f"{kind} in {path} should be degrees in every row, got none in data row {empty.argmax()} "
                f"({empty.sum()} such rows)"
            )
    return pd.concat([pd.DataFrame(found), cells.drop(columns=taken)], axis=1)


def identities(path: Path, count: int) -> pd.DataFrame:
    """galaxy_id, ra and dec of `count` images, those of them that a catalogue with a row an image has, in this order.

    Ids as `catalogue.identities` has them. Raises InputError for another number of rows, for none of these columns, and
    for what `read` refuses.
    """
    cells = any_table.read(path, "catalogue", [(*IDS, *RA, *DEC)])
    if len(cells) != count:
        raise InputError(f"catalogue {path} should have {count} rows, one for each image, got {len(cells)}")
    found: dict[str, Any] = {}
    if (name := find(list(cells.columns), IDS)) is not None:
        found["galaxy_id"] = catalogues.identities(cells[name], path)
    for kind, wanted in (("ra", RA), ("dec", DEC)):
        if (name := find(list(cells.columns), wanted)) is not None:
            found[kind] = _angles(cells, name, kind, path)
    return pd.DataFrame(found)


def _angles(cells: pd.DataFrame, name: str, kind: str, path: Path) -> pd.Series:
    return pd.Series(degrees(cells[name], cells.attrs.get("units", {}).get(name), kind, path))
