from dataclasses import replace

import keras
import numpy as np
import pytest

from deepmerge import config
from deepmerge.data import dataset, protocols, splits
from deepmerge.model import prediction, training

slow = pytest.mark.slow  # each traces a training step or more, three seconds a time

QUICK = {"epochs": 4, "batch_size": 16, "learning_rate": 3e-3}


@pytest.fixture
def setting(write_sample):
    """Read the small sample: (data, split, experiment) with settings in place of those of QUICK."""

    def read(**overrides):
        experiment = config.load(str(write_sample()), {**QUICK, **overrides})
        data = dataset.read(experiment.data, experiment.name)
        return data, splits.make(data, experiment.split), experiment

    return read


def train(data, split, experiment, *report):
    return training.train(data, split, experiment.network, experiment.training, *report)


def weights(trained):
    return np.concatenate([w.ravel() for w in trained.model.get_weights()])


@slow
def test_training_learns_what_can_be_learned(setting):
    data, split, experiment = setting(epochs=12)
    trained = train(data, split, experiment)
    assert min(trained.history["val_log_loss"]) < 0.6  # ln 2 = 0.69 is knowing nothing
    assert max(trained.history["val_auc"]) > 0.9


@slow
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(setting):
    first, again, other = (train(*setting(seed=seed)) for seed in (1, 1, 2))
    assert first.history == again.history
    assert weights(first).tobytes() == weights(again).tobytes() != weights(other).tobytes()


@slow
def test_training_does_not_touch_the_test_part(setting, monkeypatch):
    """NaN in every test image: had one been looked at, the loss or the pixel statistics would be NaN."""
    data, split, experiment = setting()
    poisoned = np.array(data.images)
    poisoned[split.test.rows] = np.nan
    blind = dataset.Dataset(data.name, poisoned, data.labels, data.catalogue, None, "own", data.filters)
    assert train(blind, split, experiment).history == train(data, split, experiment).history


@slow
def test_pixel_statistics_come_from_training_images_alone(setting):
    data, split, experiment = setting(epochs=1)
    changed = np.array(data.images)
    changed[split.validation.rows] *= 100
    other = dataset.Dataset(data.name, changed, data.labels, data.catalogue, None, "own", data.filters)
    means = [train(d, split, experiment).model.get_layer("standardise").mean.numpy() for d in (data, other)]
    np.testing.assert_array_equal(*means)


def test_pixel_statistics_follow_from_the_seed_of_the_split(setting, monkeypatch):
    """A sample of the training images is drawn for them; the numbers are those of earlier versions."""
    monkeypatch.setattr(training, "STATISTICS_VALUES", 20 * 32 * 32 * 2)
    monkeypatch.setattr(training, "_epoch", lambda *_: {"loss": 1.0, "val_loss": 1.0, "val_log_loss": 1.0})
    data, split, experiment = setting(epochs=1)

    def mean(split):
        return train(data, split, experiment).model.get_layer("standardise").mean.numpy().ravel()[:2]

    np.testing.assert_allclose(mean(split), [0.17011192, 0.17260200], rtol=1e-5)
    assert (mean(replace(split, seed=split.seed + 1)) != mean(split)).any()
    folds = protocols.folds(data, split, 3)
    assert {part.seed for part in (*folds, *protocols.cross(data, experiment.split, 3))} == {5}


@slow
@pytest.mark.parametrize("unit", [1e-30, 1e-8, 1e30])
def test_the_same_galaxies_in_other_units_give_the_same_network(setting, unit):
    """To rounding: of the pixels, which are float32, and with it of each step; Adam magnifies it for a few weights."""
    data, split, experiment = setting(epochs=2)
    other = replace(data, images=(data.images * np.float64(unit)).astype(np.float32))
    here, there = (train(d, split, experiment) for d in (data, other))
    assert np.abs(weights(there) - weights(here)).mean() < 1e-4
    np.testing.assert_allclose(there.history["val_log_loss"], here.history["val_log_loss"], rtol=1e-3)
    scores = [t.model(np.moveaxis(d.images[:9], 1, -1), training=False) for d, t in ((data, here), (other, there))]
    np.testing.assert_allclose(scores[1], scores[0], atol=5e-3)


@pytest.mark.parametrize(("balance", "fraction"), [("sampling", 0.5), ("weights", 0.5), ("none", None)])
def test_a_network_knows_the_prior_that_it_was_trained_at(setting, monkeypatch, balance, fraction):
    def one_epoch(learner, epoch, dataset, split):
        return {"loss": 1.0, "val_loss": 1.0, "val_log_loss": 1.0}

    monkeypatch.setattr(training, "_epoch", one_epoch)
    data, split, experiment = setting(epochs=1, balance=balance)
    share = float(data.labels[split.train.rows].mean())
    assert 0.3 < share < 0.45
    assert train(data, split, experiment).merger_fraction == (share if fraction is None else fraction)


@pytest.mark.parametrize(
    ("losses", "patience", "epochs_run", "best"),
    [
        ([3, 2, 1, 2, 2, 2, 0, 0], 2, 5, 3),  # stops early, before a later and lower loss
        ([3, 2, 1], 5, 3, 3),  # runs out of epochs at the best
        ([3, 1, 2], 5, 3, 2),  # runs out of epochs behind the best
        ([1, 1, 1, 1], 2, 3, 1),  # no better is not better
    ],
)
def test_the_weights_of_the_best_epoch_are_kept(setting, monkeypatch, losses, patience, epochs_run, best):
    def scripted(learner, epoch, dataset, split):
        number = next(numbers)
        learner.model.set_weights([np.full_like(w, number) for w in learner.model.get_weights()])
        return {"loss": 1.0, "val_loss": 1.0, "val_log_loss": losses[number - 1]}

    numbers = iter(range(1, 100))
    monkeypatch.setattr(training, "_epoch", scripted)
    trained = train(*setting(epochs=len(losses), patience=patience, keep="best"))
    assert trained.best_epoch == best
    assert len(trained.history["val_loss"]) == epochs_run
    assert np.unique(weights(trained)).tolist() == [best]


def test_training_goes_to_its_end_unless_told_to_keep_the_best(setting, monkeypatch):
    def scripted(learner, epoch, dataset, split):
        number = next(numbers)
        learner.model.set_weights([np.full_like(w, number) for w in learner.model.get_weights()])
        return {"loss": 1.0, "val_loss": 1.0, "val_log_loss": float(number)}

    numbers = iter(range(1, 100))
    monkeypatch.setattr(training, "_epoch", scripted)
    trained = train(*setting(epochs=5, patience=1))
    assert trained.best_epoch == len(trained.history["val_loss"]) == 5
    assert np.unique(weights(trained)).tolist() == [5]


def test_a_loss_that_is_not_finite_stops_training_and_says_why(setting):
    with pytest.raises(training.TrainingDiverged, match=r"got (nan|inf) in epoch \d; .*learning rate below 1e\+30"):
        train(*setting(learning_rate=1e30, schedule="constant"))


def test_each_epoch_is_reported(setting):
    seen = []
    data, split, experiment = setting(epochs=2)
    trained = train(data, split, experiment, lambda epoch, values: seen.append((epoch, values["val_loss"])))
    assert seen == list(enumerate(trained.history["val_loss"], 1))
    measured = {"loss", "log_loss", "accuracy", "auc"}
    assert set(trained.history) == measured | {f"val_{name}" for name in measured} | {"learning_rate"}


@slow
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_the_learning_rate_follows_its_schedule(setting, schedule):
    data, split, experiment = setting(schedule=schedule)
    last = train(data, split, experiment).history["learning_rate"][-1]
    assert last == pytest.approx(
        QUICK["learning_rate"] * (training.FINAL_RATE if schedule == "cosine" else 1), rel=1e-4
    )


@slow
def test_smoothed_labels_keep_a_network_from_certainty_and_the_log_loss_is_of_the_labels(setting):
    def surest(trained, data, split):
        scores = prediction.predict(trained.model, data.images, split.train.rows, split.train.transforms)
        return np.abs(scores - 0.5).max()

    found = {}
    for smoothing in (0.0, 0.6):  # 0.2 and 0.8 are learned: a logit of ±1.4
        data, split, experiment = setting(epochs=12, l2=0.0, label_smoothing=smoothing)
        found[smoothing] = train(data, split, experiment)
    assert surest(found[0.6], data, split) < 0.42 < surest(found[0.0], data, split)
    entropy = -0.8 * np.log(0.8) - 0.2 * np.log(0.2)  # 0.50, the least loss for labels smoothed
    assert found[0.6].history["log_loss"][-1] < entropy


@slow
def test_weight_decay_draws_weights_to_zero(setting):
    still = {"epochs": 1, "l2": 0.0, "augment": False, "schedule": "constant", "learning_rate": 1e-3}
    plain, decayed = (train(*setting(**still, weight_decay=decay)) for decay in (0.0, 100.0))
    kernels = [[w for w in each.model.get_weights() if w.ndim == 4] for each in (plain, decayed)]
    assert all(np.abs(less).mean() < 0.8 * np.abs(more).mean() for more, less in zip(*kernels, strict=True))


def test_the_measures_are_those_of_keras_with_weights():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300)
    probability = np.clip(0.3 * labels + rng.uniform(0, 0.7, 300), 0, 1)
    probability[:2] = 0, 1  # whose logarithm has no bound
    weights = rng.uniform(0.1, 3, 300)
    found = training.measures(labels, probability, weights, 0.25)
    expected = {
        "log_loss": keras.metrics.BinaryCrossentropy(),
        "accuracy": keras.metrics.BinaryAccuracy(),
        "auc": keras.metrics.AUC(num_thresholds=5000),
    }
    for name, metric in expected.items():
        metric.update_state(labels[:, np.newaxis], probability[:, np.newaxis], weights)
        assert found[name] == pytest.approx(float(metric.result()), rel=2e-3), name
    assert found["loss"] == found["log_loss"] + 0.25


@pytest.mark.parametrize("probability", [np.full(4, np.nan), np.array([0.5, 0.5, 0.5, 0.5])])
def test_an_auc_that_nobody_can_know_is_undefined(probability):
    assert np.isnan(training.measures(np.ones(4, int), probability, np.ones(4), 0)["auc"])


@slow
@pytest.mark.parametrize("architecture", ["default", "published"])
@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_less_precise_layers_learn_as_much_and_the_model_is_of_float32(setting, architecture, precision):
    if architecture == "published":  # which learns too slowly to tell in a few epochs
        history = train(*setting(architecture=architecture, precision=precision)).history
        assert np.isfinite(history["val_loss"]).all()
        return
    exact, found = (train(*setting(epochs=10, precision=p)) for p in ("float32", precision))
    # In training: the moving statistics of batch norm, which validation uses, need more epochs than these.
    assert found.history["log_loss"][-1] == pytest.approx(exact.history["log_loss"][-1], abs=0.15)
    assert {layer.compute_dtype for layer in found.model.layers} == {"float32"}
    assert weights(found).dtype == np.float32
