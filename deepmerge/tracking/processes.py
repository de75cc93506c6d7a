"""Who works on something: a process, named so that others can tell whether it still runs."""

import platform
from collections.abc import Mapping

import psutil


def own() -> dict[str, str]:
    """What names this process among all machines: host, pid, and when it started, since pids are given out again."""
    process = psutil.Process()
    return {"host": platform.node(), "pid": str(process.pid), "started": str(process.create_time())}


def is_gone(process: Mapping[str, str]) -> bool:
    """Whether a process named by `own` ran on this machine and does no more; False where that cannot be known."""
    if process.get("host") != platform.node():
        return False
    try:
        found = psutil.Process(int(process["pid"]))
        # The moment of the start is rounded differently now and then.
        return abs(found.create_time() - float(process["started"])) > 1 or found.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
