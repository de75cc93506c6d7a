import importlib
import json
import logging
from pathlib import Path

import keras
import numpy as np
import pytest
from filelock import FileLock

from deepmerge import config
from deepmerge.jobs import resuming
from deepmerge.jobs import train as job
from deepmerge.jobs.main import main
from deepmerge.jobs.train import train
from deepmerge.model import devices, training
from deepmerge.tracking import plugin, runs
from deepmerge.tracking.runs import integrity

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("client")]  # each test trains

devices.prepare()
main_job = importlib.import_module("deepmerge.jobs.main")  # its name is that of the function in it

SETTINGS = {"epochs": 3, "batch_size": 16, "learning_rate": 3e-3, "dropout": 0.4}


class Killed(BaseException):
    """In place of the end of a process: nothing in the product handles it."""


@pytest.fixture
def experiment(write_sample, tmp_path, monkeypatch):
    """The small sample's experiment; what is remembered lies below `tmp_path`."""
    monkeypatch.chdir(tmp_path)
    path = write_sample()
    return lambda **settings: config.load(str(path), {**SETTINGS, **settings})


@pytest.fixture
def cut_off():
    """Let a job end before or after the n-th call of a function, given by module and name."""

    def cut(moment, do, *given):
        module, name, call, when = moment
        real, calls = getattr(module, name), iter(range(1, 1000))

        def killed(*given, **options):
            number = next(calls)
            if (number, when) == (call, "before"):
                raise Killed
            result = real(*given, **options)
            if number == call:
                raise Killed
            return result

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, name, killed)
            with pytest.raises(Killed):
                do(*given)

    return cut


IN_SECOND_EPOCH = (job, "log_epoch", 2, "after")


def experiment_id(client):
    return client.get_experiment_by_name(plugin.EXPERIMENT).experiment_id


def count(client):
    return len(client.search_runs([experiment_id(client)]))


def left():
    return [path for path in Path(".deepmerge/trainings").iterdir() if path.name != ".gitignore"]


def weights(client, run_id):
    model = keras.models.load_model(runs.model_file(client.get_run(run_id)), compile=False, safe_mode=True)
    return b"".join(array.tobytes() for array in model.get_weights())


def history(client, run_id):
    """Every metric with all its steps, as often as they were logged."""
    return {
        name: [(entry.step, entry.value) for entry in client.get_metric_history(run_id, name)]
        for name in client.get_run(run_id).data.metrics
        if name.startswith(("train_", "val_"))
    }


@pytest.fixture(scope="module")
def memory():
    return {}


@pytest.fixture
def whole(memory, experiment, client):
    """What `main` returns uninterrupted."""
    if "main" not in memory:
        memory["main"] = main(experiment())
    return memory["main"]


@pytest.fixture
def trained(memory, experiment, client):
    """What `train` returns uninterrupted."""
    if "train" not in memory:
        memory["train"] = train(experiment())
    return memory["train"]


# Where a process is killed: before or after the n-th call of a function.
MOMENTS = {
    "before the header": (runs, "log_parameters", 1, "before"),
    "in the header": (runs, "log_data", 1, "after"),
    "before an epoch is kept": (training.Checkpoint, "write", 2, "before"),
    "after an epoch is kept": (training.Checkpoint, "write", 2, "after"),
    "after an epoch is logged": IN_SECOND_EPOCH,
    "before the last epoch is logged": (job, "log_epoch", 3, "before"),
    "before the model is marked": (integrity, "digests", 1, "before"),
    "after the model is logged": (runs, "log_model", 1, "after"),
    "after the training": (job, "log_trained", 1, "after"),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_training_goes_on_in_its_run_to_the_same_end(moment, experiment, client, trained, cut_off):
    before = count(client)
    cut_off(MOMENTS[moment], train, experiment())
    results = train(experiment())
    assert count(client) == before + 1
    assert {**results, "run_id": ""} == {**trained, "run_id": ""}
    assert weights(client, results["run_id"]) == weights(client, trained["run_id"])
    assert history(client, results["run_id"]) == history(client, trained["run_id"])
    run, uncut = (client.get_run(one["run_id"]) for one in (results, trained))
    assert run.info.status == "FINISHED"
    assert "failure" not in run.data.tags
    assert set(run.data.tags) == set(uncut.data.tags)
    assert (run.data.metrics, run.data.params) == (uncut.data.metrics, uncut.data.params)
    assert left() == []


@pytest.mark.parametrize("step", ["evaluate_in_run", "gradcam_in_run"])
def test_main_goes_on_with_the_step_that_it_was_at(step, experiment, client, whole, cut_off, monkeypatch):
    cut_off((main_job, step, 1, "before"), main, experiment())
    monkeypatch.setattr(job, "fit", None)
    if step == "gradcam_in_run":
        monkeypatch.setattr(main_job, "evaluate_in_run", None)
    results = main(experiment())
    np.testing.assert_equal({**results, "run_id": ""}, {**whole, "run_id": ""})  # NaN equals NaN
    assert client.get_run(results["run_id"]).data.metrics == client.get_run(whole["run_id"]).data.metrics


def test_the_files_for_other_programs_are_written_by_the_call_that_ends(experiment, cut_off, monkeypatch, tmp_path):
    cut_off((job, "log_trained", 1, "after"), train, experiment(), False, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    results = train(experiment(), out=tmp_path / "out")
    assert json.loads((tmp_path / "out" / "run.json").read_text()) == results
    assert len((tmp_path / "out" / "history.csv").read_text().splitlines()) == 1 + SETTINGS["epochs"]


def test_the_same_command_again_is_a_training_of_its_own(experiment):
    assert train(experiment())["run_id"] != train(experiment())["run_id"]


def first_epoch_of_the_next(experiment, monkeypatch, **settings):
    """The first epoch that a call learns, after one that was cut off in the second epoch."""
    learned, real = [], training._epoch
    monkeypatch.setattr(training, "_epoch", lambda *given: (learned.append(given[1].number + 1), real(*given))[1])
    results = train(experiment(**settings))
    return learned[0], results


CHANGES = {
    "code": lambda monkeypatch: monkeypatch.setattr(resuming, "fingerprint", lambda files: "other"),
    "threads": lambda monkeypatch: monkeypatch.setattr(devices, "prepare", lambda: 77),
    "devices": lambda monkeypatch: monkeypatch.setattr(devices, "kind", lambda: "GPU"),
    "packages": lambda monkeypatch: monkeypatch.setattr(resuming, "version", lambda name: "0.0"),
}


@pytest.mark.parametrize("changed", CHANGES)
def test_with_other_code_or_threads_it_begins_anew_and_says_so(
    changed, experiment, cut_off, monkeypatch, client, caplog
):
    cut_off(IN_SECOND_EPOCH, train, experiment())
    before = count(client)
    CHANGES[changed](monkeypatch)
    with caplog.at_level(logging.WARNING):
        epoch, _ = first_epoch_of_the_next(experiment, monkeypatch)
    assert epoch == 1
    assert count(client) == before + 1
    assert f"with other {changed}: it begins anew" in caplog.text


@pytest.mark.parametrize("changed", [{"seed": 1}, {"dropout": 0.1}, {"epochs": 4}, {"split_seed": 6}])
def test_other_settings_are_another_training(changed, experiment, cut_off, monkeypatch, tmp_path):
    cut_off(IN_SECOND_EPOCH, train, experiment())
    assert first_epoch_of_the_next(experiment, monkeypatch, **changed)[0] == 1
    assert len([path for path in left() if path.is_dir()]) == 1  # the first one waits


def test_two_at_once_do_not_share_a_run(experiment, cut_off, monkeypatch, tmp_path, caplog):
    cut_off(IN_SECOND_EPOCH, train, experiment())
    folder = next(path for path in left() if path.is_dir())
    with FileLock(folder.with_suffix(".lock")), caplog.at_level(logging.WARNING):
        epoch, alone = first_epoch_of_the_next(experiment, monkeypatch)
    assert epoch == 1
    assert "Another process is at the same training" in caplog.text
    assert json.loads((folder / "note.json").read_text())["run_id"] != alone["run_id"]
    assert train(experiment())["run_id"] != alone["run_id"]


def test_a_training_that_diverges_is_not_gone_on_with(experiment):
    with pytest.raises(training.TrainingDiverged):
        train(experiment(learning_rate=1e30, schedule="constant"))
    assert left() == []


def test_a_run_that_was_deleted_is_replaced_by_one_with_all_epochs(experiment, cut_off, monkeypatch, client, tmp_path):
    cut_off(IN_SECOND_EPOCH, train, experiment())
    run_id = client.search_runs([experiment_id(client)], order_by=["start_time DESC"])[0].info.run_id
    client.delete_run(run_id)
    epoch, results = first_epoch_of_the_next(experiment, monkeypatch)
    assert epoch == 3
    assert results["run_id"] != run_id
    assert [step for step, _ in history(client, results["run_id"])["val_loss"]] == [1, 2, 3]


def test_a_folder_that_cannot_be_written_ends_no_training(experiment, tmp_path, caplog):
    (tmp_path / ".deepmerge").write_text("a file")
    with caplog.at_level(logging.WARNING):
        results = train(experiment(epochs=1))
    assert runs.find(results["run_id"], "tiny").info.status == "FINISHED"
    assert "could not be resumed" in caplog.text


def test_what_nobody_came_back_to_for_long_is_removed(experiment, cut_off, monkeypatch, tmp_path):
    cut_off(IN_SECOND_EPOCH, train, experiment())
    monkeypatch.setattr(resuming, "KEPT_SECONDS", -1)
    train(experiment(epochs=1))
    assert [path for path in left() if path.is_dir()] == []
