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


def test_batch_norm_and_hidden_units_are_the_architectures_where_nothing_else_is_said(write):
    """Also in the record of a training that was made before one could choose."""
    experiment = config.load(write({"data": DATA, "network": {"architecture": "published"}}), {"hidden": "relu"})
    assert (experiment.network.batch_norm, experiment.network.hidden) == ("architecture", "relu")
    record = experiment.model_dump(mode="json")
    for name in ("batch_norm", "hidden"):
        del record["network"][name]
    older = config.from_record(record, "record")
    assert (older.network.batch_norm, older.network.hidden) == ("architecture", "architecture")


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
        ({"data": DATA}, {"batch_norm": "height"}, "should be 'architecture', 'channels' or 'width', got 'height'"),
        ({"data": DATA}, {"hidden": "tanh"}, "should be 'architecture', 'relu' or 'softmax', got 'tanh'"),
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


# The search space


def test_a_search_space_may_hold_ranges_and_choices(write):
    space = {"l2": {"low": "1e-6", "high": 0.01, "log": True}, "batch_size": {"choices": [32, 64]}}
    experiment = config.load(write({"data": DATA, "tuning": {"space": space, "trials": 5}}), tuning={"trials": "7"})
    assert experiment.tuning.trials == 7
    assert experiment.first_trial() == {"l2": config.Network().l2, "batch_size": config.Training().batch_size}


@pytest.mark.parametrize(
    ("tuning", "said"),
    [
        ({"space": {"droput": {"low": 0, "high": 0.5}}}, "should name settings among architecture, augment, balance"),
        ({"space": {"seed": {"low": 0, "high": 5}}}, "'seed' is none of them"),
        ({"space": {"dropout": {"low": 0, "high": 1}}}, "'dropout' should be less than 1, got 1.0"),
        ({"space": {"batch_size": {"low": 16.5, "high": 64}}}, "'batch_size' should be a valid integer"),
        ({"space": {"stretch": {"choices": ["asinh", "sqrt"]}}}, "got 'sqrt'"),
        ({"space": {"dropout": {"low": 0.5, "high": 0.1}}}, "'tuning.space.dropout' should have low below high"),
        ({"space": {"dropout": {"low": 0.5}}}, "should have low and high, or choices of two or more"),
        (
            {"space": {"dropout": {"low": 0.1, "high": 0.5, "choices": [0.1, 0.2]}}},
            "should have low and high, or choices",
        ),
        ({"space": {"dropout": {"low": 0, "high": 0.5, "log": True}}}, "should have low above 0 where log is true"),
        ({"space": {"dropout": {"low": 0, "hi": 0.5}}}, "unknown key 'tuning.space.dropout.hi'; expected one of: low"),
        ({"space": {}}, "'tuning.space'"),
        ({"trails": 5}, "unknown key 'tuning.trails'; expected one of: trials, objective"),
        ({"objective": "accuracy"}, "should be 'log_loss' or 'auc', got 'accuracy'"),
        ({"trials": 0}, "'tuning.trials' should be greater than or equal to 1, got 0"),
    ],
)
def test_a_wrong_search_is_refused_in_one_line(write, tuning, said):
    with pytest.raises(InputError) as error:
        config.load(write({"data": DATA, "tuning": tuning}))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_study_cannot_begin_outside_its_search_space_but_training_can(write):
    path = write({"data": DATA, "tuning": {"space": {"dropout": {"low": 0.3, "high": 0.5}}}})
    experiment = config.load(path, {"dropout": 0.2})
    with pytest.raises(InputError, match=r"tuning\.space\.dropout should include the experiment's own value, 0\.2"):
        experiment.first_trial()


def test_other_settings_are_checked_like_those_of_a_file(write):
    experiment = config.load(write({"data": DATA}))
    other = experiment.with_settings({"dropout": 0.4, "seed": 3})
    assert (other.network.dropout, other.training.seed, other.training.epochs) == (0.4, 3, experiment.training.epochs)
    assert experiment.network.dropout == config.Network().dropout
    with pytest.raises(ValueError, match="dropout"):
        experiment.with_settings({"dropout": 2})


# Settings by name


def test_settings_by_name_win_over_the_file_and_lose_against_the_command_line(write, tmp_path):
    path = write({"data": DATA, "network": {"dropout": 0.1, "l2": 0.1}, "training": {"learning_rate": 0.1}})
    found = {"settings": {"dropout": 0.3, "learning_rate": 0.3}, "study": {"name": "s", "data_fingerprint": "f"}}
    (tmp_path / "tuned").mkdir()
    (tmp_path / "tuned" / "mine.yaml").write_text(yaml.safe_dump(found))
    experiment = config.load(path, {"learning_rate": 0.5}, "tuned")
    assert (experiment.network.dropout, experiment.network.l2, experiment.training.learning_rate) == (0.3, 0.1, 0.5)
    assert experiment.params == config.Params(name="tuned", study="s", data_fingerprint="f")
    assert config.from_record(experiment.model_dump(mode="json"), "record") == experiment
    assert config.load(path, params=str(tmp_path / "tuned" / "mine.yaml")).network.dropout == 0.3
    assert config.load(path).params is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "'deepmerge tune' makes one"),
        ("[1]", "should hold 'settings:' with names and values"),
        ("dropout: 0.3", "should hold 'settings:' with names and values, got None"),
        ("settings: {droput: 0.3}", "setting should be one of: "),
        ("settings: {dropout: 3}", "'network.dropout' should be less than 1, got 3"),
    ],
)
def test_settings_by_name_that_are_none_are_refused(write, tmp_path, content, said):
    path = write({"data": DATA})
    if content is not None:
        write(content, "found.yaml")
    with pytest.raises(InputError) as error:
        config.load(path, params=str(tmp_path / "found.yaml"))
    assert said in str(error.value)
