"""Read a whole data set once and say what is in it, and what is wrong with it."""

from dataclasses import dataclass, field

import numpy as np

from deepmerge.data import copies
from deepmerge.data.dataset import Dataset, chunks
from deepmerge.progress import progress_bar


@dataclass
class Report:
    """What `check` found: `facts` by name, and `problems`, which spoil training or its honesty."""

    facts: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def check(dataset: Dataset) -> Report:
    """Read every pixel once, flat in memory, and report on images, labels and catalogue."""
    pieces = []
    with progress_bar("Checking images", len(dataset.images)) as advance:
        for chunk in chunks(dataset.images):
            pieces.append(_measures(dataset.images[chunk]))
            advance(chunk.stop - chunk.start)
    keys, lowest, highest, sums, squares = map(np.concatenate, zip(*pieces, strict=True))
    finite = np.isfinite(lowest).all(1) & np.isfinite(highest).all(1)
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
            "constant images": str((lowest.min(1) == highest.max(1)).sum()),
            **_statistics(dataset, *(values[finite] for values in (lowest, highest, sums, squares))),
            "fingerprint": dataset.fingerprint,
        }
    )
    if not finite.all():
        report.problems.append(
            f"{(~finite).sum()} images hold NaN or infinite pixels, the first in row {np.argmin(finite)}"
        )
    report.problems += _repeated(dataset, keys)
    return report


def _measures(images: np.ndarray) -> tuple[np.ndarray, ...]:
    """Keys (n,) of images (n, F, H, W); smallest and largest pixel, sum and sum of squares in each filter, (n, F)."""
    with np.errstate(over="ignore", invalid="ignore"):
        sums = images.sum((2, 3), np.float64), np.square(images, dtype=np.float64).sum((2, 3))
        return copies.keys(images), images.min((2, 3)).astype(float), images.max((2, 3)).astype(float), *sums


def _statistics(
    dataset: Dataset, lowest: np.ndarray, highest: np.ndarray, sums: np.ndarray, squares: np.ndarray
) -> dict[str, str]:
    """Pixels of each filter over the images that are finite, from their `_measures`."""
    count = max(len(sums), 1) * dataset.images[0, 0].size
    mean = sums.sum(0) / count
    deviation = np.sqrt(np.maximum(squares.sum(0) / count - mean**2, 0))
    lowest, highest = lowest.min(0, initial=np.inf), highest.max(0, initial=-np.inf)
    return {
        f"pixels in {name}": f"mean {mean[i]:.4g}, standard deviation {deviation[i]:.4g}, "
        f"from {lowest[i]:.4g} to {highest[i]:.4g}"
        for i, name in enumerate(dataset.filters)
    }


def _repeated(dataset: Dataset, keys: np.ndarray) -> list[str]:
    """What is wrong with images that stand, also flipped or turned, in several rows; `keys` (N,) are of copies.keys."""
    images, labels, galaxies = dataset.images, dataset.labels, dataset.galaxies
    groups = copies.across(images, keys, 2 * galaxies + labels)

    problems = []
    for owner, problem in (
        (labels, "in both classes,"),
        (galaxies, "under several galaxy ids, so that the split by galaxy would leak;"),
    ):
        shared = [rows for rows in groups if len(np.unique(owner[rows])) > 1]
        if shared:
            one, other = copies.first_pair(shared[0], owner)
            how = copies.how(images, one, other)
            turned = "" if how == copies.HOW[0] else f", where it is {how}"
            problems.append(f"{len(shared)} images appear {problem} the first in rows {one} and {other}{turned}")
    return problems
