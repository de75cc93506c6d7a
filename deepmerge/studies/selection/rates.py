"""On what kind of galaxy a model works: selection function, stages, agreement of views.

Everything is measured on images that were not in training. The intervals are those of `intervals`: a galaxy whose views
fall in several bins counts in all of them. What is not defined is NaN. So is the interval of a rate that rests on a
single galaxy of a class, and of one that is exactly 0 or 1. Intervals that rest on fewer than some ten galaxies are
rough: read them with the counts.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from deepmerge.analysis import checks, intervals
from deepmerge.analysis.sample import Sample
from deepmerge.data.catalogue import STAGES
from deepmerge.errors import InputError
from deepmerge.estimate import Estimate, read

WHOLE, NOT_MEASURED = "all", "not measured"
CLASSES = ("non-merger", "merger")  # by label
# The rates, and the label of the class whose galaxies each rests on.
RATES = {
    "completeness": 1,
    "purity": 1,
    "purity_at_balance": 1,
    "false_positive_rate": 0,
    "merger_score": 1,
    "non_merger_score": 0,
}
AGREEMENT = ("at_least_one", "most", "all")

# Scores are float32: a class whose scores scatter by less is constant, and the rest of it rounding.
_CONSTANT = float(np.finfo(np.float32).eps) ** 2


def by_bins(
    values: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    galaxies: np.ndarray,
    *,
    bins: int = 5,
) -> pd.DataFrame:
    """Measure the selection function: completeness, purity and false positive rate in bins of a property.

    values: (n,) the property of each image (log stellar mass, concentration …), NaN where it is not measured; all else
    and errors as in `metrics.evaluate`. The inner edges are quantiles over the galaxies (mean of a galaxy's images), so
    bins hold about equally many; [low, high), the last with its end. Edges that coincide leave fewer than `bins`. An
    image counts in the bin of its own value.

    Rows: `bin` = WHOLE, then the bins by rising value, then NOT_MEASURED if there is such an image. Columns: `bin`;
    `low`, `high`, `centre` (median of the images); counts `images`, `mergers` (images), `galaxies`, `merger_galaxies`;
    and each of RATES with its interval. `purity` is that of the sample, and falls with the share of mergers in a bin
    whatever the model does; `purity_at_balance` is t / (t + f) from the completeness t and false positive rate f, and
    compares between bins. `merger_score`, `non_merger_score`: mean probability of a merger.
    """
    sample = Sample.of(labels, probabilities, galaxies)
    x = checks.measurements("values", values, len(sample.labels))
    checks.whole_number("bins", bins, 1, usual=5)
    measured = ~np.isnan(x)
    edges = _edges(x[measured], sample.ids[measured], bins)
    place = np.searchsorted(edges[1:-1], x, side="right")
    inside = (place[:, None] == np.arange(len(edges) - 1)) & measured[:, None]
    filled = inside.any(axis=0)
    inside, low, high = inside[:, filled], edges[:-1][filled], edges[1:][filled]

    members = np.column_stack([np.ones(len(x), dtype=bool), inside, ~measured])
    ends = (x[measured].min(), x[measured].max()) if measured.any() else (np.nan, np.nan)
    table = pd.DataFrame(
        {
            "bin": [WHOLE, *(f"{a:.4g} – {b:.4g}" for a, b in zip(low, high, strict=True)), NOT_MEASURED],
            "low": [ends[0], *low, np.nan],
            "high": [ends[1], *high, np.nan],
            "centre": [np.median(x[each & measured]) if (each & measured).any() else np.nan for each in members.T],
        }
    )
    table = table.join(_by_group(members, sample))
    return table if members[:, -1].any() else table.iloc[:-1]


def by_stage(
    stages: Sequence[str] | np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    galaxies: np.ndarray,
) -> pd.DataFrame:
    """Measure each stage: the completeness of past and future mergers, the false positive rate of non-mergers.

    stages: (n,) words of `data.catalogue.STAGES` that agree with the labels; all else and errors as in `by_bins`.

    A row for each stage in the sample. Columns: `stage`, `rate` (completeness or false_positive_rate), `images`,
    `galaxies`, and with their intervals `value`, the share of its images that is predicted merger, and `score`, their
    mean probability.
    """
    sample = Sample.of(labels, probabilities, galaxies)
    y = sample.labels
    words = np.asarray(stages, dtype=str)
    if words.shape != y.shape or not np.isin(words, STAGES).all():
        raise InputError(
            f"stages should be {len(y)} of the words {', '.join(STAGES)}, got {words.shape} with "
            f"{', '.join(sorted(set(words.ravel()))[:5])}"
        )
    wrong = np.flatnonzero((words == "non-merger") == (y == 1))
    if len(wrong):
        raise InputError(
            f"stages and labels should agree on what is a merger, but row {wrong[0]} has stage "
            f"{words[wrong[0]]!r} and label {y[wrong[0]]} ({len(wrong)} such rows)"
        )
    present = [stage for stage in STAGES if (words == stage).any()]
    rows, groups = [], _by_group(words[:, None] == present, sample).to_dict("records")
    for stage, row in zip(present, groups, strict=True):
        merging = stage != "non-merger"
        rate, score = ("completeness", "merger_score") if merging else ("false_positive_rate", "non_merger_score")
        counts = {"stage": stage, "rate": rate, "images": row["images"], "galaxies": row["galaxies"]}
        rows.append(counts | read(row, rate).flat("value") | read(row, score).flat("score"))
    return pd.DataFrame(rows)


def view_agreement(labels: np.ndarray, probabilities: np.ndarray, galaxies: np.ndarray) -> pd.DataFrame:
    """Measure whether the views of one galaxy are right together, against views that err independently.

    Input and errors as in `metrics.evaluate`; every image counts as a view, so leave flipped copies out.
    A row for each class in the sample, mergers first. Columns: `class`, `images`, `galaxies`;

    - `accuracy`: share a of the images that is right;
    - `at_least_one`, `most`, `all`: share of the galaxies that are right from ≥ 1, more than half, all of their m
      views, with their intervals, and `…_expected` for independent views: the mean over galaxies of the probability
      under Binomial(m, a). Views that err together lower `at_least_one` and raise `all`;
    - `intraclass_correlation` of the probabilities, with its interval: the correlation between two views of a galaxy,
      ICC(1) = (B − W) / (B + (k − 1) W) with the mean squares B between and W within galaxies and
      k = (N − Σ m² / N) / (G − 1) for G galaxies of N = Σ m views (Donner 1986, Int. Stat. Rev. 54, 67, section 2).
      1 = all views alike, 0 = independent; NaN when no galaxy has two views or all probabilities are the same.
    """
    from scipy.stats import binom

    sample = Sample.of(labels, probabilities, galaxies)
    p, ones = sample.probabilities, np.ones_like(sample.probabilities)
    sums = sample.sums(np.column_stack([ones, sample.called() == sample.labels, p, p**2]))
    views, right, score, square = np.moveaxis(sums, 2, 0)
    has = views > 0
    one, most, every = right > 0, right > views / 2, has & (right == views)
    of_mean = np.divide(score**2, views, out=np.zeros_like(score), where=has)
    columns = np.stack([has, views, one, most, every, score, square, of_mean, views**2], axis=2).astype(float)

    def measure(sums: np.ndarray) -> dict[str, np.ndarray]:
        """The shares in AGREEMENT and the intraclass correlation, (b, class) each."""
        g, n, ones, mosts, alls, s, q, means, squares = np.moveaxis(sums, 2, 0)
        between, within = (means - s**2 / n) / (g - 1), (q - means) / (n - g)
        k = (n - squares / n) / (g - 1)
        correlation = (between - within) / (between + (k - 1) * within)
        correlation[((q - s**2 / n) / n).real < _CONSTANT] = np.nan
        shares = zip(AGREEMENT, (ones, mosts, alls), strict=True)
        return {**{name: share / g for name, share in shares}, "intraclass_correlation": correlation}

    measured = {}
    for name, found in intervals.of_sums(columns, measure).items():
        lowest = -1.0 if name == "intraclass_correlation" else 0.0
        measured[name] = intervals.bounded(found.value, intervals.error(sample, found.influence), lowest)
    rows = []
    for label in (1, 0):
        m = views[has[:, label], label]
        if not len(m):
            continue
        accuracy = right[:, label].sum() / m.sum()
        expected = (1 - (1 - accuracy) ** m, binom.sf(m // 2, m, accuracy), accuracy**m)
        row = {"class": CLASSES[label], "images": int(m.sum()), "galaxies": len(m), "accuracy": accuracy}
        for name, band in measured.items():
            row |= Estimate(*(part[label] for part in band)).flat(name)
        rows.append(row | {f"{name}_expected": e.mean() for name, e in zip(AGREEMENT, expected, strict=True)})
    return pd.DataFrame(rows)


def _by_group(members: np.ndarray, sample: Sample) -> pd.DataFrame:
    """Counts and RATES with their intervals, a row for each column of members (n, k) bool; groups may overlap."""
    p = sample.probabilities
    columns = np.column_stack([np.ones_like(p), sample.called(), p])
    totals = sample.sums(members[:, :, None] * columns[:, None])

    def measure(sums: np.ndarray) -> dict[str, np.ndarray]:
        """The RATES, (b, k) each."""
        images, called, score = np.moveaxis(sums, 3, 0)
        (f, t), (others_score, mergers_score) = (np.moveaxis(each / images, 1, 0) for each in (called, score))
        purity = called[:, 1] / called.sum(axis=1)
        return dict(zip(RATES, (t, purity, t / (t + f), f, mergers_score, others_score), strict=True))

    has = totals[:, :, :, 0] > 0
    several = has.sum(axis=0) > 1
    rates = {
        name: intervals.bounded(found.value, intervals.error(sample, found.influence)).with_width(several[RATES[name]])
        for name, found in intervals.of_sums(totals, measure).items()
    }
    # A purity mixes the rates of both classes: where one has no interval, its own would be too narrow.
    sure = ~np.isnan([rates["completeness"].low, rates["false_positive_rate"].low]).any(axis=0)
    rates |= {name: rates[name].with_width(sure) for name in ("purity", "purity_at_balance")}
    images = totals[:, :, :, 0].sum(axis=0).astype(int)
    table = {
        "images": images.sum(axis=0),
        "mergers": images[1],
        "galaxies": has.any(axis=1).sum(axis=0),
        "merger_galaxies": has[:, 1].sum(axis=0),
    }
    for name, band in rates.items():
        table |= band.flat(name)
    return pd.DataFrame(table)


def galaxy_means(values: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """The mean of each galaxy, by rising id."""
    names, galaxy = np.unique(ids, return_inverse=True)
    return np.bincount(galaxy, values, minlength=len(names)) / np.bincount(galaxy, minlength=len(names))


def _edges(values: np.ndarray, ids: np.ndarray, bins: int) -> np.ndarray:
    """Rising ends of the bins, from the smallest value to the largest; none without values."""
    if not len(values):
        return np.empty(0)
    inner = np.unique(np.quantile(galaxy_means(values, ids), np.arange(1, bins) / bins))
    # Where many galaxies share the smallest value, quantiles lie on it and would make an empty bin.
    inner = inner[(inner > values.min()) & (inner <= values.max())]
    return np.concatenate([[values.min()], inner, [values.max()]])
