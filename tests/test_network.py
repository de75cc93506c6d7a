import io
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

from deepmerge import config
from deepmerge.config import network as network_settings
from deepmerge.model import network, prediction, stretch
from deepmerge.model.layers import FastBatchNormalization, FastConv2D, faster

STRETCHES = ("raw", "standard", "asinh", "log")


OURS = network_settings.OURS


def images(count=16, shape=(75, 75, 2), seed=0):
    return np.random.default_rng(seed).lognormal(-2, 2, (count, *shape)).astype(np.float32)


def built(architecture="default", kind="asinh", shape=(75, 75, 2), **settings):
    pixels = stretch.measure(images(shape=shape), kind)
    # Of one turn, an eighth of the time; tests/test_symmetry.py is about all of them.
    chosen = config.Network(**{"architecture": architecture, "stretch": kind, "symmetry": "none", **settings})
    return network.build(shape, chosen, pixels)


def norms_and_activations(model):
    """Numbers that each batch norm works over, and activations of the dense layers."""
    norms = [layer.gamma.shape[0] for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    dense = [layer.activation.__name__ for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    return norms, dense


def test_the_published_network_has_the_published_parameters():
    """174,801 of which 174,541 trainable: the summary in the authors' notebook."""
    model = built("published", "raw")
    assert model.count_params() == 174_801
    assert sum(int(np.prod(w.shape)) for w in model.trainable_weights) == 174_541
    assert norms_and_activations(model) == ([75, 37, 18], ["softmax", "softmax", "sigmoid"])


def test_the_default_network_normalises_channels():
    model = built("default", "raw")
    assert model.count_params() == 174_505
    assert norms_and_activations(model) == ([8, 16, 32], ["relu", "relu", "sigmoid"])


def test_the_compact_network_has_a_residual_block_and_a_quarter_of_the_weights():
    model = built("compact", "raw")
    assert model.count_params() == 40_049
    assert norms_and_activations(model) == ([16, 32, 32, 32, 32], ["relu", "relu", "sigmoid"])
    assert [layer.name for layer in model.layers if isinstance(layer, keras.layers.Add)]


def test_the_momentum_of_batch_norm_can_be_chosen():
    for model in (built("published"), built("compact", momentum=0.9)):
        norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
        assert {norm.momentum for norm in norms} == {0.99 if model.name.endswith("published") else 0.9}


@pytest.mark.parametrize("architecture", ["default", "published"])
@pytest.mark.parametrize("batch_norm", ["architecture", "channels", "width"])
@pytest.mark.parametrize("hidden", ["architecture", "relu", "softmax"])
def test_batch_norm_and_hidden_units_can_be_chosen_alone(architecture, batch_norm, hidden):
    """Four numbers for each channel or column of pixels are all that the axis of batch norm adds."""
    model = built(architecture, "raw", batch_norm=batch_norm, hidden=hidden)
    published = architecture == "published"
    wide = published if batch_norm == "architecture" else batch_norm == "width"
    soft = published if hidden == "architecture" else hidden == "softmax"
    norms, activations = norms_and_activations(model)
    assert norms == ([75, 37, 18] if wide else [8, 16, 32])
    assert activations == [*(["softmax"] * 2 if soft else ["relu"] * 2), "sigmoid"]
    assert model.count_params() == 174_505 + wide * 4 * (75 + 37 + 18 - 8 - 16 - 32)
    drops = [layer for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    assert len(drops) == 3  # where they stand is the architecture's alone
    before_flatten = [type(layer).__name__ for layer in model.layers].index("Flatten")
    assert sum(layer in drops for layer in model.layers[:before_flatten]) == (3 if published else 0)


@pytest.mark.parametrize("shape", [(32, 32, 1), (40, 60, 3), (75, 75, 5)])
@pytest.mark.parametrize("architecture", OURS)
def test_any_size_and_number_of_filters_gives_a_probability(shape, architecture):
    scores = built(architecture, shape=shape)(images(3, shape), training=False).numpy()
    assert scores.shape == (3, 1)
    assert ((scores > 0) & (scores < 1)).all()


@pytest.mark.parametrize("kind", STRETCHES)
def test_a_saved_network_needs_no_code_and_scores_the_same(kind, tmp_path):
    model = built(kind=kind)
    path = tmp_path / "model.keras"
    model.save(path)
    stored = zipfile.ZipFile(io.BytesIO(path.read_bytes())).read("config.json").decode()
    assert "deepmerge." not in stored
    assert "__lambda__" not in stored
    given = images(5)
    back = prediction.load(path)
    np.testing.assert_allclose(back(given, training=False), model(given, training=False), atol=1e-6)
    np.testing.assert_array_equal(keras.models.load_model(path)(given, training=False), model(given, training=False))


FAST = {
    "convolution": (keras.layers.Conv2D, FastConv2D, {"filters": 5, "kernel_size": 3, "activation": "relu"}),
    "norm of channels": (keras.layers.BatchNormalization, FastBatchNormalization, {"axis": -1}),
    "norm of the width": (keras.layers.BatchNormalization, FastBatchNormalization, {"axis": 2}),
}


@pytest.mark.parametrize("kind", FAST)
def test_the_faster_layers_train_to_the_same_numbers(kind):
    """Against Keras's own: losses, weights and moving statistics of a few steps, the gradient, the output."""
    slow, fast, settings = FAST[kind]
    given = np.random.default_rng(0).normal(3, 2, (8, 12, 10, 4)).astype(np.float32)
    results = []
    for layer in (slow(**settings), fast(**settings)):
        model = keras.Sequential([keras.Input(given.shape[1:]), layer])
        start = [np.random.default_rng(i).uniform(0.5, 1, w.shape) for i, w in enumerate(model.get_weights())]
        model.set_weights(start)
        target = np.random.default_rng(1).normal(size=model(given).shape).astype(np.float32)
        with tf.GradientTape() as tape:
            pixels = tf.constant(given)
            tape.watch(pixels)
            loss = tf.reduce_sum(model(pixels, training=True) * target)
        gradient = tape.gradient(loss, pixels).numpy()
        model.compile(keras.optimizers.SGD(0.01), "mse")
        losses = [float(model.train_on_batch(given * (i + 1), target)) for i in range(4)]
        results.append([gradient, *layer.get_weights(), np.array(losses), model(given, training=False).numpy()])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(b, a, rtol=3e-5, atol=3e-5 * np.abs(a).max())


def of_other_layers(kind):
    """Networks that are not ours, with batch norm on what is no image, without scale, or in a model of one's own."""
    layers = keras.layers
    if kind == "subclass":

        class Own(keras.Model):
            def __init__(self):
                super().__init__()
                self.norm = layers.BatchNormalization()

            def call(self, inputs, training=None):
                return self.norm(inputs, training=training)

        model = Own()
    else:
        norm = layers.BatchNormalization(axis=1, scale=kind != "scale", center=kind != "scale")
        after = [layers.Flatten(), layers.BatchNormalization(), layers.Dense(1)]
        model = keras.Sequential([keras.Input((6, 5, 2)), norm, *after])
    model(np.zeros((1, 6, 5, 2)))
    model.set_weights([np.random.default_rng(0).uniform(0.5, 2, w.shape) for w in model.get_weights()])
    return model


@pytest.mark.parametrize("kind", ["default", "published", "sequential", "scale", "subclass"])
def test_the_faster_network_gives_the_same_numbers_and_the_saved_one_stays(kind):
    ours = kind in ("default", "published")
    model = built(kind, shape=(40, 36, 2)) if ours else of_other_layers(kind)
    if ours:
        model.set_weights([w + np.random.default_rng(0).uniform(0, 0.1, w.shape) for w in model.get_weights()])
    given = images(6, (40, 36, 2) if ours else (6, 5, 2))
    found = faster(model)
    np.testing.assert_allclose(found(given, training=False), model(given, training=False), rtol=1e-5, atol=1e-6)
    assert (found is model) == (kind == "subclass")
    assert not any(isinstance(layer, FastBatchNormalization) for layer in model.layers)


@pytest.mark.parametrize("architecture", OURS)
def test_the_network_for_training_has_the_weights_of_the_one_to_save(architecture):
    pixels = stretch.measure(images(), "asinh")
    settings = config.Network(architecture=architecture, symmetry="none")
    training, saved = (network.build((75, 75, 2), settings, pixels, for_training=t) for t in (True, False))
    saved.set_weights(training.get_weights())
    given = images(4, seed=1)
    np.testing.assert_allclose(saved(given, training=False), training(given, training=False), atol=1e-6)
    averaging = network.build((75, 75, 2), config.Network(architecture=architecture), pixels)
    assert [w.shape for w in averaging.get_weights()] == [w.shape for w in training.get_weights()]


def test_predictions_follow_the_weights():
    """A network in training is scored after each epoch."""
    model, given = built(), np.moveaxis(images(4), -1, 1)
    rows, nothing = np.arange(4), np.zeros(4, np.uint8)
    before = prediction.predict(model, given, rows, nothing)
    model.set_weights([w + 0.1 for w in model.get_weights()])
    after = prediction.predict(model, given, rows, nothing)
    np.testing.assert_allclose(after, model(images(4), training=False).numpy()[:, 0], rtol=1e-5)
    assert not np.allclose(before, after)


def test_predictions_do_not_depend_on_the_batch(monkeypatch):
    model, given = built(), np.moveaxis(images(23), -1, 1)
    rows = np.random.default_rng(0).permutation(23)
    nothing = np.zeros(23, np.uint8)
    whole = prediction.predict(model, given, rows, nothing)
    seen = []
    monkeypatch.setattr(prediction, "BATCH_PIXELS", 5 * 75 * 75)
    np.testing.assert_allclose(prediction.predict(model, given, rows, nothing, seen.append), whole, rtol=1e-5)
    assert seen == [5, 5, 5, 5, 3]
    assert prediction.predict(model, given, rows[:0], nothing[:0]).shape == (0,)


@pytest.mark.parametrize("architecture", ["default", "published"])
def test_width_scales_filters_and_hidden_units_but_never_to_nothing(architecture):
    pixels = stretch.measure(images(), "raw")

    def units(width):
        settings = config.Network(architecture=architecture, stretch="raw", width=width)
        layers = network.build((75, 75, 2), settings, pixels).layers
        return [
            layer.kernel.shape[-1] for layer in layers if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense)
        ]

    assert units(1.0) == [8, 16, 32, 64, 32, 1]
    assert units(2.0) == [16, 32, 64, 128, 64, 1]
    assert units(0.01) == [1] * 6


# What JSON can bring to a server: null, NaN, and a number that float32 has not.
UNDEFINED = {"NaN": np.nan, "infinite": np.inf, "minus infinite": -np.inf, "beyond float32": 1e40}


@pytest.mark.parametrize("bad", UNDEFINED.values(), ids=UNDEFINED)
@pytest.mark.parametrize("kind", STRETCHES)
@pytest.mark.parametrize("architecture", OURS)
def test_an_image_with_undefined_pixels_has_no_probability(architecture, kind, bad, tmp_path):
    """In the saved network itself, wherever it is used; the images beside it keep theirs."""
    model = built(architecture, kind, (40, 36, 2))
    given = images(4, (40, 36, 2)).astype(np.float64)
    expected = np.asarray(model(given.astype(np.float32), training=False))[:, 0]
    given[1, 3, 5, 0], given[3, :, :, 1] = bad, bad
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    with np.errstate(over="ignore"):
        spoilt = given.astype(np.float32)
    everything = np.arange(4), np.zeros(4, np.uint8)
    for scores in (
        loaded.predict(spoilt, verbose=0)[:, 0],
        prediction.predict(prediction.load(tmp_path / "model.keras"), np.moveaxis(spoilt, -1, 1), *everything),
        next(prediction.predict_pieces(loaded, [np.moveaxis(given, -1, 1)])),
    ):
        assert np.isnan(scores[[1, 3]]).all()
        np.testing.assert_allclose(scores[[0, 2]], expected[[0, 2]], rtol=1e-5)
