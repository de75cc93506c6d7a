"""Everything that shines in and around one mock galaxy, in three dimensions, and its true properties."""

import math
from collections.abc import Collection
from typing import Literal, NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from deepmerge.data.demo import Ingredient
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
    QUIET,
    Activity,
    Light,
    Sources,
    disk_flux,
    draw_activity,
    draw_clumps,
    draw_halo,
    draw_light,
    draw_outskirts,
    draw_satellites,
    join,
    light_centre,
    points,
)
from deepmerge.data.demo.orbits import Encounter, Orbit, draw_orbit, follow_stars

Stage = Literal["past", "future", "non-merger"]

# Non-mergers with an encounter that came too early or too late to count, and how many of these are early: without
# these a network would only have to find any companion, tail or stirred disk (calibrated; most galaxies at z = 2 have
# merged with a tenth of their mass or more within the gigayear before).
CONFUSER_SHARE, EARLY_SHARE = 0.65, 0.2

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


def draw_scene(rng: Generator, stage: Stage, without: Collection[Ingredient] = ()) -> Scene:
    """A random galaxy of the given stage.

    without: ingredients of the encounter to leave out; all else stays the same. A companion that is left out leaves its
    light to the primary, so that the whole keeps its own. With all of them left out no stage differs from another.
    """
    galaxy = draw_galaxy(rng, draw_log_mass(rng))
    light = draw_light(rng, galaxy.log_mass)
    disk = draw_tilted_disk(rng, DISK_STARS, galaxy)
    # Numbers of their own: how many are drawn here hangs on the stage and on where stars are, and nothing else should.
    of_kind, of_encounter, of_clumps = rng.spawn(3)
    primary, position, displaced, activity = light, disk.position, np.zeros(DISK_STARS, bool), QUIET
    stars: list[Sources] = []
    blobs: list[Sources] = []
    mass_ratio = remaining = separation = math.nan
    encounter = draw_encounter(of_kind, stage)
    if encounter != "none":
        orbit = draw_orbit(of_encounter, galaxy, encounter)
        mass_ratio, remaining, centre = orbit.mass_ratio, orbit.time_to_coalescence, orbit.path[-1]
        separation = float(norm(centre))
        companion_disk = draw_tilted_disk(of_encounter, _count_companion_stars(mass_ratio), orbit.companion)
        moved, companion_position = follow_stars(galaxy, disk, companion_disk, orbit)
        companion = _draw_companion_light(of_encounter, light, mass_ratio)
        activity = _left(draw_activity(of_encounter, remaining), without)
        if "tides" not in without:
            position, displaced = moved, _find_displaced(disk.position, moved, galaxy.scale_length)
        if "companion" not in without:
            primary, companion = _share_out(light, companion)
            foreign = _find_foreign(orbit, companion_position, galaxy.scale_length)
            stars += [points(companion_position, disk_flux(companion)[:, None] * companion_disk.weight, foreign)]
            resolved = separation > RESOLVED_SEPARATION
            blobs += [light_centre(centre, orbit.companion, companion, activity, feature=resolved)]
    weight = disk.weight * (1 + activity.tides[:, None] * displaced)
    weight /= weight.sum(axis=1, keepdims=True)
    clump_share, clumps = draw_clumps(of_clumps, galaxy, primary, position)
    flux = disk_flux(primary) * (1 - clump_share)
    stars += [points(position, flux[:, None] * weight, displaced), draw_halo(rng, galaxy, light)]
    blobs += [light_centre(np.zeros(3), galaxy, primary, activity, feature=False), clumps]
    blobs += [draw_satellites(rng, light), draw_outskirts(rng, light)]
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
    return "early" if rng.random() < EARLY_SHARE else "old"


def _left(activity: Activity, without: Collection[Ingredient]) -> Activity:
    """The activity without its ingredients that are left out."""
    nucleus = QUIET.nucleus if "nuclei" in without else activity.nucleus
    return Activity(nucleus, QUIET.tides if "young stars" in without else activity.tides)


def _share_out(primary: Light, companion: Light) -> tuple[Light, Light]:
    """Both dimmed so that together they are as bright as the primary was drawn: its mass is that of the whole."""
    share = primary.flux / (primary.flux + companion.flux)
    return primary._replace(flux=primary.flux * share), companion._replace(flux=companion.flux * share)


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
