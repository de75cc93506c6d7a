"""A trained model with the data that it is judged on."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import keras
import pandas as pd

from deepmerge import config
from deepmerge.data import dataset as datasets
from deepmerge.data import splits
from deepmerge.data.dataset import Dataset
from deepmerge.data.splits import Split
from deepmerge.errors import InputError
from deepmerge.jobs.run import RECORD, SPLIT_TABLE
from deepmerge.model import devices, prediction
from deepmerge.tracking import runs

MERGER_FRACTION = "trained_at_merger_fraction"  # what a model tells of itself: the prior of its probabilities
# With dense layers behind a flattening, the mean gradient that Grad-CAM weighs features by says little: on the noisy
# demo sample its maps of 72 of 74 recognised mergers are zero; 54 % of HiRes-CAM's peak on the merger's features.
SALIENCY_METHOD = "hirescam"


@dataclass(frozen=True)
class Trained:
    """The run of a trained model, the experiment that it was, and the data that it trained on."""

    run: runs.Run
    experiment: config.Experiment
    data: Dataset


@dataclass(frozen=True)
class Judged(Trained):
    """A trained model with all that it takes to judge it."""

    split: Split
    model: keras.Model


def reload(dataset: str, model: str) -> Judged:
    """Load a model (`runs.find` says how it may be named) of a data set, and the data that it was trained on.

    Raises InputError where these are not the data that `dataset` names.
    """
    devices.prepare()
    trained = find(dataset, model)
    table = pd.read_csv(runs.read_artifact(trained.run, SPLIT_TABLE))
    return load(trained, splits.from_table(table, trained.run.data.tags["split"]))


def find(dataset: str, model: str) -> Trained:
    """A trained model of the data that `dataset` names, by its experiment file or, where that is gone, by name alone.

    Raises InputError where there is none, and where the model was trained on other data.
    """
    return _found(dataset, partial(runs.find, model))


def newest_study(dataset: str, kind: str, command: str) -> Trained:
    """The newest study of this kind about the data that `dataset` names, as `find` takes it.

    Raises InputError, with the command that makes one, where there is none.
    """
    return _found(dataset, partial(runs.newest_study, kind, command))


def _found(dataset: str, look_for: Callable[[str, str | None], runs.Run]) -> Trained:
    meant = meant_by(dataset)
    if meant is None:
        run = look_for(config.name_of(dataset), None)
        return Trained(run, *_as_recorded(run))
    files, data = meant
    run = look_for(data.name, data.fingerprint)
    return Trained(run, _recorded(run).model_copy(update={"data": files}), data)


def meant_by(dataset: str) -> tuple[config.Data, Dataset] | None:
    """The files and the data that an experiment file names; None where `dataset` is a name whose file is gone.

    Raises InputError where the file, or the data, cannot be read.
    """
    if dataset not in config.names() and Path(dataset).suffix not in (".yaml", ".yml"):
        return None
    experiment = config.load(dataset)
    return experiment.data, datasets.read(experiment.data, experiment.name)


def _recorded(run: runs.Run) -> config.Experiment:
    return config.from_record(runs.read_json(run, RECORD), f"{RECORD} of run {run.info.run_id}")


def _as_recorded(run: runs.Run) -> tuple[config.Experiment, Dataset]:
    """The experiment and the data that a run trained on. Raises InputError where the data are no longer the same."""
    experiment = _recorded(run)
    if not experiment.data.images.exists():  # the training was started in another folder than this command
        folder = Path(run.data.tags.get(runs.STARTED_IN, ""))
        experiment = experiment.model_copy(update={"data": experiment.data.below(folder)})
    data = datasets.read(experiment.data, experiment.name)
    known = run.data.tags[runs.FINGERPRINT]
    if data.fingerprint != known:
        raise InputError(
            f"{experiment.data.images} and its labels and catalogue should be those of run {run.info.run_id} "
            f"(fingerprint {known}), got {data.fingerprint}; bring the old data back or train anew"
        )
    return experiment, data


def load(trained: Trained, split: Split) -> Judged:
    """Load the model of a run whose data and split are at hand. Raises InputError where it takes other images."""
    model = prediction.load(runs.model_file(trained.run))
    prediction.require_shape(model, trained.data.images)
    return Judged(trained.run, trained.experiment, trained.data, split, model)


def prior(run: runs.Run) -> float:
    """The share of mergers at which the probabilities of the run's model are meant; trained at balance, 0.5.

    Raises InputError for a model that does not tell.
    """
    try:
        return float(runs.model_told(run)[MERGER_FRACTION])
    except KeyError:
        raise InputError(
            f"the model of run {run.info.run_id} should tell the merger fraction that it was trained at, but does not, "
            "as it is of an older version of deepmerge; train it anew"
        ) from None
