"""The bootstrap over galaxies, for what `intervals` has no closed form: bands of curves.

The views (and copies) of one galaxy share its mass, orbit and history, so their errors go together: resampling images
would count them as independent and give intervals that are too narrow. Galaxies are drawn with replacement and bring
all their images along (a cluster bootstrap: Field & Welsh 2007, J. R. Stat. Soc. B 69, 369). The draw is stratified by
class, so that every resample has both, and the class ratio, which was chosen and not observed, does not scatter;
galaxies with images of both classes are a stratum of their own.
"""

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from deepmerge.analysis import checks
from deepmerge.analysis.sample import LEVEL, Band, Sample

_CHUNK = 2**18  # image weights held at once: 2 MB an array, which stays in the processor's cache

Measure = Callable[[np.ndarray], Mapping[str, np.ndarray]]


def resampled(sample: Sample, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each galaxy is drawn, (b, G) at a time; nothing where a class has a single galaxy.

    Such a galaxy does not tell how much others scatter. Raises InputError for `resamples` that is no whole number ≥ 0.
    """
    checks.whole_number("resamples", resamples, 0, usual=1000)
    if sample.has_single():
        return
    kind = sample.strata()
    strata = [np.flatnonzero(kind == which) for which in (1, 2, 3)]
    # One stream a stratum, so that the numbers do not depend on how the work is cut into chunks.
    streams = [np.random.default_rng([seed, stratum]) for stratum in range(len(strata))]
    step = max(1, _CHUNK // len(sample.labels))
    for start in range(0, resamples, step):
        weights = np.empty((min(step, resamples - start), len(kind)))
        for members, stream in zip(strata, streams, strict=True):
            if size := len(members):
                weights[:, members] = stream.multinomial(size, np.full(size, 1 / size), size=len(weights))
        yield weights


def bands(sample: Sample, measure: Measure, resamples: int, seed: int = 0) -> dict[str, Band]:
    """What `measure` finds in the sample, with percentile intervals over resamples of its galaxies.

    measure: takes weights of the galaxies (b, G) and returns arrays (b, …) by name, NaN for what is not defined, which
    the percentiles leave out. Intervals are NaN where there is no resample, or none in which a number is defined.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        point = measure(np.ones((1, len(sample.images()))))
        draws = [measure(weights) for weights in resampled(sample, resamples, seed)]
    return {
        name: Band(value[0], *_interval(np.concatenate([value[:0], *(draw[name] for draw in draws)])))
        for name, value in point.items()
    }


def _interval(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Percentiles over the draws (B, …) in which a number is defined; NaN where there are none."""
    undefined = np.isnan(draws).all(axis=0)
    if not len(draws):
        draws = np.zeros((1, *undefined.shape))
    low, high = np.nanquantile(np.where(undefined, 0.0, draws), ((1 - LEVEL) / 2, (1 + LEVEL) / 2), axis=0)
    return np.where(undefined, np.nan, low), np.where(undefined, np.nan, high)
