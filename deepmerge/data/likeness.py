"""Near-duplicates: the same galaxy imaged or cut out twice, turned, flipped, shifted by a few pixels, with more noise.

Candidates are nearest neighbours by low frequencies of the power spectrum, which a shift does not change. Each is then
laid upon the other in the eight turns and at each shift, and what is fine in them (noise, knots) is correlated: unlike
the smooth light it is an image's own. Found is what shares much of its noise or shows structure above it. A galaxy
observed twice, with all noise independent and no structure beyond a smooth profile, is not found; nor is one without
noise, as simulations have them, where smooth profiles are all alike.
"""

import numpy as np
from scipy.ndimage import uniform_filter
from scipy.spatial import cKDTree

from deepmerge.data.dataset import Dataset
from deepmerge.data.turns import transform
from deepmerge.progress import progress_bar

FREQUENCIES = 7  # the highest that are compared
DIMENSIONS = 16
NEIGHBOURS = 4
SHIFT = 3  # pixels
# Correlation from which on two images are one. Measured on the noisy demo sample and on 876 SDSS pictures: different
# galaxies have at most 0.30 and 0.25; copies that were turned, shifted and given half of the noise again at least 0.89
# and 0.77, all of the noise again 0.73 (SDSS).
ALIKE = 0.5
# Correlation of neighbouring pixels above which an image has no grain to know it by: 0.03 in the noisy sample, 0.5 in
# SDSS pictures, at least 0.68 in the pristine sample, where different galaxies reach 0.93.
SMOOTH = 0.65
_BATCH = 256


def describe(images: np.ndarray) -> np.ndarray:
    """Numbers of images (n, F, H, W) that neither turns and flips nor small shifts change much, (n, k) float32."""
    pixels = _square(images)
    sky = np.median(pixels, (2, 3), keepdims=True)
    stretched = np.arcsinh((pixels - sky) / (3 * _noise(pixels)))
    window = np.hanning(pixels.shape[-1] + 2)[1:-1]
    spectrum = np.fft.fft2(stretched * np.sqrt(np.outer(window, window)))
    near = np.arange(-FREQUENCIES, FREQUENCIES + 1)
    power = np.log(np.abs(spectrum[:, :, near[:, np.newaxis], near]) + 1e-3).reshape(*images.shape[:2], -1)
    # Sorted among the places that turns exchange; each stands twice, as the images are real.
    places = np.arange(len(near) ** 2).reshape(len(near), -1)
    turned = np.array([transform(places, code).ravel() for code in range(8)])
    orbits = [np.unique(turned[:, place]) for place in np.unique(turned.min(0))]
    parts = [np.sort(power[..., orbit], -1)[..., ::2].reshape(len(images), -1) for orbit in orbits]
    return np.concatenate(parts, 1).astype(np.float32)


def pairs(dataset: Dataset, described: np.ndarray, keys: np.ndarray) -> list[tuple[int, int, float]]:
    """Rows of different galaxies that show nearly the same, and their correlation, the most alike first.

    described (N, k): of `describe`; keys (N,): of `copies.keys`, by which the very same pixels are known already.
    """
    rows = np.flatnonzero((dataset.catalogue["copy"] == 0).to_numpy() & dataset.used & np.isfinite(described).all(1))
    if len(rows) < 3:
        return []
    points = _principal(described[rows])
    _, near = cKDTree(points).query(points, min(NEIGHBOURS + 1, len(rows)))
    one, other = np.repeat(rows, near.shape[1]), rows[near.ravel()]
    couples = np.unique(np.sort(np.stack([one, other], 1)), axis=0)
    galaxies = dataset.galaxies[couples]
    couples = couples[(galaxies[:, 0] != galaxies[:, 1]) & (keys[couples[:, 0]] != keys[couples[:, 1]])]
    found = np.empty(len(couples))
    with progress_bar("Comparing images that look alike", len(couples)) as advance:
        for start in range(0, len(couples), _BATCH):
            part = slice(start, start + _BATCH)
            found[part] = correlation(dataset.images[couples[part, 0]], dataset.images[couples[part, 1]])
            advance(len(couples[part]))
    order = [place for place in np.argsort(-found) if found[place] > ALIKE]
    return [(int(couples[place, 0]), int(couples[place, 1]), float(found[place])) for place in order]


def correlation(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Highest correlation of what is fine in images (n, F, H, W), over turns and shifts, (n,) from -1 to 1.

    -1 where one of the two is too smooth to tell.
    """
    first, second = _fine(one), _fine(other)
    smooth = np.maximum(_smoothness(first), _smoothness(second)) > SMOOTH
    fine = np.fft.rfft2(first)
    shifts = np.arange(-SHIFT, SHIFT + 1)
    best = np.full(len(one), -1.0)
    for code in range(8):
        turned = np.stack([transform(image, code) for image in second])
        products = np.fft.irfft2((fine * np.conj(np.fft.rfft2(turned))).sum(1), s=turned.shape[2:])
        best = np.maximum(best, products[:, shifts[:, np.newaxis], shifts].max((1, 2)))
    return np.where(smooth, -1, best)


def _smoothness(fine: np.ndarray) -> np.ndarray:
    return (fine[..., 1:] * fine[..., :-1]).sum((1, 2, 3))


def _fine(images: np.ndarray) -> np.ndarray:
    """What is left of images without their smooth light, in units of the noise and bounded, each of norm 1."""
    pixels = _square(images)
    fine = np.clip((pixels - uniform_filter(pixels, (0, 0, 7, 7), mode="reflect")) / _noise(pixels), -4, 4)
    fine -= fine.mean((2, 3), keepdims=True)
    return fine / np.maximum(np.sqrt((fine**2).sum((1, 2, 3), keepdims=True)), 1e-12)


def _square(images: np.ndarray) -> np.ndarray:
    """The middle of images as float32; oblong ones lose their ends."""
    side = min(images.shape[2:])
    top, left = ((length - side) // 2 for length in images.shape[2:])
    return np.asarray(images[:, :, top : top + side, left : left + side], np.float32)


def _noise(pixels: np.ndarray) -> np.ndarray:
    noise = 1.4826 / np.sqrt(2) * np.median(np.abs(np.diff(pixels, axis=3)), (2, 3), keepdims=True)
    return np.maximum(noise, 1e-3 * pixels.std((2, 3), keepdims=True) + np.finfo(np.float32).tiny)


def _principal(described: np.ndarray) -> np.ndarray:
    """The few directions in which images differ most, each weighed by the root of its spread."""
    centered = described - described.mean(0)
    some = centered[np.random.default_rng(0).permutation(len(centered))[:3000]]
    directions = np.linalg.svd(some, full_matrices=False)[2][:DIMENSIONS]
    found = centered @ directions.T
    return found / np.sqrt(np.maximum(found.std(0), 1e-9))
