"""Results as a table for people: on the terminal, and as BENCHMARKS.md."""

import platform
import re
from collections.abc import Sequence
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.table import Table

from benchmarks.measure import Fact, Row
from deepmerge.cluster import count_cores

PACKAGES = ("tensorflow", "keras", "numpy", "mlflow", "scikit-learn", "torch", "tf-keras-vis")


def table(rows: Sequence[Row], facts: Sequence[Fact]) -> list[Table]:
    """For a terminal."""
    compared = Table(*HEAD, title="Beside other ways to do the same work")
    for row in rows:
        compared.add_row(*_cells(row), style=None if met(row) else "red")
    alone = Table(*FACTS, title="By itself")
    for fact in facts:
        alone.add_row(*_fact_cells(fact), style=None if met(fact) else "red")
    return [shown for shown, given in ((compared, rows), (alone, facts)) if given]


HEAD = ("topic", "work", "peer", "deepmerge (ms)", "peer (ms)", "ratio", "lowest – highest", "target")
MEASURED = re.compile(r"([\w -]+?) on (\d{4}-\d\d-\d\d)")
FACTS = ("topic", "what", "measured", "at most")


def met(result: Row | Fact) -> bool:
    """Whether a result reaches its target; one without a target does."""
    if isinstance(result, Row):
        return result.target is None or result.ratio[0] >= result.target
    return result.most is None or result.value <= result.most


def markdown(rows: Sequence[Row], facts: Sequence[Fact], command: str, picture: str | None, before: str = "") -> str:
    """The page BENCHMARKS.md; of the page as it was `before`, it keeps the topics that were not measured anew."""
    anew = {row.topic for row in rows} | {fact.topic for fact in facts}
    days = {topic.strip(): day for topic, day in MEASURED.findall(before) if topic.strip() not in anew}
    days |= dict.fromkeys(sorted(anew), date.today().isoformat())
    kept = [cells for cells in _cells_of(before) if cells[0] in days and cells[0] not in anew]
    parts = [
        "# Benchmarks",
        f"Made by `{command}`: {machine()}. {packages()}.",
        "Measured: " + ", ".join(f"{topic} on {day}" for topic, day in days.items()) + ".",
        "Ratios are times of the peer over times of deepmerge, both for the same work in one process, taken in turn: "
        "the median of the repeats, and the lowest and highest of them. The networks of all peers have the same "
        "weights and give the same probabilities, checked before the clock starts. deepmerge turns and flips the "
        "images and reads them from disk meanwhile; the peers train on arrays in memory. ✗ marks a missed target.",
        _rows(HEAD, [cells for cells in kept if len(cells) == len(HEAD)] + [_cells(row) for row in rows]),
        "## By itself",
        "Memory is the peak of the process as the system counts it, with what it read of mapped files.",
        _rows(FACTS, [cells for cells in kept if len(cells) == len(FACTS)] + [_fact_cells(fact) for fact in facts]),
    ]
    if picture:
        parts.append(f"![Peak memory and time for each image over the number of images]({picture})")
    return "\n\n".join(parts) + "\n"


def _cells_of(page: str) -> list[tuple[str, ...]]:
    """The lines of the tables of a page."""
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    return [tuple(cell.strip() for cell in line[1:-1].split("|")) for line in lines]


def machine() -> str:
    """Processor, cores and system."""
    names = [line.split(":", 1)[1].strip() for line in _cpu_lines() if line.startswith("model name")]
    processor = names[0] if names else platform.processor() or platform.machine()
    return f"{processor}, {count_cores()} cores, {platform.system()}, Python {platform.python_version()}"


def packages() -> str:
    """Versions of what was measured."""
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"no {name}")
    return ", ".join(found)


def _cpu_lines() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def _rows(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *lines))


def _cells(row: Row) -> tuple[str, ...]:
    median, low, high = row.ratio
    target = "" if row.target is None else f"{'' if met(row) else '✗ '}≥ {row.target:g}"
    times = (f"{row.ours:.3g}", f"{row.theirs:.3g}")
    return (row.topic, row.work, row.peer, *times, f"{median:.2f}", f"{low:.2f} – {high:.2f}", target)


def _fact_cells(fact: Fact) -> tuple[str, ...]:
    most = "" if fact.most is None else f"{'' if met(fact) else '✗ '}{fact.most:g} {fact.unit}"
    return fact.topic, fact.what, f"{fact.value:.3g} {fact.unit}", most
