"""Judge the models of two or more variants side by side, each also on the images of the others."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from deepmerge.analysis import metrics, saliency
from deepmerge.data.batches import gather
from deepmerge.errors import InputError
from deepmerge.jobs import saliency_figures
from deepmerge.jobs.compare import figures
from deepmerge.jobs.evaluate import roc_curve
from deepmerge.jobs.judged import SALIENCY_METHOD, Judged, reload
from deepmerge.jobs.run import Results, warning, write_json, write_table
from deepmerge.plots import canvas
from deepmerge.tracking import runs

MOST = saliency_figures.MOST_VARIANTS  # data sets that the figures can hold
GALAXIES = 6  # rows of the saliency figure

Pairs = Mapping[tuple[int, int], metrics.Evaluation]  # (model, data set that it is judged on)


def compare(datasets: Sequence[str], models: Sequence[str], out: Path) -> Results:
    """Compare one model of each data set; tables and figures go to `out` and to an MLflow run tagged kind=comparison.

    Where the data sets show the same galaxies, split alike, each model is also judged on the test images of the other
    variants, whose galaxies it has not seen either, and saliency maps of the same galaxies stand side by side.
    """
    if not 2 <= len(datasets) == len(models) <= MOST:
        raise InputError(
            f"compare should get 2 to {MOST} data sets and as many models, "
            f"got data sets {', '.join(datasets) or 'none'} and models {', '.join(models) or 'none'}"
        )
    judged = [reload(*pair) for pair in zip(datasets, models, strict=True)]
    tables = [one.split.test.described(one.data) for one in judged]
    names = _unique_names(judged)
    said = ". ".join(dict.fromkeys(filter(None, (warning(one.data, one.split) for one in judged)))) or None

    scores = {
        (i, j): judged[i].on(judged[j]).scores("test")
        for i in range(len(judged))
        for j in range(len(judged))
        if i == j or _comparable(judged[i], judged[j])
    }
    found = {
        (i, j): metrics.evaluate(tables[j]["label"].to_numpy(), score, tables[j]["galaxy_id"].to_numpy())
        for (i, j), score in scores.items()
    }
    drawn = {
        "comparison": figures.comparison(
            [
                figures.Entry(roc_curve(found[i, i], name), found[i, i].metrics, scores[i, i], tables[i]["label"])
                for i, name in enumerate(names)
            ],
            note=said,
        ),
        "cross": figures.cross_matrix({pair: each.metrics["auc"] for pair, each in found.items()}, names, note=said),
        "gradcam": _saliency_figure(
            judged, names, tables[0], [scores[i, i] for i in range(len(names))], len(found) == len(names) ** 2, said
        ),
    }
    cross = {f"{names[i]}_on_{names[j]}_auc": found[i, j].metrics["auc"].value for i, j in found}
    tags = {"kind": "comparison", "compared": " ".join(one.run.info.run_id for one in judged)}
    with runs.new_run("comparison-" + "-".join(names), tags):
        runs.log_metrics(cross)
        with runs.artifact_folder("comparison") as folder:
            for place in (folder, out):
                write_table(_long_table(found, names), place / "metrics.csv")
                write_json(cross, place / "cross.json")
                for name, figure in drawn.items():
                    canvas.save(figure, place / name)
        return {"run_id": runs.active_id(), **cross}


def _unique_names(judged: Sequence[Judged]) -> list[str]:
    """The data sets' names, with the beginning of the run id where two models are of the same one."""
    names = [one.data.name for one in judged]
    return [
        f"{name}-{one.run.info.run_id[:6]}" if names.count(name) > 1 else name
        for name, one in zip(names, judged, strict=True)
    ]


def _comparable(model: Judged, other: Judged) -> bool:
    """Whether `model` can be judged on the test images of `other` without having trained on their galaxies."""
    return (
        model.data.images.shape == other.data.images.shape
        and model.split.fingerprint == other.split.fingerprint
        and bool((model.data.catalogue["galaxy_id"] == other.data.catalogue["galaxy_id"]).all())
    )


def _long_table(found: Pairs, names: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"trained_on": names[i], "judged_on": names[j], "metric": metric, **estimate._asdict()}
            for (i, j), evaluation in found.items()
            for metric, estimate in evaluation.metrics.items()
        ]
    )


def _saliency_figure(
    judged: Sequence[Judged],
    names: Sequence[str],
    table: pd.DataFrame,
    scores: Sequence[np.ndarray],
    comparable: bool,
    said: str | None,
) -> Figure:
    """Merger maps of the same test mergers, from the one that all models are surest of to the one they miss.

    A page that says so where the models were not tested on the same galaxies.
    """
    title = f"Saliency maps compared ({saliency.METHODS[SALIENCY_METHOD]})"
    if not comparable:
        nothing = np.empty((0, 1, 1, 1))
        return saliency_figures.comparison(
            [nothing] * len(names),
            [nothing[..., 0]] * len(names),
            [],
            names,
            title=f"{title}: tested on different galaxies",
            note=said,
        )
    mean = np.mean(scores, axis=0)
    mergers = table[table["label"] == 1].assign(score=mean[table["label"] == 1])
    mergers = mergers.drop_duplicates("galaxy_id").sort_values("score", ascending=False)
    chosen = mergers.index[np.linspace(0, len(mergers) - 1, min(GALAXIES, len(mergers))).round().astype(int)].to_numpy()
    rows, transforms = table["row"].to_numpy()[chosen], table["transform"].to_numpy()[chosen]
    images = [gather(one.data.images, rows, transforms) for one in judged]
    masks = judged[0].data.masks
    captions = [
        f"galaxy {table['galaxy_id'][line]} ({table['stage'][line]})\nP(merger):\n"
        + "\n".join(f"{score[line]:.2f} {name}" for score, name in zip(scores, names, strict=True))
        for line in chosen
    ]
    return saliency_figures.comparison(
        images,
        [
            saliency.maps(one.model, stack, method=SALIENCY_METHOD)[:, 0]
            for one, stack in zip(judged, images, strict=True)
        ],
        captions,
        names,
        masks=None if masks is None else gather(masks[:, np.newaxis], rows, transforms)[..., 0],
        filters=judged[0].data.filters,
        title=title,
        note=said,
    )
