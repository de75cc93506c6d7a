from itertools import product
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from deepmerge import config
from deepmerge.data.splits import Part
from deepmerge.model import dropout, network, prediction, stretch

COUNT = 7
IMAGES = np.random.default_rng(0).lognormal(-2, 2, (COUNT, 2, 32, 32)).astype(np.float32)
LAST = np.moveaxis(IMAGES, 1, -1)


def built(rate=0.5, architecture="default"):
    """A network of the project, its batch norm with other statistics than those of a batch."""
    keras.utils.set_random_seed(0)
    pixels = stretch.measure(LAST, "asinh")
    model = network.build((32, 32, 2), config.Network(architecture=architecture, symmetry="none", dropout=rate), pixels)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_mean.assign(np.linspace(0, 0.2, layer.moving_mean.shape[0]))
            layer.moving_variance.assign(0.5 * layer.moving_variance)
    return model


def everything(images):
    return SimpleNamespace(images=images), Part(np.arange(len(images)), np.zeros(len(images), np.uint8))


def averaged(model, passes=2, seed=0, images=IMAGES, **more):
    return dropout.monte_carlo(model, *everything(images), passes, seed, **more)


def answers(model, images=LAST):
    return model(images, training=False).numpy()[:, 0]


@pytest.mark.parametrize("architecture", ["default", "published"])
def test_without_a_unit_dropped_the_answers_are_those_of_the_network(architecture):
    """Batch norm keeps the statistics of training: with those of a batch the answers would be others."""
    model = built(1e-9, architecture)
    np.testing.assert_allclose(averaged(model), answers(model), rtol=1e-5)
    assert np.abs(model(LAST, training=True).numpy()[:, 0] - answers(model)).max() > 1e-4


def test_an_image_is_answered_alike_alone_and_among_others_where_nothing_is_dropped():
    model = built(1e-9)
    np.testing.assert_allclose(averaged(model, images=IMAGES[:1]), averaged(model)[:1], rtol=1e-5)


def test_answers_vary_between_passes_and_stay_probabilities():
    noisy = dropout.dropping(built(), 0)
    found = np.array([answers(noisy) for _ in range(5)])
    assert (found.std(axis=0) > 1e-3).all()
    assert ((found > 0) & (found < 1)).all()


def test_layers_of_one_rate_do_not_drop_alike():
    """Each has a seed of its own: two layers behind one another that drop the same units would be one."""
    model = keras.Sequential([keras.Input((4000,)), keras.layers.Dropout(0.5), keras.layers.Dropout(0.5)])
    kept = dropout.dropping(model, 0)(np.ones((1, 4000)), training=False).numpy() > 0
    assert kept.mean() == pytest.approx(0.25, abs=0.03)


def test_the_seed_decides_the_numbers_also_over_several_batches(monkeypatch):
    """Batches that are under way side by side would take random numbers in any order."""
    monkeypatch.setattr(prediction, "BATCH_PIXELS", 32 * 32)
    model, images = built(), np.tile(IMAGES, (4, 1, 1, 1))
    first = averaged(model, seed=3, images=images)
    np.testing.assert_array_equal(averaged(model, seed=3, images=images), first)
    assert np.abs(averaged(model, seed=4, images=images) - first).max() > 1e-3
    # The same image again is not dropped alike.
    assert np.ptp(first.reshape(4, -1), axis=0).min() > 1e-5


def test_the_mean_over_passes_tends_to_the_exact_expectation():
    """Against all masks of a linear-sigmoid network of four units, each with its probability."""
    rate, rng = 0.3, np.random.default_rng(2)
    images, weights, bias = rng.normal(size=(3, 1, 2, 2)).astype(np.float32), rng.normal(0, 2, 4), 0.4
    layers = [keras.layers.Flatten(), keras.layers.Dropout(rate), keras.layers.Dense(1, "sigmoid")]
    model = keras.Sequential([keras.Input((2, 2, 1)), *layers])
    model.set_weights([weights[:, None], np.array([bias])])
    exact, square = np.zeros(3), np.zeros(3)
    for mask in product([0, 1], repeat=4):
        kept = np.array(mask)
        chance = np.prod(np.where(kept, 1 - rate, rate))
        found = 1 / (1 + np.exp(-(images.reshape(3, 4) * kept / (1 - rate) @ weights + bias)))
        exact, square = exact + chance * found, square + chance * found**2
    passes = 2000
    error = np.sqrt((square - exact**2) / passes)
    assert (np.abs(averaged(model, passes, images=images) - exact) < 4 * error).all()
    assert (np.abs(answers(model, images.reshape(3, 2, 2, 1)) - exact) > 6 * error).any()  # it is another number


def test_the_network_itself_stays_as_it_was():
    model = built()
    before, kinds = model.get_weights(), [type(layer) for layer in model.layers]
    first = answers(model)
    averaged(model)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)
    assert [type(layer) for layer in model.layers] == kinds
    np.testing.assert_array_equal(answers(model), first)


def test_a_network_from_a_file_drops_like_the_one_that_was_saved(tmp_path):
    model = built()
    model.save(tmp_path / "model.keras")
    again = prediction.load(tmp_path / "model.keras")
    np.testing.assert_allclose(averaged(again, seed=1), averaged(model, seed=1), rtol=1e-5)


def test_rows_and_transforms_are_those_of_the_part():
    rows, transforms = np.array([5, 0, 5]), np.array([0, 3, 6], np.uint8)
    found = dropout.monte_carlo(built(1e-9), SimpleNamespace(images=IMAGES), Part(rows, transforms), 1, 0)
    expected = prediction.predict(built(1e-9), IMAGES, rows, transforms)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert abs(found[0] - found[2]) > 1e-6


def test_progress_is_told_after_each_pass():
    told = []
    averaged(built(), 3, advance=told.append)
    assert told == [1, 1, 1]


def test_a_network_without_dropout_is_refused():
    with pytest.raises(ValueError, match="should have a dropout above 0"):
        averaged(built(0.0))
