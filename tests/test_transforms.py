import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepmerge.data.transforms import TRANSFORMS, possible_transforms, transform

codes = st.integers(0, TRANSFORMS - 1)


def turned(code):
    """Which code an image (4, 4) of distinct pixels went through, as bytes that tell it from all others."""
    return transform(np.arange(16).reshape(4, 4), code).tobytes()


CODE_OF = {turned(code): code for code in range(TRANSFORMS)}


def after(first, second):
    """Code of the transform that does what `second` does after `first`; fails where there is none."""
    return CODE_OF[transform(transform(np.arange(16).reshape(4, 4), first), second).tobytes()]


def test_the_eight_transforms_differ_and_the_first_changes_nothing():
    assert len(CODE_OF) == TRANSFORMS
    assert turned(0) == np.arange(16).tobytes()


@given(codes, codes, codes)
def test_they_form_a_group(a, b, c):
    assert after(after(a, b), c) == after(a, after(b, c))
    assert after(a, 0) == after(0, a) == a
    assert [after(a, code) for code in range(TRANSFORMS)].count(0) == 1  # one inverse


@given(codes, st.integers(1, 6), st.integers(1, 6))
def test_they_are_quarter_turns_and_then_upside_down(code, height, width):
    image = np.random.default_rng(0).normal(size=(2, height, width))
    expected = np.rot90(image, code % 4, axes=(1, 2))
    np.testing.assert_array_equal(transform(image, code), expected[:, ::-1] if code >= 4 else expected)


@pytest.mark.parametrize(("shape", "count"), [((2, 75, 75), 8), ((2, 75, 60), 4)])
def test_what_is_possible_keeps_the_frame(shape, count):
    possible = possible_transforms(shape)
    assert len(possible) == count
    assert {transform(np.zeros(shape), code).shape for code in possible} == {shape}
