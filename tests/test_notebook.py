"""The notebook door, used as a stranger would: `import deepmerge as dm`."""

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest

import deepmerge as dm

slow = pytest.mark.slow  # each trains a network

SIZE = 32
HEAVY = ["tensorflow", "keras", "mlflow", "pandas", "matplotlib", "sklearn", "pydantic", "numpy"]


def blobs(count=60, views=2, seed=0):
    """Images (n, 2, 32, 32) of one nucleus or, in mergers, two; labels; galaxy ids."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE / 2
    labels = (np.arange(count) < 0.4 * count).astype(np.uint8)
    images = []
    for label in np.repeat(labels, views):
        angle = rng.uniform(0, 2 * np.pi)
        light = 20 * np.exp(-(x**2 + y**2) / 8)
        if label:
            light += 15 * np.exp(-((x - 7 * np.cos(angle)) ** 2 + (y - 7 * np.sin(angle)) ** 2) / 5)
        images.append(light + rng.normal(0, 0.3, (2, SIZE, SIZE)))
    return np.array(images, np.float32), np.repeat(labels, views), np.repeat([f"g{i}" for i in range(count)], views)


@pytest.fixture(scope="module")
def data():
    images, labels, ids = blobs()
    return dm.Dataset.from_arrays(images, labels, galaxy_id=ids, filters=["F814W", "F160W"], name="blobs")


def test_importing_it_imports_nothing_heavy_and_names_are_found_when_asked_for():
    code = (
        f"import sys, deepmerge as dm; print([name for name in {HEAVY} if name in sys.modules])\n"
        "print(set(dm.__all__) <= set(dir(dm)), all(getattr(dm, name) is not None for name in dm.__all__))\n"
        "try: dm.trane\nexcept AttributeError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[:2] == ["[]", "True True"]
    assert "no attribute 'trane'; it offers Dataset," in done.stdout


def test_the_version_is_that_of_the_installed_package():
    assert dm.__version__ == metadata.version("deepmerge-lab")


def test_tensorflow_does_not_greet_a_script():
    """Not when it is imported for the first name that needs it, nor at its first operation."""
    code = "import deepmerge as dm; dm.train; import keras; keras.ops.ones(3) + 1"
    env = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert done.stderr == ""


def test_every_name_explains_itself():
    for name in dm.__all__:
        assert getattr(dm, name).__doc__, name
    for name in dm.plot.__all__:
        assert getattr(dm.plot, name).__doc__, name


def test_a_galaxy_stays_in_one_part_and_a_part_can_be_cut(data):
    split = dm.split(data, seed=5)
    ids = data.catalogue["galaxy_id"].to_numpy()
    parts = [set(ids[part.rows]) for part in (split.train, split.validation, split.test)]
    assert sum(map(len, parts)) == len(set().union(*parts)) == 60
    assert len(split.test[:6]) == 6
    assert split.test[:6].rows.tolist() == split.test.rows[:6].tolist()
    assert split.fingerprint == dm.split(data, seed=5).fingerprint != dm.split(data, seed=6).fingerprint


def arrays(**changed):
    images, labels, ids = blobs(10)
    return dm.Dataset.from_arrays(**{"images": images, "labels": labels, "galaxy_id": ids, **changed})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"images": np.zeros((20, 32, 32, 2))}, r"should have shape \(N, filters, H, W\)"),
        ({"images": np.array([["a"]])}, "should be numbers"),
        ({"labels": np.ones(20)}, "should hold both 0"),
        ({"labels": np.zeros(3)}, r"should have shape \(20,\)"),
        ({"galaxy_id": [1, 2]}, "should have 20 rows"),
        ({"galaxy_id": [*range(19), None]}, "should be complete in galaxy_id"),
        ({"galaxy_id": [7] * 20}, "should have one label, but galaxy 7"),
        ({"galaxy_id": np.arange(20) + 2.0**53}, "a float that lacks digits"),
        ({"filters": ["F814W"]}, "filters should be 2"),
        ({"masks": np.zeros((20, 5, 5))}, "masks in the arrays given should have shape"),
        ({"catalogue": pd.DataFrame({"id": range(20)}), "galaxy_id": None}, "should have a column galaxy_id"),
        ({"catalogue": pd.DataFrame({"galaxy_id": range(20)})}, "got both"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(changed, message):
    with pytest.raises(dm.InputError, match=message):
        arrays(**changed)


def test_a_catalogue_in_memory_is_checked_like_a_file(tmp_path):
    images, labels, ids = blobs(10)
    table = pd.DataFrame(
        {"galaxy_id": ids, "view": np.tile([0, 1], 10), "stage": np.where(labels, "past", "non-merger")}
    )
    made = dm.Dataset.from_arrays(images, labels, catalogue=table, name="same")
    np.save(tmp_path / "x.npy", images)
    np.save(tmp_path / "y.npy", labels)
    table.to_csv(tmp_path / "c.csv", index=False)
    (tmp_path / "same.yaml").write_text("data: {images: x.npy, labels: y.npy, catalogue: c.csv}\n")
    read = dm.load(str(tmp_path / "same.yaml"))
    pd.testing.assert_frame_equal(made.catalogue, read.catalogue)
    assert made.fingerprint == read.fingerprint


def test_mock_galaxies_are_told_to_be_simulated():
    data = dm.simulate(galaxies=18, merger_fraction=0.5, variant="noisy")
    assert data.images.shape == (72, 2, 75, 75)
    assert not isinstance(data.images, np.memmap)
    assert (data.data_source, data.name) == ("simulated", "noisy")
    assert data.masks.shape == (72, 75, 75)
    with pytest.raises(dm.InputError, match="variant should be one of pristine, noisy, got 'clean'"):
        dm.simulate(variant="clean")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epoch": 3}, "setting should be one of: .*epochs.*; got 'epoch'"),
        ({"epochs": 0}, "'epochs' should be greater than or equal to 1"),
        ({"stretch": "sqrt"}, "'stretch' should be"),
    ],
)
def test_wrong_settings_are_named_before_anything_is_trained(data, settings, message):
    with pytest.raises(dm.InputError, match=message):
        dm.train(data, dm.split(data), **settings)


@pytest.fixture(scope="module")
def trained(data):
    split = dm.split(data, seed=5)
    return split, dm.train(data, split, epochs=12, batch_size=16, learning_rate=3e-3)


@slow
def test_the_lines_of_a_first_notebook(data, trained, tmp_path):
    split, model = trained
    result = dm.evaluate(model, data, split.test)
    assert result["brier"].low < result["brier"].value < result["brier"].high
    assert result["auc"].value > 0.7
    assert f"AUC{result['auc'].text():>20}".split()[1] in repr(result)
    assert "<table" in result._repr_html_()
    assert set(result.table().columns) == {"value", "low", "high"}
    with pytest.raises(dm.InputError, match="metric should be one of"):
        result["acu"]
    maps = dm.saliency(model, data, split.test[:6])
    assert maps.shape == (6, 2, SIZE, SIZE)
    pixels = data.images[split.test.rows[:6]]
    np.testing.assert_allclose(dm.saliency(model, pixels), maps, rtol=1e-3, atol=1e-6)
    assert dm.saliency(model, pixels, method="layercam", layer=0).shape == maps.shape
    with pytest.raises(dm.InputError, match=r"images should have shape \(N, "):
        dm.saliency(model, pixels[..., 1:])
    for figure in (
        dm.plot.roc(result),
        dm.plot.roc(result, result, labels=["a", "b"]),
        dm.plot.saliency(model, data, split.test[:6]),
        dm.plot.history(model),
        dm.plot.reliability(result),
        dm.plot.confusion_matrix(result),
        dm.plot.scores(result),
        dm.plot.gallery(data, split.train[:7]),
    ):
        assert figure._repr_png_().startswith(b"\x89PNG")
    probabilities = model.predict(data.images[split.test.rows])
    np.testing.assert_allclose(probabilities, result.predictions["probability"], atol=1e-6)
    model.save(tmp_path / "m.keras")
    again = dm.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(again.predict(data.images[split.test.rows]), probabilities, atol=1e-6)
    spoilt = data.images[:2].copy()
    spoilt[0, 0, 0, 0] = np.nan
    assert np.isnan(model.predict(spoilt)).tolist() == [True, False]
    with pytest.raises(dm.InputError, match="should have shape"):
        model.predict(data.images[:, :1])


@slow
def test_arrays_in_memory_and_memory_mapped_ones_give_the_same_network(data, trained, tmp_path):
    _, model = trained
    np.save(tmp_path / "x.npy", data.images)
    mapped = dm.Dataset.from_arrays(
        np.load(tmp_path / "x.npy", mmap_mode="r"), data.labels, galaxy_id=data.catalogue["galaxy_id"], name="mapped"
    )
    again = dm.train(mapped, dm.split(mapped, seed=5), epochs=12, batch_size=16, learning_rate=3e-3)
    assert again.history == model.history
    for ours, theirs in zip(model.network.get_weights(), again.network.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@slow
def test_a_network_of_ones_own_gets_stretch_and_probability(data):
    def small(images):
        x = keras.layers.Conv2D(4, 3, activation="relu")(images)
        return keras.layers.GlobalAveragePooling2D()(x)

    split = dm.split(data, seed=5)
    model = dm.train(data, split, network=small, epochs=2, batch_size=16)
    assert model.network.count_params() < 200
    scores = model.predict(data.images[:5])
    assert ((scores > 0) & (scores < 1)).all()
    spoilt = data.images[:1].copy()
    spoilt[0, 1, 4, 4] = np.inf
    assert np.isnan(model.predict(spoilt)).all()


@slow
def test_what_is_tracked_is_one_run_and_nothing_else_is_logged(data, client):
    split = dm.split(data, seed=5)
    with dm.track("my run") as run_id:
        model = dm.train(data, split, epochs=2, batch_size=16)
        result = dm.evaluate(model, data, split.test)
    dm.evaluate(model, data, split.validation)
    run = client.get_run(run_id)
    assert (run.info.status, run.info.run_name, run.data.tags["data_fingerprint"]) == (
        "FINISHED",
        "my run",
        data.fingerprint,
    )
    assert run.data.metrics["test_auc"] == pytest.approx(result["auc"].value)
    assert run.data.params["epochs"] == "2"
    assert len(client.get_metric_history(run_id, "val_log_loss")) == 2
    held = {Path(item.path).name for item in client.list_artifacts(run_id)}
    assert {"history.json", "predictions.parquet", "figures", "split.csv"} <= held
    found = client.search_runs([run.info.experiment_id])
    assert [one.info.run_id for one in found] == [run_id]
    again = dm.load_model(run_id)
    np.testing.assert_allclose(again.predict(data.images[:9]), model.predict(data.images[:9]), atol=1e-6)
    np.testing.assert_allclose(
        dm.load_model("blobs").predict(data.images[:9]), model.predict(data.images[:9]), atol=1e-6
    )


@slow
def test_a_plain_script_simulates_without_a_guard_against_being_run_again(tmp_path):
    """Processes that are spawned run the script of their parent anew."""
    script = tmp_path / "mine.py"
    script.write_text("import deepmerge as dm\nprint(len(dm.simulate(galaxies=24, merger_fraction=0.5).labels))\n")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.split() == ["96"]
