"""Steps of training on one device, on several, or on several machines; Keras 3's own `fit` cannot do the last."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import keras
import numpy as np
import tensorflow as tf

from deepmerge.data.batches import Epoch
from deepmerge.data.labels import MERGER, PAST
from deepmerge.model.adaptation import Adaptation


class Learner:
    """Fits a model in batches that are divided among the devices of a strategy.

    make: builds the model, which takes pixels and ends in one sigmoid unit, and its optimizer; called in the scope of
    the strategy. The loss is the weighted cross-entropy, its mean over the whole batch, plus the model's penalties.
    adapt: makes of the model, in that scope, what compares its features of the images with those of as many target
    images, on each device by itself; None for nothing. label_smoothing s: what is learned are labels (1 − s) y + s / 2
    (Szegedy et al. 2016, arXiv:1512.00567, section 7).
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        make: Callable[[], tuple[keras.Model, keras.optimizers.Optimizer]],
        adapt: Callable[[keras.Model], Adaptation | None] = lambda model: None,
        label_smoothing: float = 0.0,
    ) -> None:
        self._strategy, self._smoothing = strategy, label_smoothing
        with strategy.scope():
            self.model, self._optimizer = make()
            self._adaptation = adapt(self.model)
            own = [] if self._adaptation is None else self._adaptation.variables
            self._variables = [*self.model.trainable_variables, *own]
            self._optimizer.build(self._variables)
        pixels = tf.TensorSpec((None, *self.model.input_shape[1:]), tf.float32)
        numbers = tf.TensorSpec((None,), tf.float32)
        alone = strategy.num_replicas_in_sync == 1
        arrays = [pixels, numbers, numbers] + [pixels] * (self._adaptation is not None)
        any_size = [arrays, tf.TensorSpec((), tf.float32)] if alone else None
        self._compiled = tf.function(self._everywhere, any_size, reduce_retracing=not alone)
        mean = tf.distribute.ReduceOp.MEAN
        self._mean = tf.function(lambda value: strategy.reduce(mean, strategy.run(tf.identity, (value,)), axis=None))

    @property
    def learning_rate(self) -> float:
        """The rate of the next step."""
        return float(self._optimizer.learning_rate)

    def variables(self) -> list[np.ndarray]:
        """All that changes in training: network with the seeds of its dropout, optimizer, adaptation."""
        return [variable.numpy() for variable in self._state()]

    def restore(self, variables: Sequence[np.ndarray]) -> None:
        """Go on from what `variables` gave."""
        for variable, value in zip(self._state(), variables, strict=True):
            variable.assign(value)

    def _state(self) -> list[keras.Variable]:
        own = [] if self._adaptation is None else self._adaptation.variables
        return [*self.model.variables, *self._optimizer.variables, *own]

    def learn(self, epoch: Epoch) -> tuple[np.ndarray, float]:
        """Show the batches of an epoch in turn.

        Returns the probabilities of its images as they were in training, (n,) float64 in order, and the mean of the
        penalties on the weights, and on the features where they are adapted.
        """
        probabilities, penalties = [], []
        with ThreadPoolExecutor(1) as pool:
            # The next batch is read while the devices work on one.
            coming = pool.submit(self._distributed, epoch, 0)
            for index in range(len(epoch)):
                batch, size = coming.result()
                if index + 1 < len(epoch):
                    coming = pool.submit(self._distributed, epoch, index + 1)
                probability, penalty = self._compiled(batch, tf.constant(size, tf.float32))
                probabilities.append(probability[:size])
                penalties.append(penalty)
        return np.concatenate([p.numpy() for p in probabilities]).astype(np.float64), float(np.mean(penalties))

    def agreed(self, value: float) -> float:
        """The mean over all machines, so that all stop in the same epoch."""
        if self._strategy.num_replicas_in_sync == 1:
            return value
        return float(self._mean(tf.constant(value, tf.float32)))

    def _distributed(self, epoch: Epoch, index: int) -> tuple[list[tf.Tensor], int]:
        """Images, labels, weights and any target images of a batch, a part of it on each device, and its size.

        Each machine reads the parts of its own devices alone.
        """
        parts = self._strategy.num_replicas_in_sync

        @cache
        def read(part: int) -> list[np.ndarray]:
            beside = [] if self._adaptation is None else [epoch.target(index, part, parts)]
            return [*epoch.batch(index, part, parts), *beside]

        def values(number: int) -> tf.Tensor:
            return self._strategy.experimental_distribute_values_from_function(
                lambda device: tf.constant(read(device.replica_id_in_sync_group)[number])
            )

        return [values(number) for number in range(3 if self._adaptation is None else 4)], epoch.size(index)

    def _everywhere(self, batch: list[tf.Tensor], size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        probability, penalty = self._strategy.run(self._step, args=(size, *batch))
        mean = self._strategy.reduce(tf.distribute.ReduceOp.MEAN, penalty, axis=None)
        return self._strategy.gather(probability, axis=0), mean

    def _step(
        self,
        size: tf.Tensor,
        images: tf.Tensor,
        labels: tf.Tensor,
        weights: tf.Tensor,
        targets: tf.Tensor | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """One step on one device; `size` is that of the whole batch. Gives probabilities and penalty."""
        with tf.GradientTape() as tape:
            apart, factor = tf.constant(0.0), tf.constant(1.0)
            if self._adaptation is None or targets is None:
                answers = self.model(images, training=True)
            else:
                answers, apart, factor = self._adaptation(images, targets, self._optimizer.iterations)
            each = cross_entropy(labels, answers, self._smoothing)
            penalty = tf.add_n([apart, *self.model.losses])
            # The optimizer adds up the gradients of all devices.
            loss = factor * tf.reduce_sum(weights * each) / size + penalty / self._strategy.num_replicas_in_sync
            loss = self._optimizer.scale_loss(loss)
        self._optimizer.apply(tape.gradient(loss, self._variables), self._variables)
        return answers[:, 0], penalty


def cross_entropy(labels: tf.Tensor, answers: tf.Tensor, smoothing: float = 0.0) -> tf.Tensor:
    """That of each image, (b,), in nats, for a model's answers (b, 1), or (b, 3) where it tells stages.

    labels: (b,) 0 or 1 for a merger; with stages codes of `data.labels`. That of stages is −ln P(stage) where the
    stage is known, and −ln P(merger) of a merger where it is not.
    """

    def binary(truth: tf.Tensor, probability: tf.Tensor) -> tf.Tensor:
        columns = truth[:, tf.newaxis], probability[:, tf.newaxis]
        return keras.losses.binary_crossentropy(*columns, label_smoothing=smoothing)

    if answers.shape[1] == 1:
        return binary(labels, answers[:, 0])
    past = tf.math.divide_no_nan(answers[:, 1], answers[:, 0])
    known = tf.cast(labels > MERGER, tf.float32)
    of_merger = binary(tf.minimum(labels, 1.0), answers[:, 0])
    return of_merger + known * binary(tf.cast(labels == PAST, tf.float32), past)
