import numpy as np
import pytest

from deepmerge.data.formats import npy_file


@pytest.mark.parametrize("dtype", ["<f4", "u1", ">i2"])
def test_values_written_in_pieces_behind_the_header_are_the_array_and_its_file_is_numpys(tmp_path, dtype):
    array = np.arange(24).reshape(4, 3, 2).astype(dtype)
    path = tmp_path / "a.npy"
    with path.open("wb") as file:
        npy_file.write_header(file, dtype, array.shape)
        for piece in np.split(array, 2):
            file.write(piece.tobytes())
    np.save(tmp_path / "b.npy", array)
    assert path.read_bytes() == (tmp_path / "b.npy").read_bytes()
