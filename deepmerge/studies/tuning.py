"""The search for better settings, as a report shows it; `deepmerge.jobs.tune` conducts it."""

from deepmerge.studies.base import Caption, Study

STUDY = Study(
    "study",
    "The search for settings",
    "deepmerge tune {}",
    captions={
        "slices": Caption("Settings tried", "The validation score of each trial against each setting."),
        "importances": Caption("Which setting matters", "How much of the scores' variation goes back to each."),
    },
    tables={"search": "validation score in the search, and of the winning settings trained again with another seed"},
)
