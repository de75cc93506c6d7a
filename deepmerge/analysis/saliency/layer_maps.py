"""Maps from the features of a layer and the slope of the logit in them: the family of Grad-CAM.

In all of them A are the features of the layer (n, h, w, k), behind its activation, y is the score of a class, the logit
for mergers and minus the logit for the others, and g = ∂y/∂A. Each gives (n, h, w), of which what is positive speaks
for the class; it is enlarged to the image bilinearly, which leaves its height as it is.
"""

from collections.abc import Callable

import tensorflow as tf

from deepmerge.analysis.saliency.opened import OpenLayer

Formula = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def gradcam(features: tf.Tensor, slopes: tf.Tensor) -> tf.Tensor:
    """Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391, eqs. 1 and 2): Σ_k α_k A_k, α_k the mean of g_k.

    With guided gradients (Springenberg et al. 2015, arXiv:1412.6806, sect. 3.4), which stop at every ReLU what is
    negative, it is what the DeepMerge notebooks drew: keras-vis' `visualize_cam(backprop_modifier='guided')`. That is
    not the Guided Grad-CAM of Selvaraju et al., a product with a map of the pixels.
    """
    return tf.reduce_sum(tf.reduce_mean(slopes, axis=(1, 2), keepdims=True) * features, axis=-1)


def gradcam_plus_plus(features: tf.Tensor, slopes: tf.Tensor) -> tf.Tensor:
    """Grad-CAM++ (Chattopadhay et al. 2018, arXiv:1710.11063, eqs. 5, 10 and 19): Σ_k w_k A_k.

    w_k = Σ_ij α_ij ReLU(g_ij) with α_ij = g_ij² / (2 g_ij² + g_ij³ Σ_ab A_ab), and 0 where g_ij is 0, for a score that
    is the exponential of y; its own height, a factor common to all pixels of an image, is left out, so that the map
    stays in logits. Where the denominator is negative so is the weight: the derivation takes A ≥ 0 for granted.
    """
    total = tf.reduce_sum(features, axis=(1, 2), keepdims=True)
    alpha = tf.math.divide_no_nan(slopes**2, 2 * slopes**2 + slopes**3 * total)
    weights = tf.reduce_sum(alpha * tf.nn.relu(slopes), axis=(1, 2), keepdims=True)
    return tf.reduce_sum(weights * features, axis=-1)


def hirescam(features: tf.Tensor, slopes: tf.Tensor) -> tf.Tensor:
    """HiRes-CAM (Draelos & Carin 2020, arXiv:2011.08891, sect. 3.3): Σ_k g_k A_k, position by position.

    Its sum is what the layer adds to the logit to first order, exactly so where what follows is linear behind a
    Flatten. The same as Grad-CAM behind a global average.
    """
    return tf.reduce_sum(slopes * features, axis=-1)


def layercam(features: tf.Tensor, slopes: tf.Tensor) -> tf.Tensor:
    """LayerCAM (Jiang et al. 2021, IEEE Trans. Image Process. 30, 5875, eqs. 6 to 8): Σ_k ReLU(g_k) A_k.

    As HiRes-CAM without what lowers the score; meant for early layers, too.
    """
    return tf.reduce_sum(tf.nn.relu(slopes) * features, axis=-1)


def layer_maps(opened: OpenLayer, formula: Formula) -> Callable[[tf.Tensor], tf.Tensor]:
    """The function from pixels (n, H, W, F) to maps for either class, (n, H, W, 2) ≥ 0: the ReLU of the formula.

    Of a network that averages over turns and flips, the maps of all of them are turned back and added up, before the
    ReLU.
    """

    def maps(pixels: tf.Tensor) -> tf.Tensor:
        features, towards, away = opened.features_and_slopes(pixels)
        signed = [opened.upright(formula(features, slopes)) for slopes in (towards, away)]
        return tf.image.resize(tf.nn.relu(tf.stack(signed, axis=-1)), tf.shape(pixels)[1:3], method="bilinear")

    return maps
