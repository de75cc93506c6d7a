"""What a telescope and the sky do to images: a blur and noise, to add to images that lack them, and how much to add.

All in the images' own, linear units, before any stretch. The noise is that of a detector under a background: a pixel x
scatters with the variance σ² + max(x, 0) / gain, where the gain is in counts per unit (Poisson noise of the light).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from deepmerge import config
from deepmerge.config import Missing
from deepmerge.data.dataset import Dataset
from deepmerge.data.missing import found, undefined
from deepmerge.errors import InputError

MAD = 1.4826  # times the median absolute deviation is the standard deviation of normal numbers
# The variance of a pixel less the mean of its four neighbours is that of a pixel times this, where the noise is white.
AGAINST_NEIGHBOURS = 1.25
STEP = 2.0  # each bin of brightness begins at so many times the last one's beginning
FEWEST = 500  # pixels of a bin: its noise is known to 5 %
STRUCTURE = 0.1  # share of the source's own roughness by which that of the target may differ: other galaxies
TIMES = 4  # from the second on the estimate moves by less than its error

Rough = tuple[np.ndarray, np.ndarray]  # brightness and roughness of pixels, each (k,)


class Noise(NamedTuple):
    """σ in the images' units and gain in counts per unit, each (F,); an infinite gain is none of that noise."""

    sigma: np.ndarray
    gain: np.ndarray


def add(images: np.ndarray, noise: Noise, draws: Sequence[np.random.Generator]) -> np.ndarray:
    """Images (n, H, W, F) with noise, float32; image i takes its random numbers from `draws[i]` alone."""
    sigma, root = (np.asarray(each, np.float32) for each in (noise.sigma, np.sqrt(noise.gain)))
    # By roots, since the square of a faint unit (1e-30) is no float32.
    spread = np.hypot(sigma, np.sqrt(np.maximum(images, 0, dtype=np.float32)) / root)
    for number, draw in enumerate(draws):
        spread[number] *= draw.standard_normal(images.shape[1:], np.float32)
    return images + spread


def blur(images: np.ndarray, sigma: np.ndarray, missing: Missing | None = None) -> np.ndarray:
    """Images (n, H, W, F) seen with a Gaussian PSF of standard deviation `sigma` (F,) in pixels, float32.

    The edge pixel stands for what lies outside. A pixel that is missing lends nothing to its neighbours, which are
    averaged over the others, and stays what it was.
    """
    from scipy.ndimage import gaussian_filter

    gaps = found(images, missing) | np.isnan(images)
    blurred = np.empty(images.shape, np.float32)
    for number, width in enumerate(np.asarray(sigma, float).tolist()):
        plane, gap = images[..., number].astype(np.float32), gaps[..., number]

        def seen(light: np.ndarray, width: float = width) -> np.ndarray:
            return gaussian_filter(light, (0, width, width), mode="nearest")

        if not gap.any():
            blurred[..., number] = seen(plane)
            continue
        share = seen((~gap).astype(np.float32))
        light = seen(np.where(gap, np.float32(0), plane))
        blurred[..., number] = np.divide(light, share, out=plane.copy(), where=~gap & (share > 0))
    return blurred


@dataclass(frozen=True)
class Degradation:
    """The blur and the noise that training images get; each (F,), or None for none of it."""

    psf: np.ndarray | None
    noise: Noise | None
    missing: Missing | None = None

    @classmethod
    def of(cls, training: config.Training, data: Dataset) -> "Degradation | None":
        """What settings add to images of `data`; None for nothing.

        Raises InputError for numbers of another number of filters, ValueError for noise that was not measured yet.
        """
        if training.psf is None and training.noise is None:
            return None
        filters = data.images.shape[1]
        noise = None
        if training.noise is not None:
            if training.noise.sigma is None:
                raise ValueError(f"the noise like {training.noise.like} should be measured before the training")
            gains = tuple(np.inf if gain is None else gain for gain in training.noise.gain or (None,))
            noise = Noise(
                _of_each("training.noise.sigma", training.noise.sigma, filters),
                _of_each("training.noise.gain", gains, filters),
            )
        psf = None if training.psf is None else _of_each("training.psf", training.psf, filters)
        return cls(psf, noise, data.missing)

    def __call__(self, images: np.ndarray, draws: Sequence[np.random.Generator]) -> np.ndarray:
        """Images (n, H, W, F), blurred, then with noise, float32; pixels that are missing stay as they are."""
        seen = images if self.psf is None else blur(images, self.psf, self.missing)
        noised = seen if self.noise is None else add(seen, self.noise, draws)
        gaps = found(images, self.missing)
        return np.where(gaps, images, noised) if gaps.any() else noised

    def once(self, images: np.ndarray, rows: np.ndarray, seed: int) -> np.ndarray:
        """The same for images (n, H, W, F) of these rows, always with the random numbers of seed and row."""
        return self(images, draws(seed, rows))


def _of_each(name: str, values: tuple[float, ...], filters: int) -> np.ndarray:
    """A number for each filter, (F,), of one for all of them or of as many."""
    if len(values) not in (1, filters):
        raise InputError(
            f"{name} should be a number, or {filters} of them, one for each filter of the images, got {len(values)}"
        )
    return np.broadcast_to(np.array(values, float), filters)


def draws(seed: int | Sequence[int], numbers: np.ndarray) -> list[np.random.Generator]:
    """A stream of random numbers for each of `numbers` (n,), which depends on it and on the seed alone."""
    return [np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(number,))) for number in numbers.tolist()]


def measure(source: np.ndarray, target: np.ndarray, missing: tuple[Missing | None, Missing | None]) -> Noise:
    """The noise that images of the source lack, to have as much as those of the target; no label is asked.

    source, target: images (n, H, W, F) in the same units, of the same galaxies or of others of their kind, float; the
    number of images may differ; missing: what stands for missing pixels in either.

    In bins of brightness, the mean of a pixel and its four neighbours, the variance of the pixel less the mean of the
    neighbours is measured, robustly (MAD), since galaxies nearly cancel there and white noise does not; it is
    independent of the brightness where the noise is the same in all five. What the target has above the source is a
    line in the brightness, σ² + brightness / gain, fitted by least squares without negative coefficients (Lawson &
    Hanson 1974, ch. 23). As medians of structure and noise do not add up, noise of that line is added to the source,
    and what is still lacking is measured again, TIMES over. Noise that neighbouring pixels share (resampled images) is
    underestimated. Raises InputError where a filter of the target is no noisier than the source.
    """
    sigma, gain = np.zeros(source.shape[-1]), np.zeros(source.shape[-1])
    for number in range(len(sigma)):
        ours, theirs = (
            undefined(images[..., number : number + 1], gaps).astype(np.float32)
            for images, gaps in zip((source, target), missing, strict=True)
        )
        line, wanted = np.zeros(2), _roughness(theirs)
        for time in range(TIMES):
            with np.errstate(divide="ignore"):
                so_far = Noise(np.sqrt(line[:1]), 1 / line[1:])
            noised = add(ours, so_far, draws(time, np.arange(len(ours)))) if time else ours
            line = _line(_roughness(ours), _roughness(noised), wanted, line)
            if not line.any():
                raise InputError(
                    "target images should be noisier than those to train on, got no more noise in filter "
                    f"{number + 1}; leave training.noise out, or let noise.like name noisier images"
                )
        sigma[number], gain[number] = np.sqrt(line[0]), 1 / line[1] if line[1] else np.inf
    return Noise(sigma, gain)


def _roughness(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Brightness of the inner pixels (n, H, W, 1), the mean of five, and each less the mean of its neighbours; (k,)."""
    inner = pixels[:, 1:-1, 1:-1].astype(np.float64)
    around = (pixels[:, :-2, 1:-1] + pixels[:, 2:, 1:-1] + pixels[:, 1:-1, :-2] + pixels[:, 1:-1, 2:]) / 4
    known = np.isfinite(inner) & np.isfinite(around)
    inner, around = inner[known], around[known].astype(np.float64)
    return (inner + 4 * around) / 5, inner - around


def _line(clean: Rough, noised: Rough, wanted: Rough, line: np.ndarray) -> np.ndarray:
    """Constant and slope (2,), neither negative, of the variance that the wanted roughness has above the clean one.

    noised: with the noise of `line`, which lacks only the rest. Both are 0 where there are too few pixels to tell.
    """
    from scipy.optimize import nnls

    rough = np.abs(wanted[1][wanted[1] != 0])  # images that are mostly masked with 0 have a median of 0
    if not len(rough):
        return np.zeros(2)
    ends = [-np.inf, MAD * float(np.median(rough))]  # all of the sky in one bin: it is bright by its noise alone
    while ends[-1] < wanted[0].max():
        ends.append(ends[-1] * STEP)
    rows, values = [], []
    for low, high in pairwise(ends):
        bins = [_in_bin(each, low, high) for each in (clean, noised, wanted)]
        if min(len(rough) for _, rough in bins) < FEWEST:
            continue
        structure, so_far, most = (_variance(rough) for _, rough in bins)
        brightness = max(float(bins[2][0].mean()), 0.0)
        # A variance by MAD of k normal numbers scatters by 2.3 / √k of itself.
        error = np.sqrt(5.4 * (most**2 / len(bins[2][1]) + so_far**2 / len(bins[1][1])) + (STRUCTURE * structure) ** 2)
        rows.append(np.array([1.0, brightness]) / error)
        values.append((most - so_far + line @ [1.0, brightness]) / error)
    if not rows:
        return np.zeros(2)
    design = np.array(rows)
    scale = design.max(axis=0)
    scale[scale == 0] = 1
    return nnls(design / scale, np.array(values))[0] / scale


def _in_bin(rough: Rough, low: float, high: float) -> Rough:
    inside = (rough[0] >= low) & (rough[0] < high)
    return rough[0][inside], rough[1][inside]


def _variance(rough: np.ndarray) -> float:
    return float(MAD * np.median(np.abs(rough))) ** 2 / AGAINST_NEIGHBOURS
