"""Tables of tags: what they leave out and relabel, whom they name, and what they may not say."""

import numpy as np
import pandas as pd
import pytest

from deepmerge import config
from deepmerge.data import check, dataset, splits, tags
from deepmerge.errors import InputError

BIG = 2**53 + 1  # a float holds its neighbour instead


@pytest.fixture
def write(tmp_path):
    def write(text, name="tags.csv"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


IDS = pd.Series([7, 7, 5, 5, BIG, BIG])
LABELS = np.array([1, 1, 0, 0, 0, 0], np.uint8)


def test_an_image_is_left_out_alone(write):
    assert tags.excluded(
        write("row,galaxy_id,label,tag\n4,9007199254740993,0,artefact\n1,7,1,unsure\n"), IDS
    ).tolist() == [4]


def test_a_table_without_tags_leaves_all_of_it_out(write):
    assert tags.excluded(write("row\n3\n0\n"), IDS).tolist() == [0, 3]
    assert tags.excluded(write("galaxy_id\n5\n"), IDS).tolist() == [2, 3]


@pytest.mark.parametrize(
    ("table", "labels"),
    [
        ("row,label,tag\n0,1,wrong label\n", [0, 0, 0, 0, 0, 0]),
        ("row,label,tag\n2,0,Wrong_Label\n", [1, 1, 1, 1, 0, 0]),
        ("row,tag\n2,wrong label\n", [1, 1, 1, 1, 0, 0]),
        ("row,label,tag\n5,0,merger\n0,1,non-merger\n2,0,artefact\n", [0, 0, 0, 0, 1, 1]),
        ("galaxy_id,tag\n9007199254740993,merger\n", [1, 1, 0, 0, 1, 1]),
        ("galaxy_id,label\n7,0\n5,merger\n", [0, 0, 1, 1, 0, 0]),
        ("row,tag\n0,wrong label\n1,wrong label\n", [0, 0, 0, 0, 0, 0]),
        ("row,tag\n2,merger\n3,\n4,\n5,merger\n0,interesting\n", [1, 1, 1, 1, 1, 1]),
    ],
)
def test_a_label_is_corrected_for_all_images_of_the_galaxy(write, table, labels):
    assert tags.relabelled(write(table), IDS, LABELS).tolist() == labels


def test_wrong_is_meant_of_the_label_that_the_line_states_so_that_a_table_can_be_applied_again(write):
    path = write("row,label,tag\n0,1,wrong label\n")
    once = tags.relabelled(path, IDS, LABELS)
    assert tags.relabelled(path, IDS, once).tolist() == once.tolist()


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("row,tag\n0,merger\n1,non-merger\n", "one label of each galaxy, but says both of galaxy 7"),
        ("row,tag\n6,merger\n", "whole numbers from 0 to 5, got '6'"),
        ("row,tag\n1.5,merger\n", "whole numbers from 0 to 5, got '1.5'"),
        ("row,galaxy_id,tag\n0,5,merger\n", "has galaxy '5' for row 0, where the data have 7"),
        ("row,galaxy_id,tag\n4,9007199254740992,merger\n", "where the data have 9007199254740993"),
        ("galaxy_id,tag\n8,merger\n", "got '8' in data row 0, which is none of theirs"),
        ("row,tag\n0,mergre\n", "tag in .* should be wrong label, merger, .* got mergre"),
        ("row,tag\n0,merger\n0,merger\n", "name each image once, got row 0 again"),
        ("row\n0\n", "should have a column tag .* or a label"),
        ("tag\nmerger\n", "should have in its first line a column row"),
    ],
)
def test_what_does_not_fit_is_refused(write, table, said):
    with pytest.raises(InputError, match=said):
        tags.relabelled(write(table), IDS, LABELS)


def test_ids_survive_commas_quotes_and_other_scripts(write):
    ids = pd.Series(['NGC "1", b', "Ćir <b>", "007", "7"])
    table = 'galaxy_id,tag\n"NGC ""1"", b",artefact\nĆir <b>,artefact\n007,artefact\n'
    assert tags.excluded(write(table), ids).tolist() == [0, 1, 2]


@pytest.fixture
def experiment(write_sample, tmp_path):
    """Settings of the small sample (14 past, 10 future, 36 non-mergers, two views) with tables of tags."""

    def make(**tables):
        path = write_sample()
        for name, text in tables.items():
            (path.parent / f"{name}.csv").write_text(text)
        content = path.read_text().replace("data:", "data:\n" + "".join(f"  {n}: {n}.csv\n" for n in tables), 1)
        path.write_text(content)
        return config.load(str(path))

    return make


def read(experiment):
    return dataset.read(experiment.data, experiment.name)


def test_excluded_images_are_in_no_part_of_any_split_and_other_rows_keep_their_numbers(experiment):
    whole, cut = read(experiment()), read(experiment(exclude="row,tag\n3,artefact\n50,artefact\n"))
    assert cut.excluded.tolist() == [3, 50]
    assert cut.fingerprint != whole.fingerprint
    for protocol in ("galaxy", "rows"):
        made = splits.make(cut, config.Split(split=protocol))
        assert set(made.table()["row"]) == set(range(120)) - {3, 50}
    assert len(cut.labels) == 120


def test_a_split_made_before_goes_on_without_them(experiment, tmp_path):
    whole = read(experiment())
    table = tmp_path / "split.csv"
    before = splits.make(whole, config.Split())
    splits.published(before, whole).to_csv(table, index=False)
    cut = read(experiment(exclude="row\n3\n"))
    after = splits.make(cut, config.Split(split_table=table))
    assert set(before.table()["row"]) - set(after.table()["row"]) == {3}


def test_an_excluded_image_may_hold_anything(experiment):
    made = experiment(exclude="row,tag\n3,artefact\n")
    pixels = np.load(made.data.images)
    pixels[3] = np.nan
    np.save(made.data.images, pixels)
    data = read(made)
    dataset.require_finite(data)
    report = check.check(data)
    assert report.problems == []
    assert report.facts["left out"] == "1 images, by data.exclude"
    pixels[4] = np.nan
    np.save(made.data.images, pixels)
    with pytest.raises(InputError, match="in row 4"):
        dataset.require_finite(read(made))


def test_a_relabelled_galaxy_has_the_stage_of_its_new_label_and_can_be_split(experiment):
    data = read(experiment(relabel="row,label,tag\n0,1,wrong label\n119,0,wrong label\n"))
    assert data.catalogue["stage"].iloc[[0, 1, 118, 119]].tolist() == ["non-merger"] * 2 + ["merger"] * 2
    assert data.labels[[0, 1, 118, 119]].tolist() == [0, 0, 1, 1]
    assert set(splits.make(data, config.Split()).table()["row"]) == set(range(120))


def test_one_class_alone_is_refused(experiment):
    lines = "".join(f"{row},non-merger\n" for row in range(0, 48))
    with pytest.raises(InputError, match="should hold both 0"):
        read(experiment(relabel="row,tag\n" + lines))


def test_the_tables_lie_beside_the_experiment_file(experiment):
    made = experiment(relabel="row,tag\n0,wrong label\n")
    assert made.data.relabel.parent == made.data.images.parent
