"""The process that started this command, `mlflow run` or `dvc`, without which it shall not go on.

Whoever stops a job stops the launcher; the command would train on and nobody would know of it.
"""

import json
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from deepmerge import stopping

LAUNCHER = "DEEPMERGE_LAUNCHER"  # names, as `processes.own` does, the `mlflow run` that started a command
PROCESS = "process"  # tag of a run: the process that writes it
PAUSE = 1.0  # seconds between two looks at it


def named() -> str:
    """This process, as a text from which `processes.is_gone` can tell whether it has ended."""
    from deepmerge.tracking import processes

    return json.dumps(processes.own())


@contextmanager
def announced() -> Iterator[None]:
    """In a launcher: let the commands that the body starts know which process it is."""
    os.environ[LAUNCHER] = named()
    try:
        yield
    finally:
        del os.environ[LAUNCHER]


def watch() -> None:
    """In a command: end it, in a thread of its own, when its launcher is gone; nothing where it has none."""
    if LAUNCHER not in os.environ and "DVC_STAGE" not in os.environ:
        return
    launcher = _announced() or _found()
    if launcher:
        threading.Thread(target=_end_with, args=(launcher,), daemon=True).start()


def _announced() -> Mapping[str, str]:
    # Not for what this command starts in turn, which ends with it.
    return dict(json.loads(os.environ.pop(LAUNCHER, "{}")))


def _found() -> Mapping[str, str]:
    """The `dvc` that started this command, perhaps by way of a shell."""
    import psutil

    from deepmerge.tracking import processes

    with suppress(psutil.Error):  # of a parent that may not be looked at, or is gone just now
        for parent in psutil.Process().parents():
            if any(Path(word).name == "dvc" for word in parent.cmdline()[:3]):
                return {**processes.own(), "pid": str(parent.pid), "started": str(parent.create_time())}
    return {}


def _end_with(launcher: Mapping[str, str]) -> None:
    from deepmerge.tracking import processes

    while not processes.is_gone(launcher):
        time.sleep(PAUSE)
    stopping.end("stopped: the process that had started it is gone")
