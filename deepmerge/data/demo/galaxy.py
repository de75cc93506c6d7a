"""One mock galaxy at z ≈ 2: its mass, its size, its potential and a disk of test particles.

Units in all modules of the simulator: kpc, Gyr, km/s; `gm` in kpc (km/s)². Vectors are (3, n), one row a coordinate.
Products of vectors are written out as sums, never as matrix products: the last bit of a BLAS product depends
on the processor, and orbits would amplify it into different images for the same seed.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# log10(stellar mass / solar mass) of the released sample at these quantiles.
MASS_QUANTILES = (0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1)
MASS_VALUES = (9.81, 9.87, 9.90, 10.04, 10.24, 10.51, 11.01, 11.34, 11.88)
# Scaling relations are written about the median mass of the sample.
PIVOT_LOG_MASS = 10.25

# Half-light radius: the slope and scatter (dex) of star-forming galaxies at z ≈ 2 (van der Wel et al. 2014).
RADIUS_AT_PIVOT, RADIUS_SLOPE, RADIUS_SCATTER = 2.9, 0.22, 0.19
# An exponential disk holds half its light within 1.68 scale lengths.
HALF_LIGHT_LENGTHS = 1.68
# Peak circular speed: a stellar-mass Tully-Fisher relation.
SPEED_AT_PIVOT, SPEED_SLOPE = 190.0, 0.27
# Size of the Hernquist potential in disk scale lengths: a nearly flat rotation curve where the stars are.
POTENTIAL_LENGTHS = 5.0

# The disk: cut off, thickness (both in scale lengths) and velocity dispersion (in circular speeds);
# thick and warm, as disks at z ≈ 2 are.
DISK_EDGE, DISK_THICKNESS, DISK_DISPERSION = 6.0, 0.18, 0.12
# Two-armed spiral: largest contrast and range of winding. Weak, since strong arms would look like tails.
SPIRAL_CONTRAST, SPIRAL_WINDING = 0.8, (1.5, 4.0)
# Scatter of the lopsidedness, which grows up to two scale lengths; every third real disk is lopsided.
LOPSIDEDNESS = 0.35


class Galaxy(NamedTuple):
    """What the motion of stars in and around a galaxy depends on."""

    log_mass: float
    """log10 of the stellar mass in solar masses"""
    scale_length: float
    """of the stellar disk, kpc"""
    core: float
    """scale radius of the Hernquist potential, kpc"""
    gm: float
    """gravitational constant × total mass, kpc (km/s)²"""


class Disk(NamedTuple):
    """Test particles of a disk around the origin."""

    position: Floats
    """(3, n) kpc"""
    velocity: Floats
    """(3, n) km/s"""
    weight: Floats
    """(n,) share of the disk's light, sums to 1"""


def norm(vectors: Floats) -> Floats:
    """Lengths of (3, ...) vectors."""
    return np.sqrt(vectors[0] * vectors[0] + vectors[1] * vectors[1] + vectors[2] * vectors[2])


def rotate(rotation: Floats, vectors: Floats) -> Floats:
    """Turn (3, n) vectors by a (k, 3) matrix: (k, n)."""
    return rotation[:, 0:1] * vectors[0] + rotation[:, 1:2] * vectors[1] + rotation[:, 2:3] * vectors[2]


def draw_rotation(rng: Generator) -> Floats:
    """A (3, 3) rotation, every orientation equally likely (a random unit quaternion)."""
    quaternion = rng.standard_normal(4)
    w, x, y, z = (float(c) for c in quaternion / np.sqrt((quaternion * quaternion).sum()))
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def draw_log_mass(rng: Generator) -> float:
    """A stellar mass distributed as in the released sample, log10 of solar masses."""
    return float(np.interp(rng.random(), MASS_QUANTILES, MASS_VALUES))


def draw_galaxy(rng: Generator, log_mass: float) -> Galaxy:
    """A galaxy of the given mass; its size scatters, its potential follows from size and mass."""
    excess = log_mass - PIVOT_LOG_MASS
    half_light = RADIUS_AT_PIVOT * 10 ** (RADIUS_SLOPE * excess + RADIUS_SCATTER * rng.standard_normal())
    scale_length = half_light / HALF_LIGHT_LENGTHS
    core = POTENTIAL_LENGTHS * scale_length
    peak_speed = SPEED_AT_PIVOT * 10 ** (SPEED_SLOPE * excess)
    # The circular speed of a Hernquist potential peaks at its core radius with v² = GM / 4a.
    return Galaxy(log_mass, scale_length, core, 4 * core * peak_speed * peak_speed)


def circular_speed(galaxy: Galaxy, radius: Floats) -> Floats:
    """Speed of circular orbits, km/s: v² = GM r / (r + a)² (Hernquist 1990)."""
    return np.sqrt(galaxy.gm * radius) / (radius + galaxy.core)


def draw_disk(rng: Generator, particles: int, galaxy: Galaxy) -> Disk:
    """A rotating exponential disk in the x-y plane with weak spiral arms and some lopsidedness."""
    length = galaxy.scale_length
    # R exp(-R/h) is the gamma distribution of shape 2.
    radius = np.minimum(rng.gamma(2.0, length, particles), DISK_EDGE * length)
    angle = rng.uniform(0, 2 * math.pi, particles)
    height = DISK_THICKNESS * length * rng.standard_normal(particles)
    cos, sin = np.cos(angle), np.sin(angle)
    position = np.stack([radius * cos, radius * sin, height])
    speed = circular_speed(galaxy, norm(position))
    velocity = np.stack([-speed * sin, speed * cos, np.zeros(particles)])
    velocity += DISK_DISPERSION * speed * rng.standard_normal((3, particles))
    return Disk(position, velocity, _draw_weights(rng, radius / length, angle))


def _draw_weights(rng: Generator, radius: Floats, angle: Floats) -> Floats:
    """Light of each particle, (n,), from spiral arms and lopsidedness; radius in scale lengths."""
    contrast, winding = rng.uniform(0, SPIRAL_CONTRAST), rng.uniform(*SPIRAL_WINDING)
    # The 0.1 keeps the logarithm finite in the centre.
    phase = 2 * angle - winding * np.log(radius + 0.1) + rng.uniform(0, 2 * math.pi)
    arms = 1 + contrast * np.cos(phase)
    lean = LOPSIDEDNESS * abs(rng.standard_normal())
    one_sided = 1 + lean * np.cos(angle - rng.uniform(0, 2 * math.pi)) * np.minimum(radius / 2, 1)
    # A strong lean must not make light negative.
    weight = arms * np.maximum(one_sided, 0.05)
    return weight / weight.sum()
