"""What commands print."""

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any


def show(results: Mapping[str, Any]) -> None:
    """Print one line a result: name, value and, where there is one, its 95 % interval."""
    names = [name for name in results if not name.endswith(("_low", "_high"))]
    width = max(map(len, names), default=0)
    for name in names:
        value = results[name]
        text = f"{value:.4g}" if isinstance(value, float) else str(value)
        if math.isfinite(results.get(f"{name}_low", math.nan)):
            text += f"  [{results[f'{name}_low']:.4g}, {results[f'{name}_high']:.4g}]"
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
