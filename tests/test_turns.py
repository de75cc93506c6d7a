"""The eight turns and flips of the square."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from deepmerge.data import turns
from deepmerge.data.turns import TRANSFORMS, transform

SIDES = st.integers(2, 6)
CODES = st.sampled_from(range(TRANSFORMS))
PLACES = np.arange(9).reshape(3, 3)  # nine pixels, all different: which turn it was can be read from them


def code_of(image):
    """The turn that gives this image of PLACES."""
    [code] = [code for code in range(TRANSFORMS) if np.array_equal(transform(PLACES, code), image)]
    return code


def images(draw, height, width):
    return draw(arrays.arrays(np.int16, (2, height, width)))


@given(st.data(), SIDES, CODES, CODES)
def test_two_turns_after_each_other_are_one_of_the_eight(data, side, first, second):
    image = images(data.draw, side, side)
    both = code_of(transform(transform(PLACES, first), second))
    np.testing.assert_array_equal(transform(transform(image, first), second), transform(image, both))


@given(st.data(), SIDES, CODES)
def test_each_turn_is_taken_back_by_one_of_the_eight_and_0_changes_nothing(data, side, code):
    image = images(data.draw, side, side)
    [back] = [other for other in range(TRANSFORMS) if code_of(transform(transform(PLACES, code), other)) == 0]
    np.testing.assert_array_equal(transform(transform(image, code), back), image)
    np.testing.assert_array_equal(transform(image, 0), image)


@given(st.data(), SIDES, SIDES, CODES)
def test_a_turn_is_numpys(data, height, width, code):
    image = images(data.draw, height, width)
    expected = np.rot90(image, code % 4, axes=(-2, -1))
    np.testing.assert_array_equal(transform(image, code), np.flip(expected, -2) if code >= 4 else expected)


@pytest.mark.parametrize("width", [3, 4])
def test_the_possible_turns_keep_the_frame_and_are_all_that_do(width):
    image = np.arange(3 * width).reshape(3, width)
    kept = [code for code in range(TRANSFORMS) if transform(image, code).shape == image.shape]
    assert turns.possible_transforms(image.shape).tolist() == kept


def test_the_copies_of_the_release_are_flipped_and_turned_as_their_names_say():
    expected = [PLACES, np.flipud(PLACES), np.fliplr(PLACES), np.rot90(PLACES), np.rot90(PLACES, 2)]
    for code, image in zip(turns.RELEASE_COPIES, expected, strict=True):
        np.testing.assert_array_equal(transform(PLACES, int(code)), image)
