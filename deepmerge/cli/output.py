"""What commands print."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from deepmerge.estimate import names, read


def show(results: Mapping[str, Any]) -> None:
    """Print one line a result: name, value and, where there is one, its 95 % interval."""
    shown = names(results)
    width = max(map(len, shown), default=0)
    for name in shown:
        value = results[name]
        text = read(results, name).text(".4g").replace(" [", "  [") if isinstance(value, float) else str(value)
        print(f"{name:{width}}  {text}")


def show_table(lines: Sequence[Mapping[str, str]]) -> None:
    """Print lines of one kind as a table on a terminal, elsewhere separated by tabs below a line of names."""
    if not sys.stdout.isatty():
        print(*("\t".join(cells) for cells in [list(lines[0]), *(list(line.values()) for line in lines)]), sep="\n")
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE)
    for name in lines[0]:
        table.add_column(name.replace("_", " "), overflow="fold")
    for line in lines:
        table.add_row(*line.values())
    Console().print(table)
