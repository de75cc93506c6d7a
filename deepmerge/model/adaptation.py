"""What pulls the features of two samples together, so that a network that learns on one works on the other.

Features are what stands in front of the last layer, (n, k) of source images and (m, k) of target images, which have no
labels. DeepMerge II (Ćiprijanović et al. 2021, arXiv:2103.01373) used MMD and DANN, SIDDA (Pandya et al. 2025,
arXiv:2501.14048) the Sinkhorn divergence.
"""

import keras
import tensorflow as tf

from deepmerge import config
from deepmerge.data.labels import UNIT

WIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the kernels of MMD, times the median squared distance; Long et al. use octaves
BLUR = 0.05  # of the Sinkhorn divergence, times the largest distance, as in SIDDA
SCALING = 0.5  # by which the blur falls from the largest distance to its value, as geomloss does by default
LAST = 10  # iterations at the final blur: divergence and gradient are then those of a thousand to some per cent
UNITS = 64  # of the hidden layer of the discriminator
WARM_UP = 1 / 3  # of the training without a penalty, before its weight is learned: 20 of SIDDA's 60 epochs
LEAST_ETA, LEAST_RATIO = 1e-3, 0.25  # of the scales that are learned, as in SIDDA's code
STEEPNESS = 10.0  # of the rise of the weight, Ganin et al. 2016
LEAST = 1e-12  # of squared distances, whose root would have no gradient at 0


class Adaptation:
    """The penalty of a model for features that tell its source images from its target images.

    model: its layer UNIT takes the features. settings: method and weight; where this rises, it does
    so over `steps`. variables: those of its own, which learn with the model's.
    """

    def __init__(self, model: keras.Model, settings: config.Adapt, steps: int) -> None:
        self._settings, self._steps = settings, steps
        features = model.get_layer(UNIT).input
        self._with_features = keras.Model(model.inputs[0], [model.output, features])
        self._discriminator: keras.Model | None = None
        self.variables: list[keras.Variable] = []
        if settings.method == "dann":
            self._discriminator = discriminator(features.shape[-1])
            self.variables = self._discriminator.trainable_variables
        if settings.learns_weight:
            self.variables = scales()

    def __call__(
        self, images: tf.Tensor, targets: tf.Tensor, step: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The model's answers to source images (n, H, W, F) in training, the penalty beside as many target images, and
        the factor that belongs to the log loss of the answers: 1 unless the weights of both are learned.

        Both go through the network together: batch norm is of both, as it will be when the network is used on either.
        """
        count = tf.shape(images)[0]
        answers, features = self._with_features(tf.concat([images, targets], axis=0), training=True)
        features = tf.cast(features, tf.float32)
        source, target = features[:count], features[count:]
        weight, factor = tf.constant(self._settings.full_weight, tf.float32), tf.constant(1.0)
        if self._settings.rises:
            weight *= rise(tf.cast(step, tf.float32) / self._steps)
        if self._discriminator is not None:
            return answers[:count], adversarial(self._discriminator, source, target, weight), factor
        penalty = weight * {"mmd": mmd, "coral": coral, "sinkhorn": sinkhorn}[self._settings.method](source, target)
        if self._settings.learns_weight:
            is_warm = tf.cast(step, tf.float32) >= WARM_UP * self._steps
            penalty, factor = balanced(penalty, *self.variables)
            penalty, factor = tf.where(is_warm, penalty, 0.0), tf.where(is_warm, factor, 1.0)
        return answers[:count], penalty, factor


def scales() -> list[keras.Variable]:
    """The scales of log loss and penalty, 1 and 1, kept from 0, and the second from falling far below the first."""
    of_loss, of_penalty = keras.Variable(1.0, name="eta_1"), keras.Variable(1.0, name="eta_2")
    of_loss.constraint = lambda value: tf.maximum(value, LEAST_ETA)
    of_penalty.constraint = lambda value: tf.maximum(value, LEAST_RATIO * of_loss)
    return [of_loss, of_penalty]


def balanced(penalty: tf.Tensor, of_loss: tf.Tensor, of_penalty: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """What is added to the log loss, and the factor of this, at the scales η₁ and η₂ of both.

    The sum is loss / (2 η₁²) + penalty / (2 η₂²) + log(η₁ η₂), with SIDDA's dynamic weighting (arXiv:2501.14048; after
    Kendall et al. 2018, arXiv:1705.07115), in which the scales learn with the network: each is at rest where its square
    is the loss, or penalty.
    """
    factor = 1 / (2 * of_loss**2)
    return penalty / (2 * of_penalty**2) + tf.math.log(of_loss * of_penalty), factor


def rise(progress: tf.Tensor) -> tf.Tensor:
    """The share of the weight at a progress p from 0 to 1: 2 / (1 + exp(−10 p)) − 1.

    Ganin et al. 2016 (J. Mach. Learn. Res. 17, 59; arXiv:1505.07818), section 5.2.2.
    """
    return 2.0 / (1.0 + tf.exp(-STEEPNESS * progress)) - 1.0


def squared_distances(one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """‖x − y‖² of each pair of features (n, k) and (m, k), (n, m), none negative by rounding."""
    squares = tf.reduce_sum(one**2, axis=1)[:, tf.newaxis] + tf.reduce_sum(other**2, axis=1)
    return tf.maximum(squares - 2 * tf.matmul(one, other, transpose_b=True), 0.0)


def mmd(source: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """The squared maximum mean discrepancy of features (n, k) and (m, k), the mean over Gaussian kernels.

    The biased estimate of Gretton et al. 2012 (J. Mach. Learn. Res. 13, 723), eq. 5: mean k(x, x') + mean k(y, y') −
    2 mean k(x, y), with k(x, y) = exp(−‖x − y‖² / γ). γ is the median squared distance of all pairs (their section 8;
    it has no gradient), times each of WIDTHS, as one width seldom fits (Long et al. 2015, arXiv:1502.02791).
    """
    both = tf.concat([source, target], axis=0)
    distances = squared_distances(both, both)
    count, first = tf.shape(both)[0], tf.shape(source)[0]
    ranked = tf.sort(tf.reshape(tf.linalg.set_diag(tf.stop_gradient(distances), -tf.ones(count)), [-1]))
    median = tf.maximum(ranked[count + (count * count - count) // 2], LEAST)  # behind the pairs of one with itself
    kernel = tf.add_n([tf.exp(-distances / (width * median)) for width in WIDTHS]) / len(WIDTHS)
    within = tf.reduce_mean(kernel[:first, :first]) + tf.reduce_mean(kernel[first:, first:])
    return within - 2 * tf.reduce_mean(kernel[:first, first:])


def coral(source: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """How far the covariances of features (n, k) and (m, k) lie apart: ‖C_S − C_T‖² / (4 k²), the Frobenius norm.

    Sun & Saenko 2016 (arXiv:1607.01719), eqs. 1 to 3.
    """
    width = tf.cast(tf.shape(source)[1], tf.float32)
    return tf.reduce_sum((_covariance(source) - _covariance(target)) ** 2) / (4 * width**2)


def _covariance(features: tf.Tensor) -> tf.Tensor:
    """Of features (n, k), (k, k); 0 of a single one."""
    centred = features - tf.reduce_mean(features, axis=0)
    freedom = tf.maximum(tf.cast(tf.shape(features)[0], tf.float32) - 1, 1.0)
    return tf.matmul(centred, centred, transpose_a=True) / freedom


def sinkhorn(source: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """The Sinkhorn divergence of features (n, k) and (m, k): OT(x, y) − OT(x, x) / 2 − OT(y, y) / 2.

    Feydy et al. 2019 (arXiv:1810.08278), eq. 3, with the cost ‖x − y‖² / 2 and the entropy ε = blur²; the blur is BLUR
    times the largest distance of x and y, as in SIDDA (arXiv:2501.14048), and has no gradient.
    """
    largest = tf.stop_gradient(tf.sqrt(tf.maximum(tf.reduce_max(squared_distances(source, target)), LEAST)))
    across = _transport(source, target, largest)
    return across - (_transport(source, source, largest) + _transport(target, target, largest)) / 2


def _transport(one: tf.Tensor, other: tf.Tensor, largest: tf.Tensor) -> tf.Tensor:
    """The cost of entropic transport between features of equal weights, at a blur of BLUR times `largest`.

    Symmetric iterations on the potentials, in logarithms, while the blur falls to its value (Feydy et al. 2019, section
    3.2), as geomloss does. The potentials have no gradient but in the last step, by the envelope theorem.
    """
    fixed = tf.stop_gradient(squared_distances(one, other) / 2)
    blurs = [1.0]
    while blurs[-1] > BLUR:
        blurs.append(max(blurs[-1] * SCALING, BLUR))
    entropies = [(blur * largest) ** 2 for blur in (*blurs, *[BLUR] * LAST)]
    here, there = _soft_minimum(fixed, None, entropies[0]), _soft_minimum(tf.transpose(fixed), None, entropies[0])
    for entropy in entropies:
        ours, theirs = _soft_minimum(fixed, there, entropy), _soft_minimum(tf.transpose(fixed), here, entropy)
        here, there = (here + ours) / 2, (there + theirs) / 2
    here, there = tf.stop_gradient(here), tf.stop_gradient(there)
    # Each potential leads back to its own features, or the plan would count twice.
    ours = _soft_minimum(squared_distances(one, tf.stop_gradient(other)) / 2, there, entropies[-1])
    theirs = _soft_minimum(squared_distances(other, tf.stop_gradient(one)) / 2, here, entropies[-1])
    return tf.reduce_mean(ours) + tf.reduce_mean(theirs)


def _soft_minimum(cost: tf.Tensor, potential: tf.Tensor | None, entropy: tf.Tensor) -> tf.Tensor:
    """−ε log mean exp((potential − cost) / ε) over the second axis of costs (n, m), (n,)."""
    count = tf.cast(tf.shape(cost)[1], tf.float32)
    height = -cost if potential is None else potential - cost
    return -entropy * (tf.reduce_logsumexp(height / entropy, axis=1) - tf.math.log(count))


def discriminator(width: int) -> keras.Model:
    """A network that tells source from target by their features (n, width): a logit (n, 1), above 0 for the target."""
    layers = keras.layers
    inputs = keras.Input((width,))
    hidden = layers.Dense(UNITS, activation="relu", dtype="float32")(inputs)
    return keras.Model(inputs, layers.Dense(1, dtype="float32")(hidden))


def adversarial(told_by: keras.Model, source: tf.Tensor, target: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """The cross-entropy of a discriminator, from which features (n, k) and (m, k) learn the reverse, times `weight`.

    Ganin et al. 2016 (arXiv:1505.07818), section 4.2: the discriminator learns to tell, the features not to be told.
    Both samples weigh the same.
    """
    logits = [told_by(reversed_gradient(features, weight), training=True) for features in (source, target)]
    return (tf.reduce_mean(tf.nn.softplus(logits[0])) + tf.reduce_mean(tf.nn.softplus(-logits[1]))) / 2


@tf.custom_gradient
def reversed_gradient(features: tf.Tensor, weight: tf.Tensor) -> tuple[tf.Tensor, object]:
    """The features as they are, their gradient times −weight (Ganin et al. 2016, section 4.2)."""

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, None]:
        return -weight * upstream, None

    return tf.identity(features), gradient
