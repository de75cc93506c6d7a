"""The gate on all galaxies: two recipes as `evaluate --folds` scored them, not two models on the test galaxies."""

import pandas as pd

from deepmerge.errors import InputError
from deepmerge.jobs.judged import PREDICTIONS, Judged
from deepmerge.jobs.promote import gate
from deepmerge.jobs.promote.gate import Verdict
from deepmerge.tracking import runs

FOLDS = "folds"  # the kind of the studies that score all galaxies


def verdict(candidate: Judged, champion: runs.Run | None, metric: str, against: str, force: str | None) -> Verdict:
    """The verdict on all galaxies, each scored by a network of the recipe that had not seen it.

    A look is a recipe that was evaluated so. Raises InputError where candidate or champion, if there is one, was not,
    or on other folds.
    """
    fingerprint, name = candidate.data.fingerprint, candidate.run.data.tags["dataset"]
    studies = list(runs.newest_studies(FOLDS, name, fingerprint))
    ours = _scores(candidate.run, studies, name)
    theirs = None if champion is None else _scores(champion, studies, name)
    same = ["row", "fold"]
    if theirs is not None and not ours[same].equals(theirs[same]):
        raise InputError(
            f"both recipes should be scored on the same folds, got others of {against}; evaluate both anew with the "
            "same --folds and split_seed"
        )
    columns = (ours[column].to_numpy() for column in ("label", "probability", "galaxy_id", "fold"))
    labels, probability, galaxies, folds = columns
    look = len({study.data.tags["recipe_of"] for study in studies})
    its = None if theirs is None else theirs["probability"].to_numpy()
    return gate.judge(labels, probability, its, galaxies, metric, against, force, look, folds)


def _scores(run: runs.Run, studies: list[runs.Run], dataset: str) -> pd.DataFrame:
    """One line an image, by row: what the newest evaluation in folds of a run's recipe made of it."""
    run_id = run.info.run_id
    for study in studies:
        if study.data.tags.get("recipe_of") == run_id:
            return pd.read_parquet(runs.read_artifact(study, PREDICTIONS)).sort_values("row", ignore_index=True)
    raise InputError(
        f"the recipe of run {run_id} should have scores of all galaxies in folds, got none; make them with "
        f"'deepmerge evaluate {dataset} --folds 5 --model {run_id}'"
    )
