"""Training with noise and with unlabelled images beside: what it measures, repeats, and never looks at."""

from dataclasses import replace

import keras
import numpy as np
import pytest

from deepmerge import config
from deepmerge.data import dataset, splits, targets
from deepmerge.data.dataset import Dataset
from deepmerge.model import adaptation, familiarity, training

slow = pytest.mark.slow  # each traces a training step or more

QUICK = {"epochs": 2, "batch_size": 16, "learning_rate": 3e-3}
METHODS = ("mmd", "coral", "sinkhorn", "dann")


@pytest.fixture
def setting(write_sample):
    """Read the small sample: (data, split, experiment) with settings in place of those of QUICK."""

    def read(**overrides):
        experiment = config.load(str(write_sample()), {**QUICK, **overrides})
        data = dataset.read(experiment.data, experiment.name)
        return data, splits.make(data, experiment.split), experiment

    return read


@pytest.fixture
def noisy(write_sample):
    """The same galaxies under more noise; its experiment file."""
    path = write_sample("noisy")
    images = np.load(path.with_name("noisy_X.npy"))
    np.save(path.with_name("noisy_X.npy"), images + np.random.default_rng(3).normal(0, 2, images.shape))
    return path


def train(data, split, experiment, **options):
    return training.train(data, split, experiment.network, experiment.training, **options)


def weights(trained):
    return np.concatenate([w.ravel() for w in trained.model.get_weights()])


def poisoned(data, rows):
    """The data with NaN in these images."""
    images = np.array(data.images)
    images[rows] = np.nan
    return replace(data, images=images)


def test_the_constants_of_the_stretch_and_what_is_familiar_are_those_of_noised_images(setting, monkeypatch):
    monkeypatch.setattr(training, "_epoch", lambda *_: {"loss": 1.0, "val_loss": 1.0, "val_log_loss": 1.0})
    data, split, experiment = setting(epochs=1, noise="{sigma: [3, 6]}")
    plain, noised = (train(data, split, one) for one in (setting(epochs=1)[2], experiment))
    rows, seed = split.train.rows, split.seed
    images = np.moveaxis(data.images[rows], 1, -1)
    softening = 5 * 1.4826 / np.sqrt(2) * np.median(np.abs(np.diff(images, axis=1)), axis=(0, 1, 2))
    expected = np.hypot(softening, 5 * np.array([3, 6]))

    def measured(trained):
        return training.stretch.of(trained.model)[1].softening

    np.testing.assert_allclose(measured(noised), expected, rtol=0.05)
    assert (measured(plain) < expected / 3).all()
    seen = noised.degradation.once(images, rows, seed)
    added = replace(data, images=np.array(data.images))
    added.images[rows] = np.moveaxis(seen, -1, 1)
    known = familiarity.measure(data, split, noised.degradation)
    np.testing.assert_allclose(known.high, familiarity.measure(added, split).high, rtol=1e-6)


@slow
def test_training_with_noise_repeats_and_validates_on_the_same_images_in_each_epoch(setting, monkeypatch):
    shown = []
    predict = training.prediction.predict

    def watched(model, images, rows, transforms, change):
        shown.append(change(np.moveaxis(images[rows], 1, -1), rows).tobytes())
        return predict(model, images, rows, transforms, change=change)

    monkeypatch.setattr(training.prediction, "predict", watched)
    first, again = (train(*setting(noise="{sigma: 0.5, gain: 9}", psf="0.7")) for _ in range(2))
    assert first.history == again.history
    assert (
        weights(first).tobytes() == weights(again).tobytes() != weights(train(*setting(noise="{sigma: 1}"))).tobytes()
    )
    assert len(set(shown[:4])) == 1
    assert len(set(shown)) == 2  # another noise, other images


@slow
def test_training_with_noise_does_not_touch_the_test_part(setting):
    data, split, experiment = setting(noise="{sigma: 0.5}")
    assert train(poisoned(data, split.test.rows), split, experiment).history == train(data, split, experiment).history


@slow
@pytest.mark.parametrize("method", METHODS)
def test_labels_of_the_target_change_nothing_and_its_test_galaxies_are_not_seen(setting, noisy, method):
    data, split, experiment = setting(adapt=f"{{to: {noisy}, method: {method}, weight: 0.5}}")
    first = train(data, split, experiment)
    assert np.isfinite(first.history["loss"]).all()
    y = np.load(noisy.with_name("noisy_y.npy"))
    np.save(noisy.with_name("noisy_y.npy"), 1 - y)
    images = np.load(noisy.with_name("noisy_X.npy"))
    images[np.concatenate([split.test.rows, split.validation.rows])] = np.nan
    np.save(noisy.with_name("noisy_X.npy"), images)
    again = train(data, split, experiment)
    assert first.history == again.history
    assert weights(first).tobytes() == weights(again).tobytes()
    assert weights(first).tobytes() != weights(train(*setting())).tobytes()
    images[split.train.rows] *= 2
    np.save(noisy.with_name("noisy_X.npy"), images)
    assert weights(train(data, split, experiment)).tobytes() != weights(first).tobytes()


@slow
def test_images_of_the_target_are_familiar(setting, noisy):
    data, split, experiment = setting(epochs=1, adapt=f"{{to: {noisy}, method: stretch}}")
    trained = train(data, split, experiment)
    images = np.load(noisy.with_name("noisy_X.npy"))[split.test.rows]
    shares = []
    for target in (None, trained.target):
        comparison = familiarity.Comparison(familiarity.measure(data, split, None, target))
        comparison.add(images)
        comparison.add(np.asarray(data.images[split.test.rows]))
        shares.append(comparison.unlike / comparison.seen)
    assert shares[0] >= 0.5
    assert shares[1] < 0.1


def last_features(trained, images):
    model = keras.Model(trained.model.inputs[0], trained.model.layers[-1].input)
    return model(np.moveaxis(images, 1, -1), training=False).numpy()


@slow
@pytest.mark.parametrize(("method", "weight"), [("mmd", 3), ("coral", 100), ("sinkhorn", 3)])
def test_adaptation_brings_the_features_of_both_samples_together(setting, noisy, method, weight):
    data, split, experiment = setting(epochs=6, adapt=f"{{to: {noisy}, method: {method}, weight: {weight}}}")
    target = np.load(noisy.with_name("noisy_X.npy"))

    def apart(trained):
        ours, theirs = (last_features(trained, images[split.train.rows]) for images in (data.images, target))
        return float(getattr(adaptation, method)(ours, theirs))

    assert apart(train(data, split, experiment)) < apart(train(*setting(epochs=6))) / 2


@slow
@pytest.mark.parametrize(
    "options", [{"precision": "mixed_bfloat16"}, {"precision": "mixed_float16"}, {"freeze": "conv_2"}]
)
def test_adaptation_goes_with_other_settings_of_the_training(setting, noisy, options):
    data, split, experiment = setting(adapt=f"{{to: {noisy}, method: dann}}", **options)
    assert np.isfinite(train(data, split, experiment).history["val_loss"]).all()


def of_ones_own(images, settings):
    x = keras.layers.Conv2D(4, 3, activation="relu")(images)
    return keras.layers.Dropout(settings.dropout)(keras.layers.GlobalAveragePooling2D()(x))


@slow
@pytest.mark.parametrize(("architecture", "body"), [("compact", None), ("invariant", None), ("default", of_ones_own)])
def test_other_networks_are_adapted_and_learn_with_noise(setting, noisy, architecture, body):
    settings = {"architecture": architecture, "noise": "{sigma: 0.5}"}
    data, split, experiment = setting(adapt=f"{{to: {noisy}, method: mmd}}", **settings)
    adapted = train(data, split, experiment, body=body)
    alone = train(*setting(**settings), body=body)
    assert np.isfinite(adapted.history["val_loss"]).all()
    assert weights(adapted).shape == weights(alone).shape
    assert weights(adapted).tobytes() != weights(alone).tobytes()


@slow
def test_the_weight_of_adaptation_is_learned_after_a_third_of_the_training(setting, noisy):
    options = {"epochs": 3, "adapt": f"{{to: {noisy}, method: sinkhorn, weight: learned}}"}
    learned = train(*setting(**options))
    fixed = train(*setting(epochs=3, adapt=f"{{to: {noisy}, method: sinkhorn, weight: 1.0e-12}}"))
    first, later = (np.array(one.history["log_loss"]) for one in (learned, fixed))
    assert first[0] == pytest.approx(later[0], rel=1e-4)
    assert (first[1:] != later[1:]).all()
    assert np.isfinite(learned.history["loss"]).all()


@slow
def test_a_target_may_be_handed_over(setting, noisy):
    data, split, experiment = setting(adapt=f"{{to: {noisy}}}")
    given = targets.to_adapt_to(experiment.training.adapt, data, split)
    assert train(data, split, experiment, target=given).history == train(data, split, experiment).history
    fewer = replace(given, rows=given.rows[:20])
    assert train(data, split, experiment, target=fewer).history != train(data, split, experiment).history


def test_noise_that_was_not_measured_is_not_trained_with(setting, noisy):
    data, split, experiment = setting(noise=f"{{like: {noisy}}}")
    assert isinstance(data, Dataset)
    with pytest.raises(ValueError, match="should be measured before the training"):
        train(data, split, experiment)
