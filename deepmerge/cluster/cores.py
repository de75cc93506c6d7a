"""What a process may use of this machine: cores, threads, GPUs."""

import os
from pathlib import Path

from deepmerge.errors import InputError

# Number of a worker among those that a command started, from 0; each takes one GPU, where there are several.
WORKER = "DEEPMERGE_WORKER"
_GPUS = Path("/proc/driver/nvidia/gpus")  # where NVIDIA's driver on Linux lists them


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


def count_side_by_side() -> int:
    """How many networks are best trained at a time here: one a GPU or, where there is none, one a core."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        gpus = len([number for number in visible.split(",") if number.strip() not in ("", "-1")])
    else:
        gpus = len(list(_GPUS.iterdir())) if _GPUS.is_dir() else 0
    return gpus or count_cores()
