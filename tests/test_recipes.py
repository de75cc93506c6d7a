"""Recipes are what their experiment files say, and are compared as a slow loop would compare them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deepmerge import config
from deepmerge.studies import recipes
from deepmerge.studies.recipes import CHANGES, OWN, PUBLISHED, PUBLISHED_SETTINGS, time_to

SHIPPED = ("pristine", "noisy")


def by_a_loop(losses, seconds, target):
    for number, (loss, second) in enumerate(zip(losses, seconds, strict=True), 1):
        if loss <= target:
            return number, second
    return np.nan, np.nan


@pytest.mark.parametrize("seed", range(20))
def test_the_time_to_a_loss_is_that_of_a_loop(seed):
    rng = np.random.default_rng(seed)
    losses = rng.uniform(0.3, 0.9, 8).round(1)  # ties with the target among them
    losses[rng.integers(8)] = np.nan
    seconds = rng.uniform(1, 2, 8).cumsum()
    for target in (0.1, 0.5, 0.6, 1.0):
        np.testing.assert_equal(time_to(losses.tolist(), seconds, target), by_a_loop(losses, seconds, target))


def scored(*folds):
    """A recipe's galaxies, with the epochs and seconds until the target of each fold."""
    label = np.tile([0, 1], 20)
    probability = np.clip(0.5 + (label - 0.5) * np.linspace(-0.2, 1, 40), 0, 1)
    number = np.arange(40)
    known = {"row": number, "galaxy": number, "fold": number // 20, "label": label}
    twice = np.stack([probability, probability**2])  # seeds
    losses, epochs = np.array([0.4, 0.6]), np.array([1.0, 3.0])
    return recipes.Scored(pd.DataFrame(known), twice, np.array(folds, float), losses, epochs)


def test_a_fold_that_never_got_there_took_longer_than_any():
    never = (np.nan, np.nan)
    found = {
        OWN: scored((3, 30), (5, 50), (4, 40)),
        "most": scored((3, 30), never, (5, 50)),
        "few": scored(never, (3, 30), never),
    }
    table = recipes.recipe_table(found).set_index("recipe")
    assert table["trainings_at_target"].tolist() == [3, 2, 1]
    np.testing.assert_equal(table["epochs_to_target"].tolist(), [4, 5, np.nan])
    np.testing.assert_equal(table["seconds_to_target"].tolist(), [40, 50, np.nan])
    assert (table["lowest_val_log_loss"] == 0.5).all()
    assert (table[["change_auc", "change_auc_low", "change_auc_high"]] == 0).all(axis=None)
    assert table["change_auc_p"].isna().all()  # nothing scatters


@pytest.fixture(scope="module")
def shipped():
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(Path(__file__).parents[1])
        return {name: config.load(name) for name in (*SHIPPED, "published-pristine")}


def learned(experiment):
    """All that a training does, but for its seed and how long."""
    free = ("epochs", "seed")
    return {k: v for k, v in {**dict(experiment.network), **dict(experiment.training)}.items() if k not in free}


@pytest.mark.parametrize("name", SHIPPED)
def test_the_published_recipe_is_that_of_its_experiment_file_whatever_is_compared_with_it(shipped, name):
    other = shipped[name].with_settings({"batch_norm": "channels", "hidden": "relu", "width": 2.0, "l2": 0.1})
    for experiment in (shipped[name], other):
        assert learned(experiment.with_settings(PUBLISHED_SETTINGS)) == learned(shipped["published-pristine"])
    assert CHANGES[PUBLISHED] is PUBLISHED_SETTINGS


@pytest.mark.parametrize("name", SHIPPED)
def test_each_recipe_differs_from_the_experiment_in_what_it_says_and_nothing_else(shipped, name):
    own = shipped[name].settings()
    assert next(iter(CHANGES)) == OWN
    for words, change in CHANGES.items():
        found = shipped[name].with_settings(change).settings()
        assert {setting for setting in found if found[setting] != own[setting]} <= set(change)
        if words not in (OWN, PUBLISHED):
            [(setting, value)] = change.items()
            assert found[setting] == value != own[setting], words
    assert shipped[name].with_settings(CHANGES[OWN]) == shipped[name]
