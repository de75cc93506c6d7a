"""The MLflow UI on this machine, with a page that compares runs and shows their metrics."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import suppress

import mlflow
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from deepmerge.errors import Failed, InputError
from deepmerge.tracking import runs

HOST = "127.0.0.1"
START_SECONDS = 90
VIEW = "deepmerge-newest"
# Columns that the page shows, most asked for first; without this the UI hides all metrics.
METRICS = ("auc", "balanced_accuracy", "purity_at_balance", "completeness", "brier_at_balance")
COLUMNS = [
    "params.`dataset`",
    *(f"metrics.`test_{name}`" for name in METRICS),
    *(f"params.`{name}`" for name in ("dropout", "l2", "learning_rate", "seed")),
    *(f"tags.`{name}`" for name in ("data_source", "split")),
]


def comparison_page(compared: Sequence[Run], origin: str) -> str:
    """Address of the page of `origin` that compares runs of one experiment.

    The state of the page (which runs, which columns) is kept as a shared view on the experiment, as the UI's own
    Share button does; the address also asks for the model-training mode, since the UI opens in its GenAI mode.
    """
    ids = ", ".join(f"'{run.info.run_id}'" for run in compared)
    state = {
        "searchFilter": f"attributes.run_id IN ({ids})",
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "selectedColumns": COLUMNS,
    }
    experiment = compared[0].info.experiment_id
    MlflowClient().set_experiment_tag(experiment, f"mlflow.sharedViewState.{VIEW}", json.dumps(state))
    return f"{origin}/#/experiments/{experiment}/runs?workflowType=machine_learning&viewStateShareKey={VIEW}"


def serve(port: int, datasets: Sequence[str]) -> None:
    """Run the MLflow UI on loopback until Ctrl-C, and print the page that compares the newest run of each data set.

    Raises InputError when the store holds no trained model yet, or the port is taken.
    """
    compared = runs.newest(datasets)
    if not compared:
        raise InputError(
            f"expected a trained model of {' or '.join(datasets)} in {runs.store()}, found none; "
            "train one with 'mlflow run . -P dataset=pristine'"
        )
    store = mlflow.get_tracking_uri()
    names = " and ".join(run.data.tags["dataset"] for run in compared)
    if store.startswith("http"):
        print(f"newest {names:24} {comparison_page(compared, runs.store())}")
        return
    origin = f"http://{HOST}:{port}"
    if _taken(port):
        raise InputError(f"port should be free, but {HOST}:{port} is taken; choose another with --port")
    page = comparison_page(compared, origin)
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"],
        # Every user of the machine can read arguments, and the address may hold a password. The job runners are seven
        # processes that nothing here uses.
        env={**os.environ, "MLFLOW_BACKEND_STORE_URI": store, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _answers(origin):
            if server.poll() is not None or time.monotonic() > deadline:
                raise Failed(f"the MLflow server did not start; try: mlflow server --host {HOST} --port {port}")
            time.sleep(0.2)
        print(f"MLflow UI                       {origin}\nnewest {names:24} {page}\nCtrl-C ends it.", flush=True)
        server.wait()
    except KeyboardInterrupt:
        pass
    finally:
        # The server's own children belong to its session, which is gone when the server ended by itself.
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        # As the server does it: a port whose last connections are still closing is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return True
    return False


def _answers(origin: str) -> bool:
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{origin}/health", timeout=2):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
