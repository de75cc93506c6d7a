"""Judge a recipe on every galaxy: grouped k-fold cross-validation."""

from pathlib import Path

import pandas as pd

from deepmerge import config
from deepmerge.analysis import metrics
from deepmerge.cluster import Where
from deepmerge.data import copies, protocols, split_table
from deepmerge.data.dataset import Dataset
from deepmerge.data.splits import Split
from deepmerge.estimate import Estimate
from deepmerge.jobs import networks
from deepmerge.jobs.evaluate import drawn
from deepmerge.jobs.judged import PREDICTIONS, find
from deepmerge.jobs.run import Results, warning
from deepmerge.jobs.trial import Order, train_all
from deepmerge.model import devices, training
from deepmerge.plots.forest import Line, forest
from deepmerge.studies import base
from deepmerge.studies.base import MODEL_FIGURES, SHOWN, Caption, Findings, Study
from deepmerge.tracking import runs

STUDY = Study(
    "folds",
    "All galaxies, in folds",
    "deepmerge evaluate {} --folds 5",
    captions={
        "folds": Caption(
            "Folds", "Each fold's network on the galaxies that it had not seen, and all of them together."
        ),
        **{name: MODEL_FIGURES[name] for name in ("roc", "scores")},
    },
    tables={},
)


def cross_validate(
    dataset: str, model: str, count: int, pdf: bool = False, out: Path | None = None, workers: Where = None
) -> Results:
    """Train the recipe of a model anew on `count` folds of all galaxies, each of which tests once.

    The predictions of all galaxies by networks that did not train on them are judged together, ranks within their
    folds. Each fold's model is a run below the one of the whole.
    """
    devices.prepare()
    trained = find(dataset, model)
    run, experiment, data = trained.run, trained.experiment, trained.data
    folds = protocols.cross(data, experiment.split, count)
    copies.require_apart(data, folds)
    training.require_sound(data, networks.at_hand(experiment.network, experiment.name))
    note = warning(data, folds[0])

    def measure(study: str) -> Findings:
        table = _out_of_fold(study, experiment, data, folds, workers)
        runs.log_table(table, PREDICTIONS)
        return _findings(table, experiment.name, note)

    tags = {"split": "galaxy", "recipe_of": run.info.run_id}
    return base.conduct(STUDY, experiment, data, measure, note=note, tags=tags, pdf=pdf, out=out)


def _out_of_fold(
    study: str, experiment: config.Experiment, data: Dataset, folds: list[Split], workers: Where
) -> pd.DataFrame:
    """One line an image, as in `evaluation.predictions`, all of the part test, with the fold that it tested."""
    orders = [
        Order(f"fold {number}", experiment, data, split, {"fold": str(number)}, keep_model=True)
        for number, split in enumerate(folds, 1)
    ]
    tables = []
    for number, trial in enumerate(train_all(study, f"{len(folds)} folds of {data.name}", orders, workers), 1):
        lines = folds[number - 1].table()
        lines = split_table.described(lines[lines["split"] == "test"], data)
        tables.append(lines.assign(probability=trial.probability, fold=number))
    return pd.concat(tables, ignore_index=True)


def _findings(table: pd.DataFrame, name: str, note: str | None) -> Findings:
    columns = ["label", "probability", "galaxy_id", "fold"]
    evaluation = metrics.evaluate(*(table[name].to_numpy() for name in columns))
    each = {
        f"fold {number}": metrics.evaluate(*(lines[name].to_numpy() for name in columns[:3])).metrics
        for number, lines in table.groupby("fold")
    }
    galaxies = table["galaxy_id"].nunique()
    estimates: dict[str, Estimate | float] = {
        "folds": len(each),
        "galaxies": galaxies,
        "merger_galaxies": table.loc[table["label"] == 1, "galaxy_id"].nunique(),
        "images": len(table),
        **{f"test_{metric}": estimate for metric, estimate in evaluation.metrics.items()},
    }
    for metric in SHOWN:
        values = [fold[metric].value for fold in each.values()]
        estimates[f"folds_mean_{metric}"] = base.mean_with_interval(values, overlap=1 / (len(each) - 1))
    auc, accuracy = (evaluation.metrics[metric].text() for metric in SHOWN)
    sentence = (
        f"**AUC {auc}**, balanced accuracy {accuracy} over all {galaxies} galaxies, each scored "
        f"by the one of {len(each)} networks that had not seen it."
    )
    lines = [Line(fold, [measures[metric] for metric in SHOWN], 1) for fold, measures in each.items()]
    lines.append(Line("all galaxies together", [evaluation.metrics[metric] for metric in SHOWN]))
    title = f"{len(each)} folds of {name}, 95 % intervals over galaxies"
    figures = {
        **drawn(evaluation, table, name, note),
        "folds": forest(lines, list(SHOWN.values()), title=title, note=note),
    }
    rows = [
        {"fold": fold, "metric": metric, **estimate._asdict()}
        for fold, measures in each.items()
        for metric, estimate in measures.items()
    ]
    return Findings(sentence, estimates, {"folds": pd.DataFrame(rows)}, figures)
