"""All studies; a new one is a module here and a line below. Reports show them in this order."""

from deepmerge.studies import leakage, recipes
from deepmerge.studies.baselines import study as baselines
from deepmerge.studies.folds import study as folds
from deepmerge.studies.probabilities import study as probabilities
from deepmerge.studies.selection import study as selection

STUDIES = {
    study.kind: study
    for study in (
        leakage.STUDY,
        folds.STUDY,
        recipes.STUDY,
        baselines.STUDY,
        selection.STUDY,
        probabilities.STUDY,
    )
}
