"""Whether an MLflow database in a file can be used: whole, and with its artifacts where it says they are."""

import re
import shlex
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import mlflow
from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.uri import is_local_uri
from sqlalchemy.exc import DatabaseError

from deepmerge.errors import InputError
from deepmerge.tracking import database, passwords

ARTIFACTS = "mlruns"  # where MLflow puts artifacts unless told otherwise
MOST = 1000  # runs whose artifacts are looked for


def require_sound(url: str) -> None:
    """Raise InputError where the tracking store is an sqlite file that cannot be used, or not without loss."""
    path = database.path_of(url)
    if path is None:
        return
    file = path.absolute()
    _require_openable(file)
    try:
        experiments = mlflow.search_experiments()
    except (DatabaseError, MlflowException) as error:
        words = str(error)
        if re.search("database is locked", words):
            raise
        if "mlflow db upgrade" in words:
            raise InputError(
                f"{file} should be a database of MLflow {mlflow.__version__}, got one of another version; take a "
                f"copy of it, then: {shlex.join(['mlflow', 'db', 'upgrade', passwords.hidden(url)])}"
            ) from None
        why = f"but: {' '.join(words.split(chr(10))[0].split())}"
        if re.search("already exists|duplicate column", words):
            why = "but a command that was stopped while making it left it half made"
        raise _damaged(file, why) from None
    for experiment in experiments:
        _require_in_place(experiment, file)


def _damaged(file: Path, why: str) -> InputError:
    return InputError(
        f"{file} should be a whole database of MLflow, {why}; bring back a copy, or move it away and the next "
        f"command makes a new one: {shlex.join(['mv', str(file), f'{file}.broken'])}"
    )


def _require_openable(file: Path) -> None:
    """Raise InputError where a file that is there cannot be opened as a database: MLflow tries that for 100 seconds."""
    try:
        with closing(sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True)) as connection:
            connection.execute("PRAGMA schema_version")
    except sqlite3.OperationalError as error:
        if file.exists() and "locked" not in str(error):
            raise _damaged(file, f"but it cannot be opened as a file: {error}") from None
    except sqlite3.DatabaseError:  # said below
        pass


def _require_in_place(experiment: Experiment, file: Path) -> None:
    """Raise InputError where the artifacts of an experiment seem to have moved; MLflow notes absolute paths.

    What it then wrote would go to the old path. An experiment whose artifacts lie elsewhere by choice is left alone.
    """
    if not is_local_uri(experiment.artifact_location):
        return
    noted = Path(local_file_uri_to_path(experiment.artifact_location))
    here = file.parent / ARTIFACTS / noted.name
    is_there = _exists(noted)
    if noted.resolve() == here.resolve() or (is_there and not here.exists()):
        return
    if not here.exists() and noted.is_relative_to(file.parent):  # nothing was logged yet
        return
    # Only a run that holds a model is sure to have left artifacts.
    trained = mlflow.search_runs([experiment.experiment_id], "tags.trained LIKE '%'", max_results=MOST)
    held = list(trained.get("run_id", ()))
    if is_there and any((here / run_id).exists() for run_id in held):
        state = f"{here} holds some of them, too: a copy of that project, or moved and then written to at the old path"
        mend = "work there, or bring both folders together there"
    elif not is_there and held:
        state, mend = "there is no such folder", "bring it back, if it was moved or its disk is missing"
        if noted.parent.name == ARTIFACTS:
            link = shlex.join(["ln", "-s", str(file.parent), str(noted.parents[1])])
            mend += f", or let the old path lead here: {link}"
    else:
        return
    raise InputError(
        f"artifacts of experiment {experiment.name!r} should lie in {noted}, as {file} says, but {state}; {mend}; or "
        f"move {file} away to begin anew"
    )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except PermissionError:  # somebody else's folder
        return False
