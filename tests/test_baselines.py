from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from deepmerge.errors import InputError
from deepmerge.studies.base import SHOWN
from deepmerge.studies.baselines import forests, study
from deepmerge.studies.baselines.forests import LOGISTIC, PROTOCOLS, RANDOM_FOREST, TRIVIAL, importance, leak, scores

REAL = Path(__file__).parents[2] / "shared" / "real"
LEARNED = (RANDOM_FOREST, LOGISTIC)


def sample(galaxies=150, views=4, *, share=0.3, seed=0):
    """`told` and `missing` (oftener NaN for mergers) tell the class, `mass` only which galaxy it is, `chance` nothing.

    All views of a galaxy have one mass, and every galaxy its own.
    """
    rng = np.random.default_rng(seed)
    galaxy = np.repeat(rng.permutation(galaxies) + 1000, views)
    labels = (galaxy - 1000 < share * galaxies).astype(int)
    n = len(galaxy)
    features = pd.DataFrame(
        {
            "told": labels + rng.normal(0, 0.7, n),
            "missing": np.where(rng.uniform(size=n) < 0.2 + 0.4 * labels, np.nan, rng.normal(size=n)),
            "mass": rng.normal(size=galaxies)[galaxy - 1000],
            "chance": rng.normal(size=n),
        }
    )
    return features, labels, galaxy


def halves(galaxy):
    """Rows of one half of the galaxies, and of the other."""
    return np.flatnonzero(galaxy % 2 == 0), np.flatnonzero(galaxy % 2)


@pytest.fixture(scope="module")
def drawn():
    return sample()


# --- scores ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LEARNED)
def test_a_baseline_tells_unseen_galaxies_apart_by_what_is_told(drawn, kind):
    features, labels, galaxy = drawn
    train, held_out = halves(galaxy)
    p = scores(kind, features, labels, train)
    assert p.shape == labels.shape
    assert ((p >= 0) & (p <= 1)).all()
    ideal = sk.roc_auc_score(labels[held_out], features["told"].iloc[held_out])
    assert sk.roc_auc_score(labels[held_out], p[held_out]) > ideal - 0.04


def test_the_trivial_baseline_is_one_half_for_every_image(drawn):
    features, labels, galaxy = drawn
    assert (scores(TRIVIAL, features, labels, halves(galaxy)[0]) == 0.5).all()


@pytest.mark.parametrize("kind", LEARNED)
def test_neither_values_nor_labels_outside_training_change_what_is_learned(drawn, kind):
    features, labels, galaxy = drawn
    train, held_out = halves(galaxy)
    other, wrong = features.copy(), labels.copy()
    other.iloc[held_out] = 1e6  # the medians that replace NaN would move, were they taken of all rows
    wrong[held_out] = 1 - wrong[held_out]
    expected = scores(kind, features, labels, train)
    np.testing.assert_array_equal(scores(kind, other, wrong, train)[train], expected[train])


@pytest.mark.parametrize("kind", LEARNED)
def test_that_a_quantity_is_missing_is_information(drawn, kind):
    features, labels, galaxy = drawn
    train, held_out = halves(galaxy)
    p = scores(kind, features[["missing"]], labels, train)[held_out]
    absent = features["missing"].isna().to_numpy()[held_out]
    assert sk.roc_auc_score(labels[held_out], p) > sk.roc_auc_score(labels[held_out], absent) - 0.03
    assert p[absent].min() > 0.5 > np.median(p[~absent])


@pytest.mark.parametrize("kind", LEARNED)
def test_probabilities_are_at_balance_whatever_the_share_of_mergers(kind):
    features, labels, galaxy = sample(300, share=0.1)
    p = scores(kind, features[["chance"]], labels, halves(galaxy)[0])
    assert np.median(p) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("kind", LEARNED)
def test_a_quantity_that_was_never_measured_changes_nothing_and_crashes_nothing(drawn, kind):
    features, labels, galaxy = drawn
    p = scores(kind, features[["told"]].assign(never=np.nan), labels, halves(galaxy)[0])
    assert sk.roc_auc_score(labels, p) > 0.7


def test_the_unit_of_a_quantity_does_not_change_the_logistic_regression(drawn):
    features, labels, galaxy = drawn
    train, _ = halves(galaxy)
    scaled = features.assign(told=1e4 * features["told"] - 7)
    expected = scores(LOGISTIC, features, labels, train)
    np.testing.assert_allclose(scores(LOGISTIC, scaled, labels, train), expected, atol=1e-3)


def test_a_forest_is_the_same_for_the_same_seed_and_another_for_another(drawn):
    features, labels, galaxy = drawn
    once, again, other = (scores(RANDOM_FOREST, features, labels, halves(galaxy)[0], seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(once, again)
    assert (once != other).any()


def test_folds_of_the_training_galaxies_choose_the_smallest_leaf(drawn, monkeypatch):
    features, labels, galaxy = drawn
    train, _ = halves(galaxy)
    expected = {}
    for leaf in (1, 300):  # the large one cannot split the half of the sample
        monkeypatch.setattr(forests, "_SMALLEST_LEAF", leaf)
        expected[leaf] = scores(RANDOM_FOREST, features, labels, train)
    monkeypatch.setattr(forests, "_LEAVES", (1, 300))
    chosen = scores(RANDOM_FOREST, features, labels, train, galaxies=galaxy)
    np.testing.assert_array_equal(chosen, expected[1])
    monkeypatch.setattr(forests, "_LEAVES", (300,))
    np.testing.assert_array_equal(scores(RANDOM_FOREST, features, labels, train, galaxies=galaxy), expected[300])
    others = np.where(np.isin(np.arange(len(labels)), train), labels, 1 - labels)
    np.testing.assert_array_equal(
        scores(RANDOM_FOREST, features, others, train, galaxies=galaxy), expected[300]
    )  # labels of others do not matter


def test_too_few_galaxies_for_folds_leave_the_usual_leaf():
    features, labels, galaxy = sample(12)
    train = np.arange(len(labels))
    np.testing.assert_array_equal(
        scores(RANDOM_FOREST, features, labels, train, galaxies=galaxy), scores(RANDOM_FOREST, features, labels, train)
    )


def test_a_forest_does_not_learn_the_views_of_one_galaxy_by_heart():
    """Mass alone names a galaxy. A leaf has to hold two of them, so a merger among non-mergers is not found again."""
    galaxies, views = 60, 4
    labels = np.repeat(np.arange(galaxies) % 6 == 3, views).astype(int)
    mass = pd.DataFrame({"mass": np.repeat(np.arange(galaxies), views)})
    p = scores(RANDOM_FOREST, mass, labels, np.arange(len(labels)))
    assert p.max() < 0.95


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "svm"}, "a baseline should be one of: random_forest, logistic, trivial; got 'svm'"),
        ({"features": pd.DataFrame({"name": ["a"] * 8})}, "columns of numbers"),
        ({"features": pd.DataFrame(index=range(8))}, "a column at least"),
        ({"features": pd.DataFrame({"x": [np.inf] * 8})}, "infinity in: x"),
        ({"labels": np.array([0, 1])}, "an entry for each"),
        ({"labels": np.zeros(8, int)}, r"both labels.*got \[0\]"),
        ({"labels": np.arange(8) % 3}, r"both labels.*got \[0, 1, 2\]"),
        ({"train": np.array([8])}, "row numbers 0 … 7"),
        ({"train": np.array([], int)}, "row numbers 0 … 7"),
        ({"train": np.ones(8, bool)}, "row numbers 0 … 7"),
    ],
)
def test_wrong_input_is_refused_in_one_line(changes, message):
    right = {
        "kind": LOGISTIC,
        "features": pd.DataFrame({"x": np.arange(8.0)}),
        "labels": np.arange(8) % 2,
        "train": np.arange(8),
    }
    scores(**right)
    with pytest.raises(InputError, match=message) as error:
        scores(**{**right, **changes})
    assert "\n" not in str(error.value)


# --- importance --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LEARNED)
def test_importance_is_the_mean_loss_of_auc_of_single_shuffles(drawn, kind):
    features, labels, galaxy = drawn
    train, held_out = halves(galaxy)
    found = importance(kind, features, labels, train, held_out, galaxy, repeats=10).set_index("feature")

    def auc(table):
        appended = pd.concat([features, table], ignore_index=True)
        p = scores(kind, appended, np.concatenate([labels, labels[held_out]]), train)
        return sk.roc_auc_score(labels[held_out], p[len(labels) :])

    rng = np.random.default_rng(7)
    known = features.iloc[held_out]
    losses = [auc(known) - auc(known.assign(told=rng.permutation(known["told"]))) for _ in range(3)]
    assert found.loc["told", "value"] == pytest.approx(np.mean(losses), abs=0.03)


def test_what_tells_the_class_is_important_and_chance_is_not(drawn):
    features, labels, galaxy = drawn
    found = importance(RANDOM_FOREST, features, labels, *halves(galaxy), galaxy)
    assert found.columns.tolist() == ["feature", "value", "low", "high"]
    assert found["feature"].tolist()[:2] == ["told", "missing"]
    assert found["value"].is_monotonic_decreasing
    assert (found["low"] <= found["value"]).all()
    assert (found["value"] <= found["high"]).all()
    by_name = found.set_index("feature")
    assert by_name.loc["told", "low"] > 0
    assert by_name.loc["chance", "low"] < 0.01


def test_nothing_is_important_to_the_trivial_baseline(drawn):
    features, labels, galaxy = drawn
    found = importance(TRIVIAL, features, labels, *halves(galaxy), galaxy)
    assert (found[["value", "low", "high"]] == 0).all(axis=None)


def test_held_out_rows_that_do_not_exist_are_refused(drawn):
    features, labels, galaxy = drawn
    with pytest.raises(InputError, match="held_out should be a list of row numbers"):
        importance(LOGISTIC, features, labels, np.arange(100), np.array([10**6]), galaxy)


# --- leak --------------------------------------------------------------------------------------------------


def test_a_split_of_rows_rewards_learning_galaxies_by_heart_and_a_split_by_galaxy_does_not():
    """The columns name a galaxy and tell nothing of its class: an honest classifier can only guess."""
    rng = np.random.default_rng(3)
    galaxies, views = 80, 20  # as many images of a merger as the release has
    galaxy = np.repeat(np.arange(galaxies), views)
    named = pd.DataFrame({name: rng.normal(size=galaxies)[galaxy] for name in ("mass", "concentration")})
    labels = (rng.permutation(galaxies) % 2)[galaxy]
    found = leak(named, labels, galaxy, repeats=2)
    assert found.groupby("protocol").size().to_dict() == dict.fromkeys(PROTOCOLS, 2)
    rows, by_galaxy = (found[found["protocol"] == protocol] for protocol in ("rows", "galaxy"))
    assert rows["auc"].min() > 0.95
    assert (rows["shared_galaxies"] == 1).all()
    assert (by_galaxy["shared_galaxies"] == 0).all()
    assert abs(by_galaxy["auc"].mean() - 0.5) < 0.25


def test_where_every_row_is_a_galaxy_of_its_own_there_is_nothing_to_leak(drawn):
    features, labels, _ = drawn
    found = leak(features[["told"]], labels, np.arange(len(labels)), repeats=2)
    assert (found["shared_galaxies"] == 0).all()
    means = found.groupby("protocol")["auc"].mean()
    assert means["rows"] == pytest.approx(means["galaxy"], abs=0.08)


def test_the_draws_depend_on_the_seed_alone(drawn):
    features, labels, galaxy = drawn
    once, again, other = (leak(features, labels, galaxy, repeats=1, seed=seed) for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(once, again)
    assert not once.equals(other)


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the release's catalogue arrays are not in {REAL}")
def test_mass_concentration_and_m20_of_the_release_tell_galaxies_and_not_mergers():
    names = ("logMstar", "concentration", "m20")
    features = pd.DataFrame({name: np.load(REAL / f"{name}.npy") for name in names})
    known = np.isfinite(features).all(axis=1).to_numpy()
    labels, galaxies = np.load(REAL / "subsamples_y.npy")[:, 0], np.load(REAL / "subsamples_ID.npy")
    found = leak(features[known], labels[known], galaxies[known], repeats=2)
    means = found.groupby("protocol")[["accuracy", "balanced_accuracy", "shared_galaxies"]].mean()
    assert means.loc["rows", "accuracy"] > 0.95
    assert means.loc["rows", "shared_galaxies"] > 0.99
    assert means.loc["galaxy", "balanced_accuracy"] == pytest.approx(0.5, abs=0.08)
    assert means.loc["galaxy", "shared_galaxies"] == 0


def test_of_baselines_that_are_alike_the_first_is_named_the_best():
    methods = [study.NETWORK, *(f"baseline {number}" for number in range(20)), "0.5 always"]
    numbers = {f"{name}_{metric}": 0.9 for name in ("test", "change") for metric in SHOWN}
    table = pd.DataFrame([{"method": method, **numbers} for method in methods])
    assert "(baseline 0)" in study.sentence(table)
