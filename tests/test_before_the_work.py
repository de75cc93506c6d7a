from pathlib import Path
from unittest import mock

import pytest
import typer
from typer.testing import CliRunner

from deepmerge import files
from deepmerge.cli.commands import app
from deepmerge.errors import Failed, InputError


@pytest.mark.parametrize("name", ["there", "to/be/made"])
def test_a_folder_that_can_be_written_to_is_left_as_it_was(tmp_path, name):
    (tmp_path / "there").mkdir()
    files.require_writable(tmp_path / name)
    assert list(tmp_path.rglob("*")) == [tmp_path / "there"]


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match="should be a folder that can be written to"):
            files.require_writable(place)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_disk_without_room_is_told_with_what_is_missing(tmp_path):
    files.require_room(tmp_path, 1, "maps")
    with pytest.raises(Failed, match=rf"{tmp_path} should have 1000000000000 MB left for maps"):
        files.require_room(tmp_path, 10**18, "maps")
    assert list(Path(tmp_path).iterdir()) == []


# Every command that writes where it is told to, and the option that tells it.
STUDIES = ["shortcuts", "leakage", "recipes", "baselines", "selection", "probabilities", "transfer"]
JOBS = ["train", "tune", "evaluate", "gradcam", "promote", "compare", "predict", "gallery", "report", "embed"]
OPTIONS = {
    **dict.fromkeys([*JOBS, "data split", "data cutouts", *(f"study {name}" for name in STUDIES)], "--out"),
    **dict.fromkeys(["data simulate", "data fetch", "data import"], "--folder"),
}
ARGUMENTS = {
    "predict": ["no-such-images.npy", "--model", "no-such-model"],
    "data simulate": [],
    "data fetch": ["pristine"],
    "data cutouts": ["no-such.csv", "no-such.fits"],
    "study transfer": ["no-such-data", "no-such-data"],
}
FILES = {"gallery": "page.html", "report": "page.html", "embed": "t.parquet", "predict": "s.csv", "data split": "s.csv"}


def commands(app, prefix=""):
    """The names of all commands, and what each takes."""
    for name, command in typer.main.get_command(app).commands.items():
        inner = getattr(command, "commands", {"": command})
        yield from ((f"{prefix}{name} {below}".strip(), each) for below, each in inner.items())


def test_every_command_that_writes_where_it_is_told_to_is_tried_below():
    found = {
        name: option
        for name, command in commands(app)
        for option in ("--out", "--folder")
        if any(option in each.opts for each in command.params)
    }
    assert found == OPTIONS


@pytest.mark.parametrize("name", OPTIONS)
def test_a_place_that_cannot_be_written_to_is_refused_before_anything_is_read(name, tmp_path):
    (tmp_path / "file").write_text("mine")
    place = tmp_path / "file" / "below" / FILES.get(name, "")
    words = [*name.split(), *ARGUMENTS.get(name, ["no-such-data"]), OPTIONS[name], str(place)]
    with (
        mock.patch("deepmerge.config.load", side_effect=AssertionError("read before the place was tried")),
        pytest.raises(InputError, match=r"should be a folder that can be written to, but .*: Not a directory"),
    ):
        CliRunner().invoke(app, words, catch_exceptions=False)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("name", FILES)
def test_a_folder_in_the_place_of_the_file_is_refused(name, tmp_path):
    (tmp_path / FILES[name]).mkdir()
    words = [*name.split(), *ARGUMENTS.get(name, ["no-such-data"]), "--out", str(tmp_path / FILES[name])]
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, InputError)
    assert f"{tmp_path / FILES[name]} should be a file" in str(done.exception)


def test_markdown_that_cannot_be_renewed_is_refused_before_the_work(tmp_path):
    with mock.patch("tempfile.TemporaryFile", side_effect=PermissionError(13, "Permission denied")):
        done = CliRunner().invoke(app, ["report", "no-such-data", "--readme", __file__])
    assert "Permission denied" in str(done.exception)


def test_a_name_that_is_too_long_is_refused_as_a_place(tmp_path):
    with pytest.raises(InputError, match="File name too long"):
        files.require_writable(tmp_path / ("a" * 300) / "b")
