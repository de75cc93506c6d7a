"""Several ways to do the same work, timed in turn in one process."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from rich.console import Console

console = Console(stderr=True)


@dataclass(frozen=True)
class Row:
    """One line of the results: ours against a peer, in `unit`, and how many times as much the peer takes.

    ratio: median of the repeats, and the lowest and highest of them. target: the least that the ratio should be.
    """

    topic: str
    work: str
    peer: str
    ours: float
    theirs: float
    unit: str
    ratio: tuple[float, float, float]
    target: float | None = None


@dataclass(frozen=True)
class Fact:
    """One number with the most that it should be."""

    topic: str
    what: str
    value: float
    unit: str
    most: float | None = None


def interleaved(works: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, np.ndarray]:
    """Seconds of each work, (repeats,) each; all take turns, so that what slows the machine slows all of them.

    Each is done once before, untimed, and the order turns round from one repeat to the next.
    """
    names = list(works)
    for name in names:
        works[name]()
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for repeat in range(repeats):
        for name in names if repeat % 2 == 0 else reversed(names):
            start = time.perf_counter()
            works[name]()
            seconds[name].append(time.perf_counter() - start)
        console.print(f"  repeat {repeat + 1} of {repeats}", style="dim")
    return {name: np.array(values) for name, values in seconds.items()}


def compared(
    topic: str,
    work: str,
    seconds: Mapping[str, np.ndarray],
    ours: str,
    counts: Mapping[str, int],
    targets: Mapping[str, float],
) -> list[Row]:
    """A row for each other work; `counts` is how many images (or other units) each of them did."""
    each = {name: 1e3 * values / counts[name] for name, values in seconds.items()}
    rows = []
    for peer in seconds:
        if peer != ours:
            ratios = each[peer] / each[ours]
            spread = (float(np.median(ratios)), float(ratios.min()), float(ratios.max()))
            medians = float(np.median(each[ours])), float(np.median(each[peer]))
            rows.append(Row(topic, work, peer, *medians, "ms", spread, targets.get(peer)))
    return rows
