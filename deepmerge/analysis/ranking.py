"""Judge the predictions of several networks together, each on the fold of galaxies that it had not seen."""

from dataclasses import replace

import numpy as np
import pandas as pd

from deepmerge.analysis import metrics
from deepmerge.analysis.metrics import Evaluation
from deepmerge.analysis.sample import LEVEL
from deepmerge.estimate import Estimate

RANKING = ("auc", "average_precision", "average_precision_at_balance")


def evaluate(labels: np.ndarray, probabilities: np.ndarray, galaxies: np.ndarray, folds: np.ndarray) -> Evaluation:
    """As `metrics.evaluate`, but what measures a ranking (RANKING and the ROC curve) compares within folds only.

    The networks of two folds may be surer or less sure of everything; an image of one ranked against one of the other
    says nothing of either (Forman & Scholz 2010, SIGKDD Explor. 12, 49). folds: (n,) which of them tested an image.
    """
    evaluation = metrics.evaluate(labels, probabilities, galaxies)
    ranked = metrics.evaluate(labels, within_folds(probabilities, folds), galaxies)
    measured = {**evaluation.metrics, **{name: ranked.metrics[name] for name in RANKING}}
    return replace(evaluation, metrics=measured, true_positive_rate=ranked.true_positive_rate)


def difference(
    labels: np.ndarray,
    candidate: np.ndarray,
    reigning: np.ndarray,
    galaxies: np.ndarray,
    folds: np.ndarray,
    *,
    level: float = LEVEL,
) -> dict[str, Estimate]:
    """As `metrics.difference`, with rankings as in `evaluate`."""
    changes = metrics.difference(labels, candidate, reigning, galaxies, level=level)
    ours, theirs = (within_folds(scores, folds) for scores in (candidate, reigning))
    ranked = metrics.difference(labels, ours, theirs, galaxies, level=level)
    return {**changes, **{name: ranked[name] for name in RANKING}}


def over_seeds(
    labels: np.ndarray, probabilities: np.ndarray, galaxies: np.ndarray, folds: np.ndarray
) -> dict[str, Estimate]:
    """As `metrics.over_seeds`, with rankings as in `evaluate`."""
    measured = metrics.over_seeds(labels, probabilities, galaxies)
    ranked = metrics.over_seeds(labels, within_folds(probabilities, folds), galaxies)
    return {**measured, **{name: ranked[name] for name in RANKING}}


def within_folds(probabilities: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """The share of its fold's images that each probability, (n,) or (seeds, n), exceeds, half of the ties counted."""
    grouped = pd.DataFrame(np.atleast_2d(probabilities).T).groupby(np.asarray(folds))
    shares = (grouped.rank().to_numpy() - 0.5) / grouped.transform("size").to_numpy()[:, np.newaxis]
    return shares.T.reshape(np.shape(probabilities))
