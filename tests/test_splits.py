import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import catalogues, data_of
from hypothesis import given
from hypothesis import strategies as st

from deepmerge import config
from deepmerge.data import splits
from deepmerge.data.dataset import Dataset
from deepmerge.data.released import layout
from deepmerge.errors import InputError

REAL = Path(os.environ.get("DEEPMERGE_REAL_DATA", Path(__file__).parents[2] / "shared" / "real"))


def parts(split):
    return [getattr(split, name) for name in splits.PARTS]


SEEDS = st.integers(0, 2**32 - 1)


@given(catalogues(), SEEDS)
def test_any_catalogue_is_split_into_parts_that_are_disjoint_and_complete(catalogue, seed):
    data = data_of(catalogue)
    split = splits.split_galaxies(data, config.Split(split_seed=seed))
    galaxies = [set(data.galaxies[part.rows]) for part in parts(split)]
    assert sum(map(len, galaxies)) == len(set.union(*galaxies)) == data.galaxies.max() + 1
    rows = np.concatenate([part.rows for part in parts(split)])
    assert sorted(rows) == np.flatnonzero(catalogue["copy"] == 0).tolist()
    assert splits.shared_galaxies(data, split) == 0


@given(catalogues(), SEEDS, st.sampled_from([(0.2, 0.2), (0.3, 0.2), (0.25, 0.4)]))
def test_the_parts_of_any_catalogue_have_nearly_the_shares_asked_for(catalogue, seed, shares):
    data = data_of(catalogue)
    validation, test = shares
    split = splits.split_galaxies(
        data, config.Split(split_seed=seed, validation_fraction=validation, test_fraction=test)
    )
    count = data.galaxies.max() + 1
    sizes = [len(np.unique(data.galaxies[part.rows])) for part in parts(split)]
    assert sizes == pytest.approx([(1 - validation - test) * count, validation * count, test * count], abs=2)


@given(catalogues(), SEEDS)
def test_rows_of_any_catalogue_are_split_into_parts_that_show_each_image_once(catalogue, seed):
    data = data_of(catalogue)
    table = splits.split_rows(data, config.Split(split_seed=seed)).table()
    assert not table.duplicated(["row", "transform"]).any()
    assert set(table["row"]) == set(range(len(catalogue)))
    shares = table["split"].value_counts(normalize=True)
    assert [shares[name] for name in splits.PARTS] == pytest.approx([0.7, 0.1, 0.2], abs=2 / len(table))


def test_every_stage_is_split_in_the_same_proportions(released):
    split = splits.split_galaxies(released, config.Split())
    stages = released.catalogue["stage"].to_numpy()
    for stage in ("past", "future", "non-merger"):
        everything = len(np.unique(released.galaxies[stages == stage]))
        for part, share in zip(parts(split), (0.7, 0.1, 0.2), strict=True):
            mine = len(np.unique(released.galaxies[part.rows[stages[part.rows] == stage]]))
            assert mine == pytest.approx(share * everything, abs=1.5)


def test_the_seed_decides_the_galaxy_split(released):
    first, again, other = (splits.split_galaxies(released, config.Split(split_seed=seed)) for seed in (1, 1, 2))
    assert first.fingerprint == again.fingerprint != other.fingerprint


def test_a_split_survives_its_table(released, tmp_path):
    for settings in (config.Split(), config.Split(split="rows")):
        split = splits.make(released, settings)
        split.table().to_csv(tmp_path / "split.csv", index=False)
        back = splits.from_table(pd.read_csv(tmp_path / "split.csv"), split.protocol)
        assert back.fingerprint == split.fingerprint
        for one, two in zip(parts(split), parts(back), strict=True):
            assert (one.rows == two.rows).all()
            assert (one.transforms == two.transforms).all()


def test_the_published_split_has_the_published_sizes_and_leaks(released):
    """Sizes and test classes as in the notebook and confusion matrix of Ciprijanovic et al. 2020."""
    split = splits.split_rows(released, config.Split(split="rows", split_seed=5))
    assert [len(part) for part in parts(split)] == [10799, 1542, 3085]
    assert np.bincount(released.labels[split.test.rows]).tolist() == [1425, 1660]
    assert splits.shared_galaxies(released, split) == pytest.approx(0.986, abs=0.002)


def test_rows_without_copies_get_the_five_merger_copies_of_the_release():
    stages = ["past"] * 4 + ["non-merger"] * 10
    data = data_of(pd.DataFrame({"galaxy_id": range(14), "view": 0, "copy": 0, "stage": stages}))
    split = splits.split_rows(data, config.Split(split="rows"))
    table = split.table()
    copies = table.groupby("row")["transform"].apply(sorted)
    assert [copies[row] for row in range(4)] == [[0, 1, 2, 4, 6]] * 4
    assert [copies[row] for row in range(4, 14)] == [[0]] * 10


def test_oblong_images_get_no_copies_on_their_side():
    stages = ["past"] * 2 + ["non-merger"] * 4
    data = data_of(pd.DataFrame({"galaxy_id": range(6), "view": 0, "copy": 0, "stage": stages}))
    oblong = Dataset("o", np.zeros((6, 1, 4, 6)), data.labels, data.catalogue, None, "own", ("r",))
    table = splits.split_rows(oblong, config.Split(split="rows")).table()
    assert sorted(table["transform"][table["row"] == 0]) == [0, 2, 4, 6]


def test_too_few_galaxies_of_a_stage_are_explained():
    stages = ["past", "future", *["non-merger"] * 30]
    data = data_of(pd.DataFrame({"galaxy_id": range(32), "view": 0, "copy": 0, "stage": stages}))
    with pytest.raises(InputError, match=r"needs enough galaxies of every stage.*'past': 1"):
        splits.split_galaxies(data, config.Split())


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the real catalogue arrays are not at {REAL}")
def test_the_real_catalogue_confirms_the_leak_of_the_published_split():
    names = {argument: np.load(REAL / file) for argument, file in layout.CATALOGUE_FILES.items()}
    data = data_of(layout.catalogue_from_arrays(**names))
    rows = splits.split_rows(data, config.Split(split="rows", split_seed=5))
    assert np.bincount(data.labels[rows.test.rows]).tolist() == [1425, 1660]
    in_training = np.isin(np.unique(data.galaxies[rows.test.rows]), data.galaxies[rows.train.rows])
    assert (in_training.sum(), len(in_training)) == (1450, 1467)
    assert splits.shared_galaxies(data, splits.split_galaxies(data, config.Split())) == 0
