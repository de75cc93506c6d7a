import json
import logging
import os
import re
import subprocess
import sys
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import keras
import mlflow
import numpy as np
import pandas as pd
import pytest
from astropy.table import Table
from mlflow.tracking import MlflowClient
from pyarrow import parquet

from deepmerge import config
from deepmerge.analysis import embedding
from deepmerge.data import splits
from deepmerge.data.dataset import Dataset
from deepmerge.data.formats.image_file import open_images
from deepmerge.errors import InputError
from deepmerge.jobs import judged, scoring, shards
from deepmerge.jobs import predict as job
from deepmerge.jobs.evaluate import evaluate
from deepmerge.jobs.predict import predict
from deepmerge.jobs.train import train
from deepmerge.model import devices, familiarity, prediction, stretch
from deepmerge.model import network as networks
from deepmerge.model.features import with_features
from deepmerge.tracking import plugin, runs

devices.prepare()

IMAGES = np.random.default_rng(0).normal(0, 3, (23, 2, 32, 32)).astype(np.float32)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A saved network that was not trained, and its file."""
    keras.utils.set_random_seed(0)
    pixels = stretch.measure(np.moveaxis(IMAGES, 1, -1), "standard")
    model = networks.build((32, 32, 2), config.Network(stretch="standard"), pixels)
    path = tmp_path_factory.mktemp("model") / "model.keras"
    model.save(path)
    return model, path


@pytest.fixture
def score(network, tmp_path, monkeypatch):
    """`predict` with that network in place of a run of MLflow."""
    run = SimpleNamespace(info=SimpleNamespace(run_id="a" * 32), data=SimpleNamespace(tags={"data_fingerprint": "f1"}))

    def no_file(run, path):
        raise InputError(f"run has no {path}")

    monkeypatch.setattr(runs, "read_json", no_file)
    monkeypatch.setattr(runs, "new_run", lambda name, tags: nullcontext("b" * 32))
    for function in ("log_parameters", "log_metrics"):
        monkeypatch.setattr(runs, function, lambda values: None)
    monkeypatch.setattr(runs, "find", lambda model, dataset: run)
    monkeypatch.setattr(runs, "model_file", lambda found: network[1])
    monkeypatch.setattr(runs, "model_metadata", lambda found: {})

    def call(
        images=IMAGES,
        out="scores.parquet",
        model="models:/any@champion",
        merger_fraction=None,
        catalogue=None,
        workers=None,
    ):
        path = tmp_path / "images.npy"
        if not path.exists() or not np.array_equal(np.load(path), images, equal_nan=True):
            np.save(path, images)
        return predict(path, model, tmp_path / out, merger_fraction, catalogue, workers)

    return call


def expected(network, images=IMAGES):
    return np.asarray(network[0](np.moveaxis(images, 1, -1), training=False))[:, 0]


def test_every_image_gets_a_row_with_its_probability(score, network, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "GROUP", 5)
    monkeypatch.setattr("deepmerge.model.prediction.BATCH_PIXELS", 3 * 32 * 32)
    results = score()
    table = pd.read_parquet(tmp_path / "scores.parquet")
    assert {name: str(kind) for name, kind in table.dtypes.items()} == {"row": "int64", "probability": "float64"}
    assert table["row"].tolist() == list(range(23))
    np.testing.assert_allclose(table["probability"], expected(network), atol=1e-6)
    assert parquet.ParquetFile(tmp_path / "scores.parquet").num_row_groups > 3
    assert results["images"] == 23
    assert results["mean_probability"] == pytest.approx(expected(network).mean())
    assert results["share_above_0.5"] == pytest.approx((expected(network) >= 0.5).mean())
    assert results["written"] == str(tmp_path / "scores.parquet")


@pytest.fixture
def embedded(network, monkeypatch, tmp_path):
    """Let the run hold the space of features in which IMAGES are those of the training."""
    model = with_features(network[0])
    found = prediction.outputs(model, IMAGES, np.arange(len(IMAGES)), np.zeros(len(IMAGES), np.uint8))
    space = embedding.fit(found[:, :-1])
    away = embedding.distances(space.points, space.points)
    replace(space, limit=1.001 * float(away.max())).save(tmp_path / "space.npz")
    monkeypatch.setattr(runs, "read_artifact", lambda run, path: tmp_path / "space.npz")
    return away / away.max() / 1.001


def test_the_table_says_how_far_images_are_from_the_training_images_to_the_network(score, network, embedded, tmp_path):
    images = np.concatenate([IMAGES, 50 * IMAGES + 300, np.full((1, 2, 32, 32), np.nan, np.float32)])
    results = score(images)
    table = pd.read_parquet(tmp_path / "scores.parquet")
    np.testing.assert_allclose(table["probability"], expected(network, images), atol=1e-6)
    np.testing.assert_allclose(table["anomaly"][:23], embedded, atol=1e-4)
    assert (table["anomaly"][23:46] > 1).all()
    assert np.isnan(table["anomaly"][46])
    assert results["share_distant"] == pytest.approx(0.5)
    assert results["domain_auc"] > 0.5


def test_images_that_can_be_told_from_those_of_the_training_are_warned_of(score, embedded, caplog):
    with caplog.at_level(logging.WARNING, logger="deepmerge"):
        score(50 * IMAGES + 300)
    assert "a classifier tells these images from the training images" in caplog.text
    assert "23 of 23 images (100%) are farther" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="deepmerge"):
        score(IMAGES)
    assert "classifier" not in caplog.text
    assert "farther" not in caplog.text


def test_csv_and_parquet_hold_the_same_numbers(score, tmp_path):
    score()
    score(out="scores.csv")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "scores.csv"), pd.read_parquet(tmp_path / "scores.parquet"))


def test_the_parquet_file_tells_which_model_it_was(score, tmp_path):
    score()
    told = parquet.read_schema(tmp_path / "scores.parquet").metadata
    assert told == {b"model": b"models:/any@champion", b"run_id": b"a" * 32, b"data_fingerprint": b"f1"}


def test_images_with_undefined_pixels_are_left_undefined_and_counted_in_one_warning(score, network, tmp_path, caplog):
    images = IMAGES.copy()
    images[[3, 20], 0, 5, 5] = np.nan, np.inf
    with caplog.at_level(logging.WARNING, logger="deepmerge"):
        results = score(images)
        score(images, "scores.csv")
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("deepmerge")]
    assert ours == ["2 of 23 images have NaN or infinite pixels; their probability is left undefined"] * 2
    table = pd.read_parquet(tmp_path / "scores.parquet")
    assert table["row"][table["probability"].isna()].tolist() == [3, 20]
    assert (tmp_path / "scores.csv").read_text().splitlines()[4] == "3,"
    known = np.delete(np.arange(23), [3, 20])
    np.testing.assert_allclose(table["probability"][known], expected(network)[known], atol=1e-6)
    assert results["mean_probability"] == pytest.approx(expected(network)[known].mean())


@pytest.mark.parametrize("out", ["scores.parquet", "scores.csv"])
def test_no_image_makes_a_table_without_rows(score, tmp_path, out):
    results = score(IMAGES[:0], out)
    table = (pd.read_csv if out.endswith("csv") else pd.read_parquet)(tmp_path / out)
    assert (len(table), list(table)) == (0, ["row", "probability"])
    assert results["images"] == 0
    assert np.isnan(results["mean_probability"])


@pytest.mark.parametrize("out", ["scores.npy", "file", "scores.parquet.gz", "folder.csv"])
def test_another_suffix_is_refused_before_anything_is_read(tmp_path, out):
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"should be a file ending in \.parquet or \.csv, or a folder, got "):
        predict(tmp_path / "nowhere.npy", "models:/none@champion", tmp_path / out)


def test_the_last_model_of_no_data_set_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"'last' is the newest of a data set.*deepmerge models"):
        predict(tmp_path / "nowhere.npy", "last", tmp_path / "scores.csv")


def test_images_channels_last_are_refused_and_an_older_table_stays(score, tmp_path):
    (tmp_path / "scores.csv").write_text("older\n")
    with pytest.raises(InputError, match=r"should have shape \(N, 2, 32, 32\).*channels last: save np\.moveaxis"):
        score(np.moveaxis(IMAGES, 1, -1), "scores.csv")
    assert (tmp_path / "scores.csv").read_text() == "older\n"


@pytest.mark.parametrize("out", ["scores.parquet", "scores.csv"])
def test_a_failure_half_way_leaves_the_older_table_and_nothing_else(score, tmp_path, monkeypatch, out):
    score(out=out)
    before = (tmp_path / out).read_bytes()
    monkeypatch.setattr(scoring, "GROUP", 5)
    monkeypatch.setattr("deepmerge.model.prediction.BATCH_PIXELS", 3 * 32 * 32)

    @contextmanager
    def stopping(path):
        with open_images(path) as file:

            def read(part):
                if part.start >= 15:
                    raise KeyboardInterrupt
                return file.read(part)

            yield replace(file, read=read)

    monkeypatch.setattr(job, "open_images", stopping)
    with pytest.raises(KeyboardInterrupt):
        score(out=out)
    assert (tmp_path / out).read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["images.npy", out])


def test_a_full_disk_is_named_and_leaves_nothing(score, tmp_path, monkeypatch):
    def full(self, table):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(parquet.ParquetWriter, "write_table", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*/?scores.*parquet'"):
        score()
    assert [path.name for path in tmp_path.iterdir()] == ["images.npy"]


# With ids and positions

SKY = pd.DataFrame({"galaxy_id": [f"G{i}" for i in range(23)], "ra": np.linspace(10, 11, 23), "dec": -5.0, "z": 1})


@pytest.mark.parametrize("out", ["scores.parquet", "scores.csv"])
@pytest.mark.parametrize("kind", ["csv", "parquet", "fits"])
def test_ids_and_positions_stand_beside_the_scores(score, tmp_path, monkeypatch, out, kind):
    monkeypatch.setattr(scoring, "GROUP", 5)
    monkeypatch.setattr("deepmerge.model.prediction.BATCH_PIXELS", 3 * 32 * 32)
    path = tmp_path / f"sky.{kind}"
    if kind == "fits":
        Table.from_pandas(SKY.astype({"galaxy_id": "O"})).write(path)
    else:
        getattr(SKY, f"to_{kind}")(path, index=False)
    score(out=out, catalogue=path)
    table = read(tmp_path / out)
    assert list(table) == ["row", "galaxy_id", "ra", "dec", "probability"]
    assert table["galaxy_id"].tolist() == SKY["galaxy_id"].tolist()
    np.testing.assert_array_equal(table[["ra", "dec"]], SKY[["ra", "dec"]])


def test_the_catalogue_noted_beside_the_images_is_taken(score, tmp_path):
    SKY[["galaxy_id"]].assign(galaxy_id=2**60 + np.arange(23)).to_csv(tmp_path / "ids.csv", index=False)
    (tmp_path / "images_source.json").write_text('{"catalogue": "ids.csv"}')
    score()
    table = pd.read_parquet(tmp_path / "scores.parquet")
    assert list(table) == ["row", "galaxy_id", "probability"]
    assert table["galaxy_id"].tolist() == [2**60 + i for i in range(23)]


@pytest.mark.parametrize("out", ["scores.parquet", "scores.csv"])
def test_galaxies_have_the_mean_of_their_images_in_a_table_of_their_own(score, network, tmp_path, monkeypatch, out):
    monkeypatch.setattr(scoring, "GROUP", 5)
    galaxies = [f"G{i % 5}" for i in range(22)] + ["single"]
    pd.DataFrame({"galaxy_id": galaxies}).to_csv(tmp_path / "ids.csv", index=False)
    images = IMAGES.copy()
    images[[0, 22]] = np.nan
    said = score(images, out=out, catalogue=tmp_path / "ids.csv")
    table = read(Path(said["written_galaxies"]))
    each = expected(network)
    means = {f"G{i}": np.mean([each[row] for row in range(1, 22) if row % 5 == i]) for i in range(5)}
    assert table["galaxy_id"].tolist() == [*means, "single"]
    assert table["images"].tolist() == [4, 5, 4, 4, 4, 0]
    np.testing.assert_allclose(table["probability"], [*means.values(), np.nan], rtol=1e-5)


def test_a_disk_that_is_full_for_the_table_of_galaxies_leaves_none(score, tmp_path, monkeypatch):
    pd.DataFrame({"galaxy_id": ["one", "other"] * 11 + ["other"]}).to_csv(tmp_path / "ids.csv", index=False)
    real = parquet.ParquetWriter.write_table

    def full(self, table):
        if "images" in table.column_names:
            raise OSError(28, "No space left on device")
        real(self, table)

    monkeypatch.setattr(parquet.ParquetWriter, "write_table", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*/?scores.*parquet'"):
        score(catalogue=tmp_path / "ids.csv")
    assert not list(tmp_path.glob("*_galaxies*"))


def test_where_each_galaxy_has_one_image_there_is_no_table_of_galaxies(score, tmp_path):
    SKY.to_csv(tmp_path / "ids.csv", index=False)
    assert "written_galaxies" not in score(catalogue=tmp_path / "ids.csv")
    assert not list(tmp_path.glob("*_galaxies*"))


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (SKY[:22], r"should have 23 rows, one for each image, got 22"),
        (SKY[["z"]], r"a column galaxy_id, .*got columns z"),
        (SKY.assign(dec=95), r"dec in .* should be degrees from -90 to 90, got '95'"),
    ],
)
def test_a_catalogue_of_other_images_is_refused(score, tmp_path, table, said):
    table.to_csv(tmp_path / "sky.csv", index=False)
    with pytest.raises(InputError, match=said):
        score(catalogue=tmp_path / "sky.csv")
    assert not (tmp_path / "scores.parquet").exists()


# Unlike the images of the training


@pytest.fixture
def knowing(monkeypatch):
    """Let the model know the images that it was trained on."""
    data = Dataset.from_arrays(IMAGES, np.arange(23) % 2, galaxy_id=np.arange(23))
    familiar = familiarity.measure(data, splits.make(data, config.Split(validation_fraction=0.2, test_fraction=0.2)))
    carried = json.loads(json.dumps({judged.PIXELS: familiar.metadata()}))
    monkeypatch.setattr(runs, "model_metadata", lambda run: carried)
    return carried


@pytest.mark.parametrize("out", ["scores.parquet", "scores.csv"])
def test_images_in_other_units_are_called_unlike_those_of_the_training(score, knowing, tmp_path, caplog, out):
    images = IMAGES.copy()
    images[5:15] *= 1000
    results = score(images, out)
    table = read(tmp_path / out)
    assert list(table) == ["row", "probability", "unlike"]
    assert (np.flatnonzero(table["unlike"] > familiarity.MARGIN) == np.arange(5, 15)).all()
    assert results["share_unlike_training"] == pytest.approx(10 / 23)
    [said] = [r.getMessage() for r in caplog.records if r.name.startswith("deepmerge")]
    assert re.match(r"10 of 23 images \(43%\) are unlike .* row \d+, where .* spread (1e\+03|999) × as far", said)


def test_images_like_those_of_the_training_cause_no_words(score, knowing, caplog):
    assert score(IMAGES)["share_unlike_training"] == 0
    assert not [record for record in caplog.records if record.name.startswith("deepmerge")]


def test_a_model_that_knows_nothing_of_its_training_images_says_nothing(score, caplog):
    assert "share_unlike_training" not in score(IMAGES * 1000)
    assert not [record for record in caplog.records if record.name.startswith("deepmerge")]


def test_undefined_images_are_neither_like_nor_unlike(score, knowing, tmp_path):
    images = IMAGES.copy()
    images[3] = np.nan
    score(images)
    assert pd.read_parquet(tmp_path / "scores.parquet")["unlike"].isna().tolist() == [i == 3 for i in range(23)]


def test_no_image_is_unlike_nothing(score, knowing, tmp_path):
    score(IMAGES[:0], "scores.parquet")
    assert list(pd.read_parquet(tmp_path / "scores.parquet")) == ["row", "probability", "unlike"]


# At a merger fraction


@pytest.fixture
def calibrated(monkeypatch):
    """Give the model a calibration of some temperature, and the prior that it was trained at."""

    def calibrate(temperature, trained_at=0.5):
        monkeypatch.setattr(runs, "model_metadata", lambda run: {judged.MERGER_FRACTION: trained_at})
        monkeypatch.setattr(runs, "read_json", lambda run, path: {job.CALIBRATION: {"temperature": temperature}}[path])

    return calibrate


def read(path):
    return (pd.read_csv if path.suffix == ".csv" else pd.read_parquet)(path)


@pytest.mark.parametrize("out", ["scores.parquet", "scores.csv"])
@pytest.mark.parametrize("fraction", [0.03, 0.5, 0.9])
@pytest.mark.parametrize("trained_at", [0.5, 1 / 6, 0.8])
def test_calibrated_probabilities_follow_from_temperature_and_the_rule_of_bayes(
    score, calibrated, network, tmp_path, monkeypatch, out, fraction, trained_at
):
    """In odds: those of the network over those of its training, to the power of 1 / T, times those of the survey."""
    monkeypatch.setattr(scoring, "GROUP", 5)
    calibrated(2.5, trained_at)
    images = IMAGES / 4  # that no probability is 0 or 1 in float32
    images[7, 1, 2, 2] = np.nan
    results = score(images, out, merger_fraction=fraction)
    table = read(tmp_path / out)
    assert list(table) == ["row", "probability", "calibrated"]
    assert table.index[table["probability"].isna()].tolist() == table.index[table["calibrated"].isna()].tolist() == [7]
    p = table["probability"].to_numpy()
    np.testing.assert_allclose(np.delete(p, 7), np.delete(expected(network, images), 7), atol=1e-6)
    odds = (p / (1 - p) * (1 - trained_at) / trained_at) ** (1 / 2.5) * fraction / (1 - fraction)
    np.testing.assert_allclose(table["calibrated"], odds / (1 + odds), rtol=1e-6)
    np.testing.assert_array_equal(np.argsort(table["calibrated"]), np.argsort(p))
    assert results["mean_probability"] == pytest.approx(np.nanmean(p))  # of the network's own, as without a fraction


def test_nothing_changes_at_balance_where_the_network_is_calibrated_already(score, calibrated, tmp_path):
    calibrated(1.0)
    score(IMAGES / 4, merger_fraction=0.5)
    table = pd.read_parquet(tmp_path / "scores.parquet")
    np.testing.assert_allclose(table["calibrated"], table["probability"], rtol=1e-6)


def test_a_network_trained_at_the_fraction_of_the_survey_is_right_already(score, calibrated, tmp_path):
    """As the published recipe, without balance, is for a survey like its training images."""
    calibrated(1.0, trained_at=0.17)
    score(IMAGES / 4, merger_fraction=0.17)
    table = pd.read_parquet(tmp_path / "scores.parquet")
    np.testing.assert_allclose(table["calibrated"], table["probability"], rtol=1e-6)


def test_a_model_that_does_not_tell_its_prior_is_refused_and_an_older_table_stays(
    score, calibrated, tmp_path, monkeypatch
):
    calibrated(1.0)
    monkeypatch.setattr(runs, "model_metadata", lambda run: {})
    (tmp_path / "scores.csv").write_text("older\n")
    with pytest.raises(InputError, match=r"should tell the merger fraction that it was trained at, .* train it anew"):
        score(out="scores.csv", merger_fraction=0.1)
    assert (tmp_path / "scores.csv").read_text() == "older\n"


def test_csv_and_parquet_hold_the_same_calibrated_numbers_and_parquet_tells_of_them(score, calibrated, tmp_path):
    calibrated(1.75)
    for out in ("scores.csv", "scores.parquet"):
        score(out=out, merger_fraction=0.1)
    pd.testing.assert_frame_equal(read(tmp_path / "scores.csv"), read(tmp_path / "scores.parquet"))
    told = parquet.read_schema(tmp_path / "scores.parquet").metadata
    assert (told[b"merger_fraction"], told[b"temperature"]) == (b"0.1", b"1.75")


@pytest.mark.parametrize("out", ["scores.parquet", "scores.csv"])
@pytest.mark.parametrize("kind", ["no image", "nothing known"])
def test_calibration_of_nothing_is_nothing(score, calibrated, tmp_path, out, kind):
    calibrated(1.75)
    images = IMAGES[:0] if kind == "no image" else np.full_like(IMAGES[:3], np.nan)
    score(images, out, merger_fraction=0.1)
    table = read(tmp_path / out)
    assert list(table) == ["row", "probability", "calibrated"]
    assert len(table) == len(images)
    assert table["calibrated"].isna().all()


# A Parquet data set


@pytest.fixture
def sharded(score, knowing, calibrated, tmp_path, monkeypatch):
    """`score` into a folder, ten images a part, with everything that a row can tell."""
    monkeypatch.setattr(shards, "SHARD", 10)
    calibrated(1.5)
    monkeypatch.setattr(runs, "model_metadata", lambda run: {**knowing, judged.MERGER_FRACTION: 0.5})
    pd.DataFrame({"galaxy_id": [f"g{n}" for n in range(23)]}).to_csv(tmp_path / "known.csv", index=False)

    def call(out="scores", workers=1, images=IMAGES):
        return score(images, out, merger_fraction=0.1, catalogue=tmp_path / "known.csv", workers=workers)

    return call


def test_a_folder_holds_the_table_of_the_file_in_parts(sharded, tmp_path, caplog):
    images = IMAGES.copy()
    images[12:15] *= 1000
    images[3, 0, 0, 0] = np.nan
    whole = sharded("scores.parquet", None, images)
    caplog.clear()
    parts = sharded(images=images)
    assert sorted(path.name for path in (tmp_path / "scores").iterdir()) == [
        "_scoring.json",
        *(f"part-{number:06}.parquet" for number in range(3)),
    ]
    pd.testing.assert_frame_equal(
        pd.read_parquet(tmp_path / "scores"), pd.read_parquet(tmp_path / "scores.parquet"), atol=1e-6
    )
    assert {**parts, "written": ""} == pytest.approx({**whole, "written": ""}, abs=1e-6)
    first = parquet.read_schema(tmp_path / "scores" / "part-000000.parquet")
    assert first.metadata == parquet.read_schema(tmp_path / "scores.parquet").metadata
    said = [record.getMessage() for record in caplog.records if record.name.startswith("deepmerge")]
    assert said[0].startswith("1 of 23 images have NaN")
    assert said[1].startswith("3 of 23 images (13%) are unlike those that the model was trained on, as the column")


@pytest.mark.slow
def test_what_is_there_is_not_scored_again_and_a_part_half_written_is(sharded, tmp_path):
    sharded()
    folder = tmp_path / "scores"
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    kept = (folder / "part-000000.parquet").stat().st_mtime_ns
    (folder / "part-000001.parquet").unlink()
    (folder / ".part-000001-abc.parquet").write_bytes(b"half")
    results = sharded(workers=2)
    assert {path.name for path in folder.iterdir()} == set(whole)
    assert (folder / "part-000000.parquet").stat().st_mtime_ns == kept
    table = pd.read_parquet(folder)
    assert table["row"].tolist() == list(range(23))
    assert results["images"] == 23


def test_a_folder_with_other_things_or_other_scores_is_refused(sharded, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(InputError, match=r"out should be a new folder, got .*mine, which holds other things"):
        sharded("mine")
    sharded()
    with pytest.raises(InputError, match="which holds scores with another state"):
        sharded(images=IMAGES + 1)


def test_a_cluster_needs_a_folder(score):
    with pytest.raises(InputError, match="--cluster should come with a folder for --out"):
        score(out="scores.parquet", workers=2)


def test_no_image_makes_a_data_set_without_rows(score, tmp_path):
    assert score(IMAGES[:0], "scores")["images"] == 0
    assert list(pd.read_parquet(tmp_path / "scores")) == ["row", "probability"]


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 18, float("nan")])
def test_a_merger_fraction_outside_0_and_1_is_refused_before_anything_is_read(tmp_path, fraction):
    with pytest.raises(InputError, match=r"merger_fraction should lie between 0 and 1, got "):
        predict(tmp_path / "nowhere.npy", "models:/none@champion", tmp_path / "scores.csv", fraction)


def test_a_model_without_calibration_says_how_to_make_one_and_an_older_table_stays(score, tmp_path):
    (tmp_path / "scores.csv").write_text("older\n")
    with pytest.raises(InputError, match=r"which has none; make it with 'deepmerge study probabilities .* --model a+'"):
        score(out="scores.csv", merger_fraction=0.1)
    assert (tmp_path / "scores.csv").read_text() == "older\n"


# With a trained model


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Folder and address of an MLflow store."""
    folder = tmp_path_factory.mktemp("store")
    uri = f"sqlite:///{folder}/mlflow.db"
    MlflowClient(uri).create_experiment(plugin.EXPERIMENT, (folder / "artifacts").as_uri())
    return folder, uri


@pytest.fixture
def trained(store, write_sample, monkeypatch):
    """The run of a model of the small sample, registered as champion, and the file of its images."""
    folder, uri = store
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setattr("mlflow.tracking.fluent._active_experiment_id", None)
    mlflow.set_tracking_uri(uri)
    used = config.load(str(write_sample()), {"epochs": 2, "batch_size": 16})
    noted = folder / "run.json"
    if not noted.exists():
        results = train(used, out=folder)
        evaluate("tiny", results["run_id"])
        client = MlflowClient()
        run = client.get_run(results["run_id"])
        client.create_registered_model("deepmerge-tiny")
        model_id = run.outputs.model_outputs[0].model_id
        version = client.create_model_version("deepmerge-tiny", f"models:/{model_id}", run_id=run.info.run_id)
        client.set_registered_model_alias("deepmerge-tiny", "champion", version.version)
    yield json.loads(noted.read_text())["run_id"], used.data.images
    mlflow.set_tracking_uri(None)


@pytest.mark.slow
def test_a_model_is_found_by_all_its_names_and_gives_the_numbers_of_evaluate(trained, store, tmp_path):
    run_id, images = trained
    judged = pd.read_parquet(runs.read_artifact(MlflowClient().get_run(run_id), "predictions.parquet"))
    assert (judged["transform"] == 0).all()
    for name in (run_id, "models:/deepmerge-tiny@champion", "models:/deepmerge-tiny/1", str(store[0] / "run.json")):
        results = predict(images, name, tmp_path / "scores.parquet")
        assert results["run_id"] == run_id
        table = pd.read_parquet(tmp_path / "scores.parquet")
        again = table["probability"].to_numpy()[judged["row"]]
        np.testing.assert_allclose(again, judged["probability"], atol=1e-6)
        logged = MlflowClient().get_run(results["logged_in"])
        assert (logged.data.tags["kind"], logged.data.tags["scored_by"]) == ("predict", run_id)
        assert (logged.info.status, logged.data.params["model"]) == ("FINISHED", name)
        assert logged.data.metrics == pytest.approx({key: results[key] for key in logged.data.metrics})
        assert {"images", "mean_probability", "share_unlike_training"} <= set(logged.data.metrics)
    told = parquet.read_schema(tmp_path / "scores.parquet").metadata
    assert told[b"data_fingerprint"].decode() == MlflowClient().get_run(run_id).data.tags["data_fingerprint"]


def command(*words, cwd):
    return subprocess.run(
        [sys.executable, "-m", "deepmerge", *words], cwd=cwd, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_the_command_prints_what_it_found_and_where_it_is(trained, tmp_path):
    run_id, images = trained
    done = command("predict", str(images), "--model", "models:/deepmerge-tiny@champion", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    printed = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert (printed["run_id"], printed["images"], printed["written"]) == (run_id, "120", "scores.parquet")
    assert {"mean_probability", "share_above_0.5"} <= set(printed)
    assert len(pd.read_parquet(tmp_path / "scores.parquet")) == 120
    assert done.stderr == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Missing option '--model'"),
        (["--model", "models:/deepmerge-none@champion"], "model should exist in"),
    ],
)
def test_wrong_words_end_with_two_and_one_line(trained, tmp_path, words, said):
    done = command("predict", str(trained[1]), *words, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.glob("scores*"))


PEAK = """
import sys
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from deepmerge.jobs.predict import predict
predict(Path(sys.argv[1]), sys.argv[2], Path("scores.parquet"))
print(next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell the peak of memory")
@pytest.mark.parametrize("suffix", ["npy", "fits"])
def test_memory_does_not_grow_with_the_number_of_images(trained, tmp_path, suffix):
    peaks = []
    for count in (8_000, 40_000):  # both more than the batches that are under way
        path = tmp_path / f"{count}.{suffix}"
        write_sparse(path, (count, 2, 32, 32))
        done = subprocess.run(
            [sys.executable, "-c", PEAK, str(path), trained[0]],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        peaks.append(int(done.stdout) / 1024)
        assert len(pd.read_parquet(tmp_path / "scores.parquet")) == count
    grown = 0.8 * path.stat().st_size / 2**20
    assert grown > 200
    assert peaks[1] - peaks[0] < 0.35 * grown


def write_sparse(path, shape):
    """A file of zeros that take no room on the disk."""
    if path.suffix == ".npy":
        np.lib.format.open_memmap(path, "w+", np.float32, shape)
        return
    cards = ["SIMPLE  =                    T", f"BITPIX  = {-32:20}", f"NAXIS   = {len(shape):20}"]
    cards += [f"NAXIS{axis}  = {length:20}" for axis, length in enumerate(reversed(shape), 1)]
    header = "".join(card.ljust(80) for card in [*cards, "END"])
    path.write_text(header.ljust(2880))
    size = 4 * int(np.prod(shape))
    os.truncate(path, 2880 + -(-size // 2880) * 2880)
