"""How good a model is on part of a data set, as a notebook shows it; where it looked, and for what."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from deepmerge.analysis import counterfactual as changes
from deepmerge.analysis import metrics, stages
from deepmerge.analysis import saliency as maps
from deepmerge.data.dataset import Dataset
from deepmerge.data.demo import Ingredient
from deepmerge.data.demo.simulate import INGREDIENTS
from deepmerge.data.splits import Part
from deepmerge.errors import InputError
from deepmerge.estimate import METRICS, Estimate, flat
from deepmerge.jobs.evaluate import measured, stages_of
from deepmerge.jobs.judged import saliency_method
from deepmerge.jobs.run import warning
from deepmerge.model import prediction
from deepmerge.notebook import track
from deepmerge.notebook.data import simulate
from deepmerge.notebook.model import Model


@dataclass(frozen=True, eq=False)
class Result:
    """Metrics of a model on some images, with 95 % intervals over galaxies: ``result["auc"]`` is an `Estimate`.

    Attributes
    ----------
    evaluation
        All metrics, with the curves that the figures show.
    predictions
        One row an image: row, transform, galaxy_id, view, stage, label, probability.
    name
        Of the data set.
    note
        What nobody may overlook, for example that the data are simulated; or None.
    """

    evaluation: metrics.Evaluation
    predictions: pd.DataFrame
    name: str
    note: str | None

    @cached_property
    def metrics(self) -> Mapping[str, Estimate]:
        """All metrics by name; those of stages, too, of a network that tells them."""
        told = stages_of(self.predictions)
        return self.evaluation.metrics | ({} if told is None else told.metrics)

    def __getitem__(self, metric: str) -> Estimate:
        if metric not in self.metrics:
            raise InputError(f"metric should be one of {', '.join(self.metrics)}, got {metric!r}")
        return self.metrics[metric]

    def __iter__(self) -> Iterator[str]:
        return iter(self.metrics)

    def table(self) -> pd.DataFrame:
        """One line a metric: value, low and high end of its interval."""
        lines = self._labelled()
        return pd.DataFrame(lines.values(), index=pd.Index(lines, name="metric"), columns=Estimate._fields)

    def _labelled(self) -> dict[str, Estimate]:
        labels = {name: metric.label for name, metric in METRICS.items()} | stages.METRICS
        return {labels[name]: each for name, each in self.metrics.items() if name in labels}

    def _texts(self) -> pd.DataFrame:
        counted = f"{len(self.predictions)} images, {self.predictions['galaxy_id'].nunique()} galaxies"
        texts = {label: estimate.text() for label, estimate in self._labelled().items()}
        return pd.DataFrame({f"{self.name}: {counted}": texts})

    def __repr__(self) -> str:
        return "\n".join(filter(None, [self._texts().to_string(), self.note]))

    def _repr_html_(self) -> str:
        note = f"<p>{self.note}</p>" if self.note else ""
        return f"{self._texts().to_html()}{note}"


def evaluate(model: Model, data: Dataset, part: Part) -> Result:
    """Measure a model on part of a data set (``split.test``), with 95 % intervals over galaxies.

    Inside `track` metrics, predictions and figures are logged.

    Parameters
    ----------
    model
        What `train` or `load_model` gave.
    data
        Images of the shape and units that the model was trained on.
    part
        Which of them, ``split.test`` for example.

    Raises
    ------
    InputError
        For images of another shape.

    Examples
    --------
    >>> dm.evaluate(model, data, split.test)["auc"]
    """
    table = table_of(model, data, part)
    result = Result(measured(table), table, data.name, warning(data))
    track.evaluation(result.evaluation, result.predictions, result.name, result.note)
    return result


def table_of(model: Model, data: Dataset, part: Part) -> pd.DataFrame:
    """One line an image: row, transform, galaxy_id, view, stage, label, probability, and those of stages if any."""
    return part.described(data).assign(**prediction.columns(model.outputs(data, part)))


def saliency(
    model: Model,
    images: Dataset | np.ndarray,
    part: Part | None = None,
    *,
    method: str | None = None,
    layer: str | int | None = None,
) -> np.ndarray:
    """Maps of what speaks for a merger, and against one, in each image: (n, 2, H, W) ≥ 0, in logits.

    Parameters
    ----------
    model
        What `train` or `load_model` gave; its network may be any Keras model that ends in one sigmoid unit.
    images
        An array (n, F, H, W) as for `Model.predict`, or a data set.
    part
        Of a data set, which images; all of them by default.
    method
        "gradcam" as in the paper, "guided" as in its notebooks, "gradcam++", "hirescam", "layercam", of a layer;
        "smoothgrad" (the default), "integrated", "occlusion", of the pixels. `deepmerge.analysis.saliency` cites their
        papers.
    layer
        A layer by name, or a convolution by its number, for "hirescam" where no method is named; the last convolution
        by default.

    Raises
    ------
    InputError
        For other methods and layers, and images of another shape or with pixels that are not finite.

    Examples
    --------
    >>> maps = dm.saliency(model, data, split.test[:6])[:, 0]
    >>> maps = dm.saliency(model, images, method="integrated")
    """
    stack = images.images if isinstance(images, Dataset) else np.asanyarray(images)
    prediction.require_shape(model.network, stack)
    rows = np.arange(len(stack)) if part is None else part.rows
    transforms = np.zeros(len(stack), np.uint8) if part is None else part.transforms
    pixels = prediction.batches(stack, rows, transforms)
    return maps.maps(model.network, pixels, layer=layer, method=saliency_method(method, layer))


def counterfactual(
    model: Model, galaxies: int = 240, *, seed: int, variant: str = "pristine", merger_fraction: float = 0.5
) -> pd.DataFrame:
    """What a model looks for in mock mergers: its scores for the same galaxies without ingredients of the encounters.

    The galaxies are drawn again with the same random numbers, six times, which takes about 40 s for 240 of them. The
    table has a line for what was left out: nothing, each ingredient, and everything. Its columns, each with the ends of
    its 95 % interval over galaxies: auc and completeness; what each changed by; and logit_change, the mean change of
    the logit of mergers. A model that needs an ingredient loses by its absence. Without everything no stage differs
    from another, and the AUC is that of guessing.

    Parameters
    ----------
    model
        What `train` or `load_model` gave, trained on mock galaxies.
    galaxies, variant, merger_fraction
        As for `simulate`. Half of the galaxies are mergers by default, of which this tells most.
    seed
        Another one than that of the galaxies which the model was trained on.

    Raises
    ------
    InputError
        For images of another shape, and as `simulate`.

    Examples
    --------
    >>> dm.counterfactual(model, seed=4)
    """
    left_out: list[tuple[str, Sequence[Ingredient]]] = [(name, (name,)) for name in INGREDIENTS]
    lines, whole = [], np.empty(0)
    for name, without in [("nothing", ()), *left_out, ("everything", INGREDIENTS)]:
        data = simulate(galaxies, variant=variant, merger_fraction=merger_fraction, seed=seed, without=without)
        scores = model.predict(data.images)
        whole = scores if name == "nothing" else whole
        effect = changes.effect(data.labels, whole, scores, data.catalogue["galaxy_id"].to_numpy())
        lines.append({"without": name, **flat(effect)})
    return pd.DataFrame(lines).set_index("without")
