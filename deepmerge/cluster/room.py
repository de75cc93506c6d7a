"""A room where pieces of work are done, and the simplest one: this process."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from deepmerge.errors import Failed

# What a piece of work tells while it is done; False where nobody wants it any more, and it should return.
Report = Callable[[Any], bool]
Work = Callable[..., Any]
Hear = Callable[[Any], None]


class WorkerLost(Failed):
    """A piece of work was given up, since each worker that took it on was lost: out of memory, say."""


class Stopped(Exception):
    """For work to end itself with, where nobody wants it any more."""


@dataclass(eq=False)
class Piece:
    """A piece of work; once `Room.next` has given it, `result` is what it returned, or raises what it raised.

    dropped: nobody wants it any more, and it has no result.
    """

    work: Work
    heard: Hear | None
    dropped: bool = False
    result: Callable[[], Any] = field(default=lambda: None)


class Room(ABC):
    """A place where pieces of work are done side by side. All give the same results."""

    @property
    @abstractmethod
    def width(self) -> int:
        """How many pieces are done at a time."""

    @abstractmethod
    def submit(self, work: Work, *, heard: Hear | None = None, sent: Any = None) -> Piece:
        """Have `work()` done, a function that can be pickled; with `sent`, what `send` gave, ``work(value)``.

        With `heard` it gets a keyword `report`, to tell plain values by; these arrive at `heard`, in this process,
        while it waits in `next`. Should a worker be lost, the work begins anew elsewhere, and tells all again.
        """

    @abstractmethod
    def next(self) -> Piece:
        """Wait for a piece that is done or dropped. Each is given once, in the order in which they are done."""

    @abstractmethod
    def drop(self, piece: Piece) -> None:
        """Let nobody go on with a piece."""

    @abstractmethod
    def send(self, value: Any) -> Any:
        """Bring a value, the same for many pieces, to the workers once; returns what `submit` takes as `sent`."""

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        """What `function` gives for each item, in their order; items are taken as they are needed."""
        waiting: deque[Piece] = deque()
        given: set[Piece] = set()

        def first() -> Any:
            piece = waiting.popleft()
            while piece not in given:
                given.add(self.next())
            given.remove(piece)
            return piece.result()

        for item in items:
            waiting.append(self.submit(partial(function, item)))
            if len(waiting) >= 2 * self.width:
                yield first()
        while waiting:
            yield first()


class Here(Room):
    """This process: one piece after the other, when it is asked for."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Piece, Any]] = deque()

    @property
    def width(self) -> int:
        """One."""
        return 1

    def submit(self, work: Work, *, heard: Hear | None = None, sent: Any = None) -> Piece:
        """Put a piece at the end of the queue."""
        piece = Piece(work, heard)
        self._waiting.append((piece, sent))
        return piece

    def next(self) -> Piece:
        """Do the piece that has waited longest."""
        piece, sent = self._waiting.popleft()
        if piece.dropped:
            return piece

        def report(said: Any) -> bool:
            if piece.heard is not None and not piece.dropped:
                piece.heard(said)
            return not piece.dropped

        try:
            arguments = () if sent is None else (sent,)
            result = piece.work(*arguments, **({"report": report} if piece.heard else {}))
        except Exception as error:
            piece.result = partial(raised, error)
        else:
            piece.result = lambda: result
        return piece

    def drop(self, piece: Piece) -> None:
        """Do not begin it, or tell it to return."""
        piece.dropped = True

    def send(self, value: Any) -> Any:
        """It is here."""
        return value


def raised(error: Exception) -> None:
    """Raise it."""
    raise error
