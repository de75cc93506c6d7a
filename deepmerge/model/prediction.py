"""Probabilities of a trained network for rows of images."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import keras
import numpy as np
import tensorflow as tf

from deepmerge.data.batches import gather
from deepmerge.data.labels import UNIT
from deepmerge.errors import InputError
from deepmerge.model import saved
from deepmerge.model.layers import faster
from deepmerge.progress import Advance

BATCH_PIXELS = 128 * 75 * 75  # 128 images of the release; larger batches gain nothing on a CPU
WORKERS = 2  # batches under way at a time: one is read and turned while the other is in the network

STAGES = ("past_probability", "future_probability")  # columns of a network that tells stages

Item = TypeVar("Item")


def load(path: Path) -> keras.Model:
    """Load a network as `read` does, with faster layers, not to be saved again."""
    return faster(read(path))


def read(path: Path) -> keras.Model:
    """Read a saved network; safe mode refuses files with code in them.

    Raises InputError for a file that is damaged, or no network that makes one probability of images (n, H, W, F), or
    the three of one that tells stages.
    """
    try:
        model = keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # of zip, JSON, HDF5 and of every layer
        said = " ".join(str(error).split())[:200]
        raise InputError(f"{path} should be a network that Keras loads in safe mode, but: {said}; train anew") from None
    takes, gives = getattr(model, "input_shape", None), getattr(model, "output_shape", None)
    is_ours = any(layer.name == UNIT for layer in getattr(model, "layers", ()))
    possible = [(None, 1), (None, 1 + len(STAGES))] if is_ours else [(None, 1)]
    if not (isinstance(takes, tuple) and len(takes) == 4 and None not in takes[1:] and gives in possible):
        raise InputError(
            f"{path} should be a network of images (n, H, W, F) with one output, got one that takes {takes} and gives "
            f"{gives}; train one with 'deepmerge train'"
        )
    return model


@lru_cache(maxsize=1)
def unpacked(content: bytes) -> keras.Model:
    """The same of the content of such a file, for workers that get the same network again and again."""
    return faster(saved.unpacked(content))


def batches(images: np.ndarray, rows: np.ndarray, transforms: np.ndarray) -> Iterator[np.ndarray]:
    """Batches (b, H, W, F) float32 of the given rows of images (N, F, H, W), each turned by its transform."""
    for part in _batch_slices(images.shape, len(rows)):
        yield gather(images, rows[part], transforms[part])


def _batch_slices(shape: tuple[int, ...], count: int) -> Iterator[slice]:
    size = batch_size(shape)
    return (slice(start, start + size) for start in range(0, count, size))


def batch_size(shape: tuple[int, ...]) -> int:
    """How many images of an array (N, F, H, W) go into a batch."""
    return max(1, BATCH_PIXELS // max(1, int(np.prod(shape[2:]))))


@lru_cache(maxsize=8)
def compiled(model: keras.Model) -> Callable[[np.ndarray], tf.Tensor]:
    """The forward pass as a graph, traced once for batches of any size; Keras's own `predict` is slower."""
    batches_of_any_size = tf.TensorSpec((None, *model.input_shape[1:]), tf.float32)
    return tf.function(lambda batch: model(batch, training=False), input_signature=[batches_of_any_size])


def require_shape(model: keras.Model, images: np.ndarray) -> None:
    """Raise InputError where the model takes other images than these (N, F, H, W).

    Asked before anything is scored: of two threads in TensorFlow that meet such images one raises and one waits for
    ever.
    """
    height, width, filters = model.input_shape[1:]
    if images.shape[1:] != (filters, height, width):
        raise InputError(
            f"images should have shape (N, {filters}, {height}, {width}), which the model was trained on, got "
            f"{images.shape}; name a model of such images, or train one"
        )


def predict(
    model: keras.Model,
    images: np.ndarray,
    rows: np.ndarray,
    transforms: np.ndarray,
    advance: Advance = lambda steps: None,
    change: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
) -> np.ndarray:
    """Merger probability of the given rows of images (N, F, H, W), (n,) float64 in [0, 1]; see `outputs`."""
    return outputs(model, images, rows, transforms, advance, change)[:, 0]


def columns(outputs: np.ndarray) -> dict[str, np.ndarray]:
    """What a model said, (n, k), as columns: `probability` of a merger and, of a model that tells them, STAGES."""
    names = ("probability", *STAGES)[: outputs.shape[1]]
    return dict(zip(names, outputs.T, strict=True))


def outputs(
    model: keras.Model,
    images: np.ndarray,
    rows: np.ndarray,
    transforms: np.ndarray,
    advance: Advance = lambda steps: None,
    change: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
) -> np.ndarray:
    """What a model says of the given rows of images (N, F, H, W), (n, k) float64, as its network does; flat in memory.

    `advance` is called with the number of images after each batch; `change` takes the images (b, H, W, F) of a batch
    and their rows (b,), and gives those to score. Raises InputError where the model takes others.
    """
    require_shape(model, images)
    found = [np.empty((0, model.output_shape[-1]))]

    def read(part: slice) -> np.ndarray:
        batch = gather(images, rows[part], transforms[part])
        return batch if change is None else change(batch, rows[part])

    for each in _outputs(model, read, _batch_slices(images.shape, len(rows))):
        found.append(each)
        advance(len(each))
    return np.concatenate(found)


def predict_pieces(model: keras.Model, pieces: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Merger probability of images that come in pieces (n, F, H, W), (n,) for each piece; see `outputs_of_pieces`."""
    return (each[:, 0] for each in outputs_of_pieces(model, pieces))


def outputs_of_pieces(model: keras.Model, pieces: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """What a model says of images that come in pieces (n, F, H, W) of any numeric type, (n, k) float64 for each piece.

    NaN where a pixel is NaN or beyond float32, the network's type. Flat in memory: a few pieces are held at a time.
    """

    def read(piece: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            return gather(piece, np.arange(len(piece)))

    return _outputs(model, read, pieces)


def _outputs(model: keras.Model, read: Callable[[Item], np.ndarray], items: Iterable[Item]) -> Iterator[np.ndarray]:
    """Yield what the model says, (b, k) float64, of the batch that `read` makes of each item, in order.

    WORKERS of them are under way at a time; items are taken as they are needed.
    """
    score = compiled(model)

    def work(item: Item) -> np.ndarray:
        return score(read(item)).numpy().astype(np.float64)

    with ThreadPoolExecutor(WORKERS) as pool:
        waiting: deque[Future[np.ndarray]] = deque()
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > WORKERS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
