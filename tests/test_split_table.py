"""A split of one's own, taken from a table."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from conftest import data_of

from deepmerge import config
from deepmerge.data import split_table, splits
from deepmerge.errors import InputError


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
    return splits.published(splits.make(data, config.Split(**settings)), data)


def other_images(data, **changes):
    return dataclasses.replace(data, images=data.images + 1, **changes)


def test_a_published_split_is_taken_by_the_data_it_is_of_and_names_them(taken, caplog):
    data = data_of(NAMED)
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
    data = data_of(NAMED.assign(galaxy_id=names))
    order = np.random.default_rng(0).permutation(120)
    moved = data_of(data.catalogue.iloc[order].reset_index(drop=True))
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
    data = data_of(NAMED)
    table = published(data)
    assert len(taken(table[["split", "row", column]], data).test)
    with pytest.raises(InputError, match=f"has {column} '"):
        taken(table.assign(**{column: change(table[column])})[["split", "row", column]], data)


def test_large_ids_are_compared_to_the_last_digit(taken):
    data = data_of(NAMED.assign(galaxy_id=2**60 + NAMED["galaxy_id"]))
    table = published(data)
    assert len(taken(table, data).test)
    with pytest.raises(InputError, match="has galaxy_id"):
        taken(table.assign(galaxy_id=table["galaxy_id"] + 1), data)
    with pytest.raises(InputError, match="has galaxy_id"):
        taken(table.astype({"galaxy_id": float}), data)


def test_a_stage_that_was_not_known_before_is_no_other_order(taken):
    vague = NAMED.assign(stage=NAMED["stage"].replace({"past": "merger", "future": "merger"}))
    for one, other in ((NAMED, vague), (vague, NAMED)):
        assert len(taken(published(data_of(one)), data_of(other)).test)


def test_another_variant_of_the_same_galaxies_takes_the_split(taken, caplog):
    data = data_of(NAMED)
    caplog.set_level("INFO")
    split = taken(published(data), other_images(data))
    assert split.fingerprint == splits.make(data, config.Split()).fingerprint
    assert "was made for other images than s; galaxies and labels are the same" in caplog.text


def test_without_a_catalogue_the_split_of_other_images_is_refused(taken):
    data = dataclasses.replace(data_of(NAMED.assign(galaxy_id=np.arange(120))), catalogued=False)
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
    assert taken("\n".join(lines).replace(",", separator), data_of(NAMED)).test.rows.tolist() == [90]
    behind = "\n".join([lines[0], *(f"{line},{end}" for line, end in zip(lines[1:], ["", "", "1"], strict=True))])
    with pytest.raises(InputError, match="in its header, 2, got 3 in line 2"):
        taken(behind.replace(",", separator), data_of(NAMED))


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
