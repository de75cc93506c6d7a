"""MLflow runs: one run is one trained model with everything that is known of it."""

import os

# The environment is set before MLflow is imported: it reads these then.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "false")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

from mlflow.entities import Run

from deepmerge.tracking.runs.artifacts import (
    FINGERPRINT,
    TRAINED,
    artifact_folder,
    describe,
    log_data,
    log_file,
    log_json,
    log_metrics,
    log_model,
    log_parameters,
    log_table,
    model_file,
    model_metadata,
    read_artifact,
    read_json,
    set_tags,
)
from deepmerge.tracking.runs.finding import LAST, find, newest, newest_studies, newest_study, running_children
from deepmerge.tracking.runs.opening import (
    DATABASE,
    FAILURE,
    abandon,
    active_id,
    child,
    connect,
    continued,
    for_workers,
    knows,
    new_run,
    project,
    reopened,
    store,
)
from deepmerge.tracking.runs.provenance import STARTED_IN, log_environment

__all__ = [
    "DATABASE",
    "FAILURE",
    "FINGERPRINT",
    "LAST",
    "STARTED_IN",
    "TRAINED",
    "Run",
    "abandon",
    "active_id",
    "artifact_folder",
    "child",
    "connect",
    "continued",
    "describe",
    "find",
    "for_workers",
    "knows",
    "log_data",
    "log_environment",
    "log_file",
    "log_json",
    "log_metrics",
    "log_model",
    "log_parameters",
    "log_table",
    "model_file",
    "model_metadata",
    "new_run",
    "newest",
    "newest_studies",
    "newest_study",
    "project",
    "read_artifact",
    "read_json",
    "reopened",
    "running_children",
    "set_tags",
    "store",
]
