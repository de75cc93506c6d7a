"""Rows of a data set -> batches for the network: read, turned, balanced."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from deepmerge.data import noise
from deepmerge.data.memory_map import forget
from deepmerge.data.noise import Degradation
from deepmerge.data.splits import Part
from deepmerge.data.targets import Unlabelled
from deepmerge.data.turns import possible_transforms, transform
from deepmerge.errors import InputError

TARGET = 1  # of the random numbers by which target images are drawn, which change nothing of the others


def gather(images: np.ndarray, rows: np.ndarray, transforms: np.ndarray | None = None) -> np.ndarray:
    """Read rows of images (N, F, H, W) as float32 (n, H, W, F), each turned by its transform."""
    batch = np.empty((len(rows), *images.shape[2:], images.shape[1]), np.float32)
    codes = np.zeros(len(rows), int) if transforms is None else transforms
    pixels = np.asarray(images)  # each look at a row of a memory map makes a memory map, ten times as slowly
    # Ascending order reads a memory-mapped file forwards. One copy of each image, filter by filter: seven times as fast
    # as turning a batch whose filters are interleaved.
    for place in np.argsort(rows, kind="stable"):
        image = transform(pixels[rows[place]], int(codes[place]))
        for number in range(len(image)):
            batch[place, ..., number] = image[number]
        forget(images, after=image.nbytes)
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
    degradation: what is done to the images, with other random numbers for each image of each epoch, on however many
    devices. codes: what is to be learned of each image, (N,), as `labels.codes` gives it; by default the labels.
    target: images to show beside them, as many, in an order of their own, turned as these are.
    """

    images: np.ndarray
    labels: np.ndarray
    part: Part
    batch_size: int
    balance: str
    augment: bool
    seed: int
    degradation: Degradation | None = None
    target: Unlabelled | None = None
    codes: np.ndarray | None = None

    def __post_init__(self) -> None:
        if set(np.unique(self.labels[self.part.rows])) != {0, 1}:
            raise InputError("the training part should hold both classes, got one; add images or change the split")

    @property
    def merger_fraction(self) -> float:
        """Share of mergers that a network sees: the prior at which its probabilities are meant, in (0, 1)."""
        return float(self.labels[self.part.rows].mean()) if self.balance == "none" else 0.5

    def epoch(self, number: int) -> "Epoch":
        """The images of epoch `number` (from 0) in order."""
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
        return Epoch(self, number, self.part.rows[members], transforms, labels[members], weights)

    def __len__(self) -> int:
        return len(self.epoch(0))


@dataclass(frozen=True)
class Epoch:
    """The images of one epoch, `number` from 0, in order: row, transform, label and weight of each, (n,)."""

    batches: TrainingBatches
    number: int
    rows: np.ndarray
    transforms: np.ndarray
    labels: np.ndarray
    weights: np.ndarray

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batches.batch_size)

    def size(self, index: int) -> int:
        """Images of batch number `index`, from 0; the last one may have fewer."""
        return min(self.batches.batch_size, len(self.rows) - index * self.batches.batch_size)

    def batch(self, index: int, part: int = 0, parts: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Batch number `index`, or one of the `parts` that it is cut into.

        Images (b, H, W, F), labels (b,) and weights (b,), all float32. A part is never empty: where a batch has fewer
        images than parts, the last ones show its first with weight 0.
        """
        chosen, spare = self._chosen(index, part, parts)
        images = gather(self.batches.images, self.rows[chosen], self.transforms[chosen])
        if self.batches.degradation is not None:
            images = self.batches.degradation(images, noise.draws([self.batches.seed, self.number], chosen))
        weights = np.where(spare, 0, self.weights[chosen]).astype(np.float32)
        learned = self.labels if self.batches.codes is None else self.batches.codes[self.rows]
        return images, learned[chosen].astype(np.float32), weights

    def target(self, index: int, part: int = 0, parts: int = 1) -> np.ndarray:
        """Target images beside those of `batch`, (b, H, W, F) float32; each is shown before any is shown again."""
        target = self.batches.target
        if target is None:
            raise ValueError("there should be a target, whose images are shown beside the others")
        chosen, _ = self._chosen(index, part, parts)
        rows, transforms = self._targets
        return target.filled(gather(target.images, rows[chosen], transforms[chosen]))

    @cached_property
    def _targets(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows and transforms of the target images of the epoch, each (n,)."""
        batches, count = self.batches, len(self.rows)
        rows = np.empty(0, np.int64) if batches.target is None else batches.target.rows
        rng = np.random.default_rng([batches.seed, self.number, TARGET])
        times = -(-count // len(rows))
        order = np.concatenate([rng.permutation(rows) for _ in range(times)])[:count]
        turned = possible_transforms(batches.images.shape) if batches.augment else np.zeros(1, int)
        return order, rng.choice(turned, count)

    def _chosen(self, index: int, part: int, parts: int) -> tuple[np.ndarray, np.ndarray]:
        """Places in the epoch of the images of a part of a batch, and which of them are to spare."""
        start, size = index * self.batches.batch_size, self.size(index)
        chosen = np.arange(size * part // parts, size * (part + 1) // parts) if size >= parts else np.array([part])
        spare = chosen >= size
        return start + np.where(spare, 0, chosen), spare
