"""The networks: raw pixels in, probability of being a merger out. Built-in Keras layers only."""

import re
from collections.abc import Callable

import keras

from deepmerge import config
from deepmerge.errors import InputError
from deepmerge.model import stretch
from deepmerge.model.layers import FastBatchNormalization, FastConv2D
from deepmerge.model.stretch import PixelStatistics

Body = Callable[[keras.KerasTensor], keras.KerasTensor]

DENSE_UNITS = (64, 32)  # units of the two hidden dense layers, Ciprijanovic et al. 2020, table 1
CONVOLUTIONS = ((8, 5), (16, 3), (32, 3))  # (filters, kernel size), ibid.


def build(
    shape: tuple[int, int, int],
    settings: config.Network,
    pixels: PixelStatistics,
    body: Body | None = None,
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
    `body` takes the place of all that: a function from the standardised images (n, H, W, F) to features (n, k), as
    Keras tensors. Before it stands the stretch, behind it one sigmoid unit.
    Pixels that the statistics say are missing are filled first. An image with other NaN or infinite pixels (null and
    1e40 to a server) has no probability: NaN, where a ReLU would swallow it without a sign. `for_training` takes faster
    layers and finite pixels: the same weights and numbers, but not built into Keras. `precision` is Keras's name of
    what the layers compute with between the stretch and the probability; the weights are float32.
    """
    inputs = keras.Input(shape, name="pixels")
    known = stretch.filled(inputs, pixels)
    x = stretch.layers(known, settings.stretch, pixels)
    x = _architecture(x, settings, for_training, precision) if body is None else _features(body, x)
    if not for_training:
        x = _undefined_where_pixels_are(known, x)
    outputs = keras.layers.Dense(1, activation="sigmoid", name="merger_probability", dtype="float32")(x)
    name = settings.architecture if body is None else re.sub(r"\W+", "_", getattr(body, "__name__", "network"))
    return keras.Model(inputs, outputs, name=f"deepmerge_{name}")


def _features(body: Body, images: keras.KerasTensor) -> keras.KerasTensor:
    features = body(images)
    if len(getattr(features, "shape", ())) != 2:
        raise InputError(
            "a network of your own should take a Keras tensor of standardised images (n, H, W, F) and return features "
            f"(n, k), got {getattr(features, 'shape', type(features).__name__)}; end it in Flatten or global pooling"
        )
    return features


def _architecture(
    x: keras.KerasTensor, settings: config.Network, for_training: bool, precision: str
) -> keras.KerasTensor:
    published = settings.architecture == "published"
    over_width = {"architecture": published, "channels": False, "width": True}[settings.batch_norm]
    softmax = {"architecture": published, "relu": False, "softmax": True}[settings.hidden]
    layers = keras.layers
    keep = {"dtype": precision}
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
    return x


def _undefined_where_pixels_are(pixels: keras.KerasTensor, features: keras.KerasTensor) -> keras.KerasTensor:
    finite = keras.ops.all(keras.ops.isfinite(pixels), axis=(1, 2, 3))
    return keras.ops.where(keras.ops.expand_dims(finite, -1), features, float("nan"))


def _scaled(number: int, width: float) -> int:
    return max(1, round(number * width))
