"""The pointing game of saliency maps."""

from collections.abc import Sequence
from dataclasses import Field, dataclass, fields
from typing import Any

import numpy as np

from deepmerge.errors import InputError


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
