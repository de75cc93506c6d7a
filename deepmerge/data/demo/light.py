"""The parts of a mock galaxy that shine, and what surrounds it: clumps, satellites, halo.

Stars are points, everything else is a blob: a round Gaussian. Both filters are always given as rows: F814W
(rest-frame ultraviolet at z ≈ 2, shows young stars) and F160W (optical, shows most stars).
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from deepmerge.data.demo.galaxy import PIVOT_LOG_MASS, Floats, Galaxy, draw_rotation, norm, rotate

# F160W flux in the release's unit, matched to its pixel statistics, and colour F814W - F160W (magnitudes):
# heavier galaxies are brighter and redder.
FLUX_AT_PIVOT, FLUX_SLOPE, FLUX_SCATTER = 205.0, 0.70, 0.22
COLOUR_AT_PIVOT, COLOUR_SLOPE, COLOUR_SCATTER = 0.75, 0.50, 0.35
# Share of the bulge in F160W; bulges are old, so they have half that share in F814W.
BULGE_AT_PIVOT, BULGE_SLOPE, BULGE_SCATTER, BULGE_RANGE = 0.25, 0.20, 0.10, (0.05, 0.65)
BULGE_IN_F814W = 0.5
# Bulge as three Gaussians (share of its light, width in units of h / 1.7): about a de Vaucouleurs profile.
BULGE_SHARES, BULGE_WIDTHS = (0.25, 0.35, 0.40), (0.18, 0.45, 1.10)
BULGE_UNIT = 1.7
# Unresolved nucleus: light over that of the galaxy (F814W, F160W), and its scatter in dex. The wide scatter
# gives the heavy tail of the release's pixels.
NUCLEUS_SHARE, NUCLEUS_SCATTER, NUCLEUS_WIDTH = (0.25, 0.09), (0.50, 0.45), 0.12
# Encounters feed nuclei and make stars in tides. Both follow the clock, whatever the label: they peak at coalescence
# and fade as a Gaussian in time (Gyr), with a scatter from one encounter to the next (dex). What nuclei gain then, over
# their own light, and what displaced stars gain: they are young, so F814W gains twice as much as F160W.
ACTIVITY_TIME, ACTIVITY_SCATTER = 0.25, 0.25
NUCLEUS_GAIN, TIDAL_STARS = 1.2, (9.0, 4.5)
# Faint round envelope, over the galaxy's light; width in scale lengths.
ENVELOPE_SHARE, ENVELOPE_WIDTH = (0.04, 0.08), 4.0

# Star-forming clumps: mean number, share of the disk's F814W light (a third of that in F160W), width, and
# how far out they lie at most (scale lengths).
CLUMP_NUMBER, CLUMP_SHARE, CLUMP_IN_F160W, CLUMP_WIDTH, CLUMP_REACH = 6, (0.05, 0.35), 1 / 3, 0.35, 4.0
# Minor satellites (below 1:10, so no mergers) of any galaxy: how many galaxies have some, their mean number,
# distance, log10 of flux over the galaxy's, width, and how much bluer or redder.
SATELLITE_CHANCE, SATELLITE_NUMBER, SATELLITE_DISTANCE = 0.7, 1.2, (5.0, 20.0)
SATELLITE_LOG_FLUX, SATELLITE_WIDTH, SATELLITE_COLOUR = (-2.2, -1.0), (0.4, 0.9), (0.5, 2.0)

# Accreted halo with old streams in every galaxy: its F160W light over the galaxy's, scatter in dex, colour.
# Without it a trained network finds mergers in pristine images too easily (calibrated).
HALO_SHARE, HALO_SCATTER, HALO_IN_F814W = 0.06, 0.40, 0.7
# Smooth part: few particles, so lumpy. Radius in scale lengths and its scatter (natural logarithm).
HALO_STARS, HALO_RADIUS, HALO_SPREAD = 120, 2.2, 0.6
# Streams: one more than this mean number; stars each; distance and thickness (scale lengths); length in
# radians.
STREAM_NUMBER, STREAM_STARS, STREAM_RADIUS = 4, 40, (2.5, 7.0)
STREAM_THICKNESS, STREAM_LENGTH, STREAM_SPIRAL = 0.35, (0.3, 2.5), 0.5
# The light of the parts of a halo varies as a gamma variate of this shape.
STREAM_CONTRAST = 0.7
# Outskirts of every galaxy, beyond the edge of the frame: old debris and faint companions, as round blobs. Light over
# the galaxy's and its scatter (dex), number, distances (kpc), width at 10 kpc and its scatter (dex). Without them a
# pristine frame is empty but for tides, and its edge alone gives mergers away (calibrated).
OUTSKIRTS_SHARE, OUTSKIRTS_SCATTER, OUTSKIRTS_NUMBER = 0.10, 0.55, 40
OUTSKIRTS_DISTANCE, OUTSKIRTS_WIDTH, OUTSKIRTS_WIDTH_SCATTER = (4.0, 32.0), 1.5, 0.2


class Sources(NamedTuple):
    """Things that shine; points have width 0."""

    position: Floats
    """(3, n) kpc from the primary"""
    width: Floats
    """(n,) sigma of a round Gaussian, kpc"""
    flux: Floats
    """(2, n) in F814W and F160W"""
    feature: NDArray[np.bool_]
    """(n,) whether it is a sign of the encounter: the companion's nucleus or displaced stars"""


class Light(NamedTuple):
    """How bright the parts of a galaxy are."""

    flux: Floats
    """(2,) of disk and bulge"""
    bulge: Floats
    """(2,) share of the bulge"""
    nucleus: Floats
    """(2,) light of the nucleus over `flux`"""


class Activity(NamedTuple):
    """What an encounter lights up at the time of the image."""

    nucleus: float
    """light that both nuclei gain, over their own"""
    tides: Floats
    """(2,) light that displaced stars gain, over their own"""


QUIET = Activity(0.0, np.zeros(2))


def draw_activity(rng: Generator, remaining: float) -> Activity:
    """How active an encounter is `remaining` Gyr before coalescence (negative after it), by its clock and by chance."""
    clock = math.exp(-0.5 * (remaining / ACTIVITY_TIME) ** 2)
    nucleus, tides = clock * 10 ** (ACTIVITY_SCATTER * rng.standard_normal(2))
    return Activity(NUCLEUS_GAIN * nucleus, np.array(TIDAL_STARS) * tides)


def draw_light(rng: Generator, log_mass: float) -> Light:
    """How bright a galaxy of this mass is, and how its light is shared out."""
    excess = log_mass - PIVOT_LOG_MASS
    f160w = FLUX_AT_PIVOT * 10 ** (FLUX_SLOPE * excess + FLUX_SCATTER * rng.standard_normal())
    colour = COLOUR_AT_PIVOT + COLOUR_SLOPE * excess + COLOUR_SCATTER * rng.standard_normal()
    bulge = BULGE_AT_PIVOT + BULGE_SLOPE * excess + BULGE_SCATTER * rng.standard_normal()
    bulge = min(max(bulge, BULGE_RANGE[0]), BULGE_RANGE[1])
    nucleus = np.array(NUCLEUS_SHARE) * 10 ** (np.array(NUCLEUS_SCATTER) * rng.standard_normal(2))
    return Light(np.array([f160w * 10 ** (-0.4 * colour), f160w]), np.array([bulge * BULGE_IN_F814W, bulge]), nucleus)


def disk_flux(light: Light) -> Floats:
    """(2,) light of the disk, clumps included."""
    return light.flux * (1 - light.bulge)


def points(position: Floats, flux: Floats, feature: NDArray[np.bool_] | None = None) -> Sources:
    """Stars at (3, n) kpc with flux (2, n); no features if not said otherwise."""
    number = position.shape[1]
    return Sources(position, np.zeros(number), flux, np.zeros(number, bool) if feature is None else feature)


def light_centre(centre: Floats, galaxy: Galaxy, light: Light, activity: Activity, feature: bool) -> Sources:
    """Bulge, nucleus and envelope around `centre` (3,).

    What the encounter adds to the nucleus is a feature always, the envelope never, being everywhere, and the rest as
    `feature` says.
    """
    bulge_width = np.array(BULGE_WIDTHS) * galaxy.scale_length / BULGE_UNIT
    width = np.array([*bulge_width, NUCLEUS_WIDTH, NUCLEUS_WIDTH, ENVELOPE_WIDTH * galaxy.scale_length])
    shares = np.array(
        [
            [*(bulge * np.array(BULGE_SHARES)), nucleus, activity.nucleus * nucleus, envelope]
            for bulge, nucleus, envelope in zip(light.bulge, light.nucleus, ENVELOPE_SHARE, strict=True)
        ]
    )
    features = np.array([feature] * (len(BULGE_WIDTHS) + 1) + [True, False])
    return Sources(np.repeat(centre[:, None], len(width), axis=1), width, light.flux[:, None] * shares, features)


def draw_clumps(rng: Generator, galaxy: Galaxy, light: Light, stars: Floats) -> tuple[Floats, Sources]:
    """Clumps where some of the stars (3, n) are now, and the (2,) share of the disk's light in them."""
    share = rng.uniform(*CLUMP_SHARE) * np.array([1.0, CLUMP_IN_F160W])
    number = rng.poisson(CLUMP_NUMBER)
    inner = np.flatnonzero(norm(stars) < CLUMP_REACH * galaxy.scale_length)
    chosen = rng.choice(inner, number)
    size = rng.gamma(1.0, 1.0, number)
    flux = (disk_flux(light) * share)[:, None] * (size / size.sum())
    clumps = Sources(stars[:, chosen], np.full(number, CLUMP_WIDTH), flux, np.zeros(number, bool))
    return share * (number > 0), clumps


def draw_satellites(rng: Generator, light: Light) -> Sources:
    """Small galaxies in all directions around the primary; often none."""
    number = rng.poisson(SATELLITE_NUMBER) if rng.random() < SATELLITE_CHANCE else 0
    position = rng.standard_normal((3, number))
    position *= rng.uniform(*SATELLITE_DISTANCE, number) / norm(position)
    size = 10 ** rng.uniform(*SATELLITE_LOG_FLUX, number)
    width = rng.uniform(*SATELLITE_WIDTH, number)
    colour = np.stack([rng.uniform(*SATELLITE_COLOUR, number), np.ones(number)])
    return Sources(position, width, light.flux[:, None] * size * colour, np.zeros(number, bool))


def draw_halo(rng: Generator, galaxy: Galaxy, light: Light) -> Sources:
    """Lumpy accreted halo: a smooth part and streams, arcs of a circle or a spiral in random planes."""
    share = HALO_SHARE * 10 ** (HALO_SCATTER * rng.standard_normal())
    streams = rng.poisson(STREAM_NUMBER) + 1
    size = rng.gamma(STREAM_CONTRAST, 1.0, streams + 1)
    size[0] += 1  # the smooth part is the largest as a rule
    size /= size.sum()
    radius = HALO_RADIUS * galaxy.scale_length * np.exp(HALO_SPREAD * rng.standard_normal(HALO_STARS))
    position = [rng.standard_normal((3, HALO_STARS)) * radius]
    position += [_draw_stream(rng, galaxy.scale_length) for _ in range(streams)]
    number = np.array([HALO_STARS] + [STREAM_STARS] * streams)
    weight = np.repeat(size / number, number)
    flux = (light.flux * share * np.array([HALO_IN_F814W, 1.0]))[:, None] * weight
    return points(np.concatenate(position, axis=1), flux)


def draw_outskirts(rng: Generator, light: Light) -> Sources:
    """Faint debris and companions far around a galaxy, in all directions."""
    position = rng.standard_normal((3, OUTSKIRTS_NUMBER))
    nearest, farthest = OUTSKIRTS_DISTANCE
    distance = np.exp(rng.uniform(math.log(nearest), math.log(farthest), OUTSKIRTS_NUMBER))
    position *= distance / norm(position)
    size = rng.gamma(STREAM_CONTRAST, 1.0, OUTSKIRTS_NUMBER)
    share = OUTSKIRTS_SHARE * 10 ** (OUTSKIRTS_SCATTER * rng.standard_normal())
    width = OUTSKIRTS_WIDTH * np.sqrt(distance / 10) * 10 ** (OUTSKIRTS_WIDTH_SCATTER * rng.standard_normal(len(size)))
    flux = (light.flux * share * np.array([HALO_IN_F814W, 1.0]))[:, None] * (size / size.sum())
    return Sources(position, width, flux, np.zeros(len(size), bool))


def _draw_stream(rng: Generator, scale_length: float) -> Floats:
    """(3, STREAM_STARS) positions along an arc."""
    start, length = rng.uniform(0, 2 * math.pi), rng.uniform(*STREAM_LENGTH)
    along = rng.random(STREAM_STARS)
    angle = start + length * along
    radius = rng.uniform(*STREAM_RADIUS) * scale_length * (1 + STREAM_SPIRAL * rng.uniform(-1, 1) * along)
    arc = np.stack([radius * np.cos(angle), radius * np.sin(angle), np.zeros(STREAM_STARS)])
    arc += STREAM_THICKNESS * scale_length * rng.standard_normal((3, STREAM_STARS))
    return rotate(draw_rotation(rng), arc)


def join(parts: list[Sources]) -> Sources:
    """All parts as one."""
    return Sources(*(np.concatenate(columns, axis=-1) for columns in zip(*parts, strict=True)))
