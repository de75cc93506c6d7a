"""The images worth showing maps for: sure and unsure ones of each outcome."""

from typing import NamedTuple

import numpy as np

from deepmerge.analysis.sample import THRESHOLD
from deepmerge.errors import InputError

KINDS = ("TP", "FP", "TN", "FN")


def outcomes(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Which of KINDS each prediction is, (n,), for labels (n,) 0 or 1 and probabilities (n,)."""
    merger, called = np.asarray(labels) == 1, np.asarray(probabilities) >= THRESHOLD
    return np.where(called, np.where(merger, "TP", "FP"), np.where(merger, "FN", "TN"))


class Panel(NamedTuple):
    """Rows of one kind of prediction: the most certain ones first, the least certain ones first."""

    confident: np.ndarray
    uncertain: np.ndarray


def panel_rows(
    labels: np.ndarray, probabilities: np.ndarray, *, per_kind: int = 4, galaxies: np.ndarray | None = None
) -> dict[str, Panel]:
    """Choose the images to show: of each of KINDS the rows farthest from THRESHOLD and the nearest.

    labels: (n,) 0 or 1; probabilities: (n,) in [0, 1]; galaxies: (n,) ids, to show each galaxy at most once in a kind.
    Either list of a Panel has at most `per_kind` rows and none is in both: a kind with few images gives the confident
    ones first. Equal probabilities come in row order. Raises InputError for lengths that differ.
    """
    y, p = np.asarray(labels), np.asarray(probabilities)
    owner = np.arange(len(y)) if galaxies is None else np.asarray(galaxies)
    if not y.shape == p.shape == owner.shape or y.ndim != 1:
        raise InputError(
            "labels, probabilities and galaxies should be lists of one length, "
            f"got shapes {y.shape}, {p.shape}, {owner.shape}"
        )
    kinds = outcomes(y, p)
    margin = np.abs(p - THRESHOLD)
    chosen = {}
    for kind in KINDS:
        rows = np.flatnonzero(kinds == kind)
        confident = _first_of_each(rows[np.argsort(-margin[rows], kind="stable")], owner)[:per_kind]
        rest = rows[~np.isin(owner[rows], owner[confident])]
        uncertain = _first_of_each(rest[np.argsort(margin[rest], kind="stable")], owner)[:per_kind]
        chosen[kind] = Panel(confident, uncertain)
    return chosen


def _first_of_each(rows: np.ndarray, owner: np.ndarray) -> np.ndarray:
    return rows[np.sort(np.unique(owner[rows], return_index=True)[1])]
