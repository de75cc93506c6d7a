"""How far single maps point at known features, and how alike two maps of an image are; a number an image, pure."""

import numpy as np
from scipy import stats

from deepmerge.errors import InputError


def energy(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """The share of a map's sum that lies on the mask, (n,) in [0, 1] (Wang et al. 2020, arXiv:1910.01279, sect. 4.3).

    maps: (n, H, W) ≥ 0; masks: (n, H, W), not 0 where the feature is. A map that is 0 everywhere misses: 0. NaN where
    the mask is empty. Raises InputError for shapes that differ and for maps that are not finite.
    """
    flat, mask = _flat(maps, masks)
    total = flat.sum(axis=1)
    share = np.divide((flat * mask).sum(axis=1), total, out=np.zeros(len(flat)), where=total > 0)
    return np.where(mask.any(axis=1), share, np.nan)


def hits(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Whether the maximum of a map lies on the mask, (n,): the pointing game (Zhang et al. 2016, arXiv:1608.00507).

    Without their tolerance of 15 pixels around the mask. Where several pixels share the maximum, the share of them on
    the mask counts. All else as in `energy`.
    """
    flat, mask = _flat(maps, masks)
    peaks = (flat > 0) & (flat == flat.max(axis=1, keepdims=True)) if len(flat) else flat
    return energy(peaks, mask)


def likeness(maps: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation of the pixels of two maps of an image, (n,) in [−1, 1].

    Adebayo et al. (2018, arXiv:1810.03292, sect. 3) compare maps by it. Two empty maps are alike, 1; an empty one is
    unlike any other, 0.
    """
    ranks = [stats.rankdata(np.reshape(each, (len(each), -1)), axis=1) for each in (maps, others)]
    centred = [each - each.mean(axis=1, keepdims=True) for each in ranks]
    spread = [np.sqrt((each**2).sum(axis=1)) for each in centred]
    product, scale = (centred[0] * centred[1]).sum(axis=1), spread[0] * spread[1]
    both_flat = (spread[0] == 0) & (spread[1] == 0)
    return np.divide(product, scale, out=both_flat.astype(float), where=scale > 0)


def order(maps: np.ndarray, seed: int) -> np.ndarray:
    """The pixels of each map (n, H, W) from the highest to the lowest, (n, H·W); equal ones in random order.

    Image i has the same random order in every call, so that maps which say nothing are judged alike.
    """
    chance = np.stack([np.random.default_rng([seed, number]).random(maps[0].size) for number in range(len(maps))])
    return np.lexsort((chance, -maps.reshape(len(maps), -1)), axis=1)


def _flat(maps: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Maps as numbers and masks as truth, (n, pixels) each."""
    if not np.ndim(maps) >= 2 or np.shape(maps) != np.shape(masks):
        raise InputError(f"maps and masks should have one shape (n, H, W), got {np.shape(maps)}, {np.shape(masks)}")
    if not np.isfinite(maps).all():
        raise InputError("maps should be finite, got NaN or infinity")
    flat = np.reshape(maps, (len(maps), -1 if len(maps) else 0))
    return flat.astype(float), np.reshape(masks, flat.shape) != 0
