"""One progress bar for all long work: drawn on a terminal, silent elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

Advance = Callable[..., None]


@contextmanager
def progress_bar(description: str, total: int) -> Iterator[Advance]:
    """Yield `advance(steps=1, note="")`, which moves a bar of `total` steps on stderr.

    `note` is shown behind the bar (the current loss, say). Nothing is drawn when stderr is neither a terminal nor that
    of a notebook with ipywidgets, without which rich would print a warning for each bar.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True)
    times = (TimeElapsedColumn(), TimeRemainingColumn())
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), *times, "{task.fields[note]}")
    drawn = find_spec("ipywidgets") is not None if console.is_jupyter else console.is_terminal
    with Progress(*columns, console=console, disable=not drawn) as progress:
        task = progress.add_task(description, total=total, note="")

        def advance(steps: int = 1, note: str | None = None) -> None:
            changed: Any = {} if note is None else {"note": note}
            progress.update(task, advance=steps, **changed)

        yield advance
