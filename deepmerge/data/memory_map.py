"""Memory-mapped arrays that are larger than memory should be."""

import mmap
import threading

import numpy as np

# Bytes that may be read before they are given back, which costs as much as reading an image or two. They may count for
# forty times as much: the system can map 2 MiB around each byte that is looked at.
KEPT = 2 * 2**20

_read = threading.local()


def forget(array: np.ndarray, after: int = 0) -> None:
    """Give back the memory of what was read of, or written to, a memory-mapped file; arrays in memory stay untouched.

    What was read counts as this process's memory until someone else needs it, so that a walk over a large file seems
    to take as much. The file's content is what it was, and comes back when it is looked at again. `after` is the number
    of bytes just read: nothing happens before they are KEPT in all, in this thread.
    """
    if after:
        _read.bytes = getattr(_read, "bytes", 0) + after
        if _read.bytes < KEPT:
            return
        _read.bytes = 0
    mapping: object = array
    while isinstance(mapping, np.ndarray):
        if isinstance(mapping, np.memmap) and mapping.mode == "c":
            return  # a private copy, whose changes are nowhere else
        mapping = mapping.base
    if isinstance(mapping, mmap.mmap) and hasattr(mapping, "madvise"):
        mapping.madvise(mmap.MADV_DONTNEED)
