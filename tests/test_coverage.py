"""How often intervals hold the truth, and how often the gate is wrong: by simulation, with the tables of the docs.

``DEEPMERGE_COVERAGE=full python -m pytest -m slow -n 0 -s tests/test_coverage.py`` prints them; by default there are
fewer samples.
"""

import os

import numpy as np
import pytest
from scipy import special, stats

from deepmerge.analysis import intervals, metrics
from deepmerge.analysis.sample import Sample
from deepmerge.estimate import OF_GALAXIES, WITH_VIEWS
from deepmerge.jobs.promote import gate

pytestmark = pytest.mark.slow

# A test set of the demo sample: a fifth of 720 galaxies, seen from four sides that are much alike.
MERGERS, OTHERS, VIEWS, ALIKE = 24, 121, 4, 0.6
AUCS = (0.89, 0.967)
SHARE = 1.0 if os.environ.get("DEEPMERGE_COVERAGE") == "full" else 0.4  # of the tables in the docs


def draw(rng, auc, models=1, together=0.0, mergers=MERGERS, others=OTHERS):
    """Labels (n,), calibrated probabilities of models (models, n) with this true AUC, and galaxies (n,).

    The views of a galaxy correlate by ALIKE, the errors of two models in an image by `together`.
    """
    labels = np.repeat([1, 0], [mergers, others])
    apart = np.sqrt(2) * stats.norm.ppf(auc)

    def errors(*shape):
        common, own = rng.normal(size=shape), rng.normal(size=(models, *shape))
        return np.sqrt(together) * common + np.sqrt(1 - together) * own

    galaxies = mergers + others
    deviation = np.sqrt(ALIKE) * errors(galaxies)[..., None] + np.sqrt(1 - ALIKE) * errors(galaxies, VIEWS)
    scores = (deviation + apart * labels[:, None]).reshape(models, -1)
    return np.repeat(labels, VIEWS), special.expit(apart * (scores - apart / 2)), np.repeat(np.arange(galaxies), VIEWS)


def truth(auc):
    """The metrics of a sample so large that they hardly scatter."""
    labels, (probability,), _ = draw(np.random.default_rng(0), auc, mergers=2400 * 20, others=12100 * 20)
    of_galaxies = metrics.point_metrics(labels[::VIEWS], probability.reshape(-1, VIEWS).mean(axis=1))
    return metrics.point_metrics(labels, probability) | {
        f"{OF_GALAXIES}{name}": of_galaxies[name] for name in WITH_VIEWS
    }


@pytest.mark.parametrize("auc", AUCS)
def test_intervals_hold_the_truth_as_often_as_they_say(auc):
    true, samples, held = truth(auc), int(1500 * SHARE), {}
    for seed in range(samples):
        labels, (probability,), galaxies = draw(np.random.default_rng([seed, 1]), auc)
        found = metrics.evaluate(labels, probability, galaxies, resamples=0).metrics
        for name in gate.DECISIVE:
            held.setdefault(name, []).append(found[name].low <= true[name] <= found[name].high)
    print(f"\nAUC {auc}\n", *(f"| {name} | {true[name]:.3f} | {np.mean(each):.3f} |\n" for name, each in held.items()))
    for name in gate.DECISIVE:
        scatter = np.sqrt(0.05 * 0.95 / samples)
        assert np.mean(held[name]) >= 0.93 - 1.5 * scatter, name


def test_an_interval_over_images_would_hold_it_far_too_seldom():
    true, held = truth(0.89)["auc"], 0
    for seed in range(300):
        labels, (probability,), _ = draw(np.random.default_rng([seed, 1]), 0.89)
        found = metrics.evaluate(labels, probability, np.arange(len(labels)), resamples=0).metrics["auc"]
        held += found.low <= true <= found.high
    assert held / 300 < 0.85


def better(labels, ours, theirs, galaxies, level):
    """Whether the difference in AUC is above zero at a level, as the gate decides, without all other metrics."""
    samples = [Sample.of(labels, p, galaxies) for p in (ours, theirs)]
    apart = intervals.auc(samples[0]).minus(intervals.auc(samples[1]))
    spread = intervals.error(samples[0], apart.influence)
    return intervals.difference(apart.value, spread, 1.0, level).low > 0


@pytest.mark.parametrize("auc", AUCS)
@pytest.mark.parametrize("together", [0.3, 0.8])
def test_a_model_that_is_no_better_is_promoted_no_more_often_than_meant(auc, together):
    trials, at_once, ever = int(2000 * SHARE), 0, 0
    for seed in range(trials):
        labels, probabilities, galaxies = draw(np.random.default_rng([seed, 2]), auc, 2, together)
        at_once += better(labels, *probabilities, galaxies, 1 - 2 * gate.ERROR)
        ever += better(labels, *probabilities, galaxies, gate.level_at(1))
    print(f"\nAUC {auc}, errors {together} in common: {at_once / trials:.4f} at 95 %, {ever / trials:.4f} at look 1")
    most = gate.ERROR + 2.5 * np.sqrt(gate.ERROR / trials)
    assert at_once / trials <= most
    assert ever / trials <= gate.ERROR


@pytest.mark.parametrize("auc", AUCS)
def test_the_best_of_ten_models_that_are_all_alike_is_hardly_ever_promoted(auc):
    trials, promoted, naive = int(1000 * SHARE), 0, 0
    for seed in range(trials):
        labels, probabilities, galaxies = draw(np.random.default_rng([seed, 3]), auc, 11, 0.5)
        reigning, candidates = probabilities[0], probabilities[1:]
        values = [intervals.auc(Sample.of(labels, p, galaxies)).value for p in candidates]
        best = candidates[int(np.argmax(values))]
        promoted += better(labels, best, reigning, galaxies, gate.level_at(11))  # ten looks, and the champion's
        naive += better(labels, best, reigning, galaxies, 1 - 2 * gate.ERROR)
    print(f"\nAUC {auc}: best of ten {promoted / trials:.4f}, {naive / trials:.4f} without spending")
    assert promoted / trials <= gate.ERROR
    assert naive / trials > 2 * gate.ERROR  # so there is something to guard against
