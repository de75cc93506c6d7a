"""What is written aside: whole or not at all, and gone when whoever wrote it was killed."""

import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from deepmerge.files import folder_aside, replacing

ROOT = Path(__file__).parents[1]
WRITES = """
import sys, time
from pathlib import Path
from deepmerge.files import folder_aside, replacing
with replacing(Path("X.npy")) as aside, folder_aside(".work", Path()) as folder, folder_aside("deepmerge") as other:
    for path in (aside, folder / "large", other / "large"):
        path.write_bytes(b"0" * 10**6)
    print("writing", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def writer(tmp_path, monkeypatch):
    """A process that is at writing: aside of X.npy, into a folder there, and into one of the system's."""
    (tmp_path / "system").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "system"))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path / "system")}
    process = subprocess.Popen(
        [sys.executable, "-c", WRITES], cwd=tmp_path, stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout.readline() == "writing\n"
    yield process
    process.kill()
    process.wait()


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def write_in_the_same_places(folder):
    with replacing(folder / "X.npy") as aside, folder_aside(".work", folder), folder_aside("deepmerge"):
        aside.write_text("whole")


def test_what_a_killed_process_left_is_removed_by_the_next_that_writes_there(tmp_path, writer):
    writer.kill()
    writer.wait()
    assert sum(path.stat().st_size for path in files(tmp_path)) == 3 * 10**6
    write_in_the_same_places(tmp_path)
    assert files(tmp_path) == [tmp_path / "X.npy"]
    assert list((tmp_path / "system").iterdir()) == []


def test_what_a_process_is_writing_stays(tmp_path, writer):
    before = files(tmp_path)
    assert len(before) == 3
    write_in_the_same_places(tmp_path)
    assert files(tmp_path) == sorted([*before, tmp_path / "X.npy"])


def test_many_who_write_in_the_same_places_do_not_take_each_others_for_left(tmp_path):
    def write_often(_):
        for _ in range(100):
            with replacing(tmp_path / "X.npy") as aside, folder_aside(".work", tmp_path) as folder:
                aside.write_text("whole")
                (folder / "file").write_text("whole")

    with ThreadPoolExecutor(8) as pool:  # locks are of open files, so threads are to each other as processes are
        list(pool.map(write_often, range(8)))
    assert files(tmp_path) == [tmp_path / "X.npy"]


@pytest.mark.parametrize("name", [".X-part-abc.csv", ".Y-part-abc.npy", "X-part-abc.npy", ".X-original.npy", ".X.npy"])
def test_other_files_stay(tmp_path, name):
    (tmp_path / name).write_text("a user's own")
    write_in_the_same_places(tmp_path)
    assert (tmp_path / name).exists()


def test_links_are_not_followed(tmp_path):
    target = tmp_path / "elsewhere"
    target.mkdir()
    (target / "file").write_text("a user's own")
    (tmp_path / ".work-part-x").symlink_to(target)
    (tmp_path / ".X-part-x.npy").symlink_to(target / "file")
    write_in_the_same_places(tmp_path)
    assert (target / "file").exists()


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "X.npy").write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "X.npy") as aside:
        aside.write_text(f"{1 / 0}")
    assert files(tmp_path) == [tmp_path / "X.npy"]
    assert (tmp_path / "X.npy").read_text() == "old"
