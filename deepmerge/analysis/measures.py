"""Metrics of a sample from sums over its galaxies, and from the ranking of its images."""

import numpy as np

from deepmerge.analysis.sample import BINS, SMALLEST_PROBABILITY, THRESHOLD, Sample, binned
from deepmerge.estimate import AT_BALANCE, WITH_BALANCE

FALSE_POSITIVE_RATES = np.linspace(0, 1, 101)  # at which the ROC curve is given


def columns(sample: Sample, threshold: float = THRESHOLD) -> np.ndarray:
    """Sums over a galaxy's images of either class, (G, 2, K), for `counted`.

    The K columns: images, images predicted merger, squared error, minus log-likelihood, images per bin, probability per
    bin.
    """
    y, p = sample.labels, sample.probabilities
    certain = np.clip(p, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    surprise = -np.log(np.where(y == 1, certain, 1 - certain))
    counted = [np.ones_like(p), sample.called(threshold), (p - y) ** 2, surprise]
    return sample.sums(np.column_stack([*counted, binned(p).reshape(len(p), -1)]))


def counted(sums: np.ndarray) -> dict[str, np.ndarray]:
    """Everything that needs no ranking, from sums (b, 2, K) of `columns`: arrays (b,) or (b, …)."""
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


class Ranking:
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
