import json
import logging
from pathlib import Path

import keras
import mlflow
import numpy as np
import pandas as pd
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from deepmerge import config
from deepmerge.data.batches import gather
from deepmerge.errors import InputError
from deepmerge.jobs.evaluate import evaluate
from deepmerge.jobs.gradcam.gradcam import gradcam
from deepmerge.jobs.judged import reload
from deepmerge.jobs.main import main
from deepmerge.jobs.train import train
from deepmerge.model import devices, training
from deepmerge.tracking import plugin, runs

# TensorFlow takes its threads before its first operation, which in this process may be another test's.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("client")]  # each test trains

devices.prepare()

QUICK = {"epochs": 2, "batch_size": 16, "learning_rate": 3e-3}


@pytest.fixture
def experiment(write_sample):
    """The small sample's experiment, with settings in place of those of QUICK."""

    def load(**overrides):
        return config.load(str(write_sample()), {**QUICK, **overrides})

    return load


@pytest.fixture(scope="module")
def memory():
    """What expensive fixtures have made, so that each is made once for the module."""
    return {}


@pytest.fixture
def whole(memory, experiment, client):
    """What `main` returned, and the run that it left."""
    if "whole" not in memory:
        used = experiment()
        memory["whole"] = used, main(used)
    used, results = memory["whole"]
    return used, results, client.get_run(results["run_id"])


@pytest.fixture
def stepwise(memory, experiment, client):
    """The same with `train`, `evaluate` and `gradcam` one after another, on images that say they are simulated."""
    if "stepwise" not in memory:
        used = experiment()
        masks = np.zeros((120, 32, 32), np.uint8)
        masks[:, 8:24, 8:24] = 1
        np.save(used.data.images.with_name("masks.npy"), masks)
        source = {"data_source": "simulated", "masks": "masks.npy"}
        used.data.images.with_name("tiny_source.json").write_text(json.dumps(source))
        trained = train(used)
        after_training = client.get_run(trained["run_id"])
        found = [trained, evaluate("tiny", "last"), gradcam("tiny", trained["run_id"])]
        memory["stepwise"] = found, after_training
    found, after_training = memory["stepwise"]
    return found, after_training, client.get_run(found[0]["run_id"])


def artifacts(client, run, folder=None):
    found = []
    for entry in client.list_artifacts(run.info.run_id, folder):
        found += artifacts(client, run, entry.path) if entry.is_dir else [entry.path]
    return set(found)


def history(client, run, name):
    return [metric.value for metric in sorted(client.get_metric_history(run.info.run_id, name), key=lambda m: m.step)]


def test_main_puts_settings_tags_and_data_on_one_finished_run(whole, client):
    used, _, run = whole
    assert (run.info.status, run.info.run_name) == ("FINISHED", "tiny-default")
    assert client.get_experiment(run.info.experiment_id).name == "deepmerge"
    assert run.data.params == {"dataset": "tiny"} | {name: str(value) for name, value in used.settings().items()}
    tags = run.data.tags
    assert (tags["dataset"], tags["data_source"], tags["split"]) == ("tiny", "own", "galaxy")
    assert {entry.dataset.digest for entry in run.inputs.dataset_inputs} == {tags["data_fingerprint"]}
    assert int(tags["threads"]) >= 1
    assert mlflow.active_run() is None


def test_main_logs_every_epoch_and_returns_what_it_logged(whole, client):
    used, results, run = whole
    for name in ("train_loss", "train_auc", "val_loss", "val_auc", "val_accuracy"):
        assert len(history(client, run, name)) == used.training.epochs
    logged = json.loads(runs.read_artifact(run, "history.json").read_text())
    assert logged["val_loss"] == history(client, run, "val_loss")
    best = results["best_epoch"]
    assert best == 1 + int(np.argmin(logged["val_log_loss"]))
    assert results["best_val_loss"] == logged["val_loss"][best - 1]
    numbers = {k: v for k, v in results.items() if isinstance(v, float) and np.isfinite(v)}
    assert {name: run.data.metrics[name] for name in numbers} == numbers
    assert results["test_brier_low"] < results["test_brier"] < results["test_brier_high"]


def test_main_leaves_every_artifact_that_the_readme_promises(whole, client):
    _, _, run = whole
    found = artifacts(client, run)
    assert {
        "experiment.json",
        "split.csv",
        "history.json",
        "predictions.parquet",
        "gallery.html",
        "environment/packages.txt",
        "environment/machine.json",
        "saliency/README.txt",
        "saliency/test_maps.csv",
        "saliency/test_maps.npy",
    } <= found
    drawn = ["history", "examples", "confusion_matrix", "roc", "reliability", "scores"]
    drawn += ["gradcam", "saliency_layers", "saliency_means", "activations"]
    assert {f"figures/{name}.png" for name in drawn} <= found
    assert runs.read_artifact(run, "figures/roc.png").read_bytes()[:4] == b"\x89PNG"


def test_a_model_is_judged_from_another_folder_than_it_was_trained_in(experiment, tmp_path, monkeypatch):
    images = experiment().data.images
    monkeypatch.chdir(images.parent)
    trained = train(config.load("tiny.yaml", QUICK))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert "test_auc" in evaluate("tiny", trained["run_id"])


def test_the_record_gives_the_experiment_back(whole):
    used, _, run = whole
    assert config.from_record(runs.read_json(run, "experiment.json"), "record") == used


def test_predictions_are_those_of_the_saved_model_for_every_image(whole):
    used, _, run = whole
    table = pd.read_parquet(runs.read_artifact(run, "predictions.parquet"))
    named = {"row", "galaxy_id", "view", "label", "stage", "probability", "split", "transform"}
    assert named <= set(table.columns)
    assert sorted(table["row"]) == list(range(120))
    images, labels = np.load(used.data.images), np.load(used.data.labels)
    model = keras.models.load_model(runs.model_file(run), compile=False, safe_mode=True)
    batch = gather(images, table["row"].to_numpy(), table["transform"].to_numpy())
    again = np.asarray(model(batch, training=False))[:, 0]
    np.testing.assert_allclose(table["probability"], again, atol=1e-6)
    assert (table["label"] == labels[table["row"]]).all()
    assert ((table["stage"] != "non-merger") == (table["label"] == 1)).all()


def test_the_split_on_the_run_shares_no_galaxy_between_parts(whole):
    _, _, run = whole
    table = pd.read_csv(runs.read_artifact(run, "split.csv"))
    parts = table.groupby("split")["galaxy_id"].agg(set)
    assert set(parts.index) == {"train", "validation", "test"}
    assert not parts["train"] & parts["test"]
    assert not parts["train"] & parts["validation"]
    assert not parts["validation"] & parts["test"]


def test_there_is_a_map_for_each_target_of_each_test_image(whole):
    _, results, run = whole
    maps = np.load(runs.read_artifact(run, "saliency/test_maps.npy"))
    lines = pd.read_csv(runs.read_artifact(run, "saliency/test_maps.csv"))
    predictions = pd.read_parquet(runs.read_artifact(run, "predictions.parquet"))
    test = predictions[predictions["split"] == "test"]
    assert maps.shape == (len(test), 2, 32, 32)
    assert np.isfinite(maps).all()
    assert lines["row"].tolist() == test["row"].tolist()
    np.testing.assert_allclose(lines["probability"], test["probability"], atol=1e-6)
    assert results["saliency_layer"] in runs.read_artifact(run, "saliency/README.txt").read_text()


def test_the_test_images_are_scored_by_evaluate_alone(stepwise):
    _, after_training, _ = stepwise
    assert after_training.info.status == "FINISHED"
    assert not [name for name in after_training.data.metrics if name.startswith("test_")]


def test_one_step_after_another_gives_the_numbers_of_main_to_the_last_digit(whole, stepwise, client):
    _, results, run = whole
    (trained, judged, _), _, separate = stepwise
    assert run.info.run_id != separate.info.run_id
    for name in ("train_loss", "val_loss", "val_auc"):
        assert history(client, run, name) == history(client, separate, name)
    assert trained["best_epoch"] == results["best_epoch"]
    found = {name: value for name, value in judged.items() if name.startswith("test_")}
    assert len(found) > 20
    np.testing.assert_equal(found, {name: results[name] for name in found})  # NaN equals NaN


def test_evaluate_and_gradcam_write_to_the_run_of_the_model(stepwise, client):
    found, _, run = stepwise
    assert {results["run_id"] for results in found} == {run.info.run_id}
    assert run.info.status == "FINISHED"
    assert run.data.metrics["test_auc"] == found[1]["test_auc"]
    assert {"predictions.parquet", "saliency/test_maps.npy", "figures/roc.png"} <= artifacts(client, run)


def test_results_on_simulated_images_say_so(stepwise):
    _, _, run = stepwise
    assert run.data.tags["data_source"] == "simulated"
    assert "Simulated demo data, not Illustris" in run.data.tags["mlflow.note.content"]


def test_known_merger_features_are_pointed_at(stepwise):
    (_, _, explained), _, run = stepwise
    found = {name: value for name, value in explained.items() if name.startswith(("test_saliency_", "test_light_"))}
    assert {f"test_{name}" for name in ("saliency_energy", "saliency_mirrored", "light_deletion")} <= set(found)
    defined = {name: value for name, value in found.items() if np.isfinite(value)}
    assert {name: run.data.metrics[name] for name in defined} == defined
    assert run.data.tags["saliency_verdict"] == explained["saliency_verdict"]
    table = pd.read_csv(runs.read_artifact(run, "saliency/trust.csv")).set_index(["map", "measure"])
    name = f"{explained['saliency_method']}/{explained['saliency_layer']}"
    assert table.loc[(name, "energy"), "value"] == pytest.approx(explained["test_saliency_energy"])
    assert {"light", "area"} <= set(table.index.get_level_values("map"))


def test_chosen_images_have_their_maps_as_npy_and_fits(stepwise, client, tmp_path):
    _, _, run = stepwise
    whole = pd.read_csv(runs.read_artifact(run, "saliency/test_maps.csv"))
    rows = whole["row"].tolist()[:3]
    chosen = f"rows:{','.join(map(str, rows))}"
    found = gradcam("tiny", run.info.run_id, selection=chosen, target="merger", out=tmp_path)
    assert (found["images"], found["artifacts"]) == (3, f"saliency/rows-{'-'.join(map(str, rows))}")
    assert {f"{found['artifacts']}/maps.{kind}" for kind in ("npy", "fits", "csv", "png")} <= artifacts(client, run)
    maps = np.load(tmp_path / "maps.npy")
    every = np.load(runs.read_artifact(run, "saliency/test_maps.npy"))
    np.testing.assert_allclose(maps[:, 0], every[:3, 0], rtol=1e-3, atol=1e-6)
    with fits.open(tmp_path / "maps.fits") as units:
        assert [unit.name for unit in units] == ["PRIMARY", "MERGER", "IMAGES"]
        np.testing.assert_array_equal(units["MERGER"].data, maps[:, 0])
        assert units["IMAGES"].data["row"].tolist() == rows
        assert units[0].header["RUN_ID"] == run.info.run_id
    wrong = gradcam("tiny", run.info.run_id, selection="wrong")
    assert 0 < wrong["images"] < len(whole)


def test_own_images_have_maps_and_those_with_a_wcs_lie_on_the_sky(stepwise, client, tmp_path):
    _, _, run = stepwise
    images = np.array(reload("tiny", run.info.run_id).data.images[:3], np.float32)
    of_npy, of_fits = tmp_path / "npy", tmp_path / "fits"
    np.save(tmp_path / "mine.npy", images)
    found = gradcam("tiny", run.info.run_id, selection=str(tmp_path / "mine.npy"), out=of_npy)
    assert (found["images"], found["with_wcs"]) == (3, 0)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix, wcs.wcs.cdelt = (
        ("RA---TAN", "DEC--TAN"),
        (190, 30),
        (9, 9),
        (-1e-5, 1e-5),
    )
    fits.writeto(tmp_path / "cut out.fits", images[1], wcs.to_header())
    found = gradcam("tiny", run.info.run_id, selection=str(tmp_path / "cut out.fits"), out=of_fits)
    assert (found["selection"], found["images"], found["with_wcs"]) == ("cut_out", 1, 1)
    maps = np.load(of_fits / "maps.npy")
    np.testing.assert_allclose(maps[0], np.load(of_npy / "maps.npy")[1], rtol=1e-3, atol=1e-6)
    with fits.open(of_fits / "00000_cut out.fits") as units:
        np.testing.assert_array_equal(units["NON-MERGER"].data, maps[0, 1])
        position = WCS(units["MERGER"].header).pixel_to_world(8, 8)
        assert (position.ra.deg, position.dec.deg) == pytest.approx((190, 30))
    assert "saliency/cut_out/00000_cut out.fits" in artifacts(client, run)
    np.save(tmp_path / "other.npy", images[:, :, 1:])
    with pytest.raises(InputError, match=r"images should have shape \(N, "):
        gradcam("tiny", run.info.run_id, selection=str(tmp_path / "other.npy"))


def test_changed_data_are_refused_and_the_run_stays_as_it_was(whole, client):
    used, _, run = whole
    before = artifacts(client, run)
    original = used.data.images.read_bytes()
    images = np.load(used.data.images)
    images[0, 0, 0, 0] += 1
    np.save(used.data.images, images)
    try:
        for judge in (evaluate, gradcam):
            with pytest.raises(InputError, match=f"should be those of run {run.info.run_id} .fingerprint"):
                judge("tiny", run.info.run_id)
    finally:
        used.data.images.write_bytes(original)
    after = client.get_run(run.info.run_id)
    assert (after.info.status, after.data.metrics) == ("FINISHED", run.data.metrics)
    assert artifacts(client, after) == before


def test_a_model_of_another_data_set_is_not_the_last_of_this_one(whole):
    with pytest.raises(InputError, match="expected a trained model of dataset 'elsewhere'"):
        evaluate("elsewhere", "last")


@pytest.fixture
def failing(monkeypatch):
    """Training that diverges in its first epoch."""

    def train(*arguments, **options):
        raise training.TrainingDiverged("loss should stay finite, got nan in epoch 1")

    monkeypatch.setattr(training, "train", train)


def newest(client):
    experiment = client.get_experiment_by_name(plugin.EXPERIMENT)
    return client.search_runs([experiment.experiment_id], order_by=["start_time DESC"])[0]


def test_failed_training_leaves_a_failed_run_with_the_reason(failing, experiment, client):
    with pytest.raises(training.TrainingDiverged):
        main(experiment())
    run = newest(client)
    assert run.info.status == "FAILED"
    assert run.data.tags["failure"] == "TrainingDiverged: loss should stay finite, got nan in epoch 1"
    assert "trained" not in run.data.tags
    assert run.data.params["epochs"] == "2"


def test_a_split_by_rows_is_marked_and_warned_of(failing, experiment, client, caplog):
    with caplog.at_level(logging.WARNING), pytest.raises(training.TrainingDiverged):
        train(experiment(split="rows"))
    run = newest(client)
    assert run.data.tags["split"] == "rows"
    assert run.data.metrics["test_shared_galaxies"] > 0.5
    table = pd.read_csv(runs.read_artifact(run, "split.csv"))
    galaxies = table.groupby("split")["galaxy_id"].agg(set)
    shared = table[table["split"] == "test"]["galaxy_id"].isin(galaxies["train"]).mean()
    assert run.data.metrics["test_shared_galaxies"] == pytest.approx(shared)
    assert "test galaxies are in the training set" in caplog.text


def test_images_with_nan_are_refused_before_a_run_is_made(experiment, client):
    used = experiment()
    images = np.load(used.data.images)
    images[7, 1, 3, 3] = np.nan
    np.save(used.data.images, images)
    count = len(client.search_runs([client.get_experiment_by_name(plugin.EXPERIMENT).experiment_id]))
    with pytest.raises(InputError, match="got NaN or infinite pixels in row 7"):
        train(used)
    assert len(client.search_runs([client.get_experiment_by_name(plugin.EXPERIMENT).experiment_id])) == count


def test_results_for_other_programs_are_written_where_they_are_asked_for(whole, tmp_path):
    _, results, run = whole
    evaluate("tiny", run.info.run_id, out=tmp_path / "out")
    written = json.loads(Path(tmp_path, "out", "metrics.json").read_text())
    assert written["test_auc"] == results["test_auc"]
    assert not [name for name, value in written.items() if value != value]  # NaN is no JSON


def test_a_network_without_a_convolution_has_maps_of_the_pixels_and_none_of_layers(experiment, tmp_path, caplog):
    file = tmp_path / "flat.py"
    file.write_text("import keras\n\n\ndef build(images):\n    return keras.layers.Flatten()(images)\n")
    used = experiment(architecture=f"{file}:build", epochs=1)
    results = main(used, method="hirescam")
    assert "test_auc" in results
    assert not [name for name in results if name.startswith("saliency")]
    assert "no HiRes-CAM" in caplog.text
    assert runs.find(results["run_id"], "tiny").info.status == "FINISHED"
    found = gradcam("tiny", results["run_id"])
    assert (found["saliency_method"], found["saliency_layer"]) == ("smoothgrad", "pixels")
