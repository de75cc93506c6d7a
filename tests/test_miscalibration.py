import numpy as np
import pytest
from scipy.special import expit, logit

from deepmerge.analysis import miscalibration
from deepmerge.analysis.miscalibration import INTERCEPT, SLOPE, SQUARED_ERROR
from deepmerge.analysis.sample import Sample


def measure(labels, probabilities, galaxies):
    return miscalibration.measure(Sample.of(labels, probabilities, galaxies))


def sample(galaxies=300, views=4, *, slope=1.0, shift=0.0, seed=0):
    """Labels, probabilities and galaxies, half of them mergers; the views of one are alike.

    Calibrated for slope 1 and shift 0; else the logits are off by a factor and a summand.
    """
    rng = np.random.default_rng(seed)
    labels = np.arange(galaxies) % 2
    own = rng.normal(size=galaxies)
    x = 2 * labels - 1 + own  # of variance 1 and mean ±1 / 2 · 2: its own log likelihood ratio is 2 x
    logits = (2 * x - shift) / slope
    return np.repeat(labels, views), np.repeat(expit(logits), views), np.repeat(np.arange(galaxies), views)


@pytest.mark.parametrize(("slope", "shift"), [(1.0, 0.0), (0.5, 0.0), (1.0, 0.8), (2.0, -0.5)])
def test_the_line_finds_by_how_much_logits_are_off(slope, shift):
    found = measure(*sample(20_000, 1, slope=slope, shift=shift))
    assert found[SLOPE].value == pytest.approx(slope, rel=0.05)
    assert found[INTERCEPT].value == pytest.approx(shift, abs=0.06)
    for name in (SLOPE, INTERCEPT):
        assert found[name].low < found[name].value < found[name].high


def test_views_that_are_alike_make_no_interval_narrower():
    one, four = (measure(*sample(views=views)) for views in (1, 4))
    for name in (SLOPE, INTERCEPT):
        np.testing.assert_allclose(one[name], four[name], rtol=1e-5)


def test_the_intervals_hold_the_truth_about_as_often_as_they_say():
    found = [measure(*sample(150, seed=seed)) for seed in range(200)]
    for name, truth in ((SLOPE, 1.0), (INTERCEPT, 0.0)):
        held = np.mean([each[name].low <= truth <= each[name].high for each in found])
        assert 0.9 <= held <= 0.99, name


def test_noise_does_not_lift_the_squared_error():
    found = [measure(*sample(150, seed=seed))[SQUARED_ERROR].value for seed in range(300)]
    error = np.std(found) / np.sqrt(len(found))
    assert abs(np.mean(found)) < 4 * error
    assert np.mean(found) < 2e-3
    off = [measure(*sample(150, shift=1.5, seed=seed))[SQUARED_ERROR].value for seed in range(50)]
    large = measure(*sample(50_000, 1, shift=1.5))[SQUARED_ERROR].value
    assert np.mean(off) == pytest.approx(large, rel=0.1)


def test_the_class_ratio_does_not_matter():
    y, p, galaxy = sample(3000, 1)
    kept = (y == 0) | (galaxy % 10 == 1)
    whole, few = measure(y, p, galaxy), measure(y[kept], p[kept], galaxy[kept])
    for name in (SLOPE, INTERCEPT):
        assert few[name].low < whole[name].value < few[name].high


@pytest.mark.parametrize(
    ("labels", "probabilities"),
    [([1, 1, 1], [0.2, 0.5, 0.7]), ([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9]), ([0, 1, 0, 1], [0.5] * 4)],
)
def test_what_no_line_fits_is_undefined(labels, probabilities):
    found = measure(np.array(labels), np.array(probabilities), np.arange(len(labels)))
    assert np.isnan([found[name].value for name in (SLOPE, INTERCEPT)]).all()


def test_one_galaxy_of_a_class_gives_values_without_intervals():
    y, p, galaxy = sample(40)
    few = (y == 0) | (galaxy == galaxy[y == 1][p[y == 1].argmin()])  # below some non-mergers
    found = measure(y[few], p[few], galaxy[few])
    assert np.isfinite(found[SLOPE].value)
    assert not found[SLOPE].has_interval
    assert miscalibration.SQUARED_ERROR in found


def test_probabilities_of_0_and_1_are_as_near_to_them_as_float32_gets():
    y, p, galaxy = sample(60)
    assert np.isfinite(measure(y, np.where(p > 0.99, 1.0, p), galaxy)[SLOPE].value)
    assert logit(0.5) == 0
