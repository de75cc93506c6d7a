"""One's own images, of which maps are asked by a path: pixels, scores, and where each lies on the sky."""

import warnings
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import pandas as pd

from deepmerge import config
from deepmerge.data.formats import any_table, files, fits_file, sources, stamps
from deepmerge.errors import InputError
from deepmerge.model import prediction

KNOWN = ("galaxy_id", "ra", "dec")  # columns of a source that come along


class Own(NamedTuple):
    """pixels: (N, F, H, W); table: a line an image; files: (N,) where each lies in a file of its own, else empty."""

    pixels: np.ndarray
    table: pd.DataFrame
    files: list[Path]


def read(path: Path, model: keras.Model) -> Own:
    """Open and score what `predict` takes (an npy, FITS or HDF5 file, a table of files, a folder), or a single cut-out.

    table: row, transform (0), probability, and galaxy_id, ra and dec where the source has them. Raises InputError for
    what cannot be read and images that the model does not take.
    """
    data = config.Data(images=path, labels=path)  # labels are not looked at
    single = path.is_file() and stamps.is_image(path.name) and _is_single(path)
    source = sources.Source(stamps.read([path], data)[np.newaxis]) if single else sources.read(data)
    count = len(source.images)
    prediction.require_shape(model, source.images)
    table = pd.DataFrame({"row": np.arange(count), "transform": np.zeros(count, np.uint8)})
    if source.table is not None:
        table = table.join(source.table[[name for name in KNOWN if name in source.table]].reset_index(drop=True))
    size = prediction.batch_size(source.images.shape)
    pieces = (source.images[start : start + size] for start in range(0, count, size))
    scores = np.concatenate([np.empty(0), *prediction.predict_pieces(model, pieces)])
    return Own(source.images, table.assign(probability=scores), [path] if single else _files(path, data))


def celestial(path: Path, shape: tuple[int, ...]) -> Any:
    """The FITS header of the celestial WCS of the first image of this shape (H, W) in a file; None without one."""
    from astropy.io import fits
    from astropy.wcs import WCS

    if not fits_file.is_fits(path):
        return None
    with warnings.catch_warnings(), fits.open(path) as units:
        warnings.simplefilter("ignore")  # of headers that do not keep to the standard in every card
        for unit in units:
            if unit.is_image and len(unit.shape) >= 2 and tuple(unit.shape[-2:]) == shape:
                found = WCS(unit.header).celestial
                if found.has_celestial:
                    return found.to_header()
    return None


def _is_single(path: Path) -> bool:
    """Whether a file holds one image, (H, W) or (filters, H, W): a picture, or FITS of two or three axes."""
    if path.suffix.lower() in stamps.PICTURES:
        return True
    if not fits_file.holds_images(path):
        return False
    with fits_file.opened(path) as file:
        return len(file.shape) < 4


def _files(path: Path, data: config.Data) -> list[Path]:
    if not (path.is_dir() or any_table.is_table(path)):
        return []
    try:
        found = files.listed(path, data)
    except InputError:  # a table that holds the images themselves
        return []
    return [found.folder / names[0] for names in found.names]
