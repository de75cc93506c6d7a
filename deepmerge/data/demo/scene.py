"""Everything that shines in and around one mock galaxy, in three dimensions, and its true properties."""

import math
from typing import Literal, NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from deepmerge.data.demo.galaxy import (
    Disk,
    Floats,
    Galaxy,
    draw_disk,
    draw_galaxy,
    draw_log_mass,
    draw_rotation,
    norm,
    rotate,
)
from deepmerge.data.demo.light import (
    Light,
    Sources,
    disk_flux,
    draw_clumps,
    draw_halo,
    draw_light,
    draw_satellites,
    join,
    light_centre,
    points,
)
from deepmerge.data.demo.orbits import Encounter, Orbit, draw_orbit, follow_stars

Stage = Literal["past", "future", "non-merger"]

# Non-mergers with an encounter that came too early or too late to count: without these a network would only
# have to find any companion or tail (calibrated).
CONFUSER_SHARE = 0.36

# Test particles of the primary's disk; a companion has √q of them, within these limits.
DISK_STARS, COMPANION_STARS = 1400, (150, 1120)
# The companion's flux is q^0.9 of the primary's with scatter in dex, its colour differs by a scatter in
# magnitudes, its nucleus by a scatter in dex (F814W, F160W).
COMPANION_FLUX_POWER, COMPANION_FLUX_SCATTER, COMPANION_COLOUR_SCATTER = 0.9, 0.15, 0.25
COMPANION_NUCLEUS_SCATTER = (0.3, 0.2)

# Stars of the primary count as displaced when they are 1.8 times further out than before and outside the
# bright part of its disk; stars of a coalesced companion when they are (in the primary's scale lengths).
DISPLACED_FACTOR, DISPLACED_RADIUS, FOREIGN_RADIUS = 1.8, 2.5, 2.0
# A companion's nucleus is a feature of its own from this separation, some two pixels.
RESOLVED_SEPARATION = 1.2


class Truth(NamedTuple):
    """A galaxy's columns of the catalogue; NaN where there is no encounter."""

    stage: Stage
    encounter: Encounter | Literal["none"]
    log_mstar: float
    mass_ratio: float
    time_to_coalescence_gyr: float
    separation_kpc: float


class Scene(NamedTuple):
    """One galaxy with all its surroundings."""

    stars: Sources
    blobs: Sources
    truth: Truth


def draw_scene(rng: Generator, stage: Stage) -> Scene:
    """A random galaxy of the given stage."""
    galaxy = draw_galaxy(rng, draw_log_mass(rng))
    encounter = draw_encounter(rng, stage)
    light = draw_light(rng, galaxy.log_mass, is_merger=stage != "non-merger")
    disk = draw_tilted_disk(rng, DISK_STARS, galaxy)
    position, displaced = disk.position, np.zeros(DISK_STARS, bool)
    stars: list[Sources] = []
    blobs: list[Sources] = []
    mass_ratio = remaining = separation = math.nan
    if encounter != "none":
        orbit = draw_orbit(rng, galaxy, encounter)
        mass_ratio, remaining = orbit.mass_ratio, orbit.time_to_coalescence
        separation = float(norm(orbit.path[-1]))
        companion_disk = draw_tilted_disk(rng, _count_companion_stars(mass_ratio), orbit.companion)
        position, companion_position = follow_stars(galaxy, disk, companion_disk, orbit)
        displaced = _find_displaced(disk.position, position, galaxy.scale_length)
        other_light = _draw_companion_light(rng, light, mass_ratio)
        foreign = _find_foreign(orbit, companion_position, galaxy.scale_length)
        stars += [points(companion_position, disk_flux(other_light)[:, None] * companion_disk.weight, foreign)]
        resolved = separation > RESOLVED_SEPARATION
        blobs += [light_centre(orbit.path[-1], orbit.companion, other_light, feature=resolved)]
    clump_share, clumps = draw_clumps(rng, galaxy, light, position)
    flux = disk_flux(light) * (1 - clump_share)
    stars += [points(position, flux[:, None] * disk.weight, displaced)]
    blobs += [clumps, draw_satellites(rng, light), light_centre(np.zeros(3), galaxy, light, feature=False)]
    stars += [draw_halo(rng, galaxy, light)]
    truth = Truth(stage, encounter, galaxy.log_mass, mass_ratio, remaining, separation)
    return Scene(join(stars), join(blobs), truth)


def draw_tilted_disk(rng: Generator, particles: int, galaxy: Galaxy) -> Disk:
    """A disk in a random orientation."""
    disk, rotation = draw_disk(rng, particles, galaxy), draw_rotation(rng)
    return Disk(rotate(rotation, disk.position), rotate(rotation, disk.velocity), disk.weight)


def draw_encounter(rng: Generator, stage: Stage) -> Encounter | Literal["none"]:
    """The kind of encounter behind a stage; some non-mergers have had one too early or too late."""
    if stage != "non-merger":
        return stage
    if rng.random() >= CONFUSER_SHARE:
        return "none"
    return "early" if rng.random() < 0.5 else "old"


def _count_companion_stars(mass_ratio: float) -> int:
    fewest, most = COMPANION_STARS
    return min(max(int(DISK_STARS * math.sqrt(mass_ratio)), fewest), most)


def _find_displaced(before: Floats, after: Floats, scale_length: float) -> NDArray[np.bool_]:
    """(n,) which stars of the primary the tides have thrown out."""
    radius = norm(after)
    return (radius > DISPLACED_FACTOR * norm(before)) & (radius > DISPLACED_RADIUS * scale_length)


def _draw_companion_light(rng: Generator, primary: Light, mass_ratio: float) -> Light:
    """How bright a companion is: fainter by its mass, otherwise much like the primary."""
    log_flux = COMPANION_FLUX_SCATTER * rng.standard_normal()
    colour = COMPANION_COLOUR_SCATTER * rng.standard_normal()
    flux = primary.flux * mass_ratio**COMPANION_FLUX_POWER * 10**log_flux
    flux *= np.array([10 ** (-0.4 * colour), 1.0])
    log_nucleus = np.array(COMPANION_NUCLEUS_SCATTER) * rng.standard_normal(2)
    return Light(flux, primary.bulge, primary.nucleus * 10**log_nucleus)


def _find_foreign(orbit: Orbit, position: Floats, scale_length: float) -> NDArray[np.bool_]:
    """(n,) which stars of the companion are features: all before coalescence, the outer ones after it."""
    if orbit.time_to_coalescence > 0:
        return np.ones(position.shape[1], bool)
    return norm(position) > FOREIGN_RADIUS * scale_length
