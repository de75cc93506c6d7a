"""MLflow runs: one run is one trained model with everything that is known of it."""

# ruff: noqa: F401 – the names are here for others to use

from mlflow.entities import Run

from deepmerge.tracking.runs.artifacts import (
    FINGERPRINT,
    artifact_folder,
    count_look,
    describe,
    log_data,
    log_environment,
    log_file,
    log_history,
    log_json,
    log_metrics,
    log_model,
    log_parameters,
    log_table,
    logged_steps,
    model_file,
    model_id,
    model_metadata,
    read_artifact,
    read_json,
    set_tags,
)
from deepmerge.tracking.runs.delivery import TRAINED
from deepmerge.tracking.runs.finding import (
    LAST,
    cut_off_from_its_study,
    find,
    newest,
    newest_studies,
    newest_study,
    others_if_reachable,
    running_children,
)
from deepmerge.tracking.runs.opening import (
    begin_below,
    child,
    choose_store,
    connect,
    continued,
    end_below,
    knows,
    log_below,
    new_run,
    project,
    put_below,
    reopened,
    store,
)
from deepmerge.tracking.runs.provenance import STARTED_IN
from deepmerge.tracking.runs.writing import active_id
