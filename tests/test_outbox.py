import os
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from unittest import mock

import keras
import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST
from server import Server

from deepmerge.errors import Failed
from deepmerge.tracking import outbox, runs, sync
from deepmerge.tracking.outbox import Parcel, send_left

IMAGES = np.random.default_rng(0).normal(size=(3, 8, 8, 2)).astype(np.float32)
URL = "http://user:secret@host"


class Post:
    """Takes what is delivered, unless `fails` says otherwise."""

    def __init__(self, fails=lambda entry: None):
        self.fails, self.taken, self.tried = fails, [], threading.Event()

    def __call__(self, run_id, entry, files):
        self.tried.set()
        if error := self.fails(entry):
            raise error
        self.taken.append((run_id, entry["n"]))


def unreachable(entry):
    return ConnectionError("nobody answers")


def refusing(entry):
    return MlflowException("no such run", RESOURCE_DOES_NOT_EXIST) if entry["n"] == 1 else None


def left_behind(folder, count, fails=unreachable, run_id="run"):
    parcel = Parcel(folder, run_id, URL, Post(fails))
    for n in range(count):
        parcel.put({"n": n})
    parcel.close(patience=0.01)


def test_entries_are_delivered_in_order_and_their_parcel_goes(tmp_path):
    post = Post()
    parcel = Parcel(tmp_path / "store", "run", URL, post)
    for n in range(50):
        parcel.put({"n": n})
    parcel.close()
    assert post.taken == [("run", n) for n in range(50)]
    assert not parcel.folder.exists()


def test_putting_waits_for_nobody(tmp_path):
    release = threading.Event()
    parcel = Parcel(tmp_path / "store", "run", URL, lambda *entry: release.wait(60) and None)
    for n in range(100):
        parcel.put({"n": n})
    assert not release.is_set()
    release.set()
    parcel.close()
    assert not parcel.folder.exists()


def test_a_delivery_that_fails_is_tried_again_before_the_next(tmp_path):
    failures = iter([ConnectionError("a"), ConnectionError("b")])
    post = Post(lambda entry: next(failures, None) if entry["n"] == 1 else None)
    parcel = Parcel(tmp_path / "store", "run", URL, post)
    for n in range(3):
        parcel.put({"n": n})
    parcel.close()
    assert [n for _, n in post.taken] == [0, 1, 2]


def test_what_is_left_is_told_without_the_password_and_sent_later(tmp_path):
    left_behind(tmp_path / "store", 3)
    message = outbox.undelivered()
    assert "nobody answers" in message
    assert "deepmerge sync" in message
    assert str(tmp_path / "store") in message
    assert "secret" not in "".join(path.read_text() for path in (tmp_path / "store").rglob("*") if path.is_file())
    assert outbox.waiting(tmp_path / "store") == {"run"}
    post = Post()
    assert send_left(tmp_path / "store", post) == (1, {})
    assert [n for _, n in post.taken] == [0, 1, 2]
    assert outbox.undelivered() is None
    assert outbox.waiting(tmp_path / "store") == set()


def test_what_a_server_refuses_is_not_waited_for_and_kept(tmp_path):
    post = Post(refusing)
    parcel = Parcel(tmp_path / "store", "run", URL, post)
    for n in range(3):
        parcel.put({"n": n})
    parcel.close()  # patient, as commands are
    assert [n for _, n in post.taken] == [0]
    assert parcel.folder.exists()
    post = Post()
    assert send_left(tmp_path / "store", post) == (1, {})
    assert [n for _, n in post.taken] == [1, 2]


def test_one_run_that_fails_does_not_keep_others_back_and_keeps_its_own_order(tmp_path):
    for run_id in ("bad", "good", "bad"):
        left_behind(tmp_path / "store", 2, run_id=run_id)
    taken = []

    def deliver(run_id, entry, files):
        if run_id == "bad":
            raise ConnectionError("still")
        taken.append((run_id, entry["n"]))

    sent, failed = send_left(tmp_path / "store", deliver)
    assert (sent, len(failed)) == (1, 1)
    assert taken == [("good", 0), ("good", 1)]
    post = Post()
    assert send_left(tmp_path / "store", post) == (2, {})
    assert [n for _, n in post.taken] == [0, 1, 0, 1]


def test_an_entry_that_a_kill_cut_short_does_not_count(tmp_path):
    left_behind(tmp_path / "store", 2)
    [journal] = (tmp_path / "store").glob("*/journal.jsonl")
    with journal.open("a") as file:
        file.write('{"n": 2, "half')
    post = Post()
    assert send_left(tmp_path / "store", post) == (1, {})
    assert [n for _, n in post.taken] == [0, 1]


def test_others_leave_a_parcel_alone_whose_process_lives_and_take_it_when_that_is_killed(tmp_path):
    program = f"""
        import sys, time
        from pathlib import Path
        from deepmerge.tracking.outbox import Parcel
        def fails(*entry):
            raise ConnectionError
        Parcel(Path({str(tmp_path / "store")!r}), "run", "http://host", fails).put({{"n": 0}})
        print("put", flush=True)
        time.sleep(600)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "put\n"
        post = Post()
        assert send_left(tmp_path / "store", post) == (0, {})
    finally:
        process.kill()
        process.communicate()
    assert send_left(tmp_path / "store", post) == (1, {})
    assert post.taken == [("run", 0)]


@pytest.mark.parametrize(
    ("url", "is_away"),
    {
        "sqlite:////tmp/mlflow.db": False,
        "./mlruns": False,
        "http://host:5000": True,
        "postgresql://host/db": True,
    }.items(),
)
def test_only_a_store_that_can_be_away_has_an_outbox(url, is_away):
    assert outbox.is_for(url) == is_away


# With MLflow's own server.


@pytest.fixture(scope="module")
def running(empty_database, tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    (folder / "mlflow.db").write_bytes(empty_database.read_bytes())
    with mock.patch.dict(os.environ):
        server = Server(f"sqlite:///{folder}/mlflow.db", folder / "artifacts")
        yield server
        server.close()


@pytest.fixture
def server(running, tmp_path, monkeypatch):
    """The server, and a user who works with it in a folder of their own and does not wait long."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mlflow.tracking.fluent._active_experiment_id", None)
    monkeypatch.setattr(outbox, "PATIENCE", 0.3)
    variables = {"MLFLOW_TRACKING_URI": running.url, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    with mock.patch.dict(os.environ, variables):
        for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
            os.environ.pop(name, None)
        mlflow.set_tracking_uri(running.url)
        yield running
        running.seconds, running.fails, running.loses = 0.0, lambda *request: False, lambda *request: False
        while mlflow.active_run():
            mlflow.end_run()
        mlflow.set_tracking_uri(None)


@pytest.fixture(scope="module")
def network():
    inputs = keras.Input((8, 8, 2), name="pixels")
    outputs = keras.layers.Dense(1, activation="sigmoid")(keras.layers.GlobalAveragePooling2D()(inputs))
    return keras.Model(inputs, outputs)


def write_all(network, tmp_path):
    """Write of every kind what a training writes, and read it back meanwhile as `main` does."""
    open_id = runs.active_id()
    runs.log_parameters({"dataset": "tiny", "dropout": 0.3})
    runs.log_data(IMAGES, np.array([0, 1, 0]), tmp_path, "tiny", "digest")
    for epoch in (1, 2):
        runs.log_metrics({"val_loss": 1 / epoch}, step=epoch)
    runs.log_model(network, IMAGES[:2], np.asarray(network(IMAGES[:2])), {"of": "a test"})
    runs.log_metrics({"test_auc": 0.75})
    table = pd.DataFrame({"row": [0, 1], "probability": [0.25, 0.75]})
    runs.log_table(table, "predictions.parquet")
    runs.log_json([1], "history.json")
    runs.set_tags({"some": "tag"})
    runs.count_look(open_id, "a" * 32)
    run = runs.find(open_id, "tiny")
    assert run.data.tags["some"] == "tag"
    assert runs.model_metadata(run) == {"of": "a test"}
    np.testing.assert_array_equal(keras.models.load_model(runs.model_file(run))(IMAGES), network(IMAGES))
    pd.testing.assert_frame_equal(pd.read_parquet(runs.read_artifact(run, "predictions.parquet")), table)


def require_all_once(run_id, network):
    client = mlflow.MlflowClient()
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"dataset": "tiny", "dropout": "0.3"}
    assert [(m.step, m.value) for m in client.get_metric_history(run_id, "val_loss")] == [(1, 1.0), (2, 0.5)]
    assert [m.value for m in client.get_metric_history(run_id, "test_auc")] == [0.75]
    assert run.data.tags.items() >= {"some": "tag", "test_images": "a" * 32, "trained": "yes"}.items()
    assert [held.dataset.name for held in run.inputs.dataset_inputs] == ["tiny"]
    [output] = run.outputs.model_outputs
    [model] = client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run_id}'")
    assert output.model_id == model.model_id == run.data.tags["model_id"]
    assert str(model.status) == "READY"
    assert [(metric.key, metric.value) for metric in model.metrics] == [("test_auc", 0.75)]
    assert {file.path for file in client.list_artifacts(run_id)} == {"predictions.parquet", "history.json"}
    assert runs.model_metadata(run) == {"of": "a test"}
    np.testing.assert_array_equal(keras.models.load_model(runs.model_file(run))(IMAGES), network(IMAGES))
    assert not list(outbox.place(runs.project(), mlflow.get_tracking_uri()).glob("*/journal.jsonl"))


def test_all_that_a_run_writes_arrives(server, network, tmp_path):
    with runs.new_run("whole", {"dataset": "tiny"}) as run_id:
        write_all(network, tmp_path)
    assert outbox.undelivered() is None
    assert mlflow.active_run() is None
    require_all_once(run_id, network)


def test_answers_that_are_lost_now_and_then_double_nothing(server, network, tmp_path, monkeypatch):
    """The server does what it is told and does not say so: the same as a kill between a delivery and its note."""
    asked = Counter()

    def loses(method, path):
        # A lock whose making was not confirmed is waited for; that is the business of mutex.
        if method == "GET" or "registered-models" in path:
            return False
        asked[path] += 1
        return asked[path] == 1 or ("log-batch" in path and asked[path] % 2 == 1)

    monkeypatch.setattr(outbox, "PATIENCE", 60.0)
    monkeypatch.setattr(outbox, "PAUSES", (0.01,))
    with runs.new_run("lossy", {"dataset": "tiny"}) as run_id:
        server.loses = loses
        write_all(network, tmp_path)
    assert len(asked) > 10
    require_all_once(run_id, network)


def test_a_server_that_dies_in_a_run_gets_all_of_it_when_it_is_back(server, network, tmp_path):
    with runs.new_run("orphan", {"dataset": "tiny"}) as run_id:
        server.stop()
        write_all(network, tmp_path)
    assert run_id in outbox.undelivered()
    with pytest.raises(Failed, match="could not be delivered"):
        sync.sync()
    server.start()
    assert mlflow.get_run(run_id).info.status == "RUNNING"
    assert sync.sync() == {"delivered": 1}
    assert sync.sync() == {"delivered": 0}
    require_all_once(run_id, network)


def test_the_next_command_sends_what_was_left_before_it_closes_runs(server, network, tmp_path, monkeypatch):
    with runs.new_run("left", {"dataset": "tiny"}) as run_id:
        server.stop()
        write_all(network, tmp_path)
    server.start()
    monkeypatch.setattr("deepmerge.tracking.runs.opening._closed", set())  # as in a process of its own
    runs.connect()
    require_all_once(run_id, network)


def test_a_server_that_comes_back_in_the_run_gets_all_of_it(server, network, tmp_path, monkeypatch):
    monkeypatch.setattr(outbox, "PATIENCE", 60.0)
    with runs.new_run("back", {"dataset": "tiny"}) as run_id:
        server.stop()
        write_all(network, tmp_path)
        server.start()
    require_all_once(run_id, network)


def test_work_in_a_run_asks_the_server_for_nothing(server, network, tmp_path):
    with runs.new_run("quiet", {"dataset": "tiny"}):
        server.fails = lambda method, path: True
        write_all(network, tmp_path)
    with pytest.raises(MlflowException), runs.new_run("unbegun", {}):
        pass
    server.fails = lambda method, path: False
    assert sync.sync() == {"delivered": 1}


def test_a_run_that_fails_while_the_server_is_away_ends_failed_with_its_own_reason(server):
    begun = []

    def fail():
        with runs.new_run("hot", {}) as run_id:
            begun.append(run_id)
            server.stop()
            raise ValueError("too hot")

    with pytest.raises(ValueError, match="too hot"):
        fail()
    server.start()
    sync.sync()
    run = mlflow.get_run(*begun)
    assert (run.info.status, run.data.tags["failure"]) == ("FAILED", "ValueError: too hot")


def test_a_run_that_goes_on_keeps_its_steps_and_its_one_model(server, network, tmp_path):
    begun = []

    def be_cut_off():
        with runs.new_run("cut", {"dataset": "tiny"}) as run_id:
            begun.append(run_id)
            runs.log_metrics({"val_loss": 1.0}, step=1)
            runs.log_model(network, IMAGES[:2], np.asarray(network(IMAGES[:2])), {"of": "an earlier one"})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        be_cut_off()
    sync.sync()
    [run_id] = begun
    with runs.continued(run_id, "cut", {}):
        assert runs.logged_steps("val_loss") == {1}
        runs.log_metrics({"val_loss": 0.5}, step=2)
        runs.log_model(network, IMAGES[:2], np.asarray(network(IMAGES[:2])), {"of": "a test"})
    run = mlflow.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert "failure" not in run.data.tags
    assert runs.model_metadata(run) == {"of": "a test"}
    [_] = mlflow.MlflowClient().search_logged_models([run.info.experiment_id], f"source_run_id = '{run_id}'")


def test_what_waits_for_another_server_is_said(server, tmp_path):
    left_behind(outbox.place(tmp_path, URL), 1)
    with pytest.raises(Failed, match=r"http://user@host: set MLFLOW_TRACKING_URI"):
        sync.sync()
