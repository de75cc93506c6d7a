"""Trainings below the run of a study: side by side as one after the other, and kept when a study is cut off."""

import numpy as np
import pytest

from deepmerge import config
from deepmerge.data import dataset as datasets
from deepmerge.data import protocols
from deepmerge.data.elsewhere import Source
from deepmerge.errors import Failed, InputError
from deepmerge.jobs import trial
from deepmerge.jobs.trial import DIGEST, Order, over_seeds, train_all
from deepmerge.model import devices, training
from deepmerge.tracking import runs

# TensorFlow takes its threads before its first operation, which in this process may be another test's.
devices.prepare()


@pytest.fixture
def orders(write_sample, client):
    """Two folds of a small sample, an epoch each."""
    experiment = config.load(str(write_sample()), {"epochs": 1})
    data = datasets.read(experiment.data, experiment.name)
    folds = protocols.cross(data, experiment.split, 2)
    return [Order(f"fold {n}", experiment, data, split, {"fold": str(n)}) for n, split in enumerate(folds)]


def below(client, parent):
    found = client.search_runs(["1"], f"tags.`mlflow.parentRunId` = '{parent}'")
    return {run.info.run_name: run for run in found}


def test_a_training_is_a_run_with_all_that_is_known_of_it(orders, client):
    with runs.new_run("study", {}) as study:
        trials = train_all(study, "", orders, 1)
    found = below(client, study)
    assert set(found) == {"fold 0", "fold 1"}
    for order, done in zip(orders, trials, strict=True):
        run = found[order.name]
        assert run.info.run_id == done.run_id
        assert run.info.status == "FINISHED"
        assert run.data.tags.items() >= {"kind": "trial", **order.tags, "threads": str(devices.prepare())}.items()
        [loss] = client.get_metric_history(done.run_id, "val_loss")
        assert ([loss.value], loss.step) == (done.history["val_loss"], 1)
        assert run.info.start_time >= loss.timestamp > run.info.start_time - 60_000
        assert done.probability.shape == (len(order.split.test),)
        assert 0 <= done.probability.min() <= done.probability.max() <= 1
        assert run.data.metrics["test_log_loss"] > 0
        assert "trained" not in run.data.tags


def test_seeds_count_from_the_experiments_own(orders):
    seeded = over_seeds(orders[0], 3)
    assert [order.experiment.training.seed for order in seeded] == [0, 1, 2]
    assert [order.name for order in seeded] == ["fold 0, seed 0", "fold 0, seed 1", "fold 0, seed 2"]


def test_what_a_training_depends_on_is_in_its_digest(orders):
    def digest(order):
        return trial.piece_of(order).digest

    known = {digest(order) for order in over_seeds(orders[0], 2)} | {digest(orders[1])}
    other = orders[0].experiment.with_settings({"epochs": 2})
    known.add(digest(Order("", other, orders[0].data, orders[0].split)))
    further = {"more": (orders[0].data, other.data, orders[0].split.train)}
    known.add(digest(Order("", orders[0].experiment, orders[0].data, orders[0].split, also=further)))
    assert len(known) == 5
    assert digest(orders[0]) in known  # its name and its tags do not matter


@pytest.fixture
def diverging(monkeypatch):
    """The second training diverges, as often as it is tried."""
    calls, real = [], training.train

    def train(data, split, *arguments, **options):
        calls.append(split)
        if split.test.rows[0] != calls[0].test.rows[0]:
            raise training.TrainingDiverged("loss should stay finite, got nan")
        return real(data, split, *arguments, **options)

    monkeypatch.setattr(training, "train", train)
    return calls


def test_where_one_fails_the_others_go_on_and_the_same_command_takes_them_over(orders, client, diverging, monkeypatch):
    orders = [orders[0], orders[1], over_seeds(orders[0], 2)[1]]
    said = r"^1 of 3 trainings failed; the others are kept. fold 1: loss should stay finite"
    with pytest.raises(Failed, match=said), runs.new_run("study", {}) as first:
        train_all(first, "", orders, 1)
    found = below(client, first)
    assert {name: run.info.status for name, run in found.items()} == {
        "fold 0": "FINISHED",
        "fold 1": "FAILED",
        "fold 0, seed 1": "FINISHED",
    }
    assert "loss should stay finite" in found["fold 1"].data.tags["failure"]

    monkeypatch.undo()
    count = len(diverging)
    with runs.new_run("study", {}) as second:
        trials = train_all(second, "", orders, 1)
    assert len(diverging) == count
    assert [done.run_id for done in trials[::2]] == [found[order.name].info.run_id for order in orders[::2]]
    assert set(below(client, second)) == {"fold 0", "fold 1", "fold 0, seed 1"}

    # Of a study that was finished nothing is taken: whoever repeats it wants to know whether it repeats.
    with runs.new_run("study", {}) as third:
        again = train_all(third, "", orders, 1)
    assert not {done.run_id for done in again} & {done.run_id for done in trials}
    for before, after in zip(trials, again, strict=True):
        np.testing.assert_array_equal(before.probability, after.probability)


@pytest.mark.parametrize(("started", "is_taken"), [(None, False), ("0", True)])
def test_a_study_that_looks_as_if_it_ran_keeps_its_trainings_while_its_process_lives(orders, client, started, is_taken):
    with runs.new_run("study", {}) as first:
        [done] = train_all(first, "", orders[:1], 1)
    client.update_run(first, "RUNNING")
    if started is not None:  # another process had this pid
        process = client.get_run(first).data.tags["process"]
        client.set_tag(first, "process", process.replace('"started": "1', '"started": "0'))
    digest = client.get_run(done.run_id).data.tags[DIGEST]
    found = runs.cut_off_from_its_study({DIGEST: digest})
    assert (found is not None) == is_taken


def test_other_files_than_the_commands_are_refused(orders, write_sample):
    source = Source.of(orders[0].data, orders[0].experiment.data)
    assert source.read() is orders[0].data
    other = Source(source.files, source.name, "0" * 32)
    with pytest.raises(InputError, match=r"given \(fingerprint 0{32}\), got .*; workers read the same files"):
        other.read()


@pytest.mark.slow
def test_side_by_side_they_are_the_same(orders, client, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", str(devices.prepare()))
    with runs.new_run("study", {}) as study:
        alone = train_all(study, "", orders, 1)
        together = train_all(study, "", orders, 2)
    for one, two in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one.probability, two.probability)
        assert one.history == two.history
