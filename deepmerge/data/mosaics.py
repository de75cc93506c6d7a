"""Mosaics of the sky: FITS images with a WCS, read piece by piece, however large; one a filter, on grids that agree."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deepmerge.data.formats import fits_file
from deepmerge.errors import InputError

SCIENCE = "SCI"  # name of the HDU that holds the image where errors and weights stand beside it


@dataclass(frozen=True)
class Mosaic:
    """One open mosaic: `shape` (H, W) of its pixels, of any type; BSCALE, BZERO and BLANK are applied as they are read.

    scale: width and height of a pixel in arcseconds; axes: (2, 2), what a step along x and y is on the sky, in degrees.
    """

    path: Path
    filter: str | None
    shape: tuple[int, int]
    scale: np.ndarray
    axes: np.ndarray
    _wcs: Any
    _section: Any

    def pixels_of(self, ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
        """Where positions in degrees (ICRS) lie, (n, 2) pixels as x and y from 0; NaN for what it cannot show."""
        from astropy.coordinates import SkyCoord

        with np.errstate(all="ignore"):
            return np.stack(self._wcs.world_to_pixel(SkyCoord(ra, dec, unit="deg")), -1).astype(float)

    def cut(self, place: np.ndarray, size: int) -> np.ndarray | None:
        """The pixels around a place (x, y), (size, size) float32; None where not all of them lie on the mosaic.

        Raises InputError where the file is damaged there.
        """
        from astropy.nddata import Cutout2D, NoOverlapError, PartialOverlapError

        if not np.isfinite(place).all():
            return None
        try:
            with np.errstate(over="ignore"):
                return np.asarray(Cutout2D(self._section, tuple(place), size, mode="strict").data, np.float32)
        except (NoOverlapError, PartialOverlapError):
            return None
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"{self.path} is truncated or damaged: {' '.join(str(error).split())}") from None


@contextmanager
def opened(paths: Sequence[Path], size: int) -> Iterator[list[Mosaic]]:
    """Open mosaics whose pixels agree so well that cutouts of `size` pixels fit one another to half a pixel.

    Each is the HDU named SCI, or else the first with two axes. Raises InputError for what is no FITS image with a
    celestial WCS, and for pixels of another size or orientation.
    """
    with ExitStack() as stack:
        found = [stack.enter_context(_opened(path)) for path in paths]
        first = found[0]
        for other in found[1:]:
            if np.abs(other.scale / first.scale - 1).max() > 1 / size:
                raise InputError(
                    f"mosaics should have pixels of one size, got {_arcseconds(first)} in {first.path} and "
                    f"{_arcseconds(other)} in {other.path}; resample one to the other (with reproject or SWarp)"
                )
            if np.abs(other.axes - first.axes).max() > np.abs(first.axes).max() / size:
                raise InputError(
                    f"mosaics should lie the same way round, got x towards position angle {_angle(first):.1f}° in "
                    f"{first.path} and {_angle(other):.1f}° in {other.path}, or mirrored; resample one to the other"
                )
        yield found


@contextmanager
def _opened(path: Path) -> Iterator[Mosaic]:
    from astropy.io import fits
    from astropy.utils.exceptions import AstropyWarning
    from astropy.wcs import WCS
    from astropy.wcs.utils import proj_plane_pixel_scales

    if not path.is_file():
        raise InputError(f"mosaic expected at {path}, where there is no file")
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore", AstropyWarning)  # on headers that are not quite as the standard has them
        try:
            hdus = stack.enter_context(fits.open(path))
            kinds = fits.PrimaryHDU | fits.ImageHDU | fits.CompImageHDU
            images = [hdu for hdu in fits_file.in_order(hdus) if isinstance(hdu, kinds)]
            flat = [hdu for hdu in images if len(hdu.shape) == 2 and min(hdu.shape) > 0]
        except Exception as error:  # astropy raises whatever it meets
            raise InputError(
                f"mosaic {path} should be a FITS file, but: {' '.join(str(error).split()) or type(error).__name__}"
            ) from None
        if not flat:
            raise InputError(f"mosaic {path} should hold an image with two axes, got {[hdu.shape for hdu in hdus]}")
        hdu = next((hdu for hdu in flat if hdu.name.upper() == SCIENCE), flat[0])
        try:
            wcs = WCS(hdu.header, hdus)
        except Exception as error:
            raise InputError(f"mosaic {path} should have a WCS, but: {' '.join(str(error).split())}") from None
        if not wcs.has_celestial or wcs.naxis != 2:
            kinds = ", ".join(kind or "none" for kind in wcs.wcs.ctype)
            raise InputError(f"mosaic {path} should have a celestial WCS (CTYPE RA---TAN, DEC--TAN), got {kinds}")
        name = hdu.header.get("FILTER", hdus[0].header.get("FILTER"))
        yield Mosaic(
            path,
            name.strip() if isinstance(name, str) and name.strip() else None,
            tuple(hdu.shape),
            3600 * proj_plane_pixel_scales(wcs),
            wcs.pixel_scale_matrix,
            wcs,
            hdu.section,
        )


def _arcseconds(mosaic: Mosaic) -> str:
    return " × ".join(dict.fromkeys(f"{length:.5g}″" for length in mosaic.scale))


def _angle(mosaic: Mosaic) -> float:
    return float(np.degrees(np.arctan2(mosaic.axes[0, 0], mosaic.axes[1, 0])) % 360)
