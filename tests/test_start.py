"""Training that begins with the weights of a trained network, and keeps some of them."""

from dataclasses import replace

import keras
import numpy as np
import pytest

from deepmerge import config
from deepmerge.data import dataset, splits
from deepmerge.errors import InputError
from deepmerge.model import network, start, stretch, training

QUICK = {"epochs": 1, "batch_size": 32, "learning_rate": 3e-3}


@pytest.fixture
def trained(tmp_path):
    """A function that saves a network as if trained, its statistics those of images, and gives its file and itself."""

    def save(name="start", shape=(32, 32, 2), kind="asinh", seed=1, **settings):
        keras.utils.set_random_seed(seed)
        rng = np.random.default_rng(seed)
        pixels = stretch.measure(rng.lognormal(-2, 2, (16, *shape)).astype(np.float32), kind)
        model = network.build(shape, config.Network(stretch=kind, **settings), pixels)
        model.set_weights([w + rng.uniform(0.01, 0.1, w.shape) for w in model.get_weights()])
        path = tmp_path / f"{name}.keras"
        model.save(path)
        return str(path), model

    return save


def begun(file, shape=(32, 32, 2), **settings):
    used = config.Network(start=file, **settings)
    ones = np.ones(shape[-1])
    model = network.build(shape, used, stretch.PixelStatistics(ones, 0 * ones, ones), for_training=True)
    start.begin(model, start.load(used), used)
    return model


def test_a_network_begins_with_the_weights_of_another(trained):
    file, other = trained()
    for ours, theirs in zip(begun(file).get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_layers_up_to_the_one_to_freeze_and_with_it_are_fixed(trained):
    file, _ = trained()
    model = begun(file, freeze="conv_2")
    fixed = [layer.name for layer in model.layers if layer.weights and not layer.trainable]
    assert fixed == ["conv_1", "batch_normalization", "conv_2"]
    assert {variable.path.split("/")[0] for variable in model.trainable_variables}.isdisjoint(fixed)


REFUSED = {
    "other filters": ({}, (32, 32, 3), r"of 3 filters, as the data have, got a network of 2; name one of as many"),
    "other size": ({}, (40, 40, 2), r"40 × 40 pixels, as the data have, got a network for 32 × 32; crop or resample"),
    "other architecture": (
        {"width": 2.0},
        (32, 32, 2),
        r"same architecture, default, got deepmerge_default with 41,385",
    ),
    "no such layer": ({"freeze": "conv_9"}, (32, 32, 2), r"such as conv_1, batch_normalization, conv_2.*got 'conv_9'"),
    "nothing left": ({"freeze": "merger_probability"}, (32, 32, 2), r"should leave layers to learn"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_begin_so_is_refused_with_what_to_do(trained, case):
    settings, shape, said = REFUSED[case]
    with pytest.raises(InputError, match=said):
        begun(trained()[0], shape, **settings)


def test_what_is_no_network_is_refused(tmp_path):
    (tmp_path / "m.keras").write_text("no network")
    with pytest.raises(
        InputError, match=r"network.start should be a trained network that Keras can load, got .*m.keras"
    ):
        begun(str(tmp_path / "m.keras"))


@pytest.mark.parametrize("kind", ["raw", "standard", "asinh", "log"])
def test_the_pixel_statistics_of_a_network_are_read_from_its_layers(trained, kind):
    file, model = trained(kind=kind)
    settings = config.Network(start=file, stretch=kind, start_stretch="kept")
    loaded = start.load(settings)
    pixels = start.pixel_statistics(loaded, settings)
    again = network.build((32, 32, 2), settings, pixels)
    again.set_weights(model.get_weights())
    given = np.random.default_rng(3).lognormal(-2, 2, (4, 32, 32, 2)).astype(np.float32)
    np.testing.assert_allclose(again(given, training=False), model(given, training=False), rtol=1e-5)
    other = "standard" if kind != "standard" else "log"
    with pytest.raises(InputError, match=rf"network.stretch should be '{kind}', which the network of start has"):
        start.pixel_statistics(loaded, settings.model_copy(update={"stretch": other}))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"weights": "imagenet"}, "should go with keras.applications, got 'default'"),
        ({"start_stretch": "kept"}, "should go with start"),
        (
            {"architecture": "keras.applications.ResNet50", "weights": "imagenet", "start": "m.keras"},
            "both tell the first weights; keep one",
        ),
    ],
)
def test_settings_that_do_not_fit_one_another_are_refused(settings, said):
    with pytest.raises(InputError, match=said):
        config.sections(settings)


@pytest.fixture
def setting(write_sample):
    """Read the small sample and split it: (data, split, settings of network and training)."""

    def read(**overrides):
        experiment = config.load(str(write_sample()), {**QUICK, **overrides})
        data = dataset.read(experiment.data, experiment.name)
        return data, splits.make(data, experiment.split), experiment.network, experiment.training

    return read


@pytest.mark.slow
@pytest.mark.parametrize("kept", ["measured", "kept"])
def test_frozen_weights_stay_to_the_last_bit_and_the_others_learn(setting, trained, kept):
    file, other = trained()
    found = training.train(*setting(start=file, freeze="conv_2", start_stretch=kept)).model
    is_fixed = True
    for layer in found.layers:
        pairs = list(zip(layer.get_weights(), other.get_layer(layer.name).get_weights(), strict=True))
        assert all((np.array_equal(ours, theirs)) == is_fixed for ours, theirs in pairs), layer.name
        is_fixed = is_fixed and layer.name != "conv_2"
    constants = [model.get_layer("standardise").mean for model in (found, other)]
    assert np.allclose(*map(keras.ops.convert_to_numpy, constants), rtol=1e-6) == (kept == "kept")


@pytest.mark.slow
def test_a_network_that_goes_on_begins_where_the_other_ended(setting, trained, tmp_path):
    data, split, settings, learning = setting(epochs=8)
    first = training.train(data, split, settings, learning)
    first.model.save(tmp_path / "first.keras")
    further = training.train(
        data, split, settings.model_copy(update={"start": str(tmp_path / "first.keras")}), learning
    )
    assert further.history["log_loss"][0] < first.history["log_loss"][0] - 0.05


def test_a_network_is_found_unsound_before_it_is_trained(setting, trained):
    data, _, settings, _ = setting(start=trained()[0])
    training.require_sound(data, settings)
    three = replace(data, images=np.repeat(data.images, 2, axis=1)[:, :3])
    with pytest.raises(InputError, match="of 3 filters"):
        training.require_sound(three, settings)
