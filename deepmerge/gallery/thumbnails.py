"""Images as thumbnails in colour: 8 bits, for the eye."""

import numpy as np

from deepmerge.errors import InputError

SIDE = 96  # pixels
STRETCHES = ("log", "asinh")
MAD = 1.4826  # σ of a normal distribution in median distances from its median
UNDEFINED = (30, 64, 96)  # colour of pixels that are not finite
# Softening of asinh in σ of the sky, and of log in units of the white point where the sky has no noise.
SOFT, FLAT = 2.0, 1e-3
FOR, AGAINST = (
    np.array([1.0, 0.62, 0.12]),
    np.array([0.2, 0.55, 1.0]),
)  # colours of what speaks for a class, and against


def channels(count: int) -> tuple[int, int, int]:
    """Which of `count` filters, in order of wavelength, are red, green and blue; −1: the mean of the other two."""
    if count < 1:
        raise InputError(f"images should have one filter at least, got {count}")
    return (1, -1, 0) if count == 2 else (count - 1, (count - 1) // 2, 0)


def colours(images: np.ndarray, stretch: str = "log") -> np.ndarray:
    """Images (n, F, H, W) of any real type as (n, H, W, 3) uint8: long wavelengths red, short ones blue.

    In each filter the sky, the median s, becomes 0 and the white point 1: the 99.7th percentile, but at least s + 15 σ,
    so that a faint galaxy stays faint; σ = 1.4826 × the median distance from s. Then 'asinh' stretches the mean of the
    filters, I, and multiplies each by f(I)/I, which keeps the colour of a pixel however bright it is (Lupton et al.
    2004, PASP 116, 133, eq. 2); 'log' stretches each filter by itself, which shows faint features in either. Pixels
    that are not finite are UNDEFINED. Raises InputError for another shape or stretch.
    """
    if images.ndim != 4 or 0 in images.shape[1:]:
        raise InputError(f"images should have shape (n, F, H, W), got {images.shape}")
    if stretch not in STRETCHES:
        raise InputError(f"stretch should be one of {', '.join(STRETCHES)}, got {stretch!r}")
    red, green, blue = channels(images.shape[1])
    chosen = images[:, sorted({red, blue} | ({green} - {-1}))]
    finite = np.isfinite(chosen).all(1)
    scaled, soft = _scaled(chosen)
    if stretch == "asinh":
        mean = np.maximum(scaled.mean(1, keepdims=True), 0)
        softening = soft.mean(1, keepdims=True)
        bent = np.arcsinh(mean / softening) / np.arcsinh(1 / softening)
        shades = np.maximum(scaled, 0) * np.divide(bent, mean, out=np.zeros_like(mean), where=mean > 0)
        shades /= np.maximum(shades.max(1, keepdims=True), 1)  # a pixel too bright keeps its hue
    else:
        shades = np.log1p(np.clip(scaled, 0, 1) / soft) / np.log1p(1 / soft)
    if shades.shape[1] == 2:
        shades = np.stack([shades[:, 1], shades.mean(1), shades[:, 0]], 1)
    elif shades.shape[1] == 3:
        shades = shades[:, ::-1]
    pictures = np.empty((*finite.shape, 3), np.uint8)
    pictures[:] = np.moveaxis(np.clip(shades, 0, 1) * 255 + 0.5, 1, -1).astype(np.uint8)
    pictures[~finite] = UNDEFINED
    return pictures


def shrunk(images: np.ndarray, side: int = SIDE) -> np.ndarray:
    """Images (n, F, H, W) with at most `side` pixels in either direction: the middle, means of k × k pixels.

    The very array where they are small already. A mean with a pixel that is not finite is none either.
    """
    factor = -(-max(images.shape[2:]) // side)
    if factor <= 1:
        return images
    height, width = (length // factor for length in images.shape[2:])
    top, left = ((length % factor) // 2 for length in images.shape[2:])
    middle = images[:, :, top : top + height * factor, left : left + width * factor]
    return middle.reshape(*images.shape[:2], height, factor, width, factor).mean((3, 5))


def heat(maps: np.ndarray) -> np.ndarray:
    """Saliency maps (n, 2, H, W) ≥ 0 as (n, H, W, 3) uint8, to be added to the image: black where they are 0.

    Orange is what speaks for a merger, maps[:, 0], blue what speaks against it, maps[:, 1]; both in units of the
    larger maximum of the two, so that they can be compared in an image, though not between images.
    """
    if maps.ndim != 4 or maps.shape[1] != 2:
        raise InputError(f"maps should have shape (n, 2, H, W), got {maps.shape}")
    peak = maps.max(axis=(1, 2, 3), keepdims=True)
    shares = np.divide(maps, peak, out=np.zeros(maps.shape), where=peak > 0)[..., np.newaxis]
    added = shares[:, 0] * FOR + shares[:, 1] * AGAINST
    return (np.clip(added, 0, 1) * 255 + 0.5).astype(np.uint8)


def _scaled(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, F, H, W) with the sky at 0 and the white point at 1, and the softening (n, F, 1, 1) in these units."""
    flat = images.reshape(*images.shape[:2], -1).astype(np.float64)
    flat[~np.isfinite(flat)] = np.nan
    empty = np.isnan(flat).all(-1)
    flat[empty] = 0
    largest = np.maximum(np.nanmax(np.abs(flat), -1, keepdims=True), np.finfo(np.float64).tiny)
    flat /= largest  # the squares of values near the largest float would overflow
    sky = _quantile(flat, 0.5)
    noise = MAD * _quantile(np.abs(flat - sky), 0.5)
    reach = np.maximum(_quantile(flat, 0.997) - sky, 15 * noise)
    highest = np.nanmax(flat, -1, keepdims=True) - sky
    reach = np.where(reach > 0, reach, np.where(highest > 0, highest, 1))  # a few odd pixels on a flat sky
    scaled = np.nan_to_num((flat - sky) / reach).reshape(images.shape)
    soft = np.maximum(SOFT * noise / reach, FLAT)[..., np.newaxis]
    return scaled, soft


def _quantile(values: np.ndarray, share: float) -> np.ndarray:
    """Linear quantile of the values along the last axis that are not NaN, (…, 1), as np.nanquantile has it."""
    ordered = np.sort(values, -1)  # NaN comes last
    place = share * ((~np.isnan(values)).sum(-1, keepdims=True) - 1)
    below = np.floor(place).astype(int)
    low, high = (np.take_along_axis(ordered, each, -1) for each in (below, np.ceil(place).astype(int)))
    return low + (place - below) * (high - low)
