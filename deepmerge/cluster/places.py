"""Which room a command works in: this process, processes of this machine, a scheduler's address, or a jobqueue file."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from deepmerge.cluster.cores import count_cores, threads_each
from deepmerge.cluster.room import Here, Room
from deepmerge.errors import InputError

if TYPE_CHECKING:
    from deepmerge.cluster.crew import Crew

log = logging.getLogger(__name__)

# A number of processes on this machine, the address of a Dask scheduler, or the path of a file for dask-jobqueue.
Where = str | int | None
EXAMPLE = "a number of processes on this machine, tcp://host:8786, or a YAML file such as {kind: slurm, jobs: 4, …}"


@contextmanager
def opened(where: Where = None, pieces: int | None = None, usual: int | None = None) -> Iterator[Room]:
    """Open the room for `pieces` of work (if their number is known), and end at the end what was started for it.

    Nothing given: `usual` processes of this machine, by default one a core, but no more than there are pieces; where
    that is one, this process. Raises InputError for a scheduler that does not answer, and for workers that cannot do
    this command's work.
    """
    processes = _processes(where, usual)
    if processes is None:
        with ExitStack() as stack:
            yield _elsewhere(str(where), stack)
        return
    processes = min(processes, processes if pieces is None else max(1, pieces))
    if processes == 1:
        yield Here()
        return
    with _local(processes) as crew:
        yield crew


def _processes(where: Where, usual: int | None) -> int | None:
    if where is None:
        return usual or count_cores()
    if isinstance(where, str) and not where.lstrip("-").isdecimal():
        return None
    if int(where) < 1:
        raise InputError(f"--cluster should be at least one worker, got {where}; leave it out to use every core")
    return int(where)


@contextmanager
def _local(processes: int) -> Iterator["Crew"]:
    import dask
    from distributed import LocalCluster

    from deepmerge.cluster import crew

    crew.be_quiet()
    settings: dict[str, Any] = {
        "n_workers": processes,
        "threads_per_worker": threads_each(processes),
        "host": "127.0.0.1",
        # Images are memory-mapped: Dask would count their pages as memory of the workers, and end these.
        "memory_limit": 0,
        "dashboard_address": "127.0.0.1:0",
        "silence_logs": logging.CRITICAL,
    }
    # What Dask sets for its workers it sets in this process, too, and leaves it there: one thread for all that follows.
    ours = dask.config.set({"distributed.nanny.pre-spawn-environ": {}})
    with ours:
        cluster = LocalCluster(**settings)
        try:
            with crew.joined(cluster, is_local=True) as found:
                yield found
        finally:
            with suppress(TimeoutError):  # a worker ends slowly on a busy machine, with this process at the latest
                cluster.close()


def _elsewhere(where: str, stack: ExitStack) -> "Crew":
    from deepmerge.cluster import crew

    crew.be_quiet()
    if "://" in where:
        _require_key(where)
        return stack.enter_context(crew.joined(where))
    if not Path(where).is_file():
        raise InputError(f"--cluster should be {EXAMPLE}, got {where!r}, where there is no file")
    kind, jobs, settings = _specification(Path(where))
    try:
        started = stack.enter_context(_cluster_class(kind, where)(**settings))
        started.scale(jobs=jobs)
    except (TypeError, ValueError, OSError, RuntimeError) as error:
        raise InputError(f"{where} should start a cluster of kind {kind}, but: {_line(error)}") from None
    log.info("Asked %s for %d jobs; the work begins with the first of them", kind, jobs)
    return stack.enter_context(crew.joined(started, patience=None))


def _require_key(address: str) -> None:
    """Refuse an encrypted scheduler without its certificate, with which Dask's client would hang for a minute."""
    from dask import config

    if address.startswith("tls://") and not config.get("distributed.comm.tls.ca-file", None):
        raise InputError(
            f"--cluster {address} needs the key of its scheduler, and Dask's settings name none; DASK_CONFIG should be "
            "the folder with the key and dask.yaml, as deploy/server.sh makes them"
        )


def _specification(path: Path) -> tuple[str, int, dict[str, Any]]:
    """Kind, number of jobs, and what the class of dask-jobqueue takes."""
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} should be a YAML file, but: {_line(error)}") from None
    if not isinstance(content, dict) or not {"kind", "jobs"} <= set(content):
        raise InputError(f"{path} should have the keys kind (slurm, pbs, htcondor …) and jobs, got {content!r:.100}")
    settings = {str(key): value for key, value in content.items()}
    kind, jobs = str(settings.pop("kind")), settings.pop("jobs")
    if not isinstance(jobs, int) or jobs < 1:
        raise InputError(f"jobs in {path} should be a whole number from 1, got {jobs!r}")
    return kind, jobs, settings


def _cluster_class(kind: str, where: str) -> Any:
    try:
        import dask_jobqueue.local  # of this machine, for trials; the others come with it
    except ImportError:
        raise InputError(
            f"{where} needs dask-jobqueue, which is missing: pip install 'deepmerge-lab[cluster]'"
        ) from None
    classes = dask_jobqueue.JobQueueCluster.__subclasses__()
    known = {each.__name__.lower().removesuffix("cluster"): each for each in classes}
    if kind not in known:
        raise InputError(f"kind in {where} should be one of {', '.join(sorted(known))}, got {kind!r}")
    return known[kind]


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
