"""Read a whole data set once and say what is in it, and what is wrong with it."""

import hashlib
from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

from deepmerge.data.dataset import Dataset, chunks
from deepmerge.progress import progress_bar


@dataclass
class Report:
    """What `check` found: `facts` by name, and `problems`, which spoil training or its honesty."""

    facts: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def check(dataset: Dataset) -> Report:
    """Read every pixel once, flat in memory, and report on images, labels and catalogue."""
    pixels = _Pixels(dataset.images.shape[1])
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
            "constant images": str(len(pixels.constant)),
            **pixels.statistics(dataset.filters),
            "fingerprint": dataset.fingerprint,
        }
    )
    if pixels.not_finite:
        report.problems.append(
            f"{len(pixels.not_finite)} images hold NaN or infinite pixels, the first in row {pixels.not_finite[0]}"
        )
    report.problems += _duplicates(dataset, pixels.rows_by_digest)
    return report


class _Pixels:
    """Statistics and digests of images that come in pieces."""

    def __init__(self, filters: int):
        self.seen = 0
        self.count = 0
        self.sums = np.zeros((2, filters))
        self.lowest = np.full(filters, np.inf)
        self.highest = np.full(filters, -np.inf)
        self.not_finite: list[int] = []
        self.constant: list[int] = []
        self.rows_by_digest: dict[bytes, list[int]] = defaultdict(list)

    def add(self, images: np.ndarray) -> None:
        finite = np.isfinite(images).all((1, 2, 3))
        self.not_finite += (self.seen + np.flatnonzero(~finite)).tolist()
        self.constant += (self.seen + np.flatnonzero(images.min((1, 2, 3)) == images.max((1, 2, 3)))).tolist()
        for row, image in enumerate(images, self.seen):
            self.rows_by_digest[hashlib.blake2b(image.tobytes(), digest_size=16).digest()].append(row)
        self.seen += len(images)
        good = images[finite]
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


def _duplicates(dataset: Dataset, rows_by_digest: dict[bytes, list[int]]) -> list[str]:
    groups = [np.array(rows) for rows in rows_by_digest.values() if len(rows) > 1]
    across_classes = [rows for rows in groups if len(np.unique(dataset.labels[rows])) > 1]
    across_galaxies = [rows for rows in groups if len(np.unique(dataset.galaxies[rows])) > 1]
    problems = []
    if across_classes:
        rows = across_classes[0]
        problems.append(
            f"{len(across_classes)} images appear in both classes, the first in rows {rows[0]} and {rows[1]}"
        )
    if across_galaxies:
        rows = across_galaxies[0]
        problems.append(
            f"{len(across_galaxies)} images appear under several galaxy ids, so that the split by galaxy would leak; "
            f"the first in rows {rows[0]} and {rows[1]}"
        )
    return problems
