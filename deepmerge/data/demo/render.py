"""From a mock scene to images: camera views, telescope blur, neighbours, sky noise and feature masks.

Images are (2, 75, 75): F814W and F160W, row = vertical, column = horizontal, the primary in the middle.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.special import erf

from deepmerge.data.demo.galaxy import PIVOT_LOG_MASS, Floats, draw_rotation, norm, rotate
from deepmerge.data.demo.light import FLUX_AT_PIVOT, FLUX_SLOPE
from deepmerge.data.demo.scene import Scene

FILTERS = ("F814W", "F160W")
# The release's frame: 75 pixels of 0.06 arcsec, at z = 2 (8.4 kpc/arcsec) 0.5 kpc each.
IMAGE_SIZE, PIXEL_KPC = 75, 0.5
VIEWS = 4
# Stars up to this many pixels outside still blur into the image.
_MARGIN = 8

# The blur of the telescope, (sigma in pixels, share of light) of two Gaussians in each filter. The core is as
# wide as Hubble's (FWHM 0.09 and 0.16 arcsec); 15 % of the light lies in wings 2.5 times as wide.
PSF = tuple(((core, 0.85), (2.5 * core, 0.15)) for core in (0.64, 1.13))
# Stars are few: each is smoothed (sigma, pixels) so that a disk looks like a disk and not like its particles.
STAR_SMOOTHING = 0.9
# Feature maps are smoothed more, to patches that a human would draw.
FEATURE_SMOOTHING = 1.4
# A pixel belongs to the mask if the features' light there is more than this share of their maximum
# and more than this share of the image.
MASK_OF_PEAK, MASK_OF_IMAGE = 0.06, 0.2

# Light between the galaxies, the same in all pixels of an image: log10 of its level and scatter (dex), each filter by
# itself. Without it a pristine frame is black, and how much of it is black gives mergers away.
FLOOR, FLOOR_SCATTER = -2.7, 0.4

# Noise as in the noisy release: sky (sigma in each filter) and photon noise (electrons for a unit of flux).
SKY_NOISE, GAIN = (0.40, 0.43), 20.0

# Unrelated galaxies in front or behind: how many views have one, where (pixels from the centre), log mass (a
# gamma variate above the lowest) and its scatter in flux (dex), half-light radius (pixels), axis ratio,
# colour (magnitudes).
NEIGHBOUR_CHANCE, NEIGHBOUR_DISTANCE = 0.30, (10.0, 34.0)
NEIGHBOUR_LOWEST_MASS, NEIGHBOUR_HIGHEST_MASS, NEIGHBOUR_MASS_SHAPE, NEIGHBOUR_MASS_SCALE = (
    9.2,
    11.3,
    1.5,
    0.45,
)
NEIGHBOUR_FLUX_SCATTER, NEIGHBOUR_RADIUS, NEIGHBOUR_AXIS_RATIO = 0.25, (1.5, 5.5), (0.25, 1.0)
NEIGHBOUR_COLOUR = (-0.2, 1.8)
# Their profile: three Gaussians, (width in half-light radii, share of light); about an exponential.
NEIGHBOUR_PROFILE = ((0.25, 0.2), (0.65, 0.4), (1.25, 0.4))
# Variance of a uniform distribution over a pixel: what sampling at pixel centres leaves out.
_PIXEL_VARIANCE = 1 / 12


class Views(NamedTuple):
    """Images of one galaxy from all camera angles."""

    pristine: NDArray[np.float32]
    """(VIEWS, 2, size, size) with the telescope's blur only"""
    noisy: NDArray[np.float32]
    """the same with sky and photon noise"""
    masks: NDArray[np.uint8]
    """(VIEWS, size, size) 1 where features of the merger are, 0 elsewhere"""


class Neighbour(NamedTuple):
    """An unrelated galaxy on the sky; lengths in pixels."""

    x: float
    y: float
    radius: float
    axis_ratio: float
    angle: float
    flux: tuple[float, float]


def render_views(rng: Generator, scene: Scene) -> Views:
    """Take all pictures of a scene. Only mergers have masks: nothing else is what a network should find."""
    pristine = np.empty((VIEWS, 2, IMAGE_SIZE, IMAGE_SIZE), np.float32)
    masks = np.zeros((VIEWS, IMAGE_SIZE, IMAGE_SIZE), np.uint8)
    for view, camera in enumerate(draw_cameras(rng)):
        floor = 10 ** (FLOOR + FLOOR_SCATTER * rng.standard_normal((2, 1, 1)))
        pristine[view] = render(scene, camera, draw_neighbour(rng)) + floor
        if scene.truth.stage != "non-merger":
            masks[view] = outline(render_features(scene, camera), pristine[view, 1])
    return Views(pristine, add_noise(rng, pristine), masks)


def draw_cameras(rng: Generator) -> Floats:
    """(VIEWS, 2, 3) axes to the right and up of cameras at the corners of a tetrahedron turned at random.

    The released images were taken from the corners of a tetrahedron, too.
    """
    rotation = draw_rotation(rng)
    cameras = []
    for towards in np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / math.sqrt(3):
        right = np.cross([0.0, 0.0, 1.0], towards)
        right /= norm(right)
        cameras.append(rotate(rotation, np.stack([right, np.cross(towards, right)], axis=1)).T)
    return np.stack(cameras)


def render(scene: Scene, camera: Floats, neighbour: Neighbour | None = None) -> Floats:
    """The image (2, size, size) that a camera (2, 3) takes, without noise."""
    stars, blobs = scene.stars, scene.blobs
    grids = paint_points(rotate(camera, stars.position) / PIXEL_KPC, stars.flux)
    places, widths = rotate(camera, blobs.position) / PIXEL_KPC, blobs.width / PIXEL_KPC
    image = np.zeros((2, IMAGE_SIZE, IMAGE_SIZE))
    for band, gaussians in enumerate(PSF):
        for sigma, share in gaussians:
            image[band] += share * blur(grids[band], math.hypot(sigma, STAR_SMOOTHING))
            image[band] += paint_gaussians(places, np.hypot(widths, sigma), share * blobs.flux[band])
            if neighbour is not None:
                image[band] += share * paint_neighbour(neighbour, sigma, band)
    return image


def render_features(scene: Scene, camera: Floats) -> Floats:
    """F160W light (size, size) of the merger's features alone."""
    stars, blobs = scene.stars, scene.blobs
    places = rotate(camera, stars.position[:, stars.feature]) / PIXEL_KPC
    light = blur(paint_points(places, stars.flux[1:, stars.feature])[0], FEATURE_SMOOTHING)
    places = rotate(camera, blobs.position[:, blobs.feature]) / PIXEL_KPC
    widths = np.hypot(blobs.width[blobs.feature] / PIXEL_KPC, FEATURE_SMOOTHING)
    return light + paint_gaussians(places, widths, blobs.flux[1, blobs.feature])


def outline(features: Floats, image: NDArray) -> NDArray[np.bool_]:
    """Mask (size, size) of where the features can be seen in the image (size, size)."""
    return (features > MASK_OF_PEAK * features.max()) & (features > MASK_OF_IMAGE * image)


def add_noise(rng: Generator, pristine: NDArray[np.float32]) -> NDArray[np.float32]:
    """Images (..., 2, size, size) with Gaussian sky and photon noise."""
    sky = np.array(SKY_NOISE, np.float32)[:, None, None]
    sigma = np.sqrt(sky * sky + np.maximum(pristine, 0) / GAIN)
    noise = sigma * rng.standard_normal(pristine.shape, dtype=np.float32)
    return (pristine + noise).astype(np.float32, copy=False)


def paint_points(places: Floats, flux: Floats) -> Floats:
    """Spread points at (2, n) pixels from the centre over their four nearest pixels.

    Returns one (size, size) grid for each row of `flux` (k, n), with a margin of _MARGIN pixels on every
    side for `blur` to cut off.
    """
    size = IMAGE_SIZE + 2 * _MARGIN
    x, y = places + (size - 1) / 2
    left, low = np.floor(x), np.floor(y)
    inside = (left >= 0) & (low >= 0) & (left < size - 1) & (low < size - 1)
    x, y, left, low = x[inside], y[inside], left[inside], low[inside]
    right_share, up_share = x - left, y - low
    corner = (low * size + left).astype(int)
    pixels = np.concatenate([corner, corner + 1, corner + size, corner + size + 1])
    shares = np.stack(
        [
            (1 - right_share) * (1 - up_share),
            right_share * (1 - up_share),
            (1 - right_share) * up_share,
            right_share * up_share,
        ]
    )
    grids = [np.bincount(pixels, (shares * row[inside]).ravel(), size * size) for row in flux]
    return np.array(grids, dtype=float).reshape(-1, size, size)


def blur(grid: Floats, sigma: float) -> Floats:
    """Convolve a grid with a Gaussian (sigma in pixels) and cut its margin off."""
    inner = slice(_MARGIN, _MARGIN + IMAGE_SIZE)
    return gaussian_filter(grid, sigma, mode="constant")[inner, inner]


def paint_gaussians(places: Floats, sigma: Floats, flux: Floats) -> Floats:
    """Round Gaussians at (2, n) pixels from the centre, integrated over pixels: (size, size)."""
    edges = np.arange(IMAGE_SIZE + 1) - IMAGE_SIZE / 2
    steps = erf((edges - places[:, :, None]) / (math.sqrt(2) * sigma)[:, None])
    across, up = np.diff(steps, axis=-1) / 2
    # Without `optimize` einsum adds term by term and leaves BLAS alone (see galaxy).
    return np.einsum("ny,nx->yx", up * flux[:, None], across, optimize=False)


def draw_neighbour(rng: Generator) -> Neighbour | None:
    """An unrelated galaxy, or none."""
    if rng.random() >= NEIGHBOUR_CHANCE:
        return None
    distance, direction = rng.uniform(*NEIGHBOUR_DISTANCE), rng.uniform(0, 2 * math.pi)
    log_mass = NEIGHBOUR_LOWEST_MASS + rng.gamma(NEIGHBOUR_MASS_SHAPE, NEIGHBOUR_MASS_SCALE)
    excess = min(log_mass, NEIGHBOUR_HIGHEST_MASS) - PIVOT_LOG_MASS
    f160w = FLUX_AT_PIVOT * 10 ** (FLUX_SLOPE * excess + NEIGHBOUR_FLUX_SCATTER * rng.standard_normal())
    radius, axis_ratio = rng.uniform(*NEIGHBOUR_RADIUS), rng.uniform(*NEIGHBOUR_AXIS_RATIO)
    angle, colour = rng.uniform(0, math.pi), rng.uniform(*NEIGHBOUR_COLOUR)
    return Neighbour(
        distance * math.cos(direction),
        distance * math.sin(direction),
        radius,
        axis_ratio,
        angle,
        (f160w * 10 ** (-0.4 * colour), f160w),
    )


def paint_neighbour(neighbour: Neighbour, sigma: float, band: int) -> Floats:
    """An elliptical galaxy blurred by a Gaussian (sigma in pixels): (size, size)."""
    axis = np.arange(IMAGE_SIZE) - (IMAGE_SIZE - 1) / 2
    dx, dy = axis - neighbour.x, (axis - neighbour.y)[:, None]
    cos, sin = math.cos(neighbour.angle), math.sin(neighbour.angle)
    major, minor = (cos * dx + sin * dy) ** 2, (cos * dy - sin * dx) ** 2
    blurring = sigma * sigma + _PIXEL_VARIANCE
    image = np.zeros((IMAGE_SIZE, IMAGE_SIZE))
    for width, share in NEIGHBOUR_PROFILE:
        a = (width * neighbour.radius) ** 2 + blurring
        b = (width * neighbour.radius * neighbour.axis_ratio) ** 2 + blurring
        image += share / (2 * math.pi * math.sqrt(a * b)) * np.exp(-0.5 * (major / a + minor / b))
    return image * neighbour.flux[band]
