"""How good a set of merger probabilities is, with intervals from a bootstrap over galaxies.

A metric that is not defined is NaN, never 0: purity when no image is predicted merger, completeness and
everything that compares classes when a class is absent. Its percentiles leave out the resamples in which it
is not defined. NaN also stands for an interval that the sample cannot support.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from deepmerge.errors import InputError
from deepmerge.estimate import AT_BALANCE, WITH_BALANCE, Estimate

BINS = 10  # equal-width bins of probability, (lower, upper]; the first holds 0 too, as in Guo et al. 2017
FALSE_POSITIVE_RATES = np.linspace(0, 1, 101)
INTERVAL = (0.025, 0.975)
# Networks answer in float32, where a saturated 1 means "within this of 1": a wrong certainty costs 15.9 nats.
SMALLEST_PROBABILITY = float(np.finfo(np.float32).eps)
# What a reader is shown for each metric, and which way is better.
# how the names of these end where both classes weigh the same
# A sum of absolute values, which noise raises: in the sample, and once more in every resample of it. So percentiles lie
# above what they should hold, for a calibrated model always (its bias: Kumar et al. 2019, arXiv:1909.10155).
WITHOUT_INTERVAL = ("calibration_error", f"calibration_error{AT_BALANCE}")

_EDGES = np.linspace(0, 1, BINS + 1)
_CHUNK = 2**18  # image weights held at once: 2 MB an array, which stays in the processor's cache


class Band(NamedTuple):
    """An array of values with the ends of their 95 % intervals, all of one shape."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class Evaluation:
    """Metrics by name, and what their figures need.

    true_positive_rate at each of FALSE_POSITIVE_RATES, (101,): the ROC curve of the sample and its band.
    Reliability diagram, a value for each of the BINS: `probability` is the mean predicted, `fraction` the
    share of mergers, `count` the images; a bin without images is NaN.
    confusion[true, predicted], (2, 2): images, [[tn, fp], [fn, tp]]; `confusion_fraction` of the true class.
    """

    metrics: dict[str, Estimate]
    true_positive_rate: Band
    probability: np.ndarray
    fraction: Band
    count: np.ndarray
    confusion: np.ndarray
    confusion_fraction: Band


def evaluate(
    labels: np.ndarray,
    probabilities: np.ndarray,
    galaxies: np.ndarray,
    *,
    threshold: float = 0.5,
    resamples: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """Measure predictions and give every metric a 95 % percentile interval from a bootstrap over galaxies.

    The views (and copies) of one galaxy share its mass, orbit and history, so their errors go together:
    resampling images would count them as independent and give intervals that are too narrow. Galaxies are
    drawn with replacement and bring all their images along (a cluster bootstrap: Field & Welsh 2007, J. R.
    Stat. Soc. B 69, 369). The draw is stratified by class, so that every resample has both, and the class
    ratio, which was chosen and not observed, does not scatter; galaxies with images of both classes are a
    stratum of their own.

    labels: (n,) 0 or 1 = merger; probabilities: (n,) of a merger, in [0, 1]; galaxies: (n,) ids of any
    sortable type. An image is predicted merger from `threshold` on (≥). `resamples` = 0 gives no intervals.

    Metrics: those of `point_metrics`. Intervals are NaN where the value is, for those in WITHOUT_INTERVAL, and
    all of them when a class has a single galaxy, whose scatter cannot be known.
    Raises InputError for input that is not as above.
    """
    sample = _Sample(labels, probabilities, galaxies, threshold)
    point = _measure(sample, sample.once)
    draws = [_measure(sample, weights) for weights in _resampled_galaxies(sample, resamples, seed)]

    def band(name: str) -> Band:
        return _band(point[name], [draw[name] for draw in draws])

    return Evaluation(
        metrics=_estimates(point, draws),
        true_positive_rate=band("true_positive_rate"),
        probability=point["probability"][0],
        fraction=band("fraction"),
        count=point["count"][0],
        confusion=point["confusion"][0],
        confusion_fraction=band("confusion_fraction"),
    )


def difference(
    labels: np.ndarray,
    candidate: np.ndarray,
    reigning: np.ndarray,
    galaxies: np.ndarray,
    *,
    threshold: float = 0.5,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Measure candidate − reigning in every metric, with 95 % intervals from a paired bootstrap over galaxies.

    candidate, reigning: (n,) probabilities of a merger by two models for the same images; labels, galaxies and the
    rest as in `evaluate`. Each resample of galaxies measures both models, so what is hard for both cancels: the
    interval is that of the difference, narrower than two separate intervals suggest where the errors go together.
    A difference is NaN where one of its two values is; its interval is as in `evaluate`. Raises InputError for input
    that is not as above.
    """
    samples = [_Sample(labels, probabilities, galaxies, threshold) for probabilities in (candidate, reigning)]

    def measured(weights: np.ndarray) -> dict[str, np.ndarray]:
        ours, theirs = (_measure(sample, weights) for sample in samples)
        return {name: ours[name] - theirs[name] for name in _scalars(ours)}

    point = measured(samples[0].once)
    # Both samples number the galaxies alike and have the same strata, so the weights of one are those of the other.
    draws = [measured(weights) for weights in _resampled_galaxies(samples[0], resamples, seed)]
    return _estimates(point, draws)


def point_metrics(
    labels: np.ndarray,
    probabilities: np.ndarray,
    *,
    threshold: float = 0.5,
    weights: np.ndarray | None = None,
) -> dict[str, float]:
    """Measure predictions, without intervals.

    labels, probabilities, threshold as in `evaluate`; weights: (n,) ≥ 0 of the images, default 1 each.

    - tp, fp, tn, fn: (weighted) counts; accuracy, balanced_accuracy = (completeness + specificity) / 2;
    - purity = tp / (tp + fp), completeness = tp / (tp + fn), f1 = 2 tp / (2 tp + fp + fn);
    - auc: area under the ROC curve, ties counted half (Fawcett 2006, Pattern Recogn. Lett. 27, 861);
    - average_precision = Σ (R_k − R_{k−1}) P_k over the distinct probabilities, not interpolated;
    - brier = mean (p − y)²; log_loss in nats, with p kept SMALLEST_PROBABILITY away from 0 and 1;
    - calibration_error: Σ_bins (share of images) |mean p − share of mergers|, with BINS equal-width bins of
      the merger probability (Guo et al. 2017, arXiv:1706.04599, eq. 3).

    `<name>_at_balance` is the metric when both classes weigh the same, for those in `estimate.WITH_BALANCE`. The others
    do not depend on the class ratio, or are then one of them (accuracy at balance is balanced_accuracy).
    Raises InputError for input that is not as above.
    """
    sample = _Sample(labels, probabilities, np.arange(len(np.atleast_1d(labels))), threshold)
    given = np.ones(len(sample.galaxy)) if weights is None else np.asarray(weights, dtype=np.float64)
    if given.shape != sample.galaxy.shape or not (np.isfinite(given).all() and (given >= 0).all() and given.any()):
        raise InputError(
            f"weights should be {len(sample.galaxy)} finite numbers ≥ 0, one an image and not all 0, "
            f"got shape {given.shape}"
        )
    measured = _measure(sample, given[np.newaxis])
    return {name: float(measured[name][0]) for name in _scalars(measured)}


class _Sample:
    """Checked predictions, brought into the form in which any weighting of galaxies is quick to measure.

    galaxy: (n,) galaxy number of each image, images sorted by falling probability;
    merger: (n,) bool in the same order; ends: last image of each run of equal probabilities;
    totals: (G, 2, K) sums over a galaxy's images of either class. The K columns: images, images predicted
    merger, squared error, minus log-likelihood, images per bin, probability per bin;
    strata: the galaxies with only non-mergers, only mergers, both; once: (1, G) weights of the sample itself.
    """

    def __init__(self, labels: np.ndarray, probabilities: np.ndarray, galaxies: np.ndarray, threshold: float) -> None:
        y, p, ids = _checked(labels, probabilities, galaxies, threshold)
        order = np.argsort(-p, kind="stable")
        y, p = y[order], p[order]
        names, self.galaxy = np.unique(ids[order], return_inverse=True)
        self.merger = y == 1
        self.ends = np.flatnonzero(np.diff(p, append=-1.0))

        certain = np.clip(p, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
        in_bin = np.eye(BINS)[np.searchsorted(_EDGES[1:-1], p)]
        surprise = -np.log(np.where(self.merger, certain, 1 - certain))
        columns = np.column_stack(
            [np.ones_like(p), p >= threshold, (p - y) ** 2, surprise, in_bin, in_bin * p[:, None]]
        )
        self.totals = np.zeros((len(names), 2, columns.shape[1]))
        np.add.at(self.totals, (self.galaxy, y), columns)
        self.once = np.ones((1, len(names)))
        has = self.totals[:, :, 0] > 0
        self.galaxies_of_class = has.sum(axis=0)
        kind = has @ (1, 2)
        self.strata = [np.flatnonzero(kind == which) for which in (1, 2, 3)]


def _checked(
    labels: np.ndarray, probabilities: np.ndarray, galaxies: np.ndarray, threshold: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    y, p, ids = np.asarray(labels), np.asarray(probabilities), np.asarray(galaxies)
    if p.ndim == 2 and p.shape[1] == 1:
        p = p[:, 0]  # as a Keras model with one output returns them
    if y.ndim != 1 or not y.shape == p.shape == ids.shape or not len(y):
        raise InputError(
            "labels, probabilities and galaxies should be three lists of one length, with an entry an image, "
            f"got shapes {y.shape}, {p.shape}, {ids.shape}"
        )
    if not np.isin(y, (0, 1)).all():
        odd = y[~np.isin(y, (0, 1))]
        raise InputError(f"labels should be 0 (non-merger) or 1 (merger), got {odd[0]!r} among them")
    try:
        p = p.astype(np.float64)
    except (TypeError, ValueError):
        raise InputError(f"probabilities should be numbers, got type {p.dtype}") from None
    outside = ~((p >= 0) & (p <= 1))
    if outside.any():
        raise InputError(
            f"probabilities should lie in [0, 1], got {p[outside][0]} in row {np.flatnonzero(outside)[0]} "
            f"({outside.sum()} such): logits need a sigmoid, NaN a look at the training"
        )
    if ids.dtype == object:
        if any(name is None or name != name for name in ids):
            raise InputError("galaxies should name the galaxy of every image, got some without one")
        ids = ids.astype(str)
    elif ids.dtype.kind == "f" and np.isnan(ids).any():
        raise InputError(f"galaxies should name the galaxy of every image, got NaN for {np.isnan(ids).sum()}")
    if not 0 <= threshold <= 1:
        raise InputError(f"threshold should lie in [0, 1], got {threshold}")
    return y.astype(np.intp), p, ids


def _resampled_galaxies(sample: _Sample, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each galaxy is drawn, (b, G) at a time; nothing where a class has a single galaxy."""
    if not isinstance(resamples, int | np.integer) or resamples < 0:
        raise InputError(f"resamples should be a whole number ≥ 0 (1000 is usual), got {resamples!r}")
    if 1 in sample.galaxies_of_class:
        return
    # One stream a stratum, so that the numbers do not depend on how the work is cut into chunks.
    streams = [np.random.default_rng([seed, stratum]) for stratum in range(len(sample.strata))]
    step = max(1, _CHUNK // len(sample.galaxy))
    for start in range(0, resamples, step):
        weights = np.empty((min(step, resamples - start), len(sample.totals)))
        for members, stream in zip(sample.strata, streams, strict=True):
            if size := len(members):
                weights[:, members] = stream.multinomial(size, np.full(size, 1 / size), size=len(weights))
        yield weights


def _measure(sample: _Sample, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Everything that an Evaluation holds, for each row of galaxy weights (b, G): arrays (b,) or (b, …)."""
    sums = np.tensordot(weights, sample.totals, axes=1)
    size = sums[:, :, :1]
    with np.errstate(invalid="ignore", divide="ignore"):
        balanced = sums / size * size.sum(axis=1, keepdims=True) / 2
        measured = _counted(sums) | _ranked(sample, weights)
        even = _counted(balanced) | {"average_precision": measured.pop("average_precision_at_balance")}
        in_bin = sums.sum(axis=1)[:, 4:]
        count = in_bin[:, :BINS]
        confusion = np.stack([size[:, :, 0] - sums[:, :, 1], sums[:, :, 1]], axis=2)
        curves = {
            "probability": in_bin[:, BINS:] / count,
            "fraction": sums[:, 1, 4 : 4 + BINS] / count,
            "count": count,
            "confusion": confusion,
            "confusion_fraction": confusion / size,
        }
    return measured | {f"{name}{AT_BALANCE}": even[name] for name in WITH_BALANCE} | curves


def _counted(sums: np.ndarray) -> dict[str, np.ndarray]:
    """The metrics that need no ranking, from weighted sums (b, class, column)."""
    (negatives, positives), (fp, tp) = sums[:, :, 0].T, sums[:, :, 1].T
    tn, fn = negatives - fp, positives - tp
    both = sums.sum(axis=1)
    total = both[:, 0]
    return {
        "tp": tp,
        "fp": fp,
        "tn": tn,
        "fn": fn,
        "accuracy": (tp + tn) / total,
        "balanced_accuracy": (tp / positives + tn / negatives) / 2,
        "purity": tp / (tp + fp),
        "completeness": tp / positives,
        "f1": 2 * tp / (2 * tp + fp + fn),
        "brier": both[:, 2] / total,
        "log_loss": both[:, 3] / total,
        # A bin's weight cancels the division of its two means, so empty bins need no exception.
        "calibration_error": np.abs(both[:, 4 + BINS :] - sums[:, 1, 4 : 4 + BINS]).sum(axis=1) / total,
    }


def _ranked(sample: _Sample, weights: np.ndarray) -> dict[str, np.ndarray]:
    """The metrics of the ranking: the ROC curve, its area, and average precision at both class ratios."""
    images = weights[:, sample.galaxy]
    tp = np.cumsum(images * sample.merger, axis=1)[:, sample.ends]
    fp = np.cumsum(images, axis=1)[:, sample.ends] - tp
    tpr, fpr = (np.pad(count, ((0, 0), (1, 0))) / count[:, -1:] for count in (tp, fp))
    step = np.diff(tpr, axis=1)

    def average_precision(fp_weight: np.ndarray | float) -> np.ndarray:
        called = tp + fp * fp_weight
        # Before the first image with weight there is nothing to be pure; recall does not step there either.
        purity = np.divide(tp, called, out=np.zeros_like(tp), where=called != 0)
        return (step * purity).sum(axis=1)

    return {
        "auc": (np.diff(fpr, axis=1) * (tpr[:, 1:] + tpr[:, :-1])).sum(axis=1) / 2,
        "average_precision": average_precision(1.0),
        "average_precision_at_balance": average_precision(tp[:, -1:] / fp[:, -1:]),
        # np.interp takes the upper end where the curve is vertical.
        "true_positive_rate": np.stack([np.interp(FALSE_POSITIVE_RATES, x, y) for x, y in zip(fpr, tpr, strict=True)]),
    }


def _estimates(point: Mapping[str, np.ndarray], draws: Sequence[Mapping[str, np.ndarray]]) -> dict[str, Estimate]:
    """The metrics of the sample, with their intervals from the draws."""
    found = {}
    for name in _scalars(point):
        of_metric = [] if name in WITHOUT_INTERVAL else [draw[name] for draw in draws]
        found[name] = Estimate(*map(float, _band(point[name], of_metric)))
    return found


def _scalars(measured: Mapping[str, np.ndarray]) -> list[str]:
    """Names of the metrics among what `_measure` returns: a number for each row of weights, not an array."""
    return [name for name, values in measured.items() if values.ndim == 1]


def _band(point: np.ndarray, draws: Sequence[np.ndarray]) -> Band:
    """The value of the sample (1, …), with its interval from the draws, (b, …) each."""
    return Band(point[0], *_interval(np.concatenate([point[:0], *draws])))


def _with_width(band: Band, known: np.ndarray | bool = True) -> Band:
    """The band without the ends of intervals that are not known or have no width.

    Where nothing went wrong in the sample, no resample says how seldom something does.
    """
    empty = ~(known & (band.high > band.low))
    return Band(band.value, np.where(empty, np.nan, band.low), np.where(empty, np.nan, band.high))


def _interval(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Percentiles over the draws (B, …) in which a number is defined; NaN where there are none."""
    undefined = np.isnan(draws).all(axis=0)
    if not len(draws):
        draws = np.zeros((1, *undefined.shape))
    low, high = np.nanquantile(np.where(undefined, 0.0, draws), INTERVAL, axis=0)
    return np.where(undefined, np.nan, low), np.where(undefined, np.nan, high)
