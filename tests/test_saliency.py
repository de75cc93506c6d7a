import os
from functools import cache, partial

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from deepmerge.analysis import saliency
from deepmerge.analysis.saliency import KINDS, TARGETS, Explainer, displayed, panel_rows
from deepmerge.errors import InputError

SIDE = 8
MERGER, NON_MERGER = range(len(TARGETS))
maps = partial(saliency.maps, method="gradcam")


def identity_model(head, bias=0.0, channels=2, activation=None):
    """Feature maps = image; logit = Σ_k head_k mean(A_k) + bias. So α_k = head_k / SIDE² and all is known."""
    inputs = keras.Input((SIDE, SIDE, channels))
    x = layers.Conv2D(channels, 1, use_bias=False, activation=activation, name="copy")(inputs)
    outputs = layers.Dense(1, activation="sigmoid")(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, outputs)
    model.set_weights([np.eye(channels)[None, None], np.array(head, "float32")[:, None], np.array([bias])])
    return model


@cache
def small_network(*, head="sigmoid", pool=layers.Flatten, use=""):
    """What a real network is made of: a stretch, several convolutions, batch norm, dropout, dense layers.

    Shared by the tests; one that changes the weights names its `use`.
    """
    keras.utils.set_random_seed(0)
    inputs = keras.Input((SIDE, SIDE, 2))
    x = layers.Normalization(mean=[0.1, 0.2], variance=[1.0, 2.0])(keras.ops.arcsinh(inputs))
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="first")(x)
    x = layers.BatchNormalization()(x)
    x = layers.MaxPooling2D(2)(x)
    x = layers.Conv2D(5, 3, padding="same", activation="relu", name="second")(x)
    x = layers.BatchNormalization()(x)
    x = layers.Dropout(0.5)(pool()(x))
    x = layers.Dense(6, activation="relu")(x)
    if head == "activation":
        outputs = layers.Activation("sigmoid")(layers.Dense(1)(x))
    else:
        outputs = layers.Dense(1, activation=head)(x)
    return keras.Model(inputs, outputs)


def images(n=5, channels=2, seed=1):
    return np.random.default_rng(seed).normal(size=(n, SIDE, SIDE, channels)).astype("float32")


def by_hand(model, image, name, *, average=True):
    """Grad-CAM of one image, eagerly, for networks made by `small_network`."""
    x = tf.constant(image[None])
    with tf.GradientTape() as tape:
        for layer in model.operations[1:]:
            last = layer is model.operations[-1]
            x = x @ layer.kernel + layer.bias if last else layer(x)
            if layer.name == name:
                tape.watch(x)
                features = x
    gradient = tape.gradient(x, features).numpy()[0]
    weights = gradient.mean(axis=(0, 1)) if average else gradient
    signed = (weights * features.numpy()[0]).sum(axis=-1)
    return [tf.image.resize(np.maximum(s, 0)[..., None], (SIDE, SIDE)).numpy()[..., 0] for s in (signed, -signed)]


# --- values that are known ---------------------------------------------------------------------------------


def test_identity_kernels_give_the_weighted_channels():
    x = images()
    found = maps(identity_model([3.0, -2.0]), x)
    signed = (3 * x[..., 0] - 2 * x[..., 1]) / SIDE**2
    assert found.shape == (5, 2, SIDE, SIDE)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[:, MERGER], np.maximum(signed, 0), atol=1e-6)
    np.testing.assert_allclose(found[:, NON_MERGER], np.maximum(-signed, 0), atol=1e-6)


def test_one_channel_gives_its_relu_for_the_merger():
    x = images(channels=1)
    found = maps(identity_model([float(SIDE**2)], channels=1), x)
    np.testing.assert_allclose(found[:, MERGER], np.maximum(x[..., 0], 0), rtol=1e-5)


def test_a_channel_that_speaks_for_mergers_leaves_the_other_map_empty():
    found = maps(identity_model([1.0, 2.0]), np.abs(images()))
    assert (found[:, MERGER] > 0).all()
    assert (found[:, NON_MERGER] == 0).all()


@pytest.mark.parametrize("name", ["first", "second"])
@pytest.mark.parametrize("method", ["gradcam", "hirescam"])
def test_a_real_network_equals_the_steps_done_by_hand(name, method):
    model, x = small_network(), images()
    found = maps(model, x, layer=name, method=method)
    expected = [by_hand(model, image, name, average=method == "gradcam") for image in x]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.max() > 1e-3


def test_both_methods_agree_behind_a_global_average_and_differ_behind_flatten():
    x = images()
    pooled, flattened = small_network(pool=layers.GlobalAveragePooling2D), small_network()
    np.testing.assert_allclose(maps(pooled, x), maps(pooled, x, method="hirescam"), atol=1e-6)
    assert np.abs(maps(flattened, x) - maps(flattened, x, method="hirescam")).max() > 1e-3


def test_no_position_speaks_for_both_classes():
    found = maps(small_network(), images(), layer="first")  # as large as the image after the pooling's gradient
    assert found[:, MERGER].any()
    assert found[:, NON_MERGER].any()
    assert not (found[:, MERGER] * found[:, NON_MERGER]).any()


@pytest.mark.parametrize("bias", [40.0, -200.0])
def test_a_saturated_probability_does_not_kill_the_maps(bias):
    x = images()
    sure, unsure = identity_model([3.0, -2.0], bias), identity_model([3.0, -2.0])
    p = np.asarray(sure(x))
    assert bias < 0 or (p == 1).all()
    np.testing.assert_array_equal(maps(sure, x), maps(unsure, x))


# --- batches -----------------------------------------------------------------------------------------------


def test_batches_padding_and_streams_give_what_single_images_give():
    model, x = small_network(), images(7)
    single = maps(model, x, batch_size=1)
    assert single.any()
    for size in (3, 64):
        np.testing.assert_allclose(maps(model, x, batch_size=size), single, atol=1e-6)
    stream = (x[a:b] for a, b in ((0, 1), (1, 6), (6, 6), (6, 7)))
    np.testing.assert_allclose(maps(model, stream, batch_size=4), single, atol=1e-6)


def test_the_function_is_compiled_once():
    cam = Explainer(small_network(), method="gradcam", batch_size=4)
    sizes = [len(found) for found in cam.batches(images(10))]
    assert sizes == [4, 4, 2]
    assert cam._compiled.experimental_get_tracing_count() == 1


def test_memory_mapped_float64_and_no_images_are_taken(tmp_path):
    model, x = small_network(), images()
    np.save(tmp_path / "x.npy", x.astype("float64"))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    np.testing.assert_array_equal(maps(model, mapped), maps(model, x))
    assert maps(model, x[:0]).shape == (0, 2, SIDE, SIDE)


def test_flipped_images_give_flipped_maps_if_the_kernels_are_symmetric():
    model, x = small_network(pool=layers.GlobalAveragePooling2D, use="symmetric kernels"), images()
    for layer in model.layers:
        if isinstance(layer, layers.Conv2D):
            kernel = layer.kernel.numpy()
            layer.kernel.assign(kernel + kernel[::-1] + kernel[:, ::-1] + kernel[::-1, ::-1])
    found = maps(model, x)
    assert found.any()
    for axis in (1, 2):
        np.testing.assert_allclose(maps(model, np.flip(x, axis)), np.flip(found, axis + 1), atol=1e-5)


# --- the model stays as it is, whatever it is --------------------------------------------------------------


def test_batch_norm_and_dropout_rest_and_the_model_is_untouched():
    model, x = small_network(), images()
    before, weights = np.asarray(model(x)), model.get_weights()
    np.testing.assert_array_equal(maps(model, x), maps(model, x))
    assert all((a == b).all() for a, b in zip(weights, model.get_weights(), strict=True))
    np.testing.assert_array_equal(np.asarray(model(x)), before)
    assert model.layers[-1].activation is keras.activations.sigmoid


def test_frozen_saved_and_sequential_models_give_the_same_maps(tmp_path):
    model, x = small_network(), images()
    expected = maps(model, x)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    loaded.trainable = False
    np.testing.assert_allclose(maps(loaded, x), expected, atol=1e-6)
    copy = identity_model([1.0, 2.0])
    stacked = keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 2)),
            layers.Conv2D(2, 1, use_bias=False, trainable=False),
            layers.GlobalAveragePooling2D(),
            layers.Dense(1, activation="sigmoid"),
        ]
    )
    stacked.set_weights(copy.get_weights())
    np.testing.assert_allclose(maps(stacked, x), maps(copy, x), atol=1e-6)


def test_a_sigmoid_of_its_own_layer_is_taken():
    model, split = small_network(), small_network(head="activation")
    split.set_weights(model.get_weights())
    np.testing.assert_allclose(maps(split, images()), maps(model, images()), atol=1e-6)


# --- choices and faults ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "name"), [(None, "second"), (-1, "second"), ("0", "first"), (0, "first"), ("first", "first")]
)
def test_layers_go_by_name_or_number(choice, name):
    assert Explainer(small_network(), choice, method="gradcam").layer == name


@pytest.mark.parametrize("choice", ["third", 2, -3, "dense", "1.5"])
def test_an_unknown_layer_is_answered_with_the_choices(choice):
    with pytest.raises(InputError, match=rf"\(0 = first, 1 = second\), .* got {choice!r}"):
        Explainer(small_network(), choice, method="gradcam")


def test_a_model_without_convolution_is_refused():
    model = keras.Sequential([keras.Input((SIDE, SIDE, 2)), layers.Flatten(), layers.Dense(1, "sigmoid")])
    with pytest.raises(InputError, match="none in this model"):
        Explainer(model, method="gradcam")


OTHER_HEADS = {
    "linear": lambda: small_network(head="linear"),
    "tanh": lambda: small_network(head="tanh"),
    "two outputs": lambda: keras.Sequential([keras.Input((SIDE,)), layers.Dense(2, activation="sigmoid")]),
    "unbuilt": lambda: keras.Sequential([layers.Conv2D(2, 3), layers.Dense(1, activation="sigmoid")]),
    "subclassed": keras.Model,
}


@pytest.mark.parametrize("head", OTHER_HEADS)
def test_other_heads_are_refused(head):
    with pytest.raises(InputError, match="one sigmoid unit"):
        Explainer(OTHER_HEADS[head](), method="gradcam")


def test_something_behind_the_sigmoid_is_refused():
    model = small_network()
    with pytest.raises(InputError, match="one sigmoid unit"):
        Explainer(keras.Model(model.inputs, 1 - model.outputs[0]), method="gradcam")


@pytest.mark.parametrize("shape", [(3, 2, SIDE, SIDE), (3, SIDE, SIDE), (3, SIDE, SIDE, 3)])
def test_images_of_another_shape_are_named(shape):
    with pytest.raises(InputError, match=rf"\(n, {SIDE}, {SIDE}, 2\), channels last, got"):
        maps(small_network(), np.zeros(shape))


def test_what_is_not_finite_is_named():
    model, x = small_network(use="broken weights"), images()
    x[3, 2, 2, 0] = np.nan
    with pytest.raises(InputError, match="finite"):
        maps(model, x)
    model.layers[-1].kernel.assign(np.full((6, 1), np.nan))
    with pytest.raises(InputError, match="finite"):
        maps(model, images())


def test_unknown_options_are_named():
    with pytest.raises(InputError, match=r"gradcam, .* occlusion, got 'scorecam'"):
        Explainer(small_network(), method="scorecam")
    with pytest.raises(InputError, match="batch_size"):
        Explainer(small_network(), method="gradcam", batch_size=0)


def test_figures_smooth_maps_of_pixels_and_leave_those_of_layers():
    found = np.zeros((2, 2, 21, 21), np.float32)
    found[0, 1, 10, 10] = 1
    assert displayed(found, "hirescam") is found
    shown = displayed(found, "smoothgrad")
    assert shown.shape == found.shape
    assert shown.sum() == pytest.approx(1, rel=1e-3)
    assert 0.1 < shown[0, 1].max() < 0.2  # 1 / 2πσ², σ one pixel
    assert not shown[1].any()
    assert displayed(found[:0], "smoothgrad").shape == (0, 2, 21, 21)


# --- which images to show ----------------------------------------------------------------------------------


def test_panels_hold_the_surest_and_the_least_sure_of_each_kind():
    p = np.array([0.9, 0.51, 0.7, 0.99, 0.6, 0.1, 0.4, 0.45, 0.2, 0.05])
    y = np.array([1, 1, 1, 1, 1, 1, 0, 0, 0, 0])
    rows = panel_rows(y, p, per_kind=2)
    assert tuple(rows) == KINDS
    assert [rows["TP"].confident.tolist(), rows["TP"].uncertain.tolist()] == [[3, 0], [1, 4]]
    assert [rows["TN"].confident.tolist(), rows["TN"].uncertain.tolist()] == [[9, 8], [7, 6]]
    assert [rows["FN"].confident.tolist(), rows["FN"].uncertain.tolist()] == [[5], []]
    assert [rows["FP"].confident.tolist(), rows["FP"].uncertain.tolist()] == [[], []]
    assert rows["FP"].confident.dtype.kind == "i"


def test_panels_show_no_image_twice_and_count_the_threshold_to_the_mergers():
    rows = panel_rows([1, 1, 1], [0.9, 0.8, 0.7], per_kind=2)["TP"]
    assert [rows.confident.tolist(), rows.uncertain.tolist()] == [[0, 1], [2]]
    assert panel_rows([1, 0], [0.5, 0.4])["TP"].confident.tolist() == [0]


def test_panels_show_a_galaxy_once_if_asked():
    p = np.array([0.99, 0.98, 0.9, 0.6, 0.55, 0.7])
    rows = panel_rows(np.ones(6), p, per_kind=2, galaxies=["a", "a", "b", "a", "c", "c"])["TP"]
    assert rows.confident.tolist() == [0, 2]
    assert rows.uncertain.tolist() == [4]


def test_panels_need_lists_of_one_length():
    with pytest.raises(InputError, match="one length"):
        panel_rows([1, 0], [0.5])
