"""How many processor cores this process may use, and how many threads each of several processes should."""

import os

from deepmerge.errors import InputError

# Number of a worker among those that a command started, from 0; each takes one GPU, where there are several.
WORKER = "DEEPMERGE_WORKER"


def count_cores() -> int:
    """Cores that this process may use; all of the machine where the system cannot tell (macOS)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def threads_each(processes: int = 1) -> int:
    """Threads of each of so many processes at work together: OMP_NUM_THREADS, or else an even share of the cores."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    if told and not (told.isdecimal() and int(told)):
        raise InputError(f"OMP_NUM_THREADS should be a whole number from 1, got {told!r}")
    return int(told) if told else max(1, count_cores() // processes)
