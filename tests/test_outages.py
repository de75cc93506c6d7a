import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import mlflow
import pytest
from conftest import environment

pytestmark = pytest.mark.slow

SERVER = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--workers", "1"]


@pytest.fixture
def server(tmp_path):
    """Starts MLflow's server, always at the same port and on the same data; it is ended with the test."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = []

    def start():
        where = ["--port", str(port), "--backend-store-uri", f"sqlite:///{tmp_path}/server.db"]
        kept = ["--artifacts-destination", str(tmp_path / "kept"), "--serve-artifacts"]
        process = subprocess.Popen(
            [*SERVER, *where, *kept],
            cwd=tmp_path,
            env=environment(MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        started.append(process)
        for _ in range(1200):
            if answers(f"http://127.0.0.1:{port}/health"):
                return process, f"http://127.0.0.1:{port}"
            time.sleep(0.1)
        raise AssertionError("the server did not start")

    yield start
    for process in started:
        end(process)


def end(process):
    """Kill a server with its children, as a power cut does."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(url):
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=2):
            return True
    except OSError:
        return False


def test_a_server_that_is_killed_in_a_training_gets_all_of_it_by_sync(server, write_sample, tmp_path):
    sample = write_sample(training={"epochs": 6, "patience": 6})
    process, url = server()
    work = tmp_path / "work"
    work.mkdir()
    variables = environment(MLFLOW_TRACKING_URI=url, MLFLOW_HTTP_REQUEST_MAX_RETRIES="1")
    command = [sys.executable, "-m", "deepmerge"]
    training = subprocess.Popen(
        [*command, "main", str(sample)],
        cwd=work,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    client = mlflow.MlflowClient(url)
    run_id = None
    while run_id is None or not client.get_metric_history(run_id, "val_loss"):
        assert training.poll() is None, training.communicate()
        experiment = client.get_experiment_by_name("deepmerge")
        found = client.search_runs([experiment.experiment_id]) if experiment else []
        run_id = found[0].info.run_id if found else None
        time.sleep(0.1)
    end(process)
    output, errors = training.communicate(timeout=1200)
    assert training.returncode == 1, errors
    assert "test_auc" in output, errors  # the work was done
    assert errors.strip().splitlines()[-1].startswith("Error: the tracking server did not take all of run " + run_id)
    assert "Traceback" not in errors
    server()
    sent = subprocess.run([*command, "sync"], cwd=work, env=variables, capture_output=True, text=True, check=True)
    assert "delivered" in sent.stdout
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert [m.step for m in client.get_metric_history(run_id, "val_loss")] == [1, 2, 3, 4, 5, 6]
    assert len(client.get_metric_history(run_id, "test_auc")) == 1
    [model] = client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run_id}'")
    assert [output.model_id for output in run.outputs.model_outputs] == [model.model_id]
    artifacts = {file.path for file in client.list_artifacts(run_id)}
    assert artifacts >= {"experiment.json", "split.csv", "predictions.parquet", "gallery.html", "figures", "saliency"}
    done = subprocess.run(
        [*command, "evaluate", str(sample)], cwd=work, env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert run_id in done.stdout
