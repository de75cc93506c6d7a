"""The networks: raw pixels in, probability of being a merger out. Built-in Keras layers only."""

from dataclasses import dataclass

import keras
import numpy as np

from deepmerge import config
from deepmerge.model.fast_layers import FastBatchNormalization, FastConv2D

DENSE_UNITS = (64, 32)  # units of the two hidden dense layers, Ciprijanovic et al. 2020, table 1
CONVOLUTIONS = ((8, 5), (16, 3), (32, 3))  # (filters, kernel size), ibid.
NOISE_SOFTENING = 5.0  # measured on the noisy demo sample, see README
LARGEST = 1e18  # softenings; the square of more is infinite in float32
LOG_FLOOR = 1e-4  # faintest pixel value the log stretch keeps apart; about the pristine background


@dataclass(frozen=True)
class PixelStatistics:
    """Constants of the stretch, each (F,), measured on training images only.

    softening: the brightness below which asinh is linear; mean, variance: of the stretched pixels.
    """

    softening: np.ndarray
    mean: np.ndarray
    variance: np.ndarray


def stretch(pixels: np.ndarray, kind: str, softening: np.ndarray) -> np.ndarray:
    """The numpy twin of the layers that `build` puts first; pixels (…, F)."""
    if kind == "asinh":
        return np.arcsinh(pixels / softening)
    if kind == "log":
        return np.log10(np.maximum(pixels, LOG_FLOOR))
    return pixels


def measure_pixels(images: np.ndarray, kind: str) -> PixelStatistics:
    """Measure the constants of the stretch `kind` on training images (n, H, W, F).

    The softening of each filter is NOISE_SOFTENING times the pixel noise, so that noise stays in the linear part, or
    the median absolute pixel value where that is more (pristine images: the faint outskirts). It follows the units of
    whatever images are brought.
    """
    pixels = images.reshape(-1, images.shape[-1]).astype(np.float64)
    softening = np.maximum(NOISE_SOFTENING * _noise(images), np.median(np.abs(pixels), axis=0))
    softening[softening == 0] = 1.0  # constant or mostly masked images have no scale of their own
    stretched = stretch(pixels, kind, softening)
    if kind == "raw":
        return PixelStatistics(softening, np.zeros(len(softening)), np.ones(len(softening)))
    variance = stretched.var(axis=0)
    return PixelStatistics(softening, stretched.mean(axis=0), np.where(variance > 0, variance, 1.0))


def _noise(images: np.ndarray) -> np.ndarray:
    """Pixel noise of each filter, (F,): from differences of neighbours, where galaxies nearly cancel; robust (MAD)."""
    differences = np.abs(np.diff(images.astype(np.float64), axis=2))
    return 1.4826 / np.sqrt(2) * np.median(differences, axis=(0, 1, 2))


def build(
    shape: tuple[int, int, int],
    settings: config.Network,
    pixels: PixelStatistics,
    *,
    for_training: bool = False,
    precision: str = "float32",
) -> keras.Model:
    """Build the network for images of `shape` (H, W, F), uncompiled.

    'published' has 174,801 parameters on (75, 75, 2), as in the authors' notebook: its batch norm works over the image
    width (channels-first images met the default axis) and its hidden dense layers are softmax. 'default' normalises
    channels, uses ReLU, and drops units only behind the last batch norm, whose statistics dropout would shift.
    `settings.batch_norm` and `settings.hidden` say otherwise where one of the two ways is to be tried alone.
    `settings.width` scales filters and hidden units, which number at least one.
    `for_training` takes faster layers: the same weights and numbers, but not built into Keras. `precision` is Keras's
    name of what the layers compute with between the stretch and the probability; the weights are float32.
    """
    published = settings.architecture == "published"
    over_width = {"architecture": published, "channels": False, "width": True}[settings.batch_norm]
    softmax = {"architecture": published, "relu": False, "softmax": True}[settings.hidden]
    layers = keras.layers
    keep = {"dtype": precision}
    inputs = keras.Input(shape, name="pixels")
    x = _stretch_layers(inputs, settings.stretch, pixels)
    convolution = FastConv2D if for_training else layers.Conv2D
    norm = FastBatchNormalization if for_training else layers.BatchNormalization
    for number, (filters, size) in enumerate(CONVOLUTIONS, 1):
        filters = _scaled(filters, settings.width)
        x = convolution(filters, size, padding="same", activation="relu", name=f"conv_{number}", **keep)(x)
        x = norm(axis=2 if over_width else -1, **keep)(x)
        x = layers.MaxPooling2D(2, **keep)(x)
        if published:
            x = layers.Dropout(settings.dropout, **keep)(x)
    x = layers.Flatten(**keep)(x)
    if not published:
        x = layers.Dropout(settings.dropout, **keep)(x)
    for units in DENSE_UNITS:
        x = layers.Dense(
            _scaled(units, settings.width),
            activation="softmax" if softmax else "relu",
            kernel_regularizer=keras.regularizers.L2(settings.l2),
            **keep,
        )(x)
        if not published:
            x = layers.Dropout(settings.dropout, **keep)(x)
    outputs = layers.Dense(1, activation="sigmoid", name="merger_probability", dtype="float32")(x)
    return keras.Model(inputs, outputs, name=f"deepmerge_{settings.architecture}")


def _scaled(number: int, width: float) -> int:
    return max(1, round(number * width))


def _arcsinh(x: keras.KerasTensor) -> keras.KerasTensor:
    """Inverse hyperbolic sine in operations that processors do several numbers at a time: 4 × as fast as TensorFlow's.

    To a few units in the last place, also near 0, where log(x + √(x² + 1)) rounds; the formula of fdlibm's s_asinh.c.
    """
    ops = keras.ops
    size = ops.minimum(ops.absolute(x), LARGEST)
    square = size * size
    return ops.sign(x) * ops.log1p(size + square / (1.0 + ops.sqrt(1.0 + square)))


def _stretch_layers(x: keras.KerasTensor, kind: str, pixels: PixelStatistics) -> keras.KerasTensor:
    def scale(mean: np.ndarray, variance: np.ndarray, name: str) -> keras.layers.Normalization:
        # The same constants in each column: TensorFlow takes ten times as long where it has two numbers to repeat.
        columns = [np.tile(constants, (x.shape[2], 1)) for constants in (mean, variance)]
        return keras.layers.Normalization((2, 3), *columns, name=name, dtype="float32")

    if kind == "asinh":
        x = scale(np.zeros_like(pixels.softening), pixels.softening**2, "soften")(x)
        x = _arcsinh(x)
    elif kind == "log":
        x = keras.ops.log10(keras.ops.maximum(x, LOG_FLOOR))
    if kind != "raw":
        x = scale(pixels.mean, pixels.variance, "standardise")(x)
    return x
