"""The table that says how far maps can be believed, and the sentence that follows from it."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from deepmerge.analysis import intervals
from deepmerge.analysis.trust.trial import AREA, BASELINES, LIGHT, Trial
from deepmerge.estimate import Estimate

# Columns, with what they are in words; `_over_` are paired differences to a baseline, image by image.
COLUMNS = {
    "energy": "share of the map on the true features",
    "energy_over_light": "that less the share of the light on them",
    "hit": "share of maps whose maximum lies on a true feature",
    "deletion": "fall of the logit without the most salient pixels",
    "deletion_over_light": "that less its fall without the brightest pixels",
    "deletion_over_area": "that less its fall without pixels at random",
    "insertion": "rise of the logit with the most salient pixels alone",
    "randomised": "likeness to maps of shuffled weights",
    "turned": "likeness to maps of turned images",
    "shaken": "likeness to maps of noisier images",
    "seeds": "mean likeness to the maps of networks of other seeds",
    "agreement": "mean likeness to the maps of the other methods",
    "empty": "share of maps that are 0 everywhere",
}
SHARES = ("energy", "hit", "empty")
# Rank correlation from which on two maps of an image count as alike: half of what a map says is said by the other.
ALIKE = 0.7
# Share of the logit that a feature has to account for, mirrored away, for the network to be said to use it.
USED = 0.1


class Table(NamedTuple):
    """lines: by map, the COLUMNS that are defined; logit, mirrored: of the images; images, galaxies: how many."""

    lines: dict[str, dict[str, Estimate]]
    logit: Estimate
    mirrored: Estimate
    images: int
    galaxies: int

    def frame(self) -> pd.DataFrame:
        """One line a map and number: map, measure, value, low, high; the model's own under the map ''."""
        own = {"logit": self.logit, "mirrored": self.mirrored}
        found = [("", name, *each) for name, each in own.items()]
        found += [(name, measure, *each) for name, line in self.lines.items() for measure, each in line.items()]
        return pd.DataFrame(found, columns=["map", "measure", "value", "low", "high"])


def table(trial: Trial) -> Table:
    """Sum a trial up: means over images with 95 % intervals over galaxies, and paired differences to the baselines."""
    galaxies = trial.images["galaxy"].to_numpy()
    by_map = {str(name): lines for name, lines in trial.maps.groupby("map", sort=False)}
    methods = [name for name in by_map if name not in BASELINES]
    lines = {}
    for name, own in by_map.items():
        values = {column: own[column].to_numpy(float) for column in COLUMNS if column in own}
        if name not in BASELINES:
            for measure, baseline in (("energy", LIGHT), ("deletion", LIGHT), ("deletion", AREA)):
                if measure in values:
                    values[f"{measure}_over_{baseline}"] = values[measure] - by_map[baseline][measure].to_numpy(float)
            if len(methods) > 1:
                place = methods.index(name)
                values["agreement"] = np.delete(trial.likeness[place], place, axis=0).mean(axis=0)
        means = {column: mean(values[column], galaxies, column in SHARES) for column in COLUMNS if column in values}
        lines[name] = {column: each for column, each in means.items() if not np.isnan(each.value)}
    return Table(
        lines,
        mean(trial.images["logit"].to_numpy(), galaxies),
        mean(trial.images["mirrored"].to_numpy(), galaxies),
        len(galaxies),
        len(np.unique(galaxies)),
    )


def mean(values: np.ndarray, galaxies: np.ndarray, share: bool = False) -> Estimate:
    """The mean over images, with its 95 % interval over galaxies; NaN values are left out. A `share` lies in [0, 1]."""
    known = ~np.isnan(values)
    values, owner = values[known], np.unique(galaxies[known], return_inverse=True)[1]
    if not len(values):
        return Estimate(np.nan)
    middle = values.mean()
    influence = np.bincount(owner, values - middle) / len(values)
    if len(influence) < 2:
        return Estimate(float(middle))
    spread, middle = intervals.of_one_sample(influence), np.array(middle)
    band = intervals.bounded(middle, spread) if share else intervals.difference(middle, spread)
    return Estimate(*(float(end) for end in band))


def verdict(found: Table, name: str, title: str) -> str:
    """One sentence on how far the maps called `name` can be believed, by the first of these rules that applies.

    1. Not at all, where maps of shuffled weights are as like as ALIKE: they show the image, not what was learned.
    2. Not, where deleting their pixels costs no more than deleting pixels at random (interval above 0).
    3. No more than the light, where deleting their pixels costs no more than deleting the brightest ones.
    4. They show what the network uses; with masks it is said, too, whether these are the features of mergers: whether
       mirroring them away costs at least USED of the logit (interval below 0), and whether the maps lie on them more
       than the light does. It is added where maps are less like than ALIKE when the image is turned or shaken, and
       where those of networks of other seeds are.
    """
    line = found.lines[name]

    def above_0(measure: str) -> bool:
        return line[measure].low > 0

    if line["randomised"].value >= ALIKE:
        return (
            f"Maps by {title} do not show what this network learned: with shuffled weights they stay much the same "
            f"(rank correlation {line['randomised'].text('.2f')})."
        )
    cost = line["deletion"].text("z.2f")
    if not above_0("deletion_over_area"):
        return (
            f"Maps by {title} do not show what this network uses: without their pixels its logit falls by {cost}, no "
            "more than without pixels at random."
        )
    if not above_0("deletion_over_light"):
        brightest = found.lines[LIGHT]["deletion"].text("z.2f")
        said = (
            f"Maps by {title} show what this network uses no better than the light itself does: without their pixels "
            f"its logit falls by {cost}, without the brightest ones by {brightest}"
        )
    else:
        said = (
            f"Maps by {title} show what this network uses: without their pixels its logit falls by {cost}, "
            f"{line['deletion_over_light'].text('z.2f')} more than without the brightest ones"
        )
    return f"{said}{_of_features(found, line)}{_unsteady(line)}."


def _of_features(found: Table, line: dict[str, Estimate]) -> str:
    if np.isnan(found.mirrored.value):
        return ""
    uses = found.mirrored.high < 0 and -found.mirrored.value >= USED * found.logit.value
    change = f"{found.mirrored.text('z.2f')} of {found.logit.value:.2f}"
    if not uses:
        return f"; but it hardly uses the features of mergers (mirrored away, they change the logit by {change})"
    where = "lie on these more" if line["energy_over_light"].low > 0 else "lie on these no more"
    return f"; it uses the features of mergers (mirrored away: {change}), and the maps {where} than the light does"


def _unsteady(line: dict[str, Estimate]) -> str:
    names = {"turned": "turned", "shaken": "a little noisier"}
    unlike = [f"{word} ({line[name].value:.2f})" for name, word in names.items() if line[name].value < ALIKE]
    changes = f"; they change when the image is {' or '.join(unlike)}" if unlike else ""
    if "seeds" in line and line["seeds"].value < ALIKE:
        changes += f"; networks of other seeds have other maps ({line['seeds'].value:.2f})"
    return changes
