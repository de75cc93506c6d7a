import json

import numpy as np
import pandas as pd
import pytest

from deepmerge import config
from deepmerge.data import check, dataset
from deepmerge.data.released import layout
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
    np.lib.format.open_memmap(tmp_path / "r_X.npy", "w+", np.float32, (layout.ROWS, 2, 75, 75)).flush()
    stages = layout.layout_catalogue()["stage"]
    np.save(tmp_path / "r_y.npy", (stages != "non-merger").to_numpy().astype(np.uint8))
    found = dataset.read(config.Data(images=tmp_path / "r_X.npy", labels=tmp_path / "r_y.npy"), "r")
    assert found.galaxies.max() + 1 == layout.MERGERS + layout.NON_MERGERS
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
    assert [chunk.stop for chunk in dataset.chunks(images)][-1] == len(images)  # bars count by it


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


SIDECAR = {"data_source": "simulated", "filters": ["B", "R"]}


def test_what_a_sidecar_leaves_open_is_as_without_one(make):
    found = make(source={"filters": None, "catalogue": None, "masks": None, "settings": None, "doi": None})
    assert (found.data_source, found.filters, found.masks) == ("own", ("filter 1", "filter 2"), None)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"filters": ["B"]}, r"filters in .*a_source.json should be the 2 of .*a_X.npy, got 1 \(B\)"),
        ({"filters": ["B", "R", "I"]}, r"should be the 2 of .* got 3 \(B, R, I\); name those of the array"),
        ({"filters": []}, "filters in .* a list of different names, got \\[\\]"),
        ({"filters": "BR"}, "a list of different names, got 'BR'"),
        ({"filters": {"B": 1, "R": 2}}, "a list of different names"),
        ({"filters": ["B", 814]}, "a list of different names"),
        ({"filters": ["B", "B"]}, "a list of different names"),
        ({"filters": ["B", " "]}, "a list of different names"),
        ({"data_source": "Illustris"}, "data_source in .* one of simulated, released, own, got 'Illustris'"),
        ({"data_source": None}, "one of simulated, released, own, got None"),
        ({"data_source": ["own"]}, "one of simulated, released, own"),
        ({"catalogue": 3}, "catalogue in .* should be the name of a file, or null, got 3"),
        ({"masks": ["m.npy"]}, "masks in .* should be the name of a file, or null"),
        ({"settings": "none"}, "settings in .* should be an object, or null"),
        ({"catalogue": "gone.csv"}, "catalogue expected at .*gone.csv, where there is no file; .*source.json names it"),
        ({"catalogue": "."}, "catalogue expected at .*, where there is no file"),
        ({"masks": "gone.npy"}, "masks expected at .*gone.npy, where there is no file; .*a_source.json names it"),
    ],
)  # fmt: skip
def test_a_sidecar_of_other_images_is_explained_before_anything_is_done(make, change, said):
    with pytest.raises(InputError, match=said) as refused:
        make(source={**SIDECAR, **change})
    assert "\n" not in str(refused.value)


def test_what_the_experiment_names_goes_before_the_sidecar(make):
    found = make(source={**SIDECAR, "catalogue": "gone.csv"}, catalogue=IDS)
    assert found.catalogue["galaxy_id"].tolist() == IDS["galaxy_id"]


@pytest.mark.parametrize("text", ["[]", '[["filters", ["B", "R"]]]', "3", "null", "[" * 100_000, "\x00"])
def test_a_sidecar_that_is_no_object_is_refused(make, text):
    with pytest.raises(InputError, match="should be a JSON object"):
        make(source=text)


@pytest.mark.parametrize("dtype", [bool, float, np.int64, ">f4", np.uint16])
def test_labels_of_any_numeric_type_are_read(make, dtype):
    found = make(labels=np.array([1, 1, 0, 0, 0, 0], dtype))
    assert (found.labels.dtype, found.labels.tolist()) == (np.uint8, [1, 1, 0, 0, 0, 0])


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -1, 0.5])
def test_labels_that_are_no_class_are_refused(make, wrong):
    with pytest.raises(InputError, match=r"both 0 \(non-merger\) and 1 \(merger\), nothing else"):
        make(labels=np.array([1, 1, 0, 0, 0, wrong]))


def test_masks_are_not_unknown_in_places(make):
    masks = np.zeros((6, 32, 32))
    assert make(masks=masks).masks.shape == masks.shape
    masks[5, 3, 3] = np.nan
    with pytest.raises(InputError, match=r"masks in .* got NaN or infinity"):
        make(masks=masks)


def test_a_data_set_knows_whether_its_galaxy_ids_say_more_than_row_numbers(make):
    assert not make().catalogued
    assert make(catalogue=IDS).catalogued


def test_the_fingerprint_is_that_of_earlier_versions(make):
    """Runs and studies are found by it: it stays for all that could be read before."""
    images, labels = np.zeros((6, 1, 32, 32), np.float32), np.array([1, 1, 0, 0, 0, 0])
    catalogues = {
        "60c79aeeecf2761ae7cc2b73ed059504": {"galaxy_id": [7, 7, -5, -5, 9, 9]},
        "853e1f533932847cec484f6f0bb5a046": {
            "galaxy_id": ["NGC 1", "NGC 1", "12", "12", "M 33", "M 33"],
            "view": ["x", "y"] * 3,
        },
        "68c0f605025c12cfd4a83324fde32452": {
            "galaxy_id": [2**63 - 1, 2**63 - 1, 5, 5, 9, 9],
            "copy": [0, 1] * 3,
            "view": [0.5, 1.5] * 3,
        },
        "b38b4596926589d35a07e40839fddf57": {
            **IDS,
            "copy": [False, True] * 3,
            "stage": ["past"] * 2 + ["non-merger"] * 4,
            "m20": [-1.5] * 6,
        },
    }
    for fingerprint, catalogue in catalogues.items():
        assert make(images=images, labels=labels, catalogue=catalogue).fingerprint == fingerprint
