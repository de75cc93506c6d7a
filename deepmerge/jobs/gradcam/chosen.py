"""Which images maps are asked of: sure, unsure and wrong ones of the test, or rows and galaxies by their numbers."""

import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd

from deepmerge.analysis import saliency
from deepmerge.data.splits import Part
from deepmerge.errors import InputError
from deepmerge.jobs.judged import Judged

PER_KIND = 6  # images of each outcome among the sure and the unsure ones
WORDS = {
    "all": "All test images",
    "confident": "The most confident answers",
    "uncertain": "The least certain answers",
    "wrong": "Wrong answers, the most confident first",
}
EXPECTED = f"{', '.join(WORDS)}, rows:3,17,40-44 or galaxies:12,15"


class Choice(NamedTuple):
    """What was asked for: a name for files, a title, and the images of a model's data that it means.

    images: a table of one line an image: row, transform, galaxy_id, view, stage, label, probability, outcome.
    """

    name: str
    title: str
    images: Callable[[Judged], pd.DataFrame]


def parse(text: str) -> Choice:
    """Read a selection: a word of WORDS, about the test images, or rows or galaxies of all images of the data.

    Raises InputError for anything else; the choice itself does for rows and galaxies that the data do not have.
    """
    if text in WORDS:
        return Choice(text, WORDS[text], lambda judged: _of_word(judged, text))
    kind, _, listed = text.partition(":")
    entries = [entry.strip() for entry in listed.split(",") if entry.strip()]
    if kind not in ("rows", "galaxies") or not entries:
        raise InputError(f"selection should be {EXPECTED}, got {text!r}")
    name = re.sub(r"[^\w.-]+", "_", f"{kind}-{'-'.join(entries)}")[:80]
    if kind == "galaxies":
        return Choice(name, f"Galaxies {', '.join(entries)}", lambda judged: _of_galaxies(judged, entries))
    rows = np.concatenate([_range(entry) for entry in entries])
    return Choice(name, f"Rows {', '.join(entries)}", lambda judged: _of_rows(judged, rows))


def _range(entry: str) -> np.ndarray:
    ends = re.fullmatch(r"(\d+)(?:-(\d+))?", entry)
    if ends is None or len(entry) > 25:
        raise InputError(f"selection should give rows as numbers or ranges, rows:3,17,40-44, got {entry!r}")
    first, last = int(ends[1]), int(ends[2] or ends[1])
    if not first <= last < first + 100_000:
        raise InputError(f"selection should give ranges of rising rows, of 100,000 at most, got {entry!r}")
    return np.arange(first, last + 1)


def _described(judged: Judged, part: Part, scores: np.ndarray) -> pd.DataFrame:
    table = part.described(judged.data).assign(probability=scores)
    return table.assign(outcome=saliency.outcomes(table["label"].to_numpy(), scores))


def _of_word(judged: Judged, word: str) -> pd.DataFrame:
    table = _described(judged, judged.split.test, judged.scores("test"))
    if word == "all":
        return table
    columns = (table[name].to_numpy() for name in ("label", "probability", "galaxy_id"))
    labels, scores, galaxies = columns
    if word == "wrong":
        wrong = table[table["outcome"].isin(["FP", "FN"])]
        return wrong.loc[(0.5 - wrong["probability"]).abs().sort_values(ascending=False, kind="stable").index]
    panels = saliency.panel_rows(labels, scores, per_kind=PER_KIND, galaxies=galaxies)
    return table.iloc[np.concatenate([getattr(panel, word) for panel in panels.values()])]


def _of_rows(judged: Judged, rows: np.ndarray) -> pd.DataFrame:
    count = len(judged.data.images)
    if rows.max() >= count:
        raise InputError(f"selection should give rows 0 … {count - 1} of {judged.data.name}, got {rows.max()}")
    part = Part(rows, np.zeros(len(rows), np.uint8))
    return _described(judged, part, judged.scores(part))


def _of_galaxies(judged: Judged, wanted: list[str]) -> pd.DataFrame:
    ids = judged.data.catalogue["galaxy_id"].astype(str)
    absent = [each for each in wanted if not (ids == each).any()]
    if absent:
        some = ", ".join(ids.unique()[:5])
        raise InputError(f"selection should give galaxies of {judged.data.name} ({some}, …), got {absent[0]!r}")
    return _of_rows(judged, np.flatnonzero(ids.isin(wanted)))
