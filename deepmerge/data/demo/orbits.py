"""Encounters of two mock galaxies: a restricted N-body simulation after Toomre & Toomre (1972).

The two galaxies are Hernquist potentials. The companion falls towards the primary on an orbit that dynamical
friction shrinks; the stars are test particles that feel both potentials, but not one another. All positions
are in the frame of the primary, which the companion accelerates.
"""

import math
from typing import Literal, NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from deepmerge.data.demo.galaxy import Disk, Floats, Galaxy, draw_galaxy, norm

Encounter = Literal["past", "future", "early", "old"]

# Of both orbit and stars, Gyr: some 20 steps for the fastest passage through the centre.
TIME_STEP = 0.003
# One km/s in kpc/Gyr.
KPC_PER_GYR = 1.0227
_STEP = TIME_STEP * KPC_PER_GYR  # in kpc/(km/s)

# Time to coalescence (Gyr, negative = after it) of each sort of encounter. The release calls a galaxy a
# merger from 250 Myr before until 250 Myr after coalescence; earlier and later ones are its hard non-mergers.
# No gap parts them: nature has borderline cases.
WINDOWS: dict[Encounter, tuple[float, float]] = {
    "past": (-0.25, 0.0),
    "future": (0.0, 0.25),
    "early": (0.25, 0.90),
    "old": (-1.20, -0.25),
}

# Mass ratios are 0.1^(u²), u uniform: from 1:1 to 1:10 (the release's limit of a minor merger), more near
# 1:1.
SMALLEST_RATIO, RATIO_POWER = 0.1, 2.0
# Where the companion starts (kpc) and how round its orbit is (speed there in circular speeds): bound
# and eccentric, as infalling galaxies in simulations are.
START_DISTANCE, CIRCULARITY = (25.0, 45.0), (0.15, 0.55)
# Friction slows the companion by v/τ within 8 kpc, less outside where there are fewer stars; lighter ones
# sink more slowly, τ = 0.22 Gyr q^-¼ (calibrated: coalescence within 1 to 2 Gyr).
FRICTION_TIME, FRICTION_RATIO_POWER, FRICTION_RADIUS = 0.22, -0.25, 8.0
# The galaxies have coalesced once the companion has stayed within 4 kpc for 10 steps (30 Myr).
COALESCED_RADIUS, COALESCED_STEPS = 4.0, 10
# An orbit that has not coalesced after 2.7 Gyr is given up and another one is drawn.
LONGEST_ORBIT = 900
# The stars are followed for the last 1.2 Gyr, so that old encounters have stirred their disks like recent ones.
TIDAL_STEPS = 400
# An encounter needs some history, or there is nothing to see.
SHORTEST_HISTORY = 5
# Keeps forces finite at the very centre, kpc.
_ORBIT_SOFTENING, _STAR_SOFTENING = 1e-3, 1e-2


class Orbit(NamedTuple):
    """The path of the companion."""

    path: Floats
    """(steps + 1, 3) kpc from the primary, every TIME_STEP from the start of the encounter until the image"""
    companion: Galaxy
    mass_ratio: float
    time_to_coalescence: float
    """Gyr when the image is taken; negative after coalescence"""


def draw_orbit(rng: Generator, primary: Galaxy, encounter: Encounter) -> Orbit:
    """Draw encounters until one coalesces at a time that fits the kind of encounter."""
    for _ in range(100):  # one or two tries do
        ratio = SMALLEST_RATIO ** (rng.random() ** RATIO_POWER)
        companion = draw_galaxy(rng, primary.log_mass + math.log10(ratio))
        distance, circularity = rng.uniform(*START_DISTANCE), rng.uniform(*CIRCULARITY)
        outward, along = _draw_plane(rng)
        remaining = rng.uniform(*WINDOWS[encounter])
        friction_time = FRICTION_TIME * ratio**FRICTION_RATIO_POWER
        offset = -round(remaining / TIME_STEP)
        flat, coalescence = integrate_orbit(
            primary, companion, distance, circularity, friction_time, steps_after=max(offset, 0)
        )
        if coalescence is not None and coalescence + offset >= SHORTEST_HISTORY:
            flat = flat[: coalescence + offset + 1]
            path = flat[:, :1] * outward + flat[:, 1:] * along
            return Orbit(path, companion, ratio, remaining)
    raise RuntimeError(f"no {encounter!r} encounter found for a galaxy of log mass {primary.log_mass:.2f}")


def _draw_plane(rng: Generator) -> tuple[Floats, Floats]:
    """Two unit vectors (3,) at right angles that span a random orbital plane."""
    outward = rng.standard_normal(3)
    outward /= norm(outward)
    along = np.cross(outward, rng.standard_normal(3))
    return outward, along / norm(along)


def integrate_orbit(
    primary: Galaxy,
    companion: Galaxy,
    distance: float,
    circularity: float,
    friction_time: float,
    steps_after: int,
) -> tuple[Floats, int | None]:
    """Follow the companion in the plane of its orbit until `steps_after` steps after coalescence.

    It starts at (distance, 0) kpc with `circularity` times the circular speed. Returns its (n, 2) positions
    and the step of coalescence, None if that takes longer than LONGEST_ORBIT steps. An infinite
    `friction_time` (Gyr) means no friction. Plain floats are faster than numpy for single numbers; products
    stand for powers because the last bit of a power may depend on the system.
    """
    gm1, gm2, core1, core2 = primary.gm, companion.gm, primary.core, companion.core
    friction = _STEP / (friction_time * KPC_PER_GYR)
    x, y, vx = distance, 0.0, 0.0
    vy = circularity * math.sqrt((gm1 + gm2) * distance) / (distance + core1)
    path = [(x, y)]
    coalescence: int | None = None
    near, radius = 0, distance
    while True:
        r = radius + _ORBIT_SOFTENING
        reach1, reach2, relative = r + core1, r + core2, r / FRICTION_RADIUS
        pull = _STEP * (gm1 / (reach1 * reach1) + gm2 / (reach2 * reach2)) / r
        # Friction is taken at the end of the step (implicit), which is stable however strong it is.
        slowing = 1 / (1 + friction / (1 + relative * relative))
        vx = (vx - pull * x) * slowing
        vy = (vy - pull * y) * slowing
        x += vx * _STEP
        y += vy * _STEP
        path.append((x, y))
        radius = math.sqrt(x * x + y * y)
        near = near + 1 if radius < COALESCED_RADIUS else 0
        step = len(path) - 1
        if coalescence is None and near == COALESCED_STEPS:
            coalescence = step - COALESCED_STEPS + 1
        if coalescence is None and step >= LONGEST_ORBIT:
            break
        if coalescence is not None and step >= coalescence + steps_after:
            break
    return np.array(path), coalescence


def follow_stars(primary: Galaxy, disk: Disk, companion_disk: Disk, orbit: Orbit) -> tuple[Floats, Floats]:
    """Let the encounter pull at the stars of both galaxies; positions (3, n) when the image is taken.

    Both disks are given around their own galaxy's centre and come undisturbed, TIDAL_STEPS before the end
    of the orbit (or at its start).
    """
    path = orbit.path[-(TIDAL_STEPS + 1) :]
    start, velocity = path[0], (path[1] - path[0]) / _STEP
    position = np.concatenate([disk.position, companion_disk.position + start[:, None]], axis=1)
    speeds = np.concatenate([disk.velocity, companion_disk.velocity + velocity[:, None]], axis=1)
    # Single precision is twice as fast and moves no star by a visible amount.
    moved = advance(position.astype(np.float32), speeds.astype(np.float32), path[:-1], primary, orbit.companion)
    count = disk.position.shape[1]
    return moved[:, :count].astype(float), moved[:, count:].astype(float)


def advance(position: NDArray, velocity: NDArray, path: Floats, primary: Galaxy, companion: Galaxy) -> NDArray:
    """Move test particles (3, n) by one step for each companion position in `path` (steps, 3).

    Symplectic Euler steps in the accelerated frame of the primary, in the precision of `position`.
    """
    position = position.copy()
    shift = velocity * _STEP  # per step, kpc
    centres = path.astype(position.dtype)[:, :, None]
    frame = _fall(path.T, companion).astype(position.dtype).T[:, :, None]
    for centre, acceleration in zip(centres, frame, strict=True):
        shift += _fall(position, primary)
        shift += _fall(position - centre, companion)
        shift += acceleration
        position += shift
    return position


def _fall(offset: NDArray, galaxy: Galaxy) -> NDArray:
    """Change of the shift per step (3, n) by the pull of a galaxy, for stars at an offset (3, n) from it."""
    distance = norm(offset) + _STAR_SOFTENING
    reach = distance + galaxy.core
    return offset * (-galaxy.gm * _STEP * _STEP / (distance * reach * reach))
