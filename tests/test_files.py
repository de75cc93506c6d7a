import logging

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from deepmerge import config
from deepmerge.data.formats import files
from deepmerge.errors import InputError


@pytest.fixture
def make(tmp_path):
    """Write pictures of these names and a table; what `listed` says of it."""

    def make(there, named, **settings):
        (tmp_path / "images").mkdir(exist_ok=True)
        for name in there:
            Image.fromarray(np.zeros((40, 40), np.uint8)).save(tmp_path / "images" / name)
        table = {"id": range(len(named)), "label": 1, "file": [name and f"images/{name}" for name in named]}
        pd.DataFrame(table).to_csv(tmp_path / "t.csv", index=False)
        path = tmp_path / "t.csv"
        return files.listed(path, config.Data(images=path, **settings))

    return make


def test_rows_without_a_file_files_in_several_rows_and_without_a_row_are_told_together(make):
    with pytest.raises(InputError) as refusal:
        make(["a.png", "b.png", "x.png"], ["a.png", "no.png", "b.png", "../images/a.png", ""])
    said = str(refusal.value)
    assert "2 files not there (data row 1: images/no.png; data row 4: nothing)" in said
    assert "1 file named more than once (images/a.png in data rows 0 and 3)" in said
    assert "1 image without a row (images/x.png)" in said


def test_files_without_a_row_alone_are_a_warning(make, caplog):
    with caplog.at_level(logging.WARNING):
        found = make(["a.png", "b.png", "x.png"], ["b.png", "a.png"])
    assert found.names == [("images/b.png",), ("images/a.png",)]
    assert "1 image without a row (images/x.png), left out" in caplog.text


def test_ten_of_many_are_told(make):
    with pytest.raises(InputError, match=r"30 files not there \(data row 0: images/0.png; .*data row 9: [^;]*; …\)"):
        make([], [f"{number}.png" for number in range(30)])


def test_a_column_that_is_asked_for_has_to_be_there(make):
    with pytest.raises(InputError, match=r"a column objid, as columns.id says, got id, label, file"):
        make(["a.png"], ["a.png"], columns=config.Columns(id="objid"))
    with pytest.raises(InputError, match="a column stamp"):
        make(["a.png"], ["a.png"], columns=config.Columns(file="stamp"))


def test_images_beside_class_folders_are_refused(tmp_path):
    (tmp_path / "merger").mkdir()
    for name in ("a.png", "merger/b.png"):
        Image.fromarray(np.zeros((40, 40), np.uint8)).save(tmp_path / name)
    with pytest.raises(InputError, match=r"got 1 images beside the folders \(a.png is the first\)"):
        files.listed(tmp_path, config.Data(images=tmp_path))


def test_two_catalogues_in_a_folder_are_refused(tmp_path):
    for name in ("catalogue.csv", "catalogue.ecsv"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"one catalogue, got catalogue.csv, catalogue.ecsv; name one"):
        files.listed(tmp_path, config.Data(images=tmp_path))
