"""Predictions of several networks judged together."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from deepmerge.analysis import metrics, ranking


def sample(shift=0.0, seed=3):
    """Two folds of 60 galaxies from two sides; the network of the second is surer of everything by `shift`."""
    rng = np.random.default_rng(seed)
    galaxies = np.repeat(np.arange(60), 2)
    labels = (galaxies % 3 == 0).astype(int)
    fold = galaxies // 30
    score = rng.normal(labels + 0.5 * rng.normal(size=60)[galaxies], 1) + shift * fold
    return labels, 1 / (1 + np.exp(-score)), galaxies, fold


def test_the_auc_of_folds_of_one_size_is_the_mean_of_their_aucs():
    labels, probabilities, galaxies, fold = sample()
    each = [roc_auc_score(labels[fold == number], probabilities[fold == number]) for number in (0, 1)]
    assert ranking.evaluate(labels, probabilities, galaxies, fold).metrics["auc"].value == pytest.approx(
        np.mean(each), abs=0.01
    )


def test_a_network_that_is_surer_of_everything_changes_no_ranking():
    plain, shifted = (ranking.evaluate(*sample(shift)) for shift in (0.0, 4.0))
    for name in ranking.RANKING:
        assert shifted.metrics[name] == plain.metrics[name]
    np.testing.assert_array_equal(shifted.true_positive_rate.value, plain.true_positive_rate.value)
    labels, probabilities, galaxies, _ = sample(4.0)
    assert metrics.evaluate(labels, probabilities, galaxies).metrics["auc"].value < plain.metrics["auc"].value - 0.05


def test_what_is_no_ranking_is_of_the_probabilities_themselves():
    labels, probabilities, galaxies, fold = sample(1.0)
    found, plain = (
        ranking.evaluate(labels, probabilities, galaxies, fold),
        metrics.evaluate(labels, probabilities, galaxies),
    )
    for name in set(plain.metrics) - set(ranking.RANKING):
        np.testing.assert_equal(found.metrics[name], plain.metrics[name])


def test_with_one_fold_nothing_is_different_for_the_auc():
    labels, probabilities, galaxies, _ = sample()
    found = ranking.evaluate(labels, probabilities, galaxies, np.zeros(len(labels)))
    plain = metrics.evaluate(labels, probabilities, galaxies)
    assert found.metrics["auc"] == pytest.approx(plain.metrics["auc"])


def test_a_difference_is_that_of_the_two_evaluations():
    labels, ours, galaxies, fold = sample(2.0)
    theirs = sample(0.0, seed=4)[1]
    change = ranking.difference(labels, ours, theirs, galaxies, fold)
    both = [ranking.evaluate(labels, p, galaxies, fold).metrics for p in (ours, theirs)]
    for name in change:
        assert change[name].value == pytest.approx(both[0][name].value - both[1][name].value)


def test_ranks_within_a_fold_equal_a_slow_count_with_half_of_the_ties():
    probabilities = np.array([0.1, 0.4, 0.4, 0.9, 0.2, 0.2, 0.8])
    fold = np.array([0, 0, 0, 0, 1, 1, 1])
    slow = [
        np.mean((probabilities[fold == f] < p) + 0.5 * (probabilities[fold == f] == p))
        for p, f in zip(probabilities, fold, strict=True)
    ]
    np.testing.assert_allclose(ranking.within_folds(probabilities, fold), slow)
