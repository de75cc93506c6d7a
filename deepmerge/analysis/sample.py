"""Predictions of a sample of galaxies, checked, and arrays of values with their intervals."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from deepmerge.analysis import checks
from deepmerge.errors import InputError
from deepmerge.estimate import HIGH, LOW

LEVEL = 0.95  # how often an interval holds the truth
BINS = 10  # equal-width bins of probability, (lower, upper]; the first holds 0 too, as in Guo et al. 2017
# Networks answer in float32, where a saturated 1 means "within this of 1": a wrong certainty costs 15.9 nats.
SMALLEST_PROBABILITY = float(np.finfo(np.float32).eps)
THRESHOLD = 0.5  # of the probability, from which on an image is predicted merger

_EDGES = np.linspace(0, 1, BINS + 1)


class Band(NamedTuple):
    """An array of values with the ends of their 95 % intervals, all of one shape."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def flat(self, name: str) -> dict[str, np.ndarray]:
        """Columns `name`, `name_low` and `name_high` of a table."""
        return {name: self.value, f"{name}{LOW}": self.low, f"{name}{HIGH}": self.high}

    def with_width(self, supported: ArrayLike = True) -> "Band":
        """The band without intervals that are not supported or have no width.

        Where nothing went wrong in the sample, no resample says how seldom something does.
        """
        wide = np.logical_and(supported, self.high > self.low)
        return Band(self.value, np.where(wide, self.low, np.nan), np.where(wide, self.high, np.nan))


class Sample(NamedTuple):
    """Checked predictions of n images of G galaxies, (n,) each.

    galaxy: numbers 0 … G − 1 of the ids, rising; fold: which of several networks scored an image.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    ids: np.ndarray
    galaxy: np.ndarray
    fold: np.ndarray

    @classmethod
    def of(
        cls, labels: ArrayLike, probabilities: ArrayLike, galaxies: ArrayLike, folds: ArrayLike | None = None
    ) -> "Sample":
        """Check predictions as `checks.predictions`, which says what is wrong with them; by default of one network."""
        y, p, ids = checks.predictions(labels, probabilities, galaxies)
        fold = np.zeros(len(y)) if folds is None else checks.one_each("folds", folds, len(y))
        return cls(y, p, ids, *(np.unique(column, return_inverse=True)[1] for column in (ids, fold)))

    def ranked(self) -> "Sample":
        """The same images by falling probability."""
        order = np.argsort(-self.probabilities, kind="stable")
        return Sample(*(column[order] for column in self))

    def of_galaxies(self) -> "Sample":
        """The galaxies, each with the mean probability of its images; one with images of both classes counts twice."""
        counts, totals = np.moveaxis(self.sums(np.column_stack([np.ones(len(self.labels)), self.probabilities])), 2, 0)
        galaxy, label = np.nonzero(counts)
        fold = np.zeros_like(counts, dtype=int)
        fold[self.galaxy, self.labels] = self.fold
        present = galaxy, label
        means = np.round(totals[present] / counts[present], 12)  # equal ones tie, in whatever order they were summed
        return Sample(label, means, np.unique(self.ids)[galaxy], galaxy, fold[present])

    def within_folds(self) -> "Sample":
        """The same images, each with the share of its fold's images that its probability exceeds, ties counted half.

        The networks of two folds may be surer or less sure of everything; an image of one ranked against one of the
        other says nothing of either (Forman & Scholz 2010, SIGKDD Explor. 12, 49).
        """
        if not self.fold.any():
            return self
        grouped = pd.Series(self.probabilities).groupby(self.fold)
        shares = (grouped.rank() - 0.5) / grouped.transform("size")
        return self._replace(probabilities=shares.to_numpy())

    def called(self, threshold: float = THRESHOLD) -> np.ndarray:
        """Whether each image is predicted merger, (n,): from the threshold on (≥). Raises InputError outside [0, 1]."""
        if not 0 <= threshold <= 1:
            raise InputError(f"threshold should lie in [0, 1], got {threshold}")
        return self.probabilities >= threshold

    def sums(self, columns: np.ndarray) -> np.ndarray:
        """Sum columns (n, …) over the images that a galaxy has of either class, (G, 2, …)."""
        totals = np.zeros((self.galaxy.max() + 1, 2, *columns.shape[1:]))
        np.add.at(totals, (self.galaxy, self.labels), columns)
        return totals

    def images(self) -> np.ndarray:
        """Images that each galaxy has of either class, (G, 2)."""
        return self.sums(np.ones(len(self.labels)))

    def strata(self) -> np.ndarray:
        """What galaxies are drawn from, (G,): 1 non-mergers, 2 mergers, 3 galaxies with images of both classes."""
        return (self.images() > 0) @ (1, 2)

    def has_single(self) -> bool:
        """Whether a class has a single galaxy, which does not tell how much others scatter."""
        return 1 in (self.images() > 0).sum(axis=0)


def binned(probabilities: np.ndarray) -> np.ndarray:
    """Columns by whose sums the BINS are filled, (n, 2, BINS): 1 in the bin of an image, and its probability there."""
    in_bin = np.eye(BINS)[np.searchsorted(_EDGES[1:-1], probabilities)]
    return np.stack([in_bin, in_bin * probabilities[:, None]], axis=1)
