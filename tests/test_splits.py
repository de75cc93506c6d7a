import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import numbered_sample
from hypothesis import given
from hypothesis import strategies as st

from deepmerge import config
from deepmerge.data import protocols, split_table, splits
from deepmerge.data.batches import gather
from deepmerge.data.dataset import Dataset
from deepmerge.data.released import layout
from deepmerge.errors import InputError

REAL = Path(os.environ.get("DEEPMERGE_REAL_DATA", Path(__file__).parents[2] / "shared" / "real"))


def parts(split):
    return [getattr(split, name) for name in split_table.PARTS]


@pytest.mark.parametrize("seed", range(5))
def test_no_galaxy_is_in_two_parts_and_every_original_image_in_one(released, seed):
    split = splits.split_galaxies(released, config.Split(split_seed=seed))
    galaxies = [set(released.galaxies[part.rows]) for part in parts(split)]
    assert len(set.union(*galaxies)) == sum(map(len, galaxies))
    originals = np.flatnonzero(released.catalogue["copy"] == 0)
    assert (np.sort(np.concatenate([part.rows for part in parts(split)])) == originals).all()
    assert splits.shared_galaxies(released, split) == 0


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


def test_the_published_split_has_the_published_sizes_and_leaks(released):
    """Sizes and test classes as in the notebook and confusion matrix of Ciprijanovic et al. 2020."""
    split = splits.split_rows(released, config.Split(split="rows", split_seed=5))
    assert [len(part) for part in parts(split)] == [10799, 1542, 3085]
    assert np.bincount(released.labels[split.test.rows]).tolist() == [1425, 1660]
    assert splits.shared_galaxies(released, split) == pytest.approx(0.986, abs=0.002)


def test_rows_without_copies_get_the_five_merger_copies_of_the_release():
    stages = ["past"] * 4 + ["non-merger"] * 10
    data = numbered_sample(pd.DataFrame({"galaxy_id": range(14), "view": 0, "copy": 0, "stage": stages}))
    split = splits.split_rows(data, config.Split(split="rows"))
    table = split.table()
    copies = table.groupby("row")["transform"].apply(sorted)
    assert [copies[row] for row in range(4)] == [[0, 1, 2, 4, 6]] * 4
    assert [copies[row] for row in range(4, 14)] == [[0]] * 10


def test_oblong_images_get_no_copies_on_their_side():
    stages = ["past"] * 2 + ["non-merger"] * 4
    data = numbered_sample(pd.DataFrame({"galaxy_id": range(6), "view": 0, "copy": 0, "stage": stages}))
    oblong = Dataset("o", np.zeros((6, 1, 4, 6)), data.labels, data.catalogue, None, "own", ("r",))
    table = splits.split_rows(oblong, config.Split(split="rows")).table()
    assert sorted(table["transform"][table["row"] == 0]) == [0, 2, 4, 6]


def test_the_copies_are_flipped_and_turned_as_their_names_say():
    image = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    turned = gather(image, np.zeros(5, np.int64), splits.RELEASE_COPIES)[..., 0]
    original = image[0, 0]
    expected = [original, np.flipud(original), np.fliplr(original), np.rot90(original), np.rot90(original, 2)]
    assert all((a == b).all() for a, b in zip(turned, expected, strict=True))


def test_too_few_galaxies_of_a_stage_are_explained():
    stages = ["past", "future", *["non-merger"] * 30]
    data = numbered_sample(pd.DataFrame({"galaxy_id": range(32), "view": 0, "copy": 0, "stage": stages}))
    with pytest.raises(InputError, match=r"needs enough galaxies of every stage.*'past': 1"):
        splits.split_galaxies(data, config.Split())


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the real catalogue arrays are not at {REAL}")
def test_the_real_catalogue_confirms_the_leak_of_the_published_split():
    names = {argument: np.load(REAL / file) for argument, file in layout.CATALOGUE_FILES.items()}
    data = numbered_sample(layout.catalogue_from_arrays(**names))
    rows = splits.split_rows(data, config.Split(split="rows", split_seed=5))
    assert np.bincount(data.labels[rows.test.rows]).tolist() == [1425, 1660]
    in_training = np.isin(np.unique(data.galaxies[rows.test.rows]), data.galaxies[rows.train.rows])
    assert (in_training.sum(), len(in_training)) == (1450, 1467)
    assert splits.shared_galaxies(data, splits.split_galaxies(data, config.Split())) == 0


@pytest.mark.parametrize("count", [2, 5])
def test_folds_validate_every_galaxy_outside_the_test_once(released, count):
    split = splits.split_galaxies(released, config.Split())
    folds = splits.folds(released, split, count, seed=1)
    assert len(folds) == count
    outside = np.concatenate([split.train.rows, split.validation.rows])
    validated = np.concatenate([fold.validation.rows for fold in folds])
    assert (np.sort(validated) == np.sort(outside)).all()
    for fold in folds:
        assert fold.protocol == "galaxy"
        assert (np.sort(np.concatenate([fold.train.rows, fold.validation.rows])) == np.sort(outside)).all()
        assert not set(released.galaxies[fold.train.rows]) & set(released.galaxies[fold.validation.rows])
        assert (fold.test.rows == split.test.rows).all()
        mergers = released.labels[fold.validation.rows].mean()
        assert mergers == pytest.approx(released.labels[outside].mean(), rel=0.1)


def test_folds_follow_from_their_seed(released):
    split = splits.split_galaxies(released, config.Split())
    first, again, other = (splits.folds(released, split, 3, seed)[0].validation.rows for seed in (1, 1, 2))
    assert (first == again).all()
    assert set(first) != set(other)


@pytest.mark.parametrize("count", [1, 10_000])
def test_more_folds_than_galaxies_of_a_stage_are_refused(released, count):
    split = splits.split_galaxies(released, config.Split())
    with pytest.raises(InputError, match=f"folds should be 2 to .* got {count}"):
        splits.folds(released, split, count, seed=0)


@st.composite
def catalogues(draw):
    """Galaxies of three stages in any order of rows, each with one to four views and perhaps copies."""
    stages = [stage for stage in ("past", "future", "non-merger") for _ in range(draw(st.integers(10, 40)))]
    views = draw(st.lists(st.integers(1, 4), min_size=len(stages), max_size=len(stages)))
    ids = np.repeat(np.arange(len(stages)), views)
    view = np.concatenate([np.arange(count) for count in views])
    copies = draw(st.integers(1, 2))
    table = pd.DataFrame({"galaxy_id": ids, "view": view, "stage": np.array(stages)[ids]})
    table = pd.concat([table.assign(copy=number) for number in range(copies)])
    return table.sample(frac=1, random_state=draw(st.integers(0, 999))).reset_index(drop=True)


def check_parts(data, split, rows):
    """Every row is in exactly one part, and no galaxy in two."""
    assert sorted(np.concatenate([part.rows for part in parts(split)])) == sorted(rows)
    galaxies = [set(data.galaxies[part.rows]) for part in parts(split)]
    assert sum(map(len, galaxies)) == len(set.union(*galaxies)) == len(np.unique(data.galaxies))


@given(catalogues(), st.integers(0, 2**32 - 1))
def test_any_catalogue_falls_into_parts_that_are_disjoint_and_complete(catalogue, seed):
    data = numbered_sample(catalogue)
    split = splits.make(data, config.Split(split_seed=seed))
    check_parts(data, split, splits.originals(data))
    count = len(np.unique(data.galaxies))
    shares = [len(np.unique(data.galaxies[part.rows])) / count for part in parts(split)]
    assert shares == pytest.approx([0.7, 0.1, 0.2], abs=3 / count)
    for stage in ("past", "future", "non-merger"):
        assert all((catalogue["stage"].to_numpy()[part.rows] == stage).any() for part in parts(split))


@given(catalogues(), st.integers(2, 8), st.integers(0, 999))
def test_folds_of_any_catalogue_test_each_galaxy_once(catalogue, count, seed):
    data = numbered_sample(catalogue)
    made = protocols.cross(data, config.Split(split_seed=seed), count)
    for split in made:
        check_parts(data, split, splits.originals(data))
    tested = np.concatenate([split.test.rows for split in made])
    assert sorted(tested) == sorted(splits.originals(data))
