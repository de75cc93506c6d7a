"""A server that MLflow starts of a registered model answers the numbers that `predict` writes."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient

from deepmerge import config
from deepmerge.jobs.predict import predict
from deepmerge.model import devices, network, stretch
from deepmerge.tracking import plugin, runs

pytestmark = pytest.mark.slow  # a server takes a while to start

devices.prepare()

ROOT = Path(__file__).parents[1]
HOST = "127.0.0.1"
START_SECONDS = 240
CHAMPION = "models:/deepmerge-tiny@champion"
IMAGES = np.random.default_rng(0).normal(0, 3, (40, 2, 32, 32)).astype(np.float32)


@pytest.fixture(scope="module")
def champion(tmp_path_factory):
    """A registered network with the alias champion; yields the folder of its store."""
    folder = tmp_path_factory.mktemp("store")
    uri = f"sqlite:///{folder}/mlflow.db"
    client = MlflowClient(uri)
    client.create_experiment(plugin.EXPERIMENT, (folder / "artifacts").as_uri())
    pixels = np.moveaxis(IMAGES, 1, -1)
    model = network.build((32, 32, 2), config.Network(), stretch.measure(pixels, "asinh"))
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
            patch.delenv(name, raising=False)
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        patch.setattr("mlflow.tracking.fluent._active_experiment_id", None)
        mlflow.set_tracking_uri(uri)
        with runs.new_run("tiny", {"dataset": "tiny"}) as run_id:
            runs.log_model(model, pixels[:2], np.asarray(model(pixels[:2], training=False)), {})
        client.create_registered_model("deepmerge-tiny")
        model_id = client.get_run(run_id).outputs.model_outputs[0].model_id
        version = client.create_model_version("deepmerge-tiny", f"models:/{model_id}", run_id=run_id)
        client.set_registered_model_alias("deepmerge-tiny", "champion", version.version)
        yield folder
        mlflow.set_tracking_uri(None)


@pytest.fixture(scope="module")
def server(champion):
    """Address of a server of the champion."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    words = ["models", "serve", "-m", CHAMPION, "--env-manager", "local", "--host", HOST, "--port", str(port)]
    with (champion / "server.log").open("w") as log:
        started = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *words],
            cwd=champion,
            env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    address = f"http://{HOST}:{port}"
    try:
        deadline = time.monotonic() + START_SECONDS
        while not answers(address):
            assert started.poll() is None, (champion / "server.log").read_text()
            assert time.monotonic() < deadline, (champion / "server.log").read_text()
            time.sleep(0.5)
        yield address
    finally:
        os.killpg(started.pid, signal.SIGTERM)  # its workers too: they are of the session that began with it
        started.wait(30)


def request(address, path, content=None):
    """Status and text of an answer; never through a proxy."""
    body = None if content is None else json.dumps(content).encode()
    asked = urllib.request.Request(f"{address}{path}", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(asked, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def answers(address):
    try:
        return request(address, "/ping")[0] == 200
    except OSError:
        return False


def test_the_server_and_predict_give_the_same_numbers_for_the_same_pixels(server, tmp_path):
    status, text = request(server, "/invocations", {"inputs": np.moveaxis(IMAGES, 1, -1).tolist()})
    assert status == 200, text
    served = np.array(json.loads(text)["predictions"])
    assert served.shape == (40, 1)
    np.save(tmp_path / "images.npy", IMAGES)
    predict(tmp_path / "images.npy", CHAMPION, tmp_path / "scores.parquet")
    scores = pd.read_parquet(tmp_path / "scores.parquet")["probability"]
    np.testing.assert_allclose(served[:, 0], scores, atol=1e-6)
    assert scores.std() > 1e-3


PLANT = """
import os, pickle
class Planted:
    def __reduce__(self):
        return os.mkdir, ("ran",)
print(pickle.dumps({"custom": Planted()}).hex())
"""


@pytest.mark.parametrize("refused_by", ["deepmerge serve", "mlflow models serve"])
def test_code_that_was_planted_beside_a_model_is_never_run(champion, refused_by):
    planted = bytes.fromhex(subprocess.run([sys.executable, "-c", PLANT], capture_output=True, text=True).stdout)
    (folder,) = champion.glob("artifacts/models/*/artifacts/data")
    file = folder / "custom_objects.cloudpickle"
    file.write_bytes(planted)
    words = ["deepmerge", "serve", CHAMPION]
    if refused_by != "deepmerge serve":
        words = ["mlflow", "models", "serve", "-m", CHAMPION, "--env-manager", "local", "--port", "5999"]
    environment = {**os.environ, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", "PYTHONPATH": str(ROOT)}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    try:
        done = subprocess.Popen(
            [sys.executable, "-m", *words],
            cwd=champion,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        said = done.communicate(timeout=START_SECONDS)[0]
    finally:
        with suppress(ProcessLookupError):
            os.killpg(done.pid, signal.SIGKILL)
        file.unlink()
    assert not (champion / "ran").exists()
    if refused_by == "deepmerge serve":
        assert done.returncode == 2
        assert said.count("\n") == 1
        assert "custom_objects.cloudpickle was added" in said
    else:
        assert "MLFLOW_ALLOW_PICKLE_DESERIALIZATION" in said


@pytest.mark.parametrize("shape", [(1, 2, 32, 32), (1, 32, 32, 3), (1, 16, 16, 2), (32, 32, 2)])
def test_the_server_refuses_another_shape_and_says_which_it_expects(server, shape):
    status, text = request(server, "/invocations", {"inputs": np.zeros(shape).tolist()})
    assert status == 400
    assert "(-1, 32, 32, 2)" in json.loads(text)["message"]


@pytest.mark.parametrize("bad", [float("nan"), None, 1e40, float("inf")], ids=["NaN", "null", "1e40", "infinity"])
def test_a_pixel_that_is_no_number_gets_no_probability_from_server_and_predict_alike(server, tmp_path, bad):
    asked = np.moveaxis(IMAGES[:3], 1, -1).tolist()
    asked[1][3][5][0] = bad
    status, text = request(server, "/invocations", {"inputs": asked})
    assert status == 200, text
    served = np.array(json.loads(text)["predictions"], float)[:, 0]  # null is read as NaN, too
    images = IMAGES[:3].astype(np.float64)
    images[1, 0, 3, 5] = np.nan if bad is None else bad
    np.save(tmp_path / "images.npy", images)
    predict(tmp_path / "images.npy", CHAMPION, tmp_path / "scores.parquet")
    scores = pd.read_parquet(tmp_path / "scores.parquet")["probability"]
    assert np.isnan(served).tolist() == np.isnan(scores).tolist() == [False, True, False]
    np.testing.assert_allclose(served, scores, atol=1e-6)
