"""Judge the models of two or more variants side by side, each also on the images of the others."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from deepmerge.analysis import intervals, metrics, saliency
from deepmerge.cluster import Where
from deepmerge.data.batches import gather
from deepmerge.errors import InputError
from deepmerge.estimate import UNDEFINED, read
from deepmerge.jobs import saliency_figures
from deepmerge.jobs.compare import figures
from deepmerge.jobs.evaluate import measured, roc_curve
from deepmerge.jobs.judged import SALIENCY_METHOD, Judged, reload
from deepmerge.jobs.run import Results, warning, write_json, write_table
from deepmerge.jobs.trial import again, train_all
from deepmerge.plots import canvas
from deepmerge.tracking import runs

MOST = saliency_figures.MOST_VARIANTS  # data sets that the figures can hold
PER_OUTCOME = 2  # galaxies of each outcome in the saliency figure
TITLE = f"Saliency maps compared ({saliency.METHODS[SALIENCY_METHOD].title})"


def compare(
    datasets: Sequence[str], models: Sequence[str], out: Path, seeds: int = 1, workers: Where = None
) -> Results:
    """Compare one model of each data set; tables and figures go to `out` and to an MLflow run tagged kind=comparison.

    Where the data sets show the same galaxies, split alike, each model is also judged on the test images of the other
    variants, whose galaxies it has not seen either, and saliency maps of the same galaxies stand side by side. With
    `seeds` above 1 the recipes are compared: each is trained again until it has so many, and where the galaxies are the
    same, the differences of the means are in ``differences.csv``, with intervals over galaxies and seeds.
    """
    if not 2 <= len(datasets) == len(models) <= MOST:
        raise InputError(
            f"compare should get 2 to {MOST} data sets and as many models, "
            f"got data sets {', '.join(datasets) or 'none'} and models {', '.join(models) or 'none'}"
        )
    judged = [reload(*pair) for pair in zip(datasets, models, strict=True)]
    tables = [each.split.test.described(each.data) for each in judged]
    names = _unique_names(judged)
    note = ". ".join(dict.fromkeys(filter(None, (warning(each.data, each.split) for each in judged)))) or None

    scores = {
        (i, j): model.on(other).scores("test")
        for i, model in enumerate(judged)
        for j, other in enumerate(judged)
        if i == j or _comparable(model, other)
    }
    evaluations = {pair: measured(tables[pair[1]].assign(probability=score)) for pair, score in scores.items()}
    aucs = {pair: evaluation.metrics["auc"] for pair, evaluation in evaluations.items()}
    own = [evaluations[i, i] for i in range(len(judged))]
    entries = [
        figures.Entry(roc_curve(evaluation, name), evaluation.metrics, scores[i, i], tables[i]["label"])
        for i, (evaluation, name) in enumerate(zip(own, names, strict=True))
    ]
    if len(scores) == len(names) ** 2:
        maps = _saliency_figure(judged, names, tables[0], [scores[i, i] for i in range(len(names))], note)
    else:
        maps = saliency_figures.comparison(
            [np.empty((0, 1, 1, 1))] * len(names),
            [np.empty((0, 1, 1))] * len(names),
            [],
            names,
            title=f"{TITLE}: tested on different galaxies",
            note=note,
        )
    drawn = {
        "comparison": figures.comparison(entries, note=note),
        "cross": figures.cross_matrix(aucs, names, note=note),
        "gradcam": maps,
    }
    cross = {f"{names[i]}_on_{names[j]}_auc": auc.value for (i, j), auc in aucs.items()}
    table = pd.DataFrame(
        [
            {"trained_on": names[i], "judged_on": names[j], "metric": metric, **estimate._asdict()}
            for (i, j), evaluation in evaluations.items()
            for metric, estimate in evaluation.metrics.items()
        ]
    )
    tags = {"kind": "comparison", "compared": " ".join(each.run.info.run_id for each in judged)}
    with runs.new_run("comparison-" + "-".join(names), tags) as run_id:
        differences = pd.DataFrame()
        if seeds > 1:
            differences = _differences(_scored(run_id, judged, seeds, workers), judged, names)
            for line in differences.to_dict("records"):
                cross |= read(line, "difference").flat(f"{line['recipe']}_minus_{line['minus']}_{line['metric']}")
        runs.log_metrics(cross)
        with runs.artifact_folder("comparison") as folder:
            for place in (folder, out):
                write_table(table, place / "metrics.csv")
                if len(differences):
                    write_table(differences, place / "differences.csv")
                write_json(cross, place / "cross.json")
                for name, figure in drawn.items():
                    canvas.save(figure, place / name)
        return {"run_id": runs.active_id(), **cross}


def _scored(run_id: str, judged: Sequence[Judged], seeds: int, workers: Where) -> list[np.ndarray]:
    """Scores of the test images of each model, (seeds, n), by the model and its recipe with other seeds."""
    orders = [order for each in judged for order in again(each, seeds)]
    trials = train_all(run_id, f"{seeds} seeds of {len(judged)} recipes", orders, workers)
    scores = []
    for number, each in enumerate(judged):
        others = trials[number * (seeds - 1) : (number + 1) * (seeds - 1)]
        scores.append(np.stack([each.scores("test"), *(trial.probability for trial in others)]))
    return scores


def _differences(scored: Sequence[np.ndarray], judged: Sequence[Judged], names: Sequence[str]) -> pd.DataFrame:
    """One line a metric and pair of recipes tested on the same galaxies, with Holm's p for all pairs in AUC."""
    lines = []
    for i, j in combinations(range(len(judged)), 2):
        if not _comparable(judged[i], judged[j]):
            continue
        rows = judged[i].split.test.rows
        labels, galaxies = judged[i].data.labels[rows], judged[i].data.galaxies[rows]
        p = metrics.p_value(labels, scored[i], scored[j], galaxies)
        for metric, estimate in metrics.difference(labels, scored[i], scored[j], galaxies).items():
            pair = {"recipe": names[i], "minus": names[j], "metric": metric}
            lines.append({**pair, **estimate.flat("difference"), "p": p if metric == "auc" else np.nan})
    table = pd.DataFrame(lines, columns=["recipe", "minus", "metric", *UNDEFINED.flat("difference"), "p"])
    return table.assign(p=intervals.holm(table["p"].to_numpy(float)))


def _unique_names(judged: Sequence[Judged]) -> list[str]:
    """The data sets' names, with the beginning of the run id where two models are of the same one."""
    names = [each.data.name for each in judged]
    return [
        f"{name}-{each.run.info.run_id[:6]}" if names.count(name) > 1 else name
        for name, each in zip(names, judged, strict=True)
    ]


def _comparable(model: Judged, other: Judged) -> bool:
    """Whether `model` can be judged on the test images of `other` without having trained on their galaxies."""
    return (
        model.data.images.shape == other.data.images.shape
        and model.split.fingerprint == other.split.fingerprint
        and bool((model.data.catalogue["galaxy_id"] == other.data.catalogue["galaxy_id"]).all())
    )


def _saliency_figure(
    judged: Sequence[Judged], names: Sequence[str], table: pd.DataFrame, scores: Sequence[np.ndarray], note: str | None
) -> Figure:
    """Merger maps of the same test galaxies: of each outcome, by the mean score of all models, the surest ones."""
    score = np.mean(scores, axis=0)
    panels = saliency.panel_rows(
        table["label"].to_numpy(), score, per_kind=PER_OUTCOME, galaxies=table["galaxy_id"].to_numpy()
    )
    lines = np.concatenate([panel.confident for panel in panels.values()])
    kinds = [kind for kind, panel in panels.items() for _ in panel.confident]
    chosen = table.iloc[lines]
    rows, transforms = chosen["row"].to_numpy(), chosen["transform"].to_numpy()
    images = [gather(each.data.images, rows, transforms) for each in judged]
    captions = [
        f"galaxy {galaxy} ({stage})\nP(merger):\n"
        + "\n".join(f"{score[line]:.2f} {name}" for score, name in zip(scores, names, strict=True))
        for line, galaxy, stage in zip(lines, chosen["galaxy_id"], chosen["stage"], strict=True)
    ]
    maps = [
        saliency.maps(each.model, stack, method=SALIENCY_METHOD)[:, 0]
        for each, stack in zip(judged, images, strict=True)
    ]
    return saliency_figures.comparison(
        images,
        [saliency.displayed(each, SALIENCY_METHOD) for each in maps],
        captions,
        names,
        masks=judged[0].masks(rows, transforms),
        filters=judged[0].data.filters,
        groups=[saliency_figures.KINDS[kind].capitalize() for kind in kinds],
        title=TITLE,
        note=note,
    )
