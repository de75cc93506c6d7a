"""Data for a notebook: an experiment's images, mock galaxies, and their split."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from deepmerge import config
from deepmerge.data import dataset as datasets
from deepmerge.data import demo, splits
from deepmerge.data.dataset import Dataset
from deepmerge.data.demo import simulate as simulator
from deepmerge.data.splits import Split
from deepmerge.errors import InputError
from deepmerge.files import folder_aside

_SPLIT = config.Split()  # its defaults


def load(dataset: str) -> Dataset:
    """The images of an experiment: a name such as "pristine", or the path of an experiment file.

    They are memory-mapped: images (N, F, H, W), labels (N,) with 1 = merger, and a catalogue of N rows.

    Raises
    ------
    InputError
        For an unknown name, and for files that do not fit one another.

    Examples
    --------
    >>> data = dm.load("mine.yaml")
    """
    experiment = config.load(dataset)
    # One process, as below.
    return datasets.read(experiment.data, experiment.name, workers=1)


def simulate(
    galaxies: int = demo.GALAXIES,
    *,
    variant: str = "pristine",
    merger_fraction: float = demo.MERGER_FRACTION,
    seed: int = demo.SEED,
    without: Sequence[demo.Ingredient] = (),
) -> Dataset:
    """Mock galaxies in memory, four views each (4 × galaxies, 2, 75, 75), of the demo sample's kind: not Illustris.

    Parameters
    ----------
    galaxies
        How many; about 30 ms each.
    variant
        "pristine" (PSF only) or "noisy" (PSF and sky noise); the same galaxies for the same seed.
    merger_fraction
        Share of mergers among the galaxies, above 0 and below 1.
    seed
        The same seed gives the same galaxies.
    without
        Ingredients of an encounter to leave out: "companion", "tides", "young stars", "nuclei". All else stays the same
        to the last random number, so that a change of a score is due to the ingredient: a counterfactual.

    Raises
    ------
    InputError
        For too few galaxies of a stage, and for an unknown ingredient.

    Examples
    --------
    >>> data = dm.simulate(galaxies=300)
    >>> without_tides = dm.simulate(galaxies=300, without=["tides"])
    """
    if variant not in simulator.VARIANTS:
        raise InputError(f"variant should be one of {', '.join(simulator.VARIANTS)}, got {variant!r}")
    with folder_aside("deepmerge") as folder:
        # One process: a script without an `if __name__ == "__main__"` would be run again by each further one.
        simulator.simulate(
            folder, galaxies=galaxies, merger_fraction=merger_fraction, seed=seed, without=without, workers=1
        )
        files = {"images": folder / f"{variant}_2filt_X.npy", "labels": folder / f"{variant}_2filt_y.npy"}
        mapped = datasets.read(config.Data.model_validate(files), variant)
        masks = None if mapped.masks is None else np.array(mapped.masks)
        return replace(mapped, images=np.array(mapped.images), masks=masks)


def split(
    data: Dataset,
    seed: int = _SPLIT.split_seed,
    *,
    protocol: str = _SPLIT.split,
    validation_fraction: float = _SPLIT.validation_fraction,
    test_fraction: float = _SPLIT.test_fraction,
) -> Split:
    """Which images train, validate and test: `split.train`, `split.validation`, `split.test`.

    A part can be cut short like a list: ``split.test[:6]``.

    Parameters
    ----------
    data
        What `load`, `simulate` or `Dataset.from_arrays` gave.
    seed
        Another seed draws other galaxies.
    protocol
        "galaxy" keeps all images of a galaxy in one part; "rows" splits random rows as published, and leaks.
    validation_fraction, test_fraction
        Shares of the galaxies (or rows); together below 1.

    Raises
    ------
    InputError
        For too few galaxies of a stage.

    Examples
    --------
    >>> split = dm.split(data, seed=5)
    """
    fractions = {"validation_fraction": validation_fraction, "test_fraction": test_fraction}
    return splits.make(data, config.checked(config.Split, {"split": protocol, "split_seed": seed, **fractions}))
