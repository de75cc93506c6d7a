"""One at a time, on one machine, also where a holder is killed."""

import subprocess
import sys
import threading
from pathlib import Path

import mlflow
import pytest
from conftest import environment

from deepmerge.tracking import mutex

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def place(client, tmp_path, monkeypatch):
    """Locks of its own for each test."""
    monkeypatch.setattr(mutex.tempfile, "gettempdir", lambda: str(tmp_path))


@pytest.mark.parametrize("stop", [ValueError(), KeyboardInterrupt(), SystemExit()])
def test_a_failing_body_releases_the_lock(stop):
    with pytest.raises(type(stop)), mutex.only_one("name"):
        raise stop
    with mutex.only_one("name"):
        pass


def test_locks_of_other_names_and_of_other_stores_are_independent():
    with mutex.only_one("one"), mutex.only_one("two"):
        mlflow.set_tracking_uri("http://127.0.0.1:1")
        with mutex.only_one("one"):
            pass


def test_threads_go_one_after_the_other():
    inside, most = [], []

    def work():
        for _ in range(20):
            with mutex.only_one("name"):
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert most == [1] * 80


def test_a_holder_that_is_killed_leaves_nothing_behind(tmp_path):
    code = (
        "import os, mlflow, tempfile\nfrom deepmerge.tracking import mutex\n"
        f"tempfile.tempdir = {str(tmp_path)!r}\nmlflow.set_tracking_uri({mlflow.get_tracking_uri()!r})\n"
        "with mutex.only_one('name'): os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", code], env=environment(PYTHONPATH=str(ROOT)), check=False)
    assert killed.returncode == -9
    with mutex.only_one("name"):
        pass


@pytest.mark.slow
def test_processes_that_count_together_lose_nothing(tmp_path):
    counter = tmp_path / "counter"
    counter.write_text("0")
    code = (
        "import sys, tempfile, pathlib\nfrom deepmerge.tracking import mutex\n"
        "tempfile.tempdir, path = sys.argv[1], pathlib.Path(sys.argv[2])\n"
        "for _ in range(50):\n    with mutex.only_one('n'): path.write_text(str(int(path.read_text()) + 1))"
    )
    words = [sys.executable, "-c", code, str(tmp_path), str(counter)]
    workers = [subprocess.Popen(words, env=environment(PYTHONPATH=str(ROOT))) for _ in range(4)]
    assert [worker.wait(120) for worker in workers] == [0] * 4
    assert counter.read_text() == "200"
