"""Penalties between the features of two samples, against slow numpy, and how they act on features."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.optimize import linear_sum_assignment

from deepmerge.model import adaptation

METHODS = (adaptation.mmd, adaptation.coral, adaptation.sinkhorn)


def features(count, width=5, shift=0.0, scale=1.0, seed=0):
    return (scale * np.random.default_rng(seed).normal(size=(count, width)) + shift).astype(np.float32)


def distance(x, y):
    return sum((float(a) - float(b)) ** 2 for a, b in zip(x, y, strict=True))


def mmd_by_loops(source, target):
    both = [*source, *target]
    apart = [distance(x, y) for i, x in enumerate(both) for j, y in enumerate(both) if i != j]
    median = sorted(apart)[len(apart) // 2]

    def kernel(x, y):
        return np.mean([np.exp(-distance(x, y) / (width * median)) for width in (0.25, 0.5, 1, 2, 4)])

    def mean(one, other):
        return np.mean([kernel(x, y) for x in one for y in other])

    return mean(source, source) + mean(target, target) - 2 * mean(source, target)


def coral_by_loops(source, target):
    def covariance(x):
        x = x.astype(float)
        n = len(x)
        return (x.T @ x - np.outer(x.sum(0), x.sum(0)) / n) / (n - 1)

    difference = covariance(source) - covariance(target)
    return sum(value**2 for value in difference.ravel()) / (4 * source.shape[1] ** 2)


def sinkhorn_by_loops(source, target, blur):
    """Plain Sinkhorn iterations to convergence, in double precision; the cost of the dual."""

    def soft_minimum(cost, axis, entropy):
        least = cost.min(axis, keepdims=True)
        return least.squeeze(axis) - entropy * np.log(np.exp((least - cost) / entropy).mean(axis))

    def transport(one, other):
        cost = np.array([[distance(x, y) / 2 for y in other] for x in one])
        entropy, f, g = blur**2, np.zeros(len(one)), np.zeros(len(other))
        for _ in range(3000):
            f = soft_minimum(cost - g, 1, entropy)
            g = soft_minimum(cost - f[:, np.newaxis], 0, entropy)
        return f.mean() + g.mean()

    return transport(source, target) - (transport(source, source) + transport(target, target)) / 2


CASES = [(features(9), features(9, seed=1)), (features(12, shift=1), features(7, scale=2, seed=2))]


@pytest.mark.parametrize(("source", "target"), CASES)
def test_mmd_is_that_of_loops(source, target):
    assert float(adaptation.mmd(source, target)) == pytest.approx(mmd_by_loops(source, target), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(("source", "target"), CASES)
def test_coral_is_that_of_loops(source, target):
    assert float(adaptation.coral(source, target)) == pytest.approx(coral_by_loops(source, target), rel=1e-4)


@pytest.mark.parametrize(("source", "target"), CASES)
def test_the_sinkhorn_divergence_is_that_of_iterations_to_convergence(source, target):
    largest = max(np.sqrt(distance(x, y)) for x in source for y in target)
    expected = sinkhorn_by_loops(source, target, adaptation.BLUR * largest)
    assert float(adaptation.sinkhorn(source, target)) == pytest.approx(expected, rel=0.03)


def test_the_sinkhorn_divergence_is_near_the_cost_of_transport():
    source, target = features(60), features(60, shift=3, seed=1)
    cost = np.array([[distance(x, y) / 2 for y in target] for x in source])
    cheapest = cost[linear_sum_assignment(cost)].mean()
    assert float(adaptation.sinkhorn(source, target)) == pytest.approx(cheapest, rel=0.1)


@pytest.mark.parametrize("method", METHODS)
def test_a_penalty_is_0_for_the_same_features_and_grows_with_their_difference(method):
    same, other = features(40), features(40, seed=1)
    assert float(method(same, same)) == pytest.approx(0, abs=1e-5)
    assert float(method(same, other)) < float(method(same, 2 * other)) < float(method(same, 4 * other))
    assert float(method(same, other)) == pytest.approx(float(method(other, same)), rel=1e-4)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("count", [1, 2, 16])
def test_the_gradient_is_finite_whatever_the_features(method, count):
    for target in (features(count, seed=1), features(count), np.zeros((count, 5), np.float32)):
        source = tf.constant(features(count))
        with tf.GradientTape() as tape:
            tape.watch(source)
            value = method(source, target)
        assert np.isfinite(value)
        assert np.isfinite(tape.gradient(value, source)).all()


@pytest.mark.parametrize("method", METHODS)
def test_steps_down_the_gradient_bring_the_samples_together(method):
    source, target = tf.Variable(features(40)), features(40, scale=2, shift=0.5, seed=1)
    before = float(method(source, target))
    for _ in range(60):
        with tf.GradientTape() as tape:
            value = method(source, target)
        gradient = tape.gradient(value, source)
        source.assign_sub(0.05 * gradient / tf.norm(gradient) * np.sqrt(40))
    assert float(method(source, target)) < before / 2


def test_the_gradient_of_the_sinkhorn_divergence_is_that_of_its_value(monkeypatch):
    monkeypatch.setattr(adaptation, "LAST", 300)  # at convergence, where the potentials need no gradient
    source, target = tf.constant(features(8)), features(8, shift=1, seed=1)
    largest = max(np.sqrt(distance(x, y)) for x in source.numpy() for y in target)
    with tf.GradientTape() as tape:
        tape.watch(source)
        value = adaptation.sinkhorn(source, target)
    found = tape.gradient(value, source).numpy()
    for place in ((0, 0), (3, 2)):
        step = np.zeros(source.shape)
        step[place] = 1e-3
        ends = [sinkhorn_by_loops(source.numpy() + sign * step, target, 0.05 * largest) for sign in (1, -1)]
        assert found[place] == pytest.approx((ends[0] - ends[1]) / 2e-3, rel=0.05, abs=0.002)


def test_the_weight_rises_as_published():
    progress = np.array([0, 0.1, 0.5, 1], np.float32)
    np.testing.assert_allclose(adaptation.rise(progress), [0, 0.46212, 0.98661, 0.99991], atol=1e-4)


def test_scales_that_are_learned_rest_where_their_squares_are_loss_and_penalty():
    of_loss, of_penalty = adaptation.scales()
    optimizer = keras.optimizers.Adam(0.02)
    for _ in range(400):
        with tf.GradientTape() as tape:
            added, factor = adaptation.balanced(tf.constant(0.04), of_loss.value, of_penalty.value)
            total = factor * 0.36 + added
        optimizer.apply(tape.gradient(total, [of_loss.value, of_penalty.value]), [of_loss, of_penalty])
    assert (float(of_loss.value), float(of_penalty.value)) == pytest.approx((0.6, 0.2), abs=0.01)
    assert float(factor) == pytest.approx(1 / (2 * 0.36), rel=0.02)


def test_the_scale_of_the_penalty_stays_above_a_quarter_of_that_of_the_loss():
    of_loss, of_penalty = adaptation.scales()
    optimizer = keras.optimizers.SGD(0.5)
    for _ in range(50):
        with tf.GradientTape() as tape:
            added, factor = adaptation.balanced(tf.constant(1e-6), of_loss.value, of_penalty.value)
            total = factor * 0.25 + added
        optimizer.apply(tape.gradient(total, [of_loss.value, of_penalty.value]), [of_loss, of_penalty])
    assert float(of_penalty.value) == pytest.approx(0.25 * float(of_loss.value), rel=0.05)


def test_an_adversary_learns_to_tell_and_the_features_not_to_be_told():
    source, target = tf.constant(features(32)), tf.constant(features(32, shift=1, seed=1))
    told_by, weight = adaptation.discriminator(5), tf.constant(0.5)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([source, target])
        value = adaptation.adversarial(told_by, source, target, weight)
        logits = [told_by(each)[:, 0] for each in (source, target)]
        plain = (tf.reduce_mean(tf.nn.softplus(logits[0])) + tf.reduce_mean(tf.nn.softplus(-logits[1]))) / 2
    p = [1 / (1 + np.exp(-logit.numpy())) for logit in logits]
    assert float(value) == pytest.approx(-(np.log(1 - p[0]).mean() + np.log(p[1]).mean()) / 2, rel=1e-4)
    for features_of in (source, target):
        found, forward = tape.gradient(value, features_of), tape.gradient(plain, features_of)
        np.testing.assert_allclose(found, -0.5 * forward, rtol=1e-4, atol=1e-7)
    for variable in told_by.trainable_variables:
        found, forward = tape.gradient(value, variable), tape.gradient(plain, variable)
        np.testing.assert_allclose(found, forward, rtol=1e-4, atol=1e-7)
