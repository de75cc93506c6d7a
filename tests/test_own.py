"""Networks of a user's own and of keras.applications: built, refused in one line, and saved without their code."""

import warnings
import zipfile

import keras
import numpy as np
import pytest

from deepmerge import config
from deepmerge.errors import InputError
from deepmerge.model import applications, network, own, prediction, saved, stretch
from deepmerge.model.layers import faster

SHAPE = (32, 32, 2)
FILE = """
import keras

def build(images, settings, depth: int = 2, kind="relu"):
    x = images
    for number in range(1, depth + 1):
        x = keras.layers.Conv2D(4, 3, activation=kind, name=f"conv_{number}")(x)
        x = keras.layers.BatchNormalization()(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.layers.Dropout(settings.dropout)(x)

def model(images):
    inputs = keras.Input(images.shape[1:])
    return keras.Model(inputs, keras.layers.Flatten()(keras.layers.Conv2D(3, 3)(inputs)))

def model_of_the_images(images):
    return keras.Model(images, keras.layers.Flatten()(keras.layers.Conv2D(3, 3)(images)))

def sequential(images):
    return keras.Sequential([keras.Input(images.shape[1:]), keras.layers.Conv2D(3, 3), keras.layers.Flatten()])

def nested(images):
    inner = keras.Sequential([keras.Input(images.shape[1:]), keras.layers.Conv2D(3, 3)])
    return keras.layers.Flatten()(inner(images))

def ready_made(images):
    return keras.applications.MobileNetV3Small(include_top=False, weights=None, input_tensor=images, pooling="avg")

def must_be_told(images, depth):
    return keras.layers.Flatten()(images)

def broken(images):
    x = images
    return undefined(x)

def no_features(images):
    return images

def a_lambda(images):
    return keras.layers.Flatten()(keras.layers.Lambda(lambda x: 2 * x)(images))

def a_function(images):
    def mine(x):
        return x
    return keras.layers.Flatten()(keras.layers.Conv2D(2, 3, activation=mine, name="odd")(images))

@keras.saving.register_keras_serializable()
class Mine(keras.layers.Layer):
    def call(self, x):
        return x

def a_layer(images):
    return keras.layers.Flatten()(Mine(name="odd")(images))
"""


@pytest.fixture
def built(tmp_path):
    """A function that builds the network of a function of FILE, or of another architecture."""
    path = tmp_path / "my_network.py"
    path.write_text(FILE)
    pixels = stretch.measure(np.random.default_rng(0).lognormal(-2, 2, (16, *SHAPE)).astype(np.float32), "asinh")

    def build(architecture, for_training=False, shape=SHAPE, **settings):
        if "." not in architecture:
            architecture = f"{path}:{architecture}"
        return network.build(
            shape, config.Network(architecture=architecture, **settings), pixels, for_training=for_training
        )

    return build


def images(count=4):
    return np.random.default_rng(1).lognormal(-2, 2, (count, *SHAPE)).astype(np.float32)


ALIKE = ["build", "model", "model_of_the_images", "sequential", "nested", "ready_made"]


@pytest.mark.parametrize("architecture", [*ALIKE, "keras.applications.MobileNetV3Small"])
def test_a_network_is_trained_saved_and_loaded_like_ours(built, architecture, tmp_path):
    training, model = (built(architecture, t, symmetry="none") for t in (True, False))
    model.set_weights(training.get_weights())
    given = images()
    expected = training(given, training=False).numpy()
    assert ((expected > 0) & (expected < 1)).all()
    np.testing.assert_allclose(model(given, training=False), expected, rtol=1e-5)
    np.testing.assert_allclose(faster(model)(given, training=False), expected, rtol=1e-4)
    saved.require_reloadable(model)
    model.save(tmp_path / "m.keras")
    assert "my_network" not in zipfile.ZipFile(tmp_path / "m.keras").read("config.json").decode()
    (tmp_path / "my_network.py").write_text("raise SystemExit('code of a model was run')")
    given[0, 3, 3, 1] = np.nan
    scores = np.asarray(prediction.load(tmp_path / "m.keras")(given, training=False))
    assert np.isnan(scores[:, 0]).tolist() == [True, False, False, False]


@pytest.mark.parametrize("architecture", [*ALIKE, "keras.applications.MobileNetV3Small"])
def test_the_stretch_stands_before_it_once_and_convolutions_where_saliency_finds_them(built, architecture):
    model = built(architecture)
    names = [layer.name for layer in model.layers]
    assert names[:4] == ["pixels", "unit", "soften", "standardise"]
    assert names[-1] == "merger_probability"
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert convolutions
    for layer in model.layers:
        assert len(layer._inbound_nodes) == 1, layer.name
    assert not any(isinstance(layer, keras.Model) for layer in model.layers)


def test_layers_are_called_the_same_in_every_process_and_for_training(built):
    names = [[layer.name for layer in built("build", t).layers] for t in (False, True, False)]
    names[1].insert(names[0].index("all_turns"), "all_turns")  # training sees one turn at a time
    assert names[0] == names[1] == names[2]
    assert {"conv_1", "batch_normalization", "batch_normalization_1", "dropout"} <= set(names[0])


def test_options_and_settings_reach_the_function(built):
    model = built("build", options={"depth": 3, "kind": "elu"}, dropout=0.4)
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert [layer.name for layer in convolutions] == ["conv_1", "conv_2", "conv_3"]
    assert convolutions[0].activation is keras.activations.elu
    assert model.get_layer("dropout").rate == 0.4
    assert model.name == "deepmerge_build"


def test_nothing_that_a_file_registers_with_keras_gets_into_saved_models(built):
    """MLflow pickles what is registered into each model, used or not."""
    before = dict(keras.saving.get_custom_objects())
    built("build")
    assert keras.saving.get_custom_objects() == before


LINE = FILE.split("\n").index("    return undefined(x)") + 1
REFUSED = {
    "unknown option": (
        "build",
        {"options": {"dept": 3}},
        r"my_network.py:build should be among depth, kind, got 'dept'",
    ),
    "not whole": ("build", {"options": {"depth": 2.5}}, r"network.options.depth .* should be a valid integer.*got 2.5"),
    "not true": ("build", {"options": {"depth": True}}, r"network.options.depth .* should be a number, got True"),
    "text by its default": ("build", {"options": {"kind": 3}}, r"network.options.kind .* valid string, got 3"),
    "missing option": ("must_be_told", {}, r"network.options should give depth"),
    "its own error": ("broken", {}, rf"my_network.py, line {LINE}: NameError: name 'undefined' is not defined$"),
    "no features": ("no_features", {}, r"return features \(n, k\), got \(None, 32, 32, 2\)"),
    "no such function": ("nothing", {}, r"should name a function of .*my_network.py \(build, model, .*got 'nothing'"),
    "a lambda": ("a_lambda", {}, r"layer lambda\w* \(Lambda\) should be of layers .* built into Keras, got a lambda"),
    "an own function": ("a_function", {}, r"layer odd \(Conv2D\) should .*, got mine"),
    "an own layer": ("a_layer", {}, r"layer odd \(Mine\) should .*, got Mine"),
    "no such application": ("keras.applications.ResNet5", {}, r"one of ConvNeXtBase.*got 'ResNet5'"),
    "option of no application": (
        "keras.applications.MobileNetV3Small",
        {"options": {"weights": "mine.h5"}},
        r"among alpha, .*got 'weights'",
    ),
    "too small": ("keras.applications.Xception", {}, r"keras.applications.Xception: .*at least 71x71"),
    "a loaded run": ("recorded:my.py:build", {}, r"made by code, my.py:build, which runs only where an experiment"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_said_in_one_line(built, case):
    architecture, settings, said = REFUSED[case]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(InputError, match=said) as raised:
            built(architecture, **settings)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import keras\n\ndef build(images)\n    pass\n", r"my.py, line 3: SyntaxError: expected ':'"),
        ("import keras\nimport no_such_package\n", r"my.py, line 2: ModuleNotFoundError: No module named"),
        (None, r"should name a Python file .*my.py:build, but: No such file"),
    ],
)
def test_a_broken_file_is_told_with_its_own_error_and_line(tmp_path, text, said):
    if text is not None:
        (tmp_path / "my.py").write_text(text)
    with pytest.raises(InputError, match=said):
        own.body(config.Network(architecture=f"{tmp_path}/my.py:build"))


def test_options_of_our_own_networks_are_refused():
    with pytest.raises(InputError, match=r"are for a network of your own or keras.applications, got {'depth': 3}"):
        own.body(config.Network(options={"depth": 3}))


@pytest.mark.parametrize("filters", [1, 2, 3, 5])
def test_imagenets_weights_get_three_channels_that_begin_in_the_order_of_the_filters(monkeypatch, filters):
    """Keras would fetch the weights; here it is asked for them, and makes the network without."""
    asked = {}

    def fetched(include_top, weights, input_shape, pooling):
        asked.update(weights=weights, input_shape=input_shape)
        layers = [keras.Input(input_shape), keras.layers.Conv2D(2, 3), keras.layers.GlobalAveragePooling2D()]
        return keras.Sequential(layers)

    monkeypatch.setattr(keras.applications, "VGG16", fetched)
    settings = config.Network(architecture="keras.applications.VGG16", weights="imagenet")
    pixels = stretch.PixelStatistics(np.ones(filters), np.zeros(filters), np.ones(filters))
    model = network.build((32, 32, filters), settings, pixels)
    assert asked == {"weights": "imagenet", "input_shape": (32, 32, 3)}
    assert model.get_layer("as_on_imagenet").scale == applications.SPREAD
    if filters == 3:
        assert "to_three_channels" not in [layer.name for layer in model.layers]
        return
    [kernel] = model.get_layer("to_three_channels").get_weights()
    expected = {1: [[1, 1, 1]], 2: [[1, 0.5, 0], [0, 0.5, 1]], 5: np.eye(5)[:, [0, 2, 4]]}[filters]
    np.testing.assert_allclose(kernel[0, 0], expected)
