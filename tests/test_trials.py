"""The scale of a search's figures: whatever the values, every trial has its place on the axis."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from deepmerge.jobs.tune.trials import Scale, TrialPoint

VALUES = st.floats(-1e6, 1e6)
COMPLETE = st.builds(TrialPoint, st.just(0), st.just("complete"), VALUES)
PRUNED = st.builds(TrialPoint, st.just(0), st.just("pruned"), st.none(), epochs=st.lists(VALUES, max_size=3))
FAILED = st.builds(TrialPoint, st.just(0), st.just("failed"))


@settings(deadline=None, derandomize=True, max_examples=50)
@given(trials=st.lists(COMPLETE | PRUNED | FAILED, max_size=12), direction=st.sampled_from(["minimize", "maximize"]))
def test_every_mark_lies_on_the_axis_and_the_best_trial_at_its_value(trials, direction):
    trials = [TrialPoint(number, t.state, t.value, t.params, t.epochs) for number, t in enumerate(trials)]
    scale = Scale(trials, direction, None)
    axes = Figure().subplots()
    scale.draw(axes, range(len(trials)), trials)
    scale.label(axes, "loss")
    low, high = axes.get_ylim()
    heights = [line.get_ydata()[0] for line in axes.get_lines() if line.get_marker() != "*"]
    assert len(heights) == len(trials)
    assert all(low < height < high for height in heights)
    values = [trial.value for trial in trials if trial.state == "complete"]
    if values:
        assert trials[scale.best].value == (min if direction == "minimize" else max)(values)
        assert heights[scale.best] == pytest.approx(trials[scale.best].value)


@pytest.mark.parametrize(
    ("trial", "height"),
    [
        (TrialPoint(0, "complete", 0.4, epochs=[0.5, 0.4]), 0.4),
        (TrialPoint(0, "pruned", None, epochs=[0.5, 0.6, np.nan]), 0.6),
        (TrialPoint(0, "pruned", 0.7, epochs=[0.5]), 0.7),
        (TrialPoint(0, "pruned"), np.nan),
        (TrialPoint(0, "failed", 0.4, epochs=[0.5]), np.nan),
    ],
)
def test_a_trial_stands_at_its_value_or_that_of_its_last_epoch(trial, height):
    np.testing.assert_equal(trial.height, height)
