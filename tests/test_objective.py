"""What a search improves, with a function in place of trainings."""

from types import SimpleNamespace

import numpy as np
import pytest

from deepmerge import config
from deepmerge.data.dataset import Dataset
from deepmerge.data.splits import Part
from deepmerge.model import objective

LOSSES = {"first": [0.9, 0.5, 0.7], "second": [0.8, 0.6, 0.4]}


@pytest.fixture
def experiment(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("data: {images: x.npy, labels: y.npy}\ntraining: {epochs: 3}\n")
    return config.load(str(path))


@pytest.fixture(autouse=True)
def no_training(monkeypatch):
    def train(data, part, network, training, on_epoch):
        losses = LOSSES[part]
        for epoch, loss in enumerate(losses, 1):
            on_epoch(epoch, {"val_log_loss": loss, "val_auc": 1 - loss})
        history = {"val_log_loss": losses, "val_auc": [1 - loss for loss in losses]}
        return SimpleNamespace(history=history, best_epoch=losses.index(min(losses)) + 1)

    monkeypatch.setattr(objective, "train", train)


def heard(experiment, parts, measured="log_loss"):
    reports = []
    value = objective.measure(
        None, parts, experiment.network, experiment.training, measured, lambda *report: reports.append(report)
    )
    return value, reports


def test_the_value_is_the_mean_over_the_parts_of_what_is_kept(experiment):
    assert heard(experiment, ["first"])[0] == 0.5
    assert heard(experiment, ["first", "second"])[0] == pytest.approx((0.5 + 0.4) / 2)


def test_the_objective_may_be_another(experiment):
    value, _ = heard(experiment, ["first", "second"], "auc")
    assert value == pytest.approx((0.5 + 0.6) / 2)


def test_each_epoch_of_all_parts_is_reported_with_the_mean_so_far_and_what_was_measured(experiment):
    _, reports = heard(experiment, ["first", "second"])
    steps, values, measured = zip(*reports, strict=True)
    assert steps == (1, 2, 3, 4, 5, 6)
    assert values == pytest.approx([0.9, 0.5, 0.7, (0.5 + 0.8) / 2, (0.5 + 0.6) / 2, (0.5 + 0.4) / 2])
    assert measured[3] == {"val_log_loss": 0.8, "val_auc": pytest.approx(0.2)}


def test_without_folds_the_one_part_is_the_split_itself():
    split = object()
    assert objective.parts(None, split, 1) == [split]


@pytest.mark.parametrize(("mergers", "others", "folds"), [(50, 50, 1), (49, 400, 3), (400, 49, 3), (0, 100, 3)])
def test_folds_take_the_place_of_a_validation_with_few_galaxies_of_either_class(mergers, others, folds):
    """Two images a galaxy, which count once, and further galaxies that do not validate."""
    labels = np.repeat([1, 0, 1, 0], [2 * mergers, 2 * others, 100, 100])
    data = Dataset.from_arrays(np.ones((len(labels), 1, 32, 32)), labels, galaxy_id=np.arange(len(labels)) // 2)
    validation = Part(np.arange(2 * (mergers + others)), np.zeros(2 * (mergers + others), int))
    assert objective.default_folds(data, SimpleNamespace(validation=validation)) == folds
