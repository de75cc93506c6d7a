"""Stores that were moved, copied or left half made: said before anything is written."""

import os
import shutil
import sqlite3
from unittest import mock

import mlflow
import pytest

from deepmerge.errors import InputError
from deepmerge.tracking import runs


@pytest.fixture
def at(monkeypatch, tmp_path, empty_database):
    """Work in a folder as a user does who tells MLflow nothing; makes it, with an empty store, if need be."""
    with mock.patch.dict(os.environ):
        for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
            os.environ.pop(name)

        def go(folder):
            mlflow.set_tracking_uri(None)
            monkeypatch.setattr("mlflow.tracking.fluent._active_experiment_id", None)
            for name in ("MLFLOW_EXPERIMENT_ID", "MLFLOW_TRACKING_URI"):
                os.environ.pop(name, None)
            if not folder.exists():
                folder.mkdir(parents=True)
                shutil.copy(empty_database, folder)
                with sqlite3.connect(folder / "mlflow.db") as connection:
                    connection.execute("DELETE FROM experiments")  # MLflow makes them for this folder
            monkeypatch.chdir(folder)
            return folder

        yield go
        mlflow.set_tracking_uri(None)
        monkeypatch.setattr("mlflow.tracking.fluent._active_experiment_id", None)


def trained():
    """A run as training leaves it; its id."""
    with runs.new_run("tiny-default", {"dataset": "tiny", runs.TRAINED: "yes"}) as run_id:
        runs.log_json({}, "experiment.json")
    return run_id


def test_a_moved_project_is_noticed_before_anything_is_written(at, tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    at(old)
    run_id = trained()
    old.rename(new)
    at(new)
    for command in (trained, runs.connect, lambda: runs.find(run_id, "tiny"), lambda: runs.newest(["tiny"])):
        with pytest.raises(InputError) as error:
            command()
        said = str(error.value)
        assert f"'deepmerge' should lie in {old}/mlruns/1, as {new}/mlflow.db says, but there is no such folder" in said
        assert f"ln -s {new} {old}" in said
        assert "\n" not in said
    assert not old.exists()


def test_the_mend_that_is_named_works(at, tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    at(old)
    run_id = trained()
    old.rename(new)
    old.symlink_to(new)
    at(new)
    assert runs.read_json(runs.find("last", "tiny"), "experiment.json") == {}
    assert {run_id, trained()} <= {path.name for path in (new / "mlruns" / "1").iterdir()}


@pytest.mark.parametrize("place", ["inner/project", "."])
def test_a_project_that_was_moved_deeper_or_higher_is_noticed_too(at, tmp_path, place):
    old = tmp_path / "a" / "b"
    at(old)
    trained()
    new = tmp_path / "a" / place
    new.mkdir(parents=True, exist_ok=True)
    for name in ("mlflow.db", "mlruns"):
        (old / name).rename(new / name)
    at(new)
    with pytest.raises(InputError, match="there is no such folder"):
        runs.connect()


def test_a_copy_of_a_project_does_not_write_into_the_original(at, tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    at(old)
    trained()
    shutil.copytree(old, new)
    at(new)
    before = sorted((old / "mlruns" / "1").iterdir())
    with pytest.raises(InputError, match=f"{new}/mlruns/1 holds some of them, too: a copy of that project"):
        trained()
    assert sorted((old / "mlruns" / "1").iterdir()) == before


def test_artifacts_elsewhere_by_choice_are_left_alone(at, tmp_path):
    at(tmp_path / "project")
    runs.connect()
    mlflow.create_experiment("deepmerge", artifact_location=(tmp_path / "big-disk").as_uri())
    first = trained()
    second = trained()
    assert {first, second} == {path.name for path in (tmp_path / "big-disk").iterdir()}
    shutil.rmtree(tmp_path / "big-disk")
    with pytest.raises(InputError, match="there is no such folder; bring it back") as error:
        runs.connect()
    assert "ln -s" not in str(error.value)


def test_one_store_serves_several_folders(at, tmp_path, monkeypatch):
    store = f"sqlite:///{at(tmp_path / 'store')}/mlflow.db"
    for name in ("one", "two"):
        at(tmp_path / name)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
        trained()
    assert len(list((tmp_path / "one" / "mlruns" / "1").iterdir())) == 2


def test_a_project_whose_artifacts_were_cleared_away_goes_on(at, tmp_path):
    project = at(tmp_path / "project")
    trained()
    shutil.rmtree(project / "mlruns")
    run_id = trained()
    assert [path.name for path in (project / "mlruns" / "1").iterdir()] == [run_id]


def test_a_temporary_copy_that_dvc_makes_writes_to_the_project(at, tmp_path):
    project = at(tmp_path / "project")
    copy = project / ".dvc" / "tmp" / "exps" / "temp"
    copy.mkdir(parents=True)
    at(copy)
    run_id = trained()
    assert (project / "mlruns" / "deepmerge" / run_id).is_dir()
    assert not (copy / "mlruns").exists()
    at(project)
    assert runs.find("last", "tiny").info.run_id == run_id


def test_a_store_that_an_older_version_left_half_made_is_said_with_the_way_out(at, tmp_path):
    folder = tmp_path / "project"
    folder.mkdir()
    with sqlite3.connect(folder / "mlflow.db") as connection:  # as a kill between two tables leaves it
        connection.execute("CREATE TABLE trace_info (request_id VARCHAR(50))")
        connection.execute("CREATE TABLE registered_models (name VARCHAR(50))")
    at(folder)
    with pytest.raises(InputError, match=f"left it half made; .*mv {folder}/mlflow.db {folder}/mlflow.db.broken"):
        runs.connect()
