"""Wrong input of many kinds, given to real commands: one clear line, exit status 2, and nothing left behind."""

import logging
import os
import shutil
import signal
import sqlite3
import sys
import tempfile
from contextlib import closing, contextmanager
from pathlib import Path
from unittest import mock

import keras
import mlflow
import numpy as np
import pytest
import yaml

from deepmerge import cli, config
from deepmerge.model import devices, network, stretch
from deepmerge.tracking import runs

devices.prepare()


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command line in this process; returns its exit status and what it wrote to stderr."""

    def run(words):
        monkeypatch.setattr(sys, "argv", ["deepmerge", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code or 0, capsys.readouterr().err

    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


# Files of images and labels


def header(shape, order=False, descr="<f4", data=b"", version=b"\x01\x00"):
    """An npy file that says of itself what it likes."""
    text = f"{{'descr': {descr!r}, 'fortran_order': {order}, 'shape': {shape}, }}"
    text = text.ljust(117) + "\n"
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text.encode() + data


def replaced(file, content):
    """Put bytes, or an array, in place of a file of the sample."""

    def change(folder):
        if isinstance(content, bytes):
            (folder / file).write_bytes(content)
        else:
            np.save(folder / file, content, allow_pickle=True)

    return change


def changed(file, change_array):
    """Change an array of the sample."""

    def change(folder):
        np.save(folder / file, change_array(np.load(folder / file)))

    return change


def removed(file):
    return lambda folder: (folder / file).unlink()


def a_folder(file):
    def change(folder):
        (folder / file).unlink()
        (folder / file).mkdir()

    return change


def text(file, content):
    def change(folder):
        (folder / file).write_text(content)

    return change


def lines(change_lines):
    """Change the lines of the catalogue."""

    def change(folder):
        found = (folder / "tiny.csv").read_text().splitlines()
        (folder / "tiny.csv").write_text("\n".join(change_lines(found)) + "\n")

    return change


def set_in(section, **values):
    """Set keys in a section of the experiment file."""

    def change(folder):
        content = yaml.safe_load((folder / "tiny.yaml").read_text())
        content.setdefault(section, {}).update(values)
        (folder / "tiny.yaml").write_text(yaml.safe_dump(content))

    return change


def filled(value):
    return changed("tiny_X.npy", lambda images: np.full_like(images, value))


def assigned(place, value, dtype=np.float32):
    def change_array(images):
        images = images.astype(dtype)
        images[place] = value
        return images

    return changed("tiny_X.npy", change_array)


X, Y = "tiny_X.npy", "tiny_y.npy"
ROW = (0, 0, 3, 3)
GOOD = (120, 2, 32, 32)

# What is wrong, and words that the message has to say.
DATA = {
    "images gone": (removed(X), "tiny_X.npy"),
    "images a folder": (a_folder(X), "tiny_X.npy"),
    "images empty": (replaced(X, b""), "tiny_X.npy"),
    "images text": (replaced(X, b"no array at all"), "tiny_X.npy"),
    "images magic alone": (replaced(X, b"\x93NUMPY"), "tiny_X.npy"),
    "images truncated": (lambda f: (f / X).write_bytes((f / X).read_bytes()[:5000]), "tiny_X.npy"),
    "images another version": (replaced(X, header(GOOD, version=b"\x09\x00")), "tiny_X.npy"),
    "header -1": (replaced(X, header((-1, 2, 32, 32))), "tiny_X.npy"),
    "header 2^63": (replaced(X, header((2**63, 2, 32, 32))), "tiny_X.npy"),
    "header 2^62": (replaced(X, header((2**62, 2, 32, 32))), "tiny_X.npy"),
    "header 2^31 each": (replaced(X, header((2**31, 2**31, 2**31, 2**31))), "tiny_X.npy"),
    "header more than there is": (replaced(X, header((10**6, 2, 32, 32), data=b"0" * 100)), "tiny_X.npy"),
    "header of text": (replaced(X, header("'many'")), "tiny_X.npy"),
    "header of floats": (replaced(X, header((1.5, 2, 32, 32))), "tiny_X.npy"),
    "header of code": (replaced(X, header("__import__('os').mkdir('ran')")), "tiny_X.npy"),
    "header never closed": (replaced(X, header(GOOD)[:70].ljust(128)), "tiny_X.npy"),
    "header of many brackets": (replaced(X, header("(" * 90)), "tiny_X.npy"),
    "header of 60000 letters": (replaced(X, b"\x93NUMPY\x01\x00\x60\xea" + b" " * 60000), "tiny_X.npy"),
    "header no dtype": (replaced(X, header(GOOD, descr="nonsense")), "tiny_X.npy"),
    "header of no length": (replaced(X, header((0, 2, 32, 32))), "tiny_X.npy"),
    "header of true": (replaced(X, header("True")), "tiny_X.npy"),
    "objects": (replaced(X, np.array([{"a": 1}], object)), "tiny_X.npy"),
    "words": (replaced(X, np.array(["a", "b"])), "tiny_X.npy"),
    "complex": (replaced(X, np.zeros(GOOD, np.complex64)), "tiny_X.npy"),
    "dates": (replaced(X, np.zeros(GOOD, "M8[s]")), "tiny_X.npy"),
    "records": (replaced(X, np.zeros(3, [("a", "f4")])), "tiny_X.npy"),
    "a number": (replaced(X, np.float32(1)), "tiny_X.npy"),
    "one dimension": (replaced(X, np.zeros(120, np.float32)), "shape"),
    "three dimensions": (replaced(X, np.zeros((120, 32, 32), np.float32)), "shape"),
    "five dimensions": (replaced(X, np.zeros((120, 2, 32, 32, 1), np.float32)), "shape"),
    "too small": (replaced(X, np.zeros((120, 2, 8, 8), np.float32)), "at least"),
    "no filter": (replaced(X, np.zeros((120, 0, 32, 32), np.float32)), "shape"),
    "no image": (replaced(X, np.zeros((0, 2, 32, 32), np.float32)), "shape"),
    "fewer images": (changed(X, lambda images: images[:-1]), "119"),
    "more images": (changed(X, lambda images: np.concatenate([images, images[:1]])), "121"),
    "one NaN": (assigned(ROW, np.nan), "row 0"),
    "one infinity": (assigned(ROW, np.inf), "row 0"),
    "one minus infinity": (assigned(ROW, -np.inf), "row 0"),
    "one 1e40": (assigned(ROW, 1e40, np.float64), "row 0"),
    "a NaN image": (assigned(7, np.nan), "row 7"),
    "all NaN": (filled(np.nan), "row 0"),
    "all zero": (filled(0), "pixel"),
    "all one": (filled(1), "pixel"),
    "all 1e37": (filled(1e37), "pixel"),
    "all -1": (filled(-1), "pixel"),
    "all 1e-45": (filled(1e-45), "pixel"),
    "one filter constant": (assigned((slice(None), 1), 3.0), "filter"),
    "labels gone": (removed(Y), "tiny_y.npy"),
    "labels a folder": (a_folder(Y), "tiny_y.npy"),
    "labels empty": (replaced(Y, b""), "tiny_y.npy"),
    "labels header -1": (replaced(Y, header((-1,), descr="|u1")), "tiny_y.npy"),
    "labels header 2^63": (replaced(Y, header((2**63,), descr="|u1")), "tiny_y.npy"),
    "labels of words": (replaced(Y, np.array(["merger"] * 120)), "tiny_y.npy"),
    "labels of objects": (replaced(Y, np.array([{}] * 120, object)), "tiny_y.npy"),
    "labels 2": (changed(Y, lambda labels: labels * 2), "label"),
    "labels -1": (changed(Y, lambda labels: -labels.astype(int)), "label"),
    "labels 0.5": (changed(Y, lambda labels: labels * 0.5), "label"),
    "labels NaN": (changed(Y, lambda labels: np.where(labels, np.nan, 0)), "label"),
    "labels one-hot": (changed(Y, lambda labels: np.eye(2)[labels]), "shape"),
    "labels too few": (changed(Y, lambda labels: labels[:-3]), "117"),
    "labels all 0": (changed(Y, np.zeros_like), "0"),
    "labels all 1": (changed(Y, np.ones_like), "1"),
}
CATALOGUE = {
    "gone": (removed("tiny.csv"), "tiny.csv"),
    "a folder": (a_folder("tiny.csv"), "tiny.csv"),
    "empty": (text("tiny.csv", ""), "tiny.csv"),
    "of zeros": (replaced("tiny.csv", b"\x00" * 2000), "tiny.csv"),
    "binary": (replaced("tiny.csv", bytes(range(256)) * 20), "tiny.csv"),
    "header alone": (lines(lambda found: found[:1]), "120"),
    "a line less": (lines(lambda found: found[:-1]), "119"),
    "a line more": (lines(lambda found: [*found, found[-1]]), "121"),
    "a field more": (lines(lambda found: [*found[:5], found[5] + ",7", *found[6:]]), "line 6"),
    "a field less": (lines(lambda found: [*found[:5], "1", *found[6:]]), "line 6"),
    "a column twice": (lines(lambda found: [found[0] + ",view", *(line + ",0" for line in found[1:])]), "view"),
    "a galaxy without id": (lines(lambda found: [*found[:5], ",0,past", *found[6:]]), "galaxy_id"),
    "an unknown stage": (lines(lambda found: [line.replace("past", "later") for line in found]), "later"),
    "stages against labels": (lines(lambda found: [line.replace("past", "non-merger") for line in found]), "stage"),
    "a galaxy of both classes": (lines(lambda found: [line.replace("101,", "140,") for line in found]), "140"),
    "all one galaxy": (lines(lambda found: [found[0], *(f"1,{n},non-merger" for n in range(120))]), "stage"),
    "endless quote": (lines(lambda found: [*found[:5], '"' + found[5], *found[6:]]), "tiny.csv"),
    "latin-1": (replaced("tiny.csv", "galaxy_id,stage\nMüller,past\n".encode("latin-1")), "tiny.csv"),
    "a column that clears the screen": (
        lines(lambda found: [found[0].replace("galaxy_id", "\x1b[2J"), *found[1:]]),
        r"\x1b[2J",
    ),
    "null ids": (lines(lambda found: [line.replace("101,", "\x00,") for line in found]), "tiny.csv"),
}
EXPERIMENT = {
    "gone": (removed("tiny.yaml"), "tiny.yaml"),
    "a folder": (a_folder("tiny.yaml"), "tiny.yaml"),
    "empty": (text("tiny.yaml", ""), "tiny.yaml"),
    "a list": (text("tiny.yaml", "- 1\n"), "tiny.yaml"),
    "a word": (text("tiny.yaml", "data"), "tiny.yaml"),
    "no YAML": (text("tiny.yaml", "data: [1, 2"), "tiny.yaml"),
    "binary": (replaced("tiny.yaml", bytes(range(256))), "tiny.yaml"),
    "a tag": (text("tiny.yaml", "data: !!python/object/apply:os.mkdir ['ran']\n"), "tiny.yaml"),
    "billion laughs": (
        text(
            "tiny.yaml",
            "a: &a [1]\n"
            + "".join(
                f"{b}: &{b} [*{a},*{a}]\n"
                for a, b in zip("abcdefghijklmnopqrstuvwxy", "bcdefghijklmnopqrstuvwxyz", strict=True)
            ),
        ),
        "tiny.yaml",
    ),
    "deep": (text("tiny.yaml", "data: " + "[" * 5000 + "]" * 5000), "tiny.yaml"),
    "a character that is none": (text("tiny.yaml", 'name: "\\U00110000"\ndata: {}\n'), "tiny.yaml"),
    "a key twice": (text("tiny.yaml", "data: {images: a}\ndata: {images: b}\n"), "data"),
    "no data": (text("tiny.yaml", "training: {epochs: 1}\n"), "data"),
    "data a word": (text("tiny.yaml", "data: here\n"), "data"),
    "unknown section": (set_in("trainng", epochs=1), "trainng"),
    "unknown key": (set_in("training", epoch=1), "epoch"),
    "images null": (set_in("data", images=None), "images"),
    "images a number": (set_in("data", images=5), "images"),
    "images of null byte": (set_in("data", images="a\0b.npy"), "images"),
    "images of 10000 letters": (set_in("data", images="a" * 10000 + ".npy"), "bytes"),
    "labels a list": (set_in("data", labels=["a"]), "labels"),
    "masks gone": (set_in("data", masks="gone.npy"), "gone.npy"),
    "masks of another shape": (set_in("data", masks="tiny_y.npy"), "masks"),
    "split table gone": (set_in("split", split_table="gone.csv"), "gone.csv"),
    "split table of images": (set_in("split", split_table="tiny_X.npy"), "tiny_X.npy"),
    "fractions above 1": (set_in("split", validation_fraction=0.6, test_fraction=0.6), "below 1"),
    "start gone": (set_in("network", start="gone.keras"), "gone.keras"),
    "start no network": (set_in("network", start="tiny_X.keras"), "tiny_X.keras"),
    "own network gone": (set_in("network", architecture="gone.py:build"), "gone.py"),
    "own network broken": (set_in("network", architecture="broken.py:build"), "broken.py"),
    "adapt to nothing": (set_in("training", adapt={"to": "gone"}), "gone"),
}
# Settings by the name of their option: values, and a word of the message.
SETTINGS = {
    "epochs": ["0", "-1", "1.5", "many", "", "nan", "inf", "1e400", "[1]", "{a: 1}", "null"],
    "batch-size": ["0", "-5", "0.5", "big"],
    "learning-rate": ["0", "-1", "nan", "inf", "fast", "1e400"],
    "dropout": ["1", "-0.1", "nan", "half"],
    "l2": ["-1", "nan", "inf", "1e300", "much"],
    "width": ["0", "-1", "nan", "inf", "10000", "1e300", "wide"],
    "seed": ["-1", "4294967296", "1.5", "x"],
    "split-seed": ["-1", "4294967296"],
    "patience": ["0", "-1"],
    "validation-fraction": ["0", "1", "-1", "nan"],
    "test-fraction": ["0", "1", "2"],
    "architecture": ["unknown", "../x.py", "keras.applications.os.system", "keras.applications.Nothing"],
    "schedule": ["linear"],
    "balance": ["both"],
    "precision": ["float64"],
    "noise": ["1", "{sigma: -1}", "{sigma: nan}", "{like: gone}", "{}"],
    "psf": ["0", "-1", "nan", "[1, 2, 3]"],
    "adapt": ["1", "{to: gone}", "{to: noisy, method: magic}"],
    "freeze": ["no_such_layer"],
    "options": ["{depth: 3}", "5"],
}

CASES = {
    **{f"data: {name}": (change, [], said) for name, (change, said) in DATA.items()},
    **{f"catalogue: {name}": (change, [], said) for name, (change, said) in CATALOGUE.items()},
    **{f"experiment: {name}": (change, [], said) for name, (change, said) in EXPERIMENT.items()},
    **{
        f"--{name} {value}": (
            lambda folder: None,
            [f"--{name}={value}"],
            "gone" if "gone" in value else name.replace("-", "_"),
        )
        for name, values in SETTINGS.items()
        for value in values
    },
}


def files(folder):
    return {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*")}


@pytest.mark.parametrize("case", CASES)
def test_wrong_input_is_refused_in_one_line_and_leaves_nothing(case, write_sample, run, tmp_path, monkeypatch):
    change, options, said = CASES[case]
    folder = write_sample(training={"epochs": 1, "batch_size": 32}).parent
    (folder / "tiny_X.keras").write_text("no network")
    (folder / "broken.py").write_text("def build(images:\n")
    change(folder)
    monkeypatch.chdir(tmp_path)
    before = files(tmp_path)
    status, message = run(["train", str(folder / "tiny.yaml"), *options])
    assert (status, message.count("\n")) == (2, 1), message
    assert said in message
    assert len(message) < 1200
    assert message.rstrip("\n").isprintable()
    assert files(tmp_path) == before


# Stores of runs, and the models in them


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder with a store that holds a model of images of 32 × 32 pixels in two filters; and the id of its run."""
    folder = tmp_path_factory.mktemp("project")
    np.save(folder / "images.npy", np.random.default_rng(0).normal(size=(4, 2, 32, 32)).astype(np.float32))
    pixels = np.moveaxis(np.load(folder / "images.npy"), 1, -1)
    model = network.build((32, 32, 2), config.Network(width=0.25), stretch.measure(pixels, "asinh"))
    with as_a_user(folder), runs.new_run("tiny", {"dataset": "tiny"}) as run_id:
        runs.log_model(model, pixels[:2], np.asarray(model(pixels[:2], training=False)), {})
    return folder, run_id


@contextmanager
def as_a_user(folder):
    """Work in a folder, with nothing told to MLflow."""
    with mock.patch.dict(os.environ), pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
            os.environ.pop(name)
        patch.chdir(folder)
        patch.setattr("mlflow.tracking.fluent._active_experiment_id", None)
        patch.setattr("deepmerge.tracking.runs.opening._closed", set())
        mlflow.set_tracking_uri(None)
        yield
        mlflow.set_tracking_uri(None)


def keras_file(folder):
    (found,) = folder.glob("mlruns/*/models/*/artifacts/data/model.keras")
    return found


def database(change_bytes):
    def change(folder):
        path = folder / "mlflow.db"
        path.write_bytes(change_bytes(path.read_bytes()))

    return change


def sql(*statements):
    def change(folder):
        with closing(sqlite3.connect(folder / "mlflow.db")) as connection:
            for statement in statements:
                connection.execute(statement)
            connection.commit()

    return change


def model(change_bytes, checked=True):
    """Change the model's file; without its digest where it is not `checked`, as models of before have none."""

    def change(folder):
        if not checked:
            sql("DELETE FROM tags WHERE key = 'model_files_sha256'")(folder)
        path = keras_file(folder)
        path.write_bytes(change_bytes(path.read_bytes()))

    return change


def another_network(*layers, shape=(32, 32, 2)):
    """Put a network in place of the model that no training of ours would make."""

    def save(content):
        with tempfile.TemporaryDirectory() as folder:
            keras.Sequential([keras.Input(shape), *layers]).save(Path(folder, "a.keras"))
            return Path(folder, "a.keras").read_bytes()

    return model(save, checked=False)


def dense():
    return keras.layers.Flatten(), keras.layers.Dense(1, activation="sigmoid")


STORES = {
    "database of zeros": (database(lambda content: b"\0" * 8192), "should be a whole database of MLflow"),
    "database of text": (database(lambda content: b"no database" * 999), "should be a whole database of MLflow"),
    "database truncated": (database(lambda content: content[:20000]), "should be a whole database of MLflow"),
    "database a folder": (a_folder("mlflow.db"), "should be a whole database of MLflow"),
    "database of a later MLflow": (
        sql("UPDATE alembic_version SET version_num = 'ffffffffffff'"),
        "mlflow db upgrade sqlite:///",
    ),
    "artifacts gone": (lambda folder: shutil.rmtree(folder / "mlruns"), "mlruns"),
    "model gone": (lambda folder: keras_file(folder).unlink(), "model.keras is missing"),
    "model empty": (model(lambda content: b""), "model.keras was changed"),
    "model truncated": (model(lambda content: content[:1000]), "model.keras was changed"),
    "unchecked, empty": (model(lambda content: b"", checked=False), "model.keras"),
    "unchecked, truncated": (model(lambda content: content[:1000], checked=False), "model.keras"),
    "unchecked, text": (model(lambda content: b"no network", checked=False), "model.keras"),
    "of another shape": (another_network(*dense(), shape=(64, 64, 2)), "64"),
    "of flat input": (another_network(keras.layers.Dense(1), shape=(7,)), "takes (None, 7)"),
    "of three outputs": (another_network(keras.layers.Flatten(), keras.layers.Dense(3)), "gives (None, 3)"),
    "of a map": (another_network(keras.layers.Conv2D(1, 3)), "gives (None, 30, 30, 1)"),
    "of a lambda": (another_network(keras.layers.Lambda(lambda pixels: pixels), *dense()), "safe mode"),
}


@pytest.mark.parametrize("case", STORES)
def test_a_damaged_store_or_model_is_refused_in_one_line_and_leaves_nothing(case, project, run, tmp_path):
    change, said = STORES[case]
    made, run_id = project
    folder = tmp_path / "project"
    shutil.copytree(made, folder)
    places = {"experiments": "artifact_location", "runs": "artifact_uri", "logged_models": "artifact_location"}
    sql(*(f"UPDATE {table} SET {name} = replace({name}, '{made}', '{folder}')" for table, name in places.items()))(
        folder
    )
    change(folder)
    before = files(tmp_path)
    with as_a_user(folder):
        status, message = run(["predict", "images.npy", "--model", run_id])
    assert (status, message.count("\n")) == (2, 1), message
    assert said in message
    assert len(message) < 1200
    assert set(files(tmp_path)) == set(before)


def test_an_undamaged_store_is_fine(project, run):
    with as_a_user(project[0]):
        assert run(["predict", "images.npy", "--model", project[1]])[0] == 0


def test_there_are_many():
    assert len(CASES) + len(STORES) >= 150
