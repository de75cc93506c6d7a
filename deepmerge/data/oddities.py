"""Pixels that are odd: sentinels, saturated plateaus, constant borders, filters in units of their own."""

import numpy as np

from deepmerge.data.dataset import Dataset
from deepmerge.data.memory_map import forget
from deepmerge.data.missing import undefined

SENTINELS = (-99.0, -999.0, -9999.0, -99.99, -99.9, -32768.0, 99.0, 999.0, 9999.0)
PLATEAU = 16  # pixels at the very same maximum: a camera's limit, where noise would tell them apart
FAR = 1000.0  # ratio of the spreads of two filters from which on they are hardly in the same units
SAMPLE = 500  # images that are looked at before a training


class Oddities:
    """What is odd about images that come in pieces."""

    def __init__(self, dataset: Dataset, excluded: np.ndarray | None = None) -> None:
        self._missing, self._filters = dataset.missing, dataset.filters
        self._excluded = np.empty(0, int) if excluded is None else excluded  # images whose oddities are known
        self._seen = 0
        self._rows: dict[str, list[int]] = {}  # of images by what is odd about them
        self._spreads: list[np.ndarray] = []
        self._lowest = np.full(len(self._filters), np.inf)
        self._highest = np.full(len(self._filters), -np.inf)
        self._whole = np.ones(len(self._filters), bool)

    def add(self, images: np.ndarray) -> None:
        """Look at images (n, F, H, W)."""
        known = undefined(images, self._missing)
        pixels = np.where(np.isfinite(known), known, np.nan) if known.dtype.kind == "f" else known
        with np.errstate(all="ignore"):
            lowest, highest = (reduce(pixels, axis=(2, 3)) for reduce in (np.fmin.reduce, np.fmax.reduce))
        for value in (
            one for one in SENTINELS if one < 0 or pixels.dtype.kind == "f"
        ):  # 99 is a brightness in a picture
            # Where it is the outermost value: among others it may well be one of many whole numbers.
            outer = (lowest if value < 0 else highest) == value
            odd = np.zeros(len(images), bool)
            if (some := outer.any(1)).any():
                odd[some] = (outer[some] & _far(pixels[some], value)).any(1)
            self._note(f"hold the value {value:g}, which often stands for a missing pixel", odd)
        flat = lowest == highest
        top = (pixels == highest[..., np.newaxis, np.newaxis]).sum((2, 3))
        self._note("are saturated: many pixels share the highest value", ((top >= PLATEAU) & ~flat).any(1))
        edges = (pixels[..., 0, :], pixels[..., -1, :], pixels[..., :, 0], pixels[..., :, -1])
        border = np.any([(edge == edge[..., :1]).all(-1) for edge in edges], axis=0) & ~flat
        self._note("have a constant border", border.any(1))
        self._lowest = np.fmin(self._lowest, np.fmin.reduce(lowest, axis=0))
        self._highest = np.fmax(self._highest, np.fmax.reduce(highest, axis=0))
        self._whole &= ((pixels == np.round(pixels)) | ~np.isfinite(pixels)).all((0, 2, 3))
        self._spreads.append(np.nan_to_num(highest.astype(float)) - np.nan_to_num(lowest.astype(float)))
        self._seen += len(images)

    def said(self) -> list[str]:
        """What is odd, a sentence each; none where nothing is."""
        found = [
            f"{len(rows)} of {self._seen} images {what}, the first in row {rows[0]}" + _mend(what)
            for what, rows in self._rows.items()
        ]
        spread = np.median(np.concatenate(self._spreads), 0) if self._spreads else np.ones(0)
        if len(spread) > 1 and spread.min() > 0 and spread.max() / spread.min() > FAR:
            low, high = (self._filters[int(place)] for place in (spread.argmin(), spread.argmax()))
            found.append(
                f"pixels of {high} spread {spread.max() / spread.min():.2g} × as far as those of {low}: are both "
                "in the same units?"
            )
        for number, name in enumerate(self._filters):
            low, high = self._lowest[number], self._highest[number]
            if high < 0:
                found.append(f"pixels of {name} are all negative, at most {high:.3g}: are they magnitudes, not fluxes?")
            elif self._whole[number] and low >= 0 and 1 < high <= 255:
                found.append(
                    f"pixels of {name} are whole numbers from {low:g} to {high:g}, as in a picture for the eye: not "
                    "proportional to brightness, and only comparable with pictures made in the same way"
                )
        return found

    def _note(self, what: str, odd: np.ndarray) -> None:
        rows = np.setdiff1d(self._seen + np.flatnonzero(odd), self._excluded)
        if len(rows):
            self._rows.setdefault(what, []).extend(rows.tolist())


def warnings(dataset: Dataset, rows: np.ndarray) -> list[str]:
    """What is odd about some of these rows, at most SAMPLE of them; the rows it names count among the sample."""
    some = np.sort(rows[:: max(1, len(rows) // SAMPLE)][:SAMPLE])
    oddities = Oddities(dataset)
    for part in np.array_split(some, max(1, len(some) // 100)):
        oddities.add(np.asarray(dataset.images[part]))
        forget(dataset.images)
    return oddities.said()


def _far(pixels: np.ndarray, value: float) -> np.ndarray:
    """Whether a value lies apart from the other pixels of each image and filter, (n, F): as a sentinel does."""
    others = np.where(np.isfinite(pixels) & (pixels != value), pixels, np.nan)
    counts = np.maximum(np.isfinite(others).sum((2, 3)), 1)
    center = np.nansum(others, (2, 3), dtype=np.float64) / counts
    spread = np.sqrt(np.nansum((others - center[..., np.newaxis, np.newaxis]) ** 2, (2, 3), dtype=np.float64) / counts)
    return np.abs(value - center) > 3 * spread


def _mend(what: str) -> str:
    return "; say so with data.missing" if "missing pixel" in what else ""
