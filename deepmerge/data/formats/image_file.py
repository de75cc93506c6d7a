"""Images in a file of any length and of any format, read piece by piece."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deepmerge import config
from deepmerge.data.formats import any_table, fits_file, sources
from deepmerge.data.formats.arrays import open_array
from deepmerge.errors import InputError


@dataclass(frozen=True)
class ImageFile:
    """The array of an open file, of any numeric type; `read` gives a slice of its first axis."""

    path: Path
    shape: tuple[int, ...]
    read: Callable[[slice], np.ndarray]

    def pieces(self, size: int, rows: range | None = None) -> Iterator[np.ndarray]:
        """Read it, or successive `rows` of it, in pieces (≤ `size`, …), one at a time."""
        rows = range(self.shape[0]) if rows is None else rows
        for start in rows[::size]:
            yield self.read(slice(start, min(start + size, rows.stop)))

    def require(self, shape: tuple[int | None, ...]) -> None:
        """Raise InputError unless it holds images of `shape` (F, H, W), where None is any length."""
        if _matches(self.shape, (None, *shape)):
            return
        expected = f"(N, {', '.join(str(length or 'any') for length in shape)})"
        mends = {
            (None, *shape[1:], shape[0]): "they seem to be channels last: save np.moveaxis(images, -1, 1) instead",
            shape: "it seems to be a single image: save images[np.newaxis] instead",
            shape[1:]: "it seems to be one filter of a single image: save np.stack(filters)[np.newaxis] instead",
        }
        if shape[0] == 1:
            no_axis = "the axis of the single filter seems to be missing: save images[:, np.newaxis] instead"
            mends.setdefault((None, *shape[1:]), no_axis)
        mend = next((f"; {mend}" for form, mend in mends.items() if _matches(self.shape, form)), "")
        raise InputError(f"images in {self.path} should have shape {expected}, channels first, got {self.shape}{mend}")


@contextmanager
def open_images(path: Path) -> Iterator[ImageFile]:
    """Open images in an npy file or in a FITS file, compressed or not, in the HDU that `fits_file.opened` takes.

    Or in what else `sources.read` takes, which is decoded into the cache of the working directory. BSCALE, BZERO and
    BLANK are applied. Raises InputError for anything else, and for a truncated file.
    """
    data = config.Data(images=path, labels=path)  # labels are not looked at
    file, part = data.located()
    if not file.exists():
        raise InputError(f"images expected at {path}, where there is no file")
    start = b""
    if file.is_file():
        with file.open("rb") as opened:
            start = opened.read(9)
    if start.startswith(b"\x93NUMPY"):
        # Mapped anew for each piece: what has been read of a mapping counts as memory as long as it stands.
        yield ImageFile(path, open_array(path, "images").shape, lambda part: np.array(open_array(path, "images")[part]))
    elif start and not any_table.is_table(file) and fits_file.is_fits(file) and fits_file.holds_images(file, part):
        with fits_file.opened(file, part) as fits:
            yield ImageFile(path, fits.shape, fits.read)
    else:
        images = sources.read(data).images
        yield ImageFile(path, images.shape, lambda part: np.array(images[part]))


def _matches(shape: tuple[int, ...], form: tuple[int | None, ...]) -> bool:
    return len(shape) == len(form) and all(n in (None, m) for n, m in zip(form, shape, strict=True))
