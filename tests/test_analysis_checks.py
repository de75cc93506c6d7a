"""What analysis refuses, and in what words."""

import numpy as np
import pytest

from deepmerge.analysis import checks
from deepmerge.errors import InputError

RIGHT = {"labels": [0, 1, 1], "probabilities": [0.1, 0.2, 0.3], "galaxies": [1, 2, 3]}


def test_predictions_come_as_integers_floats_and_ids_that_can_be_sorted():
    y, p, ids = checks.predictions([True, False], np.array([[0.1], [1]], np.float32), np.array([5, "a"], object))
    assert y.tolist() == [1, 0]
    assert (y.dtype, p.dtype) == (np.intp, np.float64)
    assert p.tolist() == [np.float32(0.1), 1]  # a column, as Keras returns it
    assert sorted(ids) == ["5", "a"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": [0, 1]}, r"one length.*got shapes \(2,\), \(3,\), \(3,\)"),
        ({"galaxies": [1, 2]}, "one length"),
        ({"labels": [], "probabilities": [], "galaxies": []}, "one length"),
        ({"labels": [0, 1, 2]}, "0 .*or 1 .*got"),
        ({"labels": [0, 1, np.nan]}, "0 .*or 1 .*nan"),
        ({"probabilities": [0.1, 1.2, 0.3]}, r"\[0, 1\], got 1.2 in row 1 .*sigmoid"),
        ({"probabilities": [0.1, np.nan, 0.3]}, r"\[0, 1\], got nan in row 1"),
        ({"probabilities": ["a", "b", "c"]}, "numbers"),
        ({"galaxies": [1.0, np.nan, 2.0]}, "galaxy of every image, got None or NaN for 1"),
        ({"galaxies": np.array(["a", None, "b"], dtype=object)}, "galaxy of every image"),
    ],
)
def test_wrong_predictions_are_named(change, message):
    with pytest.raises(InputError, match=message) as error:
        checks.predictions(**{**RIGHT, **change})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("rows", [[3], [-1], [], [[0, 1]], [0.0], [True, False, True]])
def test_rows_that_are_no_row_numbers_are_refused(rows):
    assert checks.row_numbers("rows", range(3), 3).tolist() == [0, 1, 2]
    with pytest.raises(InputError, match="rows should be a list of row numbers 0 … 2"):
        checks.row_numbers("rows", rows, 3)


@pytest.mark.parametrize(
    ("values", "message"), [(["a", "b"], "got something else"), ([1.0], r"\(1,\)"), ([1, np.inf], "with 1 infinite")]
)
def test_measurements_are_numbers_one_an_image_or_nan(values, message):
    np.testing.assert_array_equal(checks.measurements("mass", [1, None], 2), [1.0, np.nan])
    with pytest.raises(InputError, match=f"mass should be 2 numbers, one an image.*{message}"):
        checks.measurements("mass", values, 2)


@pytest.mark.parametrize("value", [0, 2.5, "3"])
def test_a_number_that_is_not_whole_or_too_small_is_refused(value):
    checks.whole_number("bins", np.int64(1), 1, usual=5)
    with pytest.raises(InputError, match=r"bins should be a whole number ≥ 1 \(5 is usual\), got"):
        checks.whole_number("bins", value, 1, usual=5)
