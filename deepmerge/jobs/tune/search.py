"""Search for better settings, with trials in several processes."""

import hashlib
import json
import logging
import math
import os
import time
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from deepmerge import config
from deepmerge.closure import closure, fingerprint
from deepmerge.cluster import count_cores, threads_each
from deepmerge.data import copies, splits, targets
from deepmerge.data import dataset as datasets
from deepmerge.data.dataset import Dataset
from deepmerge.data.splits import Split
from deepmerge.errors import InputError
from deepmerge.jobs import networks
from deepmerge.jobs.run import Results, header_tags, open_run, warning
from deepmerge.jobs.train import epoch_metrics, measured
from deepmerge.jobs.tune import report, winner
from deepmerge.jobs.tune.workers import MOST_LOST, PAUSE, WorkerFailed, Workers, end_if_told, take_order
from deepmerge.model import devices, objective, training
from deepmerge.progress import progress_bar
from deepmerge.tracking import passwords, runs, studies, study_storage, trial_table

log = logging.getLogger(__name__)

AGAIN = "winner_again"  # key of a note in a study


def tune(
    experiment: config.Experiment,
    tuned: Path,
    *,
    workers: int | None = None,
    storage: str | None = None,
    name: str | None = None,
    pdf: bool = False,
    out: Path | None = None,
) -> Results:
    """Search for the settings that `experiment.tuning` names; train, judge, explain and register the winner.

    The study goes on where an earlier call with the same data, code and settings stopped, and calls elsewhere with the
    same `storage` work on it together. `tuned` is the file for the winning settings. `name` is the study's, by default
    made from all that its values depend on; `out` a folder for ``study.csv`` and ``study.json``.
    """
    experiment = networks.pinned(experiment)
    first = experiment.first_trial()
    if experiment.split.split != "galaxy":
        raise InputError("tune needs split: galaxy, since random rows leak validation galaxies into training; got rows")
    if os.environ.get(devices.CLUSTER):
        raise InputError(
            f"tune trains each network on one machine, but {devices.CLUSTER} is set; unset it, and run the same "
            "command on every machine with one --storage and one MLflow server"
        )
    data = datasets.read(experiment.data, experiment.name)
    datasets.require_finite(data)
    split = splits.make(data, experiment.split)
    folds = experiment.tuning.folds or objective.default_folds(data, split)
    experiment = experiment.model_copy(update={"tuning": experiment.tuning.model_copy(update={"folds": folds})})
    parts = objective.parts(data, split, folds)
    copies.require_apart(data, parts)
    experiment = measured(experiment, data, split)
    network = networks.at_hand(experiment.network, experiment.name)
    devices.prepare()
    for corner in _corners(experiment):
        training.require_sound(data, corner.model_copy(update={"start": network.start}))
    depends = networks.digests(experiment.network, experiment.name)
    identity = {
        "data_fingerprint": data.fingerprint,
        "split_fingerprint": split.fingerprint,
        "settings": _settings(experiment),
        **depends,
        **targets.digests(experiment.training),
        "tuning": experiment.model_dump(mode="json", exclude={"tuning": {"trials", "seeds"}})["tuning"],
        "code": fingerprint(trial_code()),
        **experiment.data.model_dump(mode="json", include={"missing"}, exclude_none=True),
        "packages": {name: version(name) for name in ("tensorflow", "keras", "numpy")},
    }
    runs.connect()
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
    study = studies.Study(storage or study_storage.default_storage(), name or f"{experiment.name}-{digest}", experiment)
    _require_same(study, identity)
    with open_run(
        "study",
        experiment,
        data,
        split,
        name=f"study-{experiment.name}",
        continues=study.run_id(),
        tags={"study": study.name},
        parameters=_searched(experiment, first),
    ) as run_id:
        if study.notes.get("run_id") != run_id:
            study.note(run_id=run_id)
            runs.log_json({"storage": passwords.hidden(study.url), "study": study.name}, "study.json")
        study.begin_with(first)
        count = min(workers or count_cores(), max(1, experiment.tuning.trials - study.finished()))
        order = {
            "experiment": experiment.model_dump(mode="json"),
            "storage": study.url,
            "study": study.name,
            "run_id": run_id,
            "start": network.start,
            "depends": depends,
            "tags": {**header_tags("trial", data, split), "study": study.name},
        }
        study.reap()
        if not study.is_full:
            environment = {**runs.for_workers(), "OMP_NUM_THREADS": str(threads_each(count))}
            with Workers(count, order, environment) as crew:
                _watch(crew, study, experiment.name)
        table = trial_table.table(study)
        runs.log_table(table, "study.csv")
        best = study.best()
        if best is None:
            reasons = "; ".join(sorted(set(table["reason"]) - {""}))
            raise WorkerFailed(f"no trial of study {study.name} ran to its end: {reasons or 'all were pruned'}")
        again = _again(study, experiment, best, data, parts)
        results = report.log_study(study, experiment, best, again, table, warning(data, split), pdf, out)
        report.write_params(study, experiment, best, data, tuned)
    if experiment.tuning.seeds:
        results |= winner.train_winner(study, experiment, best, pdf)
    return results


def work() -> None:
    """Run trials until the study is full, as `tune` orders on standard input."""
    order = take_order()
    experiment = config.from_record(order["experiment"], "the order")
    threads = devices.prepare()
    data = datasets.read(experiment.data, experiment.name)
    split = splits.make(data, experiment.split)
    parts = objective.parts(data, split, experiment.tuning.folds or 1)
    study = studies.Study(order["storage"], order["study"], experiment)
    at_hand = experiment.network.model_copy(update={"start": order["start"]})
    if networks.digests(at_hand, experiment.name) != order["depends"]:
        raise InputError("the file of network.architecture or network.start should stay as it is while tune works")

    def run_trial(params: Mapping[str, Any], report: studies.Report) -> float:
        settings = experiment.with_settings(params)
        runs.log_parameters({"dataset": experiment.name, **settings.settings()})

        def on_epoch(step: int, value: float, values: Mapping[str, float]) -> None:
            end_if_told()
            report(step, value, epoch_metrics(values))

        network = settings.network.model_copy(update={"start": order["start"]})
        return objective.measure(data, parts, network, settings.training, settings.tuning.objective, on_epoch)

    study.work(run_trial, order["run_id"], training.TrainingDiverged, {**order["tags"], "threads": str(threads)})


def _again(
    study: studies.Study, experiment: config.Experiment, best: studies.FrozenTrial, data: Dataset, parts: list[Split]
) -> float:
    """What the winning settings reach when they are trained once more, with the next seed; NaN where that diverges.

    The best of many trials may owe its value to luck. Noted in the study, so
    that the same command does not train it twice.
    """
    earlier = study.notes.get(AGAIN) or {}
    if earlier.get("trial") == best.number:
        return float("nan") if earlier["value"] is None else float(earlier["value"])
    settings = experiment.with_settings(best.params)
    training_again = settings.training.model_copy(update={"seed": settings.training.seed + 1})
    start = networks.at_hand(experiment.network, experiment.name).start
    network = settings.network.model_copy(update={"start": start})
    with progress_bar(f"The winner on {experiment.name} again", len(parts) * training_again.epochs) as advance:

        def on_epoch(step: int, value: float, values: Mapping[str, float]) -> None:
            advance()

        try:
            value = objective.measure(data, parts, network, training_again, experiment.tuning.objective, on_epoch)
        except training.TrainingDiverged:
            value = float("nan")
    study.note(**{AGAIN: {"trial": best.number, "value": None if math.isnan(value) else value}})
    return value


def trial_code() -> list[str]:
    """Files that decide which settings a study tries and what comes of them: with other code it is another study."""
    return [
        *closure(["deepmerge.model.objective"], without=["deepmerge/cluster/*"]),  # where it is done changes nothing
        *(f"deepmerge/tracking/{name}.py" for name in ("sampler", "studies")),
    ]


def _corners(experiment: config.Experiment) -> Iterator[config.Network]:
    """The network of the experiment, and those with one option at an end of what is searched, or at a choice."""
    yield experiment.network
    for name, allowed in experiment.tuning.space.items():
        if name.startswith(config.OPTION):
            kind = int if experiment.is_whole(name) else float
            ends = [kind(end) for end in (allowed.low, allowed.high) if end is not None]
            yield from (experiment.with_settings({name: value}).network for value in allowed.choices or ends)


def _settings(experiment: config.Experiment) -> dict[str, Any]:
    """The settings that a study depends on; what files hold, and not where they lie, matters of a network."""
    network = experiment.network
    settings = experiment.model_dump(mode="json", include={"network": True, "training": True})
    settings["network"] |= {"architecture": network.title if network.source else network.architecture, "start": None}
    return settings


def _require_same(study: studies.Study, identity: Mapping[str, Any]) -> None:
    """Note what the study's values depend on. Raises InputError where an earlier call noted something else."""
    earlier = study.notes.get("identity")
    if earlier is None:
        study.note(identity=identity)
    elif earlier != identity:
        changed = [key for key in identity if earlier.get(key) != identity[key]]
        raise InputError(
            f"study {study.name} should be continued with the data, settings and code that it began with, got other "
            f"{', '.join(changed)}; choose another name, or leave out --study"
        )


def _searched(experiment: config.Experiment, first: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of a study's run: the settings that stay, and how the others are searched."""
    fixed = {key: value for key, value in experiment.settings().items() if key not in first}
    space = experiment.tuning.space
    searched = {f"search_{name}": json.dumps(space[name].model_dump(exclude_defaults=True)) for name in space}
    search = {name: getattr(experiment.tuning, name) for name in ("objective", "folds", "pruning")}
    return {**fixed, **search, **searched}


def _watch(crew: Workers, study: studies.Study, name: str) -> None:
    """Wait until the study is full; queue the trials of killed workers again, and replace these."""
    shown, lost = study.finished(), 0
    with progress_bar(f"Tuning on {name}", study.settings.trials) as advance:
        advance(shown)
        while not crew.are_done:
            time.sleep(PAUSE)
            study.reap()
            killed = crew.replace_killed()
            finished = study.finished()
            lost = killed + (lost if finished == shown else 0)
            if lost > MOST_LOST:
                raise WorkerFailed(
                    f"{lost} workers were killed before any trial was finished; is there enough memory for that many?"
                )
            best = study.best()
            advance(finished - shown, note="" if best is None else f"best {best.values[0]:.4f} (trial {best.number})")
            shown = finished
