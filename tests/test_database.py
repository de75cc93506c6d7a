import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import environment

from deepmerge.errors import InputError
from deepmerge.tracking import database


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///mlflow.db", Path("mlflow.db")),
        ("sqlite:///sub/mlflow.db?timeout=9", Path("sub/mlflow.db")),
        ("sqlite:////data/a b/x@y.db", Path("/data/a b/x@y.db")),
        ("sqlite+pysqlite:////x.db", Path("/x.db")),
        ("sqlite://", None),
        ("sqlite:///:memory:", None),
        ("sqlite:///file:x.db?mode=ro&uri=true", None),
        ("postgresql+psycopg://me:x@host/db", None),
        ("http://127.0.0.1:5000", None),
        ("file:///data/mlruns", None),
        ("databricks", None),
        ("nonsense", None),
    ],
)
def test_the_file_of_an_address(url, path):
    assert database.path_of(url) == path


def tables(path):
    with sqlite3.connect(path) as connection:
        return [name for (name,) in connection.execute("SELECT name FROM sqlite_master")]


def filled(url):
    """Make a table, slowly enough for others to come in between."""
    with sqlite3.connect(database.path_of(url)) as connection:
        time.sleep(0.05)
        connection.execute("CREATE TABLE t (x)")


def test_of_several_that_make_a_database_at_once_one_does(tmp_path):
    path, made = tmp_path / "x.db", []

    def fill(url):
        made.append(url)
        filled(url)

    threads = [threading.Thread(target=database.make, args=(f"sqlite:///{path}", fill)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert tables(path) == ["t"]
    assert [file.name for file in tmp_path.iterdir()] == ["x.db"]


def test_nothing_stands_in_the_place_of_a_database_until_it_is_whole(tmp_path):
    path = tmp_path / "x.db"

    def fail(url):
        filled(url)
        assert not path.exists()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        database.make(f"sqlite:///{path}", fail)
    assert not path.exists()
    database.make(f"sqlite:///{path}", filled)  # over what was left
    assert tables(path) == ["t"]
    assert [file.name for file in tmp_path.iterdir()] == ["x.db"]


def test_a_database_that_is_there_stays_as_it_is_and_an_empty_file_is_none(tmp_path):
    path = tmp_path / "x.db"
    path.touch()
    database.make(f"sqlite:///{path}", filled)
    assert tables(path) == ["t"]
    before = path.read_bytes()
    database.make(f"sqlite:///{path}", pytest.fail)
    assert path.read_bytes() == before


def test_a_relative_address_is_meant_from_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    database.make("sqlite:///x.db", filled)
    assert tables(tmp_path / "x.db") == ["t"]


@pytest.mark.parametrize("url", ["postgresql://host/db", "http://host", "sqlite://", "sqlite:////nowhere/at/all/x.db"])
def test_other_databases_and_folders_that_are_not_there_are_left_alone(url):
    database.make(url, pytest.fail)
    assert not Path("/nowhere").exists()


def test_a_place_that_cannot_be_written_to_is_said_in_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/x.db should be a database that can be made, but: ") as error:
        database.make(f"sqlite:///{tmp_path}/file/x.db", pytest.fail, parents=True)
    assert "\n" not in str(error.value)


def test_mlflows_store_has_all_its_tables_and_leaves_nothing_beside_it(empty_database):
    assert {"experiments", "runs", "registered_models", "alembic_version"} <= set(tables(empty_database))
    assert [file.name for file in empty_database.parent.iterdir()] == ["mlflow.db"]


def test_the_folder_of_mlflows_store_is_made_too(tmp_path, monkeypatch):
    monkeypatch.setattr("mlflow.store.db.utils._initialize_tables", lambda engine: filled(str(engine.url)))
    database.make_store(f"sqlite:///{tmp_path}/new/folder/mlflow.db")
    assert tables(tmp_path / "new" / "folder" / "mlflow.db") == ["t"]


# --- the commands, on a fresh folder -----------------------------------------------------------------------


def start(folder, *words):
    ours = environment(PYTHONPATH=str(Path(database.__file__).parents[2]))
    return subprocess.Popen(
        words, cwd=folder, env=ours, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def ends_well(*processes):
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        assert "already exists" not in errors


MODELS = (sys.executable, "-m", "deepmerge", "models")


@pytest.mark.slow
def test_commands_that_begin_a_store_at_the_same_moment_all_do_their_work(tmp_path):
    ends_well(*(start(tmp_path, *MODELS) for _ in range(6)))
    assert [file.name for file in tmp_path.iterdir()] == ["mlflow.db"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_command_that_was_killed_while_it_made_the_store_is_no_hindrance(tmp_path, seed):
    process = start(tmp_path, *MODELS)
    deadline = time.monotonic() + 60
    while not any(tmp_path.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(random.Random(seed).uniform(0, 1.5))
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    ends_well(start(tmp_path, *MODELS))
    assert [file.name for file in tmp_path.iterdir()] == ["mlflow.db"]


@pytest.mark.slow
def test_two_projects_that_mlflow_itself_starts_at_the_same_moment_share_a_new_store(tmp_path):
    project = 'name: deepmerge\nentry_points:\n  main:\n    command: "python -m deepmerge models"\n'
    (tmp_path / "MLproject").write_text(project)
    mlflow = (sys.executable, "-m", "mlflow", "run", ".", "--env-manager", "local")
    ends_well(*(start(tmp_path, *mlflow) for _ in range(2)))
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        found = connection.execute("SELECT e.name, r.status FROM runs r JOIN experiments e USING (experiment_id)")
        assert found.fetchall() == [("deepmerge", "FINISHED")] * 2
