import numpy as np
import pandas as pd
import pytest

from deepmerge.data import check, dataset
from deepmerge.data.turns import transform

LABELS = np.array([1, 1, 0, 0, 0, 0], np.uint8)


def data(images, galaxy_id=None):
    catalogue = {
        "galaxy_id": range(len(images)) if galaxy_id is None else galaxy_id,
        "view": 0,
        "copy": 0,
        "stage": np.where(LABELS == 1, "merger", "non-merger"),
    }
    return dataset.Dataset("mine", images, LABELS, pd.DataFrame(catalogue), None, "own", ("a", "b"))


def distinct(dtype="f4"):
    return np.random.default_rng(1).normal(0, 50, (6, 2, 32, 32)).astype(dtype)


def said(count, rows):
    return (
        f"{count} images appear under several galaxy ids, so that the split by galaxy would leak; "
        f"the first in rows {rows}"
    )


@pytest.mark.parametrize("dtype", ["f4", ">f8", "i2"])
@pytest.mark.parametrize(
    ("code", "how"),
    [(0, ""), (1, ", where it is turned by 90°"), (4, ", where it is flipped upside down")],
)
def test_copies_under_other_ids_are_counted_and_the_first_is_named(dtype, code, how):
    images = distinct(dtype)
    images[4], images[5] = transform(images[2], code), images[3]
    assert check.check(data(images)).problems == [said(2, f"2 and 4{how}")]
    assert check.check(data(images, [0, 1, 2, 3, 2, 3])).problems == []


def test_copies_in_both_classes_are_named():
    images = distinct()
    images[3] = images[0][:, :, ::-1]
    assert check.check(data(images)).problems == [
        "1 images appear in both classes, the first in rows 0 and 3, where it is flipped left to right",
        said(1, "0 and 3, where it is flipped left to right"),
    ]


def test_a_copy_of_the_same_galaxy_is_passed_over_for_one_of_another():
    images = distinct()
    images[3], images[4] = images[2, :, ::-1], np.rot90(images[2], 1, (1, 2))
    assert check.check(data(images, [0, 1, 2, 2, 4, 5])).problems == [said(1, "2 and 4, where it is turned by 90°")]


def test_constant_images_are_counted_but_repeat_nothing():
    images = distinct()
    images[[0, 3, 4]] = 0
    report = check.check(data(images))
    assert report.problems == []
    assert report.facts["constant images"] == "3"


def test_copies_in_pieces_of_the_file_are_found(monkeypatch):
    monkeypatch.setattr(dataset, "CHUNK_BYTES", 1)
    images = distinct()
    images[5] = np.rot90(images[2], 2, (1, 2))
    assert check.check(data(images)).problems == [said(1, "2 and 5, where it is turned by 180°")]
