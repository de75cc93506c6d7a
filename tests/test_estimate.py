import math

import numpy as np
import pytest

from deepmerge.analysis.metrics import point_metrics
from deepmerge.estimate import AT_BALANCE, METRICS, UNDEFINED, Estimate, flat, gathered, names, read

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


def random_estimates(rng):
    """Some estimates of any names, undefined ones among them, also such that end like the end of an interval."""
    known = ["auc", "test_auc", "a_low_b", "low", "mass_low", "x_high", "n", "purity_at_balance"]
    values = [Estimate(*rng.choice([NAN, 0.0, -1.5, 0.25, 1e9], 3)) for _ in known]
    chosen = rng.permutation(len(known))[: rng.integers(len(known) + 1)]
    return {known[i]: values[i] for i in chosen}


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("prefix", ["", "test"])
def test_what_is_stored_flat_comes_back(seed, prefix):
    given = random_estimates(np.random.default_rng(seed))
    stored = flat(given, prefix)
    assert len(stored) == 3 * len(given)
    found = gathered(stored, prefix)
    assert list(found) == list(given)
    np.testing.assert_equal([found[name] for name in given], list(given.values()))
    assert names(stored) == [f"{prefix}_{name}" if prefix else name for name in given]


def test_what_is_missing_is_undefined():
    np.testing.assert_equal(read({"a": 1.0, "a_low": 0.5}, "a"), Estimate(1.0, 0.5, NAN))
    np.testing.assert_equal(read({}, "a"), UNDEFINED)
    assert not UNDEFINED.has_interval


def test_other_metrics_are_left_out():
    assert gathered({"test_auc": 0.5, "testing": 1.0, "val_auc": 0.2}, "test") == {
        "auc": pytest.approx((0.5, NAN, NAN), nan_ok=True)
    }


def test_every_metric_that_is_measured_has_a_label_and_a_better_side_but_the_counts():
    measured = set(point_metrics(np.array([0, 1, 1]), np.array([0.1, 0.4, 0.9])))
    assert measured == set(METRICS) | {"tp", "fp", "tn", "fn"}
    assert {metric.better for metric in METRICS.values()} == {1, -1}
    assert len({metric.label for metric in METRICS.values()}) == len(METRICS)
    for name, metric in METRICS.items():
        if name.endswith(AT_BALANCE):
            label, better = METRICS[name.removesuffix(AT_BALANCE)]
            assert metric == (f"{label} at balance", better)
