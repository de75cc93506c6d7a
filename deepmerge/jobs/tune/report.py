"""What a search leaves: numbers and figures on its run, tables for other programs, the winning settings in a file."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from deepmerge import config
from deepmerge.config import yaml_file
from deepmerge.data.dataset import Dataset
from deepmerge.files import replacing
from deepmerge.jobs.run import Results, log_figures, write_json, write_table
from deepmerge.jobs.tune import figures
from deepmerge.jobs.tune.trials import TrialPoint
from deepmerge.tracking import runs
from deepmerge.tracking.studies import FrozenTrial, Study, is_finished

log = logging.getLogger(__name__)

WORDS = {"log_loss": "validation log loss", "auc": "validation AUC"}


def log_study(
    study: Study,
    experiment: config.Experiment,
    best: FrozenTrial,
    again: float,
    table: pd.DataFrame,
    note: str | None,
    pdf: bool,
    out: Path | None,
) -> Results:
    """Log numbers and figures of a study on its run, which is open; `out` is a folder for its table and numbers.

    again: what the winning settings reached when they were trained once more.
    """
    objective, own = experiment.tuning.objective, experiment.first_trial()
    first = next((trial for trial in study.trials() if trial.params == own and is_finished(trial)), None)
    start = first.values[0] if first and first.values else np.nan
    states = table["state"].value_counts()
    measured = {
        f"best_trial_val_{objective}": best.values[0],
        f"first_trial_val_{objective}": start,
        f"winner_again_val_{objective}": again,
        **{f"trials_{state}": int(states.get(state, 0)) for state in ("complete", "pruned", "failed")},
    }
    runs.log_metrics(measured)
    log_figures(_figures(study, experiment, first.number if first else None, table, note), pdf)
    settings = ", ".join(f"{name} {_short(value)}" for name, value in best.params.items())
    count, folds = study.finished(), experiment.tuning.folds or 1
    judged = "on the validation galaxies" if folds == 1 else f"over {folds} folds of the galaxies outside the test"
    runs.describe(
        f"**{WORDS[objective]} {best.values[0]:.4f}** {judged} with {settings} (trial {best.number}), "
        f"**{again:.4f}** when trained again with another seed. The first was chosen as the best of {count}, by luck "
        f"too; the second was not. With the experiment's own settings {start:.4f}. The test galaxies "
        f"were not looked at. {note or ''}"
    )
    of_search = pd.DataFrame(
        [
            {"settings": "the experiment's own", "in the search": start, "trained again": np.nan},
            {"settings": f"the best of {count} trials", "in the search": best.values[0], "trained again": again},
        ]
    )
    runs.log_table(of_search, "search.csv")
    if out is not None:
        write_table(table.drop(columns=["run_id", "seconds"]), out / "study.csv")
        write_json({**measured, **best.params}, out / "study.json")
    return {"study": study.name, "run_id": runs.active_id(), "best_trial": best.number, **measured, **best.params}


def write_params(study: Study, experiment: config.Experiment, best: FrozenTrial, data: Dataset, path: Path) -> None:
    """Write the winning settings for `train --params`, the same bytes for the same study, and log them."""
    content = {
        "settings": dict(best.params),
        "study": {
            "name": study.name,
            "data_fingerprint": data.fingerprint,
            "objective": WORDS[experiment.tuning.objective],
            "value": best.values[0],
            "trials": experiment.tuning.trials,
        },
    }
    with replacing(path) as aside:
        aside.write_text(
            f"# Found by `deepmerge tune`. Use it with: mlflow run . -P dataset={experiment.name} -P params=tuned\n"
            + yaml_file.written(content)
        )
    log.info("The winning settings are in %s", path)
    runs.log_file(path)


def _figures(
    study: Study, experiment: config.Experiment, first: int | None, table: pd.DataFrame, note: str | None
) -> dict[str, Figure]:
    states: Mapping[int, Any] = dict(zip(table["number"], table["state"], strict=True))
    points = [
        TrialPoint(
            trial.number,
            states[trial.number],
            trial.values[0] if trial.values else None,
            trial.params,
            list(trial.intermediate_values.values()),
        )
        for trial in study.trials()
        if states.get(trial.number) in ("complete", "pruned", "failed")
    ]
    words, space = WORDS[experiment.tuning.objective], experiment.tuning.space
    log_scaled = [name for name, allowed in space.items() if allowed.log]
    drawn = {
        "history": figures.history(points, words, study.direction, default=first, note=note),
        "slices": figures.slices(points, words, study.direction, log_scaled, default=first, note=note),
        "curves": figures.curves(points, words, study.direction, default=first, note=note),
    }
    if importances := study.importances():
        drawn["importances"] = figures.importances(importances, note=note)
    return drawn


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
