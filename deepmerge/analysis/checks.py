"""Checks of what is to be analysed: each returns its argument as an array or raises InputError in one line."""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from deepmerge.errors import InputError


def predictions(
    labels: ArrayLike, probabilities: ArrayLike, galaxies: ArrayLike
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels 0 or 1 as integers, probabilities as float64, galaxy ids that can be sorted: (n,) each, n ≥ 1.

    Probabilities may also be (n, 1), as a Keras model with one output returns them.
    """
    y, p, ids = np.asarray(labels), np.asarray(probabilities), np.asarray(galaxies)
    if p.ndim == 2 and p.shape[1] == 1:
        p = p[:, 0]
    if y.ndim != 1 or not y.shape == p.shape == ids.shape or not len(y):
        raise InputError(
            "labels, probabilities and galaxies should be three lists of one length, with an entry an image, "
            f"got shapes {y.shape}, {p.shape}, {ids.shape}"
        )
    wrong = y[~np.isin(y, (0, 1))]
    if len(wrong):
        raise InputError(f"labels should be 0 (non-merger) or 1 (merger), got {wrong[0]!r} among them")
    unnamed = pd.isna(ids).sum()
    if unnamed:
        raise InputError(f"galaxies should name the galaxy of every image, got None or NaN for {unnamed}")
    return y.astype(np.intp), unit_interval(p), ids.astype(str) if ids.dtype == object else ids


def one_each(name: str, values: ArrayLike, count: int) -> np.ndarray:
    """What each of `count` images belongs to, (count,)."""
    each = np.asarray(values)
    if each.shape != (count,):
        raise InputError(f"{name} should have an entry an image, {count} of them, got shape {each.shape}")
    return each


def unit_interval(probabilities: ArrayLike) -> np.ndarray:
    """Probabilities of any shape as float64."""
    try:
        p = np.asarray(probabilities, dtype=np.float64)
    except (TypeError, ValueError):
        kind = np.asarray(probabilities).dtype
        raise InputError(f"probabilities should be numbers, got type {kind}") from None
    outside = np.flatnonzero(~((p >= 0) & (p <= 1)))
    if len(outside):
        raise InputError(
            f"probabilities should lie in [0, 1], got {p.ravel()[outside[0]]} in row {outside[0]} "
            f"({len(outside)} such): logits need a sigmoid, NaN a look at the training"
        )
    return p


def measurements(name: str, values: ArrayLike, count: int) -> np.ndarray:
    """A property of images as float64, (count,), NaN where it was not measured."""
    try:
        x = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{name} should be {count} numbers, one an image, got something else among them") from None
    if x.shape != (count,) or np.isinf(x).any():
        raise InputError(
            f"{name} should be {count} numbers, one an image, NaN where not measured, "
            f"got shape {x.shape} with {np.isinf(x).sum()} infinite"
        )
    return x


def row_numbers(name: str, rows: ArrayLike, total: int) -> np.ndarray:
    """Numbers of rows among `total`, one at least."""
    numbers = np.asarray(rows)
    valid = numbers.ndim == 1 and len(numbers) and numbers.dtype.kind in "iu"
    if not valid or numbers.min() < 0 or numbers.max() >= total:
        raise InputError(f"{name} should be a list of row numbers 0 … {total - 1}, got {rows!r}")
    return numbers


def whole_number(name: str, value: int, least: int, usual: int) -> None:
    """Refuse what is not a whole number of at least `least`; `usual` is what the message suggests."""
    if not isinstance(value, int | np.integer) or value < least:
        raise InputError(f"{name} should be a whole number ≥ {least} ({usual} is usual), got {value!r}")
