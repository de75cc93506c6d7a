"""Networks that give every turn and flip of an image one score, and their maps."""

import keras
import numpy as np
import pytest

from deepmerge import config
from deepmerge.analysis import saliency
from deepmerge.data.turns import possible_transforms, transform
from deepmerge.model import network, prediction, stretch, symmetry


def images(count=3, shape=(40, 40, 2), seed=0):
    return np.random.default_rng(seed).lognormal(size=(count, *shape)).astype(np.float32)


def turned(stack, code):
    """Images (n, H, W, F) by the transform of this code."""
    return np.moveaxis(transform(np.moveaxis(stack, -1, 1), code), 1, -1)


def built(symmetry, shape=(40, 40, 2), **settings):
    keras.utils.set_random_seed(1)
    pixels = stretch.measure(images(50, shape), "asinh")
    model = network.build(shape, config.Network(symmetry=symmetry, **settings), pixels)
    rng = np.random.default_rng(2)
    model.set_weights([w + 0.05 * rng.normal(size=w.shape) for w in model.get_weights()])
    return model


def logits(model, stack):
    p = np.asarray(model(stack, training=False), float)[:, 0]
    return np.log(p / (1 - p))


@pytest.mark.parametrize("shape", [(40, 40, 2), (48, 36, 1), (32, 45, 3)])
def test_all_turns_are_those_of_the_data_in_their_order(shape):
    given = images(3, shape)
    found = np.asarray(symmetry.all_turns(keras.ops.convert_to_tensor(given)))
    codes = possible_transforms(shape[:2])
    np.testing.assert_array_equal(found, np.concatenate([turned(given, code) for code in codes]))
    means = symmetry.mean_over_turns(keras.ops.convert_to_tensor(found.mean((1, 2))), shape)
    np.testing.assert_allclose(means, given.mean((1, 2)), rtol=1e-5)


@pytest.mark.parametrize("architecture", ["default", "published"])
@pytest.mark.parametrize("shape", [(40, 40, 2), (48, 36, 2)])
def test_every_turn_of_an_image_has_one_score_and_its_logit_is_the_mean_of_all(architecture, shape):
    model, plain = (built(how, shape, architecture=architecture) for how in ("average", "none"))
    given, codes = images(3, shape), possible_transforms(shape[:2])
    each = [logits(plain, turned(given, code)) for code in codes]
    assert np.std(each, axis=0).min() > 1e-5  # alone it sees them differently
    for code in codes:
        np.testing.assert_allclose(logits(model, turned(given, code)), np.mean(each, axis=0), atol=1e-5)


@pytest.mark.parametrize("for_training", [False, True])
@pytest.mark.parametrize("shape", [(40, 40, 2), (48, 36, 2)])
def test_the_invariant_network_is_so_without_averaging_and_while_it_trains(shape, for_training):
    keras.utils.set_random_seed(1)
    pixels, settings = stretch.measure(images(50, shape), "asinh"), config.Network(architecture="invariant")
    model = network.build(shape, settings, pixels, for_training=for_training)
    given = images(3, shape)
    expected = logits(model, given)
    assert np.ptp(expected) > 1e-4
    for code in possible_transforms(shape[:2]):
        np.testing.assert_allclose(logits(model, turned(given, code)), expected, atol=1e-5)
    assert not settings.averages  # eight turns of eight turns would be the same


def test_it_stays_so_when_it_is_saved_served_and_used(tmp_path):
    model, given = built("average"), images(5)
    model.save(tmp_path / "a.keras")
    loaded = prediction.load(tmp_path / "a.keras")
    answers = model(given, training=False)
    for code in range(8):
        rows = np.arange(5)
        found = prediction.predict(loaded, np.moveaxis(given, -1, 1), rows, np.full(5, code, np.uint8))
        np.testing.assert_allclose(found, answers[:, 0], atol=1e-6)


def test_undefined_pixels_have_no_probability_in_any_turn():
    given = images(2)
    given[0, 3, 5, 1] = np.nan
    found = np.asarray(built("average")(given, training=False))[:, 0]
    assert np.isnan(found[0])
    assert np.isfinite(found[1])


@pytest.mark.parametrize("method", ["gradcam", "hirescam"])
@pytest.mark.parametrize("shape", [(40, 40, 2), (48, 36, 2)])
def test_maps_turn_with_the_image_and_are_the_mean_over_turns_of_the_plain_networks(method, shape):
    model, plain = (built(how, shape) for how in ("average", "none"))
    given, codes = images(3, shape), possible_transforms(shape[:2])
    averaging, alone = (saliency.Explainer(each, method=method) for each in (model, plain))
    [found] = averaging.batches(given)
    upright = []
    for code in codes:
        [again] = averaging.batches(turned(given, code))
        np.testing.assert_allclose(again, transform(found, code), rtol=1e-3, atol=1e-5)
        [each] = alone.batches(turned(given, code))
        upright.append(back(each[:, 0] - each[:, 1], code))  # signed, as before what is negative is cut off
    np.testing.assert_allclose(found[:, 0] - found[:, 1], np.mean(upright, axis=0), rtol=1e-3, atol=1e-5)


def back(maps, code):
    """The inverse of `transform`."""
    [inverse] = [c for c in range(8) if np.array_equal(transform(transform(MARKED, code), c), MARKED)]
    return transform(maps, inverse)


MARKED = np.arange(9).reshape(3, 3)
