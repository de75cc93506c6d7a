"""Where a network sees images: the features of its last hidden layer, their principal axes, distances and a map."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from deepmerge.errors import InputError

SHARE = 0.99  # of the variance of training features that the axes hold
MOST = 16  # axes
NEAREST = 5  # training images whose mean distance is that of an image
LIMIT = 99.0  # percentile of the distances of validation images from which on an image counts as distant
SAMPLE = 2000  # new images that a classifier tells from those of the training
PERPLEXITY = 30.0  # of t-SNE, about how many neighbours an image has: the usual value


@dataclass(frozen=True)
class Space:
    """Principal axes of features, in which distances are taken, and the training images in them.

    mean (k,), axes (d, k), scales (d,): a feature vector f stands at axes · (f − mean) / scales, where training images
    have variance 1 along each axis; points (n, d): those images; limit: distance from which on an image is distant.
    """

    mean: np.ndarray
    axes: np.ndarray
    scales: np.ndarray
    points: np.ndarray
    limit: float = np.nan

    def at(self, features: np.ndarray) -> np.ndarray:
        """Where features (n, k) stand, (n, d)."""
        return (features - self.mean) @ self.axes.T / self.scales

    def save(self, path: Path) -> None:
        """Write it as npz."""
        arrays: Any = {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}
        np.savez_compressed(path, **arrays)

    @classmethod
    def load(cls, path: Path) -> "Space":
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as held:
            return cls(**{field.name: held[field.name][()] for field in fields(cls)})


class Newcomers:
    """New images that come in pieces, among those of the training in a space."""

    def __init__(self, space: Space, seed: int = 0) -> None:
        self.space = space
        self.seen = self.distant = 0
        self._tree = cKDTree(space.points)
        self._rng = np.random.default_rng(seed)
        self._some = np.empty((0, space.points.shape[1]))

    def add(self, features: np.ndarray) -> np.ndarray:
        """Anomaly of images with features (n, k), (n,): distance from training images over the limit; NaN undefined."""
        points = self.space.at(features)
        found = distances(points, self._tree) / self.space.limit
        self.distant += int((found > 1).sum())
        # A sample of all that came, each as likely as any other (reservoir sampling, Vitter 1985).
        for point in points[np.isfinite(points).all(1)]:
            self.seen += 1
            if len(self._some) < SAMPLE:
                self._some = np.vstack([self._some, point])
            elif (place := int(self._rng.integers(self.seen))) < SAMPLE:
                self._some[place] = point
        return found

    def domain_auc(self) -> float:
        """How well new images can be told from training images, as the function of that name has it."""
        return domain_auc(self.space.points, self._some, 0)


def fit(features: np.ndarray) -> Space:
    """The space of training features (n, k): at most MOST axes, which hold SHARE of the variance.

    Raises InputError where all images have the same features, or some have none.
    """
    if not np.isfinite(features).all():
        raise InputError("features of training images should be finite, got NaN or infinity")
    mean = features.mean(0)
    _, values, axes = np.linalg.svd(features - mean, full_matrices=False)
    variances = values**2 / max(len(features) - 1, 1)
    held = np.cumsum(variances) / max(variances.sum(), np.finfo(float).tiny)
    if not variances.size or variances[0] <= np.finfo(np.float32).eps * np.square(features).mean():
        raise InputError("features of the last hidden layer should differ between images, but are all alike")
    count = min(int(np.searchsorted(held, SHARE)) + 1, MOST)
    signs = np.sign(axes[np.arange(count), np.abs(axes[:count]).argmax(1)])  # else they are up to the linear algebra
    space = Space(mean, axes[:count] * signs[:, np.newaxis], np.sqrt(variances[:count]), np.empty((0, count)))
    return replace(space, points=space.at(features))


def distances(
    points: np.ndarray,
    reference: np.ndarray | cKDTree,
    owners: np.ndarray | None = None,
    others: np.ndarray | None = None,
) -> np.ndarray:
    """Mean distance of points (n, d) to the NEAREST points of the reference (m, d), (n,); NaN where one is undefined.

    A score of anomaly after Ramaswamy, Rastogi & Shim (2000, SIGMOD Rec. 29, 427) and Angiulli & Pizzuti (2002). With
    the galaxies of the points, owners (n,), and of the reference, others (m,), an image's own galaxy does not count.
    """
    _, near = neighbours(points, reference, NEAREST, owners, others)
    return near.mean(1)


def neighbours(
    points: np.ndarray,
    reference: np.ndarray | cKDTree,
    count: int,
    owners: np.ndarray | None = None,
    others: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers and distances of the `count` points of the reference (m, d), or a tree of it, nearest to points (n, d).

    Both (n, count), the nearest first; of other galaxies alone where owners (n,) and others (m,) tell these. Where
    there are fewer the farthest stands again; distances are NaN where a point is undefined.
    """
    views = 0 if others is None or not len(others) else int(np.unique(others, return_counts=True)[1].max())
    tree = reference if isinstance(reference, cKDTree) else cKDTree(reference)
    wanted = min(count + views, tree.n)
    if not wanted:
        raise InputError("a reference should hold one image at least, got none")
    known = np.isfinite(points).all(1)
    far, near = tree.query(np.where(known[:, np.newaxis], points, 0), wanted)
    far, near = far.reshape(len(points), -1), near.reshape(len(points), -1)
    own = np.zeros(near.shape, bool) if owners is None or others is None else others[near] == owners[:, np.newaxis]
    order = np.argsort(own, axis=1, kind="stable")[:, :count]  # those of other galaxies come first, by distance
    last = np.maximum((~own).sum(1) - 1, 0)[:, np.newaxis]
    places = np.minimum(np.arange(count)[np.newaxis].repeat(len(points), 0), last)
    order = np.take_along_axis(order, np.minimum(places, order.shape[1] - 1), 1)
    chosen, away = np.take_along_axis(near, order, 1), np.take_along_axis(far, order, 1)
    return chosen, np.where(known[:, np.newaxis], away, np.nan)


def flat_map(points: np.ndarray, seed: int) -> np.ndarray:
    """A plane on which points (n, d) that are near stay near, (n, 2); t-SNE (van der Maaten & Hinton 2008).

    It begins with the first two axes, so that the same points give the same map. Distances between groups mean little.
    Undefined points are NaN.
    """
    from sklearn.manifold import TSNE

    placed = np.full((len(points), 2), np.nan)
    known = np.isfinite(points).all(1)
    some = points[known]
    first = np.pad(some[:, :2], ((0, 0), (0, max(0, 2 - some.shape[1]))))
    if len(some) <= 3 * PERPLEXITY or some.shape[1] < 2:
        placed[known] = first
        return placed
    start = 1e-4 * first / first[:, 0].std()
    placed[known] = TSNE(perplexity=PERPLEXITY, init=start, random_state=seed).fit_transform(some)
    return placed


def domain_auc(one: np.ndarray, other: np.ndarray, seed: int) -> float:
    """How well a linear classifier tells points (n, d) from points (m, d): its AUC on folds that it has not seen.

    0.5: they cannot be told apart; 1: always. Equally many of each are compared. NaN for fewer than 20 of one.
    (The classifier two-sample test: Lopez-Paz & Oquab 2017, arXiv:1610.06545.)
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    rng = np.random.default_rng(seed)
    parts = [points[np.isfinite(points).all(1)] for points in (one, other)]
    count = min(map(len, parts))
    if count < 20:
        return np.nan
    both = np.concatenate([rng.permutation(points)[:count] for points in parts])
    label = np.repeat([0, 1], count)
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    scores = cross_val_predict(LogisticRegression(max_iter=500), both, label, cv=folds, method="decision_function")
    return float(roc_auc_score(label, scores))
