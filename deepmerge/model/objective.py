"""What a search improves: the validation score of networks with some settings, after training on each split."""

from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np

from deepmerge import config
from deepmerge.data import protocols
from deepmerge.data.dataset import Dataset
from deepmerge.data.splits import Split
from deepmerge.model.training import train

Report = Callable[[int, float, Mapping[str, float]], None]


# Galaxies of the rarer class among those that validate, below which their scores are too much a matter of luck to
# choose settings by, and folds take their place: each galaxy outside the test validates once. Three cost three times a
# single split, and leave two thirds of these galaxies to train on.
ENOUGH, FOLDS = 50, 3


def default_folds(data: Dataset, split: Split) -> int:
    """How many folds a search takes unless told: 1, the split itself, where enough galaxies validate."""
    rows = split.validation.rows
    fewest = min(len(np.unique(data.galaxies[rows[data.labels[rows] == label]])) for label in (0, 1))
    return 1 if fewest >= ENOUGH else FOLDS


def parts(data: Dataset, split: Split, folds: int) -> list[Split]:
    """What each trial trains on: the split itself, or its folds. Raises InputError for too few galaxies."""
    return [split] if folds == 1 else protocols.folds(data, split, folds)


def measure(
    data: Dataset,
    parts: Sequence[Split],
    network: config.Network,
    training: config.Training,
    objective: str,
    report: Report,
) -> float:
    """Train on each of `parts`; the mean of the objective (validation log_loss or auc) at the epochs kept.

    `report` is called after each epoch with its number among all, the mean if this were the last one, and the
    measures of the training.
    """
    name = f"val_{objective}"
    scores: list[float] = []

    def on_epoch(epoch: int, values: Mapping[str, float]) -> None:
        step = len(scores) * training.epochs + epoch
        report(step, float(np.mean([*scores, values[name]])), values)

    for part in parts:
        keras.utils.clear_session()  # or each trial would leave its graphs in memory
        trained = train(data, part, network, training, on_epoch)
        scores.append(trained.history[name][trained.best_epoch - 1])
    return float(np.mean(scores))
