import tracemalloc

import numpy as np
import pytest
from conftest import influences, predictions, share_by_hand, spread_by_hand
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from deepmerge.analysis import intervals
from deepmerge.analysis.bootstrap import resampled
from deepmerge.analysis.measures import FALSE_POSITIVE_RATES
from deepmerge.analysis.metrics import (
    COUNTS,
    WITHOUT_INTERVAL,
    difference,
    evaluate,
    over_seeds,
    p_value,
    point_metrics,
    recovered,
)
from deepmerge.analysis.sample import BINS, SMALLEST_PROBABILITY, Sample
from deepmerge.errors import InputError
from deepmerge.estimate import OF_GALAXIES, WITH_BALANCE, Estimate


def of_images(names):
    """The metrics that are not of galaxies by all of their views; those are in test_folds."""
    return [name for name in names if not name.startswith(OF_GALAXIES)]


def by_scikit_learn(y, p, w, threshold=0.5):
    """The slow, independent version of every metric."""
    predicted = (p >= threshold).astype(int)
    tn, fp, fn, tp = sk.confusion_matrix(y, predicted, labels=[0, 1], sample_weight=w).ravel()
    clipped = np.clip(p, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)

    def at(w):
        error = 0.0
        for k in range(BINS):
            here = (p > k / BINS) & (p <= (k + 1) / BINS) | ((k == 0) & (p == 0))
            if w[here].sum() > 0:
                gap = np.average(p[here], weights=w[here]) - np.average(y[here], weights=w[here])
                error += w[here].sum() / w.sum() * abs(gap)
        return {
            "purity": sk.precision_score(y, predicted, sample_weight=w, zero_division=np.nan),
            "f1": sk.f1_score(y, predicted, sample_weight=w, zero_division=np.nan),
            "average_precision": sk.average_precision_score(y, p, sample_weight=w),
            "brier": sk.brier_score_loss(y, p, sample_weight=w),
            "log_loss": sk.log_loss(y, clipped, sample_weight=w),
            "calibration_error": error,
        }

    balance = w / np.where(y == 1, w[y == 1].sum(), w[y == 0].sum()) * w.sum() / 2
    return {
        **dict(zip(COUNTS, (tp, fp, tn, fn), strict=True)),
        "accuracy": sk.accuracy_score(y, predicted, sample_weight=w),
        "balanced_accuracy": sk.balanced_accuracy_score(y, predicted, sample_weight=w),
        "completeness": sk.recall_score(y, predicted, sample_weight=w),
        "auc": sk.roc_auc_score(y, p, sample_weight=w),
        **at(w),
        **{f"{name}_at_balance": value for name, value in at(balance).items()},
    }


LINE = ("calibration_intercept", "calibration_slope", "calibration_squared_error")  # test_miscalibration.py


def without_interval(name):
    return name in COUNTS or name in WITHOUT_INTERVAL


def assert_same(ours, theirs):
    assert set(ours) == set(theirs)
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name], value, rtol=1e-10, atol=1e-12, err_msg=name)


# --- point values ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decimals", [None, 2, 1, 0], ids=["no ties", "few ties", "many ties", "only 0 and 1"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("threshold", [0.5, 0.3])
def test_every_metric_equals_scikit_learn(decimals, weighted, threshold):
    y, p, _ = predictions(decimals=decimals)
    w = np.random.default_rng(1).uniform(0, 3, len(y)) if weighted else np.ones(len(y))
    ours = point_metrics(y, p, threshold=threshold, weights=w if weighted else None)
    assert_same(ours, by_scikit_learn(y, p, w, threshold))


def test_images_without_weight_might_as_well_be_absent():
    y, p, _ = predictions(decimals=1)
    w = np.random.default_rng(1).integers(0, 3, len(y))
    repeated = np.repeat(np.arange(len(y)), w)
    assert_same(point_metrics(y, p, weights=w), point_metrics(y[repeated], p[repeated]))


def test_golden_values_worked_by_hand():
    measured = point_metrics([1, 1, 1, 0, 0], [0.9, 0.6, 0.2, 0.6, 0.1])
    expected = {
        **{"tp": 2, "fp": 1, "tn": 1, "fn": 1, "accuracy": 0.6, "purity": 2 / 3, "completeness": 2 / 3},
        "f1": 2 / 3,
        "balanced_accuracy": (2 / 3 + 1 / 2) / 2,
        "auc": (2 + 1.5 + 1) / 6,  # pairs won by .9, .6 (one tie) and .2
        "average_precision": 1 / 3 + 2 / 3 / 3 + 3 / 4 / 3,
        "brier": (0.01 + 0.16 + 0.64 + 0.36 + 0.01) / 5,
        "log_loss": -np.log(0.9 * 0.6 * 0.2 * 0.4 * 0.9) / 5,
        # (0, .1] |.1 − 0|, (.1, .2] |.2 − 1|, (.5, .6] two with |.6 − .5|, (.8, .9] |.9 − 1|
        "calibration_error": (0.1 + 0.8 + 2 * 0.1 + 0.1) / 5,
        "purity_at_balance": (2 / 3) / (2 / 3 + 1 / 2),
        "brier_at_balance": (0.81 / 3 + 0.37 / 2) / 2,
    }
    assert {name: measured[name] for name in expected} == pytest.approx(expected)


def test_at_balance_equals_a_sample_with_as_many_of_both_classes():
    y, p, _ = predictions(decimals=2)
    doubled = np.concatenate([np.arange(len(y)), np.flatnonzero(y)])  # one in three becomes one in two
    ours, balanced = point_metrics(y, p), point_metrics(y[doubled], p[doubled])
    for name in WITH_BALANCE:
        assert ours[f"{name}_at_balance"] == pytest.approx(balanced[name]), name
        assert ours[name] != pytest.approx(balanced[name]), name
    for name in ("auc", "completeness", "balanced_accuracy"):
        assert ours[name] == pytest.approx(balanced[name]), name
    assert balanced["accuracy"] == pytest.approx(ours["balanced_accuracy"])


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 1000)), min_size=1, max_size=40), st.randoms())
def test_the_ranking_depends_on_the_order_of_probabilities_alone_and_not_on_that_of_images(images, random):
    def ranked(images, transformed=lambda p: p):
        y, p = np.array(images).T
        measured = point_metrics(y, transformed(p / 1000))
        return [measured[name] for name in ("auc", "average_precision", "average_precision_at_balance")]

    before = ranked(images)
    for transformed in (np.sqrt, lambda p: p**3 / 2, lambda p: 1 / (1 + np.exp(-9 * p))):
        np.testing.assert_allclose(ranked(images, transformed), before, rtol=1e-12)
    np.testing.assert_allclose(ranked(random.sample(images, len(images))), before, rtol=1e-12)
    y, p = np.array(images).T
    if 0 < y.sum() < len(y):
        pairs = np.sign(p[y == 1][:, None] - p[y == 0])
        assert before[0] == pytest.approx((1 + pairs.mean()) / 2)  # of pairs in order, half of the ties


def test_swapping_the_classes_swaps_what_it_should():
    y, p, galaxy = predictions()
    ours, swapped = (evaluate(*sample, galaxy, resamples=50).metrics for sample in ((y, p), (1 - y, 1 - p)))
    for name in ("auc", "accuracy", "balanced_accuracy", "brier", "log_loss", "calibration_error"):
        assert swapped[name].value == pytest.approx(ours[name].value), name
    assert [swapped[name].value for name in COUNTS] == [ours[name].value for name in ("tn", "fn", "tp", "fp")]


def test_an_image_at_the_threshold_is_predicted_merger():
    assert point_metrics([1, 0], [0.5, 0.49])["tp"] == 1
    assert point_metrics([1, 0], [0.3, 0.29], threshold=0.3)["accuracy"] == 1


def test_a_saturated_error_costs_a_finite_log_loss():
    assert point_metrics([1, 0], np.float32([0, 0]))["log_loss"] == pytest.approx(15.94 / 2, abs=0.01)


# --- intervals ---------------------------------------------------------------------------------------------


def with_a_galaxy_of_both(decimals=None):
    y, p, galaxy = predictions(galaxies=30, decimals=decimals)
    y[np.flatnonzero(galaxy == galaxy[y == 0][0])[0]] = 1  # a galaxy whose views have both labels
    return y, p, galaxy


@pytest.mark.parametrize("decimals", [None, 1])
def test_intervals_in_closed_form_equal_those_by_weighing_each_galaxy_in_scikit_learn(decimals):
    y, p, galaxy = with_a_galaxy_of_both(decimals)
    ours = evaluate(y, p, galaxy, resamples=0).metrics
    names = [name for name in of_images(ours) if not without_interval(name) and name not in LINE]

    def slow(w):
        measured = by_scikit_learn(y, p, w)
        return [measured[name] for name in names]

    found, strata = influences(slow, y, galaxy)
    for name, influence in zip(names, found.T, strict=True):
        value, *ends = ours[name]
        if name.startswith("log_loss"):
            error, freedom = spread_by_hand(influence, strata)
            factor = np.exp(stats.t.ppf(0.975, freedom) * error / value)
            expected = [value / factor, value * factor]
        else:
            expected = share_by_hand(value, influence, strata)
        np.testing.assert_allclose(ends, expected, rtol=1e-5, err_msg=name)
    assert all(np.isnan(ours[name][1:]).all() for name in ours if without_interval(name))


def test_the_error_of_the_auc_is_that_of_obuchowski():
    y, p, galaxy = predictions(galaxies=24, decimals=1)
    won = np.where(y == 1, 1.0, 0.0)  # structural components, pair by pair
    for i in range(len(y)):
        others = np.flatnonzero(y != y[i])
        ahead = np.sign(p[i] - p[others]) * (1 if y[i] else -1)
        won[i] = np.mean((ahead + 1) / 2)
    auc = won[y == 1].mean()
    variance = 0.0
    for label in (0, 1):  # S10 / m and S01 / n of Obuchowski (1997), no galaxy having images of both classes
        own = np.unique(galaxy[y == label])
        sums = [sum(won[galaxy == name] - auc) for name in own]
        variance += len(own) / (len(own) - 1) * np.square(sums).sum() / (y == label).sum() ** 2
    found = intervals.auc(Sample.of(y, p, galaxy))
    assert found.value == pytest.approx(auc)
    assert intervals.error(Sample.of(y, p, galaxy), found.influence).size == pytest.approx(np.sqrt(variance))


def test_the_band_of_the_roc_curve_equals_a_loop_of_scikit_learn_over_the_same_resamples():
    y, p, galaxy = with_a_galaxy_of_both(1)
    ours = evaluate(y, p, galaxy, resamples=60, seed=3)
    number = np.unique(galaxy, return_inverse=True)[1]
    (weights,) = resampled(Sample.of(y, p, galaxy), 60, 3)
    rows = [row[number] for row in weights]
    curves = []
    for row in rows:
        fpr, tpr, _ = sk.roc_curve(y, p, sample_weight=row, drop_intermediate=False)
        curves.append([tpr[fpr <= x].max() if x in fpr else np.interp(x, fpr, tpr) for x in FALSE_POSITIVE_RATES])
    np.testing.assert_allclose(ours.true_positive_rate.low, np.quantile(curves, 0.025, axis=0), atol=1e-12)
    np.testing.assert_allclose(ours.true_positive_rate.high, np.quantile(curves, 0.975, axis=0), atol=1e-12)


def test_identical_views_add_nothing_and_independent_images_do():
    y, p, galaxy = predictions(views=1)
    one = evaluate(y, p, galaxy).metrics
    y, p, galaxy = np.repeat([y, p, galaxy], 4, axis=1)
    four = evaluate(y, p, galaxy).metrics
    wrong = evaluate(y, p, np.arange(len(y))).metrics  # every image taken for a galaxy
    for name in one:
        scale = 4 if name in COUNTS else 1
        np.testing.assert_allclose(np.array(four[name]), scale * np.array(one[name]), rtol=1e-12, err_msg=name)
    for name in ("accuracy", "auc", "purity", "brier"):
        shrunk = (wrong[name].high - wrong[name].low) / (four[name].high - four[name].low)
        assert shrunk == pytest.approx(0.5, abs=0.1), name  # √(1 / 4 views)


def test_intervals_hold_the_value_and_the_bands_their_curves():
    y, p, galaxy = predictions(galaxies=300)
    result = evaluate(y, p, galaxy)
    for name in set(result.metrics) - {*COUNTS, *WITHOUT_INTERVAL, LINE[2]}:
        value, low, high = result.metrics[name]
        assert low < value < high, name
    for band in (result.true_positive_rate, result.fraction, result.confusion_fraction):
        filled = ~np.isnan(band.value)
        assert (band.low <= band.value + 1e-12)[filled].all()
        assert (band.value <= band.high + 1e-12)[filled].all()


def test_the_calibration_error_has_no_interval_since_noise_lifts_it_again_in_every_resample():
    rng = np.random.default_rng(0)
    p = rng.uniform(size=300)
    y = (rng.uniform(size=300) < p).astype(int)  # calibrated by construction
    number = np.arange(300)
    (weights,) = resampled(Sample.of(y, p, number), 500, 0)
    lifted = [point_metrics(y, p, weights=row)["calibration_error"] for row in weights]
    found = evaluate(y, p, number).metrics
    assert 0 < found["calibration_error"].value < np.median(lifted)
    change = difference(y, p, np.sqrt(p), number)
    for name in WITHOUT_INTERVAL:
        for estimate in (found[name], change[name]):
            assert np.isfinite(estimate.value)
            assert np.isnan([estimate.low, estimate.high]).all()


@st.composite
def odd_predictions(draw):
    """Labels, probabilities, those of another model, and galaxies of a few images; extreme, tied and of one class."""
    n = draw(st.integers(2, 25))
    scores = st.lists(
        st.sampled_from([0.0, 1e-300, 1e-9, 0.5, 1 - 1e-16, 1.0]) | st.floats(0, 1), min_size=n, max_size=n
    )
    labels = draw(st.lists(st.integers(0, 1), min_size=n, max_size=n))
    galaxies = draw(st.lists(st.integers(0, n - 1), min_size=n, max_size=n))
    return np.array(labels), np.array(draw(scores)), np.array(draw(scores)), np.array(galaxies)


@given(odd_predictions())
def test_no_interval_leaves_the_bounds_of_its_metric_for_any_input(drawn):
    y, p, other, galaxy = drawn
    fold = galaxy % 3
    for values, changes in (
        (evaluate(y, p, galaxy, resamples=40).metrics, difference(y, p, other, galaxy)),
        (evaluate(y, p, galaxy, fold, resamples=40).metrics, difference(y, p, other, galaxy, fold)),
    ):
        for name in set(changes) - set(COUNTS):
            most = np.inf if "log_loss" in name else 1
            for found, bottom in ((values[name], 0), (changes[name], -most)):
                known = np.array(found)[~np.isnan(found)]
                assert ((known >= bottom) & (known <= most)).all(), (name, found)
                assert np.isnan([found.low, found.high]).all() or found.low <= found.high, (name, found)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    truth = point_metrics(*predictions(galaxies=60_000, views=2, seed=99)[:2])
    covered = dict.fromkeys(("accuracy", "auc", "completeness", "brier", "purity_at_balance"), 0)
    samples = 100
    for seed in range(samples):
        result = evaluate(*predictions(seed=seed), resamples=200).metrics
        for name in covered:
            covered[name] += result[name].low <= truth[name] <= result[name].high
    for name, times in covered.items():
        assert 0.88 <= times / samples <= 0.99, (name, times / samples)


def test_the_order_of_images_the_names_of_galaxies_and_the_chunks_do_not_matter(monkeypatch):
    y, p, galaxy = predictions(decimals=2)
    shuffled = np.random.default_rng(5).permutation(len(y))
    result = evaluate(y, p, galaxy, resamples=90)
    monkeypatch.setattr("deepmerge.analysis.bootstrap._CHUNK", 7 * len(y))
    names = np.array([f"subhalo {number}" for number in galaxy], dtype=object)
    other = evaluate(y[shuffled], p[shuffled], names[shuffled], resamples=90)
    for name, estimate in result.metrics.items():
        np.testing.assert_allclose(other.metrics[name], estimate, rtol=1e-12, err_msg=name)
    np.testing.assert_allclose(other.true_positive_rate, result.true_positive_rate, rtol=1e-12)


def test_the_seed_decides():
    sample = predictions()
    first, again, other = (evaluate(*sample, resamples=50, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_equal(first.true_positive_rate, again.true_positive_rate)
    assert (first.true_positive_rate.low != other.true_positive_rate.low).any()
    np.testing.assert_equal(first.metrics, other.metrics)


def test_memory_stays_small_for_large_samples():
    sample = predictions(galaxies=5000)
    tracemalloc.start()
    evaluate(*sample, resamples=100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 150e6


# --- differences of two models ------------------------------------------------------------------------------


def two_models(*, shared, decimals=None):
    """Labels, the scores of two models with `shared` errors in common, galaxies."""
    y, p, galaxy = predictions(shared=shared, scatter=0.3)
    logit = np.log(p / (1 - p))
    rng = np.random.default_rng(8)
    ours = 1 / (1 + np.exp(-logit - 0.5 * (2 * y - 1) - rng.normal(scale=0.3, size=len(y))))
    return y, (ours if decimals is None else ours.round(decimals)), p, galaxy


@pytest.mark.parametrize("decimals", [None, 1])
def test_the_paired_interval_equals_that_by_weighing_each_galaxy_in_scikit_learn(decimals):
    y, ours, theirs, galaxy = (one[:120] for one in two_models(shared=1.0, decimals=decimals))
    found = difference(y, ours, theirs, galaxy)

    def slow(w):
        a, b = by_scikit_learn(y, ours, w), by_scikit_learn(y, theirs, w)
        return {name: a[name] - b[name] for name in a}

    point = slow(np.ones(len(y)))
    names = of_images(found)
    assert set(names) == set(point)

    def in_order(w):
        measured = slow(w)
        return [measured[name] for name in names]

    added, strata = influences(in_order, y, galaxy)
    for name, influence in zip(names, added.T, strict=True):
        error, freedom = spread_by_hand(influence, strata)
        half = np.nan if without_interval(name) else stats.t.ppf(0.975, freedom) * error
        expected = [point[name], point[name] - half, point[name] + half]
        np.testing.assert_allclose(found[name], expected, rtol=1e-5, atol=1e-9, err_msg=name)


def test_a_model_does_not_differ_from_itself_at_all():
    y, p, galaxy = predictions(decimals=2)
    for name, estimate in difference(y, p, p.copy(), galaxy).items():
        ends = (np.nan,) * 2 if without_interval(name) else (0, 0)
        np.testing.assert_equal(tuple(estimate), (0, *ends), err_msg=name)


def test_swapping_the_models_flips_the_difference():
    y, ours, theirs, galaxy = two_models(shared=1.0)
    forth = difference(y, ours, theirs, galaxy)
    back = difference(y, theirs, ours, galaxy)
    for name, (value, low, high) in forth.items():
        np.testing.assert_allclose(back[name], (-value, -high, -low), rtol=1e-12, atol=1e-15, err_msg=name)


def test_what_is_hard_for_both_models_cancels():
    y, ours, theirs, galaxy = two_models(shared=2.0)
    paired = difference(y, ours, theirs, galaxy)
    alone = [evaluate(y, p, galaxy).metrics for p in (ours, theirs)]
    for name in ("auc", "balanced_accuracy", "brier", "log_loss"):
        unpaired = np.hypot(*(one[name].high - one[name].low for one in alone))
        assert paired[name].high - paired[name].low < 0.6 * unpaired, name
        assert paired[name].value == pytest.approx(alone[0][name].value - alone[1][name].value), name


def test_models_with_nothing_in_common_gain_nothing_from_pairing():
    y, _, galaxy = predictions()
    rng = np.random.default_rng(0)
    ours, theirs = rng.uniform(size=(2, len(y)))
    paired = difference(y, ours, theirs, galaxy)["auc"]
    alone = [evaluate(y, p, galaxy).metrics["auc"] for p in (ours, theirs)]
    unpaired = np.hypot(*(one.high - one.low for one in alone))
    assert paired.high - paired.low == pytest.approx(unpaired, rel=0.15)


def test_equally_good_models_are_told_apart_about_as_seldom_as_the_interval_says():
    told_apart = 0
    for seed in range(60):
        y, p, galaxy = predictions(seed=seed)
        rng = np.random.default_rng(seed)
        ours, theirs = np.clip(p + rng.normal(scale=0.2, size=(2, len(y))), 0, 1)
        _, low, high = difference(y, ours, theirs, galaxy)["auc"]
        told_apart += not low <= 0 <= high
    assert told_apart <= 8


def test_seeds_add_to_the_scatter_of_galaxies():
    y, p, galaxy = predictions()
    rng = np.random.default_rng(0)
    noise = rng.normal(scale=[[0.1], [0.1], [0.1], [0.1]], size=(4, len(y)))
    trained = np.clip(p + noise + rng.normal(scale=0.1, size=(4, 1)) * (2 * y - 1), 0, 1)
    one, all_of_them = evaluate(y, trained[0], galaxy, resamples=0).metrics, over_seeds(y, trained, galaxy)
    alone = over_seeds(y, trained[0], galaxy)
    for name in alone:
        np.testing.assert_allclose(alone[name], one[name], rtol=1e-12, err_msg=name)
    for name in of_images(alone):
        values = [point_metrics(y, each)[name] for each in trained]
        assert all_of_them[name].value == pytest.approx(np.mean(values)), name
    same = over_seeds(y, np.tile(trained[0], (4, 1)), galaxy)["auc"]
    np.testing.assert_allclose(same, one["auc"], rtol=1e-9)  # seeds that do not matter change nothing
    wide, narrow = (each.high - each.low for each in (all_of_them["auc"], one["auc"]))
    assert wide > narrow


def test_the_share_recovered_is_that_of_the_values_and_its_interval_that_by_weighing_each_galaxy():
    y, middle, high, galaxy = (one[:120] for one in two_models(shared=1.0))
    low = np.random.default_rng(3).uniform(size=len(y))
    found = recovered(y, middle, low, high, galaxy)

    def slow(w):
        a, b, c = (sk.roc_auc_score(y, p, sample_weight=w) for p in (middle, low, high))
        return [(a - b) / (c - b)]

    added, strata = influences(slow, y, galaxy)
    error, freedom = spread_by_hand(added[:, 0], strata)
    half = stats.t.ppf(0.975, freedom) * error
    (value,) = slow(np.ones(len(y)))
    np.testing.assert_allclose(found, [value, value - half, value + half], rtol=1e-4)


def test_nothing_and_everything_are_recovered_without_doubt_unless_nothing_was_lost():
    y, high, low, galaxy = two_models(shared=1.0)
    assert recovered(y, low, low, high, galaxy) == (0, 0, 0)
    assert recovered(y, high, low, high, galaxy) == pytest.approx((1, 1, 1))
    assert np.isnan(recovered(y, low, high, low, galaxy).value)


def test_seeds_widen_the_interval_of_the_share_recovered():
    y, _, high, galaxy = two_models(shared=1.0)
    rng = np.random.default_rng(3)
    low = rng.uniform(size=(4, len(y)))
    better = np.clip(high + rng.normal(scale=0.3, size=(4, 1)) * (2 * y - 1), 0, 1)
    alone, widened = (recovered(y, p, low, np.tile(high, (4, 1)), galaxy) for p in (np.tile(high, (4, 1)), better))
    assert widened.high - widened.low > alone.high - alone.low


def test_two_sets_of_seeds_of_one_recipe_are_told_apart_no_more_often_than_meant():
    told_apart, surveys = 0, 300
    for survey in range(surveys):
        y, p, galaxy = predictions(seed=survey)
        rng = np.random.default_rng([survey, 1])
        logit = np.log(p / (1 - p))
        trained = 1 / (1 + np.exp(-logit - rng.normal(scale=0.4, size=(10, 1)) * (2 * y - 1)))  # as lucky as a seed
        found = difference(y, trained[:5], trained[5:], galaxy)["auc"]
        told_apart += not found.low <= 0 <= found.high
        assert (p_value(y, trained[:5], trained[5:], galaxy) < 0.05) == (not found.low <= 0 <= found.high)
    assert told_apart / surveys <= 0.05 + 2.5 * np.sqrt(0.05 / surveys)


def test_a_difference_from_what_is_not_defined_is_not_defined():
    y, p, galaxy = predictions()
    found = difference(y, p, np.full(len(y), 0.1), galaxy)  # which predicts no merger at all
    assert np.isnan(found["purity"]).all()
    assert found["auc"].value == pytest.approx(point_metrics(y, p)["auc"] - 0.5)
    one = (y == 0) | (galaxy == galaxy[y == 1][0])
    alone = difference(y[one], p[one], p[one] / 2, galaxy[one])["brier"]
    assert np.isfinite(alone.value)
    assert np.isnan(alone[1:]).all()


def test_both_models_need_scores_of_all_images():
    y, p, galaxy = predictions()
    with pytest.raises(InputError, match="one length"):
        difference(y, p, p[:-1], galaxy)
    with pytest.raises(InputError, match=r"\[0, 1\], got nan"):
        difference(y, p, np.full(len(y), np.nan), galaxy)


# --- curves ------------------------------------------------------------------------------------------------


def test_the_roc_curve_is_scikit_learns_and_ends_where_it_must():
    y, p, galaxy = predictions(galaxies=300, decimals=2)
    ours = evaluate(y, p, galaxy, resamples=20).true_positive_rate
    fpr, tpr, _ = sk.roc_curve(y, p)
    inside = ~np.isin(FALSE_POSITIVE_RATES, fpr)
    np.testing.assert_allclose(ours.value[inside], np.interp(FALSE_POSITIVE_RATES, fpr, tpr)[inside])
    assert ours.value[-1] == ours.low[-1] == 1
    assert np.trapezoid(ours.value, FALSE_POSITIVE_RATES) == pytest.approx(sk.roc_auc_score(y, p), abs=2e-3)


def test_a_perfect_ranking_reaches_the_corner():
    result = evaluate([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9], [1, 2, 3, 4], resamples=20)
    assert (result.true_positive_rate.low == 1).all()
    np.testing.assert_equal(result.metrics["auc"], Estimate(1))
    np.testing.assert_array_equal(result.confusion, [[2, 0], [0, 2]])
    assert np.isnan(result.confusion_fraction.low).all()


def test_the_reliability_diagram_is_scikit_learns():
    y, p, galaxy = predictions(decimals=1)
    p = p * 0.7  # the last bins stay empty
    result = evaluate(y, p, galaxy, resamples=50)
    fraction, mean = calibration_curve(y, p, n_bins=BINS)
    filled = result.count > 0
    assert result.count.sum() == len(y)
    np.testing.assert_allclose(result.fraction.value[filled], fraction)
    np.testing.assert_allclose(result.probability[filled], mean)
    for column in (result.probability, *result.fraction):
        assert np.isnan(column[~filled]).all()


# --- what is not defined -----------------------------------------------------------------------------------


def test_purity_is_nan_when_nothing_is_predicted_merger():
    result = evaluate([1, 1, 0, 0], [0.4, 0.3, 0.2, 0.1], [1, 2, 3, 4], resamples=50).metrics
    assert np.isnan(result["purity"]).all()
    np.testing.assert_equal(result["completeness"], Estimate(0))
    assert result["f1"].value == 0
    assert result["auc"].value == 1


def test_a_purity_of_one_has_no_interval_and_the_completeness_beside_it_has():
    result = evaluate([1] * 9 + [0] * 9, [0.9] + [0.1] * 17, np.arange(18), resamples=200).metrics
    np.testing.assert_equal(result["purity"], Estimate(1))
    assert 0 < result["completeness"].low < 1 / 9 < result["completeness"].high < 1


@pytest.mark.parametrize("label", [0, 1])
def test_a_sample_of_one_class_keeps_what_is_defined(label):
    p = np.array([0.9, 0.6, 0.2, 0.1])
    result = evaluate(np.full(4, label), p, [1, 2, 3, 4], resamples=50)
    for name in ("auc", "balanced_accuracy", *(f"{name}_at_balance" for name in WITH_BALANCE)):
        assert np.isnan(result.metrics[name]).all(), name
    accuracy = result.metrics["accuracy"]
    assert accuracy.low < accuracy.value == 0.5 < accuracy.high
    assert np.isnan(result.metrics["completeness"].value) == (label == 0)
    assert np.isnan(result.true_positive_rate.value).all()


def test_one_galaxy_of_a_class_gives_values_without_intervals():
    y, p, galaxy = predictions()
    few = (y == 0) | (galaxy == galaxy[y == 1][0])
    result = evaluate(y[few], p[few], galaxy[few])
    assert not np.isnan([found.value for name, found in result.metrics.items() if name != LINE[2]]).any()
    assert np.isnan([estimate[1:] for estimate in result.metrics.values()]).all()
    assert np.isnan(result.true_positive_rate.low).all()


def test_without_resamples_what_the_bootstrap_is_for_has_no_interval():
    result = evaluate(*predictions(), resamples=0)
    assert np.isnan(result.true_positive_rate.low).all()
    assert result.true_positive_rate.value.mean() > 0.5
    assert result.metrics["auc"].has_interval


# --- names and faults --------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [[1, 1], [1, 1, -1], [1, 1, np.inf], [0, 0, 0]])
def test_wrong_weights_are_named(weights):
    with pytest.raises(InputError, match="weights should be 3 finite numbers"):
        point_metrics([0, 1, 1], [0.1, 0.2, 0.3], weights=weights)
