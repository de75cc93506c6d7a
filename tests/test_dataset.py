import json

import numpy as np
import pandas as pd
import pytest

from deepmerge import config
from deepmerge.data import check, dataset, release
from deepmerge.errors import InputError


@pytest.fixture
def make(tmp_path):
    """Write arrays and open them as a data set; keyword arguments replace the arrays."""

    def make(images=None, labels=None, catalogue=None, masks=None, source=None):
        rng = np.random.default_rng(3)
        images = rng.normal(size=(6, 2, 32, 32)).astype(np.float32) if images is None else images
        labels = np.array([1, 1, 0, 0, 0, 0]) if labels is None else labels
        np.save(tmp_path / "a_X.npy", images)
        np.save(tmp_path / "a_y.npy", labels)
        files = {"images": tmp_path / "a_X.npy", "labels": tmp_path / "a_y.npy"}
        if catalogue is not None:
            pd.DataFrame(catalogue).to_csv(tmp_path / "a.csv", index=False)
            files["catalogue"] = tmp_path / "a.csv"
        if masks is not None:
            np.save(tmp_path / "m.npy", masks)
            files["masks"] = tmp_path / "m.npy"
        if source is not None:
            (tmp_path / "a_source.json").write_text(source if isinstance(source, str) else json.dumps(source))
        return dataset.read(config.Data(**files), "a")

    return make


IDS = {"galaxy_id": [7, 7, 5, 5, 9, 9]}


def test_views_copies_and_stages_are_filled_in(make):
    found = make(catalogue=IDS)
    assert found.galaxies.tolist() == [1, 1, 0, 0, 2, 2]
    assert found.catalogue["view"].tolist() == [0, 1] * 3
    assert found.catalogue["copy"].tolist() == [0] * 6
    assert found.catalogue["stage"].tolist() == ["merger"] * 2 + ["non-merger"] * 4
    assert found.data_source == "own"
    assert found.filters == ("filter 1", "filter 2")


def test_galaxy_ids_may_be_names(make):
    assert make(catalogue={"galaxy_id": ["NGC 1", "NGC 1", "M 31", "M 31", "M 33", "M 33"]}).galaxies.tolist() == [
        2,
        2,
        0,
        0,
        1,
        1,
    ]


def test_the_sidecar_gives_provenance_filters_catalogue_and_masks(make, tmp_path):
    pd.DataFrame(IDS).to_csv(tmp_path / "c.csv", index=False)
    np.save(tmp_path / "masks.npy", np.zeros((6, 32, 32), np.uint8))
    found = make(source={"data_source": "simulated", "filters": ["B", "R"], "catalogue": "c.csv", "masks": "masks.npy"})
    assert (found.data_source, found.filters) == ("simulated", ("B", "R"))
    assert found.catalogue["galaxy_id"].tolist() == IDS["galaxy_id"]
    assert found.masks.shape == (6, 32, 32)


def test_without_a_catalogue_each_image_is_a_galaxy_and_that_is_said(make, caplog):
    assert make().galaxies.tolist() == list(range(6))
    assert "each of the 6 images counts as a galaxy of its own" in caplog.text


def test_the_released_row_count_gives_the_released_galaxies(tmp_path):
    # Sparse on disk: the true shape without its 700 MB.
    np.lib.format.open_memmap(tmp_path / "r_X.npy", "w+", np.float32, (release.ROWS, 2, 75, 75)).flush()
    stages = release.layout_catalogue()["stage"]
    np.save(tmp_path / "r_y.npy", (stages != "non-merger").to_numpy().astype(np.uint8))
    found = dataset.read(config.Data(images=tmp_path / "r_X.npy", labels=tmp_path / "r_y.npy"), "r")
    assert found.galaxies.max() + 1 == release.MERGERS + release.NON_MERGERS
    assert isinstance(found.images, np.memmap)


@pytest.mark.parametrize("dtype", ["uint8", ">f4", "float64", "int16", "float16"])
def test_any_numeric_type_is_read(make, dtype):
    images = np.arange(6 * 32 * 32).reshape(6, 1, 32, 32) % 200
    assert make(images=images.astype(dtype)).images.dtype == np.dtype(dtype)


def test_the_fingerprint_changes_with_every_kind_of_content_and_repeats(make):
    images = np.random.default_rng(0).normal(size=(6, 2, 32, 32)).astype(np.float32)
    same = [make(images=images, catalogue=IDS).fingerprint for _ in range(2)]
    last_pixel = images.copy()
    last_pixel[-1, -1, -1, -1] += 1
    others = [
        make(images=last_pixel, catalogue=IDS).fingerprint,
        make(images=images, labels=np.array([1, 1, 1, 1, 0, 0]), catalogue=IDS).fingerprint,
        make(images=images, catalogue={"galaxy_id": [7, 7, 5, 5, 9, 8]}).fingerprint,
        make(images=images, catalogue={**IDS, "copy": [0, 1, 0, 1, 0, 1]}).fingerprint,
    ]
    assert same[0] == same[1]
    assert len({same[0], *others}) == 5
    assert len(same[0]) <= 36  # the longest digest that MLflow takes


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"images": np.zeros((6, 32, 32))}, r"should have shape \(N, filters, H, W\).*got \(6, 32, 32\)"),
        ({"images": np.zeros((6, 2, 31, 40))}, r"at least 32, got \(6, 2, 31, 40\)"),
        ({"images": np.zeros((6, 2, 32, 32), complex)}, "numeric npy array, got complex128"),
        ({"images": np.array([["text"]])}, "numeric npy array"),
        ({"images": np.array([{}], dtype=object)}, "plain numeric npy file"),
        ({"labels": np.array([1, 0])}, r"shape \(6,\), one for each image, got \(2,\)"),
        ({"labels": np.array([1, 1, 0, 0, 0, 2])}, r"both 0 .* got \[0, 1, 2\]"),
        ({"labels": np.zeros(6)}, r"both 0 .* got \[0.0\]"),
        ({"catalogue": {"galaxy_id": [1, 2]}}, "6 rows, one for each image, got 2 rows"),
        ({"catalogue": {"id": range(6)}}, "column galaxy_id"),
        ({"catalogue": {"galaxy_id": [1, 2, 3, 4, 5, np.nan]}}, "complete in galaxy_id, got nothing in data row 5"),
        ({"catalogue": {**IDS, "stage": ["merging"] * 6}}, "one of past, future, merger, non-merger, got 'merging'"),
        ({"catalogue": {**IDS, "stage": ["past"] * 6}}, r"row 2 .* stage 'past' and label 0 \(4 such rows\)"),
        ({"masks": np.zeros((6, 30, 30))}, r"masks in .* shape \(6, 32, 32\)"),
        ({"source": "not json"}, "should be a JSON object"),
    ],
)  # fmt: skip
def test_wrong_input_is_explained(make, change, said):
    with pytest.raises(InputError, match=said):
        make(**change)


def test_missing_files_name_the_way_to_get_them(tmp_path):
    files = config.Data(images=tmp_path / "no.npy", labels=tmp_path / "no_y.npy")
    with pytest.raises(InputError, match="there is no file; 'deepmerge data simulate' makes the demo sample"):
        dataset.read(files, "no")


def test_chunks_cover_every_row_once():
    images = np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), (10_001, 2, 75, 75), (0, 0, 0, 0))
    rows = np.concatenate([np.arange(len(images))[chunk] for chunk in dataset.chunks(images)])
    assert (rows == np.arange(10_001)).all()
    assert len(list(dataset.chunks(images))) > 5


def test_check_agrees_with_numpy(make):
    images = np.random.default_rng(1).normal(3, 2, (6, 2, 32, 32)).astype(np.float32)
    images[4] = 5
    report = check.check(make(images=images, catalogue=IDS))
    assert report.problems == []
    assert report.facts["constant images"] == "1"
    assert report.facts["galaxies"] == "3 (1 merger, 2 non-merger)"
    assert report.facts["views"] == "3 galaxies with 2"
    pixels = images[:, 1]
    mean, deviation, low, high = (f"{value:.4g}" for value in (pixels.mean(), pixels.std(), pixels.min(), pixels.max()))
    said = f"mean {mean}, standard deviation {deviation}, from {low} to {high}"
    assert report.facts["pixels in filter 2"] == said


def test_check_finds_what_spoils_training(make):
    images = np.random.default_rng(1).normal(size=(6, 2, 32, 32)).astype(np.float32)
    images[3, 0, 5, 5] = np.nan
    images[4] = images[0]
    report = check.check(make(images=images, catalogue={"galaxy_id": [1, 1, 2, 2, 3, 3]}))
    assert report.problems == [
        "1 images hold NaN or infinite pixels, the first in row 3",
        "1 images appear in both classes, the first in rows 0 and 4",
        "1 images appear under several galaxy ids, so that the split by galaxy would leak; the first in rows 0 and 4",
    ]


def test_pixels_that_are_not_finite_are_refused_for_training(make):
    images = np.zeros((6, 2, 32, 32), np.float32)
    dataset.require_finite(make(images=images))
    images[4, 1, 0, 0] = np.inf
    with pytest.raises(InputError, match="got NaN or infinite pixels in row 4"):
        dataset.require_finite(make(images=images))


def test_check_finds_galaxies_of_both_classes(make):
    report = check.check(make(catalogue={"galaxy_id": [1, 2, 2, 3, 4, 5]}))
    assert report.problems == ["1 galaxies have images of both classes"]
