import logging

import numpy as np
import pytest

from deepmerge import config
from deepmerge.data import dataset, splits
from deepmerge.model import checkpoint, training
from deepmerge.model.checkpoint import Checkpoint

SETTINGS = {"epochs": 3, "batch_size": 16, "learning_rate": 3e-3, "dropout": 0.4}


class Killed(BaseException):
    """In place of the end of a process: nothing in the product handles it."""


@pytest.fixture
def train(write_sample):
    """Train on the small sample with a checkpoint in a file: the trained network, or None where it was cut off."""

    def trained(file=None, *, killed_after=None, network=None, **settings):
        experiment = config.load(str(write_sample()), {**SETTINGS, **settings})
        data = dataset.read(experiment.data, experiment.name)
        seen = []

        def on_epoch(number, values):
            seen.append((number, values))
            if number == killed_after:
                raise Killed

        try:
            done = training.train(
                data, splits.make(data, experiment.split), experiment.network, experiment.training, on_epoch, network,
                kept_in=file,
            )  # fmt: skip
        except Killed:
            return None
        assert [number for number, _ in seen] == list(range(1, len(done.history["loss"]) + 1))
        return done

    return trained


def same(one, other):
    weights = [b"".join(array.tobytes() for array in done.model.get_weights()) for done in (one, other)]
    return weights[0] == weights[1] and (one.history, one.best_epoch) == (other.history, other.best_epoch)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"keep": "best", "patience": 1, "learning_rate": 0.1},
        {"noise": {"sigma": [0.5]}, "psf": "1.0", "balance": "weights"},
        {"adapt": {"to": "SAMPLE", "method": "dann", "weight": 0.5}},
        {"adapt": {"to": "SAMPLE", "method": "mmd", "weight": 0.5}},
        {"precision": "mixed_float16"},
        {"precision": "mixed_bfloat16"},
    ],
    ids=lambda settings: "-".join(map(str, settings)) or "default",
)
def test_a_training_that_is_cut_off_after_each_epoch_ends_as_one_that_was_not(train, write_sample, tmp_path, settings):
    if "adapt" in settings:
        settings = {"adapt": {**settings["adapt"], "to": str(write_sample())}}
    whole = train(**settings)
    file = tmp_path / "checkpoint.npz"
    for epoch in range(1, len(whole.history["loss"])):
        assert train(file, killed_after=epoch, **settings) is None
    assert same(train(file, **settings), whole)
    assert same(train(file, **settings), whole)  # killed after its last epoch, before anything else


@pytest.mark.slow
def test_random_layers_of_a_users_own_network_go_on_too(train, tmp_path):
    import keras

    def network(images):
        noisy = keras.layers.GaussianNoise(0.3)(images)
        return keras.layers.SpatialDropout2D(0.2)(keras.layers.Conv2D(4, 3)(noisy))

    def flat(images):
        return keras.layers.Flatten()(network(images))

    file = tmp_path / "checkpoint.npz"
    assert train(file, killed_after=1, network=flat) is None
    assert same(train(file, network=flat), train(network=flat))


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    rng = np.random.default_rng(0)
    arrays = [
        rng.normal(size=(3, 2)).astype(np.float32),
        np.array(7, np.int64),
        rng.integers(9, size=2, dtype=np.uint32),
    ]
    history = {"loss": [0.1 + 0.2, 1e-30], "val_auc": [float("nan"), 0.5]}
    Checkpoint(history, 1 / 3, 2, arrays[:1], arrays).write(tmp_path / "a.npz")
    found = checkpoint.read(tmp_path / "a.npz", Checkpoint(best_weights=arrays[:1], variables=arrays))
    np.testing.assert_equal(found.history, history)  # NaN equals NaN
    assert (found.best, found.best_epoch, found.epochs) == (1 / 3, 2, 2)
    assert [array.tobytes() for array in found.variables] == [array.tobytes() for array in arrays]
    assert [array.dtype for array in found.variables] == [array.dtype for array in arrays]
    assert found.values(1)["loss"] == 0.1 + 0.2


def damage(file, kind):
    content = file.read_bytes()
    match kind:
        case "empty":
            file.write_bytes(b"")
        case "truncated":
            file.write_bytes(content[: len(content) // 2])
        case "flipped":
            middle = len(content) // 2
            file.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
        case "text":
            file.write_text("no archive")
        case "pickle":
            np.savez(file, told=np.array([{}], object))
        case "other":
            Checkpoint({"loss": [1.0]}, 1.0, 1, [np.zeros(2)], [np.zeros(5)]).write(file)


@pytest.mark.parametrize("kind", ["empty", "truncated", "flipped", "text", "pickle", "other"])
def test_a_damaged_or_foreign_checkpoint_is_said_and_not_used(tmp_path, caplog, kind):
    file = tmp_path / "a.npz"
    arrays = [np.arange(1000, dtype=np.float32)]
    Checkpoint({"loss": [1.0]}, 1.0, 1, arrays, arrays).write(file)
    damage(file, kind)
    beginning = Checkpoint(best_weights=arrays, variables=arrays)
    with caplog.at_level(logging.WARNING):
        assert checkpoint.read(file, beginning) is beginning
    assert "begins anew" in caplog.text
    assert len(caplog.records) == 1


@pytest.mark.slow
def test_a_disk_that_is_full_ends_no_training(train, tmp_path, monkeypatch, caplog):
    def write(self, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Checkpoint, "write", write)
    with caplog.at_level(logging.WARNING):
        assert same(train(tmp_path / "checkpoint.npz", epochs=2), train(epochs=2))
    assert caplog.text.count("No space left on device") == 1
