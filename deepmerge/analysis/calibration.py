"""What merger probabilities mean: calibrated, at a survey's merger fraction, and cut at a threshold.

Networks here train with both classes weighing the same, so their probabilities hold at balance: a prior of 1/2. Those
trained with `balance: none` hold at the merger fraction of their training images, and `at_prior` brings them to balance
before anything else. Whatever is fitted or chosen belongs on validation images and is judged on test images.

Intervals are those of `intervals`, over galaxies.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from deepmerge.analysis import checks, intervals
from deepmerge.analysis.metrics import difference, evaluate
from deepmerge.analysis.miscalibration import INTERCEPT, SLOPE, SQUARED_ERROR
from deepmerge.analysis.sample import SMALLEST_PROBABILITY, Sample, binned
from deepmerge.errors import InputError
from deepmerge.estimate import UNDEFINED, Estimate

# Logits ten times too large or too small: beyond them the probabilities are past calibration, not in need of it.
TEMPERATURES = (0.1, 10.0)
GAINS = ("auc", "log_loss_at_balance", "calibration_error_at_balance", "brier_at_balance")
REFERENCE = "reference"
LINE = (INTERCEPT, SLOPE, SQUARED_ERROR)
BALANCE = 0.5  # the merger fraction at which both classes weigh the same


@dataclass(frozen=True)
class Isotonic:
    """A piecewise linear map of probabilities: knots x (k,), rising, and their y (k,), never falling, in (0, 1)."""

    x: list[float]
    y: list[float]

    def __call__(self, probabilities: np.ndarray) -> np.ndarray:
        """Return calibrated probabilities, of the same shape; beyond the knots that of the nearest."""
        return np.interp(checks.unit_interval(probabilities), self.x, self.y)


def fit_temperature(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Find the temperature T at which sigmoid(logit(p) / T) has the least log loss at balance.

    Temperature scaling (Guo et al. 2017, arXiv:1706.04599, section 4.2); above 1 the network is overconfident. labels:
    (n,) 0 or 1 = merger, of both classes; probabilities: (n,) in [0, 1], kept SMALLEST_PROBABILITY away from its ends.
    T lies within TEMPERATURES: at the lower end where 0.5 separates the classes without error, at the upper end where
    the probabilities are no better than chance. Raises InputError for other input.
    """
    from scipy.optimize import brentq

    y, p, weights = _both_classes(labels, probabilities)
    scores = logits(p)

    def slope(sharpness: float) -> float:
        """The derivative of the log loss by 1 / T, in which the loss is convex: it has one root or none."""
        return float(np.sum(weights * (expit(sharpness * scores) - y) * scores))

    coldest, hottest = TEMPERATURES
    if slope(1 / coldest) <= 0:
        return coldest
    if slope(1 / hottest) >= 0:
        return hottest
    return float(1 / brentq(slope, 1 / hottest, 1 / coldest))


def temperature(labels: np.ndarray, probabilities: np.ndarray, galaxies: np.ndarray) -> Estimate:
    """The temperature of `fit_temperature` with its 95 % interval over galaxies; none at an end of TEMPERATURES."""
    found = fit_temperature(labels, probabilities)
    if found in TEMPERATURES:
        return Estimate(found)
    sample = Sample.of(labels, probabilities, galaxies)
    y, p, weights = _both_classes(labels, probabilities)
    z = logits(p)
    expected = expit(z / found)
    # What a galaxy adds to the slope of the log loss, over its curvature: how far it moves 1 / T.
    moved = sample.sums(weights * (y - expected) * z).sum(axis=1) / (weights * expected * (1 - expected) * z**2).sum()
    spread = intervals.error(sample, moved)
    return Estimate(*map(float, intervals.positive(np.array(found), spread._replace(size=spread.size * found**2))))


def tempered(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Return sigmoid(logit(p) / temperature) of probabilities of any shape, guarded as in `fit_temperature`.

    The order of images stays, and so does 0.5. Raises InputError for a temperature that is not above 0.
    """
    if not 0 < temperature < np.inf:
        raise InputError(f"temperature should be a number above 0 (1 changes nothing), got {temperature}")
    return expit(logits(checks.unit_interval(probabilities)) / temperature)


def fit_isotonic(labels: np.ndarray, probabilities: np.ndarray) -> Isotonic:
    """Fit the map, never falling, with the least squared error at balance (Zadrozny & Elkan 2002, KDD, 694).

    labels, probabilities and errors as in `fit_temperature`. Isotonic regression overfits small samples, and its steps
    make ties. No result is nearer to 0 or 1 than 1 / (n + 2), n = images of the scarcer class: Laplace's rule of
    succession for what did not happen in n trials.
    """
    from sklearn.isotonic import IsotonicRegression

    y, p, weights = _both_classes(labels, probabilities)
    least = 1 / (np.bincount(y).min() + 2)
    fitted = IsotonicRegression(y_min=least, y_max=1 - least).fit(p, y, sample_weight=weights)
    return Isotonic(fitted.X_thresholds_.tolist(), fitted.y_thresholds_.tolist())


def at_prior(probabilities: np.ndarray, fraction: float, trained_at: float = BALANCE) -> np.ndarray:
    """Move probabilities from one merger fraction to another (Saerens et al. 2002, Neural Comput. 14, 21, eq. 4).

    probabilities: any shape, in [0, 1]; fraction: share of mergers among the galaxies to be judged; trained_at: that
    at which the probabilities hold; both in (0, 1). This is Bayes' rule: right if the probabilities are calibrated and
    a class looks the same in both samples. Raises InputError for other input.
    """
    p = checks.unit_interval(probabilities)
    to, of = _share("fraction", fraction), _share("trained_at", trained_at)
    mergers, others = p * to / of, (1 - p) * (1 - to) / (1 - of)
    return mergers / (mergers + others)


def reliability(
    labels: np.ndarray,
    probabilities: np.ndarray,
    galaxies: np.ndarray,
    fraction: float = BALANCE,
) -> pd.DataFrame:
    """Compare predicted with observed at a merger fraction in (0, 1): a row for each of the bins of `metrics`.

    `metrics.evaluate` does so at the sample's own fraction, where probabilities at balance miss the diagonal however
    well calibrated. labels, probabilities, galaxies and errors as there.

    Columns: `probability` (mean predicted), `observed` (share of mergers, with its interval), and the images in the
    sample: `mergers`, `non_mergers`. NaN in empty bins.
    """
    shares = np.array([1 - _share("fraction", fraction), fraction])[:, None]
    sample = Sample.of(labels, probabilities, galaxies)
    in_bin = sample.sums(binned(sample.probabilities))

    def measure(sums: np.ndarray) -> dict[str, np.ndarray]:
        """Sums (b, class, 2, BINS) to shares (b, BINS)."""
        images = sums[:, :, :1].sum(axis=3, keepdims=True)
        counts, summed = np.moveaxis(sums / images * shares[:, None], 2, 0)
        total = counts.sum(axis=1)
        return {"probability": summed.sum(axis=1) / total, "observed": counts[:, 1] / total}

    measured = intervals.of_sums(in_bin, measure)
    found = measured["observed"]
    observed = intervals.bounded(found.value, intervals.error(sample, found.influence))
    others, mergers = in_bin[:, :, 0].sum(axis=0).astype(int)
    return pd.DataFrame(
        {
            "probability": measured["probability"].value,
            **observed.flat("observed"),
            **{"mergers": mergers, "non_mergers": others},
        }
    )


def operating_points(
    labels: np.ndarray,
    probabilities: np.ndarray,
    galaxies: np.ndarray,
    fraction: float,
    thresholds: Sequence[float] | np.ndarray,
) -> pd.DataFrame:
    """Measure purity and completeness at each threshold where the merger fraction is `fraction`.

    With true and false positive rates t, f: completeness = t, purity = π t / (π t + (1 − π) f), π = fraction in (0, 1).
    labels, probabilities, galaxies as in `metrics.evaluate`; thresholds: (k,) in [0, 1], from which on (≥) an image is
    predicted merger.

    Columns: `threshold`; `purity` (NaN where no image is predicted merger), `completeness`, with their intervals; `tp`,
    `fp`: images of the sample. With few `fp` the purity at a small fraction rests on these few.
    Raises InputError for other input.
    """
    sample = Sample.of(labels, probabilities, galaxies)
    _share("fraction", fraction)
    cuts = np.atleast_1d(np.asarray(thresholds, dtype=np.float64))
    if cuts.ndim != 1 or not ((cuts >= 0) & (cuts <= 1)).all():
        raise InputError(f"thresholds should be a list of numbers in [0, 1], got {thresholds!r}")
    called = sample.probabilities[:, None] >= cuts
    totals = sample.sums(np.column_stack([np.ones(len(called)), called]))

    def measure(sums: np.ndarray) -> dict[str, np.ndarray]:
        fpr, tpr = np.moveaxis(sums[:, :, 1:] / sums[:, :, :1], 1, 0)
        return {"purity": _purity(tpr, fpr, fraction), "completeness": tpr}

    columns = {"threshold": cuts}
    for name, found in intervals.of_sums(totals, measure).items():
        columns |= intervals.bounded(found.value, intervals.error(sample, found.influence)).flat(name)
    fp, tp = totals.sum(axis=0)[:, 1:].astype(int)
    return pd.DataFrame(columns | {"tp": tp, "fp": fp})


def choose_threshold(
    labels: np.ndarray,
    probabilities: np.ndarray,
    fraction: float,
    *,
    purity: float | None = None,
    completeness: float | None = None,
) -> float:
    """Choose the threshold of highest completeness among those with the wanted `purity`, or the other way round.

    labels, probabilities: (n,) of validation images of both classes; fraction: merger fraction in (0, 1) of the purity;
    purity or completeness, one of them, in (0, 1]: the least that will do. The threshold is one of the probabilities,
    of equally good ones the highest. As the best of many on these images it promises too much: measure it on test
    images by `operating_points`. Raises InputError for other input and for a purity out of reach.
    """
    from sklearn.metrics import roc_curve

    if (purity is None) == (completeness is None):
        raise InputError(f"give one of purity and completeness, got purity={purity}, completeness={completeness}")
    least = purity if completeness is None else completeness
    if least is None or not 0 < least <= 1:
        raise InputError(f"the wanted purity or completeness should lie in (0, 1], got {least}")
    y, p, _ = _both_classes(labels, probabilities)
    # The first point of the curve calls no image a merger, and has no purity.
    fpr, tpr, thresholds = (column[1:] for column in roc_curve(y, p, drop_intermediate=False))
    pure = _purity(tpr, fpr, _share("fraction", fraction))
    bound, sought = (pure, tpr) if completeness is None else (tpr, pure)
    enough = np.flatnonzero(bound >= least)
    if not len(enough):
        best = np.argmax(pure)
        raise InputError(
            f"purity should be at most {pure[best]:.3f}, which the threshold {thresholds[best]:.3f} gives with a "
            f"completeness of {tpr[best]:.3f} where {fraction:.3g} are mergers, got {least}"
        )
    # Thresholds fall along the curve, so the first of equals is the highest.
    best = max(enough, key=lambda k: (sought[k], bound[k]))
    return float(thresholds[best])


def gains(
    labels: np.ndarray,
    galaxies: np.ndarray,
    reference: np.ndarray,
    others: Mapping[str, np.ndarray],
) -> pd.DataFrame:
    """Measure the metrics GAINS and LINE of a reference and of other methods, and how those in GAINS change.

    labels, galaxies and errors as in `metrics.evaluate`; reference: (n,) probabilities, the method named REFERENCE in
    the table; others: such probabilities by method.

    Columns: `method`, `metric`; `value`, `low`, `high` of `metrics.evaluate`; `change` (method − reference) with its
    interval, of `metrics.difference` on the same galaxies, NaN for those in LINE.
    """
    if REFERENCE in others:
        raise InputError(f"the other methods should not be named {REFERENCE!r}: rename it")
    rows = []
    for method, probabilities in {REFERENCE: reference, **others}.items():
        values = evaluate(labels, probabilities, galaxies, resamples=0).metrics
        changes = difference(labels, probabilities, reference, galaxies)
        rows += [
            {"method": method, "metric": name, **values[name]._asdict(), **changes.get(name, UNDEFINED).flat("change")}
            for name in (*GAINS, *LINE)
        ]
    return pd.DataFrame(rows)


def logits(probabilities: np.ndarray) -> np.ndarray:
    """Logits of probabilities of any shape, finite for 0 and 1 too."""
    return logit(np.clip(probabilities, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY))


def _purity(tpr: np.ndarray, fpr: np.ndarray, fraction: float) -> np.ndarray:
    return fraction * tpr / (fraction * tpr + (1 - fraction) * fpr)


def _both_classes(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Checked labels and probabilities, and weights of the images with which each class sums to 1/2."""
    y, p, _ = checks.predictions(labels, probabilities, np.arange(len(np.atleast_1d(labels))))
    images = np.bincount(y, minlength=2)
    if not images.all():
        raise InputError(f"labels should hold both classes, got {images[1]} mergers and {images[0]} non-mergers")
    return y, p, 0.5 / images[y]


def _share(name: str, value: float) -> float:
    if not 0 < value < 1:
        raise InputError(f"{name} should be a share of mergers between 0 and 1, got {value}")
    return value
