"""One at a time, on any machine that writes to one MLflow server: what MLflow's aliases lack.

A registered model's name is unique in every MLflow store, and creating one that exists fails. So whoever creates the
model ``lock.<name>`` holds the lock, and deletes it afterwards. A holder that was killed leaves it behind: a waiter
breaks it when its process is gone or, on another machine, after a time for which no living holder keeps it.

Breaking is renaming, to a name that is made of the holder's token and that stays taken. Of several waiters who break
one lock only the first succeeds, and one who comes late cannot take away the lock of the next holder. One case is
left: a holder on another machine that falls asleep within its milliseconds, for longer than PATIENCE, and goes on.
"""

import logging
import random
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from deepmerge.tracking import processes

log = logging.getLogger(__name__)

PREFIX = "lock."
PATIENCE = 60.0  # seconds for which one holder is waited; locks are held for milliseconds
PAUSE = 0.05  # seconds between two tries, on average
REMEMBERED = 3600.0  # seconds for which the token of a broken lock stays taken
_CHANGED_MEANWHILE = ("RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST")


@contextmanager
def only_one(name: str) -> Iterator[None]:
    """Hold the lock of `name`, waiting for whoever has it."""
    token = acquire(name)
    try:
        yield
    finally:
        if holder_of(name).get("token") == token:
            with suppress(MlflowException):  # broken just now: not ours to delete
                MlflowClient().delete_registered_model(PREFIX + name)


def acquire(name: str) -> str:
    """Wait for the lock of `name` and take it; returns the token of this holder."""
    tags = {**processes.own(), "token": uuid.uuid4().hex, "since": datetime.now(UTC).isoformat(timespec="seconds")}
    waited_for, since = "", time.monotonic()
    while not create(name, tags):
        holder = holder_of(name)
        if holder.get("token", "") != waited_for:
            waited_for, since = holder.get("token", ""), time.monotonic()
        # The waiter's own clock alone counts, since those of several machines disagree.
        if processes.is_gone(holder) or time.monotonic() - since > PATIENCE:
            break_lock(name, holder)
        else:
            time.sleep(random.uniform(0.5, 1.5) * PAUSE)
    return tags["token"]


def create(name: str, tags: Mapping[str, str]) -> bool:
    """Whether the lock could be made, with `tags` that name its holder; False where somebody has it."""
    try:
        MlflowClient().create_registered_model(PREFIX + name, dict(tags), "A lock, held for milliseconds.")
    except MlflowException as error:
        if error.error_code not in _CHANGED_MEANWHILE:
            raise
        return False
    return True


def holder_of(name: str) -> dict[str, str]:
    """The tags of whoever holds the lock; none when nobody does."""
    try:
        return dict(MlflowClient().get_registered_model(PREFIX + name).tags)
    except MlflowException as error:
        if error.error_code not in _CHANGED_MEANWHILE:
            raise
        return {}


def break_lock(name: str, holder: Mapping[str, str]) -> None:
    """Take the lock away from a holder, unless somebody has done so already."""
    broken = f"{PREFIX}{name}.broken-"
    try:
        MlflowClient().rename_registered_model(PREFIX + name, broken + holder.get("token", ""))
    except MlflowException:
        return
    log.warning("The lock of %s was left by process %s on %s; broken", name, holder.get("pid"), holder.get("host"))
    for model in mlflow.search_registered_models(filter_string=f"name LIKE '{broken}%'"):
        if time.time() - model.last_updated_timestamp / 1000 > REMEMBERED:
            with suppress(MlflowException):
                MlflowClient().delete_registered_model(model.name)
