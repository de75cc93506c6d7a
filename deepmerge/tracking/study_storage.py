"""Where studies are kept: a database, and the lock by which one command at a time works on a study."""

import hashlib
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy
from filelock import FileLock, Timeout
from optuna.exceptions import ExperimentalWarning
from optuna.storages import RDBStorage

from deepmerge.errors import InputError
from deepmerge.tracking import database, passwords, runs

DATABASE = "optuna.db"
OPENINGS = 3  # tries to open a database on a server
PAUSE = 1.0  # seconds between two tries


def default_storage() -> str:
    """Where studies are kept unless the user says otherwise: ``optuna.db`` beside ``mlflow.db``."""
    return f"sqlite:///{runs.project() / DATABASE}"


def open_storage(url: str) -> RDBStorage:
    """Open a database of studies. Raises InputError where it cannot be opened."""
    waiting = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {"pool_pre_ping": True}
    with without_warnings():
        database.make(url, _make_tables)
    for attempt in range(OPENINGS):
        try:
            with without_warnings():
                return RDBStorage(url, waiting)
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


@contextmanager
def alone(url: str, study: str) -> Iterator[None]:
    """Hold the lock of a study in a database, which goes with its process however that ends.

    Raises InputError where another command holds it. Beside an sqlite file it is a file; in PostgreSQL an advisory
    lock, which any machine sees; other databases have none.
    """
    refusal = InputError(f"one command at a time can work on a study, got a second one on {study}; wait for the first")
    path = database.path_of(url)
    if path is not None:
        lock = FileLock(path.with_name(f"{path.name}.{study}.lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise refusal from None
        try:
            yield
        finally:
            lock.release()
        return
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            key = int.from_bytes(hashlib.sha256(study.encode()).digest()[:8], signed=True)
            if not connection.execute(sqlalchemy.select(sqlalchemy.func.pg_try_advisory_lock(key))).scalar():
                raise refusal
        yield


@contextmanager
def without_warnings() -> Iterator[None]:
    """Without Optuna's warnings that what queues a trial again may change: its version is pinned."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield
