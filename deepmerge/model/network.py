"""The networks: raw pixels in, probability of being a merger out. Built-in Keras layers only."""

from dataclasses import dataclass

import keras
import numpy as np

from deepmerge import config

DENSE_UNITS = (64, 32)  # units of the two hidden dense layers, Ciprijanovic et al. 2020, table 1
CONVOLUTIONS = ((8, 5), (16, 3), (32, 3))  # (filters, kernel size), ibid.
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

    The softening is the median absolute pixel value of each filter: close to the sky noise in noisy images and to
    the faint outskirts in pristine ones, and it follows the units of whatever images are brought.
    """
    pixels = images.reshape(-1, images.shape[-1]).astype(np.float64)
    softening = np.median(np.abs(pixels), axis=0)
    # More than half of all pixels exactly zero (masked background): take the median of the others.
    for i in np.flatnonzero(softening == 0):
        lit = np.abs(pixels[:, i])[pixels[:, i] != 0]
        softening[i] = np.median(lit) if len(lit) else 1.0
    stretched = stretch(pixels, kind, softening)
    if kind == "raw":
        return PixelStatistics(softening, np.zeros(len(softening)), np.ones(len(softening)))
    variance = stretched.var(axis=0)
    return PixelStatistics(softening, stretched.mean(axis=0), np.where(variance > 0, variance, 1.0))


def build(shape: tuple[int, int, int], settings: config.Network, pixels: PixelStatistics) -> keras.Model:
    """Build the network for images of `shape` (H, W, F), uncompiled.

    'published' has 174,801 parameters on (75, 75, 2), as in the authors' notebook: its batch norm works over the image
    width (channels-first images met the default axis) and its hidden dense layers are softmax. 'default' normalises
    channels, uses ReLU, and drops units only behind the last batch norm, whose statistics dropout would shift.
    """
    published = settings.architecture == "published"
    layers = keras.layers
    inputs = keras.Input(shape, name="pixels")
    x = _stretch_layers(inputs, settings.stretch, pixels)
    for filters, size in CONVOLUTIONS:
        x = layers.Conv2D(filters, size, padding="same", activation="relu")(x)
        x = layers.BatchNormalization(axis=2 if published else -1)(x)
        x = layers.MaxPooling2D(2)(x)
        if published:
            x = layers.Dropout(settings.dropout)(x)
    x = layers.Flatten()(x)
    if not published:
        x = layers.Dropout(settings.dropout)(x)
    for units in DENSE_UNITS:
        x = layers.Dense(
            units,
            activation="softmax" if published else "relu",
            kernel_regularizer=keras.regularizers.L2(settings.l2),
        )(x)
        if not published:
            x = layers.Dropout(settings.dropout)(x)
    outputs = layers.Dense(1, activation="sigmoid", name="merger_probability")(x)
    return keras.Model(inputs, outputs, name=f"deepmerge_{settings.architecture}")


def _stretch_layers(x: keras.KerasTensor, kind: str, pixels: PixelStatistics) -> keras.KerasTensor:
    scale = keras.layers.Normalization
    if kind == "asinh":
        x = scale(mean=np.zeros_like(pixels.softening), variance=pixels.softening**2, name="soften")(x)
        x = keras.ops.arcsinh(x)
    elif kind == "log":
        x = keras.ops.log10(keras.ops.maximum(x, LOG_FLOOR))
    if kind != "raw":
        x = scale(mean=pixels.mean, variance=pixels.variance, name="standardise")(x)
    return x
