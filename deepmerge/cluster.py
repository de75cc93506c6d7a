"""Work shared among processes of this machine: how many cores there are, and a map over them."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

from deepmerge.errors import InputError

# Number of a worker among those that a command started, from 0; each takes one GPU, where there are several.
WORKER = "DEEPMERGE_WORKER"


@contextmanager
def mapping(workers: int) -> Iterator[Callable[..., Iterator[Any]]]:
    """Yield a `map` that shares its work among `workers` processes; a single worker is this process itself.

    Results come in the order of the work. An error, or Ctrl-C, ends the processes.
    """
    if workers <= 1:
        yield map
        return
    # Fresh processes: forking one in which TensorFlow has started threads can hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    try:
        yield pool.map
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, which then stops the workers; exit when the parent exits."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)


def count_cores() -> int:
    """Cores that this process may use; all of the machine's where the system does not say (macOS)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def threads_each(processes: int = 1) -> int:
    """Threads for each of `processes` that run at once: OMP_NUM_THREADS, or else an even share of the cores."""
    number = os.environ.get("OMP_NUM_THREADS", "")
    if number and not (number.isdecimal() and int(number)):
        raise InputError(f"OMP_NUM_THREADS should be a whole number from 1, got {number!r}")
    return int(number) if number else max(1, count_cores() // processes)
