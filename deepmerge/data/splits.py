"""Which images train, validate and test: by galaxy (honest) or by rows (as published)."""

import hashlib
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from deepmerge import config
from deepmerge.data import split_table
from deepmerge.data.dataset import Dataset
from deepmerge.data.turns import RELEASE_COPIES, TRANSFORMS, possible_transforms
from deepmerge.errors import InputError

PARTS = split_table.PARTS
FEWEST = 10  # galaxies of a stage that can be split by themselves


@dataclass(frozen=True)
class Part:
    """Images of one part: row (n,) in the arrays, and transform (n,), the flip or rotation applied to it."""

    rows: np.ndarray
    transforms: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, chosen: slice | np.ndarray) -> "Part":
        """Some of the images: ``part[:6]``, by their numbers, or where a mask is true."""
        return Part(self.rows[chosen], self.transforms[chosen])

    def without(self, *others: "Part") -> "Part":
        """The images that are in none of the others."""
        codes = [part.rows * TRANSFORMS + part.transforms for part in (self, *others)]
        return self[~np.isin(codes[0], np.concatenate([np.empty(0, np.int64), *codes[1:]]))]

    def fingerprint(self, dataset: Dataset) -> str:
        """32 hexadecimal digits that change with any image of the part, not with their order, and with the data."""
        table = self.table().sort_values(["row", "transform"])
        return _digest(dataset.fingerprint + table.to_csv(index=False))

    def table(self) -> pd.DataFrame:
        """One line an image: row, transform."""
        return pd.DataFrame({"row": self.rows, "transform": self.transforms})

    def described(self, dataset: Dataset) -> pd.DataFrame:
        """One line an image: row, transform, and galaxy_id, view, stage and label of its row."""
        return split_table.described(self.table(), dataset)


@dataclass(frozen=True)
class Split:
    """The three parts, and how they were made: 'galaxy' or 'rows'.

    seed: the one of the settings; whatever else is drawn at random from the parts follows from it.
    """

    protocol: str
    train: Part
    validation: Part
    test: Part
    seed: int = field(default=0, kw_only=True)

    def table(self) -> pd.DataFrame:
        """One line an image: split, row, transform."""
        tables = {name: getattr(self, name).table() for name in PARTS}
        return pd.concat(tables, names=["split"]).reset_index("split").reset_index(drop=True)

    @property
    def fingerprint(self) -> str:
        """32 hexadecimal digits that change with any image of any part."""
        return _digest(self.table().to_csv(index=False))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def make(dataset: Dataset, settings: config.Split) -> Split:
    """Split `dataset` as `settings` say."""
    if settings.split_table is not None:
        table = split_table.read(settings.split_table, dataset, settings.split)
        return replace(from_table(table, settings.split), seed=settings.split_seed)
    return split_galaxies(dataset, settings) if settings.split == "galaxy" else split_rows(dataset, settings)


def from_table(table: pd.DataFrame, protocol: str) -> Split:
    """Rebuild a split from `Split.table`."""
    lines = {name: table[table["split"] == name] for name in PARTS}
    parts = [Part(part["row"].to_numpy(np.int64), part["transform"].to_numpy(np.uint8)) for part in lines.values()]
    return Split(protocol, *parts)


def published(split: Split, dataset: Dataset) -> pd.DataFrame:
    """The table of a split as others get it: described, and in each row the fingerprint of the data."""
    return split_table.described(split.table(), dataset).assign(data_fingerprint=dataset.fingerprint)


def split_galaxies(dataset: Dataset, settings: config.Split) -> Split:
    """Split by galaxy, each stage in the same proportions; copies are dropped first.

    All views of a galaxy land in one part. Raises InputError when a stage has too few galaxies to be split.
    """
    galaxies, stages = stages_of_galaxies(dataset, originals(dataset))
    members = parted(stages, settings.validation_fraction, settings.test_fraction, settings.split_seed)
    return Split("galaxy", *(views(dataset, galaxies[chosen]) for chosen in members), seed=settings.split_seed)


def originals(dataset: Dataset) -> np.ndarray:
    """Rows of the images that are no copies and not excluded, (n,)."""
    return np.flatnonzero((dataset.catalogue["copy"].to_numpy() == 0) & dataset.used).astype(np.int64)


def views(dataset: Dataset, galaxies: np.ndarray) -> Part:
    """All images of these galaxies, numbered as in `Dataset.galaxies`, but no copies."""
    rows = originals(dataset)
    rows = rows[np.isin(dataset.galaxies[rows], galaxies)]
    return Part(rows, np.zeros(len(rows), np.uint8))


def stages_of_galaxies(dataset: Dataset, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The galaxies that these rows show, numbered as in `Dataset.galaxies`, and the stage that each is drawn by.

    A few mergers of unknown stage beside past and future ones, such as relabelled galaxies, are drawn with the
    commonest of these: they are too few to be spread over the parts by themselves.
    """
    galaxies, first = np.unique(dataset.galaxies[rows], return_index=True)
    stages = dataset.catalogue["stage"].to_numpy()[rows][first]
    known = pd.Series(stages[np.isin(stages, ("past", "future"))]).value_counts()
    unknown = stages == "merger"
    if len(known) and unknown.sum() < FEWEST:
        stages = np.where(unknown, known.index[0], stages)
    return galaxies, stages


def parted(stages: np.ndarray, validation: float, test: float, seed: int) -> tuple[np.ndarray, ...]:
    """Indices of `stages`, (G,) one a galaxy, that train, validate and test; each stage in the same proportions.

    Raises InputError when a stage has too few galaxies.
    """
    train, held_out = drawn(stages, validation + test, seed)
    validating, testing = drawn(stages[held_out], test / (validation + test), seed)
    return train, held_out[validating], held_out[testing]


def drawn(stages: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of `stages`, (G,) one a galaxy, that stay, and of the `share` drawn at random from each stage.

    Raises InputError when a stage has too few galaxies.
    """
    from sklearn.model_selection import train_test_split

    try:
        stay, taken = train_test_split(np.arange(len(stages)), test_size=share, random_state=seed, stratify=stages)
    except ValueError:
        counts = pd.Series(stages).value_counts().to_dict()
        raise InputError(
            "a galaxy split needs enough galaxies of every stage for train, validation and test "
            f"(about 10 of the rarest), got {counts} to draw {share:.0%} of; "
            "merge rare stages in the catalogue or add galaxies"
        ) from None
    return stay, taken


def split_rows(dataset: Dataset, settings: config.Split) -> Split:
    """Split random rows of the augmented sample, as published: the same galaxy lands in several parts.

    Where the data hold no copies, the five copies of each merger image are made first. The shuffle is the one of
    the published notebook (legacy numpy generator), so that seed 5 on the released rows gives its very split.
    """
    rows = np.flatnonzero(dataset.used)
    has_copies = bool(dataset.catalogue["copy"].any())
    images = Part(rows, np.zeros(len(rows), np.uint8)) if has_copies else with_copies(dataset, rows)
    order = np.random.RandomState(settings.split_seed).choice(len(images), size=len(images), replace=False)
    validation, test = (int(share * len(images)) for share in (settings.validation_fraction, settings.test_fraction))
    train = len(images) - validation - test
    parts = (images[chosen] for chosen in np.split(order, [train, train + validation]))
    return Split("rows", *parts, seed=settings.split_seed)


def shared_galaxies(dataset: Dataset, split: Split) -> float:
    """Share of test images whose galaxy is in the training part as well: 0 for a galaxy split."""
    galaxies = dataset.galaxies
    return float(np.isin(galaxies[split.test.rows], galaxies[split.train.rows]).mean())


def with_copies(dataset: Dataset, rows: np.ndarray) -> Part:
    """These images, mergers in the five flips and rotations of the release (four where they are oblong)."""
    mergers, others = rows[dataset.labels[rows] == 1], rows[dataset.labels[rows] == 0]
    copies = RELEASE_COPIES[np.isin(RELEASE_COPIES, possible_transforms(dataset.images.shape))]
    transforms = np.concatenate([np.repeat(copies, len(mergers)), np.zeros(len(others), np.uint8)])
    return Part(np.concatenate([np.tile(mergers, len(copies)), others]), transforms)
