"""The eight symmetries of a square: the flips and turns under which a galaxy stays a galaxy."""

import numpy as np

TRANSFORMS = 8  # codes 0 … 7: code % 4 quarter turns (counter-clockwise), then upside down when code ≥ 4


def transform(image: np.ndarray, code: int) -> np.ndarray:
    """A view of images (…, H, W) turned and flipped by one of the eight symmetries of the square."""
    quarters = code % 4
    turned = image.swapaxes(-2, -1) if quarters % 2 else image
    rows = -1 if (quarters in (1, 2)) != (code >= 4) else 1
    columns = -1 if quarters in (2, 3) else 1
    return turned[..., ::rows, ::columns]  # np.rot90 takes as long as copying the image


def possible_transforms(shape: tuple[int, ...]) -> np.ndarray:
    """Codes of the transforms that images (…, H, W) allow: a quarter turn of an oblong one misses its frame."""
    return np.arange(TRANSFORMS) if shape[-1] == shape[-2] else np.array([0, 2, 4, 6])
