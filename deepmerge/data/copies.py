"""Images that repeat others, also flipped or turned, found in the pixels: no catalogue has to tell.

A copy has the very same pixels after one of the eight flips and turns of a square (of an oblong image, the four that
keep its shape); all filters turn together. One that was scaled, shifted, resampled or given other noise is not found.
0 equals -0 here, and NaN equals NaN. An image that is constant in each of its filters is no copy of another.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import pandas as pd

from deepmerge.data.dataset import Dataset, chunks
from deepmerge.data.memory_map import forget
from deepmerge.data.splits import PARTS, Split
from deepmerge.data.turns import possible_transforms, transform
from deepmerge.errors import InputError

HOW = (  # by code of the transform
    "again",
    "turned by 90°",
    "turned by 180°",
    "turned by 270°",
    "flipped upside down",
    "flipped along the diagonal",
    "flipped left to right",
    "flipped along the other diagonal",
)
_BLOCK_BYTES = 2**19  # of images whose keys are made together: they stay in the processor's cache


def require_apart(dataset: Dataset, splits: Iterable[Split]) -> None:
    """Raise InputError where one part of a split by galaxy repeats an image of another part.

    Splits by rows leak on purpose and are passed over.
    """
    by_galaxy = [split for split in splits if split.protocol == "galaxy"]
    if not by_galaxy:
        return
    all_keys = np.concatenate([keys(dataset.images[chunk]) for chunk in chunks(dataset.images)])
    for split in by_galaxy:
        part = np.full(len(all_keys), -1)
        for number, name in enumerate(PARTS):
            part[getattr(split, name).rows] = number
        if groups := across(dataset.images, all_keys, part):
            one, other = first_pair(groups[0], part)
            raise InputError(
                f"each image of {dataset.name} should be in one part of the split, but row {other} "
                f"({PARTS[part[other]]}) is row {one} ({PARTS[part[one]]}) {how(dataset.images, one, other)}, and "
                f"{len(groups)} such images are in several parts; give a catalogue in which copies share their "
                "galaxy_id ('deepmerge data check' counts them), or, if that is what you want, say split: rows"
            )


def across(images: np.ndarray, keys: np.ndarray, owner: np.ndarray) -> list[np.ndarray]:
    """Rows that show one image but have several owners: a group (≥ 2,) for each such image, rows in ascending order.

    images (N, F, H, W); keys (N,), as the function of that name gives them; owner (N,), whole numbers: the part, class
    or galaxy that may not share an image with another, below 0 for rows that do not count.
    """
    table = pd.DataFrame({"key": keys, "owner": owner})[owner >= 0]
    suspects = table.index[table.groupby("key")["owner"].transform("nunique") > 1]
    pixels = np.asarray(images)  # each look at a row of a memory map makes a memory map, ten times as slowly
    groups: dict[bytes, list[int]] = defaultdict(list)
    for row in suspects:
        image = pixels[row]
        if (form := _form(image)) is not None:
            groups[form].append(row)
        forget(images, after=image.nbytes)
    return [rows for rows in map(np.array, groups.values()) if len(np.unique(owner[rows])) > 1]


def first_pair(rows: np.ndarray, owner: np.ndarray) -> tuple[int, int]:
    """The first of a group's rows, and the first with another owner."""
    return int(rows[0]), int(rows[np.argmax(owner[rows] != owner[rows[0]])])


def how(images: np.ndarray, one: int, other: int) -> str:
    """How row `other` repeats row `one`, in words of HOW."""
    before, after = _bits(images[one]), _bits(images[other])
    codes = possible_transforms(before.shape)
    return next(HOW[code] for code in codes if np.array_equal(transform(before, code), after))


def keys(images: np.ndarray) -> np.ndarray:
    """A number for each of the images (n, F, H, W) that no flip or turn changes, (n,) uint64.

    Two images share one by rare accident, or where pixels changed places with their mirror images.
    """
    weights = _weights(images.shape[1:])
    sums = np.empty(len(images), np.uint64)
    step = max(1, _BLOCK_BYTES // images[0].nbytes) if len(images) else 1
    for start in range(0, len(images), step):
        bits = _bits(images[start : start + step]).astype(np.uint64)
        bits ^= bits >> np.uint64(32)  # a product loses as many bits as a double of a round number has zeros at its end
        sums[start : start + step] = np.einsum("nk,k->n", bits.reshape(len(bits), -1), weights)
    return sums


@lru_cache(maxsize=1)
def _weights(shape: tuple[int, ...]) -> np.ndarray:
    """Random weights of the pixels of an image (F, H, W), the same where flips and turns take a pixel, (F · H · W,)."""
    weights = np.random.default_rng(0).integers(0, 2**64, shape, np.uint64).reshape(shape[0], -1)
    places = np.arange(weights.shape[1]).reshape(shape[1:])
    least = np.min([transform(places, code) for code in possible_transforms(shape)], axis=0)
    return weights[:, least.ravel()].ravel()


def _form(image: np.ndarray) -> bytes | None:
    """A digest that an image (F, H, W) shares with its flips and turns alone; None where it is constant."""
    bits = _bits(image)
    if (bits == bits[:, :1, :1]).all():
        return None
    least = min(transform(bits, code).tobytes() for code in possible_transforms(bits.shape))
    return hashlib.blake2b(least, digest_size=16).digest()


def _bits(images: np.ndarray) -> np.ndarray:
    """Pixels as whole numbers, equal where the pixels are, in the machine's byte order."""
    pixels = np.asarray(images, images.dtype.newbyteorder("="))
    if pixels.dtype.kind != "f":
        return pixels
    pixels = pixels.astype(np.float64) if pixels.dtype.itemsize > 8 else pixels + pixels.dtype.type(0)  # -0 + 0 is 0
    pixels[np.isnan(pixels)] = np.nan
    return pixels.view(f"u{pixels.dtype.itemsize}")
