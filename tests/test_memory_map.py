import sys

import numpy as np
import psutil
import pytest

from deepmerge.data.batches import gather
from deepmerge.data.dataset import chunks
from deepmerge.data.memory_map import forget


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "images.npy"
    np.save(path, np.random.default_rng(0).normal(size=(2000, 2, 40, 40)).astype(np.float32))
    return path


def mapped_megabytes():
    return psutil.Process().memory_info().shared / 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system does not say what is mapped")
@pytest.mark.parametrize("walk", ["gather", "chunks"])
def test_a_walk_over_a_mapped_file_takes_little_memory_and_reads_all(file, walk, monkeypatch):
    monkeypatch.setattr("deepmerge.data.dataset.CHUNK_BYTES", 2**20)
    monkeypatch.setattr("deepmerge.data.memory_map.KEPT", 2**21)
    images = np.load(file, mmap_mode="r")
    start, most, total = mapped_megabytes(), 0.0, 0.0
    parts = np.array_split(np.arange(2000), 20) if walk == "gather" else chunks(images)
    for part in parts:
        total += float((gather(images, part) if walk == "gather" else images[part]).sum(dtype=np.float64))
        most = max(most, mapped_megabytes() - start)
    assert total == pytest.approx(np.load(file).sum(dtype=np.float64))
    assert most < 6  # of 24


@pytest.mark.parametrize("mode", ["r", "r+", "c", None])
def test_forgetting_loses_nothing(file, mode):
    array = np.load(file, mmap_mode=mode)
    expected = np.array(array)
    if mode != "r":
        array[7] = expected[7] = 5
    forget(array)
    forget(array[3:9].reshape(-1))
    np.testing.assert_array_equal(array, expected)
    assert (np.load(file)[7] == 5).all() == (mode == "r+")


def test_what_is_no_file_stays(monkeypatch):
    array = np.arange(5)
    forget(array)
    assert array.tolist() == [0, 1, 2, 3, 4]
