"""Arrays in npy files."""

from pathlib import Path

import numpy as np

from deepmerge.errors import InputError


def open_array(path: Path, what: str) -> np.ndarray:
    """Memory-map a numeric npy file (pickles refused). Raises InputError if that cannot be done."""
    try:
        with np.errstate(over="ignore"):  # of shapes that no file can have, which are refused
            array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise InputError(
            f"{what} expected at {path}, where there is no file; "
            "'deepmerge data simulate' makes the demo sample, 'deepmerge data fetch' gets the released one"
        ) from None
    except Exception as error:  # of a broken header numpy raises whatever Python's own parser does, MemoryError too
        said = str(error) or type(error).__name__
        raise InputError(f"{what} in {path} should be a plain numeric npy file, but: {said}") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "buif":
        raise InputError(f"{what} in {path} should be a numeric npy array, got {getattr(array, 'dtype', 'an archive')}")
    return array
