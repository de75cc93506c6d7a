"""Checks of what a figure is to show: shape, range and words."""

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import ArrayLike

from deepmerge.errors import InputError


def expect(met: bool, what: str, expected: str, received: object) -> None:
    """Raise InputError unless `met`."""
    if not met:
        raise InputError(f"{what}: expected {expected}, received {received}")


def numbers(what: str, values: ArrayLike, *shape: int | None) -> np.ndarray:
    """Return `values` as float64 of `shape` (None = any length).

    Raises InputError for another shape or for anything but numbers.
    """
    try:
        array = np.asarray(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise InputError(f"{what}: expected numbers, received {error}") from None
    fits = array.ndim == len(shape) and all(n in (None, m) for n, m in zip(shape, array.shape, strict=True))
    expect(fits, what, f"shape ({', '.join('any' if n is None else str(n) for n in shape)})", array.shape)
    return array


def words(what: str, values: Sequence[str], count: int, allowed: Collection[str] | None = None) -> list[str]:
    """Return `values` as a list of `count` strings, all `allowed` if that is given, or raise InputError."""
    texts = [str(value) for value in values]
    expect(len(texts) == count, what, f"{count} texts", len(texts))
    if allowed is not None:
        expect(set(texts) <= set(allowed), what, f"words of {list(allowed)}", sorted(set(texts) - set(allowed)))
    return texts


def as_probabilities(what: str, values: ArrayLike) -> np.ndarray:
    """Return `values` as float64 (n,) from 0 to 1, NaN for undefined ones, or raise InputError."""
    array = numbers(what, values, None)
    outside = array[(array < 0) | (array > 1)]
    expect(not outside.size, what, "values from 0 to 1", outside[:3].tolist())
    return array
