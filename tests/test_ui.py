import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from types import SimpleNamespace

import psutil
import pytest
from mlflow.tracking import MlflowClient

from deepmerge.errors import Failed, InputError
from deepmerge.tracking import plugin, runs, ui

ORIGIN = "http://127.0.0.1:5999"


def run(dataset, run_id="1" * 32):
    return SimpleNamespace(
        info=SimpleNamespace(run_id=run_id, experiment_id="7"), data=SimpleNamespace(tags={"dataset": dataset})
    )


@pytest.fixture
def tags(monkeypatch):
    """Experiment tags that are set, instead of a store."""
    found = {}

    class Client:
        def set_experiment_tag(self, experiment, key, value):
            found[experiment, key] = value

    monkeypatch.setattr(ui, "MlflowClient", Client)
    return found


@pytest.fixture
def free_port():
    with socket.socket() as probe:
        probe.bind((ui.HOST, 0))
        return probe.getsockname()[1]


@pytest.fixture
def no_server(monkeypatch):
    def refuse(*arguments, **settings):
        raise AssertionError(f"no server should start, but {arguments}")

    monkeypatch.setattr(ui.subprocess, "Popen", refuse)


def heed_signals():
    """As from a terminal: a job in the background may have been started with these ignored."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def test_the_address_leads_to_the_shared_view_of_the_compared_runs(tags):
    page = ui.comparison_page([run("pristine", "a" * 32), run("noisy", "b" * 32)], ORIGIN)
    path, query = page.removeprefix(f"{ORIGIN}/#").split("?")
    asked = dict(urllib.parse.parse_qsl(query))
    assert path == "/experiments/7/runs"
    assert asked["workflowType"] == "machine_learning"
    [(key, state)] = tags.items()
    assert key == ("7", f"mlflow.sharedViewState.{asked['viewStateShareKey']}")
    assert json.loads(state)["searchFilter"] == f"attributes.run_id IN ('{'a' * 32}', '{'b' * 32}')"


def test_the_view_shows_columns_by_names_that_the_ui_understands(tags):
    ui.comparison_page([run("pristine")], ORIGIN)
    columns = json.loads(next(iter(tags.values())))["selectedColumns"]
    assert "metrics.`test_auc`" in columns
    assert "params.`dataset`" in columns
    assert all(re.fullmatch(r"(attributes|metrics|params|tags)\.`\w+`", column) for column in columns)


def test_without_a_trained_model_no_server_starts(monkeypatch, no_server, tags):
    monkeypatch.setattr(runs, "newest", lambda datasets: [])
    with pytest.raises(InputError, match=r"trained model of pristine or noisy in .* found none; train one with"):
        ui.serve(5999, ("pristine", "noisy"))
    assert tags == {}


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_a_port_that_anything_listens_on_is_refused(monkeypatch, no_server, tags, address):
    monkeypatch.setattr(runs, "newest", lambda datasets: [run("pristine")])
    with socket.socket() as mute:  # accepts and never answers, so it is no web server
        mute.bind((address, 0))
        mute.listen()
        port = mute.getsockname()[1]
        with pytest.raises(InputError, match=f"port should be free, but 127.0.0.1:{port} is taken.*--port"):
            ui.serve(port, ("pristine",))
    assert tags == {}


def test_a_server_that_dies_at_once_is_reported_and_not_waited_for(monkeypatch, tags, free_port):
    monkeypatch.setattr(runs, "newest", lambda datasets: [run("pristine")])
    monkeypatch.setattr(ui.sys, "executable", "/bin/false")
    with pytest.raises(Failed, match=f"did not start; try: mlflow server --host 127.0.0.1 --port {free_port}"):
        ui.serve(free_port, ("pristine",))


def test_the_password_of_the_store_is_neither_an_argument_nor_printed(monkeypatch, tags, free_port, capsys):
    seen = []

    class Server:
        def __init__(self, command, env, **settings):
            seen.append((command, env))
            raise KeyboardInterrupt

    monkeypatch.setattr(runs, "newest", lambda datasets: [run("pristine")])
    monkeypatch.setattr(ui.subprocess, "Popen", Server)
    monkeypatch.setattr(ui.mlflow, "get_tracking_uri", lambda: "postgresql://me:s3cret@host/db")
    with pytest.raises(KeyboardInterrupt):
        ui.serve(free_port, ("pristine",))
    [(command, env)] = seen
    assert "s3cret" not in " ".join(command)
    assert env["MLFLOW_BACKEND_STORE_URI"] == "postgresql://me:s3cret@host/db"
    monkeypatch.setattr(ui.mlflow, "get_tracking_uri", lambda: "http://me:s3cret@host:5000")
    ui.serve(free_port, ("pristine",))
    printed = capsys.readouterr().out
    assert "http://me@host:5000/#/experiments/7/runs" in printed
    assert "s3cret" not in printed


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store with a trained run of each variant: environment of the command, experiment and run ids."""
    folder = tmp_path_factory.mktemp("ui")
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.create_experiment(plugin.EXPERIMENT, (folder / "artifacts").as_uri())
    ids = []
    for dataset in ("pristine", "noisy"):
        created = client.create_run(experiment, tags={"dataset": dataset, runs.TRAINED: "yes"})
        client.log_metric(created.info.run_id, "test_auc", 0.8)
        client.set_terminated(created.info.run_id)
        ids.append(created.info.run_id)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    environment["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
    return folder, environment, experiment, ids


def get(address):
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(address, timeout=30) as answer:
        return answer.read().decode()


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda end: end.name)
def test_the_real_server_serves_the_comparison_and_leaves_no_process_behind(store, free_port, end):
    folder, environment, experiment, ids = store
    command = [sys.executable, "-m", "deepmerge", "ui", "--port", str(free_port)]
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_signals,
    )
    try:
        printed = [process.stdout.readline() for _ in range(2)]
        origin = f"http://127.0.0.1:{free_port}"
        assert printed[0].split() == ["MLflow", "UI", origin], process.stderr.read() if process.poll() else printed
        page = printed[1].split()[-1]
        assert page.startswith(f"{origin}/#/experiments/{experiment}/runs?")
        assert get(f"{origin}/health") == "OK"
        answer = json.loads(get(f"{origin}/api/2.0/mlflow/experiments/get?experiment_id={experiment}"))
        tags = {tag["key"]: tag["value"] for tag in answer["experiment"]["tags"]}
        key = dict(urllib.parse.parse_qsl(page.split("?")[1]))["viewStateShareKey"]
        assert all(run_id in tags[f"mlflow.sharedViewState.{key}"] for run_id in ids)
        servers = psutil.Process(process.pid).children(recursive=True)
        listening = {
            line.laddr.ip for server in servers for line in server.net_connections() if line.status == "LISTEN"
        }
        assert listening == {"127.0.0.1"}
        # What every user of the machine can read; the address of a store may hold a password.
        assert not [server for server in servers if "mlflow.db" in " ".join(server.cmdline())]
    finally:
        process.send_signal(end)
        _, errors = process.communicate(timeout=60)
    assert servers
    assert psutil.wait_procs(servers, timeout=20)[1] == []
    assert process.returncode == (0 if end == signal.SIGINT else 128 + end)
    assert "Traceback" not in errors
    with pytest.raises(urllib.error.URLError):
        get(f"{origin}/health")
