"""Pixels that were not measured, by the sentinel that stands for them (`data.missing` of an experiment)."""

import numpy as np

from deepmerge.config import Missing


def found(pixels: np.ndarray, missing: Missing | None) -> np.ndarray:
    """Where pixels hold a sentinel, bool of the same shape; nowhere without `missing`."""
    where = np.zeros(pixels.shape, bool)
    for value in missing.value if missing else ():
        where |= np.isnan(pixels) if value == "nan" else pixels == value
    return where


def undefined(pixels: np.ndarray, missing: Missing | None) -> np.ndarray:
    """`pixels` with NaN in place of sentinels; the very array where there are none."""
    where = found(pixels, missing)
    return np.where(where, np.nan, pixels) if where.any() else pixels
