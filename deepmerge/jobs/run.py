"""How jobs open runs, all with the same header (settings, data, split, code), and write results."""

import json
import logging
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from deepmerge import config
from deepmerge.data import splits, targets
from deepmerge.data.dataset import Dataset
from deepmerge.data.splits import Split
from deepmerge.files import replacing
from deepmerge.files import require_room as require_room_for
from deepmerge.jobs import networks
from deepmerge.plots import canvas
from deepmerge.tracking import runs

log = logging.getLogger(__name__)

RECORD = "experiment.json"  # artifact of every run: the experiment as it was used
SPLIT_TABLE = "split.csv"  # artifact of every run that has a split
SPARE = 64_000_000  # bytes for all but the maps: model, checkpoint, gallery and figures take some megabytes each
SIMULATED = "Simulated demo data, not Illustris"
LEAKS = "Random-row split, as published: test galaxies are in the training set"

Results = dict[str, Any]


@contextmanager
def open_run(
    kind: str,
    experiment: config.Experiment,
    data: Dataset,
    split: Split | None = None,
    *,
    name: str | None = None,
    parent: str | None = None,
    continues: str | None = None,
    begin: Callable[[str], None] = lambda run_id: None,
    tags: Mapping[str, str] | None = None,
    parameters: Mapping[str, Any] | None = None,
) -> Iterator[str]:
    """Open an MLflow run of a `kind` (train, trial, study …) and write its header; yields its id.

    name: of the run, by default made of experiment and kind; parent: the run below which it stands; continues: a run of
    an earlier call that goes on; begin: called with the run's id before the header; tags, parameters: beside, and
    instead of, those that follow from the experiment. The header, which is completed in a run that goes on: tags of
    kind, data set, data and split, the settings as parameters, the experiment as RECORD, the split as SPLIT_TABLE, the
    data; versions and uncommitted changes unless the run has a parent, which holds them.
    """
    if split is not None:
        require_room(data, split)
    name = name or f"{experiment.name}-{kind}"
    depends = {}
    if split is not None:
        depends = networks.digests(experiment.network, experiment.name) | targets.digests(experiment.training)
    tags = {**header_tags(kind, data, split), **depends, **(tags or {})}
    opened = runs.child(parent, name, tags) if parent else runs.continued(continues, name, tags)
    with opened as run_id:
        begin(run_id)
        runs.log_parameters({"dataset": experiment.name, **(parameters or experiment.settings())})
        runs.log_json(experiment.model_dump(mode="json"), RECORD)
        runs.log_data(data.images, data.labels, experiment.data.images, data.name, data.fingerprint)
        if split is not None:
            log_split(split, data)
        if parent is None:
            networks.log_source(experiment.network)
            runs.log_environment()
        yield run_id


def require_room(data: Dataset, split: Split) -> None:
    """Raise Failed where a disk has no room for what a run writes: the saliency maps of its test images, and SPARE.

    Maps are written to a mapped file, and a disk that is full then ends the process by SIGBUS.
    """
    maps = 2 * 4 * len(split.test) * math.prod(data.images.shape[2:])  # float32, for either class
    for folder in (Path(tempfile.gettempdir()), runs.project()):
        require_room_for(folder, maps + SPARE, "saliency maps, model and figures")


def header_tags(kind: str, data: Dataset, split: Split | None) -> dict[str, str]:
    """Tags by which a run is found and told from others."""
    tags = {"kind": kind, "dataset": data.name, "data_source": data.data_source, runs.FINGERPRINT: data.fingerprint}
    return tags if split is None else {**tags, "split": split.protocol, "split_fingerprint": split.fingerprint}


def log_split(split: Split, data: Dataset) -> None:
    """Log a split on the open run, with a warning where it leaks."""
    runs.log_table(splits.published(split, data), SPLIT_TABLE)
    if split.protocol == "rows":
        shared = splits.shared_galaxies(data, split)
        log.warning("%s (%.0f %% of the test images)", LEAKS, 100 * shared)
        runs.log_metrics({"test_shared_galaxies": shared})


def warning(data: Dataset, split: Split | None = None) -> str | None:
    """What nobody may overlook on a figure: simulated data, a leaking split."""
    leaks = split is not None and split.protocol == "rows"
    return ". ".join([SIMULATED] * (data.data_source == "simulated") + [LEAKS] * leaks) or None


def log_figures(drawn: Mapping[str, Figure], pdf: bool) -> None:
    """Log figures on the open run, as PNG and, if asked, as PDF."""
    with runs.artifact_folder("figures") as folder:
        for name, figure in drawn.items():
            canvas.save(figure, folder / name, pdf=pdf)


def write_json(results: Mapping[str, Any], path: Path) -> None:
    """Write results for other programs, whole or not at all; undefined numbers (NaN) are left out, JSON has none."""
    with replacing(path) as aside:
        aside.write_text(json.dumps(defined(results), indent=2) + "\n")


def defined(results: Mapping[str, Any]) -> Results:
    """Results without those that are undefined."""
    return {name: value for name, value in results.items() if not isinstance(value, float) or math.isfinite(value)}


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a CSV for other programs (DVC's plots among them), whole or not at all."""
    with replacing(path) as aside:
        table.to_csv(aside, index=False)
