import shutil
import subprocess
import sys

import pytest

from deepmerge.data import versions
from deepmerge.errors import InputError

pytestmark = pytest.mark.slow  # DVC itself is asked


def run(folder, *words):
    subprocess.run(words, cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A git and DVC project with a versioned folder of two files."""
    folder = tmp_path_factory.mktemp("project")
    dvc = (sys.executable, "-m", "dvc")
    (folder / "data").mkdir()
    for name in ("a.npy", "b.npy"):
        (folder / "data" / name).write_text(f"content of {name}")
    run(folder, "git", "init", "-q")
    run(folder, *dvc, "init", "-q")
    run(folder, *dvc, "add", "-q", "data")
    return folder


def test_a_changed_a_new_and_a_lost_file_are_named(project):
    data = project / "data"
    assert versions.changes(data) == []
    before = (data / "a.npy").read_text()
    (data / "a.npy").write_text(before + "!")
    (data / "new.npy").write_text("n")
    assert versions.changes(data) == ["added: data/new.npy", "modified: data/a.npy"]
    # The same bytes again are the same data, whatever the dates of the files.
    (data / "a.npy").write_text(before)
    (data / "new.npy").unlink()
    assert versions.changes(data) == []


@pytest.mark.parametrize("lost", [False, True])
def test_where_the_cache_is_empty_the_folder_is_compared_as_a_whole(project, tmp_path, lost):
    """As in a fresh clone, where data were made or copied anew."""
    run(tmp_path, "git", "clone", "-q", project, "clone")
    clone = tmp_path / "clone"
    shutil.copytree(project / ".dvc", clone / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp"), dirs_exist_ok=True)
    shutil.copy(project / "data.dvc", clone)
    shutil.copytree(project / "data", clone / "data")
    assert versions.changes(clone / "data") == []
    (clone / "data" / "a.npy").unlink() if lost else (clone / "data" / "new.npy").write_text("n")
    [told] = versions.changes(clone / "data")
    assert f"has {1 if lost else 3} files" in told
    assert "recorded, of 2 files, 32 bytes" in told
    assert "nothing tells which differ. 'dvc pull data.dvc'" in told
    assert "'dvc add data'" in told


def test_a_folder_without_a_dvc_file_is_not_compared(tmp_path):
    assert versions.changes(tmp_path) is None


def test_what_dvc_cannot_answer_is_passed_on(tmp_path):
    (tmp_path / "data.dvc").write_text("outs: [")
    (tmp_path / "data").mkdir()
    with pytest.raises(InputError, match="DVC should say whether"):
        versions.changes(tmp_path / "data")
