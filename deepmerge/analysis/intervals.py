"""95 % intervals in closed form, from what each galaxy adds to a number.

A number that is a smooth function of sums over galaxies scatters as its linear part does: the influences u of the
galaxies, whose sum has the variance Σ_strata I / (I − 1) Σ (u − ū)², I being the galaxies of a stratum. Galaxies are
what was drawn, not images, and the strata are the classes, as in `bootstrap`. For the AUC the influences are the
structural components of DeLong et al. (1988, Biometrics 44, 837), summed over the images of a galaxy (Obuchowski 1997,
Biometrics 53, 567).

Few galaxies know their own scatter badly, worse where a few of them make most of it. So the quantiles are Student's.
The degrees of freedom of a stratum are 2 I / (κ − 1), where κ is the kurtosis of its influences, since that is how
surely their variance is known (of normal ones, I), and at most I − 1; those of a sum are Satterthwaite's (1946, Biom.
Bull. 2, 110). Numbers with bounds are taken on a scale without any, the logit or the logarithm. How often these
intervals hold the truth is in docs/explanation/intervals.md and in tests/test_coverage.py.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from scipy import special, stats

from deepmerge.analysis.sample import LEVEL, Band, Sample

_STEP = 1e-30  # of a derivative by a complex number, which has no rounding error however small the step

Measure = Callable[[np.ndarray], Mapping[str, np.ndarray]]


class Linear(NamedTuple):
    """Numbers (…), and what each galaxy adds to their distance from the truth, (G, …)."""

    value: np.ndarray
    influence: np.ndarray

    def minus(self, other: "Linear") -> "Linear":
        """The difference to another number of the same galaxies."""
        return Linear(self.value - other.value, self.influence - other.influence)


class Error(NamedTuple):
    """Standard errors (…), and the degrees of freedom with which they are known; 0 where nothing scatters."""

    size: np.ndarray
    freedom: np.ndarray

    def half_width(self, level: float = LEVEL) -> np.ndarray:
        """Half of the interval of that level."""
        quantile = stats.t.ppf((1 + level) / 2, self.freedom)
        return np.where(self.size > 0, quantile * self.size, self.size)


def auc(sample: Sample) -> Linear:
    """The area under the ROC curve, ties counted half; NaN without both classes."""
    merger = sample.labels == 1
    p, mergers, others = sample.probabilities, merger.sum(), (~merger).sum()
    if not mergers or not others:
        return Linear(np.array(np.nan), np.full(sample.galaxy.max() + 1, np.nan))
    above = stats.rankdata(p)  # among all, less that among the own class: images of the other class that are below
    above[merger] -= stats.rankdata(p[merger])
    above[~merger] -= stats.rankdata(p[~merger])
    value = above[merger].sum() / (mergers * others)
    won = np.where(merger, above / others, 1 - above / mergers)
    return Linear(value, sample.sums((won - value) / np.where(merger, mergers, others)).sum(axis=1))


def average_precision(sample: Sample, at_balance: bool = False) -> Linear:
    """The average precision, not interpolated, where both classes weigh the same if `at_balance`; NaN without mergers.

    An image adds what it changes of the purity at its own threshold and at all lower ones.
    """
    labels, p, _, galaxy, _ = sample.ranked()
    merger = labels == 1
    ends = np.flatnonzero(np.diff(p, append=-1.0))
    run = np.searchsorted(ends, np.arange(len(p)))  # of equal probabilities, to which an image belongs
    mergers, others = np.float64(merger.sum()), np.float64((~merger).sum())
    with np.errstate(invalid="ignore", divide="ignore"):
        weight = mergers / others if at_balance else 1.0  # of a non-merger
        tp, fp = np.cumsum(merger)[ends], np.cumsum(~merger)[ends]
        called = tp + weight * fp
        purity, step = tp / called, np.diff(tp, prepend=0) / mergers
        value = (step * purity).sum()
        by_tp, by_fp = ((step * slope / called**2)[::-1].cumsum()[::-1] for slope in (weight * fp, -weight * tp))
        each = np.where(merger, (purity[run] - value) / mergers + by_tp[run], by_fp[run])
        if at_balance:
            by_weight = -(step * tp * fp / called**2).sum()
            each += by_weight * np.where(merger, 1 / others, -mergers / others**2)
    return Linear(value, np.bincount(galaxy, each))


def of_sums(totals: np.ndarray, measure: Measure) -> dict[str, Linear]:
    """What `measure` finds in sums over galaxies, `totals` (G, …).

    `measure` takes such sums (b, …) and returns arrays by name (b, …), made by sums, products, quotients and the like:
    it is also given complex numbers, from which the derivative is read.
    """
    whole = totals.sum(axis=0)
    scale = np.maximum(whole, 1)
    steps = np.eye(whole.size).reshape(-1, *whole.shape) * scale * _STEP * 1j
    with np.errstate(invalid="ignore", divide="ignore"):
        values, shifted = measure(whole[np.newaxis]), measure(whole + steps)
        relative = (totals / scale).reshape(len(totals), -1)
        return {
            name: Linear(value[0], np.tensordot(relative, shifted[name].imag / _STEP, axes=1))
            for name, value in values.items()
        }


def error(sample: Sample, influence: np.ndarray) -> Error:
    """The standard error of numbers with these influences (G, …); NaN where a class has a single galaxy."""
    if sample.has_single():
        nothing = np.full(influence.shape[1:], np.nan)
        return Error(nothing, nothing)
    strata = sample.strata()
    return total(*(_of_stratum(influence[strata == stratum]) for stratum in np.unique(strata)))


def of_one_sample(influence: np.ndarray) -> Error:
    """The standard error of numbers with these influences (I, …) of galaxies that were drawn as one sample."""
    return _of_stratum(influence)


def _of_stratum(influence: np.ndarray) -> Error:
    """The error of the sum of influences (I, …) of galaxies of one stratum; of a single one, what it is."""
    count = len(influence)
    if count == 1:
        return Error(np.abs(influence[0]), np.ones(influence.shape[1:]))
    squares = (influence - influence.mean(axis=0)) ** 2
    summed = squares.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        kurtosis = count * (squares**2).sum(axis=0) / summed**2
        freedom = np.fmin(count - 1, 2 * count / (kurtosis - 1))
    return Error(np.sqrt(count / (count - 1) * summed), freedom)


def total(*errors: Error) -> Error:
    """The error of a sum of independent parts."""
    variances = np.stack([each.size**2 for each in errors])
    freedoms = np.stack([each.freedom for each in errors])
    variance = variances.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return Error(np.sqrt(variance), variance**2 / (variances**2 / freedoms).sum(axis=0))


def bounded(value: np.ndarray, spread: Error, low: float = 0.0, high: float = 1.0) -> Band:
    """Numbers between two bounds with their intervals; none at a bound, where nothing scatters."""
    place = (value - low) / (high - low)
    with np.errstate(invalid="ignore", divide="ignore"):
        half = spread.half_width() / ((high - low) * place * (1 - place))
        ends = (low + (high - low) * special.expit(special.logit(place) + sign * half) for sign in (-1, 1))
        return Band(value, *ends).with_width()


def positive(value: np.ndarray, spread: Error) -> Band:
    """Numbers above 0 with their intervals."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        half = spread.half_width() / value
        return Band(value, value * np.exp(-half), value * np.exp(half)).with_width()


def difference(value: np.ndarray, spread: Error, most: float = np.inf, level: float = LEVEL) -> Band:
    """Differences, between −`most` and `most`, with their intervals."""
    half = spread.half_width(level)
    return Band(value, np.maximum(value - half, -most), np.minimum(value + half, most))


def p_value(value: np.ndarray, spread: Error) -> float:
    """How often a difference is as far from 0 by chance, on either side; NaN where nothing scatters."""
    return float(2 * stats.t.sf(np.abs(value) / spread.size, spread.freedom)) if spread.size > 0 else np.nan


def holm(p_values: np.ndarray) -> np.ndarray:
    """p-values adjusted for their number (Holm 1979, Scand. J. Stat. 6, 65); NaN stays NaN and does not count."""
    order = np.argsort(p_values)[: np.isfinite(p_values).sum()]  # NaN last
    adjusted = np.full(len(p_values), np.nan)
    steps = p_values[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted
