"""Writing files so that a failure never leaves a half-written one behind, and a kill none for long.

What is written aside is locked as long as its process lives; the system lets go of the lock when that is killed. So
whoever writes in the same place next can tell what was left from what somebody else is writing.
"""

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from deepmerge.errors import Failed, InputError

ASIDE = "-part-"  # in the name of all that is written aside


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; rename it to `path` on success, delete it on failure.

    The folder is made if need be. The temporary file keeps the suffix of `path`, since numpy, matplotlib
    and pandas choose the format by it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{path.stem}{ASIDE}"
    _remove_left(path.parent, prefix, path.suffix)
    handle, aside = _locked(lambda: tempfile.mkstemp(prefix=prefix, suffix=path.suffix, dir=path.parent))
    try:
        yield aside
        # mkstemp makes private files; a result should be as readable as any other new file.
        umask = os.umask(0)
        os.umask(umask)
        aside.chmod(0o666 & ~umask)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
        os.close(handle)


@contextmanager
def folder_aside(name: str, within: Path | None = None) -> Iterator[Path]:
    """Yield a temporary folder, by default where the system keeps such; it is deleted at the end.

    `name` begins its name, and those of the folders that this removes because their process was killed.
    """
    within = within or Path(tempfile.gettempdir())
    _remove_left(within, name + ASIDE, "")

    def make() -> tuple[int, str]:
        made = tempfile.mkdtemp(prefix=name + ASIDE, dir=within)
        return os.open(made, os.O_RDONLY), made

    handle, folder = _locked(make)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def require_writable(folder: Path) -> None:
    """Raise InputError where a folder cannot be written to, or made; it is tried, and nothing stays of that."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(bytes(4096))
    except OSError as error:
        raise InputError(
            f"{folder} should be a folder that can be written to, but {there}: {error.strerror}; name another one"
        ) from None


def require_room(folder: Path, size: int, what: str) -> None:
    """Raise Failed where the disk of a folder has not `size` bytes left for `what`."""
    free = shutil.disk_usage(folder).free
    if free < size:
        raise Failed(
            f"the disk of {folder} should have {size / 1e6:.0f} MB left for {what}, has {free / 1e6:.0f} MB; make "
            "room, or work elsewhere (TMPDIR chooses the folder for temporary files)"
        )


def hidden_folder(path: Path) -> None:
    """Make a folder for what the program keeps for itself, which no version control shall look at."""
    path.mkdir(parents=True, exist_ok=True)
    ignore = path / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n")


def _remove_left(folder: Path, prefix: str, suffix: str) -> None:
    """Remove what processes left in a folder that were killed: what is ours and locked by nobody."""
    with suppress(OSError):
        for entry in os.scandir(folder):
            if entry.name.startswith(prefix) and entry.name.endswith(suffix):
                with suppress(OSError):  # somebody else's, or locked, or on a disk that knows no locks
                    _remove_unlocked(entry.path)


def _remove_unlocked(path: str) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        found = os.fstat(handle)
        if found.st_uid != os.getuid():
            return
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if stat.S_ISDIR(found.st_mode):
            shutil.rmtree(path, ignore_errors=True)
        elif stat.S_ISREG(found.st_mode):
            Path(path).unlink()
    finally:
        os.close(handle)


def _locked(make: Callable[[], tuple[int, str]]) -> tuple[int, Path]:
    """Make something aside and lock it: its open handle and its path.

    Until it is locked another process may take it for left and remove it; then it is made anew.
    """
    while True:
        with suppress(FileNotFoundError):
            handle, name = make()
            with suppress(OSError):  # without locks nothing is ever taken for left
                fcntl.flock(handle, fcntl.LOCK_EX)  # waits for whoever is removing it
            if os.path.lexists(name):
                return handle, Path(name)
            os.close(handle)
