"""Failures of MLflow, of Optuna and of their databases, told in one line."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from deepmerge.errors import Failed

# Importing these takes seconds, so that only those are looked for whose library is loaded.
CLASSES = {
    "mlflow.exceptions": "MlflowException",
    "optuna.exceptions": "StorageInternalError",
    "sqlalchemy.exc": "OperationalError",
}
LOCKED = ": another process keeps it so, which was waited for; see which one it is, or try again"
FULL = "no space left for a database, mlflow.db or that of the studies; make room, then run the same command again"
STATEMENT = r"\[SQL|\(Background"  # how SQLAlchemy begins what it adds to the words of a database


@contextmanager
def explained() -> Iterator[None]:
    """Raise Failed, with the words of the library, in place of such a failure in the body."""
    try:
        yield
    except tuple(getattr(sys.modules[module], name) for module, name in CLASSES.items() if module in sys.modules) as e:
        # Optuna hides the words of its database behind its own; databases add the statement and a link.
        words = str(e.__cause__ if type(e).__name__ == "StorageInternalError" else e)
        said = " ".join(re.split(STATEMENT, words)[0].split())
        if "database or disk is full" in said:
            raise Failed(FULL) from e
        raise Failed(said + LOCKED * ("database is locked" in said)) from e
