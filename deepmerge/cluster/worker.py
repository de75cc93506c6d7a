"""What a worker of a Dask cluster does: it gets ready, proves to be like the command, and does a piece of work."""

import logging
import os
import pickle
import random
import signal
import sys
import threading
from collections.abc import Mapping
from contextlib import chdir
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from distributed import WorkerPlugin, get_worker
from threadpoolctl import threadpool_limits

from deepmerge.closure import PACKAGE, fingerprint
from deepmerge.cluster.cores import WORKER
from deepmerge.errors import InputError
from deepmerge.loading import quietly

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")  # which libraries ask when they are loaded
PACKAGES = ("tensorflow", "keras", "numpy", "pandas")  # whose versions have to be those of the command
_ONE = threading.Lock()  # in a worker of several threads: these are for one piece of work


def _draw_apart() -> None:
    """Let Dask draw random numbers of its own.

    Its threads draw from Python's generator at any moment (to guess the size of a list, say), from which Keras seeds
    layers: no training would repeat.
    """
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in ("dask", "distributed", "tornado") and getattr(module, "random", None) is random:
            module.random = random.Random()  # type: ignore[attr-defined]


_draw_apart()


class Setup(WorkerPlugin):
    """What each worker does when it joins."""

    def __init__(self, is_local: bool) -> None:
        self.is_local = is_local

    async def setup(self, worker: Any) -> None:
        """Know the threads and the GPU that it may use."""
        identity()  # as long as this is the code that was imported
        os.environ |= dict.fromkeys(THREADS, str(worker.state.nthreads))
        threadpool_limits(worker.state.nthreads)  # of what was loaded before, such as numpy's BLAS
        if self.is_local:
            os.environ[WORKER] = str(worker.name)
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the command ends its workers
            logging.getLogger("deepmerge").setLevel(logging.ERROR)  # the command itself has said it


@cache
def identity() -> dict[str, str]:
    """What has to be the same in all processes that work together: code, Python, and packages, by name."""
    files = [path.relative_to(PACKAGE.parent).as_posix() for path in PACKAGE.rglob("*.py")]
    found = {"deepmerge (its code)": fingerprint(files), "Python": ".".join(map(str, sys.version_info[:2]))}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return found


def differences(wanted: Mapping[str, str], folder: str) -> str | None:
    """What is wrong with this process, behind its name; None where nothing is."""
    own = identity()
    for name, value in wanted.items():
        if own[name] != value:
            mend = "install the same there, and start it anew"
            return f"should have {name} {value}, as the command has, got {own[name]}; {mend}"
    if not Path(folder).is_dir():
        return f"should see the folder of the command, {folder}, but does not; workers read the same paths"
    return None


def do(order: tuple[dict[str, str], str, str], number: int | None, pickled: bytes, *sent: Any) -> Any:
    """In a worker: do a piece of work in the folder of the command."""
    wanted, folder, topic = order
    worker = get_worker()
    problem = differences(wanted, folder)
    if problem is not None:
        raise InputError(f"worker {worker.address} {problem}")
    with quietly():  # it may import TensorFlow
        work = pickle.loads(pickled)
    key = worker.get_current_task()

    def report(said: Any) -> bool:
        worker.log_event(topic, (number, said))
        state = worker.state.tasks.get(key)
        return state is not None and state.state == "executing"

    with _ONE, chdir(folder):
        return work(*sent) if number is None else work(*sent, report=report)
