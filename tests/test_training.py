import keras
import numpy as np
import pytest

from deepmerge import config
from deepmerge.data import dataset, splits
from deepmerge.model import training

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


def weights(trained):
    return np.concatenate([w.ravel() for w in trained.model.get_weights()])


@slow
def test_training_learns_what_can_be_learned(setting):
    data, split, experiment = setting(epochs=12)
    trained = training.train(data, split, experiment)
    assert min(trained.history["val_log_loss"]) < 0.6  # ln 2 = 0.69 is knowing nothing
    assert max(trained.history["val_auc"]) > 0.9


@slow
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(setting):
    first, again, other = (training.train(*setting(seed=seed)) for seed in (1, 1, 2))
    assert first.history == again.history
    assert weights(first).tobytes() == weights(again).tobytes() != weights(other).tobytes()


@slow
def test_training_does_not_touch_the_test_part(setting, monkeypatch):
    """NaN in every test image: had one been looked at, the loss or the pixel statistics would be NaN."""
    data, split, experiment = setting()
    poisoned = np.array(data.images)
    poisoned[split.test.rows] = np.nan
    blind = dataset.Dataset(data.name, poisoned, data.labels, data.catalogue, None, "own", data.filters)
    assert training.train(blind, split, experiment).history == training.train(data, split, experiment).history


@slow
def test_pixel_statistics_come_from_training_images_alone(setting):
    data, split, experiment = setting(epochs=1)
    changed = np.array(data.images)
    changed[split.validation.rows] *= 100
    other = dataset.Dataset(data.name, changed, data.labels, data.catalogue, None, "own", data.filters)
    means = [training.train(d, split, experiment).model.get_layer("standardise").mean.numpy() for d in (data, other)]
    np.testing.assert_array_equal(*means)


class Script(keras.callbacks.Callback):
    """Puts prescribed validation losses in front of the callbacks behind it, and weights that tell the epoch."""

    def __init__(self, losses):
        super().__init__()
        self.losses = losses

    def on_epoch_end(self, epoch, logs=None):
        logs["val_log_loss"] = self.losses[epoch]
        self.model.set_weights([np.full_like(w, epoch) for w in self.model.get_weights()])


@slow
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
    fit = keras.Model.fit

    def scripted(model, *arguments, callbacks, **named):
        return fit(model, *arguments, callbacks=[Script(losses), *callbacks], **named)

    monkeypatch.setattr(keras.Model, "fit", scripted)
    trained = training.train(*setting(epochs=len(losses), patience=patience))
    assert trained.best_epoch == best
    assert len(trained.history["val_loss"]) == epochs_run
    assert np.unique(weights(trained)).tolist() == [best - 1]


def test_a_loss_that_is_not_finite_stops_training_and_says_why(setting):
    with pytest.raises(training.TrainingDiverged, match=r"got (nan|inf) in epoch \d; .*learning rate below 1e\+30"):
        training.train(*setting(learning_rate=1e30, schedule="constant"))


def test_each_epoch_is_reported(setting):
    seen = []
    data, split, experiment = setting(epochs=2)
    trained = training.train(data, split, experiment, lambda epoch, values: seen.append((epoch, values["val_loss"])))
    assert seen == list(enumerate(trained.history["val_loss"], 1))
    measured = {"loss", "log_loss", "accuracy", "auc"}
    assert set(trained.history) == measured | {f"val_{name}" for name in measured} | {"learning_rate"}


@slow
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_the_learning_rate_follows_its_schedule(setting, schedule):
    data, split, experiment = setting(schedule=schedule)
    last = training.train(data, split, experiment).history["learning_rate"][-1]
    assert last == pytest.approx(
        QUICK["learning_rate"] * (training.FINAL_RATE if schedule == "cosine" else 1), rel=1e-4
    )
