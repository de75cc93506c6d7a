"""Which images maps are asked of: sure, unsure and wrong ones of the test, or rows and galaxies by their numbers."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from deepmerge.analysis import saliency
from deepmerge.data.splits import Part
from deepmerge.errors import InputError
from deepmerge.jobs.gradcam import own
from deepmerge.jobs.judged import Judged

PER_KIND = 6  # images of each outcome among the sure and the unsure ones
WORDS = {
    "all": "All test images",
    "confident": "The most confident answers",
    "uncertain": "The least certain answers",
    "wrong": "Wrong answers, the most confident first",
}
EXPECTED = f"{', '.join(WORDS)}, rows:3,17,40-44, galaxies:12,15 or the path of images"


class Images(NamedTuple):
    """Images that maps are asked of.

    pixels: (N, F, H, W), of which `table` has a line for each image that is meant: row, transform, probability, and, of
    a model's own data, galaxy_id, view, stage, label and outcome. masks: (n, H, W), or None where there are none.
    files: (n,) where each image lies in a file of its own, else empty.
    """

    pixels: np.ndarray
    table: pd.DataFrame
    masks: np.ndarray | None = None
    files: Sequence[Path] = ()


class Choice(NamedTuple):
    """What was asked for: a name for files, a title, and the images that it means to a model."""

    name: str
    title: str
    images: Callable[[Judged], Images]


def parse(text: str) -> Choice:
    """Read a selection: a word of WORDS, about the test images, rows or galaxies of the data, or a path of others.

    Raises InputError for anything else; the choice itself does for rows and galaxies that the data do not have, and for
    files that `own.read` refuses.
    """
    if text in WORDS:
        return Choice(text, WORDS[text], lambda judged: _of_data(judged, _of_word(judged, text)))
    if text and (path := Path(text)).exists():
        return Choice(_plain(path.stem), path.name, lambda judged: _own(judged, path))
    kind, _, listed = text.partition(":")
    entries = [entry.strip() for entry in listed.split(",") if entry.strip()]
    if kind not in ("rows", "galaxies") or not entries:
        raise InputError(f"selection should be {EXPECTED}, got {text!r}")
    name = _plain(f"{kind}-{'-'.join(entries)}")
    if kind == "galaxies":
        title = f"Galaxies {', '.join(entries)}"
        return Choice(name, title, lambda judged: _of_data(judged, _of_galaxies(judged, entries)))
    rows = np.concatenate([_range(entry) for entry in entries])
    return Choice(name, f"Rows {', '.join(entries)}", lambda judged: _of_data(judged, _of_rows(judged, rows)))


def _plain(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name)[:80]


def _of_data(judged: Judged, table: pd.DataFrame) -> Images:
    rows, transforms = (table[name].to_numpy() for name in ("row", "transform"))
    return Images(judged.data.images, table, judged.masks(rows, transforms))


def _own(judged: Judged, path: Path) -> Images:
    found = own.read(path, judged.model)
    return Images(found.pixels, found.table, files=found.files)


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
