"""Workers of a Dask cluster, each of which does one piece of work at a time."""

import itertools
import logging
import queue
import time
import uuid
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cloudpickle
from distributed import Client, Future

from deepmerge.cluster import worker
from deepmerge.cluster.room import Hear, Piece, Room, Work, WorkerLost, raised
from deepmerge.errors import Failed, InputError

log = logging.getLogger(__name__)

PATIENCE = 30.0  # seconds that a scheduler has to answer, and to show a worker
TICK = 1.0  # seconds between two looks at the cluster while nothing is heard
MOST_LOST = 4  # workers over one piece, which may be what kills them


def be_quiet() -> None:
    """Leave it to us to say what is wrong; Dask tells it over many lines."""
    for name in ("distributed", "tornado", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


@contextmanager
def joined(cluster: Any, *, is_local: bool = False, patience: float | None = PATIENCE) -> Iterator["Crew"]:
    """Work on a cluster, or at the address of its scheduler; patience: for its first worker, None: for ever.

    Raises InputError where it does not answer, has no worker, or one that differs from this process.
    """
    try:
        client = Client(cluster, timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"--cluster should be the address of a Dask scheduler that answers, got {cluster}: "
            f"{' '.join(str(error).split())[:200]}; start one with 'dask scheduler'"
        ) from None
    with client:
        try:
            client.wait_for_workers(1, timeout=patience)
        except TimeoutError:
            raise InputError(
                f"the Dask scheduler at {client.scheduler.address} should have workers, got none; start them with "
                f"'dask worker {client.scheduler.address}'"
            ) from None
        crew = Crew(client)
        crew.require_alike()
        name = f"deepmerge-{uuid.uuid4().hex}"
        client.register_plugin(worker.Setup(is_local), name=name)
        if find_spec("bokeh") or not is_local:
            log.info("Dask's dashboard: %s", client.dashboard_link)
        try:
            yield crew
        finally:
            if client.status == "running":
                crew.leave()
                client.unregister_worker_plugin(name)


@dataclass(eq=False)
class _Task:
    """A piece as it is handed out, and how many workers were lost over it."""

    piece: Piece
    pickled: bytes
    sent: tuple[Any, ...]
    lost: int = 0


class Crew(Room):
    """The workers of a Dask cluster.

    Each is handed one piece at a time: TensorFlow's seeds and graphs belong to the process, and of a worker that is
    lost it is known which piece it had. That one is handed to another, and given up after MOST_LOST.
    """

    def __init__(self, client: Client) -> None:
        self._client, self._topic = client, f"deepmerge-{uuid.uuid4().hex}"
        self._waiting: deque[_Task] = deque()
        self._begun: dict[int, tuple[_Task, Future, str]] = {}
        self._begins = itertools.count()
        self._news: queue.SimpleQueue[tuple[int, tuple[Any] | None]] = queue.SimpleQueue()
        self._order = (worker.identity(), str(Path.cwd()), self._topic)
        self._done: deque[Piece] = deque()
        self._looked, self._is_alone = time.monotonic(), False

        def hear(event: tuple[float, tuple[int, Any]]) -> None:
            number, said = event[1]
            self._news.put((number, (said,)))

        client.subscribe_topic(self._topic, hear)

    @property
    def width(self) -> int:
        """How many workers there are at the moment, at least one."""
        return max(1, len(self._workers()))

    def submit(self, work: Work, *, heard: Hear | None = None, sent: Any = None) -> Piece:
        """Put a piece at the end of the queue; a worker that has nothing to do gets it."""
        piece = Piece(work, heard)
        # Pickled here, so that the scheduler needs to know nothing of it.
        self._waiting.append(_Task(piece, cloudpickle.dumps(work), () if sent is None else (sent,)))
        self._hand_out()
        return piece

    def next(self) -> Piece:
        """Wait for news of the workers."""
        while True:
            if time.monotonic() - self._looked > TICK:
                self._look()
            if self._done:
                return self._done.popleft()
            self._hand_out()
            try:
                number, told = self._news.get(timeout=TICK)
            except queue.Empty:
                continue
            if number not in self._begun:
                continue
            task, future, _ = self._begun[number]
            if told is not None:
                if task.piece.heard is not None and not task.piece.dropped:
                    task.piece.heard(*told)
            elif self._gather(task.piece, number, future):
                del self._begun[number]
                return task.piece

    def drop(self, piece: Piece) -> None:
        """Cancel it; its worker finds out when it reports next."""
        piece.dropped = True
        for task, future, _ in self._begun.values():
            if task.piece is piece:
                future.cancel()

    def _hand_out(self) -> None:
        """Give each idle worker the piece that has waited longest."""
        if not self._waiting:
            return
        busy = {address for _, _, address in self._begun.values()}
        # Other commands have work here, too.
        free = [name for name, keys in self._client.processing().items() if not keys and name not in busy]
        for address in free[: len(self._waiting)]:
            task, number = self._waiting.popleft(), next(self._begins)
            future = self._client.submit(
                worker.do,
                self._order,
                number if task.piece.heard else None,
                task.pickled,
                *task.sent,
                key=f"{_name(task.piece.work)}-{uuid.uuid4().hex}",
                pure=False,
                workers=[address],
            )
            self._begun[number] = task, future, address
            if task.piece.dropped:
                future.cancel()
            future.add_done_callback(partial(self._tell_end, number))

    def _tell_end(self, number: int, future: Future) -> None:
        self._news.put((number, None))

    def _gather(self, piece: Piece, number: int, future: Future) -> bool:
        """Whether a piece has a result; none where its worker is lost before it is here."""
        while not piece.dropped:
            try:
                result = future.result(timeout=PATIENCE)
            except TimeoutError as error:
                if future.status == "error":
                    piece.result = partial(raised, error)
                    break
                self._look()
                if number not in self._begun:
                    return False
            except _CANCELLED:
                raise self._gone() from None
            except Exception as error:
                piece.result = partial(raised, error)
                break
            else:
                piece.result = partial(_itself, result)
                break
        return True

    def _look(self) -> None:
        """See who is there, and queue the pieces of lost workers again."""
        self._looked = time.monotonic()
        if self._client.status != "running":
            raise self._gone()
        there = self._workers()
        if not there and not self._is_alone:
            log.warning("No worker is left; the work goes on as soon as one comes")
        self._is_alone = not there
        for number, (task, future, address) in list(self._begun.items()):
            if address in there or future.status in ("finished", "error", "cancelled"):
                continue
            del self._begun[number]
            future.cancel()
            task.lost += 1
            if task.lost < MOST_LOST:
                log.warning("Worker %s was lost; its work is done anew", address)
                self._waiting.appendleft(task)
                continue
            why = (
                f"each of {MOST_LOST} workers that took it on was lost, the last at {address}; is there enough memory?"
            )
            task.piece.result = partial(raised, WorkerLost(why))
            self._done.append(task.piece)

    def _workers(self) -> Mapping[str, int]:
        """Addresses of the workers there are, with their threads; raises Failed where the scheduler does not answer."""
        try:
            return self._client.nthreads()
        except OSError:
            raise self._gone() from None

    def _gone(self) -> Failed:
        return Failed("the Dask scheduler was lost; the same command goes on from here")

    def send(self, value: Any) -> Any:
        """Scatter it to all workers."""
        return self._client.scatter(value, broadcast=True, hash=False)

    def leave(self) -> None:
        """Drop everything that is not done."""
        self._client.cancel([future for _, future, _ in self._begun.values()])
        self._client.unsubscribe_topic(self._topic)

    def require_alike(self) -> None:
        """Raise InputError, naming a worker, where one has other code or packages, or does not see this folder."""
        found = self._client.run(worker.differences, *self._order[:2], on_error="return")
        for address, problem in found.items():
            if isinstance(problem, Exception):
                problem = f"should have deepmerge {version('deepmerge-lab')} installed, but: {problem!r}"
            if problem is not None:
                raise InputError(f"worker {address} {problem}")


try:
    from distributed.client import FutureCancelledError

    _CANCELLED: tuple[type[BaseException], ...] = (FutureCancelledError,)
except ImportError:  # older versions of Dask
    from concurrent.futures import CancelledError

    _CANCELLED = (CancelledError,)


def _itself(value: Any) -> Any:
    return value


def _name(work: Any) -> str:
    """What the dashboard calls a piece of work."""
    inner = getattr(work, "function", getattr(work, "func", work))
    return str(getattr(inner, "__name__", type(inner).__name__)).strip("_")
