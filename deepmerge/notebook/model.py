"""A trained network for a notebook: made, used, saved, loaded."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np

from deepmerge import config
from deepmerge.data import copies, targets
from deepmerge.data.dataset import Dataset, require_finite
from deepmerge.data.splits import Part, Split
from deepmerge.errors import InputError
from deepmerge.files import replacing
from deepmerge.jobs import networks
from deepmerge.jobs.judged import trained_merger_fraction
from deepmerge.jobs.train import fit
from deepmerge.model import devices, prediction, training
from deepmerge.model.calling import Answer
from deepmerge.model.layers import faster
from deepmerge.notebook import track
from deepmerge.tracking import runs

Network = Callable[..., Answer]


@dataclass(frozen=True, eq=False)
class Model:
    """A trained network.

    Attributes
    ----------
    network
        The Keras model: raw pixels (n, H, W, F) in, merger probability (n, 1) out; with
        ``labels="stage"`` (n, 3), also those of past and future mergers, which add up to it.
    history
        For each measure its value in each epoch; empty for a network that was loaded from a file.
    best_epoch
        The epoch whose weights were kept, counted from 1, or None.
    merger_fraction
        The share of mergers at which the probabilities are calibrated, or None.
    """

    network: keras.Model
    history: Mapping[str, list[float]] = field(default_factory=dict)
    best_epoch: int | None = None
    merger_fraction: float | None = None

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Merger probability of images (n, F, H, W) in the units of the training images, (n,) in [0, 1].

        NaN where a pixel is no finite number. Raises InputError for another shape.
        """
        pixels = np.asanyarray(images)
        prediction.require_shape(self.network, pixels)
        return np.concatenate([np.empty(0), *prediction.predict_pieces(self._fast, [pixels])])

    def stages(self, images: np.ndarray) -> np.ndarray:
        """Probabilities of past mergers, future ones and non-mergers, (n, 3), of images as for `predict`.

        For a network trained with ``labels="stage"``; raises InputError for another one.
        """
        if self.network.output_shape[-1] != 3:
            raise InputError('the model should tell stages, got one that does not; train it with labels="stage"')
        pixels = np.asanyarray(images)
        prediction.require_shape(self.network, pixels)
        answers = np.concatenate([np.empty((0, 3)), *prediction.outputs_of_pieces(self._fast, [pixels])])
        return np.column_stack([answers[:, 1:], 1 - answers[:, 0]])

    def outputs(self, data: Dataset, part: Part) -> np.ndarray:
        """What the network says of the images of a part of a data set, (n, k): of a merger, and of stages if any."""
        prediction.require_shape(self.network, data.images)
        return prediction.outputs(self._fast, data.images, part.rows, part.transforms)

    def scores(self, data: Dataset, part: Part) -> np.ndarray:
        """Merger probability of the images of a part of a data set, (n,)."""
        return self.outputs(data, part)[:, 0]

    def save(self, path: str | Path) -> None:
        """Write the network to a ``.keras`` file, which needs no code of ours to be loaded."""
        target = Path(path)
        if target.suffix != ".keras":
            raise InputError(f"path should end in .keras, got {target}")
        with replacing(target) as aside:
            self.network.save(aside)

    @cached_property
    def _fast(self) -> keras.Model:
        return faster(self.network)

    def __repr__(self) -> str:
        epoch = "" if self.best_epoch is None else f", epoch {self.best_epoch} kept"
        return f"Model({self.network.name}, {self.network.count_params():,} parameters{epoch})"


def train(data: Dataset, split: Split, *, network: Network | None = None, **settings: Any) -> Model:
    """Train a network on the training part of a split; the validation part decides when to stop. The test stays unseen.

    Arrays in memory and memory-mapped ones do alike. Inside `track` the training is logged.

    Parameters
    ----------
    data
        What `load`, `simulate` or `Dataset.from_arrays` gave.
    split
        What `split` gave. Its test part is not touched.
    network
        A function of your own in place of the architecture: from standardised images, a Keras tensor (n, H, W, F), to
        features (n, k), or to a Keras model of these. It may take `settings`, and options by name, which the setting
        ``options`` gives. The stretch before it and the probability behind it stay.
    settings
        Those of an experiment file's sections network and training (epochs, dropout, learning_rate, stretch …); also
        ``start``, the weights to begin with, of a model as `load_model` takes it, and ``freeze``, the layer up to which
        they stay.

    Raises
    ------
    InputError
        For unknown settings, pixels that are not finite, and copies of one image in two parts.

    Examples
    --------
    >>> model = dm.train(data, split, epochs=20, dropout=0.3)
    """
    architecture, learning = config.sections(settings)
    devices.prepare()
    require_finite(data)
    copies.require_apart(data, [split])
    training.require_sound(data, networks.at_hand(architecture, data.name), network)
    learning = targets.resolved(learning, data, split)
    track.begin(data, split, {**architecture.flat(), **learning.flat()})
    trained = fit(data, split, architecture, learning, track.epoch, body=network)
    track.end(trained, data, split)
    return Model(trained.model, trained.history, trained.best_epoch, trained.merger_fraction)


def load_model(reference: str | Path) -> Model:
    """Load a model: a ``.keras`` file, or one of MLflow by run id, ``models:/`` URI, run.json or data set (its newest).

    Raises
    ------
    InputError
        Where there is none.

    Examples
    --------
    >>> model = dm.load_model("models:/deepmerge-pristine@champion")
    """
    name = str(reference)
    devices.prepare()
    if name.endswith(".keras"):
        if not Path(name).is_file():
            raise InputError(f"model expected at {name}, where there is no file")
        return Model(prediction.read(Path(name)))
    run = runs.find(name, name)
    network = prediction.read(runs.model_file(run))
    best_epoch = run.data.metrics.get("best_epoch")
    history = runs.read_json(run, "history.json")
    return Model(network, history, None if best_epoch is None else int(best_epoch), trained_merger_fraction(run))
