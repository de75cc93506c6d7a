"""Writing files so that a failure never leaves a half-written one behind, and a kill none for long.

What is written aside is locked as long as its process lives; the system lets go of the lock when that is killed. So
whoever writes in the same place next can tell what was left from what somebody else is writing.
"""

import errno
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
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
ELSEWHERE = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST),
    *(errno.ENAMETOOLONG, errno.ELOOP, errno.EIO),
)  # what another place mends


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; rename it to `path` on success, delete it on failure.

    The folder is made if need be. The temporary file keeps the suffix of `path`, since numpy, matplotlib
    and pandas choose the format by it. An OSError of a full disk names `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{path.stem}{ASIDE}"
    _remove_left(path.parent, prefix, path.suffix)
    handle, aside = _locked(lambda: tempfile.mkstemp(prefix=prefix, suffix=path.suffix, dir=path.parent))
    try:
        with naming(path):
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
        with naming(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let the error of a full disk in the body name a path: writes to an open file do not know it."""
    try:
        yield
    except OSError as error:
        if error.errno is None and "requested and" in str(error):  # numpy's, which counts items and says no more
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        if error.errno in FULL and error.filename is None:
            error.filename = str(path)
        raise


def require_writable(folder: Path) -> None:
    """Raise InputError where a folder cannot be written to, or made; it is tried, and nothing stays of that."""
    there = folder
    try:
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(bytes(4096))
    except OSError as error:
        raise InputError(
            f"{folder} should be a folder that can be written to, but {there}: {error.strerror}; name another one"
        ) from None


def require_writable_file(path: Path) -> None:
    """Raise InputError where a file cannot be written: its name is that of a folder, or by `require_writable`."""
    require_writable(path.parent)
    if path.is_dir():
        raise InputError(f"{path} should be a file to write, got a folder; name a file in it")


def require_room(folder: Path, size: int, what: str) -> None:
    """Raise Failed where the disk of a folder has not `size` bytes left for `what`."""
    free = shutil.disk_usage(folder).free
    if free < size:
        raise Failed(
            f"the disk of {folder} should have {size / 1e6:.0f} MB left for {what}, has {free / 1e6:.0f} MB; make "
            "room, or work elsewhere (TMPDIR chooses the folder for temporary files)"
        )


def explained(error: OSError) -> str | None:
    """What a disk did not let us do, where, and how to mend it, in a line; None for an error of another kind."""
    named = error.filename2 or error.filename
    place = Path(os.fsdecode(named)).absolute() if isinstance(named, str | bytes) else None
    if place is not None and (ASIDE in place.name or error.errno in FULL):
        place = place.parent  # which is known to people
    if error.errno in FULL:
        where = [place] if place is not None else [Path.cwd(), Path(tempfile.gettempdir())]
        left = " or ".join(f"{folder}{_left(folder)}" for folder in where)
        return f"{error.strerror} for {left}; make room there, or name another place, then run the same command again"
    if error.errno in ELSEWHERE and place is not None:
        return f"{place}: {error.strerror}; see that it can be read or written, or name another place"
    return None


def hidden_folder(path: Path) -> None:
    """Make a folder for what the program keeps for itself, which no version control shall look at."""
    path.mkdir(parents=True, exist_ok=True)
    ignore = path / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n")


def _left(folder: Path) -> str:
    try:
        return f" (which has {shutil.disk_usage(folder).free / 1e6:.0f} MB left)"
    except OSError:
        return ""


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
