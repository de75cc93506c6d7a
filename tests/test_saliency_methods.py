"""Each method of saliency maps: what is known of it on networks whose answer can be written down."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from deepmerge import config
from deepmerge.analysis.saliency import METHODS, PIXELS, Explainer, Opened, pixel_maps
from deepmerge.data.turns import transform
from deepmerge.errors import InputError
from deepmerge.model import network, stretch

SIDE = 12
OF_LAYERS = [name for name, method in METHODS.items() if method.of_layer]
OF_PIXELS = [name for name, method in METHODS.items() if method.of_pixels]
HEAD = np.array([3.0, -2.0], np.float32)


def images(n=4, side=SIDE, filters=2, seed=1):
    return np.random.default_rng(seed).normal(size=(n, side, side, filters)).astype("float32")


def weighted(side=SIDE, *, relu=False):
    """Features are the pixels, or their ReLU; the logit is Σ w · features with weights w (H, W, F) of any sign."""
    weights = np.random.default_rng(7).normal(size=(side, side, 2)).astype("float32")
    inputs = keras.Input((side, side, 2))
    x = layers.Conv2D(2, 1, use_bias=False, activation="relu" if relu else None, name="copy")(inputs)
    model = keras.Model(inputs, layers.Dense(1, activation="sigmoid")(layers.Flatten()(x)))
    model.set_weights([np.eye(2, dtype="float32")[None, None], weights.reshape(-1, 1), np.array([0.3], "float32")])
    return model, weights


def deep(side=SIDE, *, activation="softplus", pool=layers.Flatten):
    keras.utils.set_random_seed(3)
    inputs = keras.Input((side, side, 2))
    x = layers.Conv2D(4, 3, padding="same", activation=activation, name="first")(inputs)
    x = layers.MaxPooling2D(2)(x)
    x = layers.Conv2D(5, 3, padding="same", activation=activation, name="second")(x)
    x = layers.Dense(6, activation=activation)(pool()(x))
    return keras.Model(inputs, layers.Dense(1, activation="sigmoid")(x))


def galaxy_network(symmetry="none", side=24, kind="asinh", **settings):
    keras.utils.set_random_seed(1)
    pixels = stretch.measure(bright(50, side), kind)
    model = network.build((side, side, 2), config.Network(symmetry=symmetry, stretch=kind, **settings), pixels)
    rng = np.random.default_rng(2)
    model.set_weights([w + 0.05 * rng.normal(size=w.shape) for w in model.get_weights()])
    return model


def bright(n=3, side=24, seed=0):
    return np.random.default_rng(seed).lognormal(size=(n, side, side, 2)).astype(np.float32)


def signed(model, x, method, layer=None):
    found = Explainer(model, layer, method=method).maps(x)
    return found[:, 0] - found[:, 1]


def logits(model, x):
    opened, pixels = Opened(model), tf.constant(x)
    return opened.logit(pixels, opened.stretched(pixels)).numpy()


# --- values that are known ---------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [*OF_PIXELS[:2], "hirescam"])
def test_of_a_linear_network_each_pixel_has_what_it_adds_to_the_logit(method):
    model, weights = weighted()
    x = images()
    np.testing.assert_allclose(signed(model, x, method), (weights * x).sum(-1), rtol=1e-4, atol=1e-5)


def test_of_a_linear_network_occlusion_is_the_share_of_the_patches_over_a_pixel_and_adds_up():
    model, weights = weighted()
    x, patch, stride = images(), pixel_maps.PATCH, pixel_maps.STRIDE
    each = (weights * x).sum(-1)
    expected, held = np.zeros_like(each), np.zeros(each.shape[1:])
    starts = range(stride - patch, SIDE, stride)
    for top, left in ((a, b) for a in starts for b in starts):
        inside = np.s_[max(top, 0) : top + patch, max(left, 0) : left + patch]
        expected[:, *inside] += each[:, *inside].mean((1, 2))[:, None, None]
        held[inside] += 1
    found = signed(model, x, "occlusion")
    np.testing.assert_allclose(found, expected / held, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(found.sum((1, 2)), each.sum((1, 2)), rtol=1e-3, atol=1e-4)


def test_layercam_keeps_what_speaks_for_a_class_and_drops_what_speaks_against_it():
    model, weights = weighted(relu=True)
    x = images()
    features = np.maximum(x, 0)
    merger, other = np.moveaxis(Explainer(model, method="layercam").maps(x), 1, 0)
    np.testing.assert_allclose(merger, (np.maximum(weights, 0) * features).sum(-1), rtol=1e-5)
    np.testing.assert_allclose(other, (np.maximum(-weights, 0) * features).sum(-1), rtol=1e-5)


def test_grad_cam_plus_plus_is_that_of_its_equations():
    model, weights = weighted(relu=True)
    x = images()
    for target, sign in enumerate((1, -1)):
        slope, features = sign * weights.astype(float), np.maximum(x, 0).astype(float)
        alpha = slope**2 / (2 * slope**2 + slope**3 * features.sum((1, 2), keepdims=True))
        weight = (alpha * np.maximum(slope, 0)).sum((1, 2), keepdims=True)
        expected = np.maximum((weight * features).sum(-1), 0)
        np.testing.assert_allclose(Explainer(model, method="gradcam++").maps(x)[:, target], expected, rtol=1e-4)


def test_guided_gradients_stop_at_every_relu_what_is_negative():
    """Of logit = −2 ReLU(mean A₁) + 3 ReLU(mean A₀): only the second path lets a gradient for the merger pass."""
    inputs = keras.Input((SIDE, SIDE, 2))
    x = layers.Conv2D(2, 1, use_bias=False, name="copy")(inputs)
    x = layers.Dense(2, activation="relu", use_bias=False)(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, layers.Dense(1, activation="sigmoid", use_bias=False)(x))
    model.set_weights([np.eye(2)[None, None], np.eye(2), HEAD[:, None]])
    x = np.abs(images())
    merger, other = np.moveaxis(Explainer(model, method="guided").maps(x), 1, 0)
    np.testing.assert_allclose(merger, 3 * x[..., 0] / SIDE**2, rtol=1e-5)
    np.testing.assert_allclose(other, 2 * x[..., 1] / SIDE**2, rtol=1e-5)
    plain = signed(model, x, "gradcam")
    np.testing.assert_allclose(plain, (HEAD * x).sum(-1) / SIDE**2, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("method", METHODS)
def test_maps_leave_the_network_and_its_answers_as_they_are_and_it_can_be_saved(method, tmp_path):
    model = galaxy_network("average")
    x = bright(1)
    before = np.asarray(model(x, training=False))
    Explainer(model, method=method).maps(x)
    np.testing.assert_array_equal(np.asarray(model(x, training=False)), before)
    model.save(tmp_path / "model.keras")


# --- integrated gradients ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "symmetry"), [("asinh", "average"), ("log", "none"), ("raw", "none")])
def test_integrated_gradients_add_up_to_the_logit_less_that_of_a_dark_image(symmetry, kind):
    model, x = galaxy_network(symmetry, kind=kind), bright()
    expected = logits(model, x) - logits(model, np.zeros_like(x))
    found = signed(model, x, "integrated").sum((1, 2))
    assert np.abs(expected).max() > 0.05
    # Midpoints between which a ReLU switches are off; the smooth network below has no such.
    np.testing.assert_allclose(found, expected, atol=0.1 * np.abs(expected).max())


def test_of_a_smooth_network_they_do_so_to_the_error_of_midpoints():
    model, x = deep(), images()
    expected = logits(model, x) - logits(model, np.zeros_like(x))
    np.testing.assert_allclose(signed(model, x, "integrated").sum((1, 2)), expected, rtol=1e-3, atol=1e-4)


def test_the_path_is_straight_in_the_stretched_pixels():
    """A pixel of which the logit is linear when stretched has the whole change, whatever the stretch does to it."""
    pixels = stretch.measure(bright(50), "asinh")
    inputs = keras.Input((24, 24, 2))
    x = stretch.layers(inputs, "asinh", pixels)
    picked = layers.Dense(1, activation="sigmoid", name="merger_probability")(layers.Flatten()(x))
    model = keras.Model(inputs, picked)
    kernel = np.zeros((24 * 24 * 2, 1), np.float32)
    kernel[[0, 300]] = [[2.0], [-1.0]]
    model.layers[-1].set_weights([kernel, np.zeros(1)])
    given = bright() * 100
    stretched = np.asarray(keras.Model(inputs, x)(given)) - np.asarray(keras.Model(inputs, x)(np.zeros_like(given)))
    expected = (stretched * kernel.reshape(24, 24, 2)).sum(-1)
    np.testing.assert_allclose(signed(model, given, "integrated"), expected, rtol=1e-4, atol=1e-5)


# --- what holds for every method ---------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_maps_of_a_symmetric_network_are_as_large_as_the_image_and_turn_with_it(method):
    model, x = galaxy_network("average"), bright()
    explainer = Explainer(model, method=method)
    found = explainer.maps(x)
    assert found.shape == (3, 2, 24, 24)
    assert (found >= 0).all()
    assert found.max() > 0
    np.testing.assert_array_equal(explainer.maps(x), found)
    atol = 1e-3 * found.max()
    np.testing.assert_allclose(explainer.maps(x[i : i + 1] for i in range(3)), found, rtol=2e-3, atol=atol)
    if method != "occlusion":  # whose patches begin at one corner
        for code in (1, 4):
            turned = np.moveaxis(transform(np.moveaxis(x, -1, 1), code), 1, -1)
            again = explainer.maps(np.ascontiguousarray(turned))
            np.testing.assert_allclose(again, transform(found, code), rtol=2e-3, atol=atol)


@pytest.mark.parametrize("method", OF_PIXELS)
def test_no_light_has_no_map_of_pixels(method):
    found = Explainer(galaxy_network(), method=method).maps(np.zeros((1, 24, 24, 2), np.float32))
    assert not found.any()


@pytest.mark.parametrize("method", OF_LAYERS)
@pytest.mark.parametrize("layer", ["max_pooling2d"])
def test_layer_methods_take_any_layer_with_maps_by_name(method, layer):
    model = deep(activation="relu")
    name = next(each.name for each in model.layers if each.name.startswith(layer))
    explainer = Explainer(model, name, method=method)
    assert explainer.layer == name
    assert explainer.maps(images()).shape == (4, 2, SIDE, SIDE)


@pytest.mark.parametrize("method", OF_PIXELS)
def test_methods_of_the_pixels_refuse_a_layer(method):
    assert Explainer(deep(), method=method).layer == PIXELS
    with pytest.raises(InputError, match=r"looks at the pixels and takes no layer, got 'first'"):
        Explainer(deep(), "first", method=method)


def test_a_network_without_a_convolution_has_maps_of_its_pixels():
    model = keras.Sequential([keras.Input((SIDE, SIDE, 2)), layers.Flatten(), layers.Dense(1, "sigmoid")])
    assert Explainer(model, method="integrated").maps(images()).any()


# --- against another implementation ------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "theirs"), [("gradcam", "gradcam.Gradcam"), ("layercam", "layercam.Layercam")])
@pytest.mark.parametrize("layer", ["first", "second"])
def test_maps_are_those_of_tf_keras_vis(method, theirs, layer):
    module, name = theirs.split(".")
    kind = getattr(pytest.importorskip(f"tf_keras_vis.{module}"), name)
    model, x = deep(activation="relu"), images()
    last = model.layers[-1]
    linear = keras.Model(model.inputs, layers.Dense(1, name="logit")(last.input))
    linear.set_weights(model.get_weights())
    cam = kind(linear)(lambda output: output[:, 0], x, penultimate_layer=layer, expand_cam=False, normalize_cam=False)
    cam = tf.image.resize(np.asarray(cam)[..., None], (SIDE, SIDE)).numpy()[..., 0]
    assert cam.any()
    np.testing.assert_allclose(Explainer(model, layer, method=method).maps(x)[:, 0], cam, rtol=1e-3, atol=1e-6)
