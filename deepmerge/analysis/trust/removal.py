"""Pixels taken out of images so that a network is not told by the hole: by their neighbours, or by the other side."""

from functools import lru_cache

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu

STRAIGHT, DIAGONAL = 1 / 6, 1 / 12  # weights of the eight neighbours, as Rong et al. have them
MAD = 1.4826 / np.sqrt(2)  # times the median difference of neighbours is the standard deviation of white noise


def imputed(images: np.ndarray, removed: np.ndarray, seed: int) -> np.ndarray:
    """Images without some pixels, by the noisy linear imputation of ROAD (Rong et al. 2022, arXiv:2202.00449, eq. 6).

    Each pixel that is taken out becomes the weighted mean of its eight neighbours, of which others may be unknown, too:
    a linear system. To it is added the noise of the image, since a smooth patch in a noisy image would tell of its own
    shape. images: (n, H, W, F); removed: (n, H, W), the same in all filters. Where nothing is left, the median of the
    image stands for all. float32; image i has its own random numbers, whatever else is removed.
    """
    result = np.array(images, np.float32)
    noise = pixel_noise(images)
    for number, (image, hole) in enumerate(zip(images, removed, strict=True)):
        if hole.all():
            result[number] = np.median(image, axis=(0, 1))
        elif hole.any():
            result[number, hole] = _neighbourly(np.asarray(image, float), hole)
        scatter = np.random.default_rng([seed, number]).normal(size=image.shape)
        result[number, hole] += (noise[number] * scatter)[hole]
    return result


def mirrored(images: np.ndarray, removed: np.ndarray, seed: int) -> np.ndarray:
    """Images in which each removed pixel is that of the opposite side of the image, turned about its middle.

    A galaxy looks much the same turned by half a turn, but for what a merger did to it; so this takes away a feature
    and leaves the galaxy. Where the other side is removed as well, the pixel is imputed. images: (n, H, W, F), the
    galaxy in the middle; removed: (n, H, W).
    """
    opposite, both = images[:, ::-1, ::-1], removed & removed[:, ::-1, ::-1]
    turned = np.where(removed[..., np.newaxis], opposite, images)
    return imputed(turned, both, seed)


def pixel_noise(images: np.ndarray) -> np.ndarray:
    """White noise of images (n, H, W, F), (n, F): from differences of neighbours, where galaxies nearly cancel."""
    return MAD * np.median(np.abs(np.diff(images, axis=2)), axis=(1, 2))


def _neighbourly(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """The values (k, F) that the k pixels of a hole (H, W) in an image (H, W, F) have as means of their neighbours."""
    weights = _weights(*hole.shape)
    unknown = np.flatnonzero(hole)
    rows = weights[unknown]
    known = np.where(hole[..., np.newaxis], 0.0, image).reshape(hole.size, -1)
    system = sparse.identity(len(unknown), format="csc") - rows[:, unknown].tocsc()
    return splu(system, permc_spec="MMD_AT_PLUS_A").solve(rows @ known)


@lru_cache(maxsize=4)
def _weights(height: int, width: int) -> sparse.csr_matrix:
    """The weights (H·W, H·W) of the neighbours of each pixel, which add up to 1 at the edges, too."""
    places = np.arange(height * width).reshape(height, width)
    here, there, weight = [], [], []
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        one = places[: height - down, max(0, -right) : width - max(0, right)].ravel()
        other = places[down:, max(0, right) : width + min(0, right)].ravel()
        here += [one, other]
        there += [other, one]
        weight += [np.full(2 * len(one), STRAIGHT if 0 in (down, right) else DIAGONAL)]
    count = height * width
    matrix = sparse.csr_matrix((np.concatenate(weight), (np.concatenate(here), np.concatenate(there))), (count, count))
    return sparse.csr_matrix(sparse.diags(1 / np.asarray(matrix.sum(axis=1)).ravel()) @ matrix)
