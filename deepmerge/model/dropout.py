"""Monte-Carlo dropout: many answers of one network, with other units dropped each time."""

import keras
import numpy as np
import tensorflow as tf

from deepmerge.data.dataset import Dataset
from deepmerge.data.splits import Part
from deepmerge.model import prediction
from deepmerge.model.layers import rebuilt
from deepmerge.progress import Advance


class _AlwaysDropout(keras.layers.Dropout):
    """Dropout that drops also when the network is not in training."""

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        return super().call(inputs, training=True)


def dropping(model: keras.Model, seed: int) -> keras.Model:
    """The same network with its dropout at work in every answer, not to be saved; batch norm stays as it is.

    Raises ValueError where the network has no dropout.
    """
    if not any(isinstance(layer, keras.layers.Dropout) and layer.rate > 0 for layer in model.layers):
        raise ValueError("the network should have a dropout above 0")
    seeds = iter(np.random.SeedSequence(seed).generate_state(len(model.layers)))

    def change(layer: keras.layers.Layer) -> tuple[type[keras.layers.Layer], dict[str, int]]:
        drops = isinstance(layer, keras.layers.Dropout)
        return (_AlwaysDropout, {"seed": int(next(seeds))}) if drops else (type(layer), {})

    return rebuilt(model, change)


def monte_carlo(
    model: keras.Model, data: Dataset, part: Part, passes: int, seed: int, advance: Advance = lambda steps: None
) -> np.ndarray:
    """Mean merger probability over `passes` answers with dropout, (n,) (Gal & Ghahramani 2016, arXiv:1506.02142).

    The same seed gives the same numbers. `advance` is called after each pass. Raises ValueError where the network has
    no dropout.
    """
    answer = prediction.compiled(dropping(model, seed))
    total = np.zeros(len(part))
    for _ in range(passes):
        # One batch after another: those of `prediction.predict`, side by side, would draw their numbers in any order.
        batches = prediction.batches(data.images, part.rows, part.transforms)
        total += np.concatenate([answer(batch).numpy()[:, 0] for batch in batches])
        advance(1)
    return total / passes
