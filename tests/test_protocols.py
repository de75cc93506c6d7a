"""Folds over all galaxies, and the published protocol beside an honest one of the same size."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import catalogues, data_of
from hypothesis import given
from hypothesis import strategies as st

from deepmerge import config
from deepmerge.data import protocols, splits
from deepmerge.data.batches import gather
from deepmerge.data.dataset import read
from deepmerge.errors import InputError

SETTINGS = config.Split(split_seed=3)


@pytest.fixture
def data(write_sample):
    return read(config.load(str(write_sample())).data, "tiny")


def galaxies_of(data, part):
    return set(data.galaxies[part.rows])


def test_each_galaxy_tests_in_exactly_one_fold_with_all_its_views(data):
    made = protocols.cross(data, SETTINGS, 5)
    tested = np.concatenate([split.test.rows for split in made])
    assert sorted(tested) == list(range(len(data.labels)))
    assert sum(len(galaxies_of(data, split.test)) for split in made) == data.galaxies.max() + 1


def test_no_galaxy_is_in_two_parts_of_a_fold_and_none_is_lost(data):
    for split in protocols.cross(data, SETTINGS, 5):
        parts = [galaxies_of(data, getattr(split, name)) for name in splits.PARTS]
        assert len(set().union(*parts)) == sum(map(len, parts)) == data.galaxies.max() + 1


def test_stages_are_spread_evenly_over_the_folds(data):
    stages = data.catalogue["stage"]
    counts = pd.DataFrame([stages.iloc[split.test.rows].value_counts() for split in protocols.cross(data, SETTINGS, 5)])
    assert (counts.max() - counts.min() <= 2).all()  # one galaxy has two views here


def test_as_many_galaxies_validate_as_in_a_single_split(data):
    single = splits.split_galaxies(data, SETTINGS)
    for split in protocols.cross(data, SETTINGS, 5):
        assert abs(len(split.validation) - len(single.validation)) <= 2


def test_another_seed_makes_other_folds_and_the_same_seed_the_same(data):
    one, again = (protocols.cross(data, SETTINGS, 4)[0].fingerprint for _ in range(2))
    assert one == again != protocols.cross(data, config.Split(split_seed=4), 4)[0].fingerprint


@pytest.mark.parametrize("count", [1, 11])
def test_folds_that_a_stage_cannot_fill_are_refused(data, count):
    with pytest.raises(InputError, match=f"folds should be 2 to 10, .* got {count}"):
        protocols.cross(data, SETTINGS, count)


def test_training_copies_are_the_flips_and_turns_of_mergers_alone(data):
    [split, *_] = protocols.cross(data, SETTINGS, 5)
    copied = protocols.with_copies(data, split)
    mergers = data.labels[split.train.rows] == 1
    assert len(copied.train) == len(split.train) + 4 * mergers.sum()
    assert galaxies_of(data, copied.train) == galaxies_of(data, split.train)
    assert not copied.train.transforms[data.labels[copied.train.rows] == 0].any()
    assert copied.test is split.test
    row = split.train.rows[mergers][0]
    same = copied.train.rows == row
    shown = gather(data.images, copied.train.rows[same], copied.train.transforms[same])
    original = np.moveaxis(data.images[row], 0, -1)
    expected = [original, original[::-1], original[:, ::-1], np.rot90(original), np.rot90(original, 2)]
    assert {image.tobytes() for image in shown} == {np.ascontiguousarray(image).tobytes() for image in expected}


def test_the_published_protocol_leaks_and_the_honest_one_does_not(data):
    made = protocols.protocols(data, SETTINGS)
    assert splits.shared_galaxies(data, made.rows) > 0.8
    assert splits.shared_galaxies(data, made.galaxy) == 0


def test_both_protocols_have_parts_of_the_same_size_from_the_same_galaxies(data):
    made = protocols.protocols(data, SETTINGS)
    for name in splits.PARTS:
        assert len(getattr(made.rows, name)) == len(getattr(made.galaxy, name)) > 0
    used = [
        set().union(*(galaxies_of(data, getattr(split, name)) for name in splits.PARTS))
        for split in (made.rows, made.galaxy)
    ]
    assert used[0] == used[1]


def test_the_unseen_galaxies_are_in_neither_and_are_the_test_of_the_usual_split(data):
    made = protocols.protocols(data, SETTINGS)
    unseen = galaxies_of(data, made.unseen)
    assert unseen == galaxies_of(data, splits.split_galaxies(data, SETTINGS).test)
    for split in (made.rows, made.galaxy):
        for name in splits.PARTS:
            assert not unseen & galaxies_of(data, getattr(split, name))


def test_in_the_published_protocol_no_image_is_used_twice(data):
    made = protocols.protocols(data, SETTINGS)
    for split in (made.rows, made.galaxy):
        images = pd.concat(
            [pd.DataFrame({"row": p.rows, "t": p.transforms}) for p in (split.train, split.validation, split.test)]
        )
        assert not images.duplicated().any()


@given(catalogues(), st.integers(2, 4), st.integers(0, 2**32 - 10))
def test_folds_of_any_catalogue_are_disjoint_and_complete(catalogue, count, seed):
    data = data_of(catalogue)
    settings = config.Split(split_seed=seed)
    crossed = protocols.cross(data, settings, count)
    folded = protocols.folds(data, splits.split_galaxies(data, settings), count)
    for split in (*crossed, *folded):
        galaxies = [galaxies_of(data, getattr(split, name)) for name in splits.PARTS]
        assert sum(map(len, galaxies)) == len(set.union(*galaxies)) == data.galaxies.max() + 1
    originals = np.flatnonzero(catalogue["copy"] == 0).tolist()
    assert sorted(np.concatenate([split.test.rows for split in crossed])) == originals
    assert sorted(np.concatenate([*(split.validation.rows for split in folded), folded[0].test.rows])) == originals


@given(catalogues(), st.integers(0, 2**32 - 10))
def test_both_protocols_of_any_catalogue_use_the_same_galaxies_and_none_of_the_unseen(catalogue, seed):
    data = data_of(catalogue)
    made = protocols.protocols(data, config.Split(split_seed=seed))
    unseen = galaxies_of(data, made.unseen)
    honest = [galaxies_of(data, getattr(made.galaxy, name)) for name in splits.PARTS]
    leaking = set.union(*(galaxies_of(data, getattr(made.rows, name)) for name in splits.PARTS))
    assert sum(map(len, honest)) == len(set.union(*honest))
    assert not unseen & (leaking | set.union(*honest))


@pytest.mark.parametrize("count", [2, 5])
def test_folds_validate_every_galaxy_outside_the_test_once(released, count):
    split = splits.split_galaxies(released, SETTINGS)
    made = protocols.folds(released, split, count)
    assert len(made) == count
    outside = np.concatenate([split.train.rows, split.validation.rows])
    validated = np.concatenate([fold.validation.rows for fold in made])
    assert (np.sort(validated) == np.sort(outside)).all()
    for fold in made:
        assert fold.protocol == "galaxy"
        assert (np.sort(np.concatenate([fold.train.rows, fold.validation.rows])) == np.sort(outside)).all()
        assert not set(released.galaxies[fold.train.rows]) & set(released.galaxies[fold.validation.rows])
        assert (fold.test.rows == split.test.rows).all()
        mergers = released.labels[fold.validation.rows].mean()
        assert mergers == pytest.approx(released.labels[outside].mean(), rel=0.1)


def test_folds_follow_from_the_seed_of_the_split(released):
    split = splits.split_galaxies(released, SETTINGS)
    seeded = [replace(split, seed=seed) for seed in (1, 1, 2)]
    first, again, other = (protocols.folds(released, split, 3)[0].validation.rows for split in seeded)
    assert (first == again).all()
    assert set(first) != set(other)


@pytest.mark.parametrize("count", [1, 10_000])
def test_more_folds_than_galaxies_of_a_stage_are_refused(released, count):
    split = splits.split_galaxies(released, SETTINGS)
    with pytest.raises(InputError, match=f"folds should be 2 to .* got {count}"):
        protocols.folds(released, split, count)
