"""Train a network and log all that is known of it."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from deepmerge import config
from deepmerge.data import copies, oddities, splits, targets
from deepmerge.data import dataset as datasets
from deepmerge.data.batches import gather
from deepmerge.data.catalogue import STAGES
from deepmerge.data.dataset import Dataset
from deepmerge.data.splits import Split
from deepmerge.data.targets import Unlabelled
from deepmerge.jobs import networks, resuming
from deepmerge.jobs.judged import MERGER_FRACTION, PIXELS
from deepmerge.jobs.resuming import Unfinished
from deepmerge.jobs.run import Results, log_figures, open_run, warning, write_json, write_table
from deepmerge.model import devices, familiarity, training
from deepmerge.model.calling import Body
from deepmerge.plots import images
from deepmerge.plots.history import history as draw_history
from deepmerge.progress import progress_bar
from deepmerge.tracking import runs

log = logging.getLogger(__name__)

Value = TypeVar("Value")

EXAMPLES = 6  # galaxies of each stage in the gallery


def train(experiment: config.Experiment, pdf: bool = False, out: Path | None = None) -> Results:
    """Train on the training part of a data set; the validation part decides when to stop.

    `out` is a folder for ``run.json``, which names the run, and ``history.csv``.
    """
    if not devices.is_chief():
        return assist(experiment)
    experiment = networks.pinned(experiment)
    with training_run(experiment) as (experiment, data, split, unfinished):
        return train_in_run(experiment, data, split, unfinished, pdf, out)


def assist(experiment: config.Experiment) -> Results:
    """Train on one of several machines that is not the one to write the run."""
    devices.prepare()
    devices.strategy()
    experiment, data, split = prepared(experiment)
    network = networks.at_hand(experiment.network, experiment.name)
    return {"best_epoch": training.train(data, split, network, experiment.training).best_epoch}


def prepared(experiment: config.Experiment) -> tuple[config.Experiment, Dataset, Split]:
    """The experiment, its data and their split, checked: pixels finite, not all alike, no copy in two parts.

    The network is checked with them: that it can be built for these images, begin as it should, and be saved. Noise
    that is to be like that of other images is measured.
    """
    data = datasets.read(experiment.data, experiment.name)
    datasets.require_finite(data)
    split = splits.make(data, experiment.split)
    copies.require_apart(data, [split])
    training.require_sound(data, networks.at_hand(experiment.network, experiment.name))
    experiment = measured(experiment, data, split)
    training.require_learnable(data, split, experiment.network, experiment.training)
    return experiment, data, split


def measured(
    experiment: config.Experiment, data: Dataset, split: Split, target: Unlabelled | None = None
) -> config.Experiment:
    """The same experiment with its noise in numbers, as `targets.resolved` has it."""
    settings = targets.resolved(experiment.training, data, split, target)
    return experiment.model_copy(update={"training": settings})


@contextmanager
def training_run(experiment: config.Experiment) -> Iterator[tuple[config.Experiment, Dataset, Split, Unfinished]]:
    """Open a run with settings, data, split and code in its header; yields the experiment as `prepared`, and these.

    Where an earlier process was interrupted at the same training, its run goes on; what it has done is yielded, too.
    """
    threads = devices.prepare()
    tags = {"threads": str(threads), "devices": str(devices.strategy().num_replicas_in_sync)}
    experiment, data, split = prepared(experiment)
    parameters, params = experiment.settings(), experiment.params
    if params is not None:
        parameters["params"] = params.name
        if params.study is not None:
            tags["study"] = params.study
        if params.data_fingerprint not in (None, data.fingerprint):
            log.warning("The settings called %s were found on other data than %s; tune anew?", params.name, data.name)
    for said in oddities.warnings(data, split.train.rows):
        log.warning("%s ('deepmerge data check' looks at all of them)", said)
    name = f"{experiment.name}-{experiment.network.title}"
    with (
        resuming.remembered(experiment, data, split, threads) as unfinished,
        open_run(
            "train",
            experiment,
            data,
            split,
            name=name,
            continues=unfinished.run_id,
            begin=unfinished.begin,
            tags=tags,
            parameters=parameters,
        ),
    ):
        yield experiment, data, split, unfinished


def train_in_run(
    experiment: config.Experiment,
    data: Dataset,
    split: Split,
    unfinished: Unfinished,
    pdf: bool,
    out: Path | None = None,
) -> Results:
    """Train in the run that is open, from where an earlier process left it."""

    def do() -> Results:
        logged = runs.logged_steps("val_loss")

        def on_epoch(number: int, values: Mapping[str, float]) -> None:
            if number not in logged:
                log_epoch(number, values)

        kept_in = unfinished.checkpoint
        trained = fit(data, split, experiment.network, experiment.training, on_epoch, kept_in=kept_in)
        return {**log_trained(trained, data, split, pdf), "history": trained.history}

    results = unfinished.once("train", do)
    history = results.pop("history")
    if out is not None:
        epochs = range(1, len(history["loss"]) + 1)
        write_table(pd.DataFrame({"epoch": epochs, **history}), out / "history.csv")
        write_json(results, out / "run.json")
    return results


def fit(
    data: Dataset,
    split: Split,
    network: config.Network,
    settings: config.Training,
    on_epoch: training.EpochReport,
    body: Body | None = None,
    kept_in: Path | None = None,
) -> training.Trained:
    """Train as `training.train` does, behind a progress bar."""
    with progress_bar(f"Training on {data.name}", settings.epochs) as advance:

        def report(epoch: int, values: dict[str, float]) -> None:
            on_epoch(epoch, values)
            advance(note=f"validation log loss {values['val_log_loss']:.3f}")

        at_hand = networks.at_hand(network, data.name)
        return training.train(data, split, at_hand, settings, report, body, kept_in=kept_in)


def log_epoch(epoch: int, values: Mapping[str, float]) -> None:
    """Log the measures of an epoch, from 1, on the open run."""
    runs.log_metrics(epoch_metrics(values), step=epoch)


def log_trained(trained: training.Trained, data: Dataset, split: Split, pdf: bool) -> Results:
    """Log a trained network with its history and figures on the open run; returns the epoch kept and measures there."""
    at_best = {name: values[trained.best_epoch - 1] for name, values in trained.history.items()}
    best = {
        "best_epoch": trained.best_epoch,
        **{f"best_{name}": value for name, value in at_best.items() if name.startswith("val_")},
    }
    example = gather(data.images, split.train.rows[:2])
    runs.log_model(
        trained.model, example, np.asarray(trained.model(example, training=False)), metadata_of(trained, data, split)
    )
    runs.log_metrics(best)
    runs.log_json(trained.history, "history.json")
    note = warning(data, split)
    drawn = {
        "history": draw_history(trained.history, trained.best_epoch, note=note),
        "examples": _examples(data, split, note),
    }
    log_figures(drawn, pdf)
    return {"run_id": runs.active_id(), **best}


def _examples(data: Dataset, split: Split, note: str | None) -> Figure:
    """A gallery of training galaxies, the first view of each; the test galaxies stay unseen."""
    catalogue = data.catalogue.iloc[split.train.rows]
    first = catalogue[~catalogue["galaxy_id"].duplicated()].groupby("stage", sort=False).head(EXAMPLES)
    first = first.sort_values("stage", key=lambda stages: stages.map(STAGES.index), kind="stable")
    return images.gallery(
        np.moveaxis(data.images[first.index.to_numpy()], 1, -1),
        titles=[f"galaxy {galaxy}" for galaxy in first["galaxy_id"]],
        filters=data.filters,
        groups=first["stage"].tolist(),
        note=note,
    )


def metadata_of(trained: training.Trained, data: Dataset, split: Split) -> dict[str, Any]:
    """Metadata that a model carries wherever it goes."""
    return {
        MERGER_FRACTION: trained.merger_fraction,
        PIXELS: familiarity.measure(data, split, trained.degradation, trained.target).metadata(),
    }


def epoch_metrics(values: Mapping[str, Value]) -> dict[str, Value]:
    """The measures of an epoch, or of several, under the names that runs give them."""
    bare = ("val_", "learning_rate")
    return {name if name.startswith(bare) else f"train_{name}": value for name, value in values.items()}
