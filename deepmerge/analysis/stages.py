"""How well past mergers, future ones and non-mergers are told apart, with 95 % intervals over galaxies."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from deepmerge.analysis import checks, intervals
from deepmerge.analysis.sample import SMALLEST_PROBABILITY, Band, Sample
from deepmerge.errors import InputError
from deepmerge.estimate import Estimate

STAGES = ("past", "future", "non-merger")
# What runs call them, and people.
METRICS = {
    "stage_balanced_accuracy": "Balanced accuracy, three stages",
    "stage_log_loss_at_balance": "Log loss, three stages at balance",
    "past_or_future_auc": "AUC, past against future mergers",
    **{
        f"{stage.replace('-', '_')}_{metric}": f"{words}, {stage}"
        for stage in STAGES
        for metric, words in (("auc", "AUC against the rest"), ("completeness", "Completeness"), ("purity", "Purity"))
    },
}


@dataclass(frozen=True)
class Stages:
    """METRICS, and images[true, called], (3, 3), with their shares of the true stage, all in the order of STAGES."""

    metrics: dict[str, Estimate]
    confusion: np.ndarray
    confusion_fraction: Band


def evaluate(stages: Sequence[str], probabilities: ArrayLike, galaxies: ArrayLike) -> Stages:
    """Measure the probabilities of stages; an image is called what is most probable.

    stages: (n,) of STAGES; probabilities: (n, 3) in their order, in [0, 1]; galaxies: (n,) ids. Balanced accuracy is
    the mean completeness of the three, the log loss the mean of −ln of the true stage's probability, each stage
    weighing the same. `past_or_future_auc` ranks mergers by P(past) / P(merger). NaN where a stage is absent that a
    metric needs. Raises InputError for input that is not as above.
    """
    words, p, ids = np.asarray(stages), checks.unit_interval(probabilities), np.asarray(galaxies)
    if p.shape != (len(words), len(STAGES)):
        raise InputError(f"probabilities should have shape ({len(words)}, 3), one column a stage, got {p.shape}")
    if len(strange := words[~np.isin(words, STAGES)]):
        raise InputError(f"stages should be among {', '.join(STAGES)}, got {strange[0]!r}")
    true = np.array([STAGES.index(word) for word in words])
    sample = Sample.of(true != STAGES.index("non-merger"), p.max(axis=1), ids)
    confusion = np.eye(3)[true][:, :, None] * np.eye(3)[p.argmax(axis=1)][:, None]
    surprise = -np.log(np.maximum(p[np.arange(len(p)), true], SMALLEST_PROBABILITY))
    columns = np.concatenate([confusion, np.eye(3)[true][:, :, None] * surprise[:, None, None]], axis=2)
    found = intervals.of_sums(sample.sums(columns).sum(axis=1), _counted)
    ranked = {f"{stage.replace('-', '_')}_auc": _auc(true == k, p[:, k], ids) for k, stage in enumerate(STAGES)}
    mergers = sample.labels == 1
    share = np.divide(p[:, 0], p[:, 0] + p[:, 1], out=np.full(len(p), 0.5), where=p[:, 0] + p[:, 1] > 0)
    ranked["past_or_future_auc"] = _auc(true[mergers] == 0, share[mergers], ids[mergers])
    bands = {
        name: (intervals.positive if "log_loss" in name else intervals.bounded)(
            each.value, intervals.error(sample, each.influence)
        )
        for name, each in found.items()
    }
    metrics = {name: Estimate(*map(float, band)) for name, band in bands.items() if np.ndim(band.value) == 0}
    measured = metrics | ranked
    return Stages({name: measured[name] for name in METRICS}, confusion.sum(axis=0), bands["fraction"])


def _auc(labels: np.ndarray, probabilities: np.ndarray, galaxies: np.ndarray) -> Estimate:
    if len(np.unique(labels)) < 2:
        return Estimate(np.nan)
    sample = Sample.of(labels.astype(int), probabilities, galaxies)
    area = intervals.auc(sample)
    return Estimate(*map(float, intervals.bounded(area.value, intervals.error(sample, area.influence))))


def _counted(sums: np.ndarray) -> dict[str, np.ndarray]:
    """What needs no ranking, from sums (b, 3, 4) of each true stage: images by what they are called, and surprise."""
    images = sums[:, :, :3]
    fraction = images / images.sum(axis=2, keepdims=True)
    complete = np.stack([fraction[:, k, k] for k in range(3)], axis=1)
    pure = np.stack([images[:, k, k] / images[:, :, k].sum(axis=1) for k in range(3)], axis=1)
    names = [stage.replace("-", "_") for stage in STAGES]
    return {
        "fraction": fraction,
        "stage_balanced_accuracy": complete.mean(axis=1),
        "stage_log_loss_at_balance": (sums[:, :, 3] / images.sum(axis=2)).mean(axis=1),
        **{f"{name}_completeness": complete[:, k] for k, name in enumerate(names)},
        **{f"{name}_purity": pure[:, k] for k, name in enumerate(names)},
    }
