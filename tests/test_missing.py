import json

import keras
import numpy as np
import pandas as pd
import pytest
import yaml

from deepmerge import config
from deepmerge.data import dataset, splits
from deepmerge.data.missing import found, undefined
from deepmerge.errors import InputError
from deepmerge.model import devices, prediction, stretch, training
from deepmerge.model import network as networks

devices.prepare()

STRETCHES = ["asinh", "log", "standard", "raw"]


def missing(value=-99, fill=0):
    return config.Missing.model_validate({"value": value, "fill": fill})


def images(count=12):
    return np.random.default_rng(0).normal(3, 2, (count, 32, 32, 2)).astype(np.float32)


def with_gaps(given, value=-99.0, share=0.2):
    """The images with a sentinel in a share of their pixels; and where."""
    gaps = np.random.default_rng(1).random(given.shape) < share
    return np.where(gaps, np.float32(value), given), gaps


@pytest.mark.parametrize("dtype", ["f4", "f8", ">f4", "i2"])
def test_sentinels_are_found_in_pixels_of_any_type(dtype):
    pixels = np.array([1, -99, 3, -999], dtype)
    assert found(pixels, missing([-99, "nan"])).tolist() == [False, True, False, False]
    assert not found(pixels, None).any()
    np.testing.assert_array_equal(undefined(pixels, missing([-99, -999])), [1, np.nan, 3, np.nan])


def test_a_sentinel_with_decimals_is_found_as_float32_writes_it():
    assert found(np.array([-99.9], np.float32), missing(-99.9)).all()


@pytest.mark.parametrize("kind", STRETCHES)
def test_statistics_of_images_with_gaps_are_those_of_the_other_pixels(kind):
    given, gaps = with_gaps(images())
    found = stretch.measure(given, kind, missing())
    if kind in ("asinh", "log", "standard"):
        known = np.where(gaps, np.nan, images().astype(float))
        stretched = stretch.stretch(known, kind, found.softening)
        np.testing.assert_allclose(found.mean, np.nanmean(stretched, (0, 1, 2)), rtol=1e-9)
        np.testing.assert_allclose(found.variance, np.nanvar(stretched, (0, 1, 2)), rtol=1e-9)
    whole = stretch.measure(images(), kind)
    np.testing.assert_allclose(found.softening, whole.softening, rtol=0.1)
    stretch.require_standardised(given, kind, found)


def test_the_fill_is_a_number_or_the_median_of_each_filter():
    given, gaps = with_gaps(images() + np.array([0, 50], np.float32))
    median = stretch.measure(given, "asinh", missing(fill="median")).fill
    np.testing.assert_allclose(median, np.nanmedian(np.where(gaps, np.nan, given), (0, 1, 2)))
    np.testing.assert_array_equal(stretch.measure(given, "asinh", missing(fill=2.5)).fill, [2.5, 2.5])


@pytest.mark.parametrize("kind", STRETCHES)
@pytest.mark.parametrize("sentinel", [-99.0, np.nan, -99.9])
@pytest.mark.parametrize("fill", [0.5, "median"])
def test_the_saved_network_takes_a_sentinel_for_the_fill(tmp_path, kind, sentinel, fill):
    given, gaps = with_gaps(images(), sentinel)
    pixels = stretch.measure(given, kind, missing([float(sentinel), -999], fill))
    networks.build((32, 32, 2), config.Network(stretch=kind, symmetry="none"), pixels).save(tmp_path / "m.keras")
    served = keras.models.load_model(tmp_path / "m.keras", compile=False, safe_mode=True)
    by_hand = np.where(gaps, pixels.fill.astype(np.float32), given)
    answers = np.asarray(served(given, training=False))
    assert np.isfinite(answers).all()
    np.testing.assert_array_equal(answers, np.asarray(served(by_hand, training=False)))
    [fast] = prediction.predict_pieces(prediction.load(tmp_path / "m.keras"), [np.moveaxis(given, -1, 1)])
    np.testing.assert_allclose(fast, answers[:, 0], atol=1e-6)


def test_pixels_that_are_undefined_otherwise_still_have_no_probability(tmp_path):
    given, _ = with_gaps(images())
    network = networks.build((32, 32, 2), config.Network(symmetry="none"), stretch.measure(given, "asinh", missing()))
    given[3, 0, 0, 0] = np.nan
    assert np.flatnonzero(np.isnan(np.asarray(network(given, training=False))[:, 0])).tolist() == [3]


def test_a_filter_without_any_pixel_is_refused():
    given = images()
    given[..., 1] = -99
    with pytest.raises(InputError, match=r"filter 2, .*be measured somewhere"):
        stretch.measure(given, "asinh", missing())


def made(sentinel=None, said=None):
    """A data set of 40 galaxies, and its split."""
    pixels = np.moveaxis(images(40), -1, 1).copy()
    if sentinel is not None:
        pixels[:, :, :4] = sentinel
    labels = np.arange(40) % 2
    data = dataset.Dataset.from_arrays(pixels, labels, galaxy_id=np.arange(40))
    data = dataset.Dataset(**{**{name: getattr(data, name) for name in data.__dataclass_fields__}, "missing": said})
    return data, splits.make(data, config.Split())


@pytest.mark.parametrize("sentinel", [-99, np.nan])
def test_training_learns_from_images_with_gaps_as_from_filled_ones(sentinel):
    quick = config.Training(epochs=1, augment=False)
    data, split = made(sentinel, missing(float(sentinel), 3))
    dataset.require_finite(data)
    trained = training.train(data, split, config.Network(symmetry="none"), quick)
    assert np.isfinite(trained.history["loss"]).all()
    scores = prediction.predict(trained.model, data.images, split.test.rows, split.test.transforms)
    filled = np.where(np.isnan(data.images) | (data.images == -99), np.float32(3), data.images)
    again = prediction.predict(trained.model, filled, split.test.rows, split.test.transforms)
    np.testing.assert_array_equal(scores, again)


def test_nan_is_refused_where_nobody_said_what_it_stands_for():
    with pytest.raises(InputError, match=r"data\.missing: \{value: nan, fill: 0\}"):
        dataset.require_finite(made(np.nan)[0])


# In an experiment file


@pytest.fixture
def load(tmp_path):
    def load(said):
        data = {"images": "X.npy", "labels": "y.npy"}
        text = yaml.safe_dump({"data": data}).replace("data:", f"data:\n  missing: {said}")
        (tmp_path / "mine.yaml").write_text(text)
        return config.load(str(tmp_path / "mine.yaml"))

    return load


@pytest.mark.parametrize(
    ("said", "value", "fill"),
    [
        ("{value: -99}", (-99.0,), 0.0),
        ("{value: [-99, nan], fill: median}", (-99.0, "nan"), "median"),
        ("{value: .nan, fill: 0.5}", ("nan",), 0.5),
    ],
)
def test_an_experiment_file_says_what_a_sentinel_is_and_its_record_too(load, tmp_path, said, value, fill):
    experiment = load(said)
    assert (experiment.data.missing.value, experiment.data.missing.fill) == (value, fill)
    assert experiment.data.images == tmp_path / "X.npy"
    record = json.loads(json.dumps(experiment.model_dump(mode="json"), allow_nan=False))
    assert config.from_record(record, "a record").data == experiment.data


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("{value: none}", r"'data\.missing\.value' should be a number, nan, or a list of such, got 'none'"),
        ("{value: []}", r"'data\.missing\.value' should be a number, nan, or a list"),
        ("{value: true}", r"'data\.missing\.value' should be a number"),
        ("{value: .inf}", r"'data\.missing\.value' should be a number"),
        ("{value: -99, fill: mean}", r"'data\.missing\.fill' should be a number or median, got 'mean'"),
        ("{fill: 0}", r"'data\.missing\.value' is missing"),
        ("{value: -99, with: 0}", r"unknown key 'data\.missing\.with'; expected one of: value, fill"),
    ],
)
def test_what_is_no_sentinel_is_refused(load, said, message):
    with pytest.raises(InputError, match=message):
        load(said)


def test_the_fingerprint_of_the_data_does_not_change_with_what_is_missing_nor_with_positions():
    plain, _ = made()
    said, _ = made(said=missing())
    table = pd.DataFrame({"galaxy_id": np.arange(40), "ra": 10.0, "dec": np.linspace(-1, 1, 40)})
    placed = dataset.Dataset.from_arrays(plain.images, plain.labels, catalogue=table)
    assert plain.fingerprint == said.fingerprint == placed.fingerprint
