"""What a server has still to be told of a run, kept on disk, so that work neither waits for the server nor is lost.

A parcel is a folder for one process's writing to one run: an append-only journal of entries, the files that they name,
and how many were delivered. A thread delivers them in order. Each entry holds its own times and may be delivered twice:
a process that is killed between a delivery and the note of it doubles nothing. The journal is locked as long as its
process lives, so that others can tell what was left. A kill loses nothing; a power cut may, what lay in memory.
"""

import fcntl
import hashlib
import json
import logging
import math
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deepmerge.files import hidden_folder
from deepmerge.tracking import passwords

log = logging.getLogger(__name__)

FOLDER = Path(".deepmerge", "outbox")
JOURNAL, DELIVERED, FILES, SERVER = "journal.jsonl", "delivered", "files", "server"
PATIENCE = 60.0  # seconds of failures in a row after which a command that is done no longer waits for its server
STOPPED_PATIENCE = 5.0  # seconds that a command waits which was told to end: queues kill after thirty
AGAIN = (408, 429)  # answers to what is not wrong but comes too early; those from 500 on are the server's fault
PAUSES = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0)  # seconds between tries that fail

Entry = Mapping[str, Any]
Deliver = Callable[[str, Entry, Path], None]  # takes the id of a run, an entry and the folder of the parcel's files

_left: dict[Path, str] = {}  # parcels that this process could not deliver, and why


def is_for(url: str) -> bool:
    """Whether a tracking store can be away while we are here.

    A database in a file cannot: it lies on the disk that the outbox would lie on. What holds it locked is waited for.
    """
    return not url.startswith(("sqlite:", "file:", "/", "."))


def place(project: Path, url: str) -> Path:
    """The folder of a store's parcels; the store is told by its address without the password."""
    return project / FOLDER / hashlib.sha256(passwords.hidden(url).encode()).hexdigest()[:12]


class Parcel:
    """What one process writes to a run, delivered by a thread in the order in which it is put."""

    def __init__(self, within: Path, run_id: str, url: str, deliver: Deliver) -> None:
        hidden_folder(within.parent)
        self.run_id = run_id
        self.folder = within / f"{time.time_ns()}-{run_id}"
        self.files = self.folder / FILES
        self.files.mkdir(parents=True)
        (within / SERVER).write_text(passwords.hidden(url) + "\n")
        self._journal = (self.folder / JOURNAL).open("a", encoding="utf-8")
        _lock(self._journal.fileno())
        self._deliver = deliver
        self._entries: list[Entry] = []
        self._delivered = 0
        self._failing: tuple[float, Exception] | None = None  # since when deliveries fail, and the latest reason
        self._closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._send, name=f"outbox-{run_id[:8]}", daemon=True)
        self._thread.start()

    def put(self, entry: Entry) -> None:
        """Write an entry down; from now on it will be delivered, by this process or by another one."""
        with self._changed:
            self._journal.write(json.dumps(entry) + "\n")
            self._journal.flush()
            self._entries.append(entry)
            self._changed.notify_all()

    def new_folder(self) -> Path:
        """An empty folder for the files of an entry to come."""
        with self._changed:
            made = self.files / str(len(list(self.files.iterdir())))
            made.mkdir()
        return made

    def find(self, path: str) -> Path | None:
        """A file that was put, by its path among the run's artifacts: the latest of that path."""
        for folder in sorted(self.files.iterdir(), key=lambda folder: -int(folder.name)):
            if (folder / path).exists():
                return folder / path
        return None

    def close(self, patience: float = PATIENCE, at_most: float = math.inf) -> None:
        """Wait until all is delivered, and remove the parcel; else leave it for later, and remember why.

        It is left when deliveries have failed for `patience` seconds, after `at_most` seconds in any case, and at once
        where the server refuses what it would refuse again.
        """
        deadline = time.monotonic() + at_most
        with self._changed:
            while self._delivered < len(self._entries):
                if self._failing is not None:
                    since, error = self._failing
                    if _is_refusal(error) or time.monotonic() - since > patience:
                        break
                if time.monotonic() > deadline:
                    break
                self._changed.wait(0.2)
            self._closing = True
            self._changed.notify_all()
            is_done = self._delivered == len(self._entries)
            why = str(self._failing[1]) if self._failing else "the time was too short"
        if is_done:
            self._thread.join()
            shutil.rmtree(self.folder, ignore_errors=True)
        else:
            _left[self.folder] = passwords.scrubbed(" ".join(why.split()))[:300]
        self._journal.close()

    def _send(self) -> None:
        tries = 0
        while True:
            with self._changed:
                while self._delivered == len(self._entries) and not self._closing:
                    self._changed.wait()
                if self._closing:
                    return
                entry = self._entries[self._delivered]
            try:
                self._deliver(self.run_id, entry, self.files)
            except Exception as error:  # of the server, of the network, of a disk: whatever it is, it is tried again
                with self._changed:
                    self._failing = (self._failing[0] if self._failing else time.monotonic(), error)
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: self._closing, PAUSES[min(tries, len(PAUSES) - 1)])
                tries += 1
                continue
            tries = 0
            with self._changed:
                self._delivered += 1
                self._failing = None
                self._changed.notify_all()
            _note(self.folder)


def send_left(within: Path, deliver: Deliver) -> tuple[int, dict[Path, str]]:
    """Deliver what processes left that have ended; returns how many parcels were, and those that could not be.

    They are sent in the order in which they were begun, those of a run that one could not be sent to are left too.
    """
    sent, failed, runs = 0, dict[Path, str](), set()
    for folder in _parcels(within):
        run_id = _run_of(folder)
        with _taken(folder) as is_ours:
            if not is_ours or run_id in runs:
                continue
            try:
                for number, entry in enumerate(_entries(folder)):
                    if number >= _noted(folder):
                        deliver(run_id, entry, folder / FILES)
                        _note(folder)
            except Exception as error:  # as above
                runs.add(run_id)
                failed[folder] = passwords.scrubbed(" ".join(str(error).split()))[:300]
                continue
            shutil.rmtree(folder, ignore_errors=True)
            _left.pop(folder, None)
            sent += 1
    return sent, failed


def waiting(within: Path) -> set[str]:
    """Ids of the runs that something is still to be delivered of."""
    return {_run_of(folder) for folder in _parcels(within)}


def elsewhere(project: Path, url: str) -> list[str]:
    """Addresses of the other stores for which parcels wait in the same project."""
    others = (path for path in project.joinpath(FOLDER).glob("*") if path.is_dir() and path != place(project, url))
    return [(path / SERVER).read_text().strip() for path in others if any(_parcels(path))]


def undelivered() -> str | None:
    """What this process had to leave in the outbox, for a message, and how to send it; None where there is nothing."""
    left = {folder: why for folder, why in _left.items() if folder.exists()}
    for folder, why in left.items():
        runs = ", ".join(sorted({_run_of(path) for path in left}))
        return (
            f"the tracking server did not take all of run {runs} ({why}); it waits in {folder.parent}: "
            "'deepmerge sync' sends it, and so does the next command on this server"
        )
    return None


def _is_refusal(error: Exception) -> bool:
    """Whether MLflow will refuse the same again: a wrong request, not one that came too early or to no server."""
    status = getattr(error, "get_http_status_code", lambda: 500)()
    return 400 <= status < 500 and status not in AGAIN


def _parcels(within: Path) -> list[Path]:
    return sorted(path.parent for path in within.glob(f"*/{JOURNAL}"))


def _run_of(folder: Path) -> str:
    return folder.name.partition("-")[2]


def _entries(folder: Path) -> list[Entry]:
    """The entries of a parcel; one that a process was killed while writing has no end of line, and does not count."""
    lines = (folder / JOURNAL).read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line) for line in lines]


def _noted(folder: Path) -> int:
    """How many entries of a parcel were delivered: as many as the note has bytes."""
    try:
        return (folder / DELIVERED).stat().st_size
    except FileNotFoundError:
        return 0


def _note(folder: Path) -> None:
    try:
        with (folder / DELIVERED).open("ab") as note:
            note.write(b".")
    except OSError as error:  # the entry is delivered again, then, should this process be killed
        log.debug("Could not note a delivery: %s", error)


@contextmanager
def _taken(folder: Path) -> Iterator[bool]:
    """Yield whether a parcel was left by a process that has ended; others wait while it is ours."""
    with (folder / JOURNAL).open("a", encoding="utf-8") as journal:
        yield _lock(journal.fileno()) and folder.exists()


def _lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a disk that knows no locks
        return True
    return True
