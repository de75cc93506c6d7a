import json
import os
import subprocess
from pathlib import Path

import keras
import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient

from deepmerge.errors import InputError
from deepmerge.tracking import plugin, runs
from deepmerge.tracking.runs import finding, provenance

pytestmark = pytest.mark.usefixtures("client")


def start(dataset, **tags):
    """A finished run that counts as trained on `dataset`."""
    with runs.new_run(f"{dataset}-default", {"dataset": dataset, runs.TRAINED: "yes", **tags}) as run_id:
        pass
    return MlflowClient().get_run(run_id)


IMAGES = np.random.default_rng(0).normal(size=(3, 32, 32, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def network():
    inputs = keras.Input((32, 32, 2), name="pixels")
    x = keras.layers.GlobalAveragePooling2D()(keras.ops.arcsinh(inputs))
    return keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(x))


@pytest.fixture(scope="module")
def memory():
    return {}


@pytest.fixture
def trained(client, network, memory):
    """A finished run with a model, made once for the module."""
    if not memory:
        with runs.new_run("modelled-default", {"dataset": "modelled"}) as run_id:
            runs.log_model(network, IMAGES[:2], np.asarray(network(IMAGES[:2])), {"of": "a test"})
        memory["run_id"] = run_id
    return client.get_run(memory["run_id"])


def test_a_run_carries_name_tags_parameters_and_metrics_and_ends_finished(client):
    with runs.new_run("tiny-default", {"dataset": "tiny", "split": "rows"}) as run_id:
        assert runs.active_id() == run_id
        runs.log_parameters({"dataset": "tiny", "dropout": 0.3, "augment": True})
        runs.log_metrics({"val_loss": 0.5}, step=1)
        runs.log_metrics({"val_loss": 0.25}, step=2)
    run = client.get_run(run_id)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "tiny-default")
    assert client.get_experiment(run.info.experiment_id).name == plugin.EXPERIMENT
    assert run.data.params == {"dataset": "tiny", "dropout": "0.3", "augment": "True"}
    assert run.data.tags.items() >= {"dataset": "tiny", "split": "rows"}.items()
    assert [(m.step, m.value) for m in client.get_metric_history(run_id, "val_loss")] == [(1, 0.5), (2, 0.25)]
    assert "failure" not in run.data.tags


def test_a_model_tells_what_was_told_of_it(trained):
    assert runs.model_metadata(trained) == {"of": "a test"}


def test_without_an_open_run_there_is_no_active_id():
    with pytest.raises(RuntimeError, match="no MLflow run is open"):
        runs.active_id()


def test_a_failing_body_ends_the_run_failed_with_the_reason(client):
    with pytest.raises(ValueError, match="too hot"), runs.new_run("a", {}) as run_id:
        raise ValueError("too hot" + "!" * 9000)
    run = client.get_run(run_id)
    assert run.info.status == "FAILED"
    assert run.data.tags["failure"].startswith("ValueError: too hot!")
    assert mlflow.active_run() is None


@pytest.mark.parametrize(
    ("stop", "said"), [(KeyboardInterrupt(), "stopped by SIGINT"), (SystemExit(143), "stopped by SIGTERM")]
)
def test_a_stopped_run_ends_killed_with_the_reason(client, monkeypatch, stop, said):
    monkeypatch.setattr("deepmerge.stopping._told", {})
    with pytest.raises(type(stop)), runs.new_run("a", {}) as run_id:
        raise stop
    run = client.get_run(run_id)
    assert (run.info.status, run.data.tags["failure"]) == ("KILLED", said)


GONE = {"pid": "1", "started": "0.0"}  # no process started in 1970


def own(client):
    with runs.new_run("a", {}) as run_id:
        return json.loads(client.get_run(run_id).data.tags["process"])


@pytest.mark.parametrize(
    ("changes", "status"),
    [(GONE, "KILLED"), ({}, "RUNNING"), ({**GONE, "host": "elsewhere"}, "RUNNING")],
    ids=["gone", "alive", "on another machine"],
)
def test_the_next_command_closes_the_runs_of_processes_that_are_gone(client, monkeypatch, changes, status):
    process = json.dumps({**own(client), **changes})
    experiment = client.get_experiment_by_name(plugin.EXPERIMENT).experiment_id
    left = client.create_run(experiment, tags={"process": process, runs.TRAINED: "yes", "dataset": "left"}).info.run_id
    foreign = client.create_run(experiment, tags={"process": "somebody else's"}).info.run_id
    monkeypatch.setattr("deepmerge.tracking.runs.opening._closed", set())  # as in a process of its own
    runs.connect()
    run = client.get_run(left)
    assert run.info.status == status
    assert run.data.tags.get("failure") == ("process gone" if status == "KILLED" else None)
    assert client.get_run(foreign).info.status == "RUNNING"
    with pytest.raises(InputError, match="should be of a run that ended well"):
        runs.find(left, "left")
    client.set_terminated(left)


def test_a_run_that_goes_on_is_owned_by_the_process_that_goes_on_with_it(client, monkeypatch):
    with runs.new_run("a", {}) as run_id:
        pass
    runs.end_below(run_id, "KILLED", "process gone")
    client.set_tag(run_id, "process", json.dumps({**own(client), **GONE}))
    with runs.continued(run_id, "a", {}):
        monkeypatch.setattr("deepmerge.tracking.runs.opening._closed", set())
        runs.connect()
        run = client.get_run(run_id)
        assert (run.info.status, "failure" in run.data.tags) == ("RUNNING", False)
    assert client.get_run(run_id).info.status == "FINISHED"


@pytest.fixture
def launched(client, monkeypatch):
    """A run as `mlflow run` leaves it to the command that it starts."""
    experiment = client.get_experiment_by_name(plugin.EXPERIMENT).experiment_id
    run_id = client.create_run(experiment, run_name="random-crow-7").info.run_id
    client.log_param(run_id, "learning_rate", "1e-3")
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", experiment)
    return run_id


def test_the_launchers_run_is_adopted_and_its_parameters_keep_their_spelling(client, launched):
    with runs.new_run("tiny-default", {"dataset": "tiny"}) as run_id:
        runs.log_parameters({"learning_rate": 0.001, "epochs": 3})
    run = client.get_run(launched)
    assert run_id == launched
    assert (run.info.status, run.info.run_name) == ("FINISHED", "tiny-default")
    assert run.data.params == {"learning_rate": "1e-3", "epochs": "3"}
    assert run.data.tags["dataset"] == "tiny"


def test_an_experiment_named_in_the_environment_is_kept(client, monkeypatch, database):
    other = client.create_experiment("other", database.removeprefix("sqlite:///") + "-other")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "other")
    with runs.new_run("a", {}) as run_id:
        pass
    assert client.get_run(run_id).info.experiment_id == other


def test_without_a_tracking_uri_runs_go_to_the_working_directory(monkeypatch, tmp_path):
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.chdir(tmp_path)
    runs.connect()
    assert mlflow.get_tracking_uri() == f"sqlite:///{tmp_path}/mlflow.db"


def test_metrics_that_are_not_defined_are_left_out(client):
    with runs.new_run("a", {}) as run_id:
        runs.log_metrics({"test_auc": np.float32(0.5), "test_purity": float("nan"), "test_loss": np.inf})
    assert client.get_run(run_id).data.metrics == {"test_auc": 0.5}


def test_data_that_share_their_first_image_keep_their_own_digests(client, tmp_path):
    images = np.random.default_rng(0).normal(size=(2, 2, 75, 75)).astype(np.float32)
    other = images.copy()
    other[1] += 1
    with runs.new_run("a", {}) as run_id:
        for array, digest in ((images, "1" * 32), (other, "2" * 32)):
            runs.log_data(array, np.array([0, 1]), tmp_path / "x.npy", "tiny", digest)
    inputs = [entry.dataset for entry in client.get_run(run_id).inputs.dataset_inputs]
    assert sorted(data.digest for data in inputs) == ["1" * 32, "2" * 32]
    assert {json.loads(data.source)["uri"] for data in inputs} == {str(tmp_path / "x.npy")}
    assert {data.name for data in inputs} == {"tiny"}


def test_the_newest_trained_run_of_the_data_set_is_found(client):
    start("found")
    newest = start("found")
    with runs.new_run("found-default", {"dataset": "found"}):
        pass  # newer, but it holds no model
    start("another")
    assert runs.find("last", "found").info.run_id == newest.info.run_id
    assert [run.info.run_id for run in runs.newest(["nothing", "found"])] == [newest.info.run_id]


def test_runs_of_the_same_name_are_told_apart_by_their_data(client):
    ours = start("same", data_fingerprint="a" * 32)
    theirs = start("same", data_fingerprint="b" * 32)
    assert runs.find("last", "same", "a" * 32).info.run_id == ours.info.run_id
    assert runs.find("last", "same", "b" * 32).info.run_id == theirs.info.run_id
    assert runs.find("last", "same").info.run_id == theirs.info.run_id
    assert runs.find(theirs.info.run_id, "same", "b" * 32).info.run_id == theirs.info.run_id
    for model in ("last", theirs.info.run_id):
        with pytest.raises(
            InputError, match=f"trained on the data of same .*run {theirs.info.run_id} of 'same'"
        ) as error:
            runs.find(model, "same", "c" * 32)
        said = str(error.value)
        assert f"started in {Path.cwd()}, with other data (fingerprint {'b' * 32}); train anew" in said
        assert "\n" not in said


def test_a_run_that_did_not_end_well_is_no_model(client):
    good = start("ends")
    for status in ("FAILED", "KILLED"):
        bad = start("ends", failure="OSError: disk full")
        client.set_terminated(bad.info.run_id, status)
        with pytest.raises(InputError, match=f"got run {bad.info.run_id}, which is {status} .OSError: disk full"):
            runs.find(bad.info.run_id, "ends")
    with runs.new_run("ends-default", {"dataset": "ends", runs.TRAINED: "yes"}) as run_id:  # as `main` goes on
        assert runs.find(run_id, "ends").info.run_id == run_id
        assert runs.find("last", "ends").info.run_id == good.info.run_id
    going = client.create_run(good.info.experiment_id, tags={"dataset": "ends", runs.TRAINED: "yes"})  # killed by -9
    with pytest.raises(InputError, match=f"got run {going.info.run_id}, which is RUNNING"):
        runs.find(going.info.run_id, "ends")
    assert runs.find("last", "ends").info.run_id == run_id
    assert [run.info.run_id for run in runs.newest(["ends"])] == [run_id]


def test_the_newest_model_is_found_behind_any_number_of_failures(client):
    good = start("behind")
    for _ in range(finding.PAGE + 2):
        going = client.create_run(good.info.experiment_id, tags={"dataset": "behind", runs.TRAINED: "yes"})
        assert going.info.status == "RUNNING"
    assert runs.find("last", "behind").info.run_id == good.info.run_id


def test_a_model_that_is_written_to_is_still_the_newest_and_never_looks_as_if_it_ran(client):
    start("written")
    run = start("written")
    with runs.reopened(run):
        runs.log_metrics({"test_auc": 0.5})
        runs.log_json({}, "a.json")
        runs.describe("words")
        runs.set_tags({"some": "tag"})
        found = client.get_run(run.info.run_id)  # should this process be killed now
        assert (found.info.status, found.info.end_time) == ("FINISHED", run.info.end_time)
        assert runs.find("last", "written").info.run_id == run.info.run_id
    after = client.get_run(run.info.run_id)
    assert (after.info.status, after.info.end_time) == ("FINISHED", run.info.end_time)
    assert after.data.metrics == {"test_auc": 0.5}
    assert (after.data.tags["some"], after.data.tags["mlflow.note.content"]) == ("tag", "words")


def test_studies_of_the_same_name_are_told_apart_by_their_data(client):
    ids = []
    for fingerprint in ("a" * 32, "b" * 32):
        with runs.new_run("s", {"kind": "folds", "dataset": "studied", "data_fingerprint": fingerprint}) as run_id:
            ids.append(run_id)
    assert [run.info.run_id for run in runs.newest_studies("folds", "studied")] == ids[::-1]
    assert runs.newest_study("folds", "make it", "studied", "a" * 32).info.run_id == ids[0]
    with pytest.raises(InputError, match=r"kind folds about 'studied' .fingerprint c{32}.* make one with 'make it'"):
        runs.newest_study("folds", "make it", "studied", "c" * 32)


def test_an_experiment_that_somebody_else_makes_at_the_same_moment_is_shared(client, monkeypatch):
    made = client.create_experiment("raced")
    monkeypatch.setattr(MlflowClient, "get_experiment_by_name", late(MlflowClient.get_experiment_by_name))
    assert plugin.experiment_id("raced") == made


def late(asked):
    """As `asked`, but the first answer comes before another process has made what is asked for."""
    calls = []

    def answer(*arguments):
        calls.append(arguments)
        return None if len(calls) == 1 else asked(*arguments)

    return answer


def test_messages_and_tags_hold_no_password(client, monkeypatch):
    url = "postgresql://me:s3cret@host/db"
    with pytest.raises(OSError, match="s3cret"), runs.new_run("a", {}) as run_id:
        raise OSError(f"no route to {url}")
    assert client.get_run(run_id).data.tags["failure"] == "OSError: no route to postgresql://me@host/db"
    monkeypatch.setattr(mlflow, "get_tracking_uri", lambda: url)
    assert runs.store() == "postgresql://me@host/db"


def test_a_model_is_found_by_run_id_uri_version_and_alias(client, trained):
    run_id = trained.info.run_id
    model_id = trained.outputs.model_outputs[0].model_id
    client.create_registered_model("registered")
    client.create_model_version("registered", f"models:/{model_id}", run_id)
    client.set_registered_model_alias("registered", "champion", "1")
    names = ["last", run_id, f"models:/{model_id}", "models:/registered/1", "models:/registered@champion"]
    assert [runs.find(name, "modelled").info.run_id for name in names] == [run_id] * 5


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("last", "expected a trained model of dataset 'nothing'.*'deepmerge train nothing'"),
        ("a" * 32, "model should exist in sqlite:.*got 'a{32}': Run with id"),
        ("models:/m-" + "a" * 32, "model should exist in sqlite:.*not found"),
        ("models:/nobody/1", "model should exist in sqlite:.*not found"),
        ("models:/nobody@champion", "model should exist in sqlite:.*not found"),
        ("models:/", "model should exist in sqlite:"),
        ("A" * 32, "should be 'last', a run id of 32 hexadecimal digits, .*got 'A{32}'"),
        ("", "should be 'last'.*got ''"),
    ],
)
def test_a_model_that_is_not_there_is_explained_in_one_line(model, said):
    with pytest.raises(InputError, match=said) as error:
        runs.find(model, "nothing")
    assert "\n" not in str(error.value)


def test_a_model_is_found_by_the_file_that_training_wrote(client, tmp_path):
    run = start("noted")
    note = tmp_path / "run.json"
    note.write_text(json.dumps({"run_id": run.info.run_id}))
    assert runs.find(str(note), "noted").info.run_id == run.info.run_id
    note.write_text(json.dumps({"run_id": "a" * 32}))
    with pytest.raises(InputError, match=f"should exist in sqlite:.*{note} is of another store"):
        runs.find(str(note), "noted")


@pytest.mark.parametrize("content", [None, "no json", "[]", "{}"])
def test_a_file_that_names_no_run_is_explained(tmp_path, content):
    note = tmp_path / "run.json"
    if content is not None:
        note.write_text(content)
    with pytest.raises(InputError, match=f"should be a file with a run_id, .* got {note}"):
        runs.find(str(note), "noted")


def test_the_saved_model_loads_in_safe_mode_and_gives_the_same_numbers(trained, network):
    path = runs.model_file(trained)
    model = keras.models.load_model(path, compile=False, safe_mode=True)
    np.testing.assert_array_equal(np.asarray(model(IMAGES)), np.asarray(network(IMAGES)))


def test_the_saved_model_has_signature_example_and_pins_and_no_pickle(trained):
    folder = runs.model_file(trained).parents[1]
    info = mlflow.models.get_model_info(str(folder))
    assert info.signature.inputs.to_dict()[0]["tensor-spec"] == {"dtype": "float32", "shape": (-1, 32, 32, 2)}
    assert info.signature.outputs.to_dict()[0]["tensor-spec"] == {"dtype": "float32", "shape": (-1, 1)}
    assert info.saved_input_example_info is not None
    assert all("==" in line for line in (folder / "requirements.txt").read_text().split())
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert folder / "data" / "model.keras" in files
    assert not [path for path in files if path.suffix in (".pkl", ".pickle", ".cloudpickle")]
    assert not [path for path in files if path.read_bytes()[:1] == b"\x80"]  # how pickles begin


PLANTED = "data/custom_objects.cloudpickle"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("data/model.keras", b"another", "was changed"),
        ("MLmodel", b"flavors: {}", "was changed"),
        ("requirements.txt", b"evil", "was changed"),
        (PLANTED, b"code", "was added"),
        ("code/evil.py", b"code", "was added"),
        ("data/save_format.txt", None, "is missing"),
    ],
)
def test_a_model_whose_files_are_not_those_that_were_logged_is_refused(client, trained, name, content, said):
    folder = runs.model_file(trained).parents[1]
    path = folder / name
    before = path.read_bytes() if path.exists() else None
    path.parent.mkdir(exist_ok=True)
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    try:
        with pytest.raises(InputError, match=f"{name} {said}; bring back the files"):
            runs.model_file(trained)
    finally:
        if before is None:
            path.unlink()
        else:
            path.write_bytes(before)
    assert runs.model_file(trained).exists()


def test_what_promotions_put_beside_a_model_does_not_change_it(client, trained, tmp_path):
    (tmp_path / "promotion.json").write_text("{}")
    client.log_model_artifacts(runs.model_id(trained), str(tmp_path))
    assert runs.model_file(trained).exists()


def test_metrics_of_a_run_with_a_model_stand_on_the_model_too(client, trained):
    with runs.reopened(trained):
        runs.log_metrics({"test_auc": 0.75})
    model = client.get_logged_model(trained.outputs.model_outputs[0].model_id)
    assert {metric.key: metric.value for metric in model.metrics}["test_auc"] == 0.75
    assert client.get_run(trained.info.run_id).data.metrics["test_auc"] == 0.75


def test_a_run_without_a_model_is_refused(client):
    with pytest.raises(InputError, match=r"should hold a trained model, got .* \(bare-default\), which has none"):
        runs.model_file(start("bare"))


@pytest.mark.parametrize("status", ["FINISHED", "FAILED"])
def test_a_reopened_run_keeps_its_status_when_the_body_fails(client, status):
    run = start("reopened")
    client.set_terminated(run.info.run_id, status)
    with pytest.raises(ZeroDivisionError), runs.reopened(client.get_run(run.info.run_id)):
        runs.log_metrics({"test_auc": 0.5, "test_f1": 1 / 0})
    found = client.get_run(run.info.run_id)
    assert found.info.status == status
    assert "failure" not in found.data.tags
    assert mlflow.active_run() is None


def test_the_launchers_run_goes_beneath_the_run_that_is_reopened(client, launched):
    run = client.create_run("0", tags={"dataset": "judged"})
    client.set_terminated(run.info.run_id)
    with runs.reopened(client.get_run(run.info.run_id)):
        runs.log_metrics({"test_auc": 0.5})
    assert client.get_run(run.info.run_id).data.metrics == {"test_auc": 0.5}
    child = client.get_run(launched)
    assert child.data.tags["mlflow.parentRunId"] == run.info.run_id
    assert run.info.run_id in child.data.tags["mlflow.note.content"]
    assert child.data.metrics == {}


def test_artifacts_come_back_as_they_were_logged(client):
    table = pd.DataFrame({"row": [3, 5], "probability": [0.25, 0.1 + 0.2]})
    with runs.new_run("a", {}) as run_id:
        runs.log_json({"data": [1, None]}, "experiment.json")
        runs.log_table(table, "predictions.parquet")
        runs.log_table(table, "tables/split.csv")
        with runs.artifact_folder("saliency") as folder:
            (folder / "README.txt").write_text("maps")
    run = client.get_run(run_id)
    assert runs.read_json(run, "experiment.json") == {"data": [1, None]}
    pd.testing.assert_frame_equal(pd.read_parquet(runs.read_artifact(run, "predictions.parquet")), table)
    pd.testing.assert_frame_equal(pd.read_csv(runs.read_artifact(run, "tables/split.csv")), table)
    assert runs.read_artifact(run, "saliency/README.txt").read_text() == "maps"


def test_a_missing_artifact_names_the_run(client):
    run = start("bare")
    with pytest.raises(InputError, match=f"run {run.info.run_id} should hold split.csv, but does not"):
        runs.read_artifact(run, "split.csv")


def test_half_written_artifacts_are_not_logged(client):
    def write(folder):
        (folder / "maps.npy").write_text("half")
        raise ValueError("midway")

    with runs.new_run("a", {}) as run_id:  # noqa: SIM117
        with pytest.raises(ValueError, match="midway"), runs.artifact_folder("saliency") as folder:
            write(folder)
    assert client.list_artifacts(run_id) == []
    assert not folder.exists()


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A git repository with one commit, in which this code seems to lie."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "runs.py"))

    def git(*arguments):
        identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
        return subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True)

    (tmp_path / "runs.py").write_text("a = 1\n")
    git("init")
    git("add", ".")
    git("commit", "-m", "one")
    return git("rev-parse", "HEAD").stdout.strip()


def test_a_run_tells_its_commit_and_changes_not_committed(client, repository, tmp_path):
    clean = start("a").data.tags
    (tmp_path / "runs.py").write_text("a = 2\n")
    with runs.new_run("a", {}) as run_id:
        runs.log_environment()
    dirty = client.get_run(run_id)
    assert (clean["git_commit"], clean["git_dirty"]) == (repository, "no")
    assert (dirty.data.tags["git_commit"], dirty.data.tags["git_dirty"]) == (repository, "yes")
    assert "+a = 2" in runs.read_artifact(dirty, "environment/uncommitted.diff").read_text()
    assert f"mlflow=={mlflow.__version__}\n" in runs.read_artifact(dirty, "environment/packages.txt").read_text()
    assert "python" in runs.read_json(dirty, "environment/machine.json")


def test_code_outside_a_repository_says_so(client, tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "runs.py"))
    tags = start("a").data.tags
    assert (tags["git_commit"], tags["git_dirty"]) == ("none", "unknown")


def test_children_that_look_as_if_they_ran_are_found_by_their_tags(client):
    """As a worker leaves one that is killed before it could note its run."""
    with runs.new_run("study", {}) as parent:
        with runs.child(parent, "trial-1", {"trial": "1"}):
            pass
        left = {}
        for number in ("2", "3"):
            tags = {"trial": number, "mlflow.parentRunId": parent}
            experiment = client.get_run(parent).info.experiment_id
            left[number] = client.create_run(experiment, tags=tags).info.run_id
        assert runs.running_children(parent, {"trial": "2"}) == [left["2"]]
        assert runs.running_children(parent, {"trial": "1"}) == []
        runs.end_below(left["2"], "KILLED", "gone")
        assert runs.running_children(parent, {"trial": "2"}) == []
