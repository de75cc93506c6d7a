"""Databases in sqlite files that are there whole or not at all.

MLflow and Optuna make their tables one by one in the file that all commands open. Two commands at once, or one that is
killed meanwhile, would leave a file in which no command can go on.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy
from filelock import FileLock

from deepmerge.errors import InputError

PATIENCE = 120  # seconds for which another process that makes the same database is waited; it takes two


LOCKED = 60  # seconds for which a database that another process has locked is waited


def wait_for_locks() -> None:
    """Let MLflow wait LOCKED seconds for an sqlite database that is locked; it says 20 itself, at each session."""
    if not sqlalchemy.event.contains(sqlalchemy.Engine, "before_cursor_execute", _more_patient):
        sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", _more_patient, retval=True)


def _more_patient(connection: Any, cursor: Any, statement: str, parameters: Any, *others: Any) -> tuple[str, Any]:
    if statement.startswith("PRAGMA busy_timeout"):
        statement = f"PRAGMA busy_timeout = {1000 * LOCKED};"
    return statement, parameters


def path_of(url: str) -> Path | None:
    """The file of an sqlite URL; None for other databases and for those in memory."""
    try:
        parsed = sqlalchemy.make_url(url)
    except (sqlalchemy.exc.ArgumentError, ValueError):  # no URL; a port that is no number
        return None
    name = parsed.database
    if parsed.get_backend_name() != "sqlite" or not name or name == ":memory:" or name.startswith("file:"):
        return None
    return Path(name)


def make(url: str, fill: Callable[[str], None], parents: bool = False) -> None:
    """Make the sqlite database of `url` unless it is there; nothing for other databases.

    `fill` makes the tables in the database whose URL it gets. That lies aside and takes its place when it is whole.
    With `parents` its folder is made too; without, nothing happens where there is none, and who opens the database says
    so. Raises InputError where that place cannot be written to.
    """
    path = path_of(url)
    if path is None or _is_there(path):
        return
    aside, lock = path.with_name(f"{path.name}.new"), path.with_name(f"{path.name}.lock")
    leftovers = (aside, aside.with_name(f"{aside.name}-journal"))  # of a process that was killed
    try:
        if parents:
            path.parent.mkdir(parents=True, exist_ok=True)
        if not path.parent.is_dir():
            return
        with FileLock(lock, timeout=PATIENCE):
            if not _is_there(path):
                for old in leftovers:
                    old.unlink(missing_ok=True)
                place = sqlalchemy.make_url(url).set(database=str(aside))
                fill(place.render_as_string(hide_password=False))
                aside.replace(path)
            lock.unlink(missing_ok=True)  # whoever comes from now on finds the database
    except OSError as error:
        raise InputError(f"{path} should be a database that can be made, but: {error}") from None


def make_store(url: str) -> None:
    """Make MLflow's database at `url` as `make` does, with the folder that it lies in, as MLflow would."""

    def fill(place: str) -> None:
        from mlflow.store.db import utils

        engine = sqlalchemy.create_engine(place)
        utils._initialize_tables(engine)  # no public function does it; MLflow's version is pinned
        engine.dispose()

    make(url, fill, parents=True)


def _is_there(path: Path) -> bool:
    try:
        return path.stat().st_size > 0  # merely to connect leaves an empty file
    except OSError:
        return False
