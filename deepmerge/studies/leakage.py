"""Measure what the published protocol leaks: the same recipe under random rows and under the galaxy split."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from deepmerge import config
from deepmerge.analysis import metrics
from deepmerge.analysis.sample import LEVEL
from deepmerge.cluster import Where
from deepmerge.data import copies, protocols, splits
from deepmerge.data.dataset import Dataset
from deepmerge.data.formats.arrays import open_array
from deepmerge.data.released import layout
from deepmerge.data.splits import Split
from deepmerge.errors import InputError
from deepmerge.estimate import UNDEFINED, Estimate, flat
from deepmerge.jobs.run import Results, warning
from deepmerge.jobs.trial import Order, train_all
from deepmerge.plots.forest import Line, forest
from deepmerge.studies import base
from deepmerge.studies.base import SHOWN, Caption, Findings, Study
from deepmerge.studies.baselines import forests

STUDY = Study(
    "leakage",
    "What the published protocol leaks",
    "deepmerge study leakage {}",
    captions={
        "leakage": Caption(
            "Claimed and true", "Each network asked about its own test images and about galaxies that nobody saw."
        ),
        "catalogue": Caption(
            "A Random Forest on three numbers",
            "The three tell one galaxy from others, not what is a merger: random rows let the forest know it again.",
        ),
    },
    tables={},
)
PROTOCOLS = {"rows": "random rows, as published", "galaxy": "split by galaxy"}
PLACES = {"claimed": "its own test images", "unseen": "galaxies never seen"}
FOREST_METRICS = ("balanced_accuracy", "auc")
CATALOGUE = ("log_mstar", "concentration", "m20")


def measure_leakage(
    experiment: config.Experiment,
    seeds: int,
    catalogue: Path | None,
    pdf: bool = False,
    out: Path | None = None,
    workers: Where = None,
) -> Results:
    """Train under both protocols and ask each network about its own test images and about galaxies never seen.

    Each seed sets other galaxies aside, splits the rest both ways, with equally many images, and trains both. With a
    catalogue of mass, concentration and M20 (of the data, or a folder of the authors' arrays), a Random Forest on these
    three numbers is judged under both protocols too.
    """
    data = base.opened(experiment)
    copies.require_apart(data, _without_leak(experiment, data, seeds))
    table = _catalogue(data, catalogue)
    note = warning(data)

    def measure(study: str) -> Findings:
        trainings = pd.DataFrame(list(_trainings(study, experiment, data, seeds, workers)))
        estimates = _summary(trainings)
        tables, figures = {"trainings": trainings}, {"leakage": _figure(trainings, estimates, note)}
        sentence = _sentence(estimates, seeds, experiment.training.epochs)
        if table is not None:
            draws = forests.leak(table[list(CATALOGUE)], table["label"].to_numpy(), table["galaxy_id"].to_numpy())
            of_forest = _catalogue_summary(draws, table)
            estimates |= of_forest
            tables["catalogue"] = draws
            figures["catalogue"] = _catalogue_figure(draws, of_forest, note if catalogue is None else None)
            sentence += _catalogue_sentence(of_forest)
        return Findings(sentence, {"seeds": seeds, "epochs": experiment.training.epochs, **estimates}, tables, figures)

    return base.conduct(STUDY, experiment, data, measure, note=note, pdf=pdf, out=out)


def _without_leak(experiment: config.Experiment, data: Dataset, seeds: int) -> Iterator[Split]:
    """The splits by galaxy of all seeds, and the same with the galaxies never seen for a test."""
    for seed in range(seeds):
        both = protocols.protocols(data, experiment.reseeded(seed).split)
        yield both.galaxy
        yield replace(both.galaxy, test=both.unseen)


def _trainings(
    study: str, experiment: config.Experiment, data: Dataset, seeds: int, workers: Where
) -> Iterator[dict[str, Any]]:
    """One line for each seed, protocol and place where its network was asked."""
    orders = []
    for seed in range(seeds):
        seeded = experiment.reseeded(seed)
        both = protocols.protocols(data, seeded.split)
        also = {"unseen": (data, seeded.data, both.unseen)}
        for protocol, split in (("rows", both.rows), ("galaxy", both.galaxy)):
            orders.append(Order(f"{protocol}, seed {seed}", seeded, data, split, {"protocol": protocol}, also))
    for number, trial in enumerate(train_all(study, f"Leakage on {data.name}", orders, workers)):
        order = orders[number]
        training = {**order.tags, "seed": number // len(PROTOCOLS), "trained_images": len(order.split.train)}
        training["shared_galaxies"] = splits.shared_galaxies(data, order.split)
        places = {"claimed": order.split.test, "unseen": order.also["unseen"][2]}
        for place, scored in zip(PLACES, trial.scores.values(), strict=True):
            part = places[place]
            labels, galaxies = data.labels[part.rows], data.galaxies[part.rows]
            measured = flat(metrics.evaluate(labels, scored, galaxies).metrics, "test")
            yield {**training, "judged_on": place, "images": len(part), **measured}


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


def _by_seed(trainings: pd.DataFrame, metric: str) -> pd.DataFrame:
    """A metric by seed (rows), and by protocol and place (columns)."""
    return trainings.pivot(index="seed", columns=["protocol", "judged_on"], values=f"test_{metric}")


def _summary(trainings: pd.DataFrame) -> dict[str, Estimate | float]:
    """Means over the seeds, with their intervals: what each protocol claims, what is true, and the difference.

    The seeds split the same galaxies anew, so that they overlap.
    """
    estimates: dict[str, Estimate | float] = {}
    unseen_images = trainings.loc[trainings["judged_on"] == "unseen", "images"].mean()
    overlap = unseen_images / trainings["trained_images"].mean()
    for metric in SHOWN:
        scores = _by_seed(trainings, metric)
        for protocol in PROTOCOLS:
            claimed, unseen = (scores[protocol, place] for place in PLACES)
            estimates |= {
                f"{protocol}_claimed_{metric}": base.mean_with_interval(claimed, overlap=overlap),
                f"{protocol}_unseen_{metric}": base.mean_with_interval(unseen, overlap=overlap),
                f"{protocol}_excess_{metric}": base.mean_with_interval(claimed - unseen, base.DIFFERENCE, overlap),
            }
        over = scores["rows", "claimed"] - scores["galaxy", "claimed"]
        estimates[f"rows_over_galaxy_{metric}"] = base.mean_with_interval(over, base.DIFFERENCE, overlap)
    shared = trainings.groupby("protocol")["shared_galaxies"].mean()
    return {**estimates, **{f"{protocol}_shared_galaxies": float(shared[protocol]) for protocol in PROTOCOLS}}


def _figure(trainings: pd.DataFrame, estimates: Mapping[str, Any], note: str | None) -> Figure:
    scores = {metric: _by_seed(trainings, metric) for metric in SHOWN}
    lines = []
    for group, protocol in enumerate(PROTOCOLS):
        claimed, unseen = (scores["auc"][protocol, place] for place in PLACES)
        # What is claimed too much belongs to the claim.
        excess = {
            "claimed": (estimates[f"{protocol}_excess_auc"], (claimed - unseen).tolist()),
            "unseen": (UNDEFINED, []),
        }
        for place, (too_much, single) in excess.items():
            values = [estimates[f"{protocol}_{place}_{metric}"] for metric in SHOWN]
            faint = [scores[metric][protocol, place].tolist() for metric in SHOWN]
            lines.append(Line(PLACES[place], [*values, too_much], 1 - group, [*faint, single]))
    return forest(
        lines,
        [*SHOWN.values(), "AUC claimed too much"],
        references=[None, None, 0.0],
        groups=[PROTOCOLS["galaxy"], PROTOCOLS["rows"]],
        title="What a protocol claims, and what is true; mean of the seeds and its 95 % interval",
        note=note,
    )


def _catalogue_summary(draws: pd.DataFrame, table: pd.DataFrame) -> dict[str, Any]:
    """Means over the repeated splits, with the range that holds 95 % of them."""
    summary: dict[str, Any] = {"catalogue_rows": len(table), "catalogue_galaxies": table["galaxy_id"].nunique()}
    for protocol, lines in draws.groupby("protocol"):
        for metric in FOREST_METRICS:
            values = lines[metric].to_numpy()
            ends = map(float, np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
            summary[f"forest_{protocol}_{metric}"] = Estimate(float(values.mean()), *ends)
        summary[f"forest_{protocol}_shared_galaxies"] = float(lines["shared_galaxies"].mean())
    return summary


def _catalogue_figure(draws: pd.DataFrame, summary: Mapping[str, Any], note: str | None) -> Figure:
    lines = []
    for group, (protocol, words) in enumerate(PROTOCOLS.items()):
        shared = 100 * summary[f"forest_{protocol}_shared_galaxies"]
        name = f"{words} ({shared:.0f} % of the test rows have their galaxy in training)"
        estimates = [summary[f"forest_{protocol}_{metric}"] for metric in FOREST_METRICS]
        single = draws.loc[draws["protocol"] == protocol, list(FOREST_METRICS)].to_numpy().T.tolist()
        lines.append(Line(name, estimates, 1 - group, single))
    title = "A Random Forest on mass, concentration and M20: repeated splits"
    labels = [SHOWN[metric] for metric in FOREST_METRICS]
    return forest(lines, labels, references=[0.5, 0.5], title=title, note=note)


def _sentence(estimates: Mapping[str, Any], seeds: int, epochs: int) -> str:
    rows, galaxy, over = (
        estimates[f"{name}_balanced_accuracy"].text() for name in ("rows_excess", "galaxy_excess", "rows_over_galaxy")
    )
    return (
        f"Random rows claim a balanced accuracy **{rows}** above the truth, which is that of the same networks on "
        f"galaxies never seen: {100 * estimates['rows_shared_galaxies']:.0f} % of their test images have their galaxy "
        f"in training. The split by galaxy claims {galaxy} too much. Between the two claims lie {over}. "
        f"{seeds} seeds, paired, {epochs} epochs."
    )


def _catalogue_sentence(summary: Mapping[str, Any]) -> str:
    rows, galaxy = (summary[f"forest_{name}_auc"].text() for name in PROTOCOLS)
    return (
        f" A Random Forest on mass, concentration and M20 of {summary['catalogue_rows']:,} catalogue rows has an "
        f"AUC of {rows} on random rows and {galaxy} by galaxy (mean and range of repeated splits)."
    )
