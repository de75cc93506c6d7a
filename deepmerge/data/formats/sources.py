"""Images and what is known of them, from whatever an experiment file names as `images`."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from deepmerge import config
from deepmerge.data.formats import any_table, arrays, decoding, files, fits_file, hdf5, stamps
from deepmerge.data.formats.columns import named
from deepmerge.data.formats.sizes import channels_first
from deepmerge.data.released import download
from deepmerge.errors import InputError


@dataclass(frozen=True)
class Source:
    """Images (N, F, H, W), memory-mapped; if known, a table of N rows as `columns.named` gives it, and the filters."""

    images: np.ndarray
    table: pd.DataFrame | None = None
    filters: tuple[str, ...] | None = None


def read(data: config.Data, workers: int | None = None) -> Source:
    """Open the images that an experiment names, by what is there: an npy as it lies, others decoded into the cache.

    workers: processes that decode files; by default one a core where there are many. Raises InputError for what is
    none of the formats, or broken.
    """
    path, part = data.located()
    if path.is_dir():
        return _of_files(files.listed(path, data), data, workers)
    if path.suffix == ".npy" or not path.is_file():
        return _of_npy(path, data)
    if hdf5.is_hdf5(path):
        return _of_hdf5(path, part, data)
    if any_table.is_table(path):
        return _of_files(files.listed(path, data), data, workers)
    if fits_file.is_fits(path):
        if fits_file.holds_images(path, part):
            return _of_fits(path, part, data)
        return _of_files(files.listed(path, data), data, workers)
    with path.open("rb") as file:
        kind = download.kind_of(file.read(9))
    raise InputError(
        f"images should be an npy, FITS or HDF5 file, a table that names files ({', '.join(any_table.SUFFIXES)}), or a "
        f"folder, got {path}, {kind}"
    )


def _of_npy(path: Path, data: config.Data) -> Source:
    images = arrays.open_array(path, "images")
    if images.ndim == 4:
        images = channels_first(images)
    is_fitting = data.filters is None and images.shape[2:] == (data.size, data.size)
    if data.as_they_are or images.ndim != 4 or is_fitting:
        return Source(images)
    return Source(decoding.of_array(data, path, None, images.shape, images.__getitem__))


def _of_files(found: files.Files, data: config.Data, workers: int | None) -> Source:
    images = decoding.of_files(found, data, workers)
    pictures = all(name.lower().endswith(stamps.PICTURES) for names in found.names for name in names)
    of_files = found.filters or (stamps.COLOURS if pictures else ())
    wanted = range(images.shape[1]) if data.filters is None else data.filters
    known = max(wanted) < len(of_files) and (data.filters is not None or len(of_files) == images.shape[1])
    return Source(images, found.table, tuple(of_files[number] for number in wanted) if known else None)


def _of_hdf5(path: Path, part: str | None, data: config.Data) -> Source:
    with hdf5.opened(path, part) as file:
        images = decoding.of_array(data, path, file.dataset, file.shape, file.read)
        table = any_table.as_text(file.columns)
    return Source(images, _named(table, data, path))


def _of_fits(path: Path, part: str | None, data: config.Data) -> Source:
    with fits_file.opened(path, part) as file:
        images = decoding.of_array(data, path, part, file.shape, file.read)
        beside = next((table for table in file.tables if table.rows == len(images)), None)
        columns, units = (beside.columns(), beside.units()) if beside else ({}, {})
    table = any_table.as_text(columns, units)
    if len(table.columns) == 1 and data.columns.label is None:
        table.columns = pd.Index(["label"])  # as in the released files
    return Source(images, _named(table, data, path))


def _named(table: pd.DataFrame, data: config.Data, path: Path) -> pd.DataFrame | None:
    if not len(table.columns):
        return None
    return named(table, data.columns, path, data.labels is not None)
