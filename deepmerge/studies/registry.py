"""All studies, in the order in which reports show them; a new one is a module of this room and its name here."""

from deepmerge.studies import leakage, recipes, tuning
from deepmerge.studies.baselines import study as baselines
from deepmerge.studies.folds import study as folds
from deepmerge.studies.probabilities import study as probabilities
from deepmerge.studies.selection import study as selection
from deepmerge.studies.shortcuts import study as shortcuts
from deepmerge.studies.transfer import study as transfer

MODULES = (shortcuts, leakage, folds, tuning, recipes, baselines, selection, probabilities, transfer)
STUDIES = {module.STUDY.kind: module.STUDY for module in MODULES}
