"""Calibration keeps its promises, and purity at another merger fraction is what a survey would find."""

import json
from dataclasses import asdict
from itertools import pairwise

import numpy as np
import pytest
from conftest import influences, share_by_hand
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit
from sklearn import metrics as sk
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from deepmerge.analysis.calibration import (
    GAINS,
    LINE,
    REFERENCE,
    TEMPERATURES,
    Isotonic,
    at_prior,
    choose_threshold,
    fit_isotonic,
    fit_temperature,
    gains,
    operating_points,
    reliability,
    temperature,
    tempered,
)
from deepmerge.analysis.metrics import (
    WITHOUT_INTERVAL,
    difference,
    evaluate,
    point_metrics,
)
from deepmerge.analysis.miscalibration import SLOPE
from deepmerge.analysis.sample import BINS, SMALLEST_PROBABILITY
from deepmerge.errors import InputError

THRESHOLDS = np.linspace(0, 1, 11)


def sample(galaxies=60, mergers=20, views=4, *, temperature=1.0, decimals=None, seed=0):
    """Probabilities that are calibrated at balance but for their temperature; galaxies differ among themselves."""
    rng = np.random.default_rng(seed)
    galaxy = np.repeat(rng.permutation(galaxies), views)
    labels = (galaxy < mergers).astype(int)
    # Normal logits of variance 2 × mean are their own log likelihood ratio; half of the variance is the galaxy's.
    spread = rng.normal(size=galaxies)[galaxy] + rng.normal(size=len(galaxy))
    probabilities = expit(temperature * ((2 * labels - 1) + spread))
    return labels, probabilities if decimals is None else probabilities.round(decimals), galaxy


def balanced_log_loss(y, p):
    return point_metrics(y, p)["log_loss_at_balance"]


# --- temperature and isotonic ---------------------------------------------------------------------------------


@pytest.mark.parametrize("truth", [0.5, 1.0, 3.0])
def test_the_temperature_that_was_put_in_comes_out(truth):
    y, p, _ = sample(galaxies=20_000, mergers=3000, views=1, temperature=truth)
    assert fit_temperature(y, p) == pytest.approx(truth, rel=0.05)


def test_the_temperature_is_that_of_a_logistic_regression_without_offset():
    y, p, _ = sample(temperature=2.0)
    slow = LogisticRegression(C=np.inf, fit_intercept=False, class_weight="balanced", tol=1e-10)
    slow.fit(logit(p)[:, None], y)
    assert fit_temperature(y, p) == pytest.approx(1 / slow.coef_[0, 0], rel=1e-4)


def test_the_interval_of_the_temperature_holds_the_truth_about_as_often_as_it_says():
    found = [temperature(*sample(150, 50, temperature=2.0, seed=seed)) for seed in range(150)]
    assert 0.89 <= np.mean([each.low <= 2 <= each.high for each in found]) <= 0.99
    assert all(0 < each.low < each.value < each.high for each in found)


def test_views_that_are_alike_do_not_make_a_temperature_surer():
    y, p, galaxy = sample(60, 20, 1, temperature=2.0)
    np.testing.assert_allclose(temperature(y, p, galaxy), temperature(*(np.repeat(x, 4) for x in (y, p, galaxy))))


def test_a_temperature_at_an_end_of_what_is_searched_has_no_interval():
    assert not temperature(np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.8, 0.9]), np.arange(4)).has_interval


def test_no_other_temperature_has_a_lower_log_loss_at_balance():
    y, p, _ = sample(temperature=2.0)
    best = fit_temperature(y, p)
    least = balanced_log_loss(y, tempered(p, best))
    assert least < balanced_log_loss(y, p)
    for other in np.geomspace(*TEMPERATURES, 50):
        assert balanced_log_loss(y, tempered(p, other)) >= least


def test_the_class_ratio_of_the_sample_does_not_move_the_temperature_or_the_isotonic_map():
    y, p, _ = sample(decimals=2)
    doubled = np.concatenate([np.arange(len(y)), np.flatnonzero(y == 0)])
    assert fit_temperature(y[doubled], p[doubled]) == pytest.approx(fit_temperature(y, p))
    np.testing.assert_allclose(fit_isotonic(y[doubled], p[doubled]).y, fit_isotonic(y, p).y)


def test_perfect_and_useless_probabilities_end_at_the_bounds():
    y = np.array([0, 0, 1, 1])
    assert fit_temperature(y, [0.2, 0.4, 0.6, 0.9]) == TEMPERATURES[0]
    assert fit_temperature(y, [0.9, 0.6, 0.4, 0.2]) == TEMPERATURES[1]
    assert fit_temperature(y, [0.0, 0.0, 1.0, 1.0]) == TEMPERATURES[0]  # saturated
    assert fit_temperature(y, np.full(4, 0.5)) in TEMPERATURES  # where every temperature is as good


def test_tempering_keeps_one_half_and_is_finite_where_the_network_was_certain():
    p = np.linspace(0.01, 0.99, 99)
    warm = tempered(p, 2.5)
    assert warm[49] == pytest.approx(0.5)
    assert (np.abs(warm - 0.5) <= np.abs(p - 0.5)).all()
    assert np.isfinite(tempered([0.0, 1.0], 2.0)).all()
    assert tempered([0.0], 1.0)[0] == pytest.approx(SMALLEST_PROBABILITY)


def test_the_isotonic_map_is_that_of_scikit_learn_with_images_repeated_to_balance():
    y, p, _ = sample(decimals=2)
    repeated = np.repeat(np.arange(len(y)), np.where(y == 1, 2, 1))  # one in three becomes one in two
    slow = IsotonicRegression(out_of_bounds="clip").fit(p[repeated], y[repeated])
    least = 1 / (y.sum() + 2)
    grid = np.linspace(0, 1, 201)
    expected = np.interp(grid, slow.X_thresholds_, np.clip(slow.y_thresholds_, least, 1 - least))
    np.testing.assert_allclose(fit_isotonic(y, p)(grid), expected, atol=1e-12)


def test_the_isotonic_map_never_falls_is_never_certain_and_survives_json():
    y, p, _ = sample(galaxies=10, mergers=3)
    fitted = fit_isotonic(y, p)
    mapped = fitted(np.linspace(0, 1, 1001))
    assert (np.diff(mapped) >= 0).all()
    assert mapped[0] == pytest.approx(1 / (12 + 2))  # 12 images of mergers
    assert mapped[-1] == pytest.approx(1 - 1 / 14)
    assert Isotonic(**json.loads(json.dumps(asdict(fitted)))) == fitted


def test_probabilities_that_are_all_alike_become_the_prior():
    assert fit_isotonic([0, 0, 0, 1], np.full(4, 0.2))([0.0, 0.7]).tolist() == [0.5, 0.5]


# --- another merger fraction ----------------------------------------------------------------------------------


def test_the_shift_to_another_prior_is_worked_by_hand():
    # Odds of 9 at balance are odds of 9 × .1 / .9 = 1 where one in ten is a merger.
    np.testing.assert_allclose(at_prior([0.9, 0.5, 0.0, 1.0], 0.1), [0.5, 0.1, 0.0, 1.0])


SHARES = st.floats(0.001, 0.999)
SCORES = st.lists(st.floats(0, 1), min_size=1, max_size=30).map(np.array)


@given(SCORES, SHARES, SHARES, SHARES)
def test_the_shift_can_be_undone_and_done_in_steps_and_keeps_the_ranks(p, fraction, other, trained_at):
    shifted = at_prior(p, fraction, trained_at)
    assert ((shifted >= 0) & (shifted <= 1)).all()
    assert (np.diff(shifted[np.argsort(p, kind="stable")]) >= -1e-15).all()
    np.testing.assert_allclose(at_prior(p, trained_at, trained_at), p, atol=1e-12)
    np.testing.assert_allclose(at_prior(shifted, trained_at, trained_at=fraction), p, atol=1e-9)
    np.testing.assert_allclose(at_prior(shifted, other, trained_at=fraction), at_prior(p, other, trained_at), atol=1e-9)


@given(SCORES, st.floats(0.1, 10))
def test_tempering_keeps_the_ranks_and_can_be_undone(p, temperature):
    warm = tempered(p, temperature)
    assert (np.diff(warm[np.argsort(p, kind="stable")]) >= 0).all()
    certain = (p < 0.01) | (p > 0.99) | (warm < 0.01) | (warm > 0.99)  # kept away from 0 and 1
    np.testing.assert_allclose(tempered(warm, 1 / temperature)[~certain], p[~certain], atol=1e-9)


def test_calibrated_probabilities_stay_calibrated_at_another_prior():
    y, p, galaxy = sample(galaxies=50_000, mergers=2500, views=1)
    shifted = at_prior(p, 0.05)
    assert evaluate(y, p, galaxy, resamples=0).metrics["calibration_error"].value > 0.15
    assert evaluate(y, shifted, galaxy, resamples=0).metrics["calibration_error"].value < 0.01
    assert shifted.mean() == pytest.approx(0.05, abs=0.003)


def test_reliability_at_the_samples_own_fraction_is_that_of_evaluate():
    y, p, galaxy = sample(mergers=30)  # balanced
    ours, theirs = reliability(y, p, galaxy, 0.5), evaluate(y, p, galaxy, resamples=50)
    np.testing.assert_allclose(ours["probability"], theirs.probability)
    wide = theirs.fraction.low < theirs.fraction.high
    assert wide.sum() >= 6
    for name, part in zip(("observed", "observed_low", "observed_high"), theirs.fraction, strict=True):
        np.testing.assert_allclose(ours[name][wide], part[wide], err_msg=name)
    assert (ours["mergers"] + ours["non_mergers"]).tolist() == theirs.count.tolist()


def test_reliability_at_another_fraction_is_that_of_a_sample_with_that_fraction():
    y, p, galaxy = sample()  # one in three
    doubled = np.concatenate([np.arange(len(y)), np.flatnonzero(y)])
    ours = reliability(y, p, galaxy, 0.5)
    theirs = evaluate(y[doubled], p[doubled], galaxy[doubled], resamples=0)
    np.testing.assert_allclose(ours["probability"], theirs.probability)
    np.testing.assert_allclose(ours["observed"], theirs.fraction.value)
    error = np.abs(ours["probability"] - ours["observed"])
    share = theirs.count / theirs.count.sum()
    assert np.nansum(error * share) == pytest.approx(point_metrics(y, p)["calibration_error_at_balance"])


def test_a_bin_of_one_class_has_no_interval_and_an_empty_bin_nothing():
    table = reliability([0, 0, 1, 1, 0, 1], [0.05, 0.05, 0.95, 0.95, 0.5, 0.5], np.arange(6))
    assert len(table) == BINS
    assert table.loc[9, ["observed", "mergers", "non_mergers"]].tolist() == [1, 2, 0]
    assert table.loc[[0, 9], ["observed_low", "observed_high"]].isna().all(axis=None)
    assert table.loc[4, "observed_low"] < table.loc[4, "observed"] < table.loc[4, "observed_high"]
    assert table.loc[2, ["probability", "observed"]].isna().all()


# --- operating points -----------------------------------------------------------------------------------------


def slow_rates(y, p, w, threshold, fraction):
    """Purity and completeness by the confusion matrix of scikit-learn."""
    tn, fp, fn, tp = sk.confusion_matrix(y, p >= threshold, labels=[0, 1], sample_weight=w).ravel()
    t, f = tp / (tp + fn), fp / (fp + tn)
    called = fraction * t + (1 - fraction) * f
    return (fraction * t / called if called else np.nan), t


@pytest.mark.parametrize("decimals", [None, 1])
def test_operating_points_and_their_intervals_equal_those_by_weighing_each_galaxy(decimals):
    y, p, galaxy = sample(galaxies=24, mergers=8, decimals=decimals)
    y[np.flatnonzero(y)[0]] = 0  # a galaxy whose views have both labels
    table = operating_points(y, p, galaxy, 0.1, THRESHOLDS)
    for row in table.itertuples():
        point = slow_rates(y, p, np.ones(len(y)), row.threshold, 0.1)
        np.testing.assert_allclose([row.purity, row.completeness], point)
        found, strata = influences(lambda w, cut=row.threshold: slow_rates(y, p, w, cut, 0.1), y, galaxy)
        ends = (row.purity_low, row.purity_high), (row.completeness_low, row.completeness_high)
        for value, influence, ours in zip(point, found.T, ends, strict=True):
            expected = [np.nan] * 2 if np.isnan(value) else share_by_hand(value, influence, strata)
            np.testing.assert_allclose(ours, expected, rtol=1e-5)
        assert (row.tp, row.fp) == (((p >= row.threshold) & (y == 1)).sum(), ((p >= row.threshold) & (y == 0)).sum())


def test_purity_at_a_fraction_is_what_a_survey_with_that_fraction_finds():
    y, p, galaxy = sample(decimals=2)
    survey = np.concatenate([np.flatnonzero(y), np.repeat(np.flatnonzero(y == 0), 10)])  # 1 in 3 becomes 1 in 21
    found = point_metrics(y[survey], p[survey], threshold=0.7)
    (row,) = operating_points(y, p, galaxy, 1 / 21, [0.7]).itertuples()
    assert row.purity == pytest.approx(found["purity"])
    assert row.completeness == pytest.approx(found["completeness"])


def test_at_the_samples_own_fraction_purity_is_that_of_evaluate():
    y, p, galaxy = sample()
    ours = operating_points(y, p, galaxy, y.mean(), [0.5]).iloc[0]
    theirs = evaluate(y, p, galaxy, resamples=100).metrics
    for name in ("purity", "completeness"):
        assert ours[[name, f"{name}_low", f"{name}_high"]].tolist() == pytest.approx(list(theirs[name]))


def test_rarer_mergers_are_found_less_purely_but_as_completely():
    tables = [operating_points(*sample(), fraction, [0.3, 0.5, 0.7]) for fraction in (0.03, 0.1, 0.5)]
    for rare, common in pairwise(tables):
        assert (rare["purity"] < common["purity"]).all()
        assert rare["completeness"].equals(common["completeness"])


def test_without_a_false_positive_the_purity_has_no_interval_and_without_a_call_no_value():
    y, p = [0] * 4 + [1] * 4, [0.1, 0.2, 0.3, 0.4, 0.35, 0.6, 0.7, 0.8]
    clean, none = operating_points(y, p, np.arange(8), 0.03, [0.5, 0.9]).itertuples()
    assert (clean.purity, clean.fp) == (1, 0)
    assert np.isnan([clean.purity_low, clean.purity_high]).all()
    assert clean.completeness_low < clean.completeness < clean.completeness_high
    assert np.isnan(none.purity)
    assert none.completeness == 0


def test_a_threshold_of_zero_calls_everything():
    (row,) = operating_points(*sample(), 0.1, [0.0]).itertuples()
    assert (row.purity, row.completeness) == (pytest.approx(0.1), 1)


def test_intervals_need_two_galaxies_of_each_class():
    y, p, galaxy = sample(galaxies=10, mergers=1)
    (row,) = operating_points(y, p, galaxy, 0.1, [0.4]).itertuples()
    assert np.isfinite([row.purity, row.completeness]).all()
    assert np.isnan([row.purity_low, row.completeness_high]).all()


# --- thresholds -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decimals", [None, 1])
@pytest.mark.parametrize("wanted", [{"purity": 0.6}, {"purity": 0.3}, {"completeness": 0.8}, {"completeness": 1}])
def test_the_chosen_threshold_is_the_best_of_all(decimals, wanted):
    for seed in range(5):
        y, p, _ = sample(galaxies=20, mergers=8, decimals=decimals, seed=seed)
        ones = np.ones(len(y))
        rates = {threshold: slow_rates(y, p, ones, threshold, 0.2) for threshold in np.unique(p)}
        bound, sought = (0, 1) if "purity" in wanted else (1, 0)
        (least,) = wanted.values()
        enough = {t: (rate[sought], rate[bound], t) for t, rate in rates.items() if rate[bound] >= least}
        if not enough:
            with pytest.raises(InputError, match="should be at most"):
                choose_threshold(y, p, 0.2, **wanted)
            continue
        chosen = choose_threshold(y, p, 0.2, **wanted)
        assert rates[chosen][bound] >= least
        assert rates[chosen][sought] == pytest.approx(max(enough.values())[0])
        assert [t for t, rate in enough.items() if rate[:2] == enough[chosen][:2]][-1] == chosen


def test_the_threshold_gives_what_was_wanted_when_it_is_used():
    y, p, galaxy = sample(galaxies=200, mergers=60)
    p = p.astype(np.float32)  # as networks answer
    threshold = choose_threshold(y, p, 0.1, purity=0.5)
    (row,) = operating_points(y, p, galaxy, 0.1, [threshold]).itertuples()
    assert row.purity >= 0.5
    assert ((p >= threshold) & (y == 1)).sum() == row.tp


def test_a_purity_that_cannot_be_had_is_refused_with_the_best():
    y, p = [0, 1, 0, 1], [0.9, 0.8, 0.2, 0.1]
    # At .8: half of both classes, so the purity is the fraction; at .1 all of both. At .2 worse.
    with pytest.raises(InputError, match=r"at most 0.100, which the threshold 0.800 gives .* 0.500 .*got 0.5"):
        choose_threshold(y, p, 0.1, purity=0.5)
    assert choose_threshold(y, p, 0.1, purity=0.1) == 0.1  # complete at the same purity


# --- gains ----------------------------------------------------------------------------------------------------


def test_gains_are_those_of_evaluate_and_difference():
    y, p, galaxy = sample(temperature=3)
    mild = tempered(p, 3)
    table = gains(y, galaxy, p, {"temperature": mild}).set_index(["method", "metric"])
    assert len(table) == 2 * len((*GAINS, *LINE))
    assert table.loc[(REFERENCE, SLOPE), "high"] < 1 < table.loc[("temperature", SLOPE), "high"]  # sharp, and mended
    values = evaluate(y, mild, galaxy, resamples=50).metrics
    changes = difference(y, mild, p, galaxy)
    for metric in GAINS:
        np.testing.assert_equal(table.loc[("temperature", metric)].tolist(), [*values[metric], *changes[metric]])
        ends = [np.nan] * 2 if metric in WITHOUT_INTERVAL else [0, 0]
        unchanged = table.loc[(REFERENCE, metric), ["change", "change_low", "change_high"]].tolist()
        np.testing.assert_equal(unchanged, [0, *ends])
    assert table.loc[("temperature", "log_loss_at_balance"), "change_high"] < 0  # better beyond noise
    assert table.loc[("temperature", "auc"), "change"] == pytest.approx(0, abs=1e-12)


# --- faults ---------------------------------------------------------------------------------------------------

Y, P, G = [0, 0, 1, 1], [0.1, 0.4, 0.3, 0.9], [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fit_temperature([1, 1], [0.2, 0.3]), "both classes, got 2 mergers and 0 non-mergers"),
        (lambda: fit_isotonic([0, 0], [0.2, 0.3]), "both classes, got 0 mergers"),
        (lambda: fit_temperature([0, 1], [0.2, 1.3]), r"\[0, 1\], got 1.3"),
        (lambda: tempered(P, 0), "temperature should be a number above 0.*got 0"),
        (lambda: tempered(P, np.nan), "temperature should be .*got nan"),
        (lambda: tempered([0.2, np.nan], 2), r"\[0, 1\], got nan in row 1 \(1 such\)"),
        (lambda: fit_isotonic(Y, P)([-1]), r"\[0, 1\], got -1"),
        (lambda: at_prior(P, 3), "fraction should be a share of mergers between 0 and 1, got 3"),
        (lambda: at_prior(P, 0.1, trained_at=0), "trained_at should be a share"),
        (lambda: reliability(Y, P, G, 1), "fraction should be a share"),
        (lambda: operating_points(Y, P, G, np.nan, [0.5]), "fraction should be a share"),
        (lambda: operating_points(Y, P, G, 0.1, [0.5, 1.5]), r"thresholds should be a list of numbers in \[0, 1\]"),
        (lambda: choose_threshold(Y, P, 0.1), "give one of purity and completeness, got purity=None"),
        (lambda: choose_threshold(Y, P, 0.1, purity=0.5, completeness=0.5), "give one of"),
        (lambda: choose_threshold(Y, P, 0.1, completeness=80), r"should lie in \(0, 1\], got 80"),
        (lambda: choose_threshold(Y, P, 0, completeness=0.8), "fraction should be a share"),
        (lambda: choose_threshold([0, 0], [0.1, 0.2], 0.1, completeness=0.8), "both classes"),
        (lambda: gains(Y, G, P, {"reference": P}), "should not be named 'reference'"),
        (lambda: gains(Y, G, P, {"short": P[:3]}), "one length"),
    ],
)
def test_wrong_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
