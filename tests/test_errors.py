import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepmerge.errors import LONGEST, Failed, InputError, Refused, one_line

KINDS = [InputError, Refused, Failed]


@given(st.text(st.characters(), max_size=60), st.integers(1, 300))
def test_any_text_is_told_in_one_bounded_line_that_can_be_printed(text, times):
    told = one_line(text * times)
    assert told.isprintable()
    assert len(told) <= LONGEST


@pytest.mark.parametrize("kind", KINDS)
def test_a_message_stays_as_it_is_where_it_is_one_line(kind):
    said = "size should be 75 pixels,  got 'é × ü'"
    assert str(kind(said)) == said
    assert str(pickle.loads(pickle.dumps(kind(said)))) == said


@pytest.mark.parametrize("kind", KINDS)
def test_lines_become_one_and_what_a_terminal_obeys_is_escaped(kind):
    assert str(kind("got\n  two lines, \x1b[2J and \udc80")) == r"got two lines, \x1b[2J and \udc80"


def test_what_mends_it_stands_at_the_end_of_a_long_message_too():
    told = str(InputError(f"label should be 0 or 1, got {'9' * 5000!r} in data row 3; mend it"))
    assert told.startswith("label should be 0 or 1, got '999")
    assert told.endswith("999' in data row 3; mend it")
    assert len(told) == LONGEST
