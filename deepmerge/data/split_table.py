"""A split as a table, one line an image: written for others, and read again where it fits the data."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd

from deepmerge.data import catalogue as catalogues
from deepmerge.data.dataset import Dataset
from deepmerge.data.formats import tables
from deepmerge.data.turns import TRANSFORMS, possible_transforms
from deepmerge.errors import InputError

log = logging.getLogger(__name__)

PARTS = ("train", "validation", "test")
DATA_COLUMNS = ("galaxy_id", "label", "view", "stage")  # what the data themselves say of a row


def described(table: pd.DataFrame, dataset: Dataset) -> pd.DataFrame:
    """The table with galaxy_id, view, stage and label of each of its rows beside it."""
    rows = table["row"].to_numpy()
    columns = dataset.catalogue.iloc[rows][["galaxy_id", "view", "stage"]].assign(label=dataset.labels[rows])
    return pd.concat([table.reset_index(drop=True), columns.reset_index(drop=True)], axis=1)


def read(path: Path, dataset: Dataset, protocol: str) -> pd.DataFrame:
    """Read a split made before from a CSV with split (train, validation, test), row and perhaps transform.

    Further columns that `splits.published` writes are compared with the data, since rows are numbers in one order of
    images. Other images (another fingerprint) may take the split if a catalogue says that they show the same galaxies.
    Rows that the data exclude are left out.
    Raises InputError where the table does not fit, and for the protocol 'galaxy' where a galaxy is in two parts.
    """
    table = tables.read(path, "split table", ["split", "row"], [*DATA_COLUMNS, "transform", "data_fingerprint"])
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
    table = table[dataset.used[table["row"]]].reset_index(drop=True)
    parts = table.groupby(dataset.galaxies[table["row"]])["split"].nunique()
    if protocol == "galaxy" and (parts > 1).any():
        galaxy = dataset.catalogue["galaxy_id"].to_numpy()[dataset.galaxies == parts.index[parts > 1][0]][0]
        raise InputError(
            f"split table {path} should keep each galaxy in one part, but galaxy {galaxy} is in several "
            f"({int((parts > 1).sum())} such galaxies); if that is what you want, say split: rows"
        )
    return table


def _whole(cells: pd.Series, allowed: np.ndarray, path: Path) -> pd.Series:
    """A column of whole numbers, each one of `allowed`."""
    numbers = pd.to_numeric(cells, errors="coerce")
    wrong = np.flatnonzero(~numbers.isin(allowed))
    if len(wrong):
        few = len(allowed) <= TRANSFORMS
        expected = f"one of {', '.join(map(str, allowed))}" if few else f"whole numbers from 0 to {allowed[-1]}"
        raise InputError(f"{cells.name} in {path} should be {expected}, got {cells[wrong[0]]!r} in data row {wrong[0]}")
    return numbers.astype(np.int64)


def _check_images(table: pd.DataFrame, dataset: Dataset, path: Path) -> None:
    """Raise InputError where the table was made for other galaxies, or for these in another order."""
    expected = described(table[["row"]], dataset)
    for name in table.columns.intersection(list(DATA_COLUMNS)):
        differ = np.flatnonzero(~_agree(table[name], expected[name]))
        if len(differ):
            line = differ[0]
            raise InputError(
                f"split table {path} should be made for {dataset.name} with its rows in this order, but has {name} "
                f"{table[name][line]!r} for row {table['row'][line]}, where the data have {expected[name][line]} "
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
    """Where the cells of one of DATA_COLUMNS, (n,), agree with the data's values of the same rows; (n,) bool."""
    if values.name == "label":
        return np.asarray(catalogues.classes(cells) == values)
    if values.name == "stage":  # either catalogue may say 'merger' where the other knows past or future
        stages = catalogues.stages(cells)
        vague = (stages == "merger") | (values == "merger")
        both_mergers = (values != "non-merger") & stages.isin(["past", "future", "merger"])
        return np.asarray((stages == values) | vague & both_mergers)
    return catalogues.agree(cells, values)
