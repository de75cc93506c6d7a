"""The networks: raw pixels in, probability of being a merger out. Built-in Keras layers only."""

import re

import keras

from deepmerge import config
from deepmerge.data.labels import UNIT
from deepmerge.model import architectures, own, saved, stretch, symmetry
from deepmerge.model.calling import Body
from deepmerge.model.stretch import PixelStatistics

PAST = "past_among_mergers"  # name of the layer that says how likely a merger is past


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
    'compact' has five convolutions, two of them a residual block, and takes the mean and maximum of each filter instead
    of all pixels; 'invariant' is the default averaged over the flips and turns between its dense layers, in training
    too.
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
    With `settings.labels` 'stage' the answer is (n, 3): the probabilities of a merger, of a past and of a future one.
    precision: Keras's name of what the layers compute with between stretch and probability; the weights are float32.
    """
    body = body or own.body(settings)
    inputs = keras.Input(shape, name="pixels")
    measured = stretch.filled(inputs, pixels)
    x = stretch.layers(measured, settings.stretch, pixels)
    averaged = settings.averages and not for_training
    if averaged:
        x = symmetry.all_turns(x)
    x = (
        architectures.features(x, settings, for_training, precision)
        if body is None
        else own.features(body, x, precision, inputs)
    )
    if averaged:
        x = symmetry.mean_over_turns(x, shape)
    if not for_training:
        finite = keras.ops.all(keras.ops.isfinite(measured), axis=(1, 2, 3))
        x = keras.ops.where(keras.ops.expand_dims(finite, -1), x, float("nan"))
    merger = keras.layers.Dense(1, activation="sigmoid", name=UNIT, dtype="float32")(x)
    outputs = merger if settings.labels == "merger" else _with_stages(x, merger)
    name = settings.title if body is None else re.sub(r"\W+", "_", getattr(body, "__name__", "network"))
    model = keras.Model(inputs, outputs, name=f"deepmerge_{name}")
    return saved.numbered(model if body is None else saved.plain(model))


def _with_stages(x: keras.KerasTensor, merger: keras.KerasTensor) -> keras.KerasTensor:
    """Probabilities of a merger, and of its two stages, (n, 3); the last two add up to the first."""
    past = keras.layers.Dense(1, activation="sigmoid", name=PAST, dtype="float32")(x)
    return keras.ops.concatenate([merger, merger * past, merger * (1 - past)], axis=1)
