import itertools

import numpy as np
import pandas as pd
import pytest
from conftest import measured_galaxies
from scipy import stats

from deepmerge.analysis.intervals import holm
from deepmerge.errors import InputError
from deepmerge.studies.selection.bias import bias_tests


def means(values, galaxy):
    return pd.Series(values).groupby(galaxy).mean().to_numpy()


def test_the_correlation_is_spearmans_over_galaxies():
    y, p, galaxy, x = measured_galaxies(slope=1.0)
    table = bias_tests({"mass": x}, y, p, galaxy, permutations=9).set_index("class")
    for name, label in (("merger", 1), ("non-merger", 0)):
        here = y == label
        expected = stats.spearmanr(means(p[here], galaxy[here]), means(x[here], galaxy[here])).statistic
        assert table.correlation[name] == pytest.approx(expected)
        assert table.galaxies[name] == len(set(galaxy[here]))


def test_p_values_agree_with_all_permutations():
    p, x = np.array([0.1, 0.5, 0.4, 0.8, 0.9, 0.7]), np.array([3.0, 1, 2, 6, 5, 5])
    observed = abs(stats.spearmanr(p, x).statistic)
    drawn = [abs(stats.spearmanr(p, each).statistic) for each in itertools.permutations(x)]
    exact = np.mean(np.array(drawn) >= observed - 1e-12)
    table = bias_tests({"x": x}, np.ones(6, dtype=int), p, np.arange(6), permutations=5000)
    assert table.p_value[0] == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 5000))


def test_p_values_are_uniform_when_the_score_does_not_depend_on_the_property():
    found = []
    for seed in range(150):
        y, p, galaxy, x = measured_galaxies(60, 2, seed=seed)
        found.extend(bias_tests({"mass": x}, y, p, galaxy, permutations=99, seed=seed).p_value)
    assert stats.kstest(found, "uniform").pvalue > 0.01
    assert 0.02 <= np.mean(np.array(found) <= 0.05) <= 0.09


def test_more_views_of_the_same_galaxies_are_no_more_evidence():
    y, p, galaxy, x = measured_galaxies(60, 1, slope=0.7)
    once = bias_tests({"mass": x}, y, p, galaxy)
    often = bias_tests({"mass": np.repeat(x, 2)}, *(np.repeat(each, 2) for each in (y, p, galaxy)))
    pd.testing.assert_frame_equal(once, often)


def test_a_dependence_is_found_with_its_sign_and_p_is_never_zero():
    y, p, galaxy, x = measured_galaxies(300, slope=3.0)
    table = bias_tests({"mass": x, "minus": -x}, y, p, galaxy, permutations=99)
    assert table.p_value.tolist() == [0.01] * 4
    assert (table.correlation.to_numpy().reshape(2, 2) * [[1], [-1]] > 0.3).all()
    assert table.p_holm.tolist() == pytest.approx([0.04] * 4)


def test_two_galaxies_show_nothing():
    table = bias_tests({"x": [1.0, 2.0]}, [1, 1], np.array([0.2, 0.8]), [1, 2], permutations=50)
    assert table.correlation[0] == pytest.approx(1)
    assert table.p_value[0] == 1


def test_galaxies_without_the_property_are_left_out_and_counted():
    y, p, galaxy, x = measured_galaxies(60)
    gone = np.isin(galaxy, [0, 3, 7])  # two mergers, one non-merger
    x[gone] = np.nan
    x[np.flatnonzero(galaxy == 6)[0]] = np.nan  # a galaxy with one view less stays
    table = bias_tests({"mass": x}, y, p, galaxy, permutations=50)
    assert table.not_measured.tolist() == [2, 1]
    assert table.galaxies.tolist() == [18, 39]
    known = ~np.isnan(x)
    without = bias_tests({"mass": x[known]}, y[known], p[known], galaxy[known], permutations=50)
    assert table.p_value.tolist() == without.p_value.tolist()


def test_a_test_does_not_depend_on_the_others_but_for_the_correction():
    y, p, galaxy, x = measured_galaxies()
    alone = bias_tests({"mass": x}, y, p, galaxy, permutations=200)
    among = bias_tests({"x": np.arange(len(x)), "mass": x}, y, p, galaxy, permutations=200)
    pd.testing.assert_frame_equal(alone.iloc[:, :-1], among.iloc[2:, :-1].reset_index(drop=True))
    assert (among.p_holm.to_numpy()[2:] >= alone.p_holm).all()


def test_a_constant_or_absent_property_is_nan_and_no_test():
    y, p, galaxy, x = measured_galaxies()
    table = bias_tests({"one": np.ones(len(x)), "none": x * np.nan, "x": x}, y, p, galaxy, permutations=50)
    assert table.iloc[:4, 4:].isna().all(axis=None)
    assert table.p_holm.max() <= 2 * table.p_value.max()


def test_holm_multiplies_the_smallest_most_and_keeps_the_order():
    # By hand: 0.005 × 4, 0.01 × 3, 0.03 × 2, then 0.04 × 1 raised to the one before.
    adjusted = holm(np.array([0.01, 0.04, np.nan, 0.03, 0.005]))
    np.testing.assert_allclose(adjusted, [0.03, 0.06, np.nan, 0.06, 0.02])
    np.testing.assert_array_equal(holm(np.array([0.9, 0.8])), [1, 1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda y, p, g, x: bias_tests({"C": x[:3]}, y, p, g), "property 'C' should be 360 numbers"),
        (lambda y, p, g, x: bias_tests({}, y, p, g, permutations=0), "permutations should be.*got 0"),
    ],
)
def test_bad_input_is_one_line_that_says_what_was_expected(call, message):
    with pytest.raises(InputError, match=message) as error:
        call(*measured_galaxies())
    assert "\n" not in str(error.value)
