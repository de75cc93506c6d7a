"""Read a whole data set once and say what is in it, and what is wrong with it."""

from dataclasses import dataclass, field

import numpy as np

from deepmerge.data import copies, likeness
from deepmerge.data.dataset import Dataset, chunks
from deepmerge.data.missing import found
from deepmerge.data.oddities import Oddities
from deepmerge.progress import progress_bar


@dataclass
class Report:
    """What `check` found: `facts` by name, `problems`, which spoil training or its honesty, `warnings` of what may."""

    facts: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def check(dataset: Dataset) -> Report:
    """Read every pixel once, flat in memory, and report on images, labels and catalogue."""
    pixels = _Pixels(dataset)
    with progress_bar("Checking images", len(dataset.images)) as advance:
        for chunk in chunks(dataset.images):
            pixels.add(np.asarray(dataset.images[chunk]))
            advance(chunk.stop - chunk.start)
    catalogue, labels = dataset.catalogue, dataset.labels
    stages = catalogue.assign(galaxy=dataset.galaxies).groupby("stage")["galaxy"].nunique()
    views = catalogue[catalogue["copy"] == 0].groupby("galaxy_id")["view"].nunique().value_counts().sort_index()
    report = Report(
        {
            "images": f"{dataset.images.shape} {dataset.images.dtype} (number, filters, height, width)",
            "source": dataset.data_source,
            "filters": ", ".join(dataset.filters),
            "classes": f"{int(labels.sum())} merger images, {int((labels == 0).sum())} non-merger images",
            "galaxies": f"{dataset.galaxies.max() + 1} ("
            + ", ".join(f"{count} {stage}" for stage, count in stages.items())
            + ")",
            "views": ", ".join(f"{galaxies} galaxies with {number}" for number, galaxies in views.items()),
            "copies": f"{int((catalogue['copy'] > 0).sum())} images are flipped or rotated copies of others",
            "left out": f"{len(dataset.excluded)} images, by data.exclude",
            "constant images": str(len(pixels.constant)),
            **pixels.statistics(dataset.filters),
            "fingerprint": dataset.fingerprint,
        }
    )
    if pixels.not_finite:
        report.problems.append(
            f"{len(pixels.not_finite)} images hold NaN or infinite pixels, the first in row {pixels.not_finite[0]}"
        )
    keys = np.concatenate(pixels.keys)
    report.problems += _repeated(dataset, keys)
    report.warnings += pixels.oddities.said()
    if alike := likeness.pairs(dataset, np.concatenate(pixels.described), keys):
        one, other, how = alike[0]
        report.warnings.append(
            f"{len(alike)} pairs of images under different galaxy ids are nearly the same, turned or shifted; the "
            f"most alike in rows {one} and {other} (correlation {how:.2f}); let one galaxy have one galaxy_id"
        )
    return report


class _Pixels:
    """Statistics and keys of images that come in pieces."""

    def __init__(self, dataset: Dataset):
        filters = dataset.images.shape[1]
        self.oddities = Oddities(dataset, dataset.excluded)
        self.used = dataset.used
        self.described: list[np.ndarray] = []
        self.missing = dataset.missing
        self.seen = 0
        self.count = 0
        self.sums = np.zeros((2, filters))
        self.lowest = np.full(filters, np.inf)
        self.highest = np.full(filters, -np.inf)
        self.not_finite: list[int] = []
        self.constant: list[int] = []
        self.keys: list[np.ndarray] = []

    def add(self, images: np.ndarray) -> None:
        self.oddities.add(images)
        gaps = found(images, self.missing)
        with np.errstate(all="ignore"):
            self.described.append(likeness.describe(np.where(gaps, 0, images)))
        used = self.used[self.seen : self.seen + len(images)]
        finite = (np.isfinite(images) | gaps).all((1, 2, 3))
        self.not_finite += (self.seen + np.flatnonzero(~finite & used)).tolist()
        constant = images.min((1, 2, 3)) == images.max((1, 2, 3))
        self.constant += (self.seen + np.flatnonzero(constant & used)).tolist()
        self.keys.append(copies.keys(images))
        self.seen += len(images)
        good = images[finite & used & ~gaps.any((1, 2, 3))]  # statistics of images without a gap
        if len(good):
            self.count += good[:, 0].size
            self.sums += [good.sum((0, 2, 3), np.float64), np.square(good, dtype=np.float64).sum((0, 2, 3))]
            self.lowest = np.minimum(self.lowest, good.min((0, 2, 3)))
            self.highest = np.maximum(self.highest, good.max((0, 2, 3)))

    def statistics(self, filters: tuple[str, ...]) -> dict[str, str]:
        mean, square = self.sums / max(self.count, 1)
        deviation = np.sqrt(np.maximum(square - mean**2, 0))
        return {
            f"pixels in {name}": f"mean {mean[i]:.4g}, standard deviation {deviation[i]:.4g}, "
            f"from {self.lowest[i]:.4g} to {self.highest[i]:.4g}"
            for i, name in enumerate(filters)
        }


def _repeated(dataset: Dataset, keys: np.ndarray) -> list[str]:
    """What is wrong with images that stand, also flipped or turned, in several rows; `keys` (N,) are of copies.keys."""
    images, labels, galaxies = dataset.images, dataset.labels, dataset.galaxies
    groups = copies.across(images, keys, 2 * galaxies + labels)

    def said(owner: np.ndarray, problem: str) -> list[str]:
        used = (rows[dataset.used[rows]] for rows in groups)
        found = [rows for rows in used if len(np.unique(owner[rows])) > 1]
        if not found:
            return []
        one, other = copies.first_pair(found[0], owner)
        how = copies.how(images, one, other)
        turned = "" if how == copies.HOW[0] else f", where it is {how}"
        return [f"{len(found)} images appear {problem} the first in rows {one} and {other}{turned}"]

    return [
        *said(labels, "in both classes,"),
        *said(galaxies, "under several galaxy ids, so that the split by galaxy would leak;"),
    ]
