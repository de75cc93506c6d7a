"""How many processor cores this process may use."""

import os


def count_cores() -> int:
    """Cores that this process may use; all of the machine where the system cannot tell (macOS)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
