"""What the convolutions of a network make of images, and whether that has stripes."""

import keras
import numpy as np

from deepmerge.analysis.saliency.opened import convolutions

AT_ONCE = 32  # images in the network at a time


def activations(model: keras.Model, images: np.ndarray) -> dict[str, np.ndarray]:
    """Features (n, h, w, k) of images (n, H, W, F) behind each convolution and its batch norm, if any, by the former.

    Of a network that sees all turns of an image at once, those of the upright one.
    """
    layers, names = list(model.layers), convolutions(model)
    if not names:
        return {}
    outputs = []
    for layer in names.values():
        after = layers[layers.index(layer) + 1 :][:1]
        normalised = after and isinstance(after[0], keras.layers.BatchNormalization)
        outputs.append(after[0].output if normalised else layer.output)
    network = keras.Model(model.inputs[0], outputs)
    found = []
    for start in range(0, len(images), AT_ONCE):
        piece = np.asarray(images[start : start + AT_ONCE], np.float32)
        given = network(piece, training=False)
        given = given if isinstance(given, list | tuple) else [given]
        found.append([np.asarray(each, np.float32)[: len(piece)] for each in given])
    return {name: np.concatenate(parts) for name, parts in zip(names, zip(*found, strict=True), strict=True)}


def column_power(features: np.ndarray) -> float:
    """How much more features (n, h, w, k) change from column to column than from row to row: a ratio of variances.

    Of the means of columns and of rows, added up over images and filters. Galaxies lie in all directions, so of many
    images it is near 1; a network that treats columns apart, as a batch norm over the image width does, makes vertical
    stripes and a ratio far above. NaN where nothing changes from row to row.
    """
    features = np.asarray(features, float)
    across, down = features.mean(axis=1).var(axis=1).sum(), features.mean(axis=2).var(axis=1).sum()
    return float(across / down) if down > 0 else np.nan
