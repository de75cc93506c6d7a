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
from deepmerge.analysis.measures import Ranking, columns, counted
from deepmerge.analysis.sample import LEVEL, THRESHOLD, Band, Sample
from deepmerge.errors import InputError
from deepmerge.estimate import AT_BALANCE, OF_GALAXIES, WITH_VIEWS, Estimate

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
    measured = bands(sample, Ranking(sample.within_folds()).curve, resamples, seed) | {
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


def recovered(
    labels: np.ndarray,
    candidate: np.ndarray,
    worst: np.ndarray,
    best: np.ndarray,
    galaxies: np.ndarray,
    folds: np.ndarray | None = None,
    *,
    metric: str = "auc",
) -> Estimate:
    """The share of what `worst` lacks of `best` in a metric that `candidate` has: 0 none of it, 1 all.

    candidate, worst, best: as in `difference`, each with as many seeds. The interval is over galaxies and seeds, by the
    delta method; NaN where `best` is not above `worst`.
    """
    samples, (ours, low, high) = _samples(labels, (candidate, worst, best), galaxies, folds)
    gained = [one[metric].minus(other[metric]) for one, other in zip(ours, low, strict=True)]
    lost = [one[metric].minus(other[metric]) for one, other in zip(high, low, strict=True)]
    whole = np.mean([each.value for each in lost])
    if not whole > 0:
        return Estimate(np.nan)
    share = np.mean([each.value for each in gained]) / whole
    around = [
        {metric: Linear((g.value - share * w.value) / whole, (g.influence - share * w.influence) / whole)}
        for g, w in zip(gained, lost, strict=True)
    ]
    _, spread = _mean(samples[0], around)[metric]
    return Estimate(*map(float, intervals.difference(share, spread)))


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
        measured = counted(np.tensordot(by_galaxy, columns(sample, threshold), axes=1))
        measured |= Ranking(sample).areas(by_galaxy)
    return {name: float(values[0]) for name, values in measured.items() if values.ndim == 1}


def _linear(sample: Sample) -> dict[str, Linear]:
    """Everything that an Evaluation holds but what the bootstrap finds, and what each galaxy adds to it."""
    of_galaxies = _of_lines(sample.of_galaxies())
    return _of_lines(sample) | {f"{OF_GALAXIES}{name}": of_galaxies[name] for name in WITH_VIEWS}


def _of_lines(sample: Sample) -> dict[str, Linear]:
    ranked = sample.within_folds()
    return intervals.of_sums(columns(sample), counted) | {
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
    samples, (ours, theirs) = _samples(labels, (candidate, reigning), galaxies, folds)
    apart = [
        {name: value.minus(other[name]) for name, value in one.items() if value.value.ndim == 0}
        for one, other in zip(ours, theirs, strict=True)
    ]
    return _mean(samples[0], apart)


def _samples(
    labels: np.ndarray, scores: Sequence[np.ndarray], galaxies: np.ndarray, folds: np.ndarray | None
) -> tuple[list[Sample], list[list[dict[str, Linear]]]]:
    """Samples of the first of several models, one a seed; for each model, and each of its seeds, all numbers.

    All samples number the galaxies alike, and have the same strata.
    """
    made = [[Sample.of(labels, each, galaxies, folds) for each in np.atleast_2d(model)] for model in scores]
    return made[0], [[_linear(sample) for sample in model] for model in made]


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
