from pathlib import Path

import pytest
import yaml

from deepmerge import config
from deepmerge.errors import InputError

ROOT = Path(__file__).parents[1]
DATA = {"images": "x.npy", "labels": "y.npy"}


@pytest.fixture
def write(tmp_path):
    def write(content, name="mine.yaml"):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return str(path)

    return write


def test_files_are_found_beside_the_experiment_file(write, tmp_path):
    experiment = config.load(write({"data": {**DATA, "catalogue": "/elsewhere/c.csv"}}))
    assert experiment.name == "mine"
    assert experiment.data.images == tmp_path / "x.npy"
    assert experiment.data.catalogue == Path("/elsewhere/c.csv")


def test_overrides_win_over_the_file_and_the_file_over_defaults(write):
    path = write({"data": DATA, "training": {"epochs": 7, "batch_size": 8}, "network": {"dropout": 0.4}})
    experiment = config.load(path, {"epochs": "3", "l2": 0.01, "seed": None})
    settings = experiment.settings()
    assert (settings["epochs"], settings["batch_size"], settings["dropout"], settings["l2"]) == (3, 8, 0.4, 0.01)
    assert settings["seed"] == config.Training().seed


def test_a_record_gives_the_same_experiment_back(write):
    experiment = config.load(write({"data": DATA, "training": {"epochs": 7}}), {"split": "rows"})
    assert config.from_record(experiment.model_dump(mode="json"), "record") == experiment


def test_flat_names_are_unique_over_the_sections():
    names = [name for section in config.SECTIONS.values() for name in section.model_fields]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("content", "overrides", "said"),
    [
        ({"data": DATA, "training": {"epoch": 3}}, {}, "unknown key 'training.epoch'; expected one of: epochs"),
        ({"data": DATA, "trainig": {}}, {}, "unknown key 'trainig'"),
        ({"data": {"images": "x.npy"}}, {}, "'data.labels' is missing"),
        ({"data": {**DATA, "label": "y"}}, {}, "expected one of: images, labels, catalogue, masks"),
        ({"data": DATA}, {"epochs": "abc"}, "'training.epochs' should be a valid integer"),
        ({"data": DATA}, {"epochs": "0"}, "should be greater than or equal to 1, got '0'"),
        ({"data": DATA}, {"dropout": "1"}, "'network.dropout' should be less than 1, got '1'"),
        ({"data": DATA}, {"learning_rate": "nan"}, "'training.learning_rate'"),
        ({"data": DATA}, {"learning_rate": "inf"}, "'training.learning_rate'"),
        ({"data": DATA}, {"split": "row"}, "should be 'galaxy' or 'rows', got 'row'"),
        ({"data": DATA}, {"epoch": "3"}, "setting should be one of: architecture, augment"),
        ({"data": DATA}, {"test_fraction": 0.95}, "should be below 1, to leave images for training"),
        ("just text", {}, "should hold settings"),
        ("a: [b", {}, "should be YAML"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(write, content, overrides, said):
    with pytest.raises(InputError) as error:
        config.load(write(content), overrides)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_data_set_lists_the_choices(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "pristine.yaml").write_text("data: {}")
    with pytest.raises(InputError, match=r"one of: pristine .*got 'prestine'"):
        config.load("prestine")
    with pytest.raises(InputError, match=r"got 'missing.yaml'"):
        config.load("missing.yaml")


def test_every_experiment_of_the_project_loads(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert {"pristine", "noisy"} <= set(config.names())
    for name in config.names():
        assert config.load(name).name == name
