"""Trainings below the run of a job that needs several: folds, recipes, seeds."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

import keras
import numpy as np

from deepmerge import config
from deepmerge.analysis.metrics import point_metrics
from deepmerge.data.batches import gather
from deepmerge.data.dataset import Dataset
from deepmerge.data.splits import Split
from deepmerge.data.targets import Unlabelled
from deepmerge.jobs import networks
from deepmerge.jobs.judged import Judged
from deepmerge.jobs.run import open_run
from deepmerge.jobs.train import epoch_metrics, measured, metadata_of
from deepmerge.model import devices, training
from deepmerge.progress import Advance
from deepmerge.tracking import runs

FOLD = "fold"  # mark of a run whose model is one of several and never the newest of its data set


@dataclass(frozen=True)
class Trial:
    """A training: its network in its run, its history and the epoch kept, and the seconds until the end of each epoch.

    probability: (n,) of the test part of its split.
    """

    judged: Judged
    history: dict[str, list[float]]
    best_epoch: int
    seconds: np.ndarray
    probability: np.ndarray


def train_below(
    parent: str,
    name: str,
    data: Dataset,
    split: Split,
    experiment: config.Experiment,
    advance: Advance,
    *,
    tags: Mapping[str, str] | None = None,
    keep_model: bool = False,
    target: Unlabelled | None = None,
) -> Trial:
    """Train in a run below `parent` and score the test part; `advance` is called after each epoch.

    With `keep_model` the model is logged, and the run can be evaluated and explained like any other. `target`: the
    images to adapt to, as `training.train` takes them, and to measure noise on.
    """
    experiment = measured(experiment, data, split, target)
    with open_run("trial", experiment, data, split, name=name, parent=parent, tags=tags) as run_id:
        began, seconds = time.perf_counter(), []

        def report(epoch: int, values: Mapping[str, float]) -> None:
            seconds.append(time.perf_counter() - began)
            runs.log_metrics(epoch_metrics(values), step=epoch)
            advance(note=f"{name}: validation log loss {values['val_log_loss']:.3f}")

        keras.utils.clear_session()  # or the graphs of all trainings would stay in memory
        devices.prepare()  # quiet again
        network = networks.at_hand(experiment.network, experiment.name)
        trained = training.train(data, split, network, experiment.training, report, target=target)
        advance(experiment.training.epochs - len(seconds))
        judged = Judged(runs.find(run_id, experiment.name), experiment, data, split, trained.model)
        probability = judged.scores("test", afresh=True)
        scored = point_metrics(data.labels[split.test.rows], probability)
        runs.log_metrics({"best_epoch": trained.best_epoch, "seconds": seconds[-1]})
        runs.log_metrics({f"test_{metric}": value for metric, value in scored.items()})
        runs.log_json(trained.history, "history.json")
        if keep_model:
            example = gather(data.images, split.train.rows[:2])
            answer = np.asarray(trained.model(example, training=False))
            runs.log_model(trained.model, example, answer, metadata_of(trained, data, split), trained=FOLD)
    return Trial(judged, trained.history, trained.best_epoch, np.array(seconds), probability)


def over_seeds(parent: str, judged: Judged, count: int, advance: Advance) -> np.ndarray:
    """Scores of a model's test images, (count, n): by the model, and by its recipe trained again with the next seeds.

    `advance` is called after each epoch, of which there are (count - 1) × the recipe's.
    """
    first = judged.experiment.training.seed
    scores = [judged.scores("test")]
    for seed in range(first + 1, first + count):
        again = judged.experiment.with_settings({"seed": seed})
        name = f"{judged.data.name}, seed {seed}"
        tags = {"recipe_of": judged.run.info.run_id}
        scores.append(train_below(parent, name, judged.data, judged.split, again, advance, tags=tags).probability)
    return np.stack(scores)
