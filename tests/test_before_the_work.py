from pathlib import Path

import pytest
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


@pytest.mark.parametrize("command", ["train", "evaluate", "gradcam", "promote", "compare"])
def test_commands_refuse_an_out_that_cannot_be_written_to_before_they_read_anything(command):
    done = CliRunner().invoke(app, [command, "no-such-data", "--out", "/proc/nowhere"])
    assert isinstance(done.exception, InputError)
    assert "/proc/nowhere" in str(done.exception)


def test_a_disk_without_room_is_told_with_what_is_missing(tmp_path):
    files.require_room(tmp_path, 1, "maps")
    with pytest.raises(Failed, match=rf"{tmp_path} should have 1000000000000 MB left for maps"):
        files.require_room(tmp_path, 10**18, "maps")
    assert list(Path(tmp_path).iterdir()) == []
