"""Flips and turns inside a network: all of them of each image, and what they have in common.

A galaxy has no upright position, so an image turned should get the same score (group averaging: Dieleman, Willett &
Dambre 2015, MNRAS 450, 1441). Built-in operations of Keras only, so that a saved network needs no code of ours.
"""

import keras
from keras import ops

from deepmerge.data.turns import possible_transforms

TURNED = "all_turns"  # name of the layer whose output are all turns of the images


def all_turns(images: keras.KerasTensor) -> keras.KerasTensor:
    """Images (n, H, W, F) in all their turns and flips, one after the other: (turns × n, H, W, F)."""
    turned = []
    for code in _codes(images.shape[1:]):
        quarters = code % 4
        x = ops.transpose(images, (0, 2, 1, 3)) if quarters % 2 else images
        rows, columns = (quarters in (1, 2)) != (code >= 4), quarters in (2, 3)  # as in data.turns.transform
        axes = (1,) * rows + (2,) * columns
        turned.append(ops.flip(x, axis=axes) if axes else x)
    return keras.layers.Identity(name=TURNED, dtype=images.dtype)(ops.concatenate(turned, axis=0))


def mean_over_turns(features: keras.KerasTensor, shape: tuple[int, int, int]) -> keras.KerasTensor:
    """Features (turns × n, k) of `all_turns` of images of this shape: their means, (n, k)."""
    return ops.mean(ops.reshape(features, (len(_codes(shape)), -1, features.shape[-1])), axis=0)


def _codes(shape: tuple[int, ...]) -> list[int]:
    height, width = shape[:2]
    return [int(code) for code in possible_transforms((height, width))]
