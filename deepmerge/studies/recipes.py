"""The default recipe against the published one, and against itself with one thing changed, on all galaxies."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from deepmerge import config
from deepmerge.analysis import intervals, metrics
from deepmerge.cluster import Where
from deepmerge.data import copies, protocols
from deepmerge.data.splits import Split
from deepmerge.estimate import read
from deepmerge.jobs.run import Results, warning
from deepmerge.jobs.trial import Order, Trial, over_seeds, train_all
from deepmerge.studies import base
from deepmerge.studies.base import Caption, Findings, Study

STUDY = Study(
    "recipes",
    "Which part of the recipe matters",
    "deepmerge study recipes {}",
    captions={
        "recipes": Caption(
            "Recipes on the same folds", "The last column is the difference to the experiment's own recipe, paired."
        )
    },
    tables={
        "recipes": "metrics on all galaxies, paired change against the experiment's own recipe, time to the target"
    },
)
OWN = "as the experiment says"
PUBLISHED = "published recipe"
# The authors' notebook, as in experiments/published-pristine.yaml; a test holds them together.
PUBLISHED_SETTINGS: dict[str, Any] = {
    "architecture": "published",
    "symmetry": "none",
    "batch_norm": "architecture",
    "hidden": "architecture",
    "width": 1.0,
    "stretch": "raw",
    "dropout": 0.5,
    "l2": 1e-4,
    "batch_size": 128,
    "learning_rate": 1e-3,
    "schedule": "constant",
    "keep": "best",
    "patience": 50,
    "balance": "none",
    "augment": False,
}
# What differs from the experiment in each line of the table.
CHANGES: dict[str, dict[str, Any]] = {
    OWN: {},
    "batch norm over the width": {"batch_norm": "width"},
    "softmax in hidden layers": {"hidden": "softmax"},
    "standardised, no stretch": {"stretch": "standard"},
    "raw pixels": {"stretch": "raw"},
    "no flips and turns": {"augment": False},
    "no average over turns": {"symmetry": "none"},
    "lowest validation loss kept": {"keep": "best"},
    PUBLISHED: PUBLISHED_SETTINGS,
}


class Scored(NamedTuple):
    """All galaxies, each scored by the networks that had not seen it, one a seed, and how fast the networks learned.

    lines: one an image; probability: (seeds, images); reached: epochs and seconds (trainings, 2) until the validation
    log loss was at the target, NaN where it never was; loss: (trainings,) lowest validation log loss; epoch:
    (trainings,) mean seconds of an epoch.
    """

    lines: pd.DataFrame
    probability: np.ndarray
    reached: np.ndarray
    loss: np.ndarray
    epoch: np.ndarray


def compare_recipes(
    experiment: config.Experiment,
    folds: int,
    seeds: int,
    published_epochs: int,
    target: float,
    pdf: bool = False,
    out: Path | None = None,
    workers: Where = None,
) -> Results:
    """Train every recipe on the same grouped folds, with several seeds, and compare them on all galaxies, in pairs.

    The published recipe trains on flipped and turned copies, as it was published but split by galaxy, for
    `published_epochs`. `target` is the validation log loss (at balance) to which the recipes are timed.
    """
    data = base.opened(experiment)
    splits = protocols.cross(data, experiment.split, folds)
    copies.require_apart(data, splits)
    planned = {
        name: experiment.with_settings({**change, **({"epochs": published_epochs} if name == PUBLISHED else {})})
        for name, change in CHANGES.items()
    }
    note = warning(data, splits[0])

    def measure(study: str) -> Findings:
        orders = [
            Order(
                f"{name}, fold {number}",
                recipe,
                data,
                protocols.with_copies(data, split) if name == PUBLISHED else split,
                {"recipe": name, "fold": str(number)},
            )
            for name, recipe in planned.items()
            for number, split in enumerate(splits, 1)
        ]
        orders = [seeded for order in orders for seeded in over_seeds(order, seeds)]
        trials = train_all(study, f"{len(planned)} recipes on {data.name}", orders, workers)
        each = folds * seeds
        scores = {
            name: _scored(data.labels, data.galaxies, splits, trials[start : start + each], target)
            for name, start in zip(planned, range(0, len(trials), each), strict=True)
        }
        table = recipe_table(scores)
        facts = {"folds": folds, "seeds": seeds, "target": target, "published_epochs": published_epochs}
        groups = (table["recipe"] == PUBLISHED).astype(int).tolist()
        title = f"Recipes on all galaxies of {experiment.name}"
        figure = base.comparison(table, groups, "AUC, change (paired)", guess=None, title=title, note=note)
        return Findings(
            _sentence(table, folds, seeds),
            {**facts, **base.named(table, "recipe")},
            {"recipes": table},
            {"recipes": figure},
        )

    return base.conduct(STUDY, experiment, data, measure, note=note, tags={"split": "galaxy"}, pdf=pdf, out=out)


def _scored(
    labels: np.ndarray, galaxies: np.ndarray, splits: list[Split], trials: list[Trial], target: float
) -> Scored:
    """Gather trainings, those of the first fold, in the order of their seeds, first."""
    seeds = len(trials) // len(splits)
    rows = np.concatenate([split.test.rows for split in splits])
    order = np.argsort(rows)
    fold = np.repeat(np.arange(len(splits)), [len(split.test) for split in splits])
    lines = pd.DataFrame({"row": rows, "label": labels[rows], "galaxy": galaxies[rows], "fold": fold})
    probability = [np.concatenate([trial.probability for trial in trials[seed::seeds]])[order] for seed in range(seeds)]
    return Scored(
        lines.iloc[order].reset_index(drop=True),
        np.stack(probability),
        np.array([time_to(trial.history["val_log_loss"], trial.seconds, target) for trial in trials]),
        np.array([min(trial.history["val_log_loss"]) for trial in trials]),
        np.array([trial.seconds[-1] / len(trial.seconds) for trial in trials]),
    )


def time_to(losses: list[float], seconds: np.ndarray, target: float) -> tuple[float, float]:
    """Epoch, from 1, and seconds after which a loss was first at `target` or below; NaN where it never was."""
    low = np.flatnonzero(np.asarray(losses) <= target)
    return (float(low[0] + 1), float(seconds[low[0]])) if len(low) else (np.nan, np.nan)


def recipe_table(scores: Mapping[str, Scored]) -> pd.DataFrame:
    """One line a recipe: metrics and their paired differences to the experiment's own, with intervals; times.

    Intervals are over galaxies and seeds; `change_auc_p` is Holm's for all recipes of the table.
    """
    own = scores[OWN].probability
    table = []
    for name, scored in scores.items():
        lines = scored.lines
        labels, galaxies = lines["label"].to_numpy(), lines["galaxy"].to_numpy()
        probabilities, tested = scored.probability, lines["fold"].to_numpy()
        measured = metrics.over_seeds(labels, probabilities, galaxies, tested)
        change = metrics.difference(labels, probabilities, own, galaxies, tested)
        reached = np.isfinite(scored.reached[:, 0])
        # The median over all trainings, where one that never got there took longer than any.
        usual = np.median(np.where(np.isnan(scored.reached), np.inf, scored.reached), axis=0)
        table.append(
            {
                "recipe": name,
                **base.compared(measured, change),
                "change_auc_p": metrics.p_value(labels, probabilities, own, galaxies, tested),
                "lowest_val_log_loss": scored.loss.mean(),
                "trainings_at_target": int(reached.sum()),
                "epochs_to_target": usual[0] if np.isfinite(usual[0]) else np.nan,
                "seconds_to_target": usual[1] if np.isfinite(usual[1]) else np.nan,
                "seconds_an_epoch": scored.epoch.mean(),
            }
        )
    found = pd.DataFrame(table)
    return found.assign(change_auc_p=intervals.holm(found["change_auc_p"].to_numpy()))


def _sentence(table: pd.DataFrame, folds: int, seeds: int) -> str:
    lines = table.set_index("recipe")
    auc = {name: read(lines.loc[name].to_dict(), "test_auc").text() for name in (OWN, PUBLISHED)}
    different = table.loc[table["change_auc_p"] < 0.05, "recipe"].tolist()
    others = f"Different from it in AUC (Holm-corrected p < 0.05): {', '.join(different) or 'none'}."
    seen = f"{folds} folds × {seeds} seed{'s' if seeds > 1 else ''}"
    return f"AUC over all galaxies, {seen}: **{auc[OWN]}** {OWN}, {auc[PUBLISHED]} with the {PUBLISHED}. {others}"
