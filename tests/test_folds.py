"""Predictions of several networks judged together."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from deepmerge.analysis import metrics
from deepmerge.analysis.sample import Sample
from deepmerge.errors import InputError
from deepmerge.estimate import WITH_VIEWS

RANKING = ("auc", "average_precision", "average_precision_at_balance")


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
    assert metrics.evaluate(labels, probabilities, galaxies, fold).metrics["auc"].value == pytest.approx(
        np.mean(each), abs=0.01
    )


def test_a_network_that_is_surer_of_everything_changes_no_ranking():
    plain, shifted = (metrics.evaluate(*sample(shift)) for shift in (0.0, 4.0))
    for name in RANKING:
        assert shifted.metrics[name] == plain.metrics[name]
    np.testing.assert_array_equal(shifted.true_positive_rate.value, plain.true_positive_rate.value)
    labels, probabilities, galaxies, _ = sample(4.0)
    assert metrics.evaluate(labels, probabilities, galaxies).metrics["auc"].value < plain.metrics["auc"].value - 0.05


def test_what_is_no_ranking_is_of_the_probabilities_themselves():
    labels, probabilities, galaxies, fold = sample(1.0)
    found, plain = (
        metrics.evaluate(labels, probabilities, galaxies, fold),
        metrics.evaluate(labels, probabilities, galaxies),
    )
    for name in set(plain.metrics) - {*RANKING, "galaxy_auc", "galaxy_average_precision"}:
        np.testing.assert_equal(found.metrics[name], plain.metrics[name])


def test_with_one_fold_nothing_is_different_for_the_auc():
    labels, probabilities, galaxies, _ = sample()
    found = metrics.evaluate(labels, probabilities, galaxies, np.zeros(len(labels)))
    plain = metrics.evaluate(labels, probabilities, galaxies)
    assert found.metrics["auc"] == pytest.approx(plain.metrics["auc"])


def test_a_difference_is_that_of_the_two_evaluations():
    labels, ours, galaxies, fold = sample(2.0)
    theirs = sample(0.0, seed=4)[1]
    change = metrics.difference(labels, ours, theirs, galaxies, fold)
    both = [metrics.evaluate(labels, p, galaxies, fold).metrics for p in (ours, theirs)]
    for name in change:
        assert change[name].value == pytest.approx(both[0][name].value - both[1][name].value)


def test_ranks_within_a_fold_equal_a_slow_count_with_half_of_the_ties():
    probabilities = np.array([0.1, 0.4, 0.4, 0.9, 0.2, 0.2, 0.8])
    fold = np.array([0, 0, 0, 0, 1, 1, 1])
    slow = [
        np.mean((probabilities[fold == f] < p) + 0.5 * (probabilities[fold == f] == p))
        for p, f in zip(probabilities, fold, strict=True)
    ]
    images = Sample.of(np.arange(7) % 2, probabilities, np.arange(7), fold)
    np.testing.assert_allclose(images.within_folds().probabilities, slow)


def test_folds_of_another_length_are_refused():
    labels, probabilities, galaxies, fold = sample()
    with pytest.raises(InputError, match=r"^folds should have an entry an image, 120 of them, got shape \(119,\)$"):
        metrics.evaluate(labels, probabilities, galaxies, fold[1:])


def test_galaxies_are_scored_by_the_mean_of_their_views_and_ranked_within_folds():
    labels, probabilities, galaxies, fold = sample(4.0)
    found = metrics.evaluate(labels, probabilities, galaxies, fold).metrics
    together = pd.DataFrame({"y": labels, "p": probabilities, "fold": fold}).groupby(galaxies).mean()
    together["rank"] = together.groupby("fold")["p"].rank()  # both folds have 30 galaxies
    assert found["galaxy_auc"].value == pytest.approx(roc_auc_score(together["y"], together["rank"]))
    weights = np.where(together["y"] == 1, 1 / together["y"].sum(), 1 / (1 - together["y"]).sum())
    loss = log_loss(together["y"], together["p"], sample_weight=weights)
    assert found["galaxy_log_loss_at_balance"].value == pytest.approx(loss)


def test_galaxies_of_a_single_view_have_the_metrics_and_intervals_of_images():
    labels, probabilities, _, _ = sample()
    found = metrics.evaluate(labels, probabilities, np.arange(len(labels))).metrics
    for name in WITH_VIEWS:
        assert found[f"galaxy_{name}"] == pytest.approx(found[name], nan_ok=True)


def test_the_interval_of_galaxies_is_that_of_a_sample_with_an_image_each():
    labels, probabilities, galaxies, _ = sample()
    found = metrics.evaluate(labels, probabilities, galaxies).metrics
    together = pd.DataFrame({"y": labels, "p": probabilities}).groupby(galaxies).mean()
    alone = metrics.evaluate(together["y"].to_numpy(int), together["p"].to_numpy(), np.arange(60)).metrics
    for name in WITH_VIEWS:
        assert found[f"galaxy_{name}"] == pytest.approx(alone[name])


def test_a_galaxy_with_images_of_both_classes_counts_in_each():
    labels, probabilities = np.array([0, 1, 0, 1]), np.array([0.1, 0.9, 0.3, 0.2])
    assert metrics.evaluate(labels, probabilities, np.array([5, 5, 6, 7])).metrics["galaxy_auc"].value == 0.75
