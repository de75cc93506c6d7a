"""Disks that are full, or can only be read: one line that names the place, and nothing half-written."""

import errno
import os
import shutil
import subprocess

import numpy as np
import pytest
from astropy.io import fits
from conftest import BIN, ROOT, environment

from deepmerge import files

N = 600


@pytest.fixture
def disk(tmp_path):
    """Make a disk of some kilobytes in memory, and mount it anew with other options; needs the right to mount."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options):
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            pytest.skip(f"mounting a small disk is not allowed here: {done.stderr.strip()}")
        return folder

    if shutil.which("mount") is None:
        pytest.skip("there is no program to mount a small disk with")
    yield mount
    subprocess.run(["umount", folder], capture_output=True, check=False)


@pytest.fixture
def sample(tmp_path):
    """Images (npy and FITS), labels and an experiment file on a disk with room."""
    folder = tmp_path / "sample"
    folder.mkdir()
    images = np.random.default_rng(0).normal(size=(N, 2, 32, 32)).astype(np.float32)
    labels = (np.arange(N) % 3 == 0).astype(np.uint8)
    np.save(folder / "tiny_X.npy", images)
    np.save(folder / "tiny_y.npy", labels)
    table = fits.BinTableHDU.from_columns([fits.Column("label", "B", array=labels)])
    fits.HDUList([fits.PrimaryHDU(images), table]).writeto(folder / "tiny.fits")
    (folder / "tiny.yaml").write_text(
        "data: {images: tiny_X.npy, labels: tiny_y.npy}\ntraining: {epochs: 1, batch_size: 64}\n"
    )
    return folder


def run(words, **options):
    """Exit status and lines of a command, but for those of the log."""
    done = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, timeout=600, check=False, **options
    )
    return done.returncode, [line for line in done.stderr.splitlines() if not line.startswith(("INFO ", "WARNING "))]


def is_said_of(lines, place):
    (line,) = [line for line in lines if line.startswith("Error: ")]
    assert lines[-1] == line
    assert not any("Traceback" in line for line in lines)
    assert str(place) in line
    assert "make room" in line


WRITERS = {
    "simulate": ["data", "simulate", "--galaxies", "60", "--folder", "{disk}", "--cluster", "1"],
    "import": ["data", "import", "{sample}/tiny.fits", "--folder", "{disk}"],
    "split": ["data", "split", "{sample}/tiny.yaml", "--out", "{disk}/split.csv"],
    "gallery": ["gallery", "{sample}/tiny_X.npy", "--out", "{disk}/page.html"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITERS)
def test_a_command_on_a_full_disk_says_which_and_leaves_what_there_was(name, disk, sample, tmp_path):
    folder = disk("size=40k")
    words = [word.format(disk=folder, sample=sample) for word in WRITERS[name]]
    older = folder / ("page.html" if name == "gallery" else "split.csv")
    if "--folder" not in words:
        older.write_text("older")
        assert words[-1] == str(older)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    # From a large enough file on, the disk has not room for the next.
    (folder / "filling").write_bytes(bytes(24 * 1024))
    status, lines = run([BIN / "deepmerge", *words], cwd=tmp_path, env=environment(PYTHONPATH=str(ROOT)))
    (folder / "filling").unlink()
    assert status == 1
    is_said_of(lines, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.slow
@pytest.mark.parametrize("size", ["50k", "400k", "800k"])
def test_a_training_on_a_disk_that_fills_up_ends_in_one_line(size, disk, sample, tmp_path):
    folder = disk(f"size={size}")
    # Without the check of the room before a run: it fills up later than that.
    code = "import sys; from deepmerge import cli; from deepmerge.jobs import run; run.SPARE = -10**9; cli.main()"
    env = environment(MLFLOW_TRACKING_URI=f"sqlite:///{tmp_path}/mlflow.db", PYTHONPATH=str(ROOT))
    status, lines = run([BIN / "python", "-c", code, "train", sample / "tiny.yaml"], cwd=folder, env=env)
    assert status == 1
    is_said_of(lines, folder)


@pytest.mark.slow
def test_a_database_on_a_full_disk_is_told_in_one_line(disk, sample, tmp_path):
    folder = disk("size=300k")
    env = environment(MLFLOW_TRACKING_URI=f"sqlite:///{folder}/mlflow.db", PYTHONPATH=str(ROOT))
    status, lines = run([BIN / "deepmerge", "models"], cwd=tmp_path, env=env)
    assert status == 1
    is_said_of(lines, "database")


def test_a_write_that_fails_names_the_file_and_leaves_the_older_one(disk):
    folder = disk("size=16k")
    (folder / "x.npy").write_bytes(b"older")
    for write in (
        lambda path: path.write_bytes(bytes(10**6)),
        lambda path: np.save(path, np.zeros(10**5)),
        lambda path: path.write_text("x" * 10**6),
    ):
        with pytest.raises(OSError, match="No space left on device") as failed, files.replacing(folder / "x.npy") as a:
            write(a)
        assert failed.value.errno == errno.ENOSPC
        assert str(folder) in files.explained(failed.value)
        assert [path.name for path in folder.iterdir()] == ["x.npy"]
        assert (folder / "x.npy").read_bytes() == b"older"


def test_a_disk_that_can_only_be_read_is_refused_before_the_work_and_told_during_it(disk):
    folder = disk("size=16k")
    disk("remount,ro")
    with pytest.raises(files.InputError, match="Read-only file system"):
        files.require_writable(folder)
    with pytest.raises(OSError, match="Read-only") as failed, files.replacing(folder / "x.csv"):
        pass
    assert files.explained(failed.value).startswith(f"{folder}: Read-only file system")


# Without a small disk


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_told_with_its_folder_and_what_mends_it(tmp_path, number):
    with pytest.raises(OSError) as failed, files.replacing(tmp_path / "new" / "x.csv"):  # noqa: PT011
        raise OSError(number, os.strerror(number))
    told = files.explained(failed.value)
    assert told.startswith(f"{os.strerror(number)} for {tmp_path / 'new'}")
    assert "make room" in told
    assert "-part-" not in told
    assert list((tmp_path / "new").iterdir()) == []


def test_of_a_copy_the_place_is_told_that_it_goes_to():
    error = OSError(errno.ENOSPC, "No space left on device", "/from/a.png", None, "/to/a.png")
    assert "for /to" in files.explained(error)


def test_other_errors_are_not_taken_for_those_of_a_disk():
    assert files.explained(ConnectionRefusedError(errno.ECONNREFUSED, "refused")) is None
    assert files.explained(OSError("no number")) is None
