"""Figures for a notebook: the last line of a cell shows one, `save` writes it.

Each takes what the other functions return, and gives a `matplotlib.figure.Figure`.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from deepmerge.analysis.saliency import METHODS, displayed
from deepmerge.data.batches import gather
from deepmerge.data.dataset import Dataset
from deepmerge.data.splits import Part
from deepmerge.errors import InputError
from deepmerge.jobs import evaluate, saliency_figures
from deepmerge.jobs.judged import saliency_method
from deepmerge.jobs.run import warning
from deepmerge.notebook.model import Model
from deepmerge.notebook.result import Result, table_of
from deepmerge.notebook.result import saliency as saliency_maps
from deepmerge.plots import history as history_figure
from deepmerge.plots import images
from deepmerge.plots.canvas import save
from deepmerge.plots.roc import roc as roc_figure

__all__ = ["confusion_matrix", "gallery", "history", "reliability", "roc", "saliency", "save", "scores", "stages"]


def roc(*results: Result, labels: Sequence[str] | None = None) -> Figure:
    """ROC curves of one or more results with their 95 % bands; `labels` names them where they are of one data set."""
    names = labels or [result.name for result in results]
    if not results or len(names) != len(results):
        raise InputError(f"labels should be {len(results) or 'one or more'}, one a result, got {len(names)}")
    curves = [evaluate.roc_curve(result.evaluation, name) for result, name in zip(results, names, strict=True)]
    return roc_figure(curves, note=results[0].note)


def reliability(result: Result) -> Figure:
    """Observed share of mergers against predicted probability."""
    return _drawn(result, "reliability")


def confusion_matrix(result: Result) -> Figure:
    """Images by true and predicted class, at a probability of 0.5."""
    return _drawn(result, "confusion_matrix")


def stages(result: Result) -> Figure:
    """Images by true and most probable stage. Raises InputError where the network does not tell stages."""
    told = evaluate.stages_of(result.predictions)
    if told is None:
        raise InputError('the result should be of a network that tells stages; train it with labels="stage"')
    return evaluate.stage_matrix(told, result.note)


def scores(result: Result) -> Figure:
    """How the predicted probabilities of each stage are spread."""
    return _drawn(result, "scores")


def _drawn(result: Result, name: str) -> Figure:
    return evaluate.drawn(result.evaluation, result.predictions, result.name, result.note)[name]


def history(model: Model) -> Figure:
    """Log loss, accuracy and learning rate of a training against epoch. Raises InputError where it is not known."""
    if not model.history:
        raise InputError("the model's history is not known, as it was loaded from a file; name its run instead")
    return history_figure.history(model.history, model.best_epoch)


def gallery(data: Dataset, part: Part) -> Figure:
    """The images of a part, ``split.train[:12]``, in all filters, grouped by stage."""
    table = part.described(data).sort_values("stage", kind="stable")
    shown = part[table.index.to_numpy()]
    return images.gallery(
        gather(data.images, shown.rows, shown.transforms),
        titles=[f"galaxy {galaxy}" for galaxy in table["galaxy_id"]],
        filters=data.filters,
        groups=table["stage"].tolist(),
        note=warning(data),
    )


def saliency(
    model: Model, data: Dataset, part: Part, *, method: str | None = None, layer: str | int | None = None
) -> Figure:
    """The images of a part, ``split.test[:6]``, each beside the map of what speaks for a merger.

    Where the data know the true features of mergers, these are outlined. method, layer: as for `deepmerge.saliency`.
    """
    table, used = table_of(model, data, part), saliency_method(method, layer)
    captions = [
        f"galaxy {line.galaxy_id}\n({line.stage})\nP(merger) = {line.probability:.2f}" for line in table.itertuples()
    ]
    masks = None
    if data.masks is not None:
        masks = gather(data.masks[:, np.newaxis], part.rows, part.transforms)[..., 0]
    return saliency_figures.comparison(
        [gather(data.images, part.rows, part.transforms)],
        [displayed(saliency_maps(model, data, part, method=used, layer=layer)[:, 0], used)],
        captions,
        [data.name],
        masks=masks,
        filters=data.filters,
        title=f"What speaks for a merger ({METHODS[used].title})",
        note=warning(data),
    )
