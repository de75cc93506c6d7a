"""Maps of what the pixels themselves add to the logit, in logits a pixel, summed over filters.

They work on stretched pixels z, which are what a network learns from: in raw ones, heavy-tailed as they are, a path or
a noise of any size would concern the brightest pixels alone. z₀ is an image without light. Each function gives a signed
map (n, H, W): above 0 for a merger, below 0 against one. A network that averages over turns does so within its logit.
"""

from collections.abc import Callable, Sequence
from functools import partial

import tensorflow as tf

from deepmerge.analysis.saliency.opened import Opened

Signed = Callable[[Opened, tf.Tensor], tf.Tensor]

# Draws of noise that each meet all turns of an image: fewer find less (noisy mock mergers: deletion 4.7 with two, 5.3
# with four, 5.7 with eight, 5.9 with sixteen). And those that are turned themselves, where a network sees no turns.
DRAWS, TURNED_DRAWS = 8, 2
SPREAD = 0.1  # of the noise, as a share of the image's range; of 0.02 to 0.2 it pointed best in noisy mock images
STEPS = 32  # on the path of integrated gradients; Sundararajan et al. advise 20 to 300
PATCH, STRIDE = 10, 5  # pixels: a patch as large as a companion, every pixel under four of them


def smoothgrad(opened: Opened, pixels: tf.Tensor) -> tf.Tensor:
    """SmoothGrad × input: (z − z₀) times the mean gradient at noisy copies (Smilkov et al. 2017, arXiv:1706.03825).

    Their unnumbered equation of sect. 3, with a standard deviation of SPREAD times the range of z. Each draw of noise
    meets all turns and flips of the image, within a network that averages over them, else by being turned itself; so
    the map of an image turned is its map turned wherever the network has one answer to both. All images get the same
    noise, so that a map does not depend on the others of its batch.
    """
    z, dark = opened.stretched(pixels), opened.dark(pixels)
    spread = SPREAD * (tf.reduce_max(z, axis=(1, 2, 3), keepdims=True) - tf.reduce_min(z, (1, 2, 3), keepdims=True))
    draws, codes = (DRAWS, [0]) if opened.averages else (TURNED_DRAWS, opened.turns)
    noises = _noises(tf.shape(z)[1:], draws, codes)
    slopes = _summed(lambda noise: _slope(lambda at: opened.noisy_logit(pixels, at, spread * noise), z), noises, z)
    return tf.reduce_sum((z - dark) * slopes, axis=-1) / tf.cast(tf.shape(noises)[0], tf.float32)


def integrated_gradients(opened: Opened, pixels: tf.Tensor) -> tf.Tensor:
    """Integrated gradients from an image without light (Sundararajan et al. 2017, arXiv:1703.01365, eqs. 1 and 3).

    (z − z₀) ∫₀¹ ∂y/∂z (z₀ + t (z − z₀)) dt, by STEPS midpoints. The map adds up to the logit of the image less that of
    the dark one, but for the error of the sum.
    """
    z, dark = opened.stretched(pixels), opened.dark(pixels)
    parts = (tf.range(STEPS, dtype=tf.float32) + 0.5) / STEPS
    slopes = _summed(lambda part: _slope(partial(opened.logit, pixels), dark + part * (z - dark)), parts, z)
    return tf.reduce_sum((z - dark) * slopes / STEPS, axis=-1)


def occlusion(opened: Opened, pixels: tf.Tensor) -> tf.Tensor:
    """How far the logit falls with a square patch in the dark (Zeiler & Fergus 2014, arXiv:1311.2901, sect. 4.2).

    PATCH pixels wide, STRIDE apart. A pixel has the mean, over the patches that hold it, of the fall shared by the
    pixels of a patch. As many passes as there are patches: minutes for a hundred images.
    """
    z, dark = opened.stretched(pixels), opened.dark(pixels)
    height, width = tf.shape(z)[1], tf.shape(z)[2]
    whole = opened.logit(pixels, z)
    rows, columns = tf.range(height)[:, tf.newaxis], tf.range(width)[tf.newaxis]
    corners = tf.meshgrid(*(tf.range(STRIDE - PATCH, side, STRIDE) for side in (height, width)), indexing="ij")

    def fall(corner: tf.Tensor) -> tf.Tensor:
        top, left = corner[0], corner[1]
        inside = (rows >= top) & (rows < top + PATCH) & (columns >= left) & (columns < left + PATCH)
        patch = tf.cast(inside, tf.float32)
        without = opened.logit(pixels, z + (dark - z) * patch[..., tf.newaxis])
        return (whole - without)[:, tf.newaxis, tf.newaxis] * patch / tf.reduce_sum(patch)

    # Every pixel lies under as many patches, since they begin and end outside of the image.
    over = (PATCH // STRIDE) ** 2
    return _summed(fall, tf.reshape(tf.stack(corners, axis=-1), (-1, 2)), z[..., 0]) / over


def pixel_maps(opened: Opened, signed: Signed) -> Callable[[tf.Tensor], tf.Tensor]:
    """The function from pixels (n, H, W, F) to maps for either class, (n, H, W, 2) ≥ 0."""

    def maps(pixels: tf.Tensor) -> tf.Tensor:
        found = signed(opened, pixels)
        return tf.nn.relu(tf.stack([found, -found], axis=-1))

    return maps


def _noises(shape: tf.Tensor, draws: int, codes: Sequence[int]) -> tf.Tensor:
    """Draws of white noise of this shape (H, W, F), in the turns of these codes: (draws × turns, H, W, F)."""
    found = []
    for draw in range(draws):
        noise = tf.random.stateless_normal(shape, [0, draw])
        for code in codes:
            turned = tf.image.rot90(noise, code % 4)
            found.append(tf.image.flip_up_down(turned) if code >= 4 else turned)
    return tf.stack(found)


def _summed(term: Callable[[tf.Tensor], tf.Tensor], items: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """The sum of terms of the shape of `like`, one after the other, so that the memory of one is enough."""
    return tf.foldl(lambda total, item: total + term(item), items, tf.zeros_like(like), parallel_iterations=1)


def _slope(logit: Callable[[tf.Tensor], tf.Tensor], at: tf.Tensor) -> tf.Tensor:
    with tf.GradientTape() as tape:
        tape.watch(at)
        found = logit(at)
    return tf.cast(tape.gradient(found, at), tf.float32)
