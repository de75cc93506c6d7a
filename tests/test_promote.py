"""The gate at work: promotions of networks whose worth is known, in a real store."""

import json
import math
import shutil
import sys

import keras
import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.entities import LoggedModelOutput
from sklearn.metrics import roc_auc_score

from deepmerge import config
from deepmerge.cli import program
from deepmerge.data import dataset as datasets
from deepmerge.data import protocols
from deepmerge.data.batches import gather
from deepmerge.errors import InputError
from deepmerge.jobs.evaluate import evaluate
from deepmerge.jobs.judged import PREDICTIONS
from deepmerge.jobs.promote import gate
from deepmerge.jobs.promote import promote as job
from deepmerge.jobs.train import training_run
from deepmerge.model import devices
from deepmerge.tracking import registry, runs

pytestmark = pytest.mark.slow

# TensorFlow takes its threads before its first operation, which in this process may be another test's.
devices.prepare()


@pytest.fixture
def client(client):
    """The module's store with an empty registry."""
    for model in mlflow.search_registered_models():
        client.delete_registered_model(model.name)
    return client


@pytest.fixture(scope="module")
def memory():
    """The runs with models, so that each is made once for the module."""
    return {}


def promote(dataset, model, **options):
    return job.promote(dataset, model, **{"metric": config.Promotion().metric, **options})


def network(skill):
    """A network that reads the light of the companion (skill 1) or one pixel of noise (0), or mixes them.

    Both have mean ±1 and deviation 1 over the classes of the sample that `write_sample` makes; −1 is always wrong.
    """
    inputs = keras.Input((32, 32, 2))
    light = keras.layers.GlobalAveragePooling2D()(inputs)
    pixel = keras.layers.Flatten()(keras.layers.Cropping2D(((0, 31), (0, 31)))(inputs))
    dense = keras.layers.Dense(1, activation="sigmoid")
    model = keras.Model(inputs, dense(keras.layers.Concatenate()([light, pixel])))
    noise = 1 - abs(skill)
    dense.set_weights([np.array([[skill / 0.12], [0], [noise / 0.3], [0]]), np.array([-0.61 * skill / 0.12])])
    return model


@pytest.fixture
def trained(client, memory, write_sample, tmp_path):
    """Make a run as training leaves it, with a network of given skill, on the sample or one that differs from it."""

    def make(skill, shift=0.0, **settings):
        key = (skill, shift, *settings.items())
        if key not in memory:
            if shift not in memory:
                # Its own folder, or a second sample of one test would replace the first.
                folder = shutil.copytree(write_sample().parent, tmp_path / f"shifted by {shift}")
                memory[shift] = config.load(str(folder / "tiny.yaml"))
                if shift:
                    images = memory[shift].data.images
                    np.save(images, np.load(images) + shift)
            path = str(memory[shift].data.images.with_name("tiny.yaml"))
            experiment = config.load(path, {"test_fraction": 0.6, **settings})
            with training_run(experiment):
                run_id = runs.active_id()
                model = client.create_logged_model(mlflow.get_run(run_id).info.experiment_id, "model", run_id)
                (tmp_path / "data").mkdir(exist_ok=True)
                network(skill).save(tmp_path / "data" / "model.keras")
                client.log_model_artifacts(model.model_id, str(tmp_path / "data"), "data")
                client.finalize_logged_model(model.model_id, "READY")
                client.log_outputs(run_id, [LoggedModelOutput(model.model_id, 0)])
                runs.set_tags({runs.TRAINED: "yes"})
            memory[key] = run_id
        return memory[key]

    return make


def aliases(client, name="deepmerge-tiny"):
    return {alias: int(number) for alias, number in client.get_registered_model(name).aliases.items()}


def test_a_first_model_that_beats_the_trivial_classifier_becomes_champion(client, trained, tmp_path):
    run_id = trained(1.0)
    found = promote("tiny", run_id, out=tmp_path / "out")
    assert (found["decision"], found["model"], found["version"]) == ("promoted", "deepmerge-tiny", 1)
    assert aliases(client) == {"champion": 1}
    assert found["reigning_auc"] == 0.5

    run = client.get_run(run_id)
    table = pd.read_csv(runs.read_artifact(run, "split.csv")).query("split == 'test'")
    experiment = config.from_record(runs.read_json(run, "experiment.json"), "record")
    batch = gather(np.load(experiment.data.images), table["row"].to_numpy(), table["transform"].to_numpy())
    probabilities = np.asarray(network(1.0)(batch))[:, 0]
    assert found["candidate_auc"] == pytest.approx(roc_auc_score(table["label"], probabilities))
    assert (found["images"], found["galaxies"]) == (len(table), table["galaxy_id"].nunique())


def test_the_verdict_stands_on_run_and_version_and_where_it_was_asked_for(client, trained, tmp_path):
    run_id = trained(1.0)
    before = client.get_run(run_id).info
    found = promote("tiny", run_id, out=tmp_path / "out")
    run, version = client.get_run(run_id), client.get_model_version("deepmerge-tiny", "1")
    for tags in (run.data.tags, version.tags):
        assert tags["promotion_decision"] == "promoted"
        assert tags["promotion_reason"] == found["reason"]
        assert tags["promotion_against"] == gate.TRIVIAL
        assert float(tags["promotion_difference_auc_low"]) == found["difference_auc_low"]
    assert (run.info.status, run.info.end_time) == (before.status, before.end_time)
    written = json.loads((tmp_path / "out/promotion.json").read_text())
    assert runs.read_json(run, "promotion.json") == written
    np.testing.assert_equal({**dict.fromkeys(found, math.nan), **written}, found)  # JSON leaves out what is undefined
    beside_the_model = runs.model_file(run).parents[1]
    pictures = [
        runs.read_artifact(run, "figures/promotion.png"),
        beside_the_model / "figures" / "promotion.png",
        tmp_path / "out" / "promotion.png",
    ]
    assert len({picture.read_bytes() for picture in pictures}) == 1
    assert json.loads((beside_the_model / "promotion.json").read_text()) == written


def test_a_better_model_takes_the_place_of_the_champion(client, trained):
    promote("tiny", trained(0.4))
    found = promote("tiny", trained(1.0))
    assert (found["decision"], found["against"]) == ("promoted", "version 1")
    assert found["difference_auc"] == pytest.approx(found["candidate_auc"] - found["reigning_auc"])
    assert found["difference_auc_low"] > 0
    assert aliases(client) == {"champion": 2, "previous": 1}


@pytest.mark.slow
@pytest.mark.parametrize(("skill", "said"), [(-1.0, "worse"), (0.999, "within noise")])
def test_a_model_that_is_not_better_is_refused_and_the_refusal_recorded(client, trained, skill, said):
    promote("tiny", trained(1.0))
    found = promote("tiny", trained(skill))
    assert found["decision"] == "refused"
    assert said in found["reason"]
    assert aliases(client) == {"champion": 1}
    assert client.get_model_version("deepmerge-tiny", "2").tags["promotion_decision"] == "refused"
    assert runs.read_json(client.get_run(trained(skill)), "promotion.json")["decision"] == "refused"


@pytest.mark.slow
def test_force_promotes_a_worse_model_and_records_why(client, trained):
    promote("tiny", trained(1.0))
    found = promote("tiny", trained(-1.0), force="a demonstration")
    assert found["decision"] == "forced"
    assert aliases(client) == {"champion": 2, "previous": 1}
    assert client.get_run(trained(-1.0)).data.tags["promotion_reason"].endswith("forced: a demonstration")


@pytest.mark.slow
def test_the_chosen_metric_decides_by_its_own_direction(client, trained):
    promote("tiny", trained(0.4), metric="brier_at_balance", force="a start")
    found = promote("tiny", trained(1.0), metric="brier_at_balance")
    assert found["decision"] == "promoted"
    assert found["difference_brier_at_balance_high"] < 0


def test_a_split_by_rows_is_refused_whatever_the_reason_and_its_images_not_looked_at(client, trained):
    run_id = trained(1.0, split="rows")
    found = promote("tiny", run_id, force="I want it")
    assert found["decision"] == "refused"
    assert "test galaxies are in the training set" in found["reason"]
    assert not {"candidate_auc", "look"} & set(found)
    assert aliases(client) == {}
    assert "test_images" not in client.get_run(run_id).data.tags


@pytest.mark.parametrize(("other", "said"), [({"shift": 0.01}, "other data"), ({"split_seed": 6}, "other test images")])
def test_a_model_that_was_tested_on_other_images_can_only_be_forced(client, trained, other, said):
    promote("tiny", trained(0.4))
    refused = promote("tiny", trained(1.0, **other))
    assert refused["decision"] == "refused"
    assert f"version 1 has {said} than the candidate" in refused["reason"]
    assert refused["reason"].endswith("--force REASON promotes it all the same")
    assert "candidate_auc" not in refused
    forced = promote("tiny", trained(1.0, **other), force="new data")
    assert forced["decision"] == "forced"
    assert aliases(client) == {"champion": 2, "previous": 1}


@pytest.mark.slow
def test_the_champion_is_not_judged_again(client, trained, tmp_path):
    first = promote("tiny", trained(1.0), out=tmp_path / "first")
    again = promote("tiny", trained(1.0), out=tmp_path / "again")
    assert (again["decision"], again["version"]) == ("none", 1)
    assert aliases(client) == {"champion": 1}
    assert int(client.get_run(trained(1.0)).data.tags["promotion_look"]) == first["look"]
    for name in ("promotion.json", "promotion.png"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "first" / name).read_bytes()


@pytest.mark.slow
def test_the_verdict_says_how_many_models_have_been_scored_on_the_test_images(client, trained):
    first = promote("tiny", trained(0.4))["look"]
    second = promote("tiny", trained(1.0))
    assert second["look"] in (first, first + 1)  # other tests may have scored it
    assert second["level"] == gate.level_at(second["look"])
    evaluate("tiny", trained(1.0))
    found = promote("tiny", trained(0.4))
    assert found["look"] == second["look"]  # the same models
    assert client.get_run(trained(0.4)).data.tags["promotion_look"] == str(found["look"])


def in_folds(client, run_id, skill, folds=3):
    """Make a run as `evaluate --folds` leaves it, of a recipe whose networks all have this skill."""
    run = client.get_run(run_id)
    experiment = config.from_record(runs.read_json(run, "experiment.json"), "record")
    data = datasets.read(experiment.data, "tiny")
    lines = []
    for number, split in enumerate(protocols.cross(data, experiment.split, folds), 1):
        table = split.test.described(data)
        batch = gather(data.images, split.test.rows, split.test.transforms)
        lines.append(table.assign(probability=np.asarray(network(skill)(batch))[:, 0], fold=number))
    tags = {
        "kind": "folds",
        "recipe_of": run_id,
        **{name: run.data.tags[name] for name in ("dataset", runs.FINGERPRINT)},
    }
    with runs.new_run("folds", tags):
        runs.log_table(pd.concat(lines, ignore_index=True), PREDICTIONS)


@pytest.mark.slow
def test_on_folds_recipes_are_compared_on_all_galaxies(client, trained):
    good, fair = trained(1.0), trained(0.4)
    with pytest.raises(InputError, match=rf"scores of all galaxies.*evaluate tiny --folds 5 --model {fair}"):
        promote("tiny", fair, on="folds")
    in_folds(client, fair, 0.4)
    first = promote("tiny", fair, on="folds")
    assert (first["decision"], first["on"], first["look"]) == ("promoted", "folds", 1)
    images = np.load(config.from_record(runs.read_json(client.get_run(fair), "experiment.json"), "r").data.images)
    assert first["images"] == len(images)
    in_folds(client, good, 1.0, folds=4)
    with pytest.raises(InputError, match="the same folds, got others of version 1"):
        promote("tiny", good, on="folds")
    in_folds(client, good, 1.0)
    second = promote("tiny", good, on="folds")
    assert (second["decision"], second["look"], second["level"]) == ("promoted", 2, gate.level_at(2))
    assert promote("tiny", fair, on="folds")["decision"] == "refused"


@pytest.mark.slow
def test_a_champion_whose_run_is_gone_is_named_and_can_be_replaced_by_force(client, trained):
    promote("tiny", trained(0.4))
    client.delete_run(trained(0.4))
    try:
        with pytest.raises(InputError, match=r"deepmerge-tiny version 1, the champion, .* was deleted.*--force REASON"):
            promote("tiny", trained(1.0))
        assert aliases(client) == {"champion": 1}
        assert promote("tiny", trained(1.0), force="it is gone")["decision"] == "forced"
    finally:
        client.restore_run(trained(0.4))
    assert aliases(client) == {"champion": 2, "previous": 1}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"metric": "tp"}, "metric should be one of: auc, "),
        ({"force": " "}, "force should be the reason for a promotion against the gate, got ' '"),
        ({"dataset": "other"}, "model should be one of 'other', got run .{32} of 'tiny'"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_registered(client, trained, given, said):
    with pytest.raises(InputError, match=said):
        promote(**{"dataset": "tiny", "model": trained(1.0), **given})
    assert mlflow.search_registered_models() == []


@pytest.fixture
def overtaken(monkeypatch, trained):
    """Let the given model be promoted while the first judgement of another one is made."""

    def overtake(skill):
        judged, left = job.verdict_on, [skill]
        against = []

        def slowly(candidate, reigning, *others):
            found = judged(candidate, reigning, *others)
            if left:
                promote("tiny", trained(left.pop()))
            else:
                against.append(found.against)
            return found

        monkeypatch.setattr(job, "verdict_on", slowly)
        return against

    return overtake


@pytest.mark.slow
def test_a_promotion_that_was_overtaken_by_a_worse_model_beats_that_too(client, trained, overtaken):
    overtaken(0.4)
    found = promote("tiny", trained(1.0))
    assert (found["decision"], found["version"], found["against"]) == ("promoted", 1, "version 2")
    assert aliases(client) == {"champion": 1, "previous": 2}


def test_a_promotion_that_was_overtaken_by_a_better_model_is_refused(client, trained, overtaken):
    against = overtaken(1.0)
    found = promote("tiny", trained(0.4))
    assert (found["decision"], found["version"], found["against"]) == ("refused", 1, "version 2")
    assert aliases(client) == {"champion": 2}
    assert against[-1] == "version 2"


class Killed(BaseException):
    """In place of the end of a process."""


def fail(*given, **options):
    raise Killed


@pytest.mark.parametrize("moment", ["registry.record", "registry.crown"])
def test_a_promotion_that_is_cut_off_leaves_no_champion_without_a_verdict(client, trained, monkeypatch, moment):
    run_id = trained(1.0)
    with monkeypatch.context() as patch:
        patch.setattr(f"deepmerge.tracking.{moment}", fail)
        with pytest.raises(Killed):
            promote("tiny", run_id)
    assert aliases(client) == {}
    assert client.get_run(run_id).info.status == "FINISHED"
    assert promote("tiny", run_id)["decision"] == "promoted"
    assert aliases(client) == {"champion": 1}
    assert runs.read_json(client.get_run(run_id), "promotion.json")["decision"] == "promoted"


def test_a_champion_without_a_verdict_is_judged_again(client, trained, tmp_path):
    """As earlier versions left it when they were cut off: crowned first, the verdict not written."""
    promote("tiny", trained(0.4))
    version = registry.register(client.get_run(trained(0.95)))
    registry.crown(version, registry.champion(version.name))
    found = promote("tiny", trained(0.95), out=tmp_path / "out")
    assert (found["decision"], found["against"]) == ("promoted", "version 1")
    assert aliases(client) == {"champion": 2, "previous": 1}
    assert json.loads((tmp_path / "out" / "promotion.json").read_text())["decision"] == "promoted"
    assert promote("tiny", trained(0.95))["decision"] == "none"


def test_a_model_of_one_fold_is_no_candidate(client, trained):
    for others in ({runs.TRAINED: "fold"}, {runs.TRAINED: "fold", "dataset": None}):  # older ones name no data set
        run_id = trained(0.9)
        before = client.get_run(run_id).data.tags
        for name, value in others.items():
            client.delete_tag(run_id, name) if value is None else client.set_tag(run_id, name, value)
        try:
            with pytest.raises(InputError, match=f"got run {run_id}: a model of one fold is no candidate") as error:
                promote("tiny", run_id)
            assert "\n" not in str(error.value)
            assert mlflow.search_registered_models() == []
        finally:
            for name in others:
                client.set_tag(run_id, name, before[name])


# --- the commands ------------------------------------------------------------------------------------------


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command line in this process; returns its exit status and what it wrote to stdout and stderr."""

    def run(*arguments, **found):
        calls = []
        promote = lambda *given, **options: calls.append((*given, options)) or found  # noqa: E731
        monkeypatch.setattr(job, "promote", promote)
        monkeypatch.setattr(program.stopping, "on_signals", lambda: None)
        monkeypatch.setattr("logging.basicConfig", lambda **_: None)
        monkeypatch.setattr(sys, "argv", ["deepmerge", *arguments])
        with pytest.raises(SystemExit) as ended:
            program.main()
        written = capsys.readouterr()
        return ended.value.code or 0, written.out, written.err, calls

    return run


def test_promote_hands_its_options_on_and_ends_with_0_when_promoted(run):
    status, out, err, calls = run("promote", "noisy", "--metric", "f1", "--force", "so", decision="promoted")
    options = {"metric": "f1", "on": "test", "force": "so", "out": None}
    assert (status, err, calls) == (0, "", [("noisy", "last", options)])
    assert "decision  promoted" in out


def test_a_refusal_ends_with_status_3_and_one_line_after_its_numbers(run):
    verdict = {"decision": "refused", "reason": "too bad", "model": "deepmerge-noisy", "version": 4}
    status, out, err, _ = run("promote", "noisy", **verdict)
    assert (status, err) == (3, "Refused: deepmerge-noisy version 4 was refused: too bad\n")
    assert "reason    too bad" in out
    status, out, err, _ = run("promote", "noisy", "--allow-refusal", **verdict)
    assert (status, err) == (0, "")
    assert "decision  refused" in out


@pytest.mark.parametrize("option", [("--force", "why"), ("--model", "run.json")])
def test_a_rollback_takes_no_other_option(run, option):
    status, out, err, calls = run("promote", "noisy", "--rollback", *option)
    assert (status, out, calls) == (2, "", [])
    assert err.startswith("Error: --rollback should stand alone")


@pytest.fixture
def listed(monkeypatch):
    lines = [{"model": "deepmerge-noisy", "version": "10", "test_auc": "0.9 [0.8, 1]", "run_id": "a" * 32}] * 2
    monkeypatch.setattr(registry, "listing", lambda dataset: lines if dataset != "none" else [])


def test_models_are_listed_for_programs_separated_by_tabs(run, listed):
    status, out, err, _ = run("models")
    assert (status, err) == (0, "")
    first, *rest = [line.split("\t") for line in out.splitlines()]
    assert first == ["model", "version", "test_auc", "run_id"]
    assert rest == [["deepmerge-noisy", "10", "0.9 [0.8, 1]", "a" * 32]] * 2


def test_models_are_listed_for_people_in_a_table_that_loses_nothing(run, listed, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    status, out, _, _ = run("models", "noisy")
    assert status == 0
    assert "\t" not in out
    assert "test auc" in out
    assert out.count("a") >= 64


def test_no_models_are_said_to_be_none(run, listed):
    status, out, err, _ = run("models", "none")
    assert (status, out, err) == (0, "", "No registered model of none yet; 'deepmerge promote' registers one\n")
