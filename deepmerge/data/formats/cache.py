"""Decoded images, kept as npy files that are memory-mapped: made once, by whoever comes first.

A file's name holds a digest of what it was made from: of each source its name, bytes and times of change, and how it
was decoded. Reading 10⁵ files in full to see whether they are the same would take as long as decoding them; asking
for their sizes and times takes a second. The time of the last change of the entry (ctime), which no program can set,
is among them: a file that is replaced by one of the same size and date is noticed, too.
"""

import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from deepmerge import files
from deepmerge.data.formats.arrays import open_array
from deepmerge.errors import InputError

VERSION = 1  # of the way in which images are decoded; another one makes them anew


def state(path: Path | str) -> tuple[int, int, int]:
    """What tells a file from the same one after a change: bytes, and the times of the last change of it."""
    found = os.stat(path)  # noqa: PTH116 - 10⁵ of them
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def array(folder: Path, name: str, made_from: Iterable[Any], make: Callable[[Path], None]) -> np.ndarray:
    """The memory-mapped array that `make` writes to the npy file that it is given, or wrote to it before.

    made_from: all that the array depends on, told by its repr. A process that comes while another makes the same waits
    for it. Raises InputError where nothing can be written.
    """
    digest = hashlib.sha256(repr(VERSION).encode())
    for part in made_from:
        digest.update(repr(part).encode() + b"\n")
    path = folder / f"{name}-{digest.hexdigest()[:16]}.npy"
    if not path.exists():
        try:
            files.hidden_folder(folder)
            with FileLock(path.with_suffix(".lock")):
                if not path.exists():
                    with files.replacing(path) as aside:
                        make(aside)
        except OSError as error:
            raise InputError(
                f"decoded images are kept in {folder}, but: {error.strerror or error}; make room there, or "
                "name another folder: 'cache:' below 'data:'"
            ) from error
    return open_array(path, "decoded images")


def create(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> np.memmap:
    """An npy file to be filled, memory-mapped, whose bytes are on disk by now: writing cannot fail any more."""
    array: np.memmap = np.lib.format.open_memmap(path, "w+", dtype, shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array
