"""Whether images are like those that a model was trained on, by quantiles of their pixels in each filter.

Compared are single images: each quantile of an image with the range that it has among training images. That finds other
units, another background, other noise and stretched pictures, whatever they show; not other galaxies.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from deepmerge import config
from deepmerge.data.batches import gather
from deepmerge.data.dataset import Dataset
from deepmerge.data.missing import undefined
from deepmerge.data.noise import Degradation
from deepmerge.data.splits import Split
from deepmerge.data.targets import Unlabelled

LEVELS = (0.01, 0.25, 0.5, 0.75, 0.99)
IMAGES = 1000  # training images that are measured: enough to know the ranges of nearly all
OUTER = 0.005  # share of training images at either end that does not widen the range
# Widths of the range beyond it from which on an image counts as unlike. Measured on the demo sample: 2–3 % of the noisy
# and of the pristine test images are unlike; all of the other variant, and all with √2 of the noise; noisy ones all × 3
# or / 10; pristine ones, which differ more among themselves, all × 1000 or / 1000, 20 % × 10.
MARGIN = 0.25
EXPECTED = 0.1  # share of images that may well be unlike; more deserve a warning
LEAST_WIDTH = 0.5  # of a range, in units of its scale: where all training images agree, one may differ by so much


@dataclass(frozen=True)
class Familiar:
    """What the pixels of training images were: the range of each of LEVELS in each filter, `low` and `high` (F, L).

    scale (F,): half of the spread between the quartiles, in which small values are compared; spread (F,): between the
    median and the highest level, in a typical image; all in the units of the images.
    """

    filters: tuple[str, ...]
    low: np.ndarray
    high: np.ndarray
    scale: np.ndarray
    spread: np.ndarray
    missing: config.Missing | None = None

    def difference(self, found: np.ndarray) -> np.ndarray:
        """How far the quantiles (n, F, L) of images lie beyond the range, (n, F, L), in widths of it; 0 within."""
        low, high, value = (np.arcsinh(x / self.scale[:, np.newaxis]) for x in (self.low, self.high, found))
        width = np.maximum(high - low, LEAST_WIDTH)
        return np.maximum(np.maximum(low - value, value - high), 0) / width

    def metadata(self) -> dict[str, Any]:
        """The same in plain numbers, for a model to carry."""
        numbers = {name: getattr(self, name).tolist() for name in ("low", "high", "scale", "spread")}
        return {
            "filters": list(self.filters),
            **numbers,
            "missing": self.missing and self.missing.model_dump(mode="json"),
        }

    @classmethod
    def of_metadata(cls, metadata: Mapping[str, Any]) -> "Familiar":
        """From what `metadata` gave."""
        missing = metadata["missing"]
        low, high, scale, spread = (np.array(metadata[name], float) for name in ("low", "high", "scale", "spread"))
        said = None if missing is None else config.Missing.model_validate(missing)
        return cls(tuple(metadata["filters"]), low, high, scale, spread, said)


def measure(
    data: Dataset, split: Split, degradation: Degradation | None = None, target: Unlabelled | None = None
) -> Familiar:
    """What the training images of a split are like, with what is added to them, and those of the target beside."""
    rows = split.train.rows
    if len(rows) > IMAGES:
        rows = np.random.default_rng(split.seed).choice(rows, IMAGES, replace=False)
    images = gather(data.images, rows)
    if degradation is not None:
        images = degradation.once(images, rows, split.seed)
    if target is not None:
        seen = np.random.default_rng(split.seed).permutation(target.rows)[:IMAGES]
        images = np.concatenate([images, target.filled(gather(target.images, seen))])
    found = quantiles(np.moveaxis(images, -1, 1), data.missing)
    scale = np.median(found[..., 3] - found[..., 1], 0) / 2
    spread = np.median(found[..., -1] - found[..., 2], 0)
    # Images that are mostly masked with 0 have quartiles of 0.
    scale = np.where(scale > 0, scale, np.where(spread > 0, spread, 1))
    low, high = np.nanquantile(found, (OUTER, 1 - OUTER), axis=0)
    return Familiar(data.filters, low, high, scale, spread, data.missing)


def quantiles(images: np.ndarray, missing: config.Missing | None = None) -> np.ndarray:
    """LEVELS of the pixels of images (n, F, H, W), (n, F, L) float64; missing pixels do not count, NaN where any is."""
    flat = undefined(images, missing).reshape(*images.shape[:2], -1)
    found = np.full((*flat.shape[:2], len(LEVELS)), np.nan)
    whole = np.isfinite(flat).all((1, 2))
    if whole.any():
        found[whole] = np.moveaxis(np.quantile(flat[whole].astype(np.float64), LEVELS, axis=-1), 0, -1)
    for row in np.flatnonzero(~whole):
        for number, pixels in enumerate(flat[row]):
            known = pixels[np.isfinite(pixels)]
            if len(known) and (missing or len(known) == len(pixels)):
                found[row, number] = np.quantile(known.astype(np.float64), LEVELS)
    return found


class Comparison:
    """Images that come in pieces, compared with those of the training."""

    def __init__(self, familiar: Familiar) -> None:
        self.familiar = familiar
        self.seen = self.unlike = 0
        self._logs = np.zeros(len(familiar.scale))
        self._counts = np.zeros(len(familiar.scale))
        self._worst = (0.0, "")

    def add(self, images: np.ndarray) -> np.ndarray:
        """How far each of the images (n, F, H, W) lies beyond the range of training, (n,), in widths of it."""
        found = quantiles(images, self.familiar.missing)
        each = self.familiar.difference(found)
        largest = np.nan_to_num(each).max((1, 2), initial=0)
        beyond = largest > MARGIN
        if beyond.any():
            with np.errstate(all="ignore"):
                logs = np.log((found[beyond, :, -1] - found[beyond, :, 2]) / self.familiar.spread)
            self._counts += np.isfinite(logs).sum(0)
            self._logs += np.where(np.isfinite(logs), logs, 0).sum(0)
            row = int(np.argmax(largest))
            if largest[row] > self._worst[0]:
                self._worst = float(largest[row]), self._described(found[row], each[row], self.seen + row)
        self.seen += len(images)
        self.unlike += int(beyond.sum())
        return np.where(np.isnan(found).all((1, 2)), np.nan, largest)

    def said(self) -> str | None:
        """One line about the images that are unlike; None where none is."""
        if not self.unlike:
            return None
        ratios = np.exp(self._logs / np.maximum(self._counts, 1))
        most = int(np.argmax(np.abs(np.log(ratios))))
        return (
            f"{self.unlike} of {self.seen} images ({self.unlike / self.seen:.0%}) are unlike those that the model was "
            f"trained on, the most {self._worst[1]}; pixels of such images spread {ratios[most]:.3g} × as far as in "
            f"training in {self.familiar.filters[most]}; check their units, background and noise"
        )

    def _described(self, found: np.ndarray, each: np.ndarray, row: int) -> str:
        number, level = np.unravel_index(int(np.argmax(np.nan_to_num(each))), each.shape)
        low, high = self.familiar.low[number, level], self.familiar.high[number, level]
        return (
            f"row {row}, where {LEVELS[level]:.0%} of the {self.familiar.filters[number]} pixels lie below "
            f"{found[number, level]:.3g}, in training below {low:.3g} to {high:.3g}"
        )
