import json
import re
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from deepmerge import config
from deepmerge.config.yaml_file import written
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
        ({"data": {"images": "x.npy"}}, {}, "'data' should name labels"),
        ({"data": {**DATA, "label": "y"}}, {}, "expected one of: images, labels, catalogue, masks, size"),
        ({"data": DATA}, {"epochs": "abc"}, "'training.epochs' should be a valid integer"),
        ({"data": DATA}, {"epochs": "0"}, "should be greater than or equal to 1, got '0'"),
        ({"data": DATA}, {"dropout": "1"}, "'network.dropout' should be less than 1, got '1'"),
        ({"data": DATA}, {"learning_rate": "nan"}, "'training.learning_rate'"),
        ({"data": DATA}, {"learning_rate": "inf"}, "'training.learning_rate'"),
        ({"data": DATA}, {"batch_norm": "height"}, "should be 'architecture', 'channels' or 'width', got 'height'"),
        ({"data": DATA}, {"hidden": "tanh"}, "should be 'architecture', 'relu' or 'softmax', got 'tanh'"),
        ({"data": DATA}, {"split": "row"}, "should be 'galaxy' or 'rows', got 'row'"),
        ({"data": DATA}, {"epoch": "3"}, "setting should be one of: adapt, architecture, augment"),
        ({"data": DATA}, {"test_fraction": 0.95}, "should be below 1, to leave images for training"),
        ("just text", {}, "should hold settings"),
        ("a: [b", {}, "should be YAML"),
        ("", {}, "should hold settings such as 'data:' and 'training:', got nothing"),
        ({"data": DATA, "params": {"foo": 1}}, {}, "unknown key 'params.foo'; expected one of: name, study"),
        ({"data": {**DATA, "images": ["x"] * 5000}}, {}, "'data.images' is not a valid path"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(write, content, overrides, said):
    with pytest.raises(InputError) as error:
        config.load(write(content), overrides)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("training", "expected"),
    [
        ("learning_rate: 1e-3", {"learning_rate": 0.001}),
        ("learning_rate: 1E-4", {"learning_rate": 0.0001}),
        ("learning_rate: .5e-2", {"learning_rate": 0.005}),
        ("epochs: 1e3", {"epochs": 1000}),
        ("batch_size: 012", {"batch_size": 12}),
        ("epochs: 1_000", {"epochs": 1000}),
        ("augment: no", {"augment": False}),
        ("augment: off", {"augment": False}),
    ],
)
def test_numbers_and_words_of_a_file_mean_what_they_look_like(write, training, expected):
    experiment = config.load(write(f"data: {{images: x.npy, labels: y.npy}}\ntraining: {{{training}}}\n"))
    assert {name: getattr(experiment.training, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("training", "said"),
    [
        ("epochs: 1:30", "'training.epochs' should be a valid integer, .* got '1:30'"),
        ("epochs: true", "'training.epochs' should be a number, got True"),
        ("learning_rate: yes", "'training.learning_rate' should be a valid number, .* got 'yes'"),
        ("learning_rate: 0b11", "'training.learning_rate' should be a valid number, .* got '0b11'"),
        ("learning_rate: 1e999", "'training.learning_rate' should be a finite number"),
        ("seed: 2024-01-01", "'training.seed' should be a valid integer, .* got '2024-01-01'"),
    ],
)
def test_what_only_looks_like_a_number_to_some_is_refused(write, training, said):
    with pytest.raises(InputError, match=said):
        config.load(write(f"data: {{images: x.npy, labels: y.npy}}\ntraining: {{{training}}}\n"))


# Names

NAMES = (
    "o'brien",
    'a "b"',
    "CANDELS: v2",
    "surveys/v2",
    "a b",
    " a",
    "..",
    ".hidden",
    "-x",
    "a.",
    "größe",
    "a\tb",
    "x" * 101,
)


@pytest.mark.parametrize("name", [*NAMES, "", 2024, None, ["a"], "a\nb", "a;b", "a%b"])
def test_a_name_that_mlflow_or_a_file_could_not_bear_is_refused_when_it_is_read(write, name):
    path = write({"data": DATA, "name": name})
    for read in (config.load, config.name_of):
        with pytest.raises(InputError, match=r"mine\.yaml: 'name' should be ") as error:
            read(path)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("stem", [name for name in NAMES if "/" not in name and name != ".."])
def test_so_is_the_name_of_a_file_which_the_file_can_mend(write, stem):
    path = write({"data": DATA}, f"{stem}.yaml")
    for read in (config.load, config.name_of):
        with pytest.raises(InputError, match="the file's name is the experiment's, which should be 1 to 100") as error:
            read(path)
    mend = re.search(r"write '(name: .*?)' into the file", str(error.value))[1]
    Path(path).write_text(f"{mend}\ndata: {{images: x.npy, labels: y.npy}}\n")
    assert f"name: {config.load(path).name}" == mend
    assert config.name_of(path) == config.load(path).name


@pytest.mark.parametrize("name", ["pristine", "CANDELS-v2.1", "_x", "2024", "a", "x" * 100, "1e3", "no"])
def test_other_names_are_taken_as_they_are(write, name):
    assert config.load(write({"data": DATA}, f"{name}.yaml")).name == name
    assert config.load(write(f"name: '{name}'\ndata: {{images: x.npy, labels: y.npy}}\n")).name == name


def test_a_run_of_before_is_trained_again_as_it_was(write):
    """It kept the best epoch and saw an image in one turn, as nobody could say then."""
    record = config.load(write({"data": DATA})).model_dump(mode="json")
    assert (record["network"].pop("symmetry"), record["training"].pop("keep")) == ("average", "last")
    older = config.from_record(record, "record")
    assert (older.network.symmetry, older.training.keep) == ("none", "best")


def test_a_record_under_an_older_name_can_still_be_rebuilt(write):
    record = {**config.load(write({"data": DATA})).model_dump(mode="json"), "name": "o'brien"}
    assert config.from_record(record, "record").name == "o'brien"


def test_the_name_of_an_experiment_whose_file_is_gone_is_that_of_the_file():
    assert config.name_of("gone") == config.name_of("/nowhere/gone.yaml") == "gone"


@pytest.mark.parametrize("dataset", ["o'brien", "/nowhere/o'brien.yaml", "", "..", "a' or '1'='1", "x" * 500, "a\0b"])
def test_what_can_be_nobodys_name_is_no_data_set(dataset):
    with pytest.raises(InputError, match="dataset should be one of: "):
        config.name_of(dataset)


def test_the_name_of_a_file_that_is_wrong_is_not_guessed(write):
    path = write({"data": DATA, "name": "other", "training": {"epoch": 3}})
    with pytest.raises(InputError, match=r"unknown key 'training\.epoch'"):
        config.name_of(path)


def test_an_unknown_data_set_lists_the_choices(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "pristine.yaml").write_text("data: {}")
    with pytest.raises(InputError, match=r"one of: pristine .*got 'prestine'"):
        config.load("prestine")
    with pytest.raises(InputError, match=r"got 'missing.yaml'"):
        config.load("missing.yaml")


@pytest.fixture
def packaged(tmp_path, monkeypatch):
    """The project's experiments in the package, as a wheel has them, and an empty working directory; the former."""
    folder, here = tmp_path / "site-packages" / "experiments", tmp_path / "here"
    folder.mkdir(parents=True)
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys.modules["deepmerge.config.load"], "PACKAGED", folder)  # the package's `load` is a function
    (folder / "pristine.yaml").write_text(
        "data: {images: ../data/x.npy, labels: /far/y.npy}\nsplit: {split_table: s.csv}"
    )
    return folder


def test_an_experiment_of_the_package_finds_data_from_the_working_directory(packaged):
    experiment = config.load("pristine")
    assert experiment.name == config.name_of("pristine") == "pristine"
    assert (experiment.data.images, experiment.data.labels) == (Path("data/x.npy"), Path("/far/y.npy"))
    assert experiment.data.catalogue is None
    assert experiment.split.split_table == Path("experiments/s.csv")
    assert config.params_file("pristine", "tuned") == Path("experiments/tuned/pristine.yaml")
    assert config.names() == ["pristine"]
    with pytest.raises(InputError, match="one of: pristine "):
        config.load("noisy")


def test_an_experiment_of_the_working_directory_wins_over_one_of_the_package(packaged):
    Path("experiments").mkdir()
    Path("experiments/pristine.yaml").write_text("data: {images: x.npy, labels: y.npy}")
    Path("experiments/mine.yaml").write_text("data: {images: x.npy, labels: y.npy}")
    assert config.load("pristine").data.images == Path("experiments/x.npy")
    assert config.names() == ["mine", "pristine"]


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
    ("choices", "expected"),
    [
        ("learning_rate: {choices: [1e-4, 1e-3]}", (0.0001, 0.001)),
        ("learning_rate: {choices: ['1e-4', 1E-3, .5e-2]}", (0.0001, 0.001, 0.005)),
        ("batch_size: {choices: [032, 6.4e1, 1_28]}", (32, 64, 128)),
        ("augment: {choices: [yes, no]}", (True, False)),
        ("augment: {choices: [0, 1]}", (False, True)),
        ("stretch: {choices: [asinh, log]}", ("asinh", "log")),
    ],
)
def test_choices_are_values_of_their_setting_however_they_are_written(write, choices, expected):
    text = f"data: {{images: x.npy, labels: y.npy}}\ntuning: {{space: {{{choices}}}}}\n"
    [found] = config.load(write(text)).tuning.space.values()
    assert found.choices == expected
    assert list(map(type, found.choices)) == list(map(type, expected))


@pytest.mark.parametrize(
    ("tuning", "said"),
    [
        ({"space": {"augment": {"choices": ["no", "off"]}}}, "each choice of augment once; False is there twice"),
        ({"space": {"l2": {"choices": [0.01, "1e-2"]}}}, "each choice of l2 once; 0.01 is there twice"),
        ({"space": {"augment": {"low": 0, "high": 1}}}, "should have choices for augment, which is no number"),
        ({"space": {"dropout": {"low": 0, "high": True}}}, "'tuning.space.dropout.high' should be a number, got True"),
        ({"space": {"dropout": {"choices": [None, 0.1]}}}, "should be a list of numbers or words, got [None, 0.1]"),
        ({"space": {"dropout": {"choices": 0.1}}}, "should be a list of numbers or words, got 0.1"),
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
        (
            "settings: {dropout: 0.1, dropout: 0.2}",
            "line 1: should be YAML, but: the key 'dropout' stands in line 1 too",
        ),
    ],
)
def test_settings_by_name_that_are_none_are_refused(write, tmp_path, content, said):
    path = write({"data": DATA})
    if content is not None:
        write(content, "found.yaml")
    with pytest.raises(InputError) as error:
        config.load(path, params=str(tmp_path / "found.yaml"))
    assert said in str(error.value)
    assert "found.yaml" in str(error.value)


def test_studies_and_promotions_ask_what_the_command_the_file_and_the_defaults_say_in_this_order(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("data: {images: x.npy, labels: y.npy}\nstudy: {seeds: 3, bins: 4}\npromotion: {metric: f1}\n")
    asked = config.study_of(str(path), bins=2, seeds=None)
    assert (asked.seeds, asked.bins, asked.members) == (3, 2, config.Study().members)
    assert config.promotion_of(str(path)).metric == "f1"
    assert config.promotion_of(str(path), metric="auc").metric == "auc"
    assert config.study_of("gone", seeds=7).seeds == 7  # a name whose file is gone
    with pytest.raises(InputError, match="'seeds' should be greater than or equal to 1, got 0"):
        config.study_of(str(path), seeds=0)


def test_settings_of_a_network_are_sorted_into_their_sections():
    network, training = config.sections({"dropout": 0.5, "epochs": 3})
    assert (network.dropout, training.epochs, training.batch_size) == (0.5, 3, config.Training().batch_size)
    with pytest.raises(InputError, match="got 'epoch'"):
        config.sections({"epoch": 3})


SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "split": st.sampled_from(["galaxy", "rows"]),
        "split_seed": st.integers(0, 2**32 - 1),
        "test_fraction": st.floats(0.01, 0.89),
        "architecture": st.sampled_from(["default", "published"]),
        "stretch": st.sampled_from(["raw", "standard", "asinh", "log"]),
        "dropout": st.floats(0, 1, exclude_max=True),
        "l2": st.floats(0, 1e6),
        "epochs": st.integers(1),
        "learning_rate": st.floats(0, exclude_min=True, allow_infinity=False),
        "augment": st.booleans(),
        "seed": st.integers(0, 2**32 - 1),
    },
)
CHOICES = st.one_of(
    st.builds(lambda low, width: {"low": low, "high": low + width}, st.floats(0, 0.5), st.floats(0.1, 0.4)),
    st.lists(st.floats(0, 0.9), min_size=2, max_size=4, unique=True).map(lambda values: {"choices": values}),
)


@given(SETTINGS, CHOICES, st.lists(st.floats(0.001, 0.999), min_size=1, max_size=3))
def test_any_experiment_is_the_same_after_its_record_and_after_its_file(tmp_path_factory, settings, space, fractions):
    path = tmp_path_factory.mktemp("record") / "mine.yaml"
    path.write_text(written({"data": DATA, "study": {"merger_fractions": fractions}}))
    experiment = config.load(str(path), settings, tuning={"space": {"dropout": space}})
    assert {name: experiment.settings()[name] for name in settings} == settings
    record = experiment.model_dump(mode="json")
    assert config.from_record(json.loads(json.dumps(record)), "record") == experiment
    path.write_text(written({**record, "data": DATA}))
    assert config.load(str(path)) == experiment
