"""How far the maps of a model can be believed: a trial on recognised mergers of its test, as a table and a sentence."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from deepmerge.analysis import saliency
from deepmerge.analysis.trust.table import Table, table, verdict
from deepmerge.analysis.trust.trial import BASELINES, LIGHT, key, trial
from deepmerge.data.batches import gather
from deepmerge.errors import InputError
from deepmerge.estimate import Estimate, flat
from deepmerge.jobs.judged import Judged
from deepmerge.progress import progress_bar

# Recognised mergers of a trial: with 60 the interval of a share is about ± 0.07. Fewer of large images, whose removed
# pixels take longer to solve for than they are many.
IMAGES, FEWEST, PIXELS = 60, 12, 60 * 128 * 128
LOGGED = ("energy", "hit", "deletion", "insertion", "randomised", "turned", "shaken", "seeds")  # metrics of the run
SEEDS = 2  # networks of other seeds whose maps are compared


class Trust(NamedTuple):
    """What a trial found of the maps called `name`, in numbers and in a sentence."""

    name: str
    table: Table
    verdict: str

    def metrics(self) -> dict[str, float]:
        """The numbers of these maps, and of the light beside them, with their intervals, for a run."""
        numbers: dict[str, Estimate] = {"saliency_mirrored": self.table.mirrored}
        for prefix, line in (("saliency", self.table.lines[self.name]), ("light", self.table.lines[LIGHT])):
            numbers |= {f"{prefix}_{measure}": line[measure] for measure in LOGGED if measure in line}
        return flat(numbers, "test")


def methods_of(text: str | None) -> tuple[str, ...]:
    """Names of methods, separated by commas; all of them for 'all'. Raises InputError for an unknown one."""
    if not text:
        return ()
    names = tuple(saliency.METHODS) if text == "all" else tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in saliency.METHODS:
            raise InputError(f"methods should be 'all' or some of {', '.join(saliency.METHODS)}, got {name!r}")
    return names


def judge(
    judged: Judged,
    predictions: pd.DataFrame,
    explainer: saliency.Explainer,
    layer: str | None,
    methods: Sequence[str] = (),
) -> Trust | None:
    """Put the maps of an explainer to the test, and those of other methods; None where no merger is recognised.

    predictions: of the test images, a line each. Some of the recognised mergers are taken at random, of as many
    galaxies as possible; the same in every call.
    """
    most = int(np.clip(PIXELS // np.prod(judged.data.images.shape[2:]), FEWEST, IMAGES))
    lines = recognised(predictions, most)
    if not len(lines):
        return None
    rows, transforms, galaxies = (lines[name].to_numpy() for name in ("row", "transform", "galaxy_id"))
    images, masks = gather(judged.data.images, rows, transforms), judged.masks(rows, transforms)
    own = explainer.name, explainer.layer
    others = [(name, None if saliency.METHODS[name].of_pixels else layer) for name in methods if name != own[0]]
    subjects = [own, *others]
    with progress_bar(f"Judging maps of {judged.data.name}", len(subjects) + len(BASELINES)) as advance:
        others = judged.other_seeds(SEEDS)
        found = table(trial(judged.model, images, galaxies, subjects, masks, other_seeds=others, advance=advance))
    name = key(*own)
    return Trust(name, found, verdict(found, name, explainer.title))


def recognised(predictions: pd.DataFrame, most: int = IMAGES) -> pd.DataFrame:
    """At most `most` recognised mergers, at random, of as many galaxies as possible."""
    labels, probabilities = (predictions[name].to_numpy() for name in ("label", "probability"))
    hits = predictions[saliency.outcomes(labels, probabilities) == "TP"]
    shuffled = hits.sample(frac=1, random_state=np.random.default_rng(0))
    nth = shuffled.groupby("galaxy_id").cumcount().sort_values(kind="stable")
    return hits.loc[sorted(nth.index[:most])]
