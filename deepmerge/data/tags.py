"""What people said of images when they looked at them: which to leave out, and which galaxies bear the wrong label.

A table of tags has a line an image (`row`, counted from 0 in the arrays) or a galaxy (`galaxy_id`); where it has both,
they are compared. `deepmerge gallery` writes it; any CSV with these columns will do. A label belongs to a galaxy, so a
tag of one image that says another label says it of all images of its galaxy; an image is left out alone.
"""

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from deepmerge.data import catalogue as catalogues
from deepmerge.data.formats import any_table, tables
from deepmerge.errors import InputError

log = logging.getLogger(__name__)

WRONG, MERGER, NON_MERGER, ARTEFACT = "wrong label", "merger", "non-merger", "artefact"
# The tags, in the order of their keys in the gallery, and what they mean to an experiment.
TAGS: Mapping[str, str] = {
    WRONG: "relabel: the galaxy gets the other label",
    MERGER: "relabel: the galaxy is a merger",
    NON_MERGER: "relabel: the galaxy is no merger",
    ARTEFACT: "exclude: the image is left out",
    "unsure": "nothing; for yourself",
    "interesting": "nothing; for yourself",
}
COLUMNS = ("row", "galaxy_id", "label", "tag")  # of the table that the gallery writes


def read(path: Path, galaxy_id: pd.Series, what: str = "tag table") -> pd.DataFrame:
    """Read a table of tags of images whose galaxies are `galaxy_id` (N,): a line an image, columns row, tag and label.

    tag: one of TAGS, or as it is written, "" where there is none; label: the label that the line states, 0 or 1, NaN
    where it states none. Raises InputError for images and galaxies that are not there, for a row of another galaxy, an
    image that stands twice, and a table in which no line has one of TAGS although it has a column of that name.
    """
    cells = any_table.read(path, what, [("row", "galaxy_id")], COLUMNS)
    if "row" in cells:
        lines = _lines_of_rows(cells, galaxy_id, f"{what} {path}")
    else:
        lines = _lines_of_galaxies(cells, galaxy_id, f"{what} {path}")
    spelled = {tables.plain(tag): tag for tag in TAGS}
    found = pd.DataFrame({"row": lines[1]})
    said = cells.iloc[lines[0]].reset_index(drop=True)
    found["tag"] = said["tag"].map(lambda cell: spelled.get(tables.plain(cell), cell)) if "tag" in said else ""
    found["label"] = catalogues.classes(said["label"]).to_numpy(float) if "label" in said else np.nan
    if len(found) and "tag" in said and not found["tag"].isin(list(TAGS)).any():
        raise InputError(
            f"tag in {path} should be {', '.join(TAGS)} in some lines, got {', '.join(found['tag'].unique()[:6])}"
        )
    if (again := found["row"].duplicated()).any():
        raise InputError(f"{what} {path} should name each image once, got row {found['row'][again.argmax()]} again")
    found.attrs["tagged"] = "tag" in said
    return found


def excluded(path: Path, galaxy_id: pd.Series) -> np.ndarray:
    """Rows that a table leaves out, (k,) ascending: those tagged as ARTEFACT, or all of a table without tags."""
    found = read(path, galaxy_id, "exclude")
    chosen = found["tag"] == ARTEFACT if found.attrs["tagged"] else np.ones(len(found), bool)
    return np.sort(found.loc[chosen, "row"].to_numpy(np.int64))


def relabelled(path: Path, galaxy_id: pd.Series, labels: np.ndarray) -> np.ndarray:
    """Labels (N,) uint8 as a table corrects them: by its tags, or without tags by its column label.

    WRONG means the other label than the one that the line states, or than the present one where it states none. Raises
    InputError for a galaxy that is said to be both, and for a table without tags that has no label in a line.
    """
    found = read(path, galaxy_id, "relabel")
    if not found.attrs["tagged"]:
        if (missing := ~found["label"].isin([0, 1])).any():
            raise InputError(
                f"relabel {path} should have a column tag ({', '.join(TAGS)}), or a label, 0 or 1, in every line; got "
                f"neither for row {found['row'][missing.argmax()]}"
            )
        new = found["label"]
    else:
        stated = found["label"].where(found["label"].isin([0, 1]), labels[found["row"]])
        new = found["tag"].map({MERGER: 1.0, NON_MERGER: 0.0}).where(found["tag"] != WRONG, 1 - stated)
    said = pd.DataFrame({"galaxy": galaxy_id.to_numpy()[found["row"]], "label": new}).dropna()
    by_galaxy = said.groupby("galaxy", sort=False)["label"]
    if (both := by_galaxy.nunique() > 1).any():
        raise InputError(
            f"relabel {path} should say one label of each galaxy, but says both of galaxy {both.index[both][0]} "
            f"({int(both.sum())} such galaxies)"
        )
    changed = galaxy_id.map(by_galaxy.first()).to_numpy(float)
    return np.where(np.isnan(changed), labels, changed).astype(np.uint8)


def _lines_of_rows(cells: pd.DataFrame, galaxy_id: pd.Series, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Lines of a table that names images, and the row of each."""
    numbers = pd.to_numeric(cells["row"], errors="coerce")
    wrong = np.flatnonzero(~numbers.isin(np.arange(len(galaxy_id))))
    if len(wrong):
        raise InputError(
            f"row in {where} should be whole numbers from 0 to {len(galaxy_id) - 1}, got "
            f"{cells['row'][wrong[0]]!r} in data row {wrong[0]}"
        )
    rows = numbers.to_numpy(np.int64)
    if "galaxy_id" in cells:
        own = galaxy_id.iloc[rows].reset_index(drop=True)
        others = np.flatnonzero(~catalogues.agree(cells["galaxy_id"], own))
        if len(others):
            line = others[0]
            raise InputError(
                f"{where} should be made for these images in this order, but has galaxy {cells['galaxy_id'][line]!r} "
                f"for row {rows[line]}, where the data have {own[line]} ({len(others)} such rows); take the column row "
                "away if the galaxies are right"
            )
    return np.arange(len(rows)), rows


def _lines_of_galaxies(cells: pd.DataFrame, galaxy_id: pd.Series, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Lines of a table that names galaxies, each as often as its galaxy has images, and the rows of these."""
    rows_of = galaxy_id.astype(str).groupby(galaxy_id.astype(str)).indices
    names = catalogues.identities(cells["galaxy_id"], where).astype(str)
    unknown = np.flatnonzero(~names.isin(list(rows_of)))
    if len(unknown):
        raise InputError(
            f"galaxy_id in {where} should be of the images, got {names[unknown[0]]!r} in data row {unknown[0]}, which "
            f"is none of theirs ({len(unknown)} such rows)"
        )
    found = [np.sort(rows_of[name]) for name in names]
    lines = np.repeat(np.arange(len(found)), [len(rows) for rows in found])
    return lines, np.concatenate([np.empty(0, np.int64), *found]).astype(np.int64)
