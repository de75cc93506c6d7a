"""Where the networks looked: the same mergers of the target, beside the map of each training."""

from collections.abc import Mapping

import keras
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from deepmerge.analysis import saliency
from deepmerge.data.batches import gather
from deepmerge.data.dataset import Dataset
from deepmerge.data.splits import Part, Split
from deepmerge.jobs import saliency_figures
from deepmerge.jobs.judged import SALIENCY_METHOD
from deepmerge.studies.transfer.table import LABELLED, NONE

GALAXIES = 5  # rows of the figure


def shown_mergers(other: Dataset, split: Split) -> Part:
    """Test mergers of the target for the saliency figure, one view each."""
    mergers = split.test[other.labels[split.test.rows] == 1]
    _, first = np.unique(other.galaxies[mergers.rows], return_index=True)
    return mergers[np.sort(first)[:: max(1, len(first) // GALAXIES)][:GALAXIES]]


def measure(model: keras.Model, other: Dataset, shown: Part) -> tuple[np.ndarray, np.ndarray]:
    """What spoke for a merger in these images of the target, (n, H, W), and their probabilities, (n,)."""
    images = gather(other.images, shown.rows, shown.transforms)
    probability = np.asarray(model(images, training=False))[:, 0]
    if not saliency.convolutions(model):
        return np.zeros(images.shape[:3]), probability
    found = saliency.maps(model, images, method=SALIENCY_METHOD)[:, 0]
    return saliency.displayed(found, SALIENCY_METHOD), probability


def figure(
    maps: Mapping[str, tuple[np.ndarray, np.ndarray]],
    table: pd.DataFrame,
    other: Dataset,
    shown: Part,
    note: str | None,
) -> Figure:
    """The maps of as many trainings as the figure holds: NONE, LABELLED, and the best of the others."""
    auc = table.set_index("training")["test_auc"].drop([NONE, LABELLED])
    best = set(auc.nlargest(saliency_figures.MOST_VARIANTS - 2).index)
    columns = [name for name in maps if name in best | {NONE, LABELLED}]
    images = gather(other.images, shown.rows, shown.transforms)
    galaxies = other.catalogue["galaxy_id"].to_numpy()[shown.rows]
    captions = [
        f"galaxy {galaxy}\nP(merger), in this order:\n" + " ".join(f"{maps[name][1][line]:.2f}" for name in columns)
        for line, galaxy in enumerate(galaxies)
    ]
    masks = None if other.masks is None else gather(other.masks[:, np.newaxis], shown.rows, shown.transforms)[..., 0]
    return saliency_figures.comparison(
        [images] * len(columns),
        [maps[name][0] for name in columns],
        captions,
        columns,
        masks=masks,
        filters=other.filters,
        title=f"Saliency maps of {other.name} ({saliency.METHODS[SALIENCY_METHOD].title})",
        note=note,
    )
