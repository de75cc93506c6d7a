"""A split as a table: written for others, read back and compared with the data."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd

from deepmerge.data import catalogue as catalogues
from deepmerge.data.dataset import Dataset
from deepmerge.data.formats import tables
from deepmerge.data.transforms import TRANSFORMS, possible_transforms
from deepmerge.errors import InputError

log = logging.getLogger(__name__)

PARTS = ("train", "validation", "test")
COMPARED = ("galaxy_id", "label", "view", "stage")  # columns that the data have, too


def published(table: pd.DataFrame, dataset: Dataset) -> pd.DataFrame:
    """The table of a split as others get it: `described`, and in each row the fingerprint of the data."""
    return described(table, dataset).assign(data_fingerprint=dataset.fingerprint)


def described(table: pd.DataFrame, dataset: Dataset) -> pd.DataFrame:
    """The table with galaxy_id, view, stage and label of each of its rows beside it."""
    rows = table["row"].to_numpy()
    columns = dataset.catalogue.iloc[rows][["galaxy_id", "view", "stage"]].reset_index(drop=True)
    return pd.concat([table.reset_index(drop=True), columns, pd.Series(dataset.labels[rows], name="label")], axis=1)


def read(path: Path, dataset: Dataset, protocol: str) -> pd.DataFrame:
    """Read a split that was made before: split (train, validation, test), row and transform, (n, 3).

    What else `published` writes is compared with the data where it is there: rows are those of one order of images.
    Other images (another fingerprint) may take the split if a catalogue says that they show the same galaxies. Raises
    InputError where the table does not fit, and for the protocol 'galaxy' where a galaxy is in two parts.
    """
    table = tables.read(path, "split table", ["split", "row"], [*COMPARED, "transform", "data_fingerprint"])
    if set(table["split"]) != set(PARTS):
        raise InputError(
            f"split in {path} should be {', '.join(PARTS)}, each at least once, "
            f"got {', '.join(map(repr, table['split'].unique()[:6])) or 'no rows'}"
        )
    if "transform" not in table:
        table["transform"] = "0"
    table["row"] = _whole(table["row"], np.arange(len(dataset.labels)), path)
    table["transform"] = _whole(table["transform"], possible_transforms(dataset.images.shape), path)
    repeated = np.flatnonzero(table.duplicated(["row", "transform"]))
    if len(repeated):
        raise InputError(f"split table {path} should name each image once, got row {table['row'][repeated[0]]} again")
    _check_images(table, dataset, path)
    parts = table.assign(galaxy=dataset.galaxies[table["row"]]).groupby("galaxy")["split"].nunique()
    if protocol == "galaxy" and (parts > 1).any():
        galaxy = dataset.catalogue["galaxy_id"].to_numpy()[dataset.galaxies == parts.index[parts > 1][0]][0]
        raise InputError(
            f"split table {path} should keep each galaxy in one part, but galaxy {galaxy} is in several "
            f"({int((parts > 1).sum())} such galaxies); if that is what you want, say split: rows"
        )
    return table[["split", "row", "transform"]]


def _whole(cells: pd.Series, allowed: np.ndarray, path: Path) -> pd.Series:
    """A column of whole numbers, each one of `allowed`."""
    numbers = pd.to_numeric(cells, errors="coerce")
    wrong = np.flatnonzero(~numbers.isin(allowed))
    if len(wrong):
        few = len(allowed) <= TRANSFORMS
        among = f"one of {', '.join(map(str, allowed))}" if few else f"whole numbers from 0 to {allowed[-1]}"
        raise InputError(f"{cells.name} in {path} should be {among}, got {cells[wrong[0]]!r} in data row {wrong[0]}")
    return numbers.astype(np.int64)


def _check_images(table: pd.DataFrame, dataset: Dataset, path: Path) -> None:
    """Raise InputError where the table was made for other galaxies, or for these in another order."""
    expected = described(table[["row"]], dataset)
    for name in [name for name in COMPARED if name in table]:
        differ = np.flatnonzero(~_agree(table[name], expected[name]))
        if len(differ):
            line = differ[0]
            raise InputError(
                f"split table {path} should be made for {dataset.name} with its rows in this order, but has {name} "
                f"{table[name][line]!r} for row {expected['row'][line]}, where the data have {expected[name][line]} "
                f"({len(differ)} such rows); make it anew with 'deepmerge data split', or bring the old order back"
            )
    others = set(table.get("data_fingerprint", ())) - {dataset.fingerprint}
    if others and not (dataset.catalogued and {"galaxy_id", "label"} <= set(table)):
        raise InputError(
            f"split table {path} should be made for the images of {dataset.name} (fingerprint {dataset.fingerprint}), "
            f"got one made for others ({min(others)}), and without galaxy ids from a catalogue nothing tells whether "
            "they show the same galaxies; make it anew with 'deepmerge data split'"
        )
    if others:
        log.info("%s was made for other images than %s; galaxies and labels are the same", path, dataset.name)


def _agree(cells: pd.Series, values: pd.Series) -> np.ndarray:
    """Where the cells of a column of COMPARED, (n,), agree with the data; (n,) bool."""
    if values.name == "label":
        return np.asarray(catalogues.classes(cells) == values)
    if values.name == "stage":  # a catalogue may tell no more than 'merger', or may not have told more before
        stages = catalogues.stages(cells)
        vague = (stages == "merger") | (values == "merger")
        merging = (values != "non-merger") & stages.isin(["past", "future", "merger"])
        return np.asarray((stages == values) | vague & merging)
    return catalogues.agree(cells, values)
