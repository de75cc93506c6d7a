"""npy files that are written piece by piece."""

from typing import BinaryIO

import numpy as np
from numpy.typing import DTypeLike


def write_header(file: BinaryIO, dtype: DTypeLike, shape: tuple[int, ...]) -> None:
    """Begin an npy file of this shape, whose values follow in C order.

    Written, not mapped: on a full disk a mapped file kills the process where a write raises.
    """
    descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
