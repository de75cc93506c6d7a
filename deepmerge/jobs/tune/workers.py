"""Worker processes that do one job together and end with the process that started them."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

from deepmerge.cluster import WORKER
from deepmerge.errors import Failed

log = logging.getLogger(__name__)

PAUSE = 0.5  # seconds between two looks at the workers
CLOSING_SECONDS = 60  # that a worker has to close its books when it is to end
# After which it is told again: Python drops what a signal raises where garbage is being collected.
TOLD_AGAIN = 10
# So many workers may be killed in a row while nothing gets finished. More than a single job that kills its worker
# (by its hunger for memory, say) is tried.
MOST_LOST = 8


_told = threading.Event()


class WorkerFailed(Failed):
    """A worker could not go on; its own message says why."""


class Workers:
    """Processes of ``deepmerge work``, each with the same order on its standard input.

    A context: at its end, however it comes, no worker is left. Should this process be killed, the workers find their
    standard input closed, and end too.
    """

    def __init__(self, count: int, order: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        self._order = json.dumps(order) + "\n"
        self._environment = {**os.environ, **environment}
        self._count = count
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> "Workers":
        self._processes = [self._started(place) for place in range(self._count)]
        return self

    def __exit__(self, *error: object) -> None:
        for _ in range(0, CLOSING_SECONDS, TOLD_AGAIN):
            for process in self._processes:
                process.terminate()
            deadline = time.monotonic() + TOLD_AGAIN
            while not self.are_done and time.monotonic() < deadline:
                time.sleep(0.05)
        for process in self._processes:
            process.kill()
            process.communicate()

    def replace_killed(self) -> int:
        """Start a worker in place of each that was killed; how many.

        Raises WorkerFailed where one ended by itself with an error.
        """
        killed = 0
        for place, process in enumerate(self._processes):
            status = process.poll()
            if status is not None and status > 0:
                raise WorkerFailed(f"a worker ended with exit status {status}; the same command goes on from here")
            if status is not None and status < 0:
                killed += 1
                self._processes[place] = self._started(place)
        return killed

    @property
    def are_done(self) -> bool:
        """Whether all have ended."""
        return all(process.poll() is not None for process in self._processes)

    def _started(self, place: int) -> "subprocess.Popen[str]":
        environment = {**self._environment, WORKER: str(place)}
        process = subprocess.Popen(
            [sys.executable, "-m", "deepmerge", "work"], stdin=subprocess.PIPE, text=True, env=environment
        )
        assert process.stdin is not None
        process.stdin.write(self._order)
        process.stdin.flush()
        return process


def take_order() -> dict[str, Any]:
    """In a worker: read its order; from now on it ends when its parent ends or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the giver decides
    signal.signal(signal.SIGTERM, _end)
    threading.excepthook = _say_in_one_line
    order = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_the_giver, daemon=True).start()
    return dict(order)


def end_if_told() -> None:
    """In a worker, after each epoch: end, should the signal to do so have been lost in a garbage collection."""
    if _told.is_set():
        sys.exit(128 + signal.SIGTERM)


def _end(number: int, frame: object) -> None:
    _told.set()
    sys.exit(128 + number)


def _say_in_one_line(failure: threading.ExceptHookArgs) -> None:
    """Log the failure of a thread (the heartbeat on a full disk, say) in one line; the trial goes on."""
    log.error("%s: %s", getattr(failure.exc_type, "__name__", ""), " ".join(str(failure.exc_value).split())[:200])


def _end_with_the_giver() -> None:
    # Not through sys.stdin, whose lock the interpreter needs at its end.
    while os.read(0, 1024):
        pass
    while True:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(TOLD_AGAIN)
