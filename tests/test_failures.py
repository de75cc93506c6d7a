import sqlite3
import subprocess
import sys

import pytest
from mlflow.exceptions import MlflowException, RestException
from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import IntegrityError, OperationalError

from deepmerge.errors import Failed, InputError
from deepmerge.tracking import failures

DISK_FULL = OperationalError("UPDATE runs SET a = 1", {}, sqlite3.OperationalError("database or disk is full"))
LOCKED = StorageInternalError("An exception is raised during the commit.")
LOCKED.__cause__ = OperationalError("COMMIT", {}, sqlite3.OperationalError("database is locked"))
SHOWN = {
    "MLflow": (MlflowException("no answer\nfrom  http://host"), "no answer from http://host"),
    "an MLflow server": (RestException({"error_code": "NOT_FOUND", "message": "no run"}), "NOT_FOUND: no run"),
    "a database": (DISK_FULL, failures.FULL),
    "the database of Optuna": (LOCKED, "(sqlite3.OperationalError) database is locked" + failures.LOCKED),
}


@pytest.mark.parametrize("name", SHOWN)
def test_a_failure_of_a_library_is_told_in_its_own_words_in_one_line(name):
    error, words = SHOWN[name]
    with pytest.raises(Failed) as failed, failures.explained():
        raise error
    assert str(failed.value) == words
    assert failed.value.__cause__ is error


@pytest.mark.parametrize(
    "error",
    [InputError("wrong"), KeyError("x"), SystemExit(3), KeyboardInterrupt(), IntegrityError("", {}, Exception())],
)
def test_everything_else_stays_what_it_is(error):
    with pytest.raises(type(error)) as raised, failures.explained():
        raise error
    assert raised.value is error


def test_libraries_that_are_not_loaded_are_not_loaded_to_know_their_failures():
    code = (
        "import sys\nfrom deepmerge.tracking import failures\n"
        "try:\n    with failures.explained(): raise ValueError('x')\n"
        "except ValueError: print(sorted({'mlflow', 'optuna', 'sqlalchemy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
