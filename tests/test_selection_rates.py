import itertools

import numpy as np
import pandas as pd
import pytest
from conftest import influences, measured_galaxies, share_by_hand

from deepmerge.analysis import metrics
from deepmerge.errors import InputError
from deepmerge.studies.selection import rates
from deepmerge.studies.selection.rates import (
    NOT_MEASURED,
    RATES,
    WHOLE,
    by_bins,
    by_stage,
    view_agreement,
)

ENDS = ("", "_low", "_high")


def rates_by_hand(labels, probabilities, weights):
    """The slow, independent version of RATES, image by image."""
    tp = fp = mergers = others = 0.0
    scores = {0: 0.0, 1: 0.0}
    for label, p, w in zip(labels, probabilities, weights, strict=True):
        scores[label] += w * p
        mergers, others = mergers + w * label, others + w * (1 - label)
        tp, fp = tp + w * (p >= 0.5) * label, fp + w * (p >= 0.5) * (1 - label)
    t = tp / mergers if mergers else np.nan
    f = fp / others if others else np.nan
    purity = tp / (tp + fp) if tp + fp else np.nan
    at_balance = t / (t + f) if t + f != 0 else np.nan
    return [
        t,
        purity,
        at_balance,
        f,
        scores[1] / mergers if mergers else np.nan,
        scores[0] / others if others else np.nan,
    ]


def estimates(table, name):
    return table[[f"{name}{end}" for end in ENDS]].to_numpy(dtype=float)


# --- bins of a property ------------------------------------------------------------------------------------


def test_bins_equal_a_loop_over_images_and_their_intervals_those_by_weighing_each_galaxy():
    y, p, galaxy, x = measured_galaxies(45, missing=0.2)
    table = by_bins(x, y, p, galaxy, bins=3)
    for row in table.itertuples():
        end = np.nextafter(row.high, np.inf) if row.high == table.high[0] else row.high  # the last bin holds its end
        special = {WHOLE: np.ones(len(x), dtype=bool), NOT_MEASURED: np.isnan(x)}
        inside = special.get(row.bin, (x >= row.low) & (x < end))
        assert row.images == inside.sum()
        assert row.mergers == y[inside].sum()
        assert row.galaxies == len(set(galaxy[inside]))
        assert row.merger_galaxies == len(set(galaxy[inside & (y == 1)]))
        np.testing.assert_equal(row.centre, np.nanmedian(x[inside]) if row.bin != NOT_MEASURED else np.nan)
        ours = [getattr(row, name) for name in RATES]
        np.testing.assert_allclose(ours, rates_by_hand(y[inside], p[inside], np.ones(inside.sum())), rtol=1e-12)
        added, strata = influences(lambda w, i=inside: rates_by_hand(y[i], p[i], w[i]), y, galaxy)
        for name, value, influence in zip(RATES, ours, added.T, strict=True):
            ends = getattr(row, f"{name}_low"), getattr(row, f"{name}_high")
            np.testing.assert_allclose(ends, share_by_hand(value, influence, strata), rtol=1e-5, err_msg=name)


def test_the_whole_sample_has_the_values_and_intervals_of_the_metrics():
    y, p, galaxy, x = measured_galaxies()
    whole = by_bins(x, y, p, galaxy).iloc[:1]
    evaluated = metrics.evaluate(y, p, galaxy)
    for name in ("completeness", "purity", "purity_at_balance"):
        np.testing.assert_allclose(estimates(whole, name)[0], evaluated.metrics[name], rtol=1e-12)
    false_positives = [each[0, 1] for each in evaluated.confusion_fraction]
    np.testing.assert_allclose(estimates(whole, "false_positive_rate")[0], false_positives, rtol=1e-12)


def test_bins_part_the_images_and_hold_equally_many_galaxies():
    y, p, galaxy, _ = measured_galaxies(100)
    table = by_bins(galaxy**2, y, p, galaxy)
    assert table.bin[0] == WHOLE
    assert table.galaxies[1:].tolist() == [20] * 5
    assert table.images[1:].sum() == table.images[0] == len(y)
    assert table.high[1:-1].tolist() == table.low[2:].tolist()


def test_a_galaxy_with_views_on_both_sides_of_an_edge_counts_in_both_bins():
    y, galaxy = np.repeat([1, 1, 0, 0], 2), np.repeat([3, 4, 5, 6], 2)
    table = by_bins([0, 2, 3, 3, 0, 0, 3, 3], y, np.full(8, 0.5), galaxy, bins=2)
    assert table.galaxies.tolist() == [4, 2, 3]
    assert table.images.tolist() == [8, 3, 5]


def test_images_without_the_property_are_the_last_line_and_change_no_other():
    y, p, galaxy, x = measured_galaxies(missing=0.3)
    known = ~np.isnan(x)
    table = by_bins(x, y, p, galaxy)
    assert table.bin.tolist().index(NOT_MEASURED) == len(table) - 1
    assert table.images.iloc[-1] == (~known).sum()
    without = by_bins(x[known], y[known], p[known], galaxy[known])
    pd.testing.assert_frame_equal(table.iloc[1:-1], without.iloc[1:])


def test_a_property_that_was_never_measured_leaves_the_whole_and_the_unmeasured():
    y, p, galaxy, x = measured_galaxies()
    table = by_bins(np.full(len(x), np.nan), y, p, galaxy)
    assert table.bin.tolist() == [WHOLE, NOT_MEASURED]
    assert table[["low", "high", "centre"]].isna().all(axis=None)
    np.testing.assert_array_equal(estimates(table, "completeness")[0], estimates(table, "completeness")[1])


@pytest.mark.parametrize(("values", "bins"), [(np.full(12, 7.0), 1), (np.repeat([0.0, 0, 0, 1, 1, 1], 2), 2)])
def test_equal_values_share_a_bin(values, bins):
    table = by_bins(values, [1, 0] * 6, np.full(12, 0.5), np.arange(12))
    assert len(table) == 1 + bins
    assert table.images[1:].tolist() == [12 // bins] * bins


def test_only_the_order_of_the_property_matters_and_that_of_the_images_does_not():
    y, p, galaxy, x = measured_galaxies()
    x = galaxy.astype(float)
    counts_and_rates = slice("images", None)
    table = by_bins(x, y, p, galaxy)
    other = by_bins(np.exp(x / 20), y, p, galaxy)
    pd.testing.assert_frame_equal(table.loc[:, counts_and_rates], other.loc[:, counts_and_rates])
    order = np.random.default_rng(1).permutation(len(y))
    pd.testing.assert_frame_equal(table, by_bins(x[order], y[order], p[order], galaxy[order]))


def test_a_selection_that_depends_on_mass_is_seen_beyond_its_intervals():
    y, p, galaxy, x = measured_galaxies(600, slope=4.0)
    table = by_bins(x, y, p, galaxy).iloc[1:]
    for name in ("completeness", "false_positive_rate"):
        assert (np.diff(table[name]) > 0).all()
        assert table[f"{name}_high"].iloc[0] < table[f"{name}_low"].iloc[-1]


def test_intervals_cover_the_truth_in_a_bin_about_as_often_as_they_say():
    """Completeness among the light galaxies, against that of a hundred times as many."""
    low_mass = {"bins": 2}
    truth = by_bins(*bins_input(9000, seed=1), **low_mass).completeness[1]
    covered = 0
    for seed in range(100, 200):
        row = by_bins(*bins_input(90, seed=seed), **low_mass).iloc[1]
        covered += row.completeness_low <= truth <= row.completeness_high
    assert 85 <= covered <= 99


def bins_input(galaxies, seed):
    y, p, galaxy, x = measured_galaxies(galaxies, seed=seed)
    return x, y, p, galaxy


def test_what_rests_on_one_galaxy_or_shows_no_error_has_no_interval():
    # One merger galaxy in the first bin, two that are always right in the second; non-mergers err in both.
    y = np.repeat([1, 0, 0, 0, 1, 1, 0, 0], 2)
    p = np.array([0.9, 0.1, 0.6, 0.1, 0.1, 0.1, 0.1, 0.2, 0.9, 0.9, 0.9, 0.9, 0.7, 0.1, 0.1, 0.1])
    galaxy = np.repeat(np.arange(8), 2)
    table = by_bins(galaxy, y, p, galaxy, bins=2)
    assert table.completeness.tolist()[1:] == [0.5, 1]
    assert table.purity_at_balance[2] == pytest.approx(1 / 1.25)
    for name in ("completeness", "purity", "purity_at_balance"):
        assert np.isnan(estimates(table, name)[1:, 1:]).all(), name
    assert np.isfinite(estimates(table, "false_positive_rate")).all()
    assert np.isnan(table.merger_score_low[1])


def test_a_bin_without_a_class_has_no_rate_of_it():
    y, galaxy = np.array([0, 0, 0, 1, 1, 1]), np.arange(6)
    table = by_bins(galaxy, y, np.array([0.1, 0.2, 0.6, 0.4, 0.9, 0.9]), galaxy, bins=2)
    assert np.isnan(estimates(table, "completeness")[1]).all()
    assert np.isnan(estimates(table, "false_positive_rate")[2]).all()
    assert np.isnan(estimates(table, "purity_at_balance")[1:]).all()
    assert table.false_positive_rate[1] == pytest.approx(1 / 3)


def test_an_image_at_the_threshold_is_predicted_merger_everywhere():
    y, p, galaxy = np.array([1, 1, 0, 0]), np.full(4, 0.5), np.arange(4)
    rates_of_bin = by_bins(galaxy, y, p, galaxy, bins=1)[["completeness", "false_positive_rate"]]
    assert (rates_of_bin == 1).all(axis=None)
    assert (by_stage(["past", "past", "non-merger", "non-merger"], y, p, galaxy).value == 1).all()
    assert view_agreement(y, p, galaxy).accuracy.tolist() == [1, 0]


# --- stages ------------------------------------------------------------------------------------------------


def staged(galaxies=90):
    y, p, galaxy, _ = measured_galaxies(galaxies)
    return np.where(y == 0, "non-merger", np.where(galaxy % 2, "past", "future")), y, p, galaxy


def test_stages_are_completeness_and_false_positive_rate_with_their_counts():
    stage, y, p, galaxy = staged()
    table = by_stage(stage, y, p, galaxy).set_index("stage")
    assert table.index.tolist() == ["past", "future", "non-merger"]
    assert table.rate.tolist() == ["completeness", "completeness", "false_positive_rate"]
    for name, row in table.iterrows():
        here = stage == name
        assert row["value"] == pytest.approx((p[here] >= 0.5).mean())
        assert row["score"] == pytest.approx(p[here].mean())
        assert (row["images"], row["galaxies"]) == (here.sum(), len(set(galaxy[here])))
        assert row["value_low"] < row["value"] < row["value_high"]
    evaluated = metrics.evaluate(y, p, galaxy)
    expected = [each[0, 1] for each in evaluated.confusion_fraction]
    np.testing.assert_allclose(table.loc["non-merger", ["value", "value_low", "value_high"]].tolist(), expected)


def test_mergers_of_unknown_stage_are_a_stage():
    stage, y, p, galaxy = staged()
    table = by_stage(np.where(y == 1, "merger", stage), y, p, galaxy)
    assert table.stage.tolist() == ["merger", "non-merger"]


# --- agreement of views ------------------------------------------------------------------------------------


def anova(groups):
    """ICC(1) from the two mean squares, galaxy by galaxy."""
    sizes = [len(group) for group in groups]
    total, mean = sum(sizes), np.concatenate(groups).mean()
    between = sum(len(group) * (np.mean(group) - mean) ** 2 for group in groups) / (len(groups) - 1)
    within = sum(((group - np.mean(group)) ** 2).sum() for group in groups) / (total - len(groups))
    k = (total - sum(n**2 for n in sizes) / total) / (len(groups) - 1)
    return (between - within) / (between + (k - 1) * within)


def test_agreement_equals_a_loop_over_galaxies_and_its_intervals_those_by_weighing_each_galaxy():
    y, p, galaxy, _ = measured_galaxies(45)
    kept = np.random.default_rng(0).random(len(y)) < 0.8  # galaxies with 1 to 4 views
    y, p, galaxy = y[kept], p[kept], galaxy[kept]
    table = view_agreement(y, p, galaxy).set_index("class")
    for name, label in (("merger", 1), ("non-merger", 0)):
        row = table.loc[name]
        groups = [p[(galaxy == one) & (y == label)] for one in np.unique(galaxy[y == label])]
        right = np.array(
            [
                [test(g) for test in (np.any, lambda r: 2 * r.sum() > len(r), np.all)]
                for g in ((group >= 0.5) == label for group in groups)
            ],
            float,
        )
        for values, each in zip(right.T, rates.AGREEMENT, strict=True):
            mean = values.mean()
            expected = share_by_hand(mean, (values - mean) / len(values), np.zeros(len(values)))
            np.testing.assert_allclose(row[[each, f"{each}_low", f"{each}_high"]].astype(float), [mean, *expected])
        np.testing.assert_allclose(row["intraclass_correlation"], anova(groups))
        low, high = row["intraclass_correlation_low"], row["intraclass_correlation_high"]
        assert -1 < low < anova(groups) < high < 1


def test_agreement_worked_by_hand():
    y, galaxy = np.ones(8, dtype=int), np.repeat([1, 2], 4)
    row = view_agreement(y, np.array([0.9, 0.8, 0.7, 0.1, 0.9, 0.6, 0.2, 0.3]), galaxy).iloc[0]
    assert (row["accuracy"], row["at_least_one"], row["most"], row["all"]) == (5 / 8, 1, 0.5, 0)
    a, b = 5 / 8, 3 / 8
    assert row["all_expected"] == pytest.approx(a**4)
    assert row["at_least_one_expected"] == pytest.approx(1 - b**4)
    assert row["most_expected"] == pytest.approx(a**4 + 4 * a**3 * b)


def test_views_that_err_independently_meet_the_expectation_and_shared_errors_do_not():
    y, p, galaxy, _ = measured_galaxies(900, shared=0.0)
    independent = view_agreement(y, p, galaxy)
    y, p, galaxy, _ = measured_galaxies(900, shared=2.0)
    together = view_agreement(y, p, galaxy)
    for name in rates.AGREEMENT:
        inside = independent[f"{name}_expected"].between(independent[f"{name}_low"], independent[f"{name}_high"])
        assert inside.all(), name
    assert (together["all_low"] > together["all_expected"]).all()
    assert (together["at_least_one_high"] < together["at_least_one_expected"]).all()
    assert (independent["intraclass_correlation"].abs() < 0.1).all()
    assert (together["intraclass_correlation_low"] > 0.5).all()


def test_the_intraclass_correlation_is_the_mean_correlation_of_pairs_of_views():
    rng = np.random.default_rng(3)
    scores = np.clip(0.5 + 0.1 * rng.normal(size=(2000, 1)) + 0.1 * rng.normal(size=(2000, 3)), 0, 1)
    pairs = [np.corrcoef(scores[:, i], scores[:, j])[0, 1] for i, j in itertools.combinations(range(3), 2)]
    galaxy = np.repeat(np.arange(2000), 3)
    row = view_agreement(np.zeros(6000, dtype=int), scores.ravel(), galaxy).iloc[0]
    assert row["intraclass_correlation"] == pytest.approx(np.mean(pairs), abs=0.005)


@pytest.mark.parametrize(("views", "scores"), [(1, None), (3, 0.1)], ids=["single views", "one score for all"])
def test_without_anything_to_correlate_the_correlation_is_nan(views, scores):
    y, p, galaxy, _ = measured_galaxies(30, views)
    p = p if scores is None else np.full(len(p), scores)
    assert view_agreement(y, p, galaxy).filter(like="intraclass").isna().all(axis=None)


def test_views_that_are_all_alike_correlate_fully():
    y, p, galaxy, _ = measured_galaxies(30, 1)
    table = view_agreement(*(np.repeat(each, 4) for each in (y, p, galaxy)))
    np.testing.assert_allclose(table["intraclass_correlation"], 1)
    np.testing.assert_allclose(table["all"], table["at_least_one"])


# --- faults ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda y, p, g, x: by_bins(x[1:], y, p, g), r"values should be 360 numbers.*\(359,\)"),
        (lambda y, p, g, x: by_bins(x * np.inf, y, p, g), "360 infinite"),
        (lambda y, p, g, x: by_bins(["a"] * 360, y, p, g), "values should be 360 numbers"),
        (lambda y, p, g, x: by_bins(x, y, p, g, bins=0), "bins should be a whole number ≥ 1.*got 0"),
        (lambda y, p, g, x: by_bins(x, y, p, g, bins=2.5), "bins should be.*got 2.5"),
        (lambda y, p, g, x: by_bins(x, y, p * 2, g), r"probabilities should lie in \[0, 1\]"),
        (lambda y, p, g, x: by_stage(["merging"] * 360, y, p, g), "stages should be 360 of the words past.*merging"),
        (lambda y, p, g, x: by_stage(["past"], y, p, g), "stages should be 360"),
        (lambda y, p, g, x: by_stage(["past"] * 360, y, p, g), "stages and labels should agree.*240 such rows"),
        (lambda y, p, g, x: by_stage(["non-merger"] * 360, y, p, g), "stages and labels should agree.*120 such rows"),
    ],
)
def test_bad_input_is_one_line_that_says_what_was_expected(call, message):
    with pytest.raises(InputError, match=message) as error:
        call(*measured_galaxies())
    assert "\n" not in str(error.value)
