"""Images brought to one size, and the filters wanted of them."""

from collections.abc import Sequence

import numpy as np

from deepmerge.errors import InputError

SMALLEST_SIDE = 32  # pixels; below it three halvings leave the last convolution fewer than 4 x 4 pixels


def channels_first(images: np.ndarray) -> np.ndarray:
    """Images (N, F, H, W) from such, from (N, H, W, F), or from (N, H, W) of a single filter.

    What comes last are filters where they are fewer than the pixels of the smallest side can be, and those are not.
    """
    if images.ndim == 3:
        return images[:, np.newaxis]
    if images.ndim == 4 and images.shape[3] < SMALLEST_SIDE <= images.shape[1]:
        return np.moveaxis(images, 3, 1)
    return images


def choose(images: np.ndarray, filters: Sequence[int] | None) -> np.ndarray:
    """The `filters` wanted of images (…, F, H, W), all by default. Raises InputError where there are fewer."""
    if filters is None:
        return images
    count = images.shape[-3]
    if max(filters) >= count:
        raise InputError(f"{count} filters, counted from 0; 'filters:' wants number {max(filters)}")
    return images[..., list(filters), :, :]


def fit(images: np.ndarray, size: int | None, resize: str) -> np.ndarray:
    """Images (…, H, W) as (…, size, size), of the same type; without a size, as they are.

    'crop' takes the centre, whose pixels stay what they are. 'resample' takes the largest central square and averages
    (or interpolates) its pixels: the scale changes, the mean surface brightness does not. Raises InputError where
    there is less to crop than `size`.
    """
    height, width = images.shape[-2:]
    if size is None or (height, width) == (size, size):
        return images
    if resize == "crop":
        if min(height, width) < size:
            raise InputError(
                f"{height} × {width} pixels, too few for size {size}; choose a smaller size, or 'resize: resample'"
            )
        return _centre(images, size)
    from PIL import Image

    square = _centre(images, min(height, width))
    planes = square.reshape(-1, *square.shape[-2:])
    # Bilinear: weighs all pixels under the new one when shrinking, and never overshoots beside bright ones.
    fitted = [
        np.asarray(
            Image.fromarray(np.ascontiguousarray(plane, np.float32)).resize((size, size), Image.Resampling.BILINEAR)
        )
        for plane in planes
    ]
    result = np.stack(fitted).reshape(*images.shape[:-2], size, size)
    if images.dtype.kind in "bui":
        result = np.rint(result)
    return result.astype(images.dtype)


def _centre(images: np.ndarray, side: int) -> np.ndarray:
    top, left = ((length - side) // 2 for length in images.shape[-2:])
    return images[..., top : top + side, left : left + side]
