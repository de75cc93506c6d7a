"""How good a set of merger probabilities is, with 95 % intervals over galaxies.

They are in closed form (`intervals`), but for the band of the ROC curve, which is of the `bootstrap`.
A metric that is not defined is NaN, never 0: purity when no image is predicted merger, completeness and
everything that compares classes when a class is absent. NaN also stands for an interval that the sample cannot
support: that of a purity or completeness of exactly 0 or 1, for one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from deepmerge.analysis import intervals, miscalibration
from deepmerge.analysis.bootstrap import bands
from deepmerge.analysis.intervals import Error, Linear
from deepmerge.analysis.sample import BINS, LEVEL, SMALLEST_PROBABILITY, THRESHOLD, Band, Sample, binned
from deepmerge.errors import InputError
from deepmerge.estimate import AT_BALANCE, OF_GALAXIES, WITH_BALANCE, WITH_VIEWS, Estimate

FALSE_POSITIVE_RATES = np.linspace(0, 1, 101)
COUNTS = ("tp", "fp", "tn", "fn")
# A sum of absolute values, which noise raises, so that an interval about it misses the truth, for a calibrated model
# always (its bias: Kumar et al. 2019, arXiv:1909.10155).
WITHOUT_INTERVAL = ("calibration_error", f"calibration_error{AT_BALANCE}")


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
    folds: np.ndarray | None = None,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """Measure predictions and give every metric a 95 % interval over galaxies.

    labels: (n,) 0 or 1 = merger; probabilities: (n,) of a merger, in [0, 1]; galaxies: (n,) ids of any
    sortable type; folds: (n,) which of several networks scored an image: areas and the ROC curve then compare images
    of one network alone (`Sample.within_folds`). `resamples` of the bootstrap make the band of the ROC curve.

    Metrics: those of `point_metrics` and of `miscalibration.measure`, and `galaxy_<name>`, for those in
    `estimate.WITH_VIEWS`, of the galaxies by the mean probability of their images. Intervals are NaN where the value
    is, for COUNTS and those in WITHOUT_INTERVAL, and all of them when a class has a single galaxy, whose scatter cannot
    be known.
    Raises InputError for input that is not as above.
    """
    sample = Sample.of(labels, probabilities, galaxies, folds)
    measured = bands(sample, _Ranking(sample.within_folds()).curve, resamples, seed) | {
        name: _with_interval(name, *found) for name, found in _mean(sample, [_linear(sample)]).items()
    }
    return Evaluation(
        metrics=_estimates(measured) | miscalibration.measure(sample),
        true_positive_rate=measured["true_positive_rate"],
        probability=measured["probability"].value,
        fraction=measured["fraction"],
        count=measured["count"].value,
        confusion=measured["confusion"].value,
        confusion_fraction=measured["confusion_fraction"],
    )


def over_seeds(
    labels: np.ndarray, probabilities: np.ndarray, galaxies: np.ndarray, folds: np.ndarray | None = None
) -> dict[str, Estimate]:
    """The mean of each metric over trainings that differ in their seed, with intervals over galaxies and seeds.

    probabilities: (seeds, n) for the same images; all else as in `evaluate`. The two errors are summed in quadrature,
    which counts twice what a seed makes of some galaxies alone, so that the interval is rather too wide.
    """
    samples = [Sample.of(labels, each, galaxies, folds) for each in np.atleast_2d(probabilities)]
    found = _mean(samples[0], [_linear(sample) for sample in samples])
    return _estimates({name: _with_interval(name, *each) for name, each in found.items()})


def difference(
    labels: np.ndarray,
    candidate: np.ndarray,
    reigning: np.ndarray,
    galaxies: np.ndarray,
    folds: np.ndarray | None = None,
    *,
    level: float = LEVEL,
) -> dict[str, Estimate]:
    """Measure candidate − reigning in every metric, with paired intervals over galaxies of that level.

    candidate, reigning: (n,) probabilities by two models for the same images, or (seeds, n) by several trainings of
    two recipes, whose intervals are over galaxies and seeds as in `over_seeds`; all else as in `evaluate`. Each galaxy
    counts with what it adds to both models, so what is hard for both cancels: the interval is narrower than two
    separate intervals suggest where the errors go together. A difference is NaN where one of its two values is.
    """
    measured = {}
    for name, (value, spread) in _apart(labels, candidate, reigning, galaxies, folds).items():
        most = np.inf if name in COUNTS or "log_loss" in name else 1.0
        measured[name] = intervals.difference(value, spread, most, level)
    return _estimates(measured)


def p_value(
    labels: np.ndarray,
    candidate: np.ndarray,
    reigning: np.ndarray,
    galaxies: np.ndarray,
    folds: np.ndarray | None = None,
    *,
    metric: str = "auc",
) -> float:
    """Two-sided, of a difference in `metric` at least as large where there is none; as `difference` has its interval.

    NaN where nothing scatters.
    """
    value, spread = _apart(labels, candidate, reigning, galaxies, folds)[metric]
    return intervals.p_value(value, spread)


def point_metrics(
    labels: np.ndarray, probabilities: np.ndarray, *, threshold: float = THRESHOLD, weights: np.ndarray | None = None
) -> dict[str, float]:
    """Measure predictions, without intervals.

    labels, probabilities as in `evaluate`; threshold: from which on (≥) an image is predicted merger; weights: (n,) ≥ 0
    of the images, default 1 each.

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
    sample = Sample.of(labels, probabilities, np.arange(len(np.atleast_1d(labels))))
    of_images = np.ones(len(sample.labels)) if weights is None else np.asarray(weights, dtype=np.float64)
    valid = of_images.shape == sample.labels.shape and np.isfinite(of_images).all()
    if not (valid and (of_images >= 0).all() and of_images.any()):
        raise InputError(
            f"weights should be {len(sample.labels)} finite numbers ≥ 0, one an image and not all 0, "
            f"got shape {of_images.shape}"
        )
    by_galaxy = of_images[np.newaxis]
    with np.errstate(invalid="ignore", divide="ignore"):
        measured = _counted(np.tensordot(by_galaxy, _columns(sample, threshold), axes=1))
        measured |= _Ranking(sample).areas(by_galaxy)
    return {name: float(values[0]) for name, values in measured.items() if values.ndim == 1}


def _linear(sample: Sample) -> dict[str, Linear]:
    """Everything that an Evaluation holds but what the bootstrap finds, and what each galaxy adds to it."""
    of_galaxies = _of_lines(sample.of_galaxies())
    return _of_lines(sample) | {f"{OF_GALAXIES}{name}": of_galaxies[name] for name in WITH_VIEWS}


def _of_lines(sample: Sample) -> dict[str, Linear]:
    ranked = sample.within_folds()
    return intervals.of_sums(_columns(sample), _counted) | {
        "auc": intervals.auc(ranked),
        "average_precision": intervals.average_precision(ranked),
        f"average_precision{AT_BALANCE}": intervals.average_precision(ranked, at_balance=True),
    }


def _apart(
    labels: np.ndarray,
    candidate: np.ndarray,
    reigning: np.ndarray,
    galaxies: np.ndarray,
    folds: np.ndarray | None,
) -> dict[str, tuple[np.ndarray, Error]]:
    """The paired difference in each metric, and its error."""
    # All samples number the galaxies alike, and have the same strata.
    ours, theirs = (
        [Sample.of(labels, each, galaxies, folds) for each in np.atleast_2d(scores)] for scores in (candidate, reigning)
    )
    pairs = [(_linear(one), _linear(other)) for one, other in zip(ours, theirs, strict=True)]
    apart = [
        {name: value.minus(other[name]) for name, value in one.items() if value.value.ndim == 0} for one, other in pairs
    ]
    return _mean(ours[0], apart)


def _mean(sample: Sample, found: Sequence[Mapping[str, Linear]]) -> dict[str, tuple[np.ndarray, Error]]:
    """The mean over trainings of what each made of the same images, and its error: of galaxies, and of seeds if any."""
    means = {}
    for name in found[0]:
        values, influences = (np.stack(parts) for parts in zip(*(each[name] for each in found), strict=True))
        spread = intervals.error(sample, influences.mean(axis=0))
        if (seeds := len(values)) > 1:
            of_seeds = values.std(axis=0, ddof=1) / np.sqrt(seeds)
            spread = intervals.total(spread, Error(of_seeds, np.full_like(of_seeds, seeds - 1)))
        means[name] = (values.mean(axis=0), spread)
    return means


def _with_interval(name: str, value: np.ndarray, spread: Error) -> Band:
    return (intervals.positive if "log_loss" in name else intervals.bounded)(value, spread)


def _estimates(measured: Mapping[str, Band]) -> dict[str, Estimate]:
    """The metrics among what was measured: single numbers."""
    return {
        name: Estimate(float(band.value)) if name in (*COUNTS, *WITHOUT_INTERVAL) else Estimate(*map(float, band))
        for name, band in measured.items()
        if np.ndim(band.value) == 0
    }


def _columns(sample: Sample, threshold: float = THRESHOLD) -> np.ndarray:
    """Sums over a galaxy's images of either class, (G, 2, K), for `_counted`.

    The K columns: images, images predicted merger, squared error, minus log-likelihood, images per bin, probability per
    bin.
    """
    y, p = sample.labels, sample.probabilities
    certain = np.clip(p, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    surprise = -np.log(np.where(y == 1, certain, 1 - certain))
    counted = [np.ones_like(p), sample.called(threshold), (p - y) ** 2, surprise]
    return sample.sums(np.column_stack([*counted, binned(p).reshape(len(p), -1)]))


def _counted(sums: np.ndarray) -> dict[str, np.ndarray]:
    """Everything that needs no ranking, from sums (b, 2, K) of `_columns`: arrays (b,) or (b, …)."""
    size = sums[:, :, :1]
    even = _metrics(sums / size * size.sum(axis=1, keepdims=True) / 2)
    in_bin = sums.sum(axis=1)[:, 4:]
    count = in_bin[:, :BINS]
    confusion = np.stack([size[:, :, 0] - sums[:, :, 1], sums[:, :, 1]], axis=2)
    return {
        **_metrics(sums),
        **{f"{name}{AT_BALANCE}": even[name] for name in WITH_BALANCE if name in even},
        "probability": in_bin[:, BINS:] / count,
        "fraction": sums[:, 1, 4 : 4 + BINS] / count,
        "count": count,
        "confusion": confusion,
        "confusion_fraction": confusion / size,
    }


class _Ranking:
    """Measures the ranking of a sample under any weights of its galaxies.

    galaxy, merger: (n,) of the images by falling probability; ends: last image of each run of equal probabilities.
    """

    def __init__(self, sample: Sample) -> None:
        y, p, _, self.galaxy, _ = sample.ranked()
        self.merger = y == 1
        self.ends = np.flatnonzero(np.diff(p, append=-1.0))

    def curve(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """The ROC curve for each row of weights (b, G)."""
        _, _, tpr, fpr = self._counts(weights)
        # np.interp takes the upper end where the curve is vertical.
        heights = [np.interp(FALSE_POSITIVE_RATES, x, y) for x, y in zip(fpr, tpr, strict=True)]
        return {"true_positive_rate": np.stack(heights)}

    def areas(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """The area under the ROC curve, and the average precision at both class ratios, for each row of weights."""
        tp, fp, tpr, fpr = self._counts(weights)
        step = np.diff(tpr, axis=1)

        def average_precision(fp_weight: np.ndarray | float) -> np.ndarray:
            predicted = tp + fp * fp_weight
            # Before the first image with weight there is nothing to be pure; recall does not step there either.
            purity = np.divide(tp, predicted, out=np.zeros_like(tp), where=predicted != 0)
            return (step * purity).sum(axis=1)

        return {
            "auc": (np.diff(fpr, axis=1) * (tpr[:, 1:] + tpr[:, :-1])).sum(axis=1) / 2,
            "average_precision": average_precision(1.0),
            f"average_precision{AT_BALANCE}": average_precision(tp[:, -1:] / fp[:, -1:]),
        }

    def _counts(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Mergers and others down to each threshold, (b, k), and their shares, with that of none in front."""
        images = weights[:, self.galaxy]
        tp = np.cumsum(images * self.merger, axis=1)[:, self.ends]
        fp = np.cumsum(images, axis=1)[:, self.ends] - tp
        tpr, fpr = (np.pad(count, ((0, 0), (1, 0))) / count[:, -1:] for count in (tp, fp))
        return tp, fp, tpr, fpr


def _metrics(sums: np.ndarray) -> dict[str, np.ndarray]:
    """The metrics that need no ranking, from sums (b, 2, K)."""
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
