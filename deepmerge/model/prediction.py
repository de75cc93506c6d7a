"""Probabilities of a trained network for rows of images."""

from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from deepmerge.data.batches import gather
from deepmerge.progress import Advance

BATCH_PIXELS = 256 * 75 * 75  # 256 images of the release; larger batches gain nothing on a CPU


def load(path: Path) -> keras.Model:
    """Load a saved network; safe mode refuses files that bring code along."""
    return keras.models.load_model(path, compile=False, safe_mode=True)


def batches(images: np.ndarray, rows: np.ndarray, transforms: np.ndarray) -> Iterator[np.ndarray]:
    """Batches (b, H, W, F) float32 of the given rows of images (N, F, H, W), each turned by its transform."""
    size = max(1, BATCH_PIXELS // int(np.prod(images.shape[2:])))
    for start in range(0, len(rows), size):
        chosen = slice(start, start + size)
        yield gather(images, rows[chosen], transforms[chosen])


@lru_cache(maxsize=8)
def _compiled(model: keras.Model) -> Callable[[np.ndarray], tf.Tensor]:
    """The forward pass as a graph, traced once a model; Keras's own `predict` is slower."""
    return tf.function(lambda batch: model(batch, training=False), reduce_retracing=True)


def predict(
    model: keras.Model,
    images: np.ndarray,
    rows: np.ndarray,
    transforms: np.ndarray,
    advance: Advance = lambda steps: None,
) -> np.ndarray:
    """Merger probability of the given rows of images (N, F, H, W), (n,) float64 in [0, 1]; flat in memory.

    `advance` is called with the number of images after each batch.
    """
    score = _compiled(model)
    probabilities = np.empty(len(rows))
    start = 0
    for batch in batches(images, rows, transforms):
        probabilities[start : start + len(batch)] = score(batch)[:, 0]
        start += len(batch)
        advance(len(batch))
    return probabilities
