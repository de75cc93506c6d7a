"""Labels, 1 = merger and 0 = non-merger: from an array, or from the words and numbers of a table."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from deepmerge.data import catalogue as catalogues
from deepmerge.data.formats import tables
from deepmerge.errors import InputError

MOST_TOLD = 8  # values that a message lists
UNIT = "merger_probability"  # name of a network's layer whose sigmoid says how likely a merger is
# What a network with stages learns of an image; MERGER: one of unknown stage.
NON_MERGER, MERGER, PAST, FUTURE = range(4)


def of_cells(cells: pd.Series, mergers: Sequence[str | int] | None, where: Path | str) -> np.ndarray:
    """Labels (N,) uint8 from cells of text: numbers and words of either class, or `mergers` against all others.

    Raises InputError for an empty cell, a word of neither class, and one of `mergers` that no cell says.
    """
    values = list(dict.fromkeys(cells))
    held = ", ".join(values[:MOST_TOLD]) + (" …" if len(values) > MOST_TOLD else "")
    if "" in values:
        raise InputError(f"label in {where} should be complete, got nothing in data row {_first(cells, '')}")
    if mergers is None:
        known = catalogues.classes(cells)
        wrong = np.flatnonzero(~known.isin([0, 1]))
        if len(wrong):
            raise InputError(
                f"label in {where} should be 1 (merger) or 0, true or false, merger or non-merger, got "
                f"{cells.iloc[wrong[0]]!r} in data row {wrong[0]}; the labels are {held}: say which of them mean a "
                "merger, 'mergers: [...]' below 'data:'"
            )
        return known.to_numpy(np.uint8)
    found = {value: [number for number, merger in enumerate(mergers) if _same(value, str(merger))] for value in values}
    absent = set(range(len(mergers))) - {number for numbers in found.values() for number in numbers}
    if absent:
        raise InputError(
            f"mergers should be labels of {where}, which are {held}, got {mergers[min(absent)]!r} that is none of them"
        )
    return cells.map({value: bool(numbers) for value, numbers in found.items()}).to_numpy(np.uint8)


def of_stages(cells: pd.Series, where: Path | str) -> np.ndarray:
    """Labels (N,) uint8 from cells of text that say stages. Raises InputError for another word."""
    stages = catalogues.stages(cells)
    wrong = np.flatnonzero(~stages.isin(catalogues.STAGES))
    if len(wrong):
        raise InputError(
            f"stage in {where} should be one of {', '.join(catalogues.STAGES)}, got {cells.iloc[wrong[0]]!r} in "
            f"data row {wrong[0]}"
        )
    return (stages != "non-merger").to_numpy(np.uint8)


def codes(stages: pd.Series, rows: np.ndarray) -> np.ndarray:
    """PAST, FUTURE, MERGER or NON_MERGER of each image, (N,) uint8, from its stage.

    Raises InputError unless those of `rows`, which are to be learned from, have past and future mergers.
    """
    learned = stages.iloc[rows]
    if absent := [stage for stage in ("past", "future") if not (learned == stage).any()]:
        raise InputError(
            f"network.labels: stage needs past and future mergers to learn from, got no {' and no '.join(absent)} one; "
            "the catalogue's column stage says which is which"
        )
    numbers = {"non-merger": NON_MERGER, "merger": MERGER, "past": PAST, "future": FUTURE}
    return stages.map(numbers).to_numpy(np.uint8)


def checked(labels: np.ndarray, count: int, where: Path | str) -> np.ndarray:
    """Labels (N,) uint8. Raises InputError unless there are `count`, both classes and nothing else."""
    if labels.shape != (count,):
        raise InputError(f"labels in {where} should have shape ({count},), one for each image, got {labels.shape}")
    values = set(np.unique(labels).tolist())
    if values != {0, 1}:
        raise InputError(
            f"labels in {where} should hold both 0 (non-merger) and 1 (merger), nothing else, got {sorted(values)[:6]}"
        )
    return labels.astype(np.uint8)


def _same(cell: str, word: str) -> bool:
    """Whether a cell says a word, however it is spelled, or a number, however it is written."""
    try:
        return float(cell) == float(word)
    except ValueError:
        return tables.plain(cell) == tables.plain(word)


def _first(cells: pd.Series, cell: str) -> int:
    return int(np.argmax(cells == cell))
