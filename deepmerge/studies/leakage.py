"""Measure what the published protocol leaks: the same recipe under random rows and under the galaxy split."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from deepmerge import config
from deepmerge.analysis import metrics
from deepmerge.data import copies, protocols, splits
from deepmerge.data.dataset import Dataset, open_array
from deepmerge.data.released import layout
from deepmerge.data.splits import Split
from deepmerge.errors import InputError
from deepmerge.estimate import Estimate, flat, read
from deepmerge.jobs.run import SIMULATED, Results, log_figures, open_run
from deepmerge.plots.forest import Line, forest
from deepmerge.progress import progress_bar
from deepmerge.studies import base
from deepmerge.studies.baselines import forests
from deepmerge.tracking import runs

KIND = "leakage"
PROTOCOLS = {"rows": "random rows, as published", "galaxy": "split by galaxy"}
PLACES = {"claimed": "its own test images", "unseen": "galaxies never seen"}
METRICS = {"auc": "AUC", "balanced_accuracy": "Balanced accuracy"}
FOREST_METRICS = {"balanced_accuracy": "Balanced accuracy", "auc": "AUC"}
CATALOGUE = ("log_mstar", "concentration", "m20")


def measure_leakage(
    experiment: config.Experiment, seeds: int, catalogue: Path | None, pdf: bool = False, out: Path | None = None
) -> Results:
    """Train under both protocols and ask each network about its own test images and about galaxies never seen.

    Each seed sets other galaxies aside, splits the rest in both ways, with equally many images, and trains both. Where
    there is a catalogue of mass, concentration and M20 (the release's, also as a folder of the authors' arrays), a
    Random Forest on these three numbers is judged under both protocols too.
    """
    data = base.opened(experiment)
    copies.require_apart(data, _honest(experiment, data, seeds))
    table = _catalogue(data, catalogue)
    with open_run(KIND, experiment, data) as study:
        made = pd.DataFrame(list(_trainings(study, experiment, data, seeds)))
        results: Results = {"run_id": study, "seeds": seeds, "epochs": experiment.training.epochs, **_summary(made)}
        tables = {"trainings": made}
        drawn = {"leakage": _figure(made, results, SIMULATED if data.data_source == "simulated" else None)}
        if table is not None:
            forest_on = forests.leak(table[list(CATALOGUE)], table["label"].to_numpy(), table["galaxy_id"].to_numpy())
            results |= _catalogue_summary(forest_on, table)
            tables["catalogue"] = forest_on
            drawn["catalogue"] = _catalogue_figure(forest_on, results)
        runs.describe(_said(results))
        log_figures(drawn, pdf)
        base.finish(results, tables, out)
        return results


def _honest(experiment: config.Experiment, data: Dataset, seeds: int) -> Iterator[Split]:
    """The splits by galaxy of all seeds, and the same with the galaxies never seen for a test."""
    for seed in range(seeds):
        both = protocols.protocols(data, experiment.reseeded(seed).split)
        yield both.galaxy
        yield replace(both.galaxy, test=both.unseen)


def _trainings(study: str, experiment: config.Experiment, data: Dataset, seeds: int) -> Iterator[dict[str, Any]]:
    """One line for each seed, protocol and place where its network was asked."""
    with progress_bar(f"Leakage on {data.name}", 2 * seeds * experiment.training.epochs) as advance:
        for seed in range(seeds):
            seeded = experiment.reseeded(seed)
            both = protocols.protocols(data, seeded.split)
            for protocol, split in (("rows", both.rows), ("galaxy", both.galaxy)):
                name = f"{protocol}, seed {seed}"
                trial = base.run(study, name, data, split, seeded, advance, tags={"protocol": protocol})
                unseen = trial.judged.scores(both.unseen)
                known = {"protocol": protocol, "seed": seed, "shared_galaxies": splits.shared_galaxies(data, split)}
                for place, part, scored in (
                    ("claimed", split.test, trial.probability),
                    ("unseen", both.unseen, unseen),
                ):
                    labels, galaxies = data.labels[part.rows], data.galaxies[part.rows]
                    found = flat(metrics.evaluate(labels, scored, galaxies).metrics, "test")
                    yield {**known, "judged_on": place, "images": len(part), **found}


def _catalogue(data: Dataset, folder: Path | None) -> pd.DataFrame | None:
    """Rows with mass, concentration and M20, their galaxy and label; None where nobody measured these."""
    if folder is None:
        table = data.catalogue.assign(label=data.labels)
        if not set(CATALOGUE) <= set(table):
            return None
    else:
        files = {name: folder / file for name, file in layout.CATALOGUE_FILES.items()}
        missing = [str(file) for file in files.values() if not file.is_file()]
        if missing:
            raise InputError(
                f"--catalogue-arrays should be a folder with the authors' {', '.join(layout.CATALOGUE_FILES.values())}"
                f", got one without {', '.join(missing)}"
            )
        table = layout.catalogue_from_arrays(**{name: np.asarray(open_array(f, name)) for name, f in files.items()})
        table = table.assign(label=(table["stage"] != "non-merger").astype(int))
    return table.dropna(subset=list(CATALOGUE)).reset_index(drop=True)


def _summary(made: pd.DataFrame) -> dict[str, float]:
    """Means over the seeds, with their intervals: what each protocol claims, what is true, and the difference."""
    found = {}
    for metric in METRICS:
        for protocol in PROTOCOLS:
            ours = made[made["protocol"] == protocol].set_index("seed")
            claimed, unseen = (ours.loc[ours["judged_on"] == place, f"test_{metric}"] for place in PLACES)
            for name, values, bounds in (
                ("claimed", claimed, base.SHARE),
                ("unseen", unseen, base.SHARE),
                ("excess", claimed - unseen, base.DIFFERENCE),
            ):
                found[f"{protocol}_{name}_{metric}"] = base.mean_with_interval(values.to_numpy(), bounds)
        own = made[made["judged_on"] == "claimed"].pivot(index="seed", columns="protocol", values=f"test_{metric}")
        over = (own["rows"] - own["galaxy"]).to_numpy()
        found[f"rows_over_galaxy_{metric}"] = base.mean_with_interval(over, base.DIFFERENCE)
    shared = made.groupby("protocol")["shared_galaxies"].mean()
    return {
        **{
            f"{name}{end}": number
            for name, e in found.items()
            for end, number in zip(("", "_low", "_high"), e, strict=True)
        },
        **{f"{protocol}_shared_galaxies": float(shared[protocol]) for protocol in PROTOCOLS},
    }


def _figure(made: pd.DataFrame, results: Results, said: str | None) -> Figure:
    lines = []
    for group, protocol in enumerate(PROTOCOLS):
        ours = made[made["protocol"] == protocol].set_index("seed")
        claimed, unseen = (ours[ours["judged_on"] == place] for place in PLACES)
        excess = claimed["test_auc"] - unseen["test_auc"]
        for place, found in (("claimed", claimed), ("unseen", unseen)):
            # What is claimed too much belongs to the claim.
            ends = read(results if place == "claimed" else {}, f"{protocol}_excess_auc")
            values = [read(results, f"{protocol}_{place}_{metric}") for metric in METRICS]
            single = [found[f"test_{metric}"].tolist() for metric in METRICS]
            faint = [*single, excess.tolist() if place == "claimed" else []]
            lines.append(Line(PLACES[place], [*values, ends], 1 - group, faint))
    return forest(
        lines,
        [*METRICS.values(), "AUC claimed too much"],
        references=[None, None, 0.0],
        groups=[PROTOCOLS["galaxy"], PROTOCOLS["rows"]],
        title="What a protocol claims, and what is true; mean of the seeds and its 95 % interval",
        note=said,
    )


def _catalogue_summary(found: pd.DataFrame, table: pd.DataFrame) -> dict[str, float]:
    """Means over the repeated splits, with the range that holds 95 % of them."""
    summary: dict[str, float] = {
        "catalogue_rows": len(table),
        "catalogue_galaxies": table["galaxy_id"].nunique(),
    }
    for protocol, lines in found.groupby("protocol"):
        for metric in FOREST_METRICS:
            values = lines[metric].to_numpy()
            spread = Estimate(float(values.mean()), *map(float, np.quantile(values, metrics.INTERVAL)))
            summary |= flat({metric: spread}, f"forest_{protocol}")
        summary[f"forest_{protocol}_shared_galaxies"] = float(lines["shared_galaxies"].mean())
    return summary


def _catalogue_figure(found: pd.DataFrame, results: Results) -> Figure:
    lines = [
        Line(
            f"{words} ({100 * results[f'forest_{protocol}_shared_galaxies']:.0f} % of the test rows have their galaxy "
            "in training)",
            [read(results, f"forest_{protocol}_{metric}") for metric in FOREST_METRICS],
            1 - group,
            [found.loc[found["protocol"] == protocol, metric].tolist() for metric in FOREST_METRICS],
        )
        for group, (protocol, words) in enumerate(PROTOCOLS.items())
    ]
    return forest(
        lines,
        list(FOREST_METRICS.values()),
        references=[0.5, 0.5],
        title="A Random Forest on mass, concentration and M20: repeated splits",
    )


def _said(results: Results) -> str:
    excess = {name: read(results, f"{name}_excess_balanced_accuracy").text() for name in PROTOCOLS}
    over = read(results, "rows_over_galaxy_balanced_accuracy").text()
    text = (
        f"With random rows, {100 * results['rows_shared_galaxies']:.0f} % of the test images have their galaxy in "
        f"training. They claim a balanced accuracy **{over}** above that of the split by galaxy of the same size, and "
        f"{excess['rows']} above that of the same networks on galaxies never seen; the split by galaxy claims "
        f"{excess['galaxy']} too much. {results['seeds']} seeds, {results['epochs']} epochs."
    )
    if "forest_rows_auc" in results:
        rows, galaxy = (read(results, f"forest_{name}_auc").text() for name in PROTOCOLS)
        text += (
            f" A Random Forest on mass, concentration and M20 of {results['catalogue_rows']:,} catalogue rows has an "
            f"AUC of {rows} on random rows and {galaxy} by galaxy (mean and range of repeated splits)."
        )
    return text
