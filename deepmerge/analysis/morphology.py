"""Non-parametric morphology of images by statmorph (Rodriguez-Gomez et al. 2019, MNRAS 483, 4140).

Here are the sky, the segmentation, the processes that share the images, and the file that spares a second measurement.
What could not be measured is NaN.
"""

import logging
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from deepmerge.analysis import checks
from deepmerge.cluster import Where, opened
from deepmerge.data.memory_map import forget
from deepmerge.errors import InputError
from deepmerge.files import replacing
from deepmerge.progress import Advance

log = logging.getLogger(__name__)

# As statmorph names them, but for two. Radii are in pixels, fluxes in units of the image.
QUANTITIES = (
    *("concentration", "asymmetry", "smoothness", "gini", "m20", "multimode", "intensity", "deviation"),
    *("shape_asymmetry", "ellipticity", "rpetro_circ", "sn_per_pixel", "flux"),
)
_ATTRIBUTES = dict(zip(QUANTITIES, QUANTITIES, strict=True), ellipticity="ellipticity_asymmetry", flux="flux_circ")
GOOD, SUSPECT, BAD, CATASTROPHIC = 0, 1, 2, 4  # statmorph's flags
NOT_MEASURED = 8  # ours: no source was found, or statmorph failed
FLAGS = {GOOD: "good", SUSPECT: "suspect", BAD: "bad", CATASTROPHIC: "catastrophic", NOT_MEASURED: "not_measured"}

METHOD = 1  # to be raised with every change of the numbers: measurements of another method are not taken over

_TYPES = {"row": "int64", **dict.fromkeys(QUANTITIES, "float64"), "flag": "int64", "reason": "str"}
_INVALID = -99.0  # statmorph's word for "not measured"
_EDGE = 4  # pixels: the frame around the image in which the sky is measured
_SMOOTHING = 1.0  # pixels, about the width of HST's PSF: joins the pixels of a faint source
_FEWEST_PIXELS = 5  # of a source, and 1.5 sky sigmas: both as in statmorph's tutorial
_SIGMAS = 1.5
# Share of the peak. Without noise every pixel is significant, and a galaxy would fill its frame and leave no sky.
_FAINTEST = 0.01
_CHUNK, _BATCH = 8, 512  # images handed to a process at once, and images between two writings of the cache

Line = dict[str, Any]


def measure_image(image: np.ndarray) -> Line:
    """Measure the morphology of the galaxy in the middle of one image.

    image: (H, W), any numeric type and unit; pixels that are not finite are masked. Returns QUANTITIES (Rodriguez-Gomez
    et al. 2019, section 4; ellipticity about the centre of asymmetry), `flag` (GOOD 0, SUSPECT 1, BAD 2, CATASTROPHIC 4
    as statmorph has it, NOT_MEASURED 8) and `reason`: why the flag is not 0, in one line. A quantity that is not
    defined is NaN. The sky's share of asymmetry and smoothness is subtracted, so they may be negative; sn_per_pixel is
    NaN where the sky has no noise. Nothing is corrected for the PSF, which statmorph uses for its Sérsic fits alone.

    Never fails for an odd image; raises InputError for an array of another shape.
    """
    if np.ndim(image) != 2:
        raise InputError(f"an image should have shape (H, W), got {np.shape(image)}: choose one filter")
    import statmorph  # noqa: F401 - before warnings are recorded, since astropy changes at import how they are shown

    # Recorded, not ignored: they are the reasons of bad flags.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            return _measured(np.asarray(image, np.float64), caught)
        except Exception as error:  # whatever goes wrong within statmorph, the other images go on
            return _unmeasured(f"failed with {type(error).__name__}: {' '.join(str(error).split())}")


def measure(
    images: np.ndarray,
    rows: Sequence[int] | np.ndarray,
    filter_index: int,
    *,
    workers: Where = None,
    cache: Path | None = None,
    fingerprint: str = "",
    advance: Advance = lambda steps: None,
) -> pd.DataFrame:
    """Measure many images: a line for each of `rows`, in their order, with `row` and what `measure_image` returns.

    images: (N, F, H, W), an array or a memory map; `filter_index` 0 … F − 1. The result does not depend on `workers`
    (see `cluster.opened`). `cache` is a folder: what was measured before of the data with
    this `fingerprint` is read from a file there, the rest added, also when the work is interrupted. `advance(steps)` is
    called as images are done. Raises InputError if an argument is out of range.
    """
    if images.ndim != 4:
        raise InputError(f"images should have shape (N, filters, H, W), got {images.shape}")
    if not 0 <= filter_index < images.shape[1]:
        raise InputError(f"filter_index should be 0 … {images.shape[1] - 1}, got {filter_index}")
    if cache is not None and not fingerprint:
        raise InputError("a cache needs the fingerprint of the data, got none: measurements of other images would do")
    rows = checks.row_numbers("rows", rows, len(images)) if np.size(rows) else np.empty(0, int)
    method = f"method{METHOD}-statmorph{version('statmorph')}"
    file = None if cache is None else cache / f"morphology-{fingerprint}-filter{filter_index}-{method}.parquet"
    lines = {} if file is None else _read(file)
    missing = np.setdiff1d(rows, list(lines))
    advance(len(rows) - len(missing))
    with opened(workers, -(-len(missing) // _CHUNK)) as room:
        for start in range(0, len(missing), _BATCH):
            batch = missing[start : start + _BATCH]
            chunks = (images[chunk, filter_index] for chunk in np.split(batch, range(_CHUNK, len(batch), _CHUNK)))
            done: list[Line] = []
            try:
                for measured in room.map(_measure_chunk, chunks):
                    done += measured
                    advance(len(measured))
            finally:
                lines |= {int(row): line for row, line in zip(batch, done, strict=False)}
                if file is not None:
                    with replacing(file) as aside:
                        _table(lines).to_parquet(aside, index=False)
            forget(images)
    return _table({row: lines[row] for row in rows.tolist()}).set_index("row").loc[rows].reset_index()


def _measured(image: np.ndarray, caught: list[warnings.WarningMessage]) -> Line:
    from photutils.segmentation import detect_sources
    from scipy import ndimage
    from statmorph import SourceMorphology

    mask = ~np.isfinite(image)
    level, noise = _sky(np.where(mask, np.nan, image))
    if np.isnan(level):
        return _unmeasured("no source: no finite pixel at the edge, where the sky is measured")
    image = np.where(mask, 0.0, image - level)
    smooth = ndimage.gaussian_filter(image, _SMOOTHING)
    threshold = max(_SIGMAS * noise, _FAINTEST * smooth.max())
    segments = detect_sources(smooth, threshold, _FEWEST_PIXELS) if threshold > 0 else None
    if segments is None:
        return _unmeasured("no source: nothing stands out of the sky")
    source = SourceMorphology(
        image,
        segments,
        _central(smooth, segments),
        mask=mask,
        weightmap=np.full_like(image, noise or 1.0),
        sersic_fitting_args={"maxiter": 1},  # the fit cannot be switched off
    )
    values = {name: float(source[attribute]) for name, attribute in _ATTRIBUTES.items()}
    if not noise:
        values["sn_per_pixel"] = np.nan
    line = {name: value if np.isfinite(value) and value != _INVALID else np.nan for name, value in values.items()}
    return {**line, "flag": int(source.flag), "reason": _reason(caught) if source.flag else ""}


def _sky(image: np.ndarray) -> tuple[float, float]:
    """Level and noise of the sky: median and normalised MAD in the image's frame; NaN if no pixel of it is finite.

    The faint light around a galaxy reaches far into an image without noise, and lifts a clipped median of all of it.
    """
    from scipy.stats import median_abs_deviation

    frame = np.ones(image.shape, bool)
    frame[_EDGE:-_EDGE, _EDGE:-_EDGE] = False
    sky = image[frame & ~np.isnan(image)]
    if not len(sky):
        return np.nan, np.nan
    return float(np.median(sky)), float(median_abs_deviation(sky, scale="normal"))


def _central(smooth: np.ndarray, segments: Any) -> int:
    """Label of the segment with most flux near the centre, by a Gaussian weight as wide as an eighth of the image.

    Segments are not deblended: a companion whose light touches the galaxy's belongs to the system that is judged, and
    cutting it off would remove the very signs of a merger. Sources apart from it are masked by statmorph.
    """
    from scipy import ndimage

    y, x = np.indices(smooth.shape)
    height, width = smooth.shape
    distance2 = (y - (height - 1) / 2) ** 2 + (x - (width - 1) / 2) ** 2
    near = np.exp(-distance2 / (2 * (min(height, width) / 8) ** 2))
    flux = ndimage.sum_labels(smooth * near, segments.data, segments.labels)
    return int(segments.labels[np.argmax(flux)])


def _reason(caught: list[warnings.WarningMessage]) -> str:
    """What statmorph complained of, without what concerns the fit that is not used."""
    from astropy.utils.exceptions import AstropyUserWarning

    texts = [str(warning.message) for warning in caught if warning.category is AstropyUserWarning]
    texts = [text for text in texts if not text.startswith(("[sersic]", "The fit may be unsuccessful"))]
    return "; ".join(dict.fromkeys(texts)) or "the segments of Gini and of MID differ, or are in parts"


def _unmeasured(reason: str) -> Line:
    return {**dict.fromkeys(QUANTITIES, np.nan), "flag": NOT_MEASURED, "reason": reason}


def _measure_chunk(images: np.ndarray) -> list[Line]:
    return [measure_image(image) for image in images]


def _table(lines: dict[int, Line]) -> pd.DataFrame:
    return pd.DataFrame([{"row": row, **line} for row, line in lines.items()], columns=list(_TYPES)).astype(_TYPES)


def _read(file: Path) -> dict[int, Line]:
    """Lines by row that were measured before; none where the file is damaged, since they can be measured anew."""
    if not file.exists():
        return {}
    try:
        table = pd.read_parquet(file)[list(_TYPES)].astype(_TYPES)
    except (OSError, ValueError, KeyError) as error:
        log.warning("measuring anew, since %s cannot be read: %s", file, error)
        return {}
    lines: list[Any] = table.to_dict("records")
    return {line.pop("row"): line for line in lines}
