"""What a change to the images does to scores, and what a trained network looks for in mock mergers."""

import numpy as np
import pytest
from conftest import predictions
from scipy.special import expit, logit

import deepmerge as dm
from deepmerge.analysis.counterfactual import effect
from deepmerge.errors import InputError


def test_scores_that_stay_change_by_nothing():
    labels, scores, galaxies = predictions()
    found = effect(labels, scores, scores, galaxies)
    for name in ("auc_change", "completeness_change", "logit_change"):
        assert found[name] == (0, 0, 0)
    assert 0.5 < found["auc"].low < found["auc"].value < found["auc"].high


def test_a_change_of_mergers_alone_is_found_with_its_interval():
    labels, scores, galaxies = predictions()
    shift = np.where(labels, -1 + 0.5 * np.random.default_rng(0).normal(size=200)[galaxies - 1000], 0)
    found = effect(labels, scores, expit(logit(scores) + shift), galaxies)
    change = found["logit_change"]
    assert change.value == pytest.approx(shift[labels == 1].mean())
    # Forty galaxies of merger, whose views all move alike.
    assert change.high - change.low == pytest.approx(2 * 1.96 * 0.5 / np.sqrt(40), rel=0.3)
    assert found["auc_change"].high < 0
    assert found["completeness_change"].high < 0


def test_a_change_of_non_mergers_is_no_change_of_mergers():
    labels, scores, galaxies = predictions()
    found = effect(labels, scores, np.where(labels, scores, scores / 2), galaxies)
    assert found["logit_change"] == (0, 0, 0)
    assert found["auc_change"].value > 0


def test_probabilities_of_0_and_1_have_a_finite_logit():
    labels, scores, galaxies = predictions()
    found = effect(labels, scores, np.round(scores), galaxies)
    assert np.isfinite(found["logit_change"]).all()


@pytest.mark.parametrize("wrong", [{"before": [0.5]}, {"after": [2.0] * 480}, {"labels": [3] * 480}])
def test_scores_that_do_not_fit_are_refused(wrong):
    labels, scores, galaxies = predictions()
    with pytest.raises(InputError):
        effect(**{"labels": labels, "before": scores, "after": scores, "galaxies": galaxies, **wrong})


@pytest.mark.slow
def test_a_network_trained_on_mocks_needs_shapes_and_not_bright_nuclei():
    data = dm.simulate(240, merger_fraction=0.5, seed=1)
    model = dm.train(data, dm.split(data, seed=1), epochs=20, batch_size=16)
    table = dm.counterfactual(model, 120, seed=2)
    assert table.index.tolist() == ["nothing", "companion", "tides", "young stars", "nuclei", "everything"]
    auc = table["auc"]
    assert auc["nothing"] > 0.65
    assert auc["everything"] == pytest.approx(0.5, abs=0.12)
    assert abs(table.loc["nuclei", "auc_change"]) < 0.05
    assert table.loc["tides", "auc_change_high"] < 0
    assert (table.loc["nothing", ["auc_change", "completeness_change", "logit_change"]] == 0).all()
