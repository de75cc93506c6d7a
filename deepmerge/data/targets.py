"""Images that a network should work on without a label of them: read alone, and the part that a training may see.

A target is named as a data set is, or by a file of images. Its labels are never opened, so that nothing of a training
can depend on them; its test galaxies are never among the images that a training sees.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from deepmerge import config
from deepmerge.data import catalogue as catalogues
from deepmerge.data import noise, tags
from deepmerge.data.dataset import Dataset, chunks, read_source
from deepmerge.data.formats import sources
from deepmerge.data.missing import undefined
from deepmerge.data.noise import Degradation, Noise
from deepmerge.data.released import layout
from deepmerge.data.splits import Split
from deepmerge.errors import InputError

ADAPTED = "adapted_to_sha256"
MEASURED = 512  # images of either sample whose noise is measured: sigma is known to 1 %, the gain to some 15 %


@dataclass(frozen=True)
class Unlabelled:
    """Images (N, F, H, W), the galaxy id of each as text (N,), and the rows (n,) that a training may see.

    missing: what stands for pixels that were not measured.
    """

    name: str
    images: np.ndarray
    galaxies: np.ndarray
    rows: np.ndarray
    missing: config.Missing | None = None

    def filled(self, images: np.ndarray) -> np.ndarray:
        """Batches of its images (n, H, W, F) with its fill for missing pixels, since networks may know other ones."""
        if self.missing is None:
            return images
        known = undefined(images, self.missing)
        fill = np.nanmedian(known, axis=(0, 1, 2)) if self.missing.fill == "median" else float(self.missing.fill)
        return np.where(np.isnan(known), fill, known).astype(np.float32)


def read(reference: str) -> Unlabelled:
    """The images of a data set, by the name or path of its experiment file, or of a file of images, without any label.

    Images in which nothing tells the galaxy count as one each; copies, and what its settings
    exclude, are left out. Raises InputError for what is
    neither, and for a catalogue that does not fit the images.
    """
    files, name = _files(reference)
    found = sources.read(files)
    images, table = found.images, found.table
    if images.ndim != 4 or not len(images):
        raise InputError(f"images in {files.images} should have shape (N, filters, H, W), got {images.shape}")
    file = files.catalogue
    if file is None and not files.images.is_dir():
        noted = read_source(files.images).get("catalogue")
        file = files.images.parent / noted if noted else None
    if file is not None:
        table = catalogues.table(file, files.columns, labelled=False)
    if table is None and len(images) == layout.ROWS:
        table = layout.layout_catalogue()
    count = len(images)
    if table is not None and len(table) != count:
        raise InputError(f"the catalogue of {name} should have a line for each of {count} images, got {len(table)}")
    given = table is not None and "galaxy_id" in table
    galaxies = (table["galaxy_id"] if table is not None and given else np.arange(count)).astype(str)
    is_copy = table is not None and "copy" in table
    copies = table["copy"].astype(str).to_numpy() if table is not None and is_copy else np.full(count, "0")
    rows = np.flatnonzero(copies == "0")
    if files.exclude is not None:
        rows = np.setdiff1d(rows, tags.excluded(files.exclude, pd.Series(galaxies)))
    return Unlabelled(name, images, np.asarray(galaxies, object), rows, files.missing)


def digests(training: config.Training) -> dict[str, str]:
    """What tells the images that a training adapts to from others, by the tag of a run: SHA-256 of their pixels."""
    if training.adapt is None:
        return {}
    images = read(training.adapt.to).images
    digest = hashlib.sha256(f"{images.shape}{images.dtype}".encode())
    for chunk in chunks(images):
        digest.update(np.ascontiguousarray(images[chunk]).data)
    return {ADAPTED: digest.hexdigest()}


def _files(reference: str) -> tuple[config.Data, str]:
    path = Path(reference)
    if path.suffix in (".yaml", ".yml") or reference in config.names() or not path.exists():
        experiment = config.load(reference)
        return experiment.data, experiment.name
    return config.Data.model_construct(images=path), path.stem


def are_same(target: Unlabelled, data: Dataset) -> bool:
    """Whether the target shows the very galaxies of `data`, row by row, as another variant of a sample does."""
    return np.array_equal(target.galaxies, data.catalogue["galaxy_id"].to_numpy().astype(str))


def held_out(target: Unlabelled, number: int, count: int, seed: int) -> np.ndarray:
    """Where images of the target show galaxies that test, (N,) bool: fold `number` of `count`, drawn by galaxy.

    No label is asked, so that the draw is the same whatever the labels are.
    """
    galaxies = np.unique(target.galaxies.astype(str))
    if not 2 <= count <= len(galaxies):
        raise InputError(f"folds should be 2 to {len(galaxies)}, the galaxies of {target.name}, got {count}")
    order = np.random.default_rng(seed).permutation(galaxies)
    return np.isin(target.galaxies.astype(str), np.array_split(order, count)[number])


def beside(target: Unlabelled, data: Dataset, split: Split) -> Unlabelled:
    """The target with the rows that a training on this split of `data` may see.

    Of the same galaxies those that train, so that none is seen that validates or tests. Of others all but the first of
    the label-blind folds (`held_out`), of which there are as many as test parts fit into `data`.
    """
    if are_same(target, data):
        return replace(target, rows=np.intersect1d(target.rows, split.train.rows))
    galaxies = [len(np.unique(data.galaxies[rows])) for rows in (split.test.rows, np.arange(len(data.labels)))]
    count = max(2, round(galaxies[1] / max(1, galaxies[0])))
    return replace(target, rows=np.setdiff1d(target.rows, np.flatnonzero(held_out(target, 0, count, split.seed))))


def to_adapt_to(settings: config.Adapt, data: Dataset, split: Split) -> Unlabelled:
    """The images that a training on this split adapts to. Raises InputError where they have another shape."""
    target = beside(read(settings.to), data, split)
    if target.images.shape[1:] != data.images.shape[1:]:
        wanted = ", ".join(map(str, data.images.shape[1:]))
        raise InputError(
            f"adapt.to should name images of shape (N, {wanted}), as those to train on, got {target.images.shape} of "
            f"{target.name}; data.size and data.filters make them alike"
        )
    return target


def resolved(
    training: config.Training, data: Dataset, split: Split, target: Unlabelled | None = None
) -> config.Training:
    """The same settings with the noise of `noise.like` in numbers, measured on images that train, and all checked.

    `target` takes the place of the images that `noise` and `adapt` name, where these are parted already. Raises
    InputError for an unknown data set, images of another shape or number of filters, and images no noisier.
    """
    settings = training.noise
    if settings is not None and settings.like is not None and settings.sigma is None:
        lacking = _lacking(target or beside(read(settings.like), data, split), data, split)
        gain = [value if np.isfinite(value) else None for value in lacking.gain.tolist()]
        measured = {"sigma": lacking.sigma.tolist(), "gain": gain, "like": settings.like}
        training = training.model_copy(update={"noise": config.Noise.model_validate(measured)})
    Degradation.of(training, data)
    if training.adapt is not None and target is None:
        to_adapt_to(training.adapt, data, split)
    return training


def _lacking(target: Unlabelled, data: Dataset, split: Split) -> Noise:
    """The noise that training images lack, to have as much as those of the target that may be seen."""
    if target.images.shape[1] != data.images.shape[1]:
        raise InputError(
            f"noise.like should name images of {data.images.shape[1]} filters, as those to train on, got "
            f"{target.images.shape[1]} of {target.name}; data.filters chooses among them"
        )
    rng = np.random.default_rng(split.seed)
    pairs = ((data.images, split.train.rows), (target.images, target.rows))
    ours, theirs = (_sample(images, rows, rng) for images, rows in pairs)
    return noise.measure(ours, theirs, (data.missing, target.missing))


def _sample(images: np.ndarray, rows: np.ndarray | Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """At most MEASURED images (n, H, W, F) float32 of these rows."""
    chosen = np.unique(rows)
    if len(chosen) > MEASURED:
        chosen = np.sort(rng.choice(chosen, MEASURED, replace=False))
    return np.moveaxis(np.asarray(images[chosen], np.float32), 1, -1)
