"""One at a time on this machine, for changes that MLflow's store makes in several steps.

Between machines nobody is kept out: whoever moves an alias reads it again right before, and gives up where it changed.
What is left are the milliseconds between that look and the move.
"""

import getpass
import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
from filelock import FileLock


@contextmanager
def only_one(name: str) -> Iterator[None]:
    """Wait for the processes of this user on this machine that hold `name` in the same store, and hold it.

    A lock goes with its process, however that ends.
    """
    digest = hashlib.sha256(f"{mlflow.get_tracking_uri()} {name}".encode()).hexdigest()[:32]
    folder = Path(tempfile.gettempdir(), f"deepmerge-locks-{getpass.getuser()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    with FileLock(folder / digest):
        yield
