"""Maps of a network put to the test: what happens to its answer, and to the maps, when something is changed.

All on images that the network calls mergers, and on the maps of what speaks for a merger. What is measured of each
image stands in a table, which `table` sums up.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from deepmerge.analysis.saliency import Explainer, Opened
from deepmerge.analysis.trust import measures, removal
from deepmerge.data.turns import possible_transforms, transform
from deepmerge.progress import Advance

DELETED = (0.01, 0.02, 0.05, 0.1)  # of the pixels, the most salient ones; a merger's features cover a tenth at most
KEPT = (0.05, 0.2)
SHAKEN = 0.5  # noise that is added, in units of what the image has
BATCH = 32  # images in the network at a time: with gradients, and eight turns of each, 1 GB
LIGHT, AREA = "light", "area"  # maps that need no network: the brightness of the last filter, and one that is even
BASELINES = (LIGHT, AREA)

Subject = tuple[str, str | int | None]  # a method and its layer


@dataclass(frozen=True)
class Trial:
    """What was measured of each image.

    images: galaxy, logit, and what mirroring away the mask changed the logit by (NaN without masks). maps: one line a
    map and image; map: `method/layer`, or a baseline; image, galaxy, energy, hit, deletion, insertion,
    randomised, turned, shaken, seeds, empty, as `trial` says. likeness: of the maps of any two methods, (m, m, n).
    """

    images: pd.DataFrame
    maps: pd.DataFrame
    likeness: np.ndarray


def trial(
    model: keras.Model,
    images: np.ndarray,
    galaxies: np.ndarray,
    subjects: Sequence[Subject],
    masks: np.ndarray | None = None,
    *,
    other_seeds: Sequence[keras.Model] = (),
    seed: int = 0,
    advance: Advance = lambda steps: None,
) -> Trial:
    """Put the merger maps of `subjects`, and of BASELINES, to the test on images that a network calls mergers.

    images: (n, H, W, F) raw pixels; galaxies: (n,) ids; masks: (n, H, W), the true features, where they are known.
    Of each map and image:

    energy, hit: share of the map, and whether its maximum lies, on the mask (`measures`).
    deletion: fall of the logit when the most salient pixels are imputed, mean over the shares DELETED; insertion: its
    rise when they are all that is kept, mean over KEPT (ROAD, Rong et al. 2022, arXiv:2202.00449: noisy linear
    imputation, so that the network is not judged on holes).
    randomised: likeness to the map of the same network with the numbers of each weight shuffled; near 0 if maps tell of
    what was learned (Adebayo et al. 2018, arXiv:1810.03292).
    turned: likeness to the map of the image turned by a quarter and flipped, turned back, the mean of both; shaken: of
    the image with SHAKEN times its own pixel noise added.
    seeds: mean likeness to the maps of `other_seeds`, networks of the same kind from other trainings, if any.
    empty: whether the map is 0 everywhere.

    `advance` is called once a map. The same seed gives the same numbers.
    """
    network = _Scorer(model)
    whole = network.logits(images)
    bare = network.logits(removal.imputed(images, np.ones(images.shape[:3], bool), seed))
    removed = np.full(len(images), np.nan)
    if masks is not None:
        masks = np.asarray(masks) != 0
        removed = network.logits(removal.mirrored(images, masks, seed)) - whole
        removed[~masks.any(axis=(1, 2))] = np.nan

    def judged(maps: np.ndarray) -> dict[str, np.ndarray]:
        without, only = network.deleted(images, maps, seed)
        pointed = {} if masks is None else {"energy": measures.energy(maps, masks), "hit": measures.hits(maps, masks)}
        return {**pointed, "deletion": whole - without, "insertion": only - bare, "empty": ~maps.any(axis=(1, 2))}

    tables, drawn, shuffled = [], [], _shuffled(model, seed)
    for method, layer in subjects:
        explainer = Explainer(model, layer, method=method, batch_size=BATCH)
        maps = explainer.maps(images)[:, 0]
        stable = _stability(explainer, Explainer(shuffled, layer, method=method, batch_size=BATCH), images, maps, seed)
        if other_seeds:
            theirs = [
                Explainer(other, layer, method=method, batch_size=BATCH).maps(images)[:, 0] for other in other_seeds
            ]
            stable["seeds"] = np.mean([measures.likeness(each, maps) for each in theirs], axis=0)
        tables.append(_lines(key(method, explainer.layer), galaxies, {**judged(maps), **stable}))
        drawn.append(maps)
        advance(1)
    light = np.maximum(images[..., -1], 0)
    for name, maps in ((LIGHT, light), (AREA, np.ones_like(light))):
        tables.append(_lines(name, galaxies, judged(maps)))
        advance(1)
    likeness = np.array([[measures.likeness(one, other) for other in drawn] for one in drawn])
    facts = pd.DataFrame({"galaxy": galaxies, "logit": whole, "mirrored": removed})
    return Trial(facts, pd.concat(tables, ignore_index=True), likeness)


def key(method: str, layer: str) -> str:
    """How a trial calls the maps of a method and layer."""
    return f"{method}/{layer}"


def _lines(name: str, galaxies: np.ndarray, columns: Mapping[str, np.ndarray]) -> pd.DataFrame:
    return pd.DataFrame({"map": name, "image": np.arange(len(galaxies)), "galaxy": galaxies, **columns})


def _stability(
    explainer: Explainer, shuffled: Explainer, images: np.ndarray, maps: np.ndarray, seed: int
) -> dict[str, np.ndarray]:
    def again(code: int) -> np.ndarray:
        channels_first = transform(np.moveaxis(images, -1, 1), code)
        turned = explainer.maps(np.ascontiguousarray(np.moveaxis(channels_first, 1, -1)))[:, 0]
        return measures.likeness(turned, transform(maps, code))

    noise = removal.pixel_noise(images)[:, np.newaxis, np.newaxis]
    scatter = np.random.default_rng(seed).normal(size=images.shape)
    shaken = (images + SHAKEN * noise * scatter).astype(np.float32)
    # A quarter turn or, of an oblong image, half a turn; and upside down.
    first = 1 if 1 in possible_transforms(images.shape[1:3]) else 2
    return {
        "randomised": measures.likeness(shuffled.maps(images)[:, 0], maps),
        "turned": (again(first) + again(4)) / 2,
        "shaken": measures.likeness(explainer.maps(shaken)[:, 0], maps),
    }


def _shuffled(model: keras.Model, seed: int) -> keras.Model:
    """The same network with the numbers of each trainable weight in another order."""
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    rng = np.random.default_rng(seed)
    for weight in clone.trainable_weights:
        values = np.asarray(weight)
        weight.assign(rng.permutation(values.ravel()).reshape(values.shape))
    return clone


class _Scorer:
    """Logits of images, and of what is left of them."""

    def __init__(self, model: keras.Model) -> None:
        opened = Opened(model)
        signature = [tf.TensorSpec((None, *opened.shape), tf.float32)]
        logit: Callable[[tf.Tensor], tf.Tensor] = lambda pixels: opened.logit(pixels, opened.stretched(pixels))  # noqa: E731
        self._compiled = tf.function(logit, signature, autograph=False)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Logits (n,) of images (n, H, W, F)."""
        parts = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
        found = [self._compiled(np.asarray(part, np.float32)).numpy().astype(float) for part in parts]
        return np.concatenate([np.empty(0), *found])

    def deleted(self, images: np.ndarray, maps: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Mean logits (n,) without the most salient pixels, and with these alone."""
        order = measures.order(maps, seed)
        places = np.argsort(order, axis=1).reshape(maps.shape) / maps[0].size  # 0 for the most salient pixel

        def mean(holes: Sequence[np.ndarray]) -> np.ndarray:
            return np.mean([self.logits(removal.imputed(images, hole, seed)) for hole in holes], axis=0)

        return mean([places < share for share in DELETED]), mean([places >= share for share in KEPT])
