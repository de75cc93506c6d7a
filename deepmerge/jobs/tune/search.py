"""Search for better settings, with trials side by side."""

import hashlib
import json
import logging
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from deepmerge import cluster, config
from deepmerge.closure import closure, fingerprint
from deepmerge.data import copies, splits, targets
from deepmerge.data import dataset as datasets
from deepmerge.data.elsewhere import Source
from deepmerge.data.splits import Split
from deepmerge.errors import Failed, InputError
from deepmerge.jobs import networks
from deepmerge.jobs.run import Results, header_tags, open_run, warning
from deepmerge.jobs.train import epoch_metrics, measured
from deepmerge.jobs.tune import report, winner
from deepmerge.model import devices, objective, training
from deepmerge.progress import progress_bar
from deepmerge.tracking import passwords, runs, studies, study_storage, trial_table

log = logging.getLogger(__name__)

AGAIN = "winner_again"  # key of a note in a study


def tune(
    experiment: config.Experiment,
    tuned: Path,
    *,
    workers: cluster.Where = None,
    storage: str | None = None,
    name: str | None = None,
    pdf: bool = False,
    out: Path | None = None,
) -> Results:
    """Search for the settings that `experiment.tuning` names; train, judge, explain and register the winner.

    The study goes on where an earlier call with the same data, code and settings stopped. `workers` train, and need
    neither its database nor MLflow: this process asks for settings and tells what came of them. `tuned` is the file for
    the winning settings. `name` is the study's, by default made from all that its values depend on; `out` a folder for
    ``study.csv`` and ``study.json``.
    """
    experiment = networks.pinned(experiment)
    first = experiment.first_trial()
    if experiment.split.split != "galaxy":
        raise InputError("tune needs split: galaxy, since random rows leak validation galaxies into training; got rows")
    if os.environ.get(devices.CLUSTER):
        raise InputError(
            f"tune trains each network on one machine, but {devices.CLUSTER} is set; unset it, and let --cluster name "
            "the machines that train"
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
    task = Task(
        Source.of(data, experiment.data),
        parts,
        experiment,
        networks.first_weights(experiment.network, experiment.name),
    )
    with (
        study.alone(),
        cluster.opened(workers, experiment.tuning.trials - study.finished(), cluster.count_side_by_side()) as room,
    ):
        with open_run(
            "study",
            experiment,
            data,
            split,
            name=f"study-{experiment.name}",
            continues=study.notes.get("run_id"),
            tags={"study": study.name},
            parameters=_searched(experiment, first),
        ) as run_id:
            if study.notes.get("run_id") != run_id:
                study.note(run_id=run_id)
                runs.log_json({"storage": passwords.hidden(study.url), "study": study.name}, "study.json")
            study.begin_with(first)
            study.resume()
            _search(study, room, task, run_id, {**header_tags("trial", data, split), "study": study.name})
            table = trial_table.table(study)
            runs.log_table(table, "study.csv")
            best = study.best()
            if best is None:
                reasons = "; ".join(sorted(set(table["reason"]) - {""}))
                raise Failed(f"no trial of study {study.name} ran to its end: {reasons or 'all were pruned'}")
            again = _again(study, room, task, best)
            results = report.log_study(study, experiment, best, again, table, warning(data, split), pdf, out)
            report.write_params(study, experiment, best, data, tuned)
        if experiment.tuning.seeds:
            results |= winner.train_winner(study, experiment, best, pdf)
    return results


@dataclass(frozen=True)
class Task:
    """The work of a trial, as a worker gets it: data, parts to train on, settings, and the first weights as a file."""

    source: Source
    parts: list[Split]
    experiment: config.Experiment
    start: bytes | None

    def __call__(self, report: cluster.Report) -> tuple[float, list[studies.Said]] | None:
        """The objective, and what was reported after each epoch; None where nobody wants it any more."""
        threads, data, settings = devices.prepare(), self.source.read(), self.experiment
        told: list[studies.Said] = []

        def on_epoch(step: int, value: float, values: Mapping[str, float]) -> None:
            measures = {name: float(number) for name, number in epoch_metrics(values).items()}
            told.append((step, float(value), measures, threads))
            if not report(told[-1]):
                raise cluster.Stopped

        with networks.beginning_with(settings.network, self.start) as network:
            try:
                value = objective.measure(
                    data, self.parts, network, settings.training, settings.tuning.objective, on_epoch
                )
            except cluster.Stopped:
                return None
        return float(value), told

    def with_settings(self, params: Mapping[str, Any]) -> "Task":
        """The same with other settings."""
        return replace(self, experiment=self.experiment.with_settings(params))


def _search(study: studies.Study, room: cluster.Room, task: Task, run_id: str, tags: Mapping[str, str]) -> None:
    """Run trials until the study is full."""
    shown, name = study.finished(), task.experiment.name

    def parameters(params: Mapping[str, Any]) -> dict[str, Any]:
        return {"dataset": name, **task.experiment.with_settings(params).settings()}

    with progress_bar(f"Tuning on {name}", study.settings.trials) as advance:
        advance(shown)

        def on_end() -> None:
            best = study.best()
            advance(note="" if best is None else f"best {best.values[0]:.4f} (trial {best.number})")

        study.work(room, task.with_settings, run_id, training.TrainingDiverged, tags, parameters, on_end)


def _again(study: studies.Study, room: cluster.Room, task: Task, best: studies.FrozenTrial) -> float:
    """What the winning settings reach when they are trained once more, with the next seed; NaN where that diverges.

    The best of many trials may owe its value to luck. Noted in the study, so
    that the same command does not train it twice.
    """
    earlier = study.notes.get(AGAIN) or {}
    if earlier.get("trial") == best.number:
        return float("nan") if earlier["value"] is None else float(earlier["value"])
    seed = task.experiment.training.seed + 1
    again = task.with_settings({**best.params, "seed": seed})
    epochs = len(task.parts) * again.experiment.training.epochs
    with progress_bar(f"The winner on {task.experiment.name} again", epochs) as advance:
        piece = room.submit(again, heard=lambda said: advance())
        while room.next() is not piece:
            pass  # a trial that was dropped
        try:
            value, _ = piece.result()
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
