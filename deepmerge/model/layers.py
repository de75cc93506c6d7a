"""Layers that are faster on a CPU than Keras's own, with the same weights and numbers, never to be saved.

Keras's batch norm takes the moments in several passes over the images, nearly half of a training step of these
networks; TensorFlow's gradient of a convolution's bias is slow for few filters. A network is trained with these layers
and used with them (`faster`), but saved with Keras's own and the same weights, so that no code of ours is in the file.
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

Tensors = tuple[tf.Tensor, ...]


class FastConv2D(keras.layers.Conv2D):
    """Keras's convolution, channels last, whose bias has a plain sum as its gradient: 1/8 of the time for 8 filters."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Convolve (n, H, W, C)."""
        outputs = _add_bias(self.convolution_op(inputs, self.kernel), tf.convert_to_tensor(self.bias))
        return self.activation(outputs)


@tf.custom_gradient
def _add_bias(x: tf.Tensor, bias: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], Tensors]]:
    return tf.nn.bias_add(x, bias), lambda above: (above, tf.reduce_sum(above, (0, 1, 2)))


class FastBatchNormalization(keras.layers.BatchNormalization):
    """Keras's batch norm, fast for images (n, H, W, C) over the channels, or over the width (axis=2) as published."""

    def call(self, inputs: tf.Tensor, training: bool | None = None, mask: tf.Tensor | None = None) -> tf.Tensor:
        """Normalise with the moments of the batch in training and with the moving ones otherwise."""
        if len(inputs.shape) != 4 or self.axis not in (-1, 2, 3) or not (self.scale and self.center) or self.renorm:
            return super().call(inputs, training=training, mask=mask)
        normalise = _over_channels
        if self.axis == 2:
            normalise, inputs = _over_width, tf.cast(inputs, tf.float32)  # half precision is too little for sums
        learned = tf.convert_to_tensor(self.gamma), tf.convert_to_tensor(self.beta)
        if not (training and self.trainable):
            moving = tf.convert_to_tensor(self.moving_mean), tf.convert_to_tensor(self.moving_variance)
            return tf.cast(normalise(inputs, *learned, self.epsilon, moving)[0], self.compute_dtype)
        outputs, mean, variance = normalise(inputs, *learned, self.epsilon)
        self._follow(self.moving_mean, mean)
        self._follow(self.moving_variance, variance)
        return tf.cast(outputs, self.compute_dtype)

    def _follow(self, moving: keras.Variable, value: tf.Tensor) -> None:
        moving.assign(moving * self.momentum + value * (1 - self.momentum))


def faster(model: keras.Model) -> keras.Model:
    """The same network, for use and not for saving, with the fast batch norm in place of Keras's own.

    A network without batch norm is returned as it is, and one whose graph Keras does not know (a subclass).
    """
    norm = keras.layers.BatchNormalization
    if not getattr(model, "inputs", None) or not any(type(layer) is norm for layer in model.layers):
        return model

    return rebuilt(model, lambda layer: (FastBatchNormalization if type(layer) is norm else type(layer), {}))


Rebuild = Callable[[keras.layers.Layer], tuple[type[keras.layers.Layer], dict[str, Any]]]


def rebuilt(model: keras.Model, change: Rebuild) -> keras.Model:
    """The same network with the same weights, each layer of the class and with the settings that `change` gives it."""

    def rebuild(layer: keras.layers.Layer) -> keras.layers.Layer:
        kind, settings = change(layer)
        return kind.from_config({**layer.get_config(), **settings})

    clone = keras.models.clone_model(model, clone_function=rebuild)
    clone.set_weights(model.get_weights())
    return clone


def _over_channels(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, epsilon: float, moving: Tensors = ()) -> Tensors:
    """Outputs, mean and variance, by TensorFlow's fused kernel."""
    fused = tf.compat.v1.nn.fused_batch_norm
    outputs, mean, variance = fused(x, gamma, beta, *moving, epsilon=epsilon, is_training=not moving)
    # The kernel gives the unbiased variance for the moving average, Keras keeps the biased one.
    count = tf.cast(tf.reduce_prod(tf.shape(x)[:-1]), variance.dtype)
    return outputs, mean, variance * (count - 1) / count


def _over_width(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, epsilon: float, moving: Tensors = ()) -> Tensors:
    """Outputs, mean and variance, with the gradient written out (Ioffe & Szegedy 2015, arXiv:1502.03167, sect. 3)."""
    width, channels = x.shape[2:]
    count = tf.cast(tf.reduce_prod(tf.shape(x)) // width, x.dtype)

    def total(values: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(tf.reduce_sum(values, (0, 1)), 1)  # in two steps, each along memory

    def spread(values: tf.Tensor) -> tf.Tensor:
        return tf.repeat(values[:, tf.newaxis], channels, 1)  # a row of numbers is broadcast many times as fast as one

    if moving:
        mean, variance = moving
        scale = gamma * tf.math.rsqrt(variance + epsilon)
        return x * spread(scale) + spread(beta - mean * scale), mean, variance

    @tf.custom_gradient
    def normalise(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> tuple[Tensors, Callable[..., Tensors]]:
        mean = total(x) / count
        variance = tf.maximum(total(x * x) / count - mean * mean, 0)
        inverse = tf.math.rsqrt(variance + epsilon)
        scale = gamma * inverse

        def gradients(above: tf.Tensor, *_: tf.Tensor) -> Tensors:
            to_beta = total(above)
            to_gamma = inverse * (total(above * x) - mean * to_beta)
            slope = scale * inverse * to_gamma / count
            to_x = above * spread(scale) - x * spread(slope) + spread(slope * mean - scale * to_beta / count)
            return to_x, to_gamma, to_beta

        return (x * spread(scale) + spread(beta - mean * scale), mean, variance), gradients

    return normalise(x, gamma, beta)
