"""On what kind of galaxy a model works: by stage, mass, morphology and signal-to-noise."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd

from deepmerge.analysis import morphology
from deepmerge.data.dataset import Dataset
from deepmerge.estimate import read
from deepmerge.jobs.judged import PREDICTIONS, find, newest_study
from deepmerge.jobs.run import SIMULATED, Results, log_figures, open_run
from deepmerge.model import devices
from deepmerge.progress import progress_bar
from deepmerge.studies import base
from deepmerge.studies.folds import study as folds
from deepmerge.studies.selection import figures
from deepmerge.studies.selection import rates as science
from deepmerge.tracking import runs

log = logging.getLogger(__name__)

KIND = "selection"
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
        found = newest_study(dataset, folds.KIND, "deepmerge evaluate DATASET --folds 5")
    else:
        found = find(dataset, model)
    run, experiment, data = found.run, found.experiment, found.data
    table = pd.read_parquet(runs.read_artifact(run, PREDICTIONS))
    table = table[(table["split"] == "test") & (table["transform"] == 0)].reset_index(drop=True)
    rows = table["row"].to_numpy()
    known = properties(data, rows)
    scored = [table[name].to_numpy() for name in ("label", "probability", "galaxy_id")]
    said = SIMULATED if data.data_source == "simulated" else None

    by_bins = {name: science.by_bins(values, *scored, bins=bins) for name, values in known.items()}
    by_stage = science.by_stage(table["stage"].tolist(), *scored)
    views = science.view_agreement(*scored)
    tests = science.bias_tests(known, *scored)
    drawn = {
        "selection": figures.selection({PROPERTIES[name]: found for name, found in by_bins.items()}, note=said),
        "stages": figures.stages(by_stage, note=said),
        "agreement": figures.agreement(views, note=said),
    }
    if "log_mstar" in known:
        drawn["score_and_mass"] = figures.score_and_mass(
            known["log_mstar"], table["probability"], table["stage"].tolist(), note=said
        )
    with open_run(KIND, experiment, data, tags={"judged": run.info.run_id}) as study:
        log_figures(drawn, pdf)
        results: Results = {
            "run_id": study,
            "judged": run.info.run_id,
            "images": len(table),
            "galaxies": table["galaxy_id"].nunique(),
            **_flat(by_stage, views, tests),
        }
        runs.describe(_said(by_stage, tests))
        tables = {
            "selection": pd.concat([t.assign(property=name) for name, t in by_bins.items()], ignore_index=True),
            "stages": by_stage,
            "views": views,
            "bias_tests": tests,
        }
        base.finish(results, tables, out)
    return results


def properties(data: Dataset, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Those of PROPERTIES that are known of these images: from the catalogue, or else measured on their last filter."""
    given = {name: data.catalogue[name].to_numpy(float)[rows] for name in PROPERTIES if name in data.catalogue}
    measured = {}
    if set(PROPERTIES) - {"log_mstar"} - set(given):
        table = shapes(data, rows)
        measured = {name: table[name].to_numpy(float) for name in ("concentration", "m20")}
        ratio = table["sn_per_pixel"].to_numpy(float)
        if np.nanmedian(ratio) < NOISELESS:
            measured["log_sn"] = np.log10(np.where(ratio > 0, ratio, np.nan))
        else:
            log.info("%s has no noise to speak of: signal-to-noise is left out", data.name)
    return {name: {**measured, **given}[name] for name in PROPERTIES if name in measured or name in given}


def shapes(data: Dataset, rows: np.ndarray) -> pd.DataFrame:
    """Morphology of these images in the last filter, in which galaxies at z = 2 show their old stars; kept on disk."""
    with progress_bar(f"Morphology of {data.name}", len(rows)) as advance:
        return morphology.measure(
            data.images, rows, data.images.shape[1] - 1, cache=CACHE, fingerprint=data.fingerprint, advance=advance
        )


def _flat(stages: pd.DataFrame, views: pd.DataFrame, tests: pd.DataFrame) -> dict[str, float]:
    found: dict[str, float] = {}
    for line in stages.to_dict("records"):
        for end in ("", "_low", "_high"):
            found[f"{line['stage']}_{line['rate']}{end}"] = float(line[f"value{end}"])
    for line in views.to_dict("records"):
        for name in (*science.AGREEMENT, "intraclass_correlation"):
            for end in ("", "_low", "_high"):
                found[f"{line['class']}_{name}{end}"] = float(line[f"{name}{end}"])
    for line in tests.to_dict("records"):
        name = f"{line['class']}_{line['property']}"
        found |= {f"{name}_correlation": float(line["correlation"]), f"{name}_p_holm": float(line["p_holm"])}
    return found


def _said(stages: pd.DataFrame, tests: pd.DataFrame) -> str:
    rates = ", ".join(f"{line['stage']} {read(line, 'value').text()}" for line in stages.to_dict("records"))
    odd = tests[tests["p_holm"] < 0.05]
    depends = ", ".join(f"{line['property']} ({line['class']}s)" for line in odd.to_dict("records")) or "none"
    return f"Predicted merger: {rates}. Scores depend on (Holm-corrected p < 0.05): {depends}."
