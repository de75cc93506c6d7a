import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepmerge.analysis.calibration import LINE
from deepmerge.analysis.metrics import evaluate
from deepmerge.estimate import AT_BALANCE, METRICS, OF_GALAXIES, UNDEFINED, Estimate, flat, gathered, names, read

NAN = math.nan


@pytest.mark.parametrize(
    ("estimate", "form", "text"),
    [
        (Estimate(0.9661, 0.9391, 0.98912), "z.3f", "0.966 [0.939, 0.989]"),
        (Estimate(-0.0001, -0.1, 0.1), "z.3f", "0.000 [-0.100, 0.100]"),
        (Estimate(0.5), "z.3f", "0.500"),
        (Estimate(0.5, 0.4, NAN), "z.3f", "0.500"),
        (Estimate(NAN, 0.4, 0.6), "z.3f", "undefined"),
        (Estimate(0.01234, -0.01, 0.04), "+.4f", "+0.0123 [-0.0100, +0.0400]"),
        (Estimate(2, 1, 3), ".0f", "2 [1, 3]"),
    ],
)
def test_an_estimate_is_written_with_the_interval_that_it_has(estimate, form, text):
    assert estimate.text(form) == text


NUMBERS = st.sampled_from([NAN, 0.0, -1.5]) | st.floats(-1e9, 1e9)
ESTIMATES = st.builds(Estimate, NUMBERS, NUMBERS, NUMBERS)
# Names of several words, some of which end like an end of an interval.
NAMES = st.lists(st.sampled_from(["auc", "low", "high", "at", "n"]), min_size=1, max_size=4).map("_".join)
NAMED = st.dictionaries(NAMES, ESTIMATES, max_size=8).filter(
    lambda named: not any(f"{name}_{end}" in named for name in named for end in ("low", "high"))
)


@given(NAMED, st.sampled_from(["", "test", "val_low"]))
def test_what_is_stored_flat_comes_back(estimates, prefix):
    stored = flat(estimates, prefix)
    assert len(stored) == 3 * len(estimates)
    assert names(stored) == [f"{prefix}_{name}" if prefix else name for name in estimates]
    again = gathered(stored, prefix)
    assert list(again) == list(estimates)
    np.testing.assert_equal(list(again.values()), list(estimates.values()))


@given(NAMED)
def test_what_is_undefined_may_be_left_out_of_the_store(estimates):
    defined = {name: each for name, each in estimates.items() if not math.isnan(each.value)}
    stored = {name: number for name, number in flat(defined).items() if not math.isnan(number)}
    again = gathered(stored)
    np.testing.assert_equal(list(again.items()), list(defined.items()))


@given(ESTIMATES)
def test_what_is_written_can_be_read_again(estimate):
    """A value, and its interval where both ends are known, to the digits that are written."""
    *numbers, rest = re.split(r"(?: \[|, |\]|$)", estimate.text(".4f"), maxsplit=1 + 2 * estimate.has_interval)
    assert rest == ""
    if math.isnan(estimate.value):
        assert estimate.text() == "undefined"
    else:
        known = estimate if estimate.has_interval else estimate[:1]
        assert [float(number) for number in numbers] == pytest.approx(list(known), abs=5.1e-5)


def test_what_is_missing_is_undefined():
    np.testing.assert_equal(read({"a": 1.0, "a_low": 0.5}, "a"), Estimate(1.0, 0.5, NAN))
    np.testing.assert_equal(read({}, "a"), UNDEFINED)
    assert not UNDEFINED.has_interval


def test_other_metrics_are_left_out():
    assert gathered({"test_auc": 0.5, "testing": 1.0, "val_auc": 0.2}, "test") == {
        "auc": pytest.approx((0.5, NAN, NAN), nan_ok=True)
    }


def test_every_metric_that_is_measured_has_a_label_and_a_better_side_but_the_counts():
    measured = set(evaluate(np.array([0, 1, 1]), np.array([0.1, 0.4, 0.9]), np.arange(3)).metrics)
    assert measured == set(METRICS) | {"tp", "fp", "tn", "fn"}
    assert {name for name, metric in METRICS.items() if metric.better == 0} == set(LINE)
    assert {metric.better for name, metric in METRICS.items() if name not in LINE} == {1, -1}
    assert len({metric.label for metric in METRICS.values()}) == len(METRICS)
    for name, metric in METRICS.items():
        if name.startswith(OF_GALAXIES):
            label, better = METRICS[name.removeprefix(OF_GALAXIES)]
            assert metric == (f"{label} of galaxies", better)
        elif name.endswith(AT_BALANCE):
            label, better = METRICS[name.removesuffix(AT_BALANCE)]
            assert metric == (f"{label} at balance", better)
