"""Search for better settings, with trials in several processes, and train the winner."""

import hashlib
import json
import logging
import os
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from deepmerge import config
from deepmerge.closure import closure, fingerprint
from deepmerge.cluster import count_cores, threads_each
from deepmerge.config import yaml_file
from deepmerge.data import copies, splits
from deepmerge.data import dataset as datasets
from deepmerge.data.dataset import Dataset
from deepmerge.errors import InputError
from deepmerge.files import replacing
from deepmerge.jobs.main import main
from deepmerge.jobs.run import Results, header_tags, log_figures, open_run, warning, write_json, write_table
from deepmerge.jobs.train import epoch_metrics
from deepmerge.jobs.tune import figures, trials
from deepmerge.jobs.tune.workers import MOST_LOST, PAUSE, WorkerFailed, Workers, end_if_told, take_order
from deepmerge.model import devices, objective, training
from deepmerge.progress import progress_bar
from deepmerge.tracking import passwords, registry, runs, studies, study_storage

log = logging.getLogger(__name__)

WINNER, TRAINER = "winner", "winner_trained_by"  # what is noted with a study
WORDS = {"log_loss": "validation log loss", "auc": "validation AUC"}


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
    same `storage` work on it together. `tuned` is the file for the winning settings; so many models as the settings say
    (seeds) are trained with them, of which the best on validation is registered. `name` is the study's, by default made
    from all that its values depend on; `out` a folder for ``study.csv`` and ``study.json``.
    """
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
    copies.require_apart(data, objective.parts(data, split, experiment.tuning))
    identity = {
        "data_fingerprint": data.fingerprint,
        "split_fingerprint": split.fingerprint,
        "settings": experiment.model_dump(mode="json", include={"network": True, "training": True}),
        "tuning": experiment.model_dump(mode="json", exclude={"tuning": {"trials", "seeds"}})["tuning"],
        "code": fingerprint(trial_code()),
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
            "tags": {**header_tags("trial", data, split), "study": study.name},
        }
        study.reap()
        if not study.is_full:
            environment = {**runs.for_workers(), "OMP_NUM_THREADS": str(threads_each(count))}
            with Workers(count, order, environment) as crew:
                _watch(crew, study, experiment.name)
        results = _report(study, experiment, first, warning(data, split), pdf, out)
        _write_params(study, experiment, data, tuned)
        runs.log_file(tuned)
    if experiment.tuning.seeds:
        results |= _train_winner(study, experiment, experiment.tuning.seeds, pdf)
    return results


def work() -> None:
    """Run trials until the study is full, as `tune` orders on standard input."""
    order = take_order()
    experiment = config.from_record(order["experiment"], "the order")
    threads = devices.prepare()
    data = datasets.read(experiment.data, experiment.name)
    split = splits.make(data, experiment.split)
    parts = objective.parts(data, split, experiment.tuning)
    study = studies.Study(order["storage"], order["study"], experiment)

    def tried(params: Mapping[str, Any], report: studies.Report) -> float:
        settings = experiment.with_settings(params)
        runs.log_parameters({"dataset": experiment.name, **settings.settings()})

        def on_epoch(step: int, value: float, values: Mapping[str, float]) -> None:
            end_if_told()
            report(step, value, epoch_metrics(values))

        return objective.measure(data, parts, settings.network, settings.training, settings.tuning.objective, on_epoch)

    study.work(tried, order["run_id"], training.TrainingDiverged, {**order["tags"], "threads": str(threads)})


def trial_code() -> list[str]:
    """Files that decide which settings a study tries and what comes of them: with other code it is another study."""
    return [
        *closure(["deepmerge.model.objective"]),
        *(f"deepmerge/tracking/{name}.py" for name in ("sampler", "studies")),
    ]


def _require_same(study: studies.Study, identity: Mapping[str, Any]) -> None:
    """Note what the study's values depend on. Raises InputError where an earlier call noted something else."""
    known = study.notes.get("identity")
    if known is None:
        study.note(identity=identity)
    elif known != identity:
        changed = [key for key in identity if known.get(key) != identity[key]]
        raise InputError(
            f"study {study.name} should be continued with the data, settings and code that it began with, got other "
            f"{', '.join(changed)}; choose another name, or leave out --study"
        )


def _searched(experiment: config.Experiment, first: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of a study's run: the settings that stay, and how the others are searched."""
    fixed = {key: value for key, value in experiment.settings().items() if key not in first}
    space = experiment.tuning.space
    searched = {f"search_{name}": json.dumps(space[name].model_dump(exclude_defaults=True)) for name in space}
    asked = {name: getattr(experiment.tuning, name) for name in ("objective", "folds", "pruning")}
    return {**fixed, **asked, **searched}


def _watch(crew: Workers, study: studies.Study, name: str) -> None:
    """Wait until the study is full; queue again what killed workers left, and replace them."""
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
                    f"{lost} workers were killed and no trial got finished; is there memory enough for that many?"
                )
            best = study.best()
            advance(finished - shown, note="" if best is None else f"best {best.values[0]:.4f} (trial {best.number})")
            shown = finished


def _report(
    study: studies.Study,
    experiment: config.Experiment,
    first: Mapping[str, Any],
    said: str | None,
    pdf: bool,
    out: Path | None,
) -> Results:
    """Log table, figures and numbers of a study on its run, which is open.

    Raises WorkerFailed where no trial came to an end.
    """
    table = study.table()
    runs.log_table(table, "study.csv")
    best = study.best()
    if best is None:
        reasons = "; ".join(sorted(set(table["reason"]) - {""}))
        raise WorkerFailed(f"no trial of study {study.name} ran to its end: {reasons or 'all were pruned'}")
    objective = experiment.tuning.objective
    begun = next((trial for trial in study.trials() if trial.params == first and studies.is_finished(trial)), None)
    start = begun.values[0] if begun and begun.values else np.nan
    states = table["state"].value_counts()
    measured = {
        f"best_trial_val_{objective}": best.values[0],
        f"first_trial_val_{objective}": start,
        **{f"trials_{state}": int(states.get(state, 0)) for state in ("complete", "pruned", "failed")},
    }
    runs.log_metrics(measured)
    log_figures(_figures(study, experiment, begun.number if begun else None, said), pdf)
    settings = ", ".join(f"{name} {_short(value)}" for name, value in best.params.items())
    runs.describe(
        f"**{WORDS[objective]} {best.values[0]:.4f}** with {settings} (trial {best.number}); with the experiment's own "
        f"settings {start:.4f}. {study.finished()} trials; the test galaxies were not looked at. {said or ''}"
    )
    if out is not None:
        write_table(table.drop(columns=["run_id", "seconds"]), out / "study.csv")
        write_json({**measured, **best.params}, out / "study.json")
    return {"study": study.name, "run_id": runs.active_id(), "best_trial": best.number, **measured, **best.params}


def _figures(
    study: studies.Study, experiment: config.Experiment, first: int | None, said: str | None
) -> dict[str, Figure]:
    words = WORDS[experiment.tuning.objective]
    direction = studies.DIRECTIONS[experiment.tuning.objective]
    points = []
    for trial in study.trials():
        state = studies.state(trial)
        if state in ("complete", "pruned", "failed"):
            value = trial.values[0] if trial.values else None
            course = list(trial.intermediate_values.values())
            points.append(trials.TrialPoint(trial.number, state, value, trial.params, course))
    logarithmic = [name for name, allowed in experiment.tuning.space.items() if allowed.log]
    drawn = {
        "history": figures.history(points, words, direction, default=first, note=said),
        "slices": figures.slices(points, words, direction, logarithmic, default=first, note=said),
        "curves": figures.curves(points, words, direction, default=first, note=said),
    }
    if importances := study.importances():
        drawn["importances"] = figures.importances(importances, note=said)
    return drawn


def _write_params(study: studies.Study, experiment: config.Experiment, data: Dataset, path: Path) -> None:
    """Write the winning settings for `train --params`, the same bytes for the same study."""
    best = study.best()
    assert best is not None
    content = {
        "settings": dict(best.params),
        "study": {
            "name": study.name,
            "data_fingerprint": data.fingerprint,
            "objective": WORDS[experiment.tuning.objective],
            "value": best.values[0],
            "trials": study.settings.trials,
        },
    }
    with replacing(path) as aside:
        aside.write_text(
            f"# Found by `deepmerge tune`. Use it with: mlflow run . -P dataset={experiment.name} -P params=tuned\n"
            + yaml_file.written(content)
        )
    log.info("The winning settings are in %s", path)


def _train_winner(study: studies.Study, experiment: config.Experiment, seeds: int, pdf: bool) -> Results:
    """Train the winner with several seeds, judge and explain each, register the best on validation."""
    best = study.best()
    assert best is not None
    known = study.notes.get(WINNER) or {}
    if known.get("trial") == best.number and known.get("seeds", 0) >= seeds and runs.knows(known["run_id"]):
        log.info("The winner has been trained already")
        return {"winner_run_id": known["run_id"], "registered": known["registered"]}
    if not study.claim(TRAINER):
        log.warning(
            "Another command trains the winner; to do it here: deepmerge main %s --params tuned", experiment.name
        )
        return {}
    try:
        found = _trained_winner(study, experiment, best, seeds, pdf)
        study.note(
            **{
                WINNER: {
                    "trial": best.number,
                    "seeds": seeds,
                    "run_id": found["winner_run_id"],
                    "registered": found["registered"],
                }
            }
        )
        return found
    finally:
        study.release(TRAINER)


def _trained_winner(
    study: studies.Study, experiment: config.Experiment, best: studies.FrozenTrial, seeds: int, pdf: bool
) -> Results:
    winner = experiment.with_settings(best.params)
    found_on = study.notes["identity"]["data_fingerprint"]
    params = config.Params(name=config.TUNED, study=study.name, data_fingerprint=found_on)
    made = []
    for seed in range(winner.training.seed, winner.training.seed + seeds):
        seeded = winner.with_settings({"seed": seed}).model_copy(update={"params": params})
        made.append(main(seeded, pdf=pdf))
    objective = f"best_val_{experiment.tuning.objective}"
    sign = 1 if studies.DIRECTIONS[experiment.tuning.objective] == "minimize" else -1
    chosen = min(made, key=lambda results: sign * results[objective])
    version = registry.register(runs.find(chosen["run_id"], experiment.name))
    return {
        "winner_run_id": chosen.pop("run_id"),
        "registered": f"{version.name} version {version.version}",
        **chosen,
    }


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
