"""What a gallery says of each image: columns of a data set, of a model's judgement, of a table."""

import numpy as np
import pandas as pd

from deepmerge.data.catalogue import NUMBERS, POSITION
from deepmerge.data.dataset import Dataset
from deepmerge.gallery.page import Column

Known = dict[str, np.ndarray]

CATEGORIES = 12  # different texts in a column that is taken for one of categories
LABELS = np.array(["non-merger", "merger"])
WORDS = ("galaxy_id", "view", "label", "split", "stage")  # columns that are no numbers even where they look like some
# In this order; others follow as they come.
HELP = {
    "row": "place in the arrays, counted from 0",
    "galaxy_id": "the same for all images of a galaxy",
    "label": "what the catalogue says, after data.relabel",
    "probability": "what the network says: from 0.5 on it calls the galaxy a merger",
    "error": "distance of the probability from the label: near 1, network and label contradict each other",
    "galaxy_error": "mean error of the galaxy's images: what a wrong label makes large in all of them",
    "uncertainty": "1 where the probability is 0.5, 0 where the network is sure",
    "views": "largest less smallest probability among the images of a galaxy",
    "models": "standard deviation of the probability over this and the newest other models of the same data and split",
    "anomaly": "distance from the training images in the features of the last hidden layer; above 1: farther than 99 % "
    "of the validation images",
    "unlike": "how far the pixels lie beyond those of training images; from 0.25 on they are unlike",
    "split": "train, validation or test; 'left out' by data.exclude",
}
TITLES = {"galaxy_id": "galaxy", "probability": "P(merger)", "m20": "M20", "log_mstar": "log stellar mass"}
TITLES |= {"galaxy_error": "error of the galaxy", "views": "disagreement of views", "models": "disagreement of models"}


def of_data(data: Dataset, rows: np.ndarray) -> Known:
    """What the data themselves say of these rows, by the name of the column."""
    table = data.catalogue.iloc[rows]
    known: Known = {
        "row": rows,
        "galaxy_id": table["galaxy_id"].astype(str).to_numpy(),
        "label": LABELS[data.labels[rows]],
        "stage": table["stage"].to_numpy(),
        "view": table["view"].astype(str).to_numpy(),
    }
    for name in (*NUMBERS, *POSITION):
        if name in table and table[name].notna().any():
            known[name] = table[name].to_numpy(float)
    return known


def of_scores(scores: pd.Series, data: Dataset, rows: np.ndarray) -> Known:
    """What probabilities, by row of the data, say of these rows; undefined for those that have none."""
    p = scores.reindex(rows).to_numpy(float)
    known: Known = {
        "probability": p,
        "error": np.abs(data.labels[rows] - p),
        "uncertainty": 1 - np.abs(2 * p - 1),
    }
    galaxies = data.galaxies[scores.index]
    errors = pd.Series(np.abs(data.labels[scores.index] - scores.to_numpy()))
    known["galaxy_error"] = errors.groupby(galaxies).mean().reindex(data.galaxies[rows]).to_numpy(float)
    of_galaxy = scores.groupby(galaxies)
    spread = (of_galaxy.max() - of_galaxy.min()).where(of_galaxy.size() > 1)
    if spread.notna().any():
        known["views"] = spread.reindex(data.galaxies[rows]).to_numpy(float)
    return known


def described(table: pd.DataFrame) -> list[Column]:
    """Columns of a table in the order of HELP, each of whatever kind its values are."""
    names = [name for name in HELP if name in table]
    return [_column(str(name), table[name]) for name in [*names, *(name for name in table if name not in names)]]


def _column(name: str, values: pd.Series) -> Column:
    title, text = TITLES.get(name, name.replace("_", " ")), HELP.get(name, "")
    there = values.notna() & (values.astype(str) != "")
    numbers = pd.to_numeric(values, errors="coerce")
    if name not in WORDS and there.any() and (numbers.notna() | ~there).all():
        return Column(name, title, "number", numbers.tolist(), text)
    is_category = name != "galaxy_id" and values.nunique() <= CATEGORIES
    return Column(name, title, "category" if is_category else "text", values.astype(str).tolist(), text)
