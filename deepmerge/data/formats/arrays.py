"""Arrays in npy files."""

from pathlib import Path

import numpy as np

from deepmerge.errors import InputError


def open_array(path: Path, what: str) -> np.ndarray:
    """Memory-map a numeric npy file (pickles refused). Raises InputError if that cannot be done."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise InputError(
            f"{what} expected at {path}, where there is no file; "
            "'deepmerge data simulate' makes the demo sample, 'deepmerge data fetch' gets the released one"
        ) from None
    except (ValueError, TypeError, OverflowError, EOFError, OSError) as error:
        raise InputError(f"{what} in {path} should be a plain numeric npy file, but: {error}") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "buif":
        raise InputError(f"{what} in {path} should be a numeric npy array, got {getattr(array, 'dtype', 'an archive')}")
    return array
