"""Batch norm that trains about twice as fast on a CPU, and leaves no trace in the saved model."""

import keras
import tensorflow as tf


class FastBatchNormalization(keras.layers.BatchNormalization):
    """Keras's batch norm over channels (…, F), computed by TensorFlow's fused kernel.

    Same weights, same numbers to float tolerance; Keras computes the moments in several passes over the images, nearly
    half of a training step of this network. For training only: to save a model, copy the weights to built-in layers.
    """

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Normalise (n, H, W, F), with the moments of the batch in training and with the moving ones otherwise."""
        fused = tf.compat.v1.nn.fused_batch_norm
        if not training:
            moving = {"mean": self.moving_mean, "variance": self.moving_variance}
            return fused(inputs, self.gamma, self.beta, **moving, epsilon=self.epsilon, is_training=False)[0]
        outputs, mean, variance = fused(inputs, self.gamma, self.beta, epsilon=self.epsilon, is_training=True)
        # The kernel gives the unbiased variance for the moving average, Keras keeps the biased one.
        count = tf.cast(tf.reduce_prod(tf.shape(inputs)[:-1]), variance.dtype)
        self._follow(self.moving_mean, mean)
        self._follow(self.moving_variance, variance * (count - 1) / count)
        return outputs

    def _follow(self, moving: keras.Variable, value: tf.Tensor) -> None:
        moving.assign(moving * self.momentum + value * (1 - self.momentum))
