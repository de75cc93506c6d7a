"""Judge a recipe on every galaxy: grouped k-fold cross-validation."""

from pathlib import Path

import pandas as pd

from deepmerge import config
from deepmerge.analysis import metrics
from deepmerge.data import copies, protocols, splits
from deepmerge.data.dataset import Dataset
from deepmerge.data.splits import Split
from deepmerge.estimate import flat
from deepmerge.jobs.evaluate import drawn
from deepmerge.jobs.judged import PREDICTIONS, find
from deepmerge.jobs.run import Results, log_figures, open_run, warning
from deepmerge.model import devices
from deepmerge.plots.forest import Line, forest
from deepmerge.progress import progress_bar
from deepmerge.studies import base
from deepmerge.studies.folds import ranking
from deepmerge.tracking import runs

KIND = "folds"
SHOWN = {"auc": "AUC", "balanced_accuracy": "Balanced accuracy"}


def cross_validate(dataset: str, model: str, count: int, pdf: bool = False, out: Path | None = None) -> Results:
    """Train the recipe of a model anew on `count` folds of all galaxies, each of which tests once.

    The predictions of all galaxies by networks that did not train on them are judged together, ranks within their
    folds. Each fold's model is a run below the one of the whole.
    """
    devices.prepare()
    trained = find(dataset, model)
    run, experiment, data = trained.run, trained.experiment, trained.data
    made = protocols.cross(data, experiment.split, count)
    copies.require_apart(data, made)
    with open_run(KIND, experiment, data, tags={"split": "galaxy", "recipe_of": run.info.run_id}) as study:
        table = _out_of_fold(study, experiment, data, made)
        runs.log_table(table, PREDICTIONS)
        return _report(study, table, experiment, warning(data, made[0]), pdf, out)


def _out_of_fold(study: str, experiment: config.Experiment, data: Dataset, made: list[Split]) -> pd.DataFrame:
    """One line an image, as in `evaluation.predictions`, all of the part test, with the fold that it tested."""
    tables = []
    with progress_bar(f"{len(made)} folds of {data.name}", len(made) * experiment.training.epochs) as advance:
        for number, split in enumerate(made, 1):
            name = f"fold {number}"
            trial = base.run(study, name, data, split, experiment, advance, tags={"fold": str(number)}, keep_model=True)
            lines = split.table()
            lines = splits.described(lines[lines["split"] == "test"], data)
            tables.append(lines.assign(probability=trial.probability, fold=number))
    return pd.concat(tables, ignore_index=True)


def _report(
    study: str, table: pd.DataFrame, experiment: config.Experiment, said: str | None, pdf: bool, out: Path | None
) -> Results:
    def measured(lines: pd.DataFrame) -> metrics.Evaluation:
        return metrics.evaluate(*(lines[name].to_numpy() for name in ("label", "probability", "galaxy_id")))

    found = ranking.evaluate(*(table[name].to_numpy() for name in ("label", "probability", "galaxy_id", "fold")))
    each = {f"fold {number}": measured(lines).metrics for number, lines in table.groupby("fold")}
    spread = {name: base.mean_with_interval([fold[name].value for fold in each.values()]) for name in SHOWN}
    results: Results = {
        "run_id": study,
        "folds": len(each),
        "galaxies": table["galaxy_id"].nunique(),
        "merger_galaxies": table.loc[table["label"] == 1, "galaxy_id"].nunique(),
        "images": len(table),
        **flat(found.metrics, "test"),
        **flat(spread, "folds_mean"),
    }
    runs.describe(
        f"**AUC {found.metrics['auc'].text()}**, balanced accuracy "
        f"{found.metrics['balanced_accuracy'].text()} over all {results['galaxies']} galaxies, each scored "
        f"by the one of {len(each)} networks that had not seen it. {said or ''}"
    )
    lines = [Line(name, [fold[metric] for metric in SHOWN], 1) for name, fold in each.items()]
    lines.append(Line("all galaxies together", [found.metrics[metric] for metric in SHOWN]))
    title = f"{len(each)} folds of {experiment.name}, 95 % intervals over galaxies"
    figures = {
        **drawn(found, table, experiment.name, said),
        "folds": forest(lines, list(SHOWN.values()), title=title, note=said),
    }
    log_figures(figures, pdf)
    rows = [
        {"fold": name, "metric": metric, **e._asdict()} for name, fold in each.items() for metric, e in fold.items()
    ]
    base.finish(results, {"folds": pd.DataFrame(rows)}, out)
    return results
