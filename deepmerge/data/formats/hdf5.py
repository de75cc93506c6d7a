"""Images, labels and catalogue of an HDF5 file: a dataset of images, and one of N numbers or words for each column."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deepmerge.errors import InputError

MAGIC = b"\x89HDF\r\n\x1a\n"
_MOST_TOLD = 8  # datasets that a message lists


@dataclass(frozen=True)
class Hdf5File:
    """An open file: its images as they are stored, `shape` (N, …), and the columns (N,) that stand beside them."""

    dataset: str
    shape: tuple[int, ...]
    dtype: np.dtype
    columns: dict[str, np.ndarray]
    _images: Any

    def read(self, part: slice) -> np.ndarray:
        """A slice of the first axis of the images."""
        return np.asarray(self._images[part])


def is_hdf5(path: Path) -> bool:
    """Whether a file is HDF5 by its content."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


@contextmanager
def opened(path: Path, dataset: str | None = None) -> Iterator[Hdf5File]:
    """Open the images of an HDF5 file: `dataset`, or the only one with three axes or more.

    Raises InputError for a broken file, and one that holds no such dataset, or several.
    """
    import h5py

    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"images in {path} should be a readable HDF5 file, but: {error}") from None
    with file:
        found: dict[str, Any] = {}
        file.visititems(lambda name, item: found.update({name: item} if isinstance(item, h5py.Dataset) else {}))
        numeric = {name: item for name, item in found.items() if item.ndim >= 3 and item.dtype.kind in "buif"}
        choices = [dataset.strip("/")] if dataset else list(numeric)
        if len(choices) != 1 or choices[0] not in numeric:
            held = ", ".join(f"{name} {item.shape}" for name, item in list(found.items())[:_MOST_TOLD])
            raise InputError(
                f"images in {path} should be {f'its dataset {dataset}' if dataset else 'one dataset'} of numbers "
                f"(N, filters, H, W) or (N, H, W, filters), got {held or 'no dataset'}; name it: {path.name}:DATASET"
            )
        images = numeric[choices[0]]
        beside = images.parent
        columns = {
            name: _values(item, h5py.check_string_dtype(item.dtype) is not None)
            for name, item in beside.items()
            if isinstance(item, h5py.Dataset) and item.shape in ((len(images),), (len(images), 1))
        }
        try:
            yield Hdf5File(choices[0], images.shape, images.dtype, columns, images)
        except OSError as error:  # h5py's, where a piece cannot be decoded
            if "read" not in str(error).lower() and "filter" not in str(error).lower():
                raise
            raise InputError(f"{choices[0]} in {path} cannot be read: {error}; get the file again") from error


def _values(item: Any, is_text: bool) -> np.ndarray:
    return np.asarray(item.asstr()[()] if is_text else item[()]).reshape(len(item))
