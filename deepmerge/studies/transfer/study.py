"""From one sample to another: what is lost on images of the target, and what carries a network over without labels."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from deepmerge import config
from deepmerge.cluster import Where
from deepmerge.data import copies, protocols, splits, targets
from deepmerge.data.dataset import Dataset
from deepmerge.data.splits import Part, Split
from deepmerge.data.targets import Unlabelled
from deepmerge.errors import InputError
from deepmerge.estimate import Estimate
from deepmerge.jobs.run import Results, warning
from deepmerge.jobs.trial import Order, over_seeds, train_all
from deepmerge.studies import base
from deepmerge.studies.base import Caption, Findings, Study
from deepmerge.studies.transfer import maps, table
from deepmerge.studies.transfer.table import LABELLED, NONE, Scored

STUDY = Study(
    "transfer",
    "From one sample to another",
    "deepmerge study transfer {} {target}",
    captions={
        "transfer": Caption(
            "On images of the target", "Each galaxy scored by networks that had not seen it; change against 'as it is'."
        ),
        "saliency": Caption("Where the networks looked", "The same mergers of the target, a map for each training."),
    },
    tables={"transfer": "metrics on source and target, share of the loss recovered, calibration on the target"},
)
ELSEWHERE = "elsewhere"  # test images of the sample that a network was not trained on
NAMES = {
    "stretch": "stretch of the target",
    "noise": "noise of the target",
    "mmd": "MMD",
    "coral": "CORAL",
    "sinkhorn": "Sinkhorn divergence",
    "dann": "DANN",
}


@dataclass(frozen=True)
class Fold:
    """One way to part both samples: what trains and tests of each, and the images of the target that may be seen."""

    number: int
    source: Split
    target: Split
    seen: Unlabelled


def measure_transfer(
    experiment: config.Experiment,
    target: config.Experiment,
    reference: str,
    settings: config.Study,
    pdf: bool = False,
    out: Path | None = None,
    workers: Where = None,
) -> Results:
    """Train on the source in several ways, and on the target itself, and judge all of them on both.

    reference: name or path of the target's experiment, by which runs find its images again; its labels train nothing
    but the last line, and judge. Where both show the same galaxies, they are parted alike; else the target is parted by
    galaxy without a look at labels. All trainings have the network and the training of the source's experiment.
    """
    plain = experiment.with_settings({"noise": None, "psf": None, "adapt": None})
    data, other = base.opened(plain), base.opened(target)
    if data.images.shape[1:] != other.images.shape[1:]:
        raise InputError(
            f"target images should have the shape of the source's, {data.images.shape[1:]}, got "
            f"{other.images.shape[1:]}; data.size and data.filters make them alike"
        )
    folds = list(_folds(plain, data, other, targets.read(reference), settings.folds))
    copies.require_apart(data, [fold.source for fold in folds])
    copies.require_apart(other, [fold.target for fold in folds])
    planned = plan(experiment, target, reference, settings.methods)
    shown = maps.shown_mergers(other, folds[0].target)
    note = note_of(data, other)

    def measure(study: str) -> Findings:
        orders = [
            order
            for name, recipe in planned.items()
            for order in _orders(name, recipe, ((data, plain.data), (other, target.data)), folds, settings.seeds)
        ]
        trials = train_all(study, f"{len(planned)} ways from {data.name} to {other.name}", orders, workers)
        each = len(folds) * settings.seeds
        scores, seen = {}, {}
        for start, name in zip(range(0, len(trials), each), planned, strict=True):
            pairs = [
                (trial.scores[ELSEWHERE], trial.probability)
                if name == LABELLED
                else (trial.probability, trial.scores[ELSEWHERE])
                for trial in trials[start : start + each]
            ]
            scores[name] = _gathered((data, other), folds, settings.seeds, pairs)
            seen[name] = maps.measure(trials[start].model, other, shown)
        found = table.of_scores(scores)
        facts: dict[str, float | str] = {"target": target.name, "folds": settings.folds, "seeds": settings.seeds}
        drawn = {
            "transfer": table.figure(found, f"From {data.name} to {other.name}", note),
            "saliency": maps.figure(seen, found, other, shown, note),
        }
        estimates: dict[str, Estimate | float | str] = {**facts, **base.named(found, "training")}
        return Findings(table.sentence(found, other.name), estimates, {"transfer": found}, drawn)

    tags = {"split": "galaxy", "target": other.name, "target_fingerprint": other.fingerprint}
    return base.conduct(STUDY, experiment, data, measure, note=note, tags=tags, pdf=pdf, out=out)


def plan(
    experiment: config.Experiment, target: config.Experiment, reference: str, methods: Sequence[str]
) -> dict[str, config.Experiment]:
    """The experiment of each line of the table, by its name.

    Where the experiment says how to adapt by one of the methods, its weight is taken, else the default.
    """
    own, plain = experiment.training, experiment.with_settings({"noise": None, "psf": None, "adapt": None})
    planned = {NONE: plain}
    for method in dict.fromkeys(methods):
        if method == "noise":
            change: dict[str, Any] = {"noise": {"like": reference}, "psf": own.psf}
        else:
            asked = own.adapt if own.adapt is not None and own.adapt.method == method else config.Adapt(to=reference)
            change = {"adapt": asked.model_copy(update={"to": reference, "method": method})}
        planned[NAMES[method]] = plain.with_settings(change)
    planned[LABELLED] = plain.model_copy(update={"name": target.name, "data": target.data})
    return planned


def _folds(
    experiment: config.Experiment, data: Dataset, other: Dataset, target: Unlabelled, count: int
) -> Iterator[Fold]:
    """Both samples in `count` folds."""
    same, seed = targets.are_same(target, data), experiment.split.split_seed
    for number, split in enumerate(protocols.cross(data, experiment.split, count)):
        if same:
            yield Fold(number, split, split, targets.beside(target, data, split))
            continue
        held = targets.held_out(target, number, count, seed)
        rows = splits.originals(other)
        galaxies, stages = splits.stages_of_galaxies(other, rows[~held[rows]])
        share = experiment.split.validation_fraction * count / (count - 1)
        drawn = splits.drawn(stages, share, seed + number)
        train, validation = (splits.views(other, galaxies[chosen]) for chosen in drawn)
        test = rows[held[rows]]
        parted = Split("galaxy", train, validation, Part(test, np.zeros(len(test), np.uint8)), seed=seed)
        seen = replace(target, rows=np.setdiff1d(target.rows, np.flatnonzero(held)))
        yield Fold(number, split, parted, seen)


def _orders(
    name: str,
    recipe: config.Experiment,
    samples: Sequence[tuple[Dataset, config.Data]],
    folds: Sequence[Fold],
    seeds: int,
) -> Iterator[Order]:
    """Trainings on all folds with all seeds, each to be scored on the test images of source and target."""
    own = int(name == LABELLED)
    uses_target = recipe.training.noise is not None or recipe.training.adapt is not None
    for fold in folds:
        parts = (fold.source, fold.target)
        order = Order(
            f"{name}, fold {fold.number + 1}",
            recipe,
            samples[own][0],
            parts[own],
            {"training": name, "fold": str(fold.number + 1)},
            {ELSEWHERE: (*samples[1 - own], parts[1 - own].test)},
            target=fold.seen if uses_target else None,
        )
        for seeded in over_seeds(order, seeds):
            is_shown = fold is folds[0] and seeded.experiment.training.seed == recipe.training.seed
            yield replace(seeded, wants_model=is_shown)


def _gathered(
    samples: tuple[Dataset, Dataset],
    folds: Sequence[Fold],
    seeds: int,
    found: Sequence[tuple[np.ndarray, np.ndarray]],
) -> tuple[Scored, Scored]:
    """Scores of source and target, from those of each training, the first fold's first, in the order of their seeds."""
    gathered = []
    for place, data in enumerate(samples):
        parts = [(fold.source, fold.target)[place].test for fold in folds]
        rows = np.concatenate([part.rows for part in parts])
        lines = pd.DataFrame(
            {
                "row": rows,
                "label": data.labels[rows],
                "galaxy": data.galaxies[rows],
                "fold": np.repeat([fold.number for fold in folds], [len(part) for part in parts]),
            }
        )
        scores = [np.concatenate([pair[place] for pair in found[seed::seeds]]) for seed in range(seeds)]
        gathered.append(Scored(lines, np.stack(scores)))
    return gathered[0], gathered[1]


def note_of(data: Dataset, other: Dataset) -> str | None:
    """What nobody may overlook on a figure, and of which sample where it is not true of both."""
    found = {each.name: said for each in (data, other) if (said := warning(each)) is not None}
    if len(found) == 1 and data.name != other.name:
        return ". ".join(f"{name}: {said}" for name, said in found.items())
    return next(iter(found.values()), None)
