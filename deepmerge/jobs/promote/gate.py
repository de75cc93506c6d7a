"""Whether a candidate replaces the reigning model: the verdict of the gate.

A test set wears out: of many models that are no better, the luckiest looks so on it. So each look, that is each model
that has been scored on these test galaxies, has less of the error to spend: look k may promote falsely with a
probability of ERROR / (k (k + 1)), and all of them together, however many, with ERROR.
"""

from dataclasses import dataclass

import numpy as np

from deepmerge.analysis import metrics
from deepmerge.analysis.metrics import WITHOUT_INTERVAL
from deepmerge.analysis.sample import LEVEL
from deepmerge.errors import InputError
from deepmerge.estimate import METRICS, UNDEFINED, Estimate

DECISIVE = tuple(name for name, metric in METRICS.items() if metric.better and name not in WITHOUT_INTERVAL)
ERROR = (1 - LEVEL) / 2  # of promoting a model that is no better
PROMOTED, REFUSED, FORCED = "promoted", "refused", "forced"
TRIVIAL = "the trivial classifier (0.5 for every image)"


@dataclass(frozen=True)
class Verdict:
    """What the gate decided, and why.

    candidate, reigning: the metric with its 95 % interval on `images` test images of `galaxies` galaxies; difference:
    candidate − reigning with the interval that decides, of `level`. Where images are 0 nothing was measured, and all
    three are NaN. look: how many models have been scored on these images, this one included. against: the model to
    beat, in words.
    """

    metric: str
    candidate: Estimate
    reigning: Estimate
    difference: Estimate
    against: str
    decision: str
    reason: str
    images: int = 0
    galaxies: int = 0
    look: int = 1

    @property
    def level(self) -> float:
        """Of the interval of the difference."""
        return level_at(self.look)


def check_metric(metric: str) -> None:
    """Raise InputError unless `metric` is one that can decide a promotion: those of DECISIVE."""
    if metric not in DECISIVE:
        why = ", whose differences have no interval to decide by" if metric in WITHOUT_INTERVAL else ""
        raise InputError(f"metric should be one of: {', '.join(DECISIVE)}; got {metric!r}{why}")


def level_at(look: int) -> float:
    """Of the interval that decides at a look, counted from 1."""
    return 1 - 2 * ERROR / (look * (look + 1))


def judge(
    labels: np.ndarray,
    candidate: np.ndarray,
    reigning: np.ndarray | None,
    galaxies: np.ndarray,
    metric: str,
    against: str = TRIVIAL,
    force: str | None = None,
    look: int = 1,
    folds: np.ndarray | None = None,
) -> Verdict:
    """Compare two models on the same images: promoted when the interval of the difference is all better.

    labels: (n,) 0 or 1 = merger; candidate, reigning: (n,) probabilities of a merger, `reigning` None for the trivial
    classifier, which gives 0.5 to every image; galaxies: (n,) ids. `against` names the reigning model in the reason;
    `force` is a reason to promote a candidate that would be refused; `look`: how many models have been scored on these
    images, the candidate included, which says the level of the interval; folds: (n,) where the scores are those of
    several networks, each of the images of one fold. Raises InputError for an unknown metric.
    """
    check_metric(metric)
    theirs = np.full(len(labels), 0.5) if reigning is None else reigning
    change = metrics.difference(labels, candidate, theirs, galaxies, folds, level=level_at(look))[metric]
    measured = [metrics.evaluate(labels, scores, galaxies, folds) for scores in (candidate, theirs)]
    ours, its = (evaluation.metrics[metric] for evaluation in measured)
    decision = _decide(*_finding(metric, change, against, look), force)
    return Verdict(metric, ours, its, change, against, *decision, len(labels), len(np.unique(galaxies)), look)


def without_comparison(metric: str, objection: str, against: str = "", force: str | None = None) -> Verdict:
    """The verdict where nothing can be measured: refused because of `objection`, unless forced."""
    check_metric(metric)
    return Verdict(metric, UNDEFINED, UNDEFINED, UNDEFINED, against, *_decide(False, objection, force))


def _decide(better: bool, finding: str, force: str | None) -> tuple[str, str]:
    if better:
        return PROMOTED, finding
    return (REFUSED, finding) if force is None else (FORCED, f"{finding}; forced: {force}")


def _finding(metric: str, change: Estimate, against: str, look: int) -> tuple[bool, str]:
    """Whether the candidate is better beyond noise, and the finding in words."""
    name, sign = METRICS[metric]
    if not (np.isfinite(change.value) and change.has_interval):
        return False, f"the difference in {name} from {against} has no interval in this sample"
    difference = f"{change.text('+.4f')} ({percent(level_at(look))} interval)"
    worst, best = sorted((sign * change.low, sign * change.high))
    if worst > 0:
        return True, f"{name} is better than that of {against}: {difference}"
    if best < 0:
        return False, f"{name} is worse than that of {against}: {difference}"
    return False, f"{name} differs from that of {against} within noise: {difference}"


def percent(level: float) -> str:
    """A level in words, with as many digits as tell it from 100 %."""
    digits = max(0, int(np.ceil(-np.log10(1 - level))) - 1)
    return f"{f'{100 * level:.{digits}f}'.rstrip('0').rstrip('.')} %"
