"""Own networks and trained ones in runs: what is recorded, tuned and refused, and that no loaded run's code is run."""

import pytest
import yaml

from deepmerge import config
from deepmerge.errors import InputError
from deepmerge.jobs import judged, networks
from deepmerge.jobs.evaluate import evaluate
from deepmerge.jobs.main import main
from deepmerge.jobs.predict import predict
from deepmerge.jobs.train import train
from deepmerge.jobs.tune.search import tune
from deepmerge.model import devices
from deepmerge.tracking import registry, runs

SOURCE = """
from pathlib import Path

import keras

Path(__file__).with_suffix(".ran").write_text("")


def build(images, depth: int = 1):
    for number in range(1, depth + 1):
        images = keras.layers.Conv2D(4, 3, name=f"conv_{number}")(images)
    return keras.layers.GlobalAveragePooling2D()(images)
"""
QUICK = {"epochs": 1, "batch_size": 32}

devices.prepare()


@pytest.fixture
def mine(write_sample):
    """The experiment file of the small sample with a network of its own beside it."""
    path = write_sample(network={"architecture": "my_network.py:build"})
    path.with_name("my_network.py").write_text(SOURCE)
    return path


def ran(path):
    """Whether the network's file has been run since it was last asked."""
    mark = path.with_name("my_network.ran")
    found = mark.exists()
    mark.unlink(missing_ok=True)
    return found


def test_the_file_of_a_network_lies_beside_the_experiment_file(mine, monkeypatch):
    at_home = config.load(str(mine)).network
    assert at_home.source == (mine.parent / "my_network.py", "build")
    assert at_home.title == "build"
    monkeypatch.chdir(mine.parent.parent)
    assert config.load(str(mine), {"architecture": "here.py:other"}).network.architecture == "here.py:other"
    assert not ran(mine)  # reading an experiment runs nothing


def test_options_are_read_from_files_and_from_the_command_line(mine):
    mine.write_text(yaml.safe_dump({**yaml.safe_load(mine.read_text()), "network": {"options": {"depth": 2}}}))
    assert config.load(str(mine)).network.options == {"depth": 2}
    assert config.load(str(mine), {"options": "{depth: 3, kinds: [a, b]}"}).network.flat()["options.depth"] == 3
    for wrong in ("depth", "{depth: {at: 3}}", "[3]"):
        with pytest.raises(InputError, match=r"'network\.options' should"):
            config.load(str(mine), {"options": wrong})


def test_a_search_over_options_begins_with_their_own_values(mine):
    content = yaml.safe_load(mine.read_text())
    space = {"options.depth": {"low": 1, "high": 3}, "options.kind": {"choices": ["a", "b"]}}
    content |= {"tuning": {"space": space}}
    content["network"]["options"] = {"depth": 2, "kind": "b"}
    mine.write_text(yaml.safe_dump(content))
    experiment = config.load(str(mine))
    assert experiment.first_trial() == {"options.depth": 2, "options.kind": "b"}
    assert (experiment.is_whole("options.depth"), experiment.is_whole("options.kind")) == (True, False)
    assert experiment.with_settings({"options.depth": 3}).network.options == {"depth": 3, "kind": "b"}
    for options, said in (
        ({"kind": "b"}, r"tuning.space.options.depth should be an option that network.options gives"),
        ({"depth": 7, "kind": "b"}, r"should include the experiment's own value, 7"),
        ({"depth": "x", "kind": "b"}, r"should have choices, since 'x' is no number"),
    ):
        content["network"]["options"] = options
        mine.write_text(yaml.safe_dump(content))
        with pytest.raises(InputError, match=said):
            config.load(str(mine)).first_trial()


def test_a_loaded_run_names_code_in_vain_unless_the_experiment_file_names_the_same(mine):
    named = config.load(str(mine)).network
    recorded = named.model_copy(update={"architecture": "elsewhere/my_network.py:build"})
    tags = networks.digests(named, "tiny")
    assert networks.of_record(recorded, tags, named).architecture == named.architecture
    for others, file in ((tags, None), ({}, named), ({networks.SOURCE: "0"}, named), (tags, config.Network())):
        assert networks.of_record(recorded, others, file).is_recorded
    other = named.model_copy(update={"architecture": named.architecture.replace(":build", ":other")})
    assert networks.of_record(recorded, tags, other).is_recorded
    assert networks.of_record(config.Network(), {}, None) == config.Network()


@pytest.mark.slow
@pytest.mark.usefixtures("client")
def test_a_network_of_ones_own_is_a_run_like_any_other(mine, client, tmp_path):
    experiment = config.load(str(mine), QUICK)
    results = main(experiment)
    run = client.get_run(results["run_id"])
    assert run.info.run_name == "tiny-build"
    assert run.data.tags[networks.SOURCE] == networks.digests(experiment.network, "tiny")[networks.SOURCE]
    assert runs.read_artifact(run, "my_network.py").read_text() == SOURCE
    assert results["saliency_layer"] == "pixels"
    assert {"test_auc", "test_auc_low"} <= set(results)
    ran(mine)
    evaluate(str(mine), "last")
    predict(mine.with_name("tiny_X.npy"), run.info.run_id, tmp_path / "scores.csv")
    registry.register(run)
    assert not ran(mine)  # what is loaded needs no code
    mine.with_name("my_network.py").write_text(f"{SOURCE}# changed")
    assert judged.find(str(mine), "last").experiment.network.is_recorded
    assert not ran(mine)


@pytest.mark.slow
def test_a_wrong_network_leaves_no_run(mine, client):
    def known():
        return client.search_runs([one.experiment_id for one in client.search_experiments()])

    before = len(known())
    for settings, said in (
        ({"options": {"dept": 2}}, "among depth, got 'dept'"),
        ({"start": "models:/nothing@champion"}, "model should exist"),
        ({"start": "no.keras"}, "where there is no file"),
        ({"freeze": "conv_7"}, "such as conv_1"),
    ):
        with pytest.raises(InputError, match=said):
            train(config.load(str(mine), {**QUICK, **settings}))
    assert len(known()) == before


@pytest.mark.slow
def test_training_goes_on_from_a_run_and_says_from_which(write_sample, client):
    path = str(write_sample())
    first = train(config.load(path, QUICK))["run_id"]
    second = train(config.load(path, {**QUICK, "start": "last", "freeze": "conv_2"}))["run_id"]
    run = client.get_run(second)
    assert (run.data.params["start"], run.data.params["freeze"]) == (first, "conv_2")
    assert networks.START in run.data.tags
    third = train(config.load(path, {**QUICK, "start": str(runs.model_file(run))}))["run_id"]
    assert client.get_run(third).data.params["start"].endswith(".keras")


@pytest.mark.slow
def test_options_are_searched_and_the_file_is_part_of_the_study(mine, client, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where the study's database lies
    content = yaml.safe_load(mine.read_text())
    content |= {"tuning": {"trials": 2, "seeds": 0, "space": {"options.depth": {"low": 1, "high": 3}}}}
    content["network"]["options"] = {"depth": 1}
    mine.write_text(yaml.safe_dump(content))
    tuned = tmp_path / "tuned.yaml"
    found = tune(config.load(str(mine), QUICK), tuned, workers=1)
    assert client.get_run(found["run_id"]).data.tags[networks.SOURCE]
    depth = found["options.depth"]
    assert depth in (1, 2, 3)
    assert yaml.safe_load(tuned.read_text())["settings"] == {"options.depth": depth}
    assert config.load(str(mine), QUICK, params=str(tuned)).network.options == {"depth": depth}
    mine.with_name("my_network.py").write_text(f"{SOURCE}# changed")
    assert tune(config.load(str(mine), QUICK), tuned, workers=1)["study"] != found["study"]
    content["tuning"]["space"] = {"options.dept": {"low": 1, "high": 3}}
    content["network"]["options"] = {"dept": 1}
    mine.write_text(yaml.safe_dump(content))
    with pytest.raises(InputError, match="among depth, got 'dept'"):
        tune(config.load(str(mine), QUICK), tuned, workers=1)
