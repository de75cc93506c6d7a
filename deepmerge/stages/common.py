"""What several stages share: a trained model with its data, and where results go."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import pandas as pd
from matplotlib.figure import Figure

from deepmerge import config
from deepmerge.analysis import canvas
from deepmerge.data import dataset as datasets
from deepmerge.data import splits
from deepmerge.data.dataset import Dataset
from deepmerge.data.splits import Split
from deepmerge.errors import InputError
from deepmerge.files import replacing
from deepmerge.model import devices, prediction
from deepmerge.tracking import runs

RECORD = "experiment.json"
SPLIT_TABLE = "split.csv"
MERGER_FRACTION = "trained_at_merger_fraction"  # what a model tells of itself: the prior of its probabilities
SIMULATED = "Simulated demo data, not Illustris"
# With dense layers behind a flattening, the mean gradient that Grad-CAM weighs features by says little: on the noisy
# demo sample its maps of 72 of 74 recognised mergers are zero; 54 % of HiRes-CAM's peak on the merger's features.
SALIENCY_METHOD = "hirescam"
LEAKS = "Random-row split, as published: test galaxies are in the training set"

Results = dict[str, Any]


@dataclass(frozen=True)
class Judged:
    """A trained model, its run, and the data and split that it was trained on."""

    run: runs.Run
    data: Dataset
    split: Split
    model: keras.Model


def reload(dataset: str, model: str) -> Judged:
    """Load a model (`runs.find` says how it may be named) and the data that it was trained on.

    Raises InputError where the data are no longer the same.
    """
    devices.prepare()
    run = runs.find(model, config.name_of(dataset))
    _, data = trained_on(run)
    table = pd.read_csv(runs.read_artifact(run, SPLIT_TABLE))
    return load(run, data, splits.from_table(table, run.data.tags["split"]))


def trained_on(run: runs.Run) -> tuple[config.Experiment, Dataset]:
    """The experiment and the data that a run trained on. Raises InputError where the data are no longer the same."""
    experiment = config.from_record(runs.read_json(run, RECORD), f"{RECORD} of run {run.info.run_id}")
    if not experiment.data.images.exists():  # the training was started in another folder than this command
        started_in = Path(run.data.tags["started_in"])
        experiment = experiment.model_copy(update={"data": experiment.data.below(started_in)})
    data = datasets.read(experiment.data, experiment.name)
    known = run.data.tags["data_fingerprint"]
    if data.fingerprint != known:
        raise InputError(
            f"{experiment.data.images} and its labels and catalogue should be those of run {run.info.run_id} "
            f"(fingerprint {known}), got {data.fingerprint}; bring the old data back or train anew"
        )
    return experiment, data


def load(run: runs.Run, data: Dataset, split: Split) -> Judged:
    """Load the model of a run whose data and split are at hand."""
    return Judged(run, data, split, prediction.load(runs.model_file(run)))


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


def note(data: Dataset, split: Split) -> str | None:
    """What nobody may overlook on a figure: simulated data, a leaking split."""
    parts = [SIMULATED] * (data.data_source == "simulated") + [LEAKS] * (split.protocol == "rows")
    return ". ".join(parts) or None


def log_figures(drawn: Mapping[str, Figure], pdf: bool) -> None:
    """Log figures on the open run, as PNG and, if asked, as PDF."""
    with runs.artifact_folder("figures") as folder:
        for name, figure in drawn.items():
            canvas.save(figure, folder / name, pdf=pdf)


def write_json(results: Mapping[str, Any], path: Path) -> None:
    """Write results for other programs, whole or not at all; undefined numbers (NaN) are left out, JSON has none."""
    defined = {k: v for k, v in results.items() if not isinstance(v, float) or math.isfinite(v)}
    with replacing(path) as aside:
        aside.write_text(json.dumps(defined, indent=2) + "\n")


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a CSV for other programs (DVC's plots among them), whole or not at all."""
    with replacing(path) as aside:
        table.to_csv(aside, index=False)
