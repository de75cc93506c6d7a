"""What the convolutions of a network make of images, and whether that has stripes."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest

from deepmerge import config
from deepmerge.analysis.saliency import activations, column_power
from deepmerge.model import network, stretch


def images(n=40, side=24, seed=0):
    return np.random.default_rng(seed).lognormal(size=(n, side, side, 2)).astype(np.float32)


def built(**settings):
    keras.utils.set_random_seed(1)
    return network.build((24, 24, 2), config.Network(**settings), stretch.measure(images(), "asinh"))


@pytest.mark.parametrize("symmetry", ["none", "average"])
def test_features_are_those_of_the_upright_image_behind_the_batch_norm(symmetry):
    model, x = built(symmetry=symmetry), images()
    found = activations(model, x)
    assert [(name, each.shape) for name, each in found.items()] == [
        ("conv_1", (40, 24, 24, 8)),
        ("conv_2", (40, 12, 12, 16)),
        ("conv_3", (40, 6, 6, 32)),
    ]
    plain = built(symmetry="none")
    plain.set_weights(model.get_weights())
    until = keras.Model(plain.inputs[0], plain.get_layer("batch_normalization_1").output)
    np.testing.assert_allclose(found["conv_2"], until.predict(x, verbose=0), atol=1e-5)


def test_a_network_without_convolutions_has_none():
    inputs = keras.Input((24, 24, 2))
    head = keras.layers.Dense(1, activation="sigmoid")(keras.layers.Flatten()(inputs))
    assert activations(keras.Model(inputs, head), images()) == {}


def test_the_power_of_columns_is_one_in_no_direction_and_turns_with_the_image():
    noise = np.random.default_rng(1).normal(size=(500, 16, 16, 3))
    assert column_power(noise) == pytest.approx(1, abs=0.05)
    striped = noise + np.random.default_rng(2).normal(size=16)[:, None]  # of columns
    assert column_power(striped) > 5
    assert column_power(striped.swapaxes(1, 2)) == pytest.approx(1 / column_power(striped))
    assert column_power(3 * striped + 1) == pytest.approx(column_power(striped))
    assert np.isnan(column_power(np.ones((2, 8, 8, 1))))


def test_batch_norm_over_the_width_makes_stripes_and_over_channels_none():
    powers = {}
    for axis in ("width", "channels"):
        model = built(architecture="published", batch_norm=axis)
        rng = np.random.default_rng(3)
        for layer in model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.beta.assign(rng.normal(size=layer.beta.shape))
        powers[axis] = column_power(activations(model, images(200))["conv_1"])
    assert powers["width"] > 5 > 1.5 > powers["channels"] > 0.7
