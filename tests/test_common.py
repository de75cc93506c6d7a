"""Which model is meant by a name, a file and a run: that of the data which the file names."""

import shutil

import numpy as np
import pytest

from deepmerge import config
from deepmerge.data import dataset as datasets
from deepmerge.errors import InputError
from deepmerge.jobs import judged
from deepmerge.jobs.run import RECORD
from deepmerge.tracking import runs


@pytest.fixture
def folders(write_sample, tmp_path, monkeypatch):
    """Two folders, each with its own mine.yaml; the second has twelve galaxies less."""
    written = write_sample("mine", catalogue=False)
    for name, count in (("A", 120), ("B", 96)):
        shutil.copytree(written.parent, tmp_path / name)
        for path in (tmp_path / name).glob("*.npy"):
            np.save(path, np.load(path)[-count:])
    shutil.rmtree(written.parent)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def trained(file):
    """A run as training on an experiment file leaves it, without its model; its id."""
    experiment = config.load(file)
    data = datasets.read(experiment.data, experiment.name)
    tags = {"dataset": experiment.name, runs.TRAINED: "yes", runs.FINGERPRINT: data.fingerprint}
    with runs.new_run("mine-default", tags) as run_id:
        runs.log_json(experiment.model_dump(mode="json"), RECORD)
    return run_id


@pytest.fixture
def ids(client, folders):
    """A model of each folder, the second the newer one."""
    return {name: trained(f"{name}/mine.yaml") for name in ("A", "B")}


def test_a_file_means_its_own_data_whatever_else_is_called_the_same(ids, folders):
    for name, count in (("A", 120), ("B", 96)):
        for model in ("last", ids[name]):
            found = judged.find(f"{name}/mine.yaml", model)
            assert found.run.info.run_id == ids[name]
            assert len(found.data.images) == count
            assert found.experiment.data.images.resolve() == folders / name / "mine_X.npy"


@pytest.mark.parametrize(("file", "other"), [("A/mine.yaml", "B"), ("B/mine.yaml", "A")])
def test_a_model_of_other_data_is_refused_though_it_is_named(ids, file, other):
    with pytest.raises(InputError, match=f"trained on the data of mine .*got run {ids[other]} of 'mine'"):
        judged.find(file, ids[other])


def test_a_file_whose_data_nobody_trained_on_has_no_model(client, folders):
    np.save("A/mine_X.npy", np.load("A/mine_X.npy") + 3)
    theirs = trained("B/mine.yaml")
    with pytest.raises(InputError, match=f"found only run .* of 'mine', started in {folders}, with other data"):
        judged.find("A/mine.yaml", "last")
    assert judged.find("B/mine.yaml", "last").run.info.run_id == theirs


def test_a_file_with_other_data_than_before_has_no_model_any_more(client, folders):
    before = trained("A/mine.yaml")
    np.save("A/mine_X.npy", np.load("A/mine_X.npy") + 1)
    for model in ("last", before):
        with pytest.raises(InputError, match="with other data"):
            judged.find("A/mine.yaml", model)


def test_data_are_read_and_hashed_once(ids, monkeypatch):
    hashed = []
    whole = datasets.chunks
    monkeypatch.setattr(datasets, "chunks", lambda images: hashed.append(len(images)) or whole(images))
    found = judged.find("A/mine.yaml", "last")
    assert found.data.fingerprint == found.run.data.tags[runs.FINGERPRINT]
    assert hashed == [120]


def test_a_name_whose_file_is_gone_means_the_newest_model_of_that_name(ids, folders):
    assert judged.find("mine", "last").run.info.run_id == ids["B"]
    assert len(judged.find("mine", ids["A"]).data.images) == 120
    np_file = folders / "A" / "mine_y.npy"
    np_file.unlink()
    with pytest.raises(InputError, match="labels expected at"):
        judged.find("mine", ids["A"])


def test_a_name_with_a_file_means_the_data_of_that_file(ids, folders, monkeypatch):
    shutil.copytree(folders / "A", folders / "experiments")
    assert judged.find("mine", "last").run.info.run_id == ids["A"]


@pytest.mark.parametrize("file", ["C/mine.yaml", "mine.yml"])
def test_a_file_that_is_not_there_means_no_model(ids, file):
    with pytest.raises(InputError, match=f"or the path of an experiment file., got '{file}'"):
        judged.find(file, "last")


def test_a_file_that_cannot_be_read_means_no_model(ids, folders):
    (folders / "A" / "mine.yaml").write_text("data: 7")
    with pytest.raises(InputError, match=r"mine\.yaml"):
        judged.find("A/mine.yaml", ids["A"])


def test_studies_are_those_of_the_data_too(client, folders):
    made = {}
    for name in ("A", "B"):
        experiment = config.load(f"{name}/mine.yaml")
        data = datasets.read(experiment.data, experiment.name)
        tags = {"dataset": "mine", "kind": "folds", runs.FINGERPRINT: data.fingerprint}
        with runs.new_run("mine-folds", tags) as made[name]:
            runs.log_json(experiment.model_dump(mode="json"), RECORD)
    for name in ("A", "B"):
        assert judged.newest_study(f"{name}/mine.yaml", "folds", "x").run.info.run_id == made[name]
