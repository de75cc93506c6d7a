"""The networks: raw pixels in, probability of being a merger out. Built-in Keras layers only."""

import re

import keras

from deepmerge import config
from deepmerge.model import own, saved, stretch, symmetry
from deepmerge.model.calling import Body
from deepmerge.model.layers import FastBatchNormalization, FastConv2D
from deepmerge.model.stretch import PixelStatistics

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
    `settings.batch_norm` and `settings.hidden` choose one of the two ways alone; `settings.width` scales filters and
    hidden units.
    body, or what `settings.architecture` names that is not ours, takes the place of all that: a function from
    standardised images (n, H, W, F) to features (n, k), Keras tensors, or to a model of such; the stretch stands before
    it and one sigmoid unit behind. Raises InputError for features of another shape and layers not Keras's own.
    Pixels that the statistics say are missing are filled first.
    With `settings.symmetry` 'average' the features, and with them the logit, are means over the flips and turns of an
    image (eight; four of an oblong one): all of them give the same probability. Training sees one at a time.
    for_training: faster layers, the same weights and numbers, but not built into Keras. Without it, the probability of
    an image with other NaN or infinite pixels (null and 1e40 to a server) is NaN, where a ReLU would swallow it unseen.
    precision: Keras's name of what the layers compute with between stretch and probability; the weights are float32.
    """
    body = body or own.body(settings)
    inputs = keras.Input(shape, name="pixels")
    measured = stretch.filled(inputs, pixels)
    x = stretch.layers(measured, settings.stretch, pixels)
    averaged = settings.symmetry == "average" and not for_training
    if averaged:
        x = symmetry.all_turns(x)
    x = (
        _architecture(x, settings, for_training, precision)
        if body is None
        else own.features(body, x, precision, inputs)
    )
    if averaged:
        x = symmetry.mean_over_turns(x, shape)
    if not for_training:
        finite = keras.ops.all(keras.ops.isfinite(measured), axis=(1, 2, 3))
        x = keras.ops.where(keras.ops.expand_dims(finite, -1), x, float("nan"))
    outputs = keras.layers.Dense(1, activation="sigmoid", name="merger_probability", dtype="float32")(x)
    name = settings.title if body is None else re.sub(r"\W+", "_", getattr(body, "__name__", "network"))
    model = keras.Model(inputs, outputs, name=f"deepmerge_{name}")
    return saved.numbered(model if body is None else saved.plain(model))


def _architecture(
    x: keras.KerasTensor, settings: config.Network, for_training: bool, precision: str
) -> keras.KerasTensor:
    published = settings.architecture == "published"
    over_width = {"architecture": published, "channels": False, "width": True}[settings.batch_norm]
    softmax = {"architecture": published, "relu": False, "softmax": True}[settings.hidden]
    layers = keras.layers
    keep = {"dtype": precision}

    def scaled(units: int) -> int:
        return max(1, round(units * settings.width))

    convolution = FastConv2D if for_training else layers.Conv2D
    norm = FastBatchNormalization if for_training else layers.BatchNormalization
    for number, (filters, size) in enumerate(CONVOLUTIONS, 1):
        x = convolution(scaled(filters), size, padding="same", activation="relu", name=f"conv_{number}", **keep)(x)
        x = norm(axis=2 if over_width else -1, **keep)(x)
        x = layers.MaxPooling2D(2, **keep)(x)
        if published:
            x = layers.Dropout(settings.dropout, **keep)(x)
    x = layers.Flatten(**keep)(x)
    if not published:
        x = layers.Dropout(settings.dropout, **keep)(x)
    for units in DENSE_UNITS:
        x = layers.Dense(
            scaled(units),
            activation="softmax" if softmax else "relu",
            kernel_regularizer=keras.regularizers.L2(settings.l2),
            **keep,
        )(x)
        if not published:
            x = layers.Dropout(settings.dropout, **keep)(x)
    return x
