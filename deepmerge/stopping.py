"""Ending a command from outside, on a signal, as an exception does: files half-written removed, runs closed."""

import os
import signal
import time
from types import FrameType
from typing import Any

# Seconds in which another signal changes nothing. Ctrl-C reaches a command twice, from the terminal and from `mlflow
# run`, and the second should not cut off what the first began: closing the run.
PATIENCE = 10.0

_told: dict[str, Any] = {}  # why the command should end, what is raised, and when that was raised last


def on_signals() -> None:
    """Let SIGTERM, SIGHUP and SIGINT end the process, each unless the caller has it ignored (as `nohup` does)."""
    _told.clear()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _end)


def end(why: str) -> None:
    """Let this process end as on SIGTERM, for a reason of its own; may be called in any thread."""
    _told.setdefault("why", why)
    os.kill(os.getpid(), signal.SIGTERM)


def end_if_told() -> None:
    """End, should what a signal raised have been lost: Python drops it in a garbage collection. After each epoch."""
    if "ending" in _told:
        raise _told["ending"]


def reason(error: BaseException) -> str:
    """Why an exception ended the process, in words."""
    if "why" in _told:
        return str(_told["why"])
    if isinstance(error, KeyboardInterrupt):
        return _by(signal.SIGINT)
    code = error.code if isinstance(error, SystemExit) else None
    return _by(code - 128) if isinstance(code, int) and code > 128 else f"stopped: {type(error).__name__}"


def _by(number: int) -> str:
    return f"stopped by {signal.Signals(number).name}"


def _end(number: int, frame: FrameType | None) -> None:
    now = time.monotonic()
    if now - _told.get("at", -PATIENCE) < PATIENCE:
        return
    _told.setdefault("why", _by(number))
    _told["at"] = now
    _told.setdefault("ending", KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number))
    raise _told["ending"]
