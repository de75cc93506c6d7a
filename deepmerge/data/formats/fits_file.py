"""The images and the tables of a FITS file, in whichever of its HDUs they stand, compressed or not.

Images are read piece by piece, so that memory stays flat. Those of a tile-compressed HDU (fpack, ``.fz``) are decoded
as they are read. A file packed as a whole (gzip, bzip2, xz; known by its content) is unpacked as it is read, some times
over: to see that it is complete, to find the HDUs, for the table, and for the images. That takes time, but no disk.
"""

import bz2
import gzip
import io
import logging
import lzma
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deepmerge.data.released import download
from deepmerge.errors import InputError

logger = logging.getLogger(__name__)

SCIENCE = "SCI"  # name of the HDU that holds the images where errors and masks stand beside them
MAGIC = b"SIMPLE  ="
UNPACK: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
_NOT_UNPACKED = (b"\x1f\x9d", b"PK")
_PIECE_BYTES = 1 << 20
_MOST_LISTED = 4  # HDUs that a message lists


@dataclass(frozen=True)
class FitsFile:
    """An open FITS file: what its HDUs hold in words, and `shape` and BITPIX of its images.

    BSCALE, BZERO and BLANK are applied to what `read` gives.
    """

    path: Path
    contents: str
    shape: tuple[int, ...]
    bitpix: int
    tables: tuple["FitsTable", ...]
    _images: Any

    def read(self, part: slice) -> np.ndarray:
        """A slice of the first axis of the images. Raises InputError where the file is damaged there."""
        with _explained(self.path):
            return np.asarray(self._images.section[part])


@dataclass(frozen=True)
class FitsTable:
    """One table of a FITS file."""

    path: Path
    place: str
    rows: int
    _hdu: Any

    def columns(self) -> dict[str, np.ndarray]:
        """Its columns by name, each (rows, …) or masked where it is empty; text without blanks around it."""
        with _explained(self.path):
            return {column.name: _values(self._hdu.data.field(column.name), column) for column in self._hdu.columns}

    def units(self) -> dict[str, str]:
        """The units of the columns that have one."""
        return {column.name: column.unit for column in self._hdu.columns if column.unit}


def is_fits(path: Path) -> bool:
    """Whether a file is FITS, packed or not, by its content, or claims to be by its name."""
    with path.open("rb") as file:
        start = file.read(len(MAGIC))
    return start == MAGIC or start.startswith((*UNPACK, *_NOT_UNPACKED[:1])) or plain_name(path.name) != path.name


def plain_name(name: str) -> str:
    """A file's name without what FITS and compression add: ``my.fits.gz`` → ``my``."""
    return re.sub(r"(\.(fits|fit|fts))?(\.(gz|bz2|xz|fz)){0,2}$", "", name, flags=re.IGNORECASE)


@contextmanager
def opened(path: Path, hdu: str | None = None, axes: tuple[int, ...] = (4,)) -> Iterator[FitsFile]:
    """Open the images of a FITS file: those of the first HDU that has as many axes, or of the one named SCI among them.

    Where none has so many axes, those of the only HDU that has any. `hdu`, a name or a number, chooses another. Raises
    InputError for a file that is no FITS, truncated or damaged, or holds no images or several HDUs of other axes.
    """
    with _opened(path) as (hdus, places, size):
        with _explained(path):
            chosen = _chosen(path, hdus, places, axes) if hdu is None else _asked(path, hdus, places, hdu)
            images = hdus[chosen]
            _require_complete(path, images, size)
            tables, bitpix = _tables(path, hdus, places, size), int(images.header["BITPIX"])
            file = FitsFile(path, _contents(hdus, places), tuple(images.shape), bitpix, tables, images)
        yield file


def read_table(path: Path, hdu: str | None = None) -> tuple[dict[str, np.ndarray], dict[str, str]] | None:
    """The columns of the first table of a FITS file, or of HDU `hdu`, and units by column; None where there is none."""
    with _opened(path) as (hdus, places, size), _explained(path):
        place = None if hdu is None else places[_asked(path, hdus, places, hdu)]
        found = [table for table in _tables(path, hdus, places, size) if place in (None, table.place)]
        return (found[0].columns(), found[0].units()) if found else None


def holds_images(path: Path, hdu: str | None = None) -> bool:
    """Whether a FITS file, or its HDU `hdu`, holds an image, and is not a table alone."""
    with _opened(path) as (hdus, places, _), _explained(path):
        asked = hdus if hdu is None else [hdus[_asked(path, hdus, places, hdu)]]
        return any(_shape(each) for each in asked)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, list[str], int]]:
    """The HDUs of a FITS file, where they stand in words, and the bytes of the file when unpacked."""
    from astropy.io import fits
    from astropy.utils.exceptions import AstropyWarning

    unpack, size = _examined(path)
    with ExitStack() as stack:
        # Of a truncated file astropy only warns; the checks of completeness refuse it.
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore", AstropyWarning)
        with _explained(path):
            # Sections of an unmapped file are read one by one: memory stays flat.
            source = path if unpack is None else stack.enter_context(_Unpacked(unpack(path), size))
            hdus = stack.enter_context(fits.open(source, memmap=False))
            places = [
                f"HDU {number}{f' ({hdu.name})' if hdu.name else ''}" for number, hdu in enumerate(in_order(hdus))
            ]
        yield hdus, places, size


def in_order(hdus: Any) -> Iterator[Any]:
    """The HDUs of a file that is being opened, one behind the other.

    Raises ValueError where a header announces data of a negative size: astropy would go back by it, without end.
    """
    before = -1
    for hdu in hdus:
        place = hdu.fileinfo()["hdrLoc"]
        if place <= before:
            raise ValueError("a header announces data of a negative size")
        yield hdu
        before = place


def _tables(path: Path, hdus: Any, places: list[str], size: int) -> tuple[FitsTable, ...]:
    from astropy.io import fits

    found = [number for number, hdu in enumerate(hdus) if isinstance(hdu, fits.BinTableHDU | fits.TableHDU)]
    for number in found:
        _require_complete(path, hdus[number], size)
    return tuple(FitsTable(path, places[n], int(hdus[n].header["NAXIS2"]), hdus[n]) for n in found)


def _asked(path: Path, hdus: Any, places: list[str], hdu: str) -> int:
    """Number of the HDU that has this name or number."""
    names = [each.name.upper() for each in hdus]
    if hdu.upper() in names:
        return names.index(hdu.upper())
    if hdu.isdecimal() and int(hdu) < len(hdus):
        return int(hdu)
    raise InputError(f"Expected in {path} an HDU {hdu}, got {_contents(hdus, places)}.")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn the many errors that astropy and the decoders raise on a broken file into an InputError."""
    try:
        yield
    except InputError:
        raise
    except MemoryError as error:
        said = f" ({error})" if str(error) else ""
        raise InputError(f"{path} announces more than fits into memory{said}. Is its header damaged?") from error
    except Exception as error:
        problem = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"Expected a FITS file, but {path} cannot be read as one: {problem}. Get it again.") from error


def _examined(path: Path) -> tuple[Callable[..., Any] | None, int]:
    """What unpacks a FITS file, None for a plain one, and its bytes when unpacked.

    Raises InputError where it is something else, or packed and broken.
    """
    if not path.is_file():
        raise InputError(f"Expected a FITS file, but there is none at {path}.")
    with path.open("rb") as file:
        start = file.read(len(MAGIC))
    if start.startswith(_NOT_UNPACKED):
        raise InputError(f"Expected FITS, plain or gzip, bzip2 or xz, but {path} is compressed otherwise. Unpack it.")
    unpack = next((unpack for magic, unpack in UNPACK.items() if start.startswith(magic)), None)
    size = path.stat().st_size
    if unpack is not None:
        try:
            with unpack(path) as file:
                start = file.read(len(MAGIC))
                size = len(start) + sum(len(piece) for piece in iter(lambda: file.read(_PIECE_BYTES), b""))
        except Exception as error:
            message = f"{path} is truncated or damaged: it cannot be unpacked ({error}). Get it again."
            raise InputError(message) from error
    if start != MAGIC:
        raise InputError(f"Expected a FITS file, but {path} is {download.kind_of(start)}. Download it again.")
    return unpack, size


class _Unpacked(io.RawIOBase):
    """A packed file as if it were unpacked, for reading; where it is read from counts only when it is read.

    astropy goes back to where it was after each piece. Done at once, that would unpack the whole file for each.
    """

    def __init__(self, stream: Any, size: int) -> None:
        self._stream, self._size, self._place = stream, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        return self._place

    def tell(self) -> int:
        return self._place

    def read(self, size: int = -1) -> bytes:
        if self._stream.tell() != self._place:
            self._stream.seek(self._place)
        content: bytes = self._stream.read(size)
        self._place += len(content)
        return content

    def close(self) -> None:
        self._stream.close()
        super().close()


def _chosen(path: Path, hdus: Any, places: list[str], axes: tuple[int, ...]) -> int:
    """Number of the HDU that holds the images."""
    images = [number for number, hdu in enumerate(hdus) if _shape(hdu)]
    if not images:
        raise InputError(f"Expected in {path} images (N, filters, H, W), got {_contents(hdus, places)}.")
    stacks = [number for number in images if len(_shape(hdus[number])) in axes]
    if not stacks and len(images) > 1:
        raise InputError(
            f"Expected in {path} all images in one HDU (N, filters, H, W), got {_contents(hdus, places)}. An HDU for "
            "each image or each filter is not read: stack them, channels first, and save the array."
        )
    candidates = stacks or images
    chosen = next((number for number in candidates if hdus[number].name.upper() == SCIENCE), candidates[0])
    if others := [places[number] for number in candidates if number != chosen]:
        logger.info("The images of %s are those of %s; not read: %s", path, places[chosen], ", ".join(others))
    return chosen


def _shape(hdu: Any) -> tuple[int, ...]:
    """Shape of an HDU's image, () where it holds none."""
    from astropy.io import fits

    if not isinstance(hdu, fits.PrimaryHDU | fits.ImageHDU | fits.CompImageHDU):
        return ()
    if not all(isinstance(length, int) and length >= 0 for length in hdu.shape):
        raise ValueError(f"its header announces an image of the shape {hdu.shape}")
    return () if 0 in hdu.shape else tuple(map(int, hdu.shape))


def _contents(hdus: Any, places: list[str]) -> str:
    """What the HDUs hold, in words; the first of many."""
    words = []
    for place, hdu in zip(places[:_MOST_LISTED], hdus, strict=False):
        if columns := getattr(hdu, "columns", None):
            words.append(f"{place}: a table of {hdu.header['NAXIS2']} rows ({', '.join(columns.names)})")
        else:
            words.append(f"{place}: {f'images {_shape(hdu)}' if _shape(hdu) else 'no data'}")
    more = [f"and {len(places) - _MOST_LISTED} more HDUs"] if len(places) > _MOST_LISTED else []
    return "; ".join(words + more)


def _require_complete(path: Path, hdu: Any, size: int) -> None:
    from astropy.io import fits

    place = hdu.fileinfo()
    # The size of a tile-compressed HDU is that of the pixels; in the file it takes what its table takes.
    needed = place["datLoc"] + (place["datSpan"] if isinstance(hdu, fits.CompImageHDU) else hdu.size)
    if size < needed:
        raise InputError(
            f"{path} is truncated: its headers announce at least {needed} bytes, it has {size}. Get it again."
        )


def _values(values: Any, column: Any) -> np.ndarray:
    """A column in the machine's byte order: text stripped, one value a row flat, whole numbers masked where empty."""
    array = np.asarray(values)
    if array.dtype.kind in "SU":
        array = np.char.strip(array.astype(str))
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.ndim > 1 and array.size == len(array):
        array = array.ravel()
    if array.dtype.kind in "iu" and column.null not in (None, ""):
        return np.ma.masked_equal(array, int(column.null) * int(column.bscale or 1) + int(column.bzero or 0))
    return array
