"""The stretch: raw pixels in any unit -> numbers of mean 0 and variance 1, by constants of the training images.

All constants are measured in units of the images themselves, so the same galaxies in other units give the same
network. `stretch` is the formula in numpy; `layers` is the same in built-in Keras layers, which travel with the model.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

import keras
import numpy as np

from deepmerge import config
from deepmerge.data.missing import found, undefined
from deepmerge.errors import InputError

NOISE_SOFTENING = 5.0  # measured on the noisy demo sample, see README
LOG_FLOOR = 0.1  # softenings; fainter pixels look alike to the log: half the noise, a tenth of pristine outskirts
LARGEST = 1e18  # softenings; the square of more is infinite in float32
# Spread over mean of the stretched pixels below which a float32, of seven digits, has too few steps to tell them apart.
LEAST_SPREAD = 1e-5
# Standard deviation of pixels that a network can take as they are. Below, the 1e-3 that batch norm adds to a variance
# takes the place of the signal: on the pristine demo sample the validation log loss after six epochs was 0.57 to 0.67
# from 0.03 to 1e5, 0.73 at 0.01, and 0.70, that of knowing nothing, at 0.001.
RAW_SPREAD = (0.03, 1e5)
TOLERANCE = 0.01  # of the variance behind the layers; rounding in float32 changes it by less than 1e-4


@dataclass(frozen=True)
class PixelStatistics:
    """Constants of the stretch, each (F,), measured on training images only.

    softening: the brightness, in units of the images, below which asinh is linear; mean, variance: of the stretched
    pixels; fill: what pixels that are `missing` are taken for, None where none can be.
    """

    softening: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    fill: np.ndarray | None = None
    missing: config.Missing | None = None

    @property
    def unit(self) -> np.ndarray:
        """A power of two near each softening, (F,): dividing by it rounds nothing, and makes the pixels of order 1."""
        return np.exp2(np.floor(np.log2(self.softening)))


def stretch(pixels: np.ndarray, kind: str, softening: np.ndarray) -> np.ndarray:
    """Stretch pixels (…, F), by a `kind` of `config.Network.stretch` and the softening (F,) of each filter."""
    if kind == "asinh":
        return np.arcsinh(pixels / softening)
    if kind == "log":
        return np.log10(np.maximum(pixels / softening, LOG_FLOOR))
    return pixels


def measure(images: np.ndarray, kind: str, missing: config.Missing | None = None) -> PixelStatistics:
    """Measure the constants of the stretch `kind` on training images (n, H, W, F).

    The softening of each filter is NOISE_SOFTENING times the pixel noise, so that noise stays in the linear part, or
    the median absolute pixel value where that is more (pristine images: the faint outskirts); in images that are mostly
    masked with 0, the median of the others. Pixels that are `missing` do not count. Raises InputError where the
    stretched pixels of a filter are all alike, and for 'raw' where they are too faint or too bright to be taken as they
    are.
    """
    images = undefined(images, missing)
    pixels = images.reshape(-1, images.shape[-1]).astype(np.float64)
    for number in range(pixels.shape[1] if missing else 0):
        _require(
            not np.isnan(pixels[:, number]).all(), number, kind, "be measured somewhere", "missing ones everywhere"
        )
    # The plain ones give the same to the last digit as they always did.
    median, mean_of, variance_of = (np.nanmedian, np.nanmean, np.nanvar) if missing else (np.median, np.mean, np.var)
    softening = np.maximum(NOISE_SOFTENING * _noise(images, median), median(np.abs(pixels), axis=0))
    for number in np.flatnonzero(softening == 0).tolist():
        lit = np.abs(pixels[np.abs(pixels[:, number]) > 0, number])
        _require(len(lit) > 0, number, kind, "differ from pixel to pixel", "0 everywhere")
        softening[number] = np.median(lit)
    stretched = stretch(pixels, kind, softening)
    mean, variance = mean_of(stretched, axis=0), variance_of(stretched, axis=0)
    for number, (middle, spread) in enumerate(zip(mean.tolist(), np.sqrt(variance).tolist(), strict=True)):
        differs = spread > LEAST_SPREAD * abs(middle)
        _require(differs, number, kind, "differ from pixel to pixel", f"{middle:.6g} ± {spread:.2g}")
        if kind == "raw":
            low, high = RAW_SPREAD
            fits = low <= spread <= high
            _require(fits, number, kind, f"have a standard deviation of {low:g} to {high:.0f}", f"{spread:.3g}")
    if kind == "raw":
        mean, variance = np.zeros_like(mean), np.ones_like(variance)
    if missing is None:
        return PixelStatistics(softening, mean, variance)
    fill = median(pixels, axis=0) if missing.fill == "median" else np.full(len(mean), float(missing.fill))
    return PixelStatistics(softening, mean, variance, fill, missing)


def _require(fulfilled: bool, number: int, kind: str, wanted: str, got: str) -> None:
    if not fulfilled:
        raise InputError(
            f"training pixels of filter {number + 1}, stretched as {kind!r}, should {wanted}, got {got}; check the "
            "images with 'deepmerge data check', subtract a constant background, or choose another stretch"
        )


def _noise(images: np.ndarray, median: Callable[..., np.ndarray]) -> np.ndarray:
    """Pixel noise of each filter, (F,): from differences of neighbours, where galaxies nearly cancel; robust (MAD)."""
    differences = np.abs(np.diff(images.astype(np.float64), axis=2))
    return 1.4826 / np.sqrt(2) * median(differences, axis=(0, 1, 2))


def filled(x: keras.KerasTensor, pixels: PixelStatistics) -> keras.KerasTensor:
    """Put the fill in place of pixels (n, H, W, F) that are missing, in layers."""
    if pixels.missing is None or pixels.fill is None:
        return x
    ops = keras.ops
    gaps = [ops.isnan(x) if value == "nan" else ops.equal(x, value) for value in pixels.missing.value]
    return ops.where(reduce(ops.logical_or, gaps), pixels.fill.astype(np.float32), x)


def layers(x: keras.KerasTensor, kind: str, pixels: PixelStatistics) -> keras.KerasTensor:
    """Stretch and standardise images (n, H, W, F) in layers."""
    # The same constants in each column: TensorFlow takes ten times as long where it has two numbers to repeat.
    width = x.shape[2]

    def normalisation(mean: np.ndarray, variance: np.ndarray, name: str) -> keras.layers.Normalization:
        columns = [np.tile(constants, (width, 1)) for constants in (mean, variance)]
        return keras.layers.Normalization((2, 3), *columns, name=name, dtype="float32")

    if kind == "raw":
        return x
    # Keras's Normalization takes no deviation below 1e-7, and the square of one above 1e19 is infinite.
    unit = pixels.unit
    x = keras.layers.Rescaling(np.tile(1 / unit, (width, 1)).tolist(), name="unit", dtype="float32")(x)
    mean, variance = pixels.mean, pixels.variance
    if kind == "standard":
        mean, variance = mean / unit, variance / unit**2
    else:
        x = normalisation(np.zeros_like(mean), (pixels.softening / unit) ** 2, "soften")(x)
        x = arcsinh(x) if kind == "asinh" else keras.ops.log10(keras.ops.maximum(x, LOG_FLOOR))
    return normalisation(mean, variance, "standardise")(x)


def of(model: keras.Model) -> tuple[str, PixelStatistics]:
    """Kind and constants of the stretch in the layers of a network, as `layers` made them."""
    found = {layer.name: layer.get_config() for layer in model.layers}
    filters = model.input_shape[-1]

    def constants(layer: str, key: str) -> np.ndarray:
        """Those of each filter, (F,); all columns have the same."""
        return np.reshape(np.asarray(found[layer][key], np.float64), (-1, filters))[0]

    if "standardise" not in found:
        return "raw", PixelStatistics(np.ones(filters), np.zeros(filters), np.ones(filters))
    unit = 1 / constants("unit", "scale")
    mean, variance = (constants("standardise", key) for key in ("mean", "variance"))
    if "soften" not in found:
        return "standard", PixelStatistics(unit, mean * unit, variance * unit**2)
    kind = "log" if any(type(one).__name__ == "Log10" for one in model.operations) else "asinh"
    return kind, PixelStatistics(np.sqrt(constants("soften", "variance")) * unit, mean, variance)


def require_standardised(images: np.ndarray, kind: str, pixels: PixelStatistics) -> None:
    """Raise InputError unless the layers give the images (n, H, W, F) that were measured mean 0 and variance 1."""
    if kind == "raw":
        return
    inputs = keras.Input(images.shape[1:])
    outputs = layers(filled(inputs, pixels), kind, pixels)
    stretched = keras.Model(inputs, outputs).predict_on_batch(images).astype(np.float64)
    known = ~found(images, pixels.missing)
    mean, variance = stretched.mean((0, 1, 2), where=known), stretched.var((0, 1, 2), where=known)
    if not (np.abs(mean) < TOLERANCE).all() or not (np.abs(variance - 1) < TOLERANCE).all():
        raise InputError(
            f"pixels stretched as {kind!r} should have mean 0 and variance 1 in each filter, got means "
            f"{mean.round(3).tolist()} and variances {variance.round(3).tolist()}: float32 cannot hold images of these "
            f"units (typical pixel values {', '.join(f'{value:.2g}' for value in pixels.softening)}); multiply them by "
            "a constant, or choose another stretch"
        )


def arcsinh(x: keras.KerasTensor) -> keras.KerasTensor:
    """Inverse hyperbolic sine in operations that processors do several numbers at a time: 4 × as fast as TensorFlow's.

    To a few units in the last place, also near 0, where log(x + √(x² + 1)) rounds; the formula of fdlibm's s_asinh.c.
    """
    ops = keras.ops
    size = ops.minimum(ops.absolute(x), LARGEST)
    square = size * size
    return ops.sign(x) * ops.log1p(size + square / (1.0 + ops.sqrt(1.0 + square)))
