"""The eight turns and flips of a square image, by number, and those in which the release shows a merger."""

import numpy as np

TRANSFORMS = 8  # codes 0 … 7: code % 4 quarter turns (counter-clockwise), then upside down when code ≥ 4

# The release holds each merger image five times, in this order.
RELEASE_COPIES = np.array([0, 4, 6, 1, 2], np.uint8)  # identity, flipud, fliplr, rot90, rot180


def possible_transforms(shape: tuple[int, ...]) -> np.ndarray:
    """Codes of the transforms that images (…, H, W) allow: a quarter turn changes the frame of an oblong one."""
    return np.arange(TRANSFORMS) if shape[-1] == shape[-2] else np.array([0, 2, 4, 6])


def transform(image: np.ndarray, code: int) -> np.ndarray:
    """A view of images (…, H, W), turned and flipped."""
    quarters = code % 4
    turned = image.swapaxes(-2, -1) if quarters % 2 else image
    rows = -1 if (quarters in (1, 2)) != (code >= 4) else 1
    columns = -1 if quarters in (2, 3) else 1
    return turned[..., ::rows, ::columns]  # np.rot90 takes as long as copying the image
