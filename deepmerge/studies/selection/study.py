"""On what kind of galaxy a model works: by stage, mass, morphology and signal-to-noise."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from deepmerge.analysis import morphology
from deepmerge.cluster import Where
from deepmerge.data.dataset import Dataset
from deepmerge.estimate import Estimate, read
from deepmerge.jobs.judged import PREDICTIONS, find, newest_study
from deepmerge.jobs.run import Results
from deepmerge.model import devices
from deepmerge.progress import progress_bar
from deepmerge.studies import base
from deepmerge.studies.base import Caption, Findings, Study
from deepmerge.studies.folds import study as folds
from deepmerge.studies.selection import figures, rates
from deepmerge.studies.selection.bias import bias_tests
from deepmerge.tracking import runs

log = logging.getLogger(__name__)

STUDY = Study(
    "selection",
    "On what kind of galaxy it works",
    "deepmerge study selection {} --model folds",
    captions={
        "selection": Caption(
            "Selection function", "Rates in bins of a property; dashes and shade are the whole sample."
        ),
        "stages": Caption("Stages", "Share of the images that is called a merger."),
        "score_and_mass": Caption(
            "Scores and stellar mass", "As figure 7 of the paper; the line is the running median."
        ),
        "agreement": Caption(
            "Views of one galaxy", "Share of galaxies right from one, most, all views; hollow: independent views."
        ),
    },
    tables={"bias_tests": "does the score depend on a property, within a class? Null hypothesis: it does not"},
)
FOLDS = "folds"  # instead of a model: the newest evaluation of the data set in folds
# Where a property comes from first: the catalogue, or else the pixels. And what a figure calls it.
PROPERTIES = {
    "log_mstar": "log M* (solar masses)",
    "concentration": "Concentration C",
    "m20": "M20",
    "log_sn": "log S/N per pixel",
}
CACHE = Path("results", "cache")
# Median signal-to-noise per pixel beyond which the "noise" is faint light; that of the pristine demo images is 2000.
NOISELESS = 300.0


def measure_selection(dataset: str, model: str, bins: int, pdf: bool = False, out: Path | None = None) -> Results:
    """Measure completeness and purity against properties of the galaxies, by stage, and between views.

    `model` is what `runs.find` takes, whose test images are used, or 'folds': all galaxies, as the newest evaluation in
    folds scored them.
    """
    devices.prepare()
    if model == FOLDS:
        trained = newest_study(dataset, folds.STUDY.kind, "deepmerge evaluate DATASET --folds 5")
    else:
        trained = find(dataset, model)
    run, experiment, data = trained.run, trained.experiment, trained.data
    table = pd.read_parquet(runs.read_artifact(run, PREDICTIONS))
    table = table[(table["split"] == "test") & (table["transform"] == 0)].reset_index(drop=True)
    rows = table["row"].to_numpy()
    measured = properties(data, rows)
    scored = [table[name].to_numpy() for name in ("label", "probability", "galaxy_id")]
    note = ". ".join(base.warnings(run)) or None

    by_bins = {name: rates.by_bins(values, *scored, bins=bins) for name, values in measured.items()}
    by_stage = rates.by_stage(table["stage"].tolist(), *scored)
    views = rates.view_agreement(*scored)
    tests = bias_tests(measured, *scored)
    drawn = {
        "selection": figures.selection({PROPERTIES[name]: each for name, each in by_bins.items()}, note=note),
        "stages": figures.stages(by_stage, note=note),
        "agreement": figures.agreement(views, note=note),
    }
    if "log_mstar" in measured:
        drawn["score_and_mass"] = figures.score_and_mass(
            measured["log_mstar"], table["probability"], table["stage"].tolist(), note=note
        )
    estimates = {
        "judged": run.info.run_id,
        "images": len(table),
        "galaxies": table["galaxy_id"].nunique(),
        **_estimates(by_stage, views, tests),
    }
    tables = {
        "selection": pd.concat([t.assign(property=name) for name, t in by_bins.items()], ignore_index=True),
        "stages": by_stage,
        "views": views,
        "bias_tests": tests,
    }
    findings = Findings(_sentence(by_stage, tests), estimates, tables, drawn)
    tags = {"judged": run.info.run_id}
    return base.conduct(STUDY, experiment, data, lambda _: findings, note=note, tags=tags, pdf=pdf, out=out)


def properties(data: Dataset, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Those of PROPERTIES that are known of these images: from the catalogue, or else measured on their last filter."""
    catalogued = {name: data.catalogue[name].to_numpy(float)[rows] for name in PROPERTIES if name in data.catalogue}
    measured = {}
    if set(PROPERTIES) - {"log_mstar"} - set(catalogued):
        table = shapes(data, rows)
        measured = {name: table[name].to_numpy(float) for name in ("concentration", "m20")}
        ratio = table["sn_per_pixel"].to_numpy(float)
        if np.nanmedian(ratio) < NOISELESS:
            measured["log_sn"] = np.log10(np.where(ratio > 0, ratio, np.nan))
        else:
            log.info("%s has no noise to speak of: signal-to-noise is left out", data.name)
    return {name: {**measured, **catalogued}[name] for name in PROPERTIES if name in measured or name in catalogued}


def shapes(data: Dataset, rows: np.ndarray, filter_index: int | None = None, workers: Where = None) -> pd.DataFrame:
    """Morphology of these images in a filter, kept on disk.

    By default in the last one, in which galaxies at z = 2 show their old stars.
    """
    number = data.images.shape[1] - 1 if filter_index is None else filter_index
    with progress_bar(f"Morphology of {data.name}", len(rows)) as advance:
        known: dict[str, Any] = {"cache": CACHE, "fingerprint": data.fingerprint}
        return morphology.measure(data.images, rows, number, workers=workers, advance=advance, **known)


def _estimates(stages: pd.DataFrame, views: pd.DataFrame, tests: pd.DataFrame) -> dict[str, Estimate | float]:
    estimates: dict[str, Estimate | float] = {}
    for line in stages.to_dict("records"):
        estimates[f"{line['stage']}_{line['rate']}"] = read(line, "value")
    for line in views.to_dict("records"):
        for name in (*rates.AGREEMENT, "intraclass_correlation"):
            estimates[f"{line['class']}_{name}"] = read(line, name)
    for line in tests.to_dict("records"):
        name = f"{line['class']}_{line['property']}"
        estimates |= {f"{name}_correlation": float(line["correlation"]), f"{name}_p_holm": float(line["p_holm"])}
    return estimates


def _sentence(stages: pd.DataFrame, tests: pd.DataFrame) -> str:
    shares = ", ".join(f"{line['stage']} {read(line, 'value').text()}" for line in stages.to_dict("records"))
    odd = tests[tests["p_holm"] < 0.05]
    depends = ", ".join(f"{line['property']} ({line['class']}s)" for line in odd.to_dict("records")) or "none"
    return f"Predicted merger: {shares}. Scores depend on (Holm-corrected p < 0.05): {depends}."
