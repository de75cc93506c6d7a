"""Promotions as users run them: real processes, several at once, on a database and on an MLflow server."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request

import mlflow
import numpy as np
import pytest
from conftest import environment, free_port
from mlflow.tracking import MlflowClient
from test_promote import network

from deepmerge import config
from deepmerge.jobs.train import training_run
from deepmerge.model import devices
from deepmerge.tracking import plugin, runs

pytestmark = pytest.mark.slow

SKILLS = (0.0, 0.2, 1.0)  # the last is clearly the best, also at the third look


class Server:
    """A process that answers on loopback, with whatever it starts, until it is closed."""

    def __init__(self, path, folder, *words, **variables):
        self.port = free_port()
        self.log = (folder / f"{self.port}.log").open("w")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *words, "--host", "127.0.0.1", "--port", str(self.port)],
            cwd=folder,
            env=environment(MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false", **variables),
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
        )
        self.url = f"http://127.0.0.1:{self.port}"
        deadline = time.monotonic() + 120
        while not self._answers(path):
            assert self.process.poll() is None, f"the server ended; see {self.log.name}"
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.3)

    def _answers(self, path):
        try:
            return self.ask(path) is not None
        except OSError:
            return False

    def ask(self, path, content=None):
        request = urllib.request.Request(self.url + path, content, {"Content-Type": "application/json"})
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
            return answer.read()

    def close(self):
        os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait(30)
        self.log.close()


on_a_database = pytest.mark.parametrize("store", ["database"], indirect=True)
on_a_server = pytest.mark.parametrize("store", ["server"], indirect=True)
on_both = pytest.mark.parametrize("store", ["database", "server"], indirect=True)


@pytest.fixture(scope="module")
def store(request, tmp_path_factory):
    """Where runs and models are kept: URIs that users have, with the experiment in it."""
    folder = tmp_path_factory.mktemp("store")
    database = f"sqlite:///{folder}/mlflow.db"
    if request.param == "database":
        MlflowClient(database).create_experiment(plugin.EXPERIMENT, (folder / "artifacts").as_uri())
        yield database
        return
    words = ("server", "--workers", "2", "--backend-store-uri", database, "--artifacts-destination", str(folder / "a"))
    server = Server("/health", folder, *words)
    MlflowClient(server.url).create_experiment(plugin.EXPERIMENT)
    yield server.url
    server.close()


@pytest.fixture(scope="module")
def memory():
    return {}


@pytest.fixture
def candidates(store, memory, write_sample, monkeypatch):
    """Runs of models of known worth, by it; the registry is empty."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.setattr("mlflow.tracking.fluent._active_experiment_id", None)
    mlflow.set_tracking_uri(store)
    if store not in memory:
        devices.prepare()
        memory[store] = found = {"file": str(write_sample())}
        for skill in SKILLS:
            with training_run(config.load(found["file"], {"test_fraction": 0.6})) as (_, data, split, _):
                pixels = np.moveaxis(np.asarray(data.images[split.train.rows[:2]], np.float32), 1, -1)
                runs.log_model(network(skill), pixels, np.asarray(network(skill)(pixels)), {})
                found[skill] = runs.active_id()
    empty_registry()
    yield memory[store]
    mlflow.set_tracking_uri(None)


def start(store, *words):
    return subprocess.Popen(
        [sys.executable, "-m", "deepmerge", *words],
        env=environment(MLFLOW_TRACKING_URI=store),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process, status):
    out, err = process.communicate(timeout=300)
    assert process.returncode == status, f"{out}\n{err}"
    return out, err


def command(store, *words, status=0):
    return end(start(store, *words), status)


def aliases():
    found = MlflowClient().get_registered_model("deepmerge-tiny").aliases
    versions = {int(v.version): v.run_id for v in MlflowClient().search_model_versions("name = 'deepmerge-tiny'")}
    return {alias: versions[int(number)] for alias, number in found.items()}


def empty_registry():
    for model in mlflow.search_registered_models():
        MlflowClient().delete_registered_model(model.name)


@on_a_database
def test_of_three_promotions_at_once_the_best_model_is_champion(store, candidates):
    promotions = {skill: start(store, "promote", candidates["file"], "--model", candidates[skill]) for skill in SKILLS}
    written = {skill: process.communicate(timeout=300) for skill, process in promotions.items()}
    assert aliases()["champion"] == candidates[1.0], written
    assert promotions[1.0].returncode == 0
    tags = {skill: MlflowClient().get_run(candidates[skill]).data.tags for skill in SKILLS}
    assert max(int(tags[skill]["promotion_look"]) for skill in SKILLS) >= 3  # no look is lost
    for skill, process in promotions.items():
        assert process.returncode == {"promoted": 0, "refused": 3}[tags[skill]["promotion_decision"]], written[skill]
    assert [model.name for model in mlflow.search_registered_models()] == ["deepmerge-tiny"]
    versions = MlflowClient().search_model_versions("name = 'deepmerge-tiny'")
    assert sorted(version.run_id for version in versions) == sorted(candidates[skill] for skill in SKILLS)


TOGETHER = """
import sys, time
from pathlib import Path
from deepmerge.jobs.promote.promote import promote
dataset, run_id, folder, rounds = sys.argv[1:]
for number in range(int(rounds)):
    Path(folder, f"ready-{number}-{run_id}").touch()
    while not Path(folder, f"go-{number}").exists():
        time.sleep(0.005)
    decision = promote(dataset, run_id, metric="auc")["decision"]
    Path(folder, f"done-{number}-{run_id}-{decision}").touch()
"""
ROUNDS = 3


@on_both
def test_promotions_that_start_in_the_same_moment_leave_the_best(store, candidates, tmp_path):
    words = [[candidates["file"], candidates[skill], str(tmp_path), str(ROUNDS)] for skill in SKILLS]
    command = [sys.executable, "-c", TOGETHER]
    promotions = [subprocess.Popen([*command, *given], env=environment(MLFLOW_TRACKING_URI=store)) for given in words]

    def wait_for(pattern):
        deadline = time.monotonic() + 300
        while len(found := [path.name for path in tmp_path.glob(pattern)]) < len(SKILLS):
            assert time.monotonic() < deadline
            assert all(process.poll() in (None, 0) for process in promotions)
            time.sleep(0.02)
        return found

    try:
        for number in range(ROUNDS):
            wait_for(f"ready-{number}-*")
            empty_registry()
            (tmp_path / f"go-{number}").touch()
            done = wait_for(f"done-{number}-*")
            assert f"done-{number}-{candidates[1.0]}-promoted" in done
            assert {name.split("-")[-1] for name in done} <= {"promoted", "refused"}
            assert aliases()["champion"] == candidates[1.0]
    finally:
        for process in promotions:
            process.kill()
            process.wait()


@on_a_server
def test_the_commands_from_the_first_champion_to_the_rollback(store, candidates, tmp_path):
    file, (poor, _, best) = candidates["file"], (candidates[skill] for skill in SKILLS)
    out, err = command(store, "models")
    assert (out, "No registered model yet" in err) == ("", True)

    out, err = command(store, "promote", file, "--model", best, "--out", str(tmp_path / "out"))
    assert "decision        promoted" in out
    assert json.loads((tmp_path / "out" / "promotion.json").read_text())["candidate_auc"] > 0.9

    out, err = command(store, "promote", file, "--model", poor, status=3)
    assert "decision        refused" in out
    assert [
        line for line in err.splitlines() if line.startswith("Refused: deepmerge-tiny version 2 was refused: AUC is")
    ]
    assert "Traceback" not in err
    assert aliases() == {"champion": best}
    out, err = command(store, "promote", file, "--model", poor, "--force", "to see a rollback")
    assert aliases() == {"champion": poor, "previous": best}
    out, err = command(store, "promote", file, "--rollback")
    assert "champion  version 1" in out
    assert aliases() == {"champion": best, "previous": poor}
    assert "it is the champion already" in command(store, "promote", file, "--model", best)[0]

    head, *lines = [line.split("\t") for line in command(store, "models", file)[0].splitlines()]
    found = [dict(zip(head, line, strict=True)) for line in lines]
    assert [(line["version"], line["aliases"], line["decision"]) for line in found] == [
        ("2", "previous", "forced"),
        ("1", "champion", "promoted"),
    ]
    assert [line["run_id"] for line in found] == [poor, best]


@on_a_server
def test_the_champion_answers_the_same_with_its_verdict_beside_it(store, candidates, tmp_path):
    command(store, "promote", candidates["file"], "--model", candidates[1.0])
    pixels = np.random.default_rng(0).normal(0.6, 0.1, (5, 32, 32, 2)).astype(np.float32)
    expected = np.asarray(network(1.0)(pixels))
    loaded = mlflow.pyfunc.load_model("models:/deepmerge-tiny@champion")
    np.testing.assert_allclose(loaded.predict(pixels), expected, rtol=1e-5)
    words = ("models", "serve", "--model-uri", "models:/deepmerge-tiny@champion", "--env-manager", "local")
    served = Server("/ping", tmp_path, *words, MLFLOW_TRACKING_URI=store)
    try:
        answer = json.loads(served.ask("/invocations", json.dumps({"inputs": pixels.tolist()}).encode()))
    finally:
        served.close()
    np.testing.assert_allclose(answer["predictions"], expected, rtol=1e-5)
