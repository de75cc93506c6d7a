"""Where a network looked: Grad-CAM maps, the images worth showing them for, and how well they point."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import Field, dataclass, fields
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from deepmerge.analysis.sample import THRESHOLD
from deepmerge.data.labels import UNIT
from deepmerge.data.turns import possible_transforms
from deepmerge.errors import InputError

TARGETS = ("merger", "non-merger")
METHODS = {"gradcam": "Grad-CAM", "hirescam": "HiRes-CAM"}
KINDS = ("TP", "FP", "TN", "FN")


class GradCam:
    """Maps of what speaks for either class, of one convolutional layer of one network.

    Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391, eqs. 1 and 2): L = ReLU(Σ_k α_k A_k), where A_k are the
    feature maps of the layer, behind its activation, and α_k is the mean over positions of ∂y/∂A_k. The score y
    is the logit for 'merger' and minus the logit for 'non-merger', so one backward pass serves both. 'hirescam'
    multiplies position by position, L = ReLU(Σ_k ∂y/∂A_k · A_k) (Draelos & Carin 2020, arXiv:2011.08891):
    faithful where the layers above tell positions apart, as behind Flatten; the same behind a global average.

    Of a network that averages over the turns and flips of an image, the maps of all of them are turned back and added
    up, which gives one of the same logit.

    model: takes (n, H, W, F) pixels and ends in one sigmoid unit, either Dense(1, activation='sigmoid') or a
    sigmoid Activation layer, or has one by the name of UNIT. layer: name of a Conv2D at the top level of the model, or
    its number among them (−1 = the last, the default). Raises InputError for any other model, layer or method.
    """

    def __init__(
        self, model: keras.Model, layer: str | int | None = None, *, method: str = "gradcam", batch_size: int = 256
    ) -> None:
        if method not in METHODS:
            raise InputError(f"method should be one of {', '.join(METHODS)}, got {method!r}")
        if batch_size < 1:
            raise InputError(f"batch_size should be at least 1, got {batch_size}")
        self._last = _sigmoid_layer(model)
        self.layer = _convolution(model, layer)
        self.batch_size = batch_size
        self.shape = tuple(model.input_shape[1:])
        self._average = method == "gradcam"
        self._network = keras.Model(model.inputs[0], [self.layer.output, self._last.input])
        self._turns = _turns_within(self._network, self.shape)
        # Compiled once for batches of any size; no image affects another.
        self._compiled = tf.function(self._maps, [tf.TensorSpec((None, *self.shape), tf.float32)])

    def batches(self, images: np.ndarray | Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield maps (n, 2, H, W), float32 ≥ 0, for at most `batch_size` images each; axis 1 as in TARGETS.

        images: (N, H, W, F), or batches of any size with that shape. The maps are in units of the logit, not
        normalised. Raises InputError for images of another shape and for NaN or infinity in images or maps.
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

    def _maps(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            # Not left to the trainable variables: whether frozen ones are on the tape is up to Keras.
            tape.watch(images)
            features, below = self._network(images, training=False)
            logit = _logit(self._last, below)
        gradient = tf.cast(tape.gradient(logit, features), tf.float32)
        if self._average:
            gradient = tf.reduce_mean(gradient, axis=(1, 2), keepdims=True)
        signed = tf.reduce_sum(gradient * tf.cast(features, tf.float32), axis=-1)
        if len(self._turns):
            signed = _turned_back(signed, self._turns)
        maps = tf.nn.relu(tf.stack([signed, -signed], axis=-1))
        maps = tf.image.resize(maps, tf.shape(images)[1:3], method="bilinear")
        return tf.transpose(maps, (0, 3, 1, 2)), tf.reduce_all(tf.math.is_finite(signed))


def _turns_within(network: keras.Model, shape: tuple[int | None, ...]) -> np.ndarray:
    """Codes of the turns in which a network sees each image at once; none where it sees the image alone.

    network: images (n, H, W, F) to feature maps (n or turns × n, h, w, k), and to what is not looked at.
    """
    sides = [side for side in shape if side is not None]
    if len(sides) < len(shape):
        return np.empty(0, int)
    features, _ = network(np.zeros((1, *sides), np.float32), training=False)
    codes = possible_transforms(tuple(sides[:2]))
    return codes if len(features) == len(codes) else np.empty(0, int)


def _turned_back(maps: tf.Tensor, codes: np.ndarray) -> tf.Tensor:
    """Maps (turns × n, h, w) of images in turns of these codes, turned back and added up: (n, h, w)."""
    stacked = tf.reshape(maps, tf.concat([[len(codes), -1], tf.shape(maps)[1:]], 0))[..., tf.newaxis]
    upright = [
        tf.image.rot90(tf.image.flip_up_down(each) if code >= 4 else each, -code % 4)[..., 0]
        for code, each in zip(codes.tolist(), tf.unstack(stacked, len(codes)), strict=True)
    ]
    return tf.add_n(upright)


def maps(
    model: keras.Model,
    images: np.ndarray | Iterable[np.ndarray],
    *,
    layer: str | int | None = None,
    method: str = "gradcam",
    batch_size: int = 256,
) -> np.ndarray:
    """Saliency maps of all images at once, (n, 2, H, W); see GradCam, whose `batches` spares the memory."""
    batches = list(GradCam(model, layer, method=method, batch_size=batch_size).batches(images))
    return np.concatenate(batches) if batches else np.empty((0, 2, *model.input_shape[1:3]), np.float32)


def normalised(maps: np.ndarray) -> np.ndarray:
    """Each map (…, H, W) ≥ 0 divided by its own maximum, for display; maps that are 0 everywhere stay so."""
    peak = maps.max(axis=(-2, -1), keepdims=True)
    return np.divide(maps, peak, out=np.zeros_like(maps), where=peak > 0)


def convolutions(model: keras.Model) -> dict[str, keras.layers.Layer]:
    """The layers of a model that maps can be made of, by name."""
    return {layer.name: layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)}


def _convolution(model: keras.Model, choice: str | int | None) -> keras.layers.Layer:
    layers = convolutions(model)
    if choice in layers:
        return layers[choice]
    number = -1 if choice is None else choice
    try:
        return list(layers.values())[int(number)]
    except (ValueError, IndexError):
        listed = ", ".join(f"{place} = {name}" for place, name in enumerate(layers)) or "none in this model"
        raise InputError(f"layer should be a Conv2D of the model ({listed}), got {number!r}") from None


def _sigmoid_layer(model: keras.Model) -> keras.layers.Layer:
    # A subclassed model and an unbuilt one have no graph, hence no inputs.
    layers = model.layers if len(getattr(model, "inputs", None) or []) == 1 and len(model.outputs) == 1 else []
    # A network that tells stages, too, ends in what it makes of this unit and another.
    last = next((layer for layer in layers if layer.name == UNIT), layers[-1] if layers else None)
    if (
        isinstance(last, keras.layers.Dense | keras.layers.Activation)
        and last.activation is keras.activations.sigmoid
        and (last.name == UNIT or last.output is model.outputs[0])
        and last.output.shape[1:] == (1,)
    ):
        return last
    raise InputError(
        "model should be Sequential or functional, built, have one input, and end in one sigmoid unit "
        f"(Dense(1, activation='sigmoid')), got {type(model).__name__} ending in {type(last).__name__}"
    )


def _logit(last: keras.layers.Layer, below: tf.Tensor) -> tf.Tensor:
    """What the sigmoid of the last layer is applied to, from the layer's own weights.

    p no longer holds it: in float32 p = 1 from a logit of 17 on, where its gradient is 0 and its logit infinite.
    """
    if isinstance(last, keras.layers.Activation):
        return below
    logit = tf.cast(below, tf.float32) @ tf.cast(last.kernel, tf.float32)
    return logit if last.bias is None else logit + tf.cast(last.bias, tf.float32)


class Panel(NamedTuple):
    """Rows of one kind of prediction: the most certain ones first, the least certain ones first."""

    confident: np.ndarray
    uncertain: np.ndarray


def panel_rows(
    labels: np.ndarray, probabilities: np.ndarray, *, per_kind: int = 4, galaxies: np.ndarray | None = None
) -> dict[str, Panel]:
    """Choose the images to show: of each of KINDS the rows farthest from THRESHOLD and the nearest.

    labels: (n,) 0 or 1; probabilities: (n,) in [0, 1]; galaxies: (n,) ids, to show each galaxy at most once in a kind.
    Either list of a Panel has at most `per_kind` rows and none is in both: a kind with few images gives the confident
    ones first. Equal probabilities come in row order. Raises InputError for lengths that differ.
    """
    y, p = np.asarray(labels), np.asarray(probabilities)
    owner = np.arange(len(y)) if galaxies is None else np.asarray(galaxies)
    if not y.shape == p.shape == owner.shape or y.ndim != 1:
        raise InputError(
            "labels, probabilities and galaxies should be lists of one length, "
            f"got shapes {y.shape}, {p.shape}, {owner.shape}"
        )
    predicted = p >= THRESHOLD
    margin = np.abs(p - THRESHOLD)
    chosen = {}
    for kind in KINDS:
        rows = np.flatnonzero((predicted == (kind[1] == "P")) & ((predicted == (y == 1)) == (kind[0] == "T")))
        confident = _first_of_each(rows[np.argsort(-margin[rows], kind="stable")], owner)[:per_kind]
        rest = rows[~np.isin(owner[rows], owner[confident])]
        uncertain = _first_of_each(rest[np.argsort(margin[rest], kind="stable")], owner)[:per_kind]
        chosen[kind] = Panel(confident, uncertain)
    return chosen


def _first_of_each(rows: np.ndarray, owner: np.ndarray) -> np.ndarray:
    return rows[np.sort(np.unique(owner[rows], return_index=True)[1])]


@dataclass(frozen=True)
class Pointing:
    """How often maps point at the mask, beside what needs no network; shares from 0 to 1, NaN without images.

    hit_rate: maximum of the map on the mask. By chance: `by_area` a random pixel, `by_light` a pixel drawn in
    proportion to its light, `brightest_pixel` the brightest one. used: images counted; empty_masks,
    empty_maps: images left out for a mask without pixels, and for a map that is 0 everywhere beside a mask.
    """

    hit_rate: float
    by_area: float
    by_light: float
    brightest_pixel: float
    used: int
    empty_masks: int
    empty_maps: int


def pointing(maps: np.ndarray, masks: np.ndarray, light: np.ndarray) -> Pointing:
    """Play the pointing game (Zhang et al. 2016, arXiv:1608.00507) with no tolerance around the mask.

    maps: (n, H, W) ≥ 0 of one target; masks: (n, H, W), not 0 where the feature is; light: (n, H, W)
    brightness of the images, where negative values count as 0 and an image without light as evenly lit. Where
    several pixels share the maximum, the share of them on the mask counts. Raises InputError for shapes that
    differ and for values that are not finite.
    """
    if not np.ndim(maps) == 3 or not np.shape(maps) == np.shape(masks) == np.shape(light):
        raise InputError(
            "maps, masks and light should have one shape (n, H, W), "
            f"got {np.shape(maps)}, {np.shape(masks)}, {np.shape(light)}"
        )
    flat_maps, flat_masks, flat_light = (np.reshape(a, (len(a), -1 if len(a) else 0)) for a in (maps, masks, light))
    if not (np.isfinite(flat_maps).all() and np.isfinite(flat_light).all()):
        raise InputError("maps and light should be finite, got NaN or infinity")
    has_mask = flat_masks.any(axis=1)
    use = has_mask & (flat_maps > 0).any(axis=1)
    saliency, mask, glow = flat_maps[use], flat_masks[use] != 0, np.maximum(flat_light[use], 0)
    glow[~glow.any(axis=1)] = 1

    def on_mask(weights: np.ndarray) -> float:
        return float(np.mean((weights * mask).sum(axis=1) / weights.sum(axis=1))) if len(mask) else np.nan

    return Pointing(
        hit_rate=on_mask(_peaks(saliency)),
        by_area=on_mask(np.ones_like(glow)),
        by_light=on_mask(glow),
        brightest_pixel=on_mask(_peaks(glow)),
        used=int(use.sum()),
        empty_masks=int((~has_mask).sum()),
        empty_maps=int((has_mask & ~use).sum()),
    )


def pooled(games: Sequence[Pointing]) -> Pointing:
    """The pointing game on the images of all `games` together."""
    played = [game for game in games if game.used]

    def pool(field: Field[Any]) -> Any:
        if field.type is int:
            return sum(getattr(game, field.name) for game in games)
        shares = [getattr(game, field.name) for game in played]
        return float(np.average(shares, weights=[game.used for game in played])) if played else np.nan

    return Pointing(**{field.name: pool(field) for field in fields(Pointing)})


def _peaks(values: np.ndarray) -> np.ndarray:
    return values == values.max(axis=1, keepdims=True) if len(values) else np.zeros(values.shape, bool)
