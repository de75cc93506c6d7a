"""How MLflow behaves in our processes, unless the environment says otherwise."""

import logging
import os
import sys

TELEMETRY = "MLFLOW_DISABLE_TELEMETRY"
VARIABLES = {
    TELEMETRY: "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",  # of models that others could have written to: it runs their code
    "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",  # twelve seconds in which nobody answers; MLflow says four minutes
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


def prepare() -> None:
    """Set what is not set and quiet one logger, when a command begins or else when a run is opened or looked for."""
    is_new = TELEMETRY not in os.environ
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)
    # It logs the traceback of what it raises, and how it makes its tables.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    if is_new and "mlflow.telemetry" in sys.modules:  # in a notebook; MLflow reads this variable when it is imported
        sys.modules["mlflow.telemetry"].set_telemetry_client()
