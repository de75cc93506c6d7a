import numpy as np
import pandas as pd
import pytest

from deepmerge.data import labels
from deepmerge.errors import InputError


def of(*cells, mergers=None):
    return labels.of_cells(pd.Series(cells, dtype=str), mergers, "t.csv").tolist()


@pytest.mark.parametrize(
    "cells", [("1", "0"), ("1.0", "0.0"), ("True", "false"), ("Merger", "non-merger"), ("mergers", "Non Mergers")]
)
def test_numbers_and_words_of_both_classes(cells):
    assert of(*cells) == [1, 0]


def test_labels_that_mean_mergers_are_named():
    assert of("Sb", "Interacting", "E", mergers=["interacting"]) == [0, 1, 0]
    assert of("1.0", "0", "7", mergers=[1, 7]) == [1, 0, 1]


def test_what_no_label_says_is_refused():
    with pytest.raises(InputError, match=r"got 'Sb' in data row 1; the labels are 1, Sb: say which of them mean a mer"):
        of("1", "Sb")
    with pytest.raises(InputError, match=r"mergers should be labels of t.csv, which are 0, 1, got 2 that is none"):
        of("0", "1", mergers=[1, 2])
    with pytest.raises(InputError, match="complete, got nothing in data row 1"):
        of("1", "", mergers=[1])


def test_stages_are_labels_too():
    cells = pd.Series(["past", "Non Merger", "future", "merger"], dtype=str)
    assert labels.of_stages(cells, "t.csv").tolist() == [1, 0, 1, 1]
    with pytest.raises(InputError, match="one of past, future, merger, non-merger, got 'Sb' in data row 0"):
        labels.of_stages(pd.Series(["Sb"], dtype=str), "t.csv")


def test_both_classes_have_to_be_there():
    with pytest.raises(InputError, match="both 0"):
        labels.checked(np.ones(3), 3, "t.csv")
