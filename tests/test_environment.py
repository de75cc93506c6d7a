import os
import subprocess
import sys
from unittest import mock

import pytest

from deepmerge.tracking import environment


@pytest.fixture(autouse=True)
def variables():
    """An environment in which nothing is told to MLflow."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    with mock.patch.dict(os.environ, others, clear=True):
        yield


def test_what_the_environment_leaves_open_is_set_and_what_it_says_stays():
    os.environ["MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"] = "true"
    environment.prepare()
    assert {name: os.environ[name] for name in environment.VARIABLES} == {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    }


@pytest.mark.slow  # a fresh Python that imports MLflow
def test_to_import_the_package_sets_nothing_and_telemetry_ends_when_a_run_is_opened_all_the_same():
    code = """
import os
from deepmerge.tracking import environment, runs
assert not set(environment.VARIABLES) & set(os.environ)
from mlflow.telemetry import client
environment.prepare()
print(client.get_telemetry_client())
"""
    others = {name: value for name, value in os.environ.items() if name not in ("CI", "PYTEST_CURRENT_TEST")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=others)
    assert (done.stdout, done.returncode) == ("None\n", 0), done.stderr
