"""A network opened where maps look into it: its stretched pixels, the features of a layer, and the logit."""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from deepmerge.data.labels import UNIT
from deepmerge.data.turns import possible_transforms
from deepmerge.errors import InputError

STRETCHED = "standardise"  # name of the layer of `model.stretch` whose output is what a network learns from
TURNED = "all_turns"  # name of the layer of `model.symmetry` whose output are all turns of the images


class Opened:
    """What maps are made of; see the functions, which take and give tensors.

    shape: (H, W, F), None for sides that may be any; turns: codes of the turns and flips that images allow; averages:
    whether the network sees all of them of each image.

    model: takes (n, H, W, F) pixels and ends in one sigmoid unit, either Dense(1, activation='sigmoid') or a sigmoid
    Activation layer, or has one by the name of UNIT. Raises InputError for any other model.
    """

    def __init__(self, model: keras.Model) -> None:
        _sigmoid_layer(model)
        self._model = model
        self.shape = tuple(model.input_shape[1:])
        self.turns = possible_transforms(self.shape[:2]).tolist() if None not in self.shape[:2] else [0, 2, 4, 6]
        if any(layer.name in (STRETCHED, TURNED) for layer in model.layers):
            # Keras adds to the layers of a network that it enters in the middle, which could then not be saved.
            original, model = model, keras.models.clone_model(model)
            model.set_weights(original.get_weights())
        self._last = _sigmoid_layer(model)
        pixels, below = model.inputs[0], self._last.input
        named = {layer.name: layer.output for layer in model.layers if layer.name in (STRETCHED, TURNED)}
        stretched, turned = named.get(STRETCHED), named.get(TURNED)
        self._front = None if stretched is None else keras.Model(pixels, stretched)
        self._behind = keras.Model(pixels if stretched is None else [pixels, stretched], below)
        self.averages = turned is not None
        if self.averages:
            self._turn = keras.Model(pixels if stretched is None else stretched, turned)
            self._behind_turns = keras.Model([pixels, turned], below)

    def stretched(self, pixels: tf.Tensor) -> tf.Tensor:
        """Pixels (n, H, W, F) as the network's first convolution takes them: stretched, mean 0 and variance 1.

        The pixels themselves where the network has no layer STRETCHED, as with `stretch: raw` or a network made
        elsewhere.
        """
        return pixels if self._front is None else self._front(pixels, training=False)

    def dark(self, pixels: tf.Tensor) -> tf.Tensor:
        """An image without light, stretched: (1, H, W, F)."""
        return self.stretched(tf.zeros_like(pixels[:1]))

    def logit(self, pixels: tf.Tensor, stretched: tf.Tensor) -> tf.Tensor:
        """The logit (n,) of stretched pixels; `pixels`, of finite numbers, say the same or are of the same shape."""
        given = stretched if self._front is None else [pixels, stretched]
        return _logit_of(self._last, self._behind(given, training=False))

    def noisy_logit(self, pixels: tf.Tensor, stretched: tf.Tensor, noise: tf.Tensor) -> tf.Tensor:
        """The logit (n,) of stretched pixels with noise (n, H, W, F) added, in a network that averages to each turn.

        To the turned image, that is, the same for all, so that the logits of an image and of its turns agree.
        """
        if not self.averages:
            return self.logit(pixels, stretched + noise)
        turned = self._turn(stretched, training=False)
        repeated = tf.tile(noise, (tf.shape(turned)[0] // tf.shape(noise)[0], 1, 1, 1))
        return _logit_of(self._last, self._behind_turns([pixels, turned + repeated], training=False))

    def layer(self, choice: str | int | None, *, guided: bool = False) -> "OpenLayer":
        """The network opened at a layer as well; see OpenLayer, which says what `choice` may be."""
        model = _guided(self._model) if guided else self._model
        return OpenLayer(model, _chosen(model, choice), _sigmoid_layer(model), guided)


class OpenLayer:
    """The features of one layer, and the slope of the logit in them.

    name: of the layer. One that sees all turns and flips of an image at once, in a network that averages over them, has
    features of turns × n images, the first n of them upright.
    """

    def __init__(
        self, model: keras.Model, layer: keras.layers.Layer, last: keras.layers.Layer, guided: bool = False
    ) -> None:
        self.name: str = layer.name
        self._last, self._guided = last, guided
        self._network = keras.Model(model.inputs[0], [layer.output, last.input])
        self._codes = _turns_within(self._network, tuple(model.input_shape[1:]))

    def features_and_slopes(self, pixels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Features (m, h, w, k) of pixels (n, H, W, F), the gradient of the logit in them, and that of minus it.

        They differ by more than the sign with guided gradients alone. float32, whatever the network computes with.
        """
        with tf.GradientTape(persistent=self._guided) as tape:
            # Not left to the trainable variables: whether frozen ones are on the tape is up to Keras.
            tape.watch(pixels)
            features, below = self._network(pixels, training=False)
            logit = _logit_of(self._last, below)
            against = -logit
        towards = tf.cast(tape.gradient(logit, features), tf.float32)
        away = tf.cast(tape.gradient(against, features), tf.float32) if self._guided else -towards
        return tf.cast(features, tf.float32), towards, away

    def upright(self, maps: tf.Tensor) -> tf.Tensor:
        """Maps (m, h, w) of features, those of an image's turns turned back and added up: (n, h, w)."""
        if not len(self._codes):
            return maps
        stacked = tf.reshape(maps, tf.concat([[len(self._codes), -1], tf.shape(maps)[1:]], 0))[..., tf.newaxis]
        turned_back = [
            tf.image.rot90(tf.image.flip_up_down(each) if code >= 4 else each, -code % 4)[..., 0]
            for code, each in zip(self._codes.tolist(), tf.unstack(stacked, len(self._codes)), strict=True)
        ]
        return tf.add_n(turned_back)


def convolutions(model: keras.Model) -> dict[str, keras.layers.Layer]:
    """The convolutions of a model at its top level, by name; the numbers of layers count them."""
    return {layer.name: layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)}


def _logit_of(last: keras.layers.Layer, below: tf.Tensor) -> tf.Tensor:
    """What the sigmoid of the last layer is applied to, (n,), from the layer's own weights.

    p no longer holds it: in float32 p = 1 from a logit of 17 on, where its gradient is 0 and its logit infinite.
    """
    if isinstance(last, keras.layers.Activation):
        return tf.cast(below, tf.float32)[:, 0]
    logit = tf.cast(below, tf.float32) @ tf.cast(last.kernel, tf.float32)
    return (logit if last.bias is None else logit + tf.cast(last.bias, tf.float32))[:, 0]


def _turns_within(network: keras.Model, shape: tuple[int | None, ...]) -> np.ndarray:
    """Codes of the turns in which a layer sees each image at once; none where it sees the image alone.

    network: images (n, H, W, F) to features (n or turns × n, h, w, k), and to what is not looked at.
    """
    sides = [side for side in shape if side is not None]
    if len(sides) < len(shape):
        return np.empty(0, int)
    features, _ = network(np.zeros((1, *sides), np.float32), training=False)
    codes = possible_transforms(tuple(sides[:2]))
    return codes if len(features) == len(codes) else np.empty(0, int)


def _chosen(model: keras.Model, choice: str | int | None) -> keras.layers.Layer:
    layers = convolutions(model)
    spatial = {layer.name: layer for layer in model.layers if len(getattr(layer.output, "shape", ())) == 4}
    if choice in spatial:
        return spatial[choice]
    number = -1 if choice is None else choice
    try:
        return list(layers.values())[int(number)]
    except (ValueError, IndexError):
        listed = ", ".join(f"{place} = {name}" for place, name in enumerate(layers)) or "none in this model"
        raise InputError(
            f"layer should be a Conv2D of the model ({listed}), or any of its layers with maps (n, h, w, k) by name, "
            f"got {number!r}"
        ) from None


def _sigmoid_layer(model: keras.Model) -> keras.layers.Layer:
    # A subclassed model and an unbuilt one have no graph, hence no inputs.
    layers = model.layers if len(getattr(model, "inputs", None) or []) == 1 and len(model.outputs) == 1 else []
    # A network that tells stages, too, ends in what it makes of this unit and another.
    last = next((layer for layer in layers if layer.name == UNIT), layers[-1] if layers else None)
    if (
        isinstance(last, keras.layers.Dense | keras.layers.Activation)
        and last.activation is keras.activations.sigmoid
        and (last.name == UNIT or last.output is model.outputs[0])
        and last.output.shape[1:] == (1,)
    ):
        return last
    raise InputError(
        "model should be Sequential or functional, built, have one input, and end in one sigmoid unit "
        f"(Dense(1, activation='sigmoid')), got {type(model).__name__} ending in {type(last).__name__}"
    )


@tf.custom_gradient
def _guided_relu(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    return tf.nn.relu(x), lambda above: tf.cast((x > 0) & (above > 0), above.dtype) * above


def _guided(model: keras.Model) -> keras.Model:
    """The same network with ReLUs that let positive gradients alone pass (Springenberg et al. 2015, arXiv:1412.6806).

    Those that are activations of layers, or layers; a `keras.ops.relu` between layers stays as it is.
    """

    def rebuild(layer: keras.layers.Layer) -> keras.layers.Layer:
        if isinstance(layer, keras.layers.ReLU) and not (layer.negative_slope or layer.threshold or layer.max_value):
            return keras.layers.Activation(_guided_relu, name=layer.name)
        settings = layer.get_config()
        if getattr(layer, "activation", None) is keras.activations.relu:
            settings["activation"] = _guided_relu
        return type(layer).from_config(settings)

    clone = keras.models.clone_model(model, clone_function=rebuild)
    clone.set_weights(model.get_weights())
    return clone
