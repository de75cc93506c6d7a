"""Maps of what speaks for a merger, and against one, by any method: one interface to all of them."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from deepmerge.analysis.saliency import layer_maps, pixel_maps
from deepmerge.analysis.saliency.opened import Opened
from deepmerge.errors import InputError

TARGETS = ("merger", "non-merger")
PIXELS = "pixels"  # what a method looks at that looks at no layer
# Images in the network at a time: the gradient in the pixels holds every layer of eight turns of each, 20 MB.
LAYER_BATCH, PIXEL_BATCH = 256, 32
GRAIN = 1.0  # pixels, about the width of HST's PSF

Maps = Callable[[tf.Tensor], tf.Tensor]


class Method(NamedTuple):
    """A method: its title, and its formula by what it looks at, the features of a layer or the pixels."""

    title: str
    of_layer: layer_maps.Formula | None = None
    of_pixels: pixel_maps.Signed | None = None
    guided: bool = False

    def open(self, network: Opened, layer: str | int | None) -> tuple[str, Maps]:
        """The name of what it looks at in a network, and the function from pixels to maps (n, H, W, 2) ≥ 0.

        Raises InputError for a layer that the network does not have, or that the method does not look at.
        """
        if self.of_pixels is not None:
            if layer not in (None, PIXELS):
                raise InputError(f"{self.title} looks at the pixels and takes no layer, got {layer!r}; leave it out")
            return PIXELS, pixel_maps.pixel_maps(network, self.of_pixels)
        assert self.of_layer is not None
        opened = network.layer(layer, guided=self.guided)
        return opened.name, layer_maps.layer_maps(opened, self.of_layer)


METHODS: dict[str, Method] = {
    "gradcam": Method("Grad-CAM", layer_maps.gradcam),
    "guided": Method("Grad-CAM with guided gradients", layer_maps.gradcam, guided=True),
    "gradcam++": Method("Grad-CAM++", layer_maps.gradcam_plus_plus),
    "hirescam": Method("HiRes-CAM", layer_maps.hirescam),
    "layercam": Method("LayerCAM", layer_maps.layercam),
    "smoothgrad": Method("SmoothGrad × input", of_pixels=pixel_maps.smoothgrad),
    "integrated": Method("Integrated gradients", of_pixels=pixel_maps.integrated_gradients),
    "occlusion": Method("Occlusion", of_pixels=pixel_maps.occlusion),
}


class Explainer:
    """Makes the maps of one network by one method of METHODS, each of which cites its paper.

    Every method gives a map for either class, in logits and not normalised: of a layer, or of the pixels.

    model: as Opened takes it, and need not be one of ours. layer: any layer with maps (n, h, w, k) by name, or a
    convolution by its number among those at the top level (−1 = the last, the default); None for methods of the pixels.
    After it is made, `layer` is its name, PIXELS for these. Raises InputError for any other model, layer or method.
    """

    def __init__(
        self, model: keras.Model, layer: str | int | None = None, *, method: str, batch_size: int | None = None
    ) -> None:
        if method not in METHODS:
            raise InputError(f"method should be one of {', '.join(METHODS)}, got {method!r}")
        if batch_size is not None and batch_size < 1:
            raise InputError(f"batch_size should be at least 1, got {batch_size}")
        network = Opened(model)
        self.name, self.method, self.shape = method, METHODS[method], network.shape
        self.batch_size = batch_size or (LAYER_BATCH if self.method.of_layer else PIXEL_BATCH)
        self.layer, maps = self.method.open(network, layer)
        # Compiled once for batches of any size; no image affects another.
        self._compiled = tf.function(_checked(maps), [tf.TensorSpec((None, *self.shape), tf.float32)], autograph=False)

    @property
    def title(self) -> str:
        """Method and layer, for figures and messages."""
        return self.method.title if self.layer == PIXELS else f"{self.method.title} of {self.layer}"

    def batches(self, images: np.ndarray | Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield maps (n, 2, H, W), float32 ≥ 0, for at most `batch_size` images each; axis 1 as in TARGETS.

        images: (N, H, W, F), or batches of any size with that shape. Raises InputError for images of another shape and
        for NaN or infinity in images or maps.
        """
        for batch in [images] if isinstance(images, np.ndarray) else images:
            shape = np.shape(batch)
            if len(shape) != 4 or any(n not in (None, m) for n, m in zip(self.shape, shape[1:], strict=True)):
                expected = ", ".join(str(n or "any") for n in self.shape)
                raise InputError(f"images should have shape (n, {expected}), channels last, got {shape}")
            for start in range(0, len(batch), self.batch_size):
                piece = np.asarray(batch[start : start + self.batch_size], dtype=np.float32)
                maps, finite = self._compiled(piece)
                # Of the images too: a ReLU on the way can turn NaN into 0.
                if not (finite and np.isfinite(piece).all()):
                    raise InputError("images and weights should be finite and give finite maps, got NaN or infinity")
                yield maps.numpy()

    def maps(self, images: np.ndarray | Iterable[np.ndarray]) -> np.ndarray:
        """All maps at once, (N, 2, H, W); `batches` spares the memory."""
        found = list(self.batches(images))
        return np.concatenate(found) if found else np.empty((0, len(TARGETS), *self.shape[:2]), np.float32)


def _checked(maps: Maps) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """Maps (n, 2, H, W) of images, and whether all of them are finite."""

    # A function of its own for each explainer: TensorFlow warns of one that is compiled again and again.
    def checked(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        found = maps(images)
        return tf.transpose(found, (0, 3, 1, 2)), tf.reduce_all(tf.math.is_finite(found))

    return checked


def maps(
    model: keras.Model,
    images: np.ndarray | Iterable[np.ndarray],
    *,
    method: str,
    layer: str | int | None = None,
    batch_size: int | None = None,
) -> np.ndarray:
    """Saliency maps of all images at once, (n, 2, H, W); see Explainer."""
    return Explainer(model, layer, method=method, batch_size=batch_size).maps(images)


def displayed(maps: np.ndarray, method: str) -> np.ndarray:
    """Maps (…, H, W) as figures show them: those of the pixels smoothed by GRAIN, the others as they are.

    Their height changes from pixel to pixel, which hides from the eye where they are high; nothing that is measured of
    maps is measured of these.
    """
    if METHODS[method].of_layer or not maps.size:
        return maps
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(maps, (0,) * (maps.ndim - 2) + (GRAIN, GRAIN))
