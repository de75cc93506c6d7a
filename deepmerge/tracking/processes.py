"""Processes, named so that others can tell whether they still run."""

import platform
from collections.abc import Mapping

import psutil


def own() -> dict[str, str]:
    """What names this process among all machines: host, pid, and when it started, since pids are given out again."""
    process = psutil.Process()
    return {"host": platform.node(), "pid": str(process.pid), "started": str(process.create_time())}


def is_gone(process: Mapping[str, str]) -> bool:
    """Whether a process named by `own` ran on this machine and has ended; False for other machines."""
    if process.get("host") != platform.node():
        return False
    try:
        running = psutil.Process(int(process["pid"]))
        # The moment of the start is rounded differently now and then.
        return abs(running.create_time() - float(process["started"])) > 1 or running.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
