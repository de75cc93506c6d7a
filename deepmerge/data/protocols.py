"""Other ways to part the galaxies: folds, and the published protocol beside an honest one."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from deepmerge import config
from deepmerge.data import splits
from deepmerge.data.dataset import Dataset
from deepmerge.data.splits import Part, Split
from deepmerge.errors import InputError


class Protocols(NamedTuple):
    """The same galaxies split in two ways, with equally many images in each part.

    rows: mergers copied first, then split at random, as published. galaxy: split by galaxy first, then copied in each
    part. unseen: images of further galaxies, in neither of the two.
    """

    rows: Split
    galaxy: Split
    unseen: Part


def folds(dataset: Dataset, split: Split, count: int) -> list[Split]:
    """Part the images outside the test into `count` folds by galaxy; each validates once and trains otherwise.

    The stages are spread evenly over the folds; the test part stays as it is. Raises InputError when a stage has fewer
    galaxies than there are folds.
    """
    parts = (split.train, split.validation)
    images = Part(np.concatenate([p.rows for p in parts]), np.concatenate([p.transforms for p in parts]))
    numbers = dataset.galaxies[images.rows]
    galaxies, stages = splits.stages_of_galaxies(dataset, images.rows)
    validating = [np.isin(numbers, galaxies[held_out]) for held_out in shuffled(stages, count, split.seed)]
    return [replace(split, train=images[~chosen], validation=images[chosen]) for chosen in validating]


def shuffled(stages: np.ndarray, count: int, seed: int) -> list[np.ndarray]:
    """Indices of `stages`, (G,) one a galaxy, in `count` folds, the stages spread evenly over them.

    Raises InputError when a stage has fewer galaxies than there are folds.
    """
    from sklearn.model_selection import StratifiedKFold

    fewest = pd.Series(stages).value_counts().min()
    if not 2 <= count <= fewest:
        raise InputError(f"folds should be 2 to {fewest}, the galaxies of the rarest stage among them, got {count}")
    return [held_out for _, held_out in StratifiedKFold(count, shuffle=True, random_state=seed).split(stages, stages)]


def cross(dataset: Dataset, settings: config.Split, count: int, rows: np.ndarray | None = None) -> list[Split]:
    """Part the galaxies into `count` folds; each tests once, while some of the others validate and the rest train.

    rows: images of the galaxies to part; all by default. The stages are spread evenly; copies are dropped. As many
    galaxies validate as in a single split of these settings. Raises InputError when a stage has fewer galaxies than
    there are folds, or too few to validate.
    """
    originals = splits.originals(dataset)
    among = originals if rows is None else np.intersect1d(originals, rows)
    galaxies, stages = splits.stages_of_galaxies(dataset, among)
    folds = shuffled(stages, count, settings.split_seed)
    validation = settings.validation_fraction * count / (count - 1)  # as a share of the galaxies that do not test
    made = []
    for number, testing in enumerate(folds):
        others = np.setdiff1d(np.arange(len(stages)), testing)
        training, validating = splits.drawn(stages[others], validation, settings.split_seed + number)
        members = (others[training], others[validating], testing)
        parts = (splits.views(dataset, galaxies[chosen]) for chosen in members)
        made.append(Split("galaxy", *parts, seed=settings.split_seed))
    return made


def with_copies(dataset: Dataset, split: Split) -> Split:
    """The split with the flipped and rotated copies of the release in its training part."""
    return replace(split, train=splits.with_copies(dataset, split.train.rows))


def protocols(dataset: Dataset, settings: config.Split) -> Protocols:
    """Set galaxies aside as a test of these settings would, and split the others in both ways.

    Each part has equally many images in both; random ones are left out of the larger. Raises InputError when a stage
    has too few galaxies.
    """
    rng = np.random.default_rng(settings.split_seed)
    honest = splits.split_galaxies(dataset, settings)
    pool = np.sort(np.concatenate([honest.train.rows, honest.validation.rows]))
    copied = splits.with_copies(dataset, pool)
    order = rng.permutation(len(copied))
    shares = [1 - settings.test_fraction - settings.validation_fraction, settings.validation_fraction]
    ends = np.round(np.cumsum(shares) * len(order)).astype(int)
    leaking = [copied[chosen] for chosen in np.split(order, ends)]

    galaxies, stages = splits.stages_of_galaxies(dataset, pool)
    members = splits.parted(stages, settings.validation_fraction, settings.test_fraction, settings.split_seed)
    clean = [splits.with_copies(dataset, splits.views(dataset, galaxies[chosen]).rows) for chosen in members]

    for number, (one, other) in enumerate(zip(leaking, clean, strict=True)):
        size = min(len(one), len(other))
        leaking[number], clean[number] = (
            part[np.sort(rng.choice(len(part), size, replace=False))] for part in (one, other)
        )
    seed = settings.split_seed
    return Protocols(Split("rows", *leaking, seed=seed), Split("galaxy", *clean, seed=seed), honest.test)
