import threading

import pandas as pd
import pytest

from deepmerge import config
from deepmerge.data import dataset as datasets
from deepmerge.data import splits
from deepmerge.jobs.compare.compare import compare
from deepmerge.jobs.evaluate import evaluate
from deepmerge.jobs.gradcam.gradcam import gradcam
from deepmerge.jobs.main import main
from deepmerge.jobs.promote.promote import promote
from deepmerge.jobs.train import train
from deepmerge.jobs.trial import Order, train_all
from deepmerge.model import devices
from deepmerge.studies.probabilities.study import judge_probabilities
from deepmerge.tracking import looks, runs

# TensorFlow takes its threads before its first operation, which in this process may be another test's.
devices.prepare()


@pytest.fixture
def two(client):
    """Ids of two runs."""
    ids = []
    for _ in range(2):
        with runs.new_run("looking", {}) as run_id:
            ids.append(run_id)
    return ids


def test_a_model_counts_once_however_often_it_is_scored(two):
    first, second = two
    found = []
    for run_id in (first, second, first):
        looks.count(run_id, "a" * 32)
        found.append(looks.so_far("a" * 32))
    assert found == [1, 2, 2]
    looks.count(first, "b" * 32)
    assert (looks.so_far("a" * 32), looks.so_far("b" * 32), looks.so_far("c" * 32)) == (2, 1, 0)


def test_looks_of_older_versions_are_counted_too(client, two):
    client.set_tag(two[0], "test_looks", "3")
    client.set_tag(two[0], "test_images", "d" * 32)
    looks.count(two[0], "e" * 32)
    looks.count(two[1], "d" * 32)
    assert (looks.so_far("d" * 32), looks.so_far("e" * 32)) == (2, 1)


def test_no_look_of_one_run_is_lost_where_several_happen_at_the_same_time(two):
    ready, images = threading.Barrier(3), [letter * 32 for letter in "fgh"]

    def look(fingerprint):
        ready.wait()
        looks.count(two[0], fingerprint)

    workers = [threading.Thread(target=look, args=[fingerprint]) for fingerprint in images]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [looks.so_far(fingerprint) for fingerprint in images] == [1, 1, 1]


@pytest.mark.slow
def test_every_command_that_scores_test_images_counts_the_models_that_did(client, write_sample, tmp_path, monkeypatch):
    file = str(write_sample())
    experiment = config.load(file, {"epochs": 1})
    data = datasets.read(experiment.data, experiment.name)
    split = splits.make(data, experiment.split)
    counted = [looks.so_far(split.test.fingerprint(data))]

    def look(command, *arguments, **options):
        found = command(*arguments, **options)
        counted.append(looks.so_far(split.test.fingerprint(data)))
        return found, counted[-1] - counted[-2]

    ours, number = look(train, experiment)
    assert number == 0
    ours = ours["run_id"]
    assert look(gradcam, file, ours)[1] == 1
    assert look(promote, file, ours, metric="auc")[0]["look"] == 1
    assert look(evaluate, file, ours)[1] == 0  # the same model
    other, number = look(main, experiment.with_settings({"seed": 1}))
    assert number == 1
    other = other["run_id"]
    assert look(compare, [file, file], [ours, other], tmp_path / "out")[1] == 0
    assert look(promote, file, other, metric="auc")[1] == 0
    third = train(experiment.with_settings({"seed": 2}))["run_id"]
    assert look(compare, [file, file], [ours, third], tmp_path / "out")[1] == 1
    out = tmp_path / "seeds"
    compared, number = look(compare, [file, file], [ours, third], out, seeds=2)
    assert number == 2  # each recipe with one seed more
    lines = pd.read_csv(out / "differences.csv").set_index("metric")
    [pair] = {(line.recipe, line.minus) for line in lines.itertuples()}
    assert [name.split("-")[-1] for name in pair] == [ours[:6], third[:6]]
    assert compared["_minus_".join(pair) + "_auc"] == lines.loc["auc", "difference"]
    assert lines.loc["auc", "difference_low"] < lines.loc["auc", "difference"] < lines.loc["auc", "difference_high"]
    assert 0 < lines.loc["auc", "p"] <= 1
    with runs.new_run("study", {}) as study:
        assert look(train_all, study, "", [Order("a trial", experiment, data, split)], 1)[1] == 1
    assert (
        look(judge_probabilities, file, ours, config.Study(members=2, passes=2))[1] == 1
    )  # the ensemble's other member
