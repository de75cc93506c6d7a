"""How far probabilities are from what happens, both classes weighing the same: in a line, and in one number.

Networks here train at balance, so this is where their probabilities should hold (`calibration`).
"""

import warnings

import numpy as np
from scipy.special import expit, logit

from deepmerge.analysis import intervals
from deepmerge.analysis.sample import SMALLEST_PROBABILITY, Sample, binned
from deepmerge.estimate import UNDEFINED, Estimate

INTERCEPT, SLOPE, SQUARED_ERROR = "calibration_intercept", "calibration_slope", "calibration_squared_error"


def measure(sample: Sample) -> dict[str, Estimate]:
    """INTERCEPT and SLOPE with 95 % intervals over galaxies, and SQUARED_ERROR; NaN where a class is absent.

    A calibrated model has 0, 1 and 0. A slope below 1 means that probabilities are too near to 0 and 1, an intercept
    above 0 that they are too low on the whole. The line is NaN where a threshold parts the classes without error.
    """
    images = sample.images().sum(axis=0)
    if not images.all():
        return dict.fromkeys((INTERCEPT, SLOPE, SQUARED_ERROR), UNDEFINED)
    weights = 0.5 / images[sample.labels]
    return {**_line(sample, weights), SQUARED_ERROR: Estimate(_squared_error(sample, weights))}


def _line(sample: Sample, weights: np.ndarray) -> dict[str, Estimate]:
    """The logit of what happens as a line in that of the probability (Cox 1958, Biometrika 45, 562).

    Its errors are robust to galaxies whose images go together: each adds its own score (Liang & Zeger 1986, Biometrika
    73, 13).
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    y, p = sample.labels, sample.probabilities
    x = logit(np.clip(p, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY))
    mergers, others = x[y == 1], x[y == 0]
    apart = others.max() <= mergers.min() or mergers.max() <= others.min()  # the best line is infinitely steep
    if apart or np.ptp(x) == 0:
        return dict.fromkeys((INTERCEPT, SLOPE), UNDEFINED)
    line = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            fitted = line.fit(x[:, None], y, sample_weight=weights * len(y))
        except ConvergenceWarning:  # the classes are as good as apart
            return dict.fromkeys((INTERCEPT, SLOPE), UNDEFINED)
    intercept, slope = float(fitted.intercept_[0]), float(fitted.coef_[0, 0])
    design = np.column_stack([np.ones_like(x), x])
    expected = expit(intercept + slope * x)
    information = (design * (weights * expected * (1 - expected))[:, None]).T @ design
    scores = sample.sums(design * (weights * (y - expected))[:, None]).sum(axis=1)
    spread = intervals.error(sample, scores @ np.linalg.inv(information))
    band = intervals.difference(np.array([intercept, slope]), spread)
    intercepts, slopes = np.transpose(band).tolist()
    return {INTERCEPT: Estimate(*intercepts), SLOPE: Estimate(*slopes)}


def _squared_error(sample: Sample, weights: np.ndarray) -> float:
    """Σ_bins share (mean p − share of mergers)², less what noise adds to it; below 0 where noise happens to be small.

    Bröcker 2012, Clim. Dyn. 39, 655; Kumar et al. 2019, arXiv:1909.10155; here the noise is that over galaxies.
    """
    in_bin = binned(sample.probabilities)[:, 0] * weights[:, None]
    share = in_bin.sum(axis=0)
    gaps = sample.sums(in_bin * (sample.probabilities - sample.labels)[:, None]).sum(axis=1)
    noise = intervals.error(sample, gaps).size ** 2
    filled = share > 0
    return float(((gaps.sum(axis=0) ** 2 - noise)[filled] / share[filled]).sum())
