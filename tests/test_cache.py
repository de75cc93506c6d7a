import subprocess
import sys
import time

import numpy as np
import pytest

from deepmerge.data.formats import cache
from deepmerge.errors import InputError

# Writes a line to a file for each time that it makes the array, slowly.
SLOW = """
import sys, time
from pathlib import Path
from deepmerge.data.formats import cache
def make(path):
    out = cache.create(path, (4, 3), "f4")
    out[:2] = 7
    with open("made", "a") as file:
        file.write("once\\n")
    time.sleep(float(sys.argv[1]))
    out[2:] = 7
print(cache.array(Path("cache"), "x", [1], make).sum())
"""


def start(folder, seconds):
    words = [sys.executable, "-c", SLOW, str(seconds)]
    return subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, text=True)


def wait_for(path):
    for _ in range(600):
        if path.exists():
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} did not come")


def test_two_processes_at_once_make_an_array_once(tmp_path):
    both = [start(tmp_path, 1), start(tmp_path, 1)]
    assert [process.communicate()[0] for process in both] == ["84.0\n"] * 2
    assert (tmp_path / "made").read_text() == "once\n"


def test_what_a_killed_process_leaves_never_counts_and_is_deleted(tmp_path):
    killed = start(tmp_path, 60)
    wait_for(tmp_path / "made")
    killed.kill()
    killed.communicate()
    assert list((tmp_path / "cache").glob(".x-*.npy"))
    assert start(tmp_path, 0).communicate()[0] == "84.0\n"
    assert [file.suffix for file in (tmp_path / "cache").glob("*x-*")].count(".npy") == 1


def test_a_failure_leaves_nothing(tmp_path):
    def make(path):
        cache.create(path, (2, 2), np.dtype("f4"))
        raise InputError("a file is broken")

    with pytest.raises(InputError, match="broken"):
        cache.array(tmp_path, "x", [1], make)
    assert not [*tmp_path.glob("*.npy"), *tmp_path.glob(".*.npy")]


def test_a_full_disk_is_said_before_anything_is_written(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.os, "posix_fallocate", full)
    with pytest.raises(InputError, match=r"No space left on device; make room there, or name another folder"):
        cache.array(tmp_path, "x", [1], lambda path: cache.create(path, (2, 2), np.dtype("f4")))
    assert not list(tmp_path.glob("*.npy"))


def test_a_file_replaced_by_one_of_the_same_size_and_date_is_noticed(tmp_path):
    import os

    path = tmp_path / "a"
    path.write_text("one")
    before, found = cache.state(path), path.stat()
    time.sleep(0.05)
    path.write_text("two")
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert cache.state(path)[:2] == before[:2]
    assert cache.state(path) != before


def test_the_cache_is_kept_out_of_version_control(tmp_path):
    cache.array(tmp_path / "c", "x", [1], lambda path: np.save(path, np.ones(3)))
    assert (tmp_path / "c" / ".gitignore").read_text() == "*\n"
