"""Rows of a data set -> batches for the network: gathered, turned, balanced."""

from dataclasses import dataclass

import numpy as np

from deepmerge.data.splits import Part, possible_transforms
from deepmerge.errors import InputError


def transform(images: np.ndarray, code: int) -> np.ndarray:
    """Turn and flip images (n, H, W, F) by one of the eight symmetries of the square (codes: see splits)."""
    turned = np.rot90(images, code % 4, axes=(1, 2))
    return turned[:, ::-1] if code >= 4 else turned


def gather(images: np.ndarray, rows: np.ndarray, transforms: np.ndarray | None = None) -> np.ndarray:
    """Read rows of images (N, F, H, W) as float32 (n, H, W, F), each turned by its transform."""
    # Ascending order reads a memory-mapped file forwards; the rows come back in the order asked for.
    order = np.argsort(rows, kind="stable")
    batch = np.empty((len(rows), *images.shape[2:], images.shape[1]), np.float32)
    batch[order] = np.moveaxis(images[rows[order]], 1, -1)
    if transforms is not None:
        for code in np.unique(transforms[transforms > 0]):
            chosen = transforms == code
            batch[chosen] = transform(batch[chosen], int(code))
    return batch


def class_weights(labels: np.ndarray) -> np.ndarray:
    """Weight of each image so that both classes weigh the same and the mean weight is 1, (n,) float32."""
    counts = np.bincount(labels, minlength=2)
    return (len(labels) / (2.0 * counts))[labels].astype(np.float32)


@dataclass(frozen=True)
class TrainingBatches:
    """The training part in batches, shuffled, turned and balanced anew in each epoch.

    What epoch e holds depends on (seed, e) alone, so training repeats and resumes exactly.
    balance: 'sampling' repeats random images of the rarer class until both are equally many; 'weights' weighs the
    classes equally in the loss; 'none' leaves the sample's own ratio.
    """

    images: np.ndarray
    labels: np.ndarray
    part: Part
    batch_size: int
    balance: str
    augment: bool
    seed: int

    def __post_init__(self) -> None:
        if set(np.unique(self.labels[self.part.rows])) != {0, 1}:
            raise InputError("the training part should hold both classes, got one; add images or change the split")

    def epoch(self, number: int) -> "Epoch":
        """Everything that epoch `number` (from 0) shows, in order."""
        rng = np.random.default_rng([self.seed, number])
        labels = self.labels[self.part.rows]
        members = np.arange(len(labels))
        if self.balance == "sampling":
            counts = np.bincount(labels, minlength=2)
            rare = members[labels == np.argmin(counts)]
            members = np.concatenate([members, rng.choice(rare, counts.max() - counts.min())])
        members = rng.permutation(members)
        weights = class_weights(labels)[members] if self.balance == "weights" else np.ones(len(members), np.float32)
        transforms = self.part.transforms[members]
        if self.augment:
            transforms = rng.choice(possible_transforms(self.images.shape), len(members))
        return Epoch(self, self.part.rows[members], transforms, labels[members], weights)

    def __len__(self) -> int:
        return len(self.epoch(0))


@dataclass(frozen=True)
class Epoch:
    """One epoch; `batch(i)` gives images (b, H, W, F), labels (b,) and weights (b,)."""

    batches: TrainingBatches
    rows: np.ndarray
    transforms: np.ndarray
    labels: np.ndarray
    weights: np.ndarray

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batches.batch_size)

    def batch(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Batch number `index`, from 0; the last one may be smaller."""
        chosen = slice(index * self.batches.batch_size, (index + 1) * self.batches.batch_size)
        images = gather(self.batches.images, self.rows[chosen], self.transforms[chosen])
        return images, self.labels[chosen].astype(np.float32), self.weights[chosen]
