"""Trainings that a study makes one after another, each a run below the study's own."""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from deepmerge import config
from deepmerge.analysis.metrics import point_metrics
from deepmerge.data import dataset as datasets
from deepmerge.data.batches import gather
from deepmerge.data.dataset import Dataset
from deepmerge.data.splits import Split
from deepmerge.estimate import Estimate
from deepmerge.jobs.judged import Judged
from deepmerge.jobs.run import Results, open_run, write_json, write_table
from deepmerge.jobs.train import epoch_metrics, metadata_of
from deepmerge.model import devices, training
from deepmerge.progress import Advance
from deepmerge.tracking import runs

RESULT = "study.json"  # what a report reads of a study
SHARE, DIFFERENCE = (0.0, 1.0), (-1.0, 1.0)  # between which a metric lies, and a difference of two
FOLD = "fold"  # mark of a run whose model is one of several and never the newest of its data set


@dataclass(frozen=True)
class Trial:
    """A training: its network in its run, its history and best epoch, and the seconds until the end of each epoch.

    probability: (n,) of the test part of its split.
    """

    judged: Judged
    history: dict[str, list[float]]
    best_epoch: int
    seconds: np.ndarray
    probability: np.ndarray


def opened(experiment: config.Experiment) -> Dataset:
    """The data set of an experiment, ready for training. Raises InputError where pixels are not finite."""
    devices.prepare()
    data = datasets.read(experiment.data, experiment.name)
    datasets.require_finite(data)
    return data


def run(
    study: str,
    name: str,
    data: Dataset,
    split: Split,
    experiment: config.Experiment,
    advance: Advance,
    *,
    tags: Mapping[str, str] | None = None,
    keep_model: bool = False,
) -> Trial:
    """Train in a run below `study` and score the test part; `advance` is called after each epoch.

    With `keep_model` the model is logged, and the run can be evaluated and explained like any other.
    """
    with open_run("trial", experiment, data, split, name=name, parent=study, tags=tags) as run_id:
        began, seconds = time.perf_counter(), []

        def report(epoch: int, values: Mapping[str, float]) -> None:
            seconds.append(time.perf_counter() - began)
            runs.log_metrics(epoch_metrics(values), step=epoch)
            advance(note=f"{name}: validation log loss {values['val_log_loss']:.3f}")

        keras.utils.clear_session()  # or the graphs of all trainings would stay in memory
        devices.prepare()  # quiet again
        trained = training.train(data, split, experiment.network, experiment.training, report)
        advance(experiment.training.epochs - len(seconds))
        judged = Judged(runs.find(run_id, experiment.name), experiment, data, split, trained.model)
        probability = judged.scores("test", afresh=True)
        found = point_metrics(data.labels[split.test.rows], probability)
        runs.log_metrics({"best_epoch": trained.best_epoch, "seconds": seconds[-1]})
        runs.log_metrics({f"test_{metric}": value for metric, value in found.items()})
        runs.log_json(trained.history, "history.json")
        if keep_model:
            example = gather(data.images, split.train.rows[:2])
            answer = np.asarray(trained.model(example, training=False))
            runs.log_model(trained.model, example, answer, metadata_of(trained), trained=FOLD)
    return Trial(judged, trained.history, trained.best_epoch, np.array(seconds), probability)


def named(table: pd.DataFrame, column: str) -> dict[str, float]:
    """Each number of a table under the name of its line (what `column` says), fit for MLflow, and of its own column."""
    return {
        f"{re.sub(r'[^a-zA-Z0-9]+', '_', line[column]).strip('_')}_{name}": float(line[name])
        for line in table.to_dict("records")
        for name in table.columns
        if name != column
    }


def finish(results: Results, tables: Mapping[str, pd.DataFrame], out: Path | None) -> None:
    """Log what a study found, for reports (``study.json``) and people (CSV); both also go to the folder `out`.

    Numbers among the results become metrics of the run.
    """
    runs.log_metrics({name: value for name, value in results.items() if isinstance(value, float | int)})
    with runs.artifact_folder(".") as folder:
        write_json(results, folder / RESULT)
    for name, table in tables.items():
        runs.log_table(table, f"{name}.csv")
        if out is not None:
            write_table(table, out / f"{name}.csv")
    if out is not None:
        write_json(results, out / RESULT)


def mean_with_interval(values: Sequence[float] | np.ndarray[Any, Any], bounds: tuple[float, float] = SHARE) -> Estimate:
    """Mean of a number that lies within `bounds`, measured in several independent trainings, with its 95 % interval.

    Student's t for the logit of the mean's place between the bounds, its error by the delta method (Brown, Cai &
    DasGupta 2001, Stat. Sci. 16, 101): near the middle the usual interval, near a bound a lopsided one that never gets
    there. The single values may be at a bound. The ends are NaN where nothing scatters (one training, or all values
    equal), since that does not tell how much the next one would.
    """
    from scipy import special, stats

    array = np.asarray(values, float)
    mean = float(array.mean())
    low, high = bounds
    below, above = mean - low, high - mean
    if len(array) < 2 or not (np.ptp(array) > 0 and below > 0 and above > 0):
        return Estimate(mean, np.nan, np.nan)
    error = array.std(ddof=1) / np.sqrt(len(array))
    half = stats.t.ppf(0.975, len(array) - 1) * error * (high - low) / (below * above)
    middle = np.log(below / above)
    ends = low + (high - low) * special.expit([middle - half, middle + half])
    return Estimate(mean, min(float(ends[0]), mean), max(float(ends[1]), mean))
