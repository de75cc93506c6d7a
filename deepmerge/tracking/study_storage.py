"""Where studies are kept: a database that any number of workers share, opened so that no trial is taken twice."""

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import optuna
import sqlalchemy
from optuna.exceptions import ExperimentalWarning
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial

from deepmerge.errors import InputError
from deepmerge.tracking import database, passwords, runs

DATABASE = "optuna.db"
OPENINGS = 3  # tries to open a database on a server
HEARTBEAT = 10  # seconds; a worker on another machine counts as dead after six missed beats
GRACE = 60
PAUSE = 1.0  # seconds between two tries


def default_storage() -> str:
    """Where studies are kept unless the user says otherwise: ``optuna.db`` beside ``mlflow.db``."""
    return f"sqlite:///{runs.project() / DATABASE}"


def open_storage(url: str, on_stale: Callable[[optuna.Study, FrozenTrial], None]) -> RDBStorage:
    """Open a database of studies; Optuna calls `on_stale` with trials whose worker no longer gives a sign of life.

    Raises InputError where it cannot be opened.
    """
    waiting = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {"pool_pre_ping": True}
    beats: dict[str, Any] = {"heartbeat_interval": HEARTBEAT, "grace_period": GRACE}
    with without_warnings():
        database.make(url, _make_tables)
    for attempt in range(OPENINGS):
        try:
            with without_warnings():
                storage = RDBStorage(url, waiting, **beats, heartbeat_stale_trial_callback=on_stale)
            if url.startswith("sqlite"):
                _lock_before_reading(storage)
            return storage
        except ImportError:
            raise InputError(
                f"storage should be a database whose driver is installed, got {passwords.hidden(url)}; for PostgreSQL: "
                "pip install 'deepmerge-lab[postgres]' and postgresql+psycopg://…"
            ) from None
        except Exception as error:  # of SQLAlchemy, its dialects and their drivers
            why = passwords.scrubbed(" ".join(str(error).split()), url)[:300]
        if attempt < OPENINGS - 1:
            time.sleep(PAUSE)  # of several that make the tables on a new server at once all but one fail
    raise InputError(
        f"storage should be the URL of a database that can be reached, such as {default_storage()}, got "
        f"{passwords.hidden(url)}: {why}"
    )


def _make_tables(url: str) -> None:
    RDBStorage(url).engine.dispose()


def _lock_before_reading(storage: RDBStorage) -> None:
    """Let each transaction lock an sqlite database before it reads.

    Optuna reads that a queued trial waits and then takes it, and asks for a lock on its row, which sqlite has not: two
    workers that ask at the same moment could both get the trial. How, says SQLAlchemy's page on its sqlite dialect
    ("Serializable isolation"): the driver, which would begin its transactions at the first change, is kept from it.
    """

    @sqlalchemy.event.listens_for(storage.engine, "connect")
    def leave_transactions_to_us(connection: Any, record: object) -> None:
        connection.isolation_level = None

    @sqlalchemy.event.listens_for(storage.engine, "begin")
    def begin(connection: sqlalchemy.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    storage.engine.dispose()  # connections from before do not know of it


@contextmanager
def without_warnings() -> Iterator[None]:
    """Without Optuna's warnings that heartbeats may change: its version is pinned."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield
