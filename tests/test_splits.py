import dataclasses
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepmerge import config
from deepmerge.data import protocols, split_table, splits
from deepmerge.data.batches import gather
from deepmerge.data.dataset import Dataset
from deepmerge.data.released import layout
from deepmerge.errors import InputError

REAL = Path(os.environ.get("DEEPMERGE_REAL_DATA", Path(__file__).parents[2] / "shared" / "real"))


def sample(catalogue: pd.DataFrame) -> Dataset:
    """A data set whose images hold their own row number in the upper left corner."""
    images = np.zeros((len(catalogue), 1, 4, 4), np.float32)
    images[:, 0, 0, 0] = np.arange(len(catalogue))
    labels = (catalogue["stage"] != "non-merger").to_numpy().astype(np.uint8)
    return Dataset("s", images, labels, catalogue, None, "own", ("r",))


@pytest.fixture(scope="module")
def released() -> Dataset:
    """The released sample's rows, with 1 galaxy in 4 mergers of two stages."""
    catalogue = layout.layout_catalogue()
    past = (catalogue["galaxy_id"] % 4 > 0) & (catalogue["stage"] != "non-merger")
    catalogue.loc[catalogue["stage"] != "non-merger", "stage"] = "future"
    catalogue.loc[past, "stage"] = "past"
    return sample(catalogue)


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


def test_a_split_survives_its_table(released, tmp_path):
    for settings in (config.Split(), config.Split(split="rows")):
        split = splits.make(released, settings)
        split.table().to_csv(tmp_path / "split.csv", index=False)
        back = splits.from_table(pd.read_csv(tmp_path / "split.csv"), split.protocol)
        assert back.fingerprint == split.fingerprint
        for one, two in zip(parts(split), parts(back), strict=True):
            assert (one.rows == two.rows).all()
            assert (one.transforms == two.transforms).all()


def write_table(path, **columns):
    pd.DataFrame(columns).to_csv(path, index=False)
    return path


def test_a_split_of_ones_own_is_taken_as_it_is(released, tmp_path):
    own = splits.split_galaxies(released, config.Split(split_seed=9))
    table = split_table.described(own.table(), released)
    assert set(table.columns) == {"split", "row", "transform", "galaxy_id", "view", "stage", "label"}
    assert (table["label"] == released.labels[table["row"]]).all()
    table.to_csv(tmp_path / "own.csv", index=False)
    assert splits.make(released, config.Split(split_table=tmp_path / "own.csv")).fingerprint == own.fingerprint


STAGED = np.repeat(["past", "future", "non-merger"], [24, 24, 72])
# Galaxies whose ids differ from their rows; two views each.
NAMED = pd.DataFrame(
    {"galaxy_id": 5000 + np.arange(120) // 2 * 7, "view": np.tile([0, 1], 60), "copy": 0, "stage": STAGED}
)


@pytest.fixture
def taken(tmp_path):
    """Write a table, and take it as the split of a data set."""

    def taken(table, data):
        path = tmp_path / "t.csv"
        path.write_text(table if isinstance(table, str) else table.to_csv(index=False))
        return splits.make(data, config.Split(split_table=path))

    return taken


def published(data, **settings):
    return split_table.published(splits.make(data, config.Split(**settings)).table(), data)


def other_images(data, **changes):
    return dataclasses.replace(data, images=data.images + 1, **changes)


def test_a_published_split_is_taken_by_the_data_it_is_of_and_names_them(taken, caplog):
    data = sample(NAMED)
    table = published(data)
    assert (table["data_fingerprint"] == data.fingerprint).all()
    expected = splits.make(data, config.Split()).fingerprint
    assert taken(table, data).fingerprint == expected
    assert taken(table.astype({"galaxy_id": float, "row": float, "label": bool}), data).fingerprint == expected
    assert taken(table.to_csv(index=False, sep=";").replace("galaxy_id", " Galaxy_ID "), data).fingerprint == expected
    assert taken(table.to_csv(), data).fingerprint == expected
    assert taken(table.sample(frac=1, random_state=1), data).test.rows.sum() == taken(table, data).test.rows.sum()
    assert not caplog.text


@pytest.mark.parametrize(
    "name", [int, "NGC {}".format, "00{}".format, "{}.5".format, lambda number: 9007199254740993 + number]
)
@pytest.mark.parametrize("kept", [["galaxy_id"], ["galaxy_id", "label"], None])
def test_a_split_of_another_order_is_refused(taken, name, kept):
    names = [name(number) for number in NAMED["galaxy_id"]]
    data = sample(NAMED.assign(galaxy_id=names))
    order = np.random.default_rng(0).permutation(120)
    moved = sample(data.catalogue.iloc[order].reset_index(drop=True))
    table = published(data)
    table = table if kept is None else table[["split", "row", *kept]]
    assert len(taken(table, data).train)
    with pytest.raises(InputError, match=r"has galaxy_id '.*' for row \d+, where the data have .*such rows") as refused:
        taken(table, moved)
    row = int(str(refused.value).split("for row ")[1].split(",")[0])
    assert f"'{names[row]}' for row {row}, where the data have {names[order[row]]} " in str(refused.value)


@pytest.mark.parametrize(
    ("column", "change"),
    [
        ("label", lambda values: 1 - values),
        ("view", lambda values: 1 - values),
        ("stage", lambda values: values.replace({"past": "future"})),
        ("stage", lambda values: values.replace({"non-merger": "merger"})),
        ("galaxy_id", lambda values: values + 1),
        ("galaxy_id", lambda values: values.replace(5000, 5007)),
        ("galaxy_id", lambda values: values.astype(str).replace("5000", "")),
        ("galaxy_id", lambda values: values + 0.5),
    ],
)
def test_each_column_that_the_data_know_is_compared(taken, column, change):
    data = sample(NAMED)
    table = published(data)
    assert len(taken(table[["split", "row", column]], data).test)
    with pytest.raises(InputError, match=f"has {column} '"):
        taken(table.assign(**{column: change(table[column])})[["split", "row", column]], data)


def test_large_ids_are_compared_to_the_last_digit(taken):
    data = sample(NAMED.assign(galaxy_id=2**60 + NAMED["galaxy_id"]))
    table = published(data)
    assert len(taken(table, data).test)
    with pytest.raises(InputError, match="has galaxy_id"):
        taken(table.assign(galaxy_id=table["galaxy_id"] + 1), data)
    with pytest.raises(InputError, match="has galaxy_id"):
        taken(table.astype({"galaxy_id": float}), data)


def test_a_stage_that_was_not_known_before_is_no_other_order(taken):
    vague = NAMED.assign(stage=NAMED["stage"].replace({"past": "merger", "future": "merger"}))
    for one, other in ((NAMED, vague), (vague, NAMED)):
        assert len(taken(published(sample(one)), sample(other)).test)


def test_another_variant_of_the_same_galaxies_takes_the_split(taken, caplog):
    data = sample(NAMED)
    caplog.set_level("INFO")
    split = taken(published(data), other_images(data))
    assert split.fingerprint == splits.make(data, config.Split()).fingerprint
    assert "was made for other images than s; galaxies and labels are the same" in caplog.text


def test_without_a_catalogue_the_split_of_other_images_is_refused(taken):
    data = dataclasses.replace(sample(NAMED.assign(galaxy_id=np.arange(120))), catalogued=False)
    table = published(data)
    assert len(taken(table, data).test)
    said = rf"of s \(fingerprint .*got one made for others \({data.fingerprint}\)"
    with pytest.raises(InputError, match=said):
        taken(table, other_images(data))
    with pytest.raises(InputError, match=said):
        taken(table.drop(columns="galaxy_id"), other_images(data, catalogued=True))
    assert len(taken(table.drop(columns="data_fingerprint"), other_images(data)).test)


@pytest.mark.parametrize("separator", [",", ";", ", ", "\t"])
def test_a_separator_behind_each_row_of_a_table_moves_no_column(taken, separator):
    lines = ["split,row", "train,0", "validation,60", "test,90"]
    assert taken("\n".join(lines).replace(",", separator), sample(NAMED)).test.rows.tolist() == [90]
    behind = "\n".join([lines[0], *(f"{line},{end}" for line, end in zip(lines[1:], ["", "", "1"], strict=True))])
    with pytest.raises(InputError, match="in its header, 2, got 3 in line 2"):
        taken(behind.replace(",", separator), sample(NAMED))


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"split": ["train", "test"], "row": [0, 1]}, r"each at least once, got 'train', 'test'"),
        ({"split": ["train", "validation", "test", "hold"], "row": [0, 4, 8, 9]}, "each at least once"),
        ({"split": [], "row": []}, "got no rows"),
        ({"split": ["train", "validation", "test"], "row": [0, "", 8]}, "got '' in data row 1"),
        ({"split": ["train", "validation", "test"]}, r"got columns split"),
        ({"split": ["train", "validation", "test"], "row": [0, 1, 15426]}, "from 0 to 15425"),
        ({"split": ["train", "validation", "test"], "row": [0, 8, 9.5]}, "whole numbers"),
        ({"split": ["train", "validation", "test"], "row": [0, 9000, 3]}, "galaxy 0 is in several"),
        ({"split": ["train", "validation", "test"], "row": [0, 0, 9000]}, "got row 0 again"),
        ({"split": ["train", "validation", "test"], "row": [0, 8200, 9000], "transform": [0, 0, 300]}, "one of 0, 1"),
    ],
)
def test_a_table_that_does_not_fit_is_explained(released, tmp_path, columns, said):
    with pytest.raises(InputError, match=said):
        splits.make(released, config.Split(split_table=write_table(tmp_path / "t.csv", **columns)))


def test_the_published_split_has_the_published_sizes_and_leaks(released):
    """Sizes and test classes as in the notebook and confusion matrix of Ciprijanovic et al. 2020."""
    split = splits.split_rows(released, config.Split(split="rows", split_seed=5))
    assert [len(part) for part in parts(split)] == [10799, 1542, 3085]
    assert np.bincount(released.labels[split.test.rows]).tolist() == [1425, 1660]
    assert splits.shared_galaxies(released, split) == pytest.approx(0.986, abs=0.002)


def test_rows_without_copies_get_the_five_merger_copies_of_the_release():
    stages = ["past"] * 4 + ["non-merger"] * 10
    data = sample(pd.DataFrame({"galaxy_id": range(14), "view": 0, "copy": 0, "stage": stages}))
    split = splits.split_rows(data, config.Split(split="rows"))
    table = split.table()
    copies = table.groupby("row")["transform"].apply(sorted)
    assert [copies[row] for row in range(4)] == [[0, 1, 2, 4, 6]] * 4
    assert [copies[row] for row in range(4, 14)] == [[0]] * 10


def test_oblong_images_get_no_copies_on_their_side():
    stages = ["past"] * 2 + ["non-merger"] * 4
    data = sample(pd.DataFrame({"galaxy_id": range(6), "view": 0, "copy": 0, "stage": stages}))
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
    data = sample(pd.DataFrame({"galaxy_id": range(32), "view": 0, "copy": 0, "stage": stages}))
    with pytest.raises(InputError, match=r"needs enough galaxies of every stage.*'past': 1"):
        splits.split_galaxies(data, config.Split())


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the real catalogue arrays are not at {REAL}")
def test_the_real_catalogue_confirms_the_leak_of_the_published_split():
    names = {argument: np.load(REAL / file) for argument, file in layout.CATALOGUE_FILES.items()}
    data = sample(layout.catalogue_from_arrays(**names))
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
    data = sample(catalogue)
    split = splits.make(data, config.Split(split_seed=seed))
    check_parts(data, split, splits.originals(data))
    count = len(np.unique(data.galaxies))
    shares = [len(np.unique(data.galaxies[part.rows])) / count for part in parts(split)]
    assert shares == pytest.approx([0.7, 0.1, 0.2], abs=3 / count)
    for stage in ("past", "future", "non-merger"):
        assert all((catalogue["stage"].to_numpy()[part.rows] == stage).any() for part in parts(split))


@given(catalogues(), st.integers(2, 8), st.integers(0, 999))
def test_folds_of_any_catalogue_test_each_galaxy_once(catalogue, count, seed):
    data = sample(catalogue)
    made = protocols.cross(data, config.Split(split_seed=seed), count)
    for split in made:
        check_parts(data, split, splits.originals(data))
    tested = np.concatenate([split.test.rows for split in made])
    assert sorted(tested) == sorted(splits.originals(data))
