"""Train a network: Adam, to the end of its schedule or with early stopping on the validation log loss."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import keras
import numpy as np
from sklearn.metrics import roc_auc_score

from deepmerge import config, stopping
from deepmerge.data import targets
from deepmerge.data.batches import Epoch, TrainingBatches, class_weights, gather
from deepmerge.data.dataset import Dataset
from deepmerge.data.labels import codes as stage_codes
from deepmerge.data.noise import Degradation
from deepmerge.data.splits import Split
from deepmerge.data.targets import Unlabelled
from deepmerge.errors import Failed
from deepmerge.model import checkpoint, devices, own, prediction, saved, stretch
from deepmerge.model import network as networks
from deepmerge.model import start as starts
from deepmerge.model.adaptation import Adaptation
from deepmerge.model.calling import Body
from deepmerge.model.checkpoint import Checkpoint
from deepmerge.model.learner import Learner

log = logging.getLogger(__name__)

# 512 images of the release: enough that the median pixel is known to a fraction of a per cent, at any sample size.
STATISTICS_VALUES = 512 * 75 * 75 * 2
STOPPED_BY = "val_log_loss"  # without the L2 penalty of val_loss, which differs between settings
LOG_CLIP = 1e-7  # probabilities nearer to 0 or 1 count as this far away, as in Keras's cross-entropy
FINAL_RATE = 0.05  # the cosine schedule ends at this share of the first learning rate


class TrainingDiverged(Failed):
    """The loss was no longer a finite number."""


@dataclass(frozen=True)
class Trained:
    """A trained network, its history (a list of values for each name, one an epoch) and the epoch kept, from 1.

    merger_fraction: the prior at which its probabilities are meant, 0.5 unless the classes were not balanced.
    degradation: what was done to its images; target: those that it saw beside.
    """

    model: keras.Model
    history: dict[str, list[float]]
    best_epoch: int
    merger_fraction: float
    degradation: Degradation | None = None
    target: Unlabelled | None = None


EpochReport = Callable[[int, dict[str, float]], None]


def train(
    dataset: Dataset,
    split: Split,
    network: config.Network,
    training: config.Training,
    on_epoch: EpochReport = lambda epoch, values: None,
    body: Body | None = None,
    target: Unlabelled | None = None,
    kept_in: Path | None = None,
) -> Trained:
    """Train on the training part; test images are never read.

    The weights at the end are kept, or with `keep` 'best' those of the lowest validation log loss, where training stops
    when it has not been lower for `patience` epochs.
    `body` takes the place of the network's architecture (see `own.body`); `network.start` is a file. `on_epoch` is
    called after each epoch with its number, from 1, and its losses and accuracies; what it raises ends the training.
    The pixel statistics, and all validation numbers, are of images with the noise and blur of `training`; an image
    validates with the same random numbers in each epoch. `target` are the images to adapt to, by default those of
    `training.adapt` that the split leaves to training; the pixel statistics are theirs then.
    `kept_in` is a file that holds the training after each epoch. Where it is there already, the training goes on from
    it, to the same weights bit by bit; `on_epoch` is called for the epochs before, too.
    Both classes weigh the same in all validation numbers. Raises TrainingDiverged on a loss that is not finite.
    """
    keras.utils.set_random_seed(training.seed)
    batches = _batches(dataset, split, network, training, target)
    shape = _shape(dataset)
    body, start = own.body(network, body), starts.load(network)
    kept = starts.pixel_statistics(start, network) if start and network.start_stretch == "kept" else None
    pixels = kept or _pixel_statistics(dataset, batches, split.seed, network.stretch)

    def make() -> tuple[keras.Model, keras.optimizers.Optimizer]:
        model = networks.build(shape, network, pixels, body, for_training=True, precision=training.precision)
        starts.begin(model, start, network)
        rate = _learning_rate(training, len(batches))
        optimizer = keras.optimizers.Adam(rate, weight_decay=training.weight_decay or None)
        if training.precision == "mixed_float16":
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        return model, optimizer

    def adaptation(model: keras.Model) -> Adaptation | None:
        steps = len(batches) * training.epochs
        if training.adapt is None or training.adapt.method == "stretch":
            return None
        return Adaptation(model, training.adapt, steps)

    learner = Learner(devices.strategy(), make, adaptation, training.label_smoothing)
    reached = Checkpoint(best_weights=learner.model.get_weights(), variables=learner.variables())
    if kept_in is not None:
        reached = checkpoint.read(kept_in, reached)
        learner.restore(reached.variables)
    for number in range(1, reached.epochs + 1):
        on_epoch(number, reached.values(number))
    while not _is_over(reached, training):
        number = reached.epochs + 1
        values = _epoch(learner, batches.epoch(number - 1), dataset, split)
        _require_finite(values, number, training)
        reached.add(values)
        if training.keep == "last" or values[STOPPED_BY] < reached.best:
            reached.best, reached.best_epoch = values[STOPPED_BY], number
            reached.best_weights = learner.model.get_weights()
        if kept_in is not None:
            reached.variables = learner.variables()
            kept_in = _kept(reached, kept_in)
        on_epoch(number, values)
        stopping.end_if_told()
    trained = networks.build(shape, network, pixels, body)
    trained.set_weights(reached.best_weights)
    prior = batches.merger_fraction
    return Trained(trained, reached.history, reached.best_epoch, prior, batches.degradation, batches.target)


def _is_over(reached: Checkpoint, training: config.Training) -> bool:
    """Whether all epochs were learned, or the validation has not become better for too many of them."""
    has_stalled = training.keep == "best" and reached.epochs - reached.best_epoch >= training.patience
    return reached.epochs >= training.epochs or has_stalled


def _kept(reached: Checkpoint, path: Path) -> Path | None:
    """Write the checkpoint; its path, or None where it cannot be written (a full disk): the training goes on."""
    try:
        reached.write(path)
    except OSError as error:
        log.warning("The training goes on, but could not be resumed if it were interrupted: %s", error)
        return None
    return path


def _batches(
    dataset: Dataset, split: Split, network: config.Network, training: config.Training, target: Unlabelled | None
) -> TrainingBatches:
    """What is shown in training; without a `target` at hand it is the one that the settings name, if any."""
    if training.adapt is not None and target is None:
        target = targets.to_adapt_to(training.adapt, dataset, split)
    return TrainingBatches(
        dataset.images,
        dataset.labels,
        split.train,
        **training.model_dump(include={"batch_size", "balance", "augment", "seed"}),
        degradation=Degradation.of(training, dataset),
        target=target if training.adapt is not None else None,
        codes=stage_codes(dataset.catalogue["stage"], split.train.rows) if network.labels == "stage" else None,
    )


def require_learnable(dataset: Dataset, split: Split, network: config.Network, training: config.Training) -> None:
    """Raise InputError where a training could learn nothing: of one class, or of pixels that are all alike."""
    batches = _batches(dataset, split, network, training, None)
    if network.start is None or network.start_stretch != "kept":
        _pixel_statistics(dataset, batches, split.seed, network.stretch)


def require_sound(dataset: Dataset, network: config.Network, body: Body | None = None) -> None:
    """Raise InputError where a network cannot be built for these images, begin as it should, or be saved and loaded.

    What is wrong with a network of others, with its start or with what is to be frozen shows before any training.
    """
    body, start = own.body(network, body), starts.load(network)
    if body is None and start is None and network.freeze is None:
        return
    ones = np.ones(dataset.images.shape[1])
    if start and network.start_stretch == "kept":
        starts.pixel_statistics(start, network)
    model = networks.build(_shape(dataset), network, stretch.PixelStatistics(ones, 0 * ones, ones), body)
    starts.begin(model, start, network)
    saved.require_reloadable(model)


def _shape(dataset: Dataset) -> tuple[int, int, int]:
    filters, height, width = dataset.images.shape[1:]
    return height, width, filters


def _epoch(learner: Learner, epoch: Epoch, dataset: Dataset, split: Split) -> dict[str, float]:
    """Learn from an epoch; measures in training, of the validation after it, and the learning rate then."""
    probability, penalty = learner.learn(epoch)
    values = measures(epoch.labels, probability, epoch.weights, penalty)
    part = split.validation
    truth = dataset.labels[part.rows]
    degradation = epoch.batches.degradation
    change = None if degradation is None else partial(degradation.once, seed=split.seed)
    probability = prediction.predict(learner.model, dataset.images, part.rows, part.transforms, change=change)
    penalty = float(sum(learner.model.losses))
    validation = measures(truth, probability, class_weights(truth), penalty)
    validation["log_loss"] = learner.agreed(validation["log_loss"])
    validation = {f"val_{name}": value for name, value in validation.items()}
    return {**values, **validation, "learning_rate": learner.learning_rate}


def measures(labels: np.ndarray, probability: np.ndarray, weights: np.ndarray, penalty: float) -> dict[str, float]:
    """Loss (with the penalty), log loss, accuracy and AUC of weighted images (n,); AUC undefined for a single class."""
    clipped = np.clip(probability, LOG_CLIP, 1 - LOG_CLIP)
    log_loss = float(np.average(-np.log(np.where(labels == 1, clipped, 1 - clipped)), weights=weights))
    defined = len(np.unique(labels)) == 2 and bool(np.isfinite(probability).all())
    return {
        "loss": log_loss + penalty,
        "log_loss": log_loss,
        "accuracy": float(np.average((probability >= 0.5) == (labels == 1), weights=weights)),
        "auc": float(roc_auc_score(labels, probability, sample_weight=weights)) if defined else math.nan,
    }


def _require_finite(values: dict[str, float], epoch: int, training: config.Training) -> None:
    for name in ("loss", "val_loss"):
        if not math.isfinite(values[name]):
            raise TrainingDiverged(
                f"{name} should stay finite, got {values[name]} in epoch {epoch}; try a learning rate below "
                f"{training.learning_rate:g}, and 'deepmerge data check' for NaN or infinite pixels"
            )


def _pixel_statistics(dataset: Dataset, batches: TrainingBatches, seed: int, kind: str) -> stretch.PixelStatistics:
    """Of training images as they are shown or, where there is a target, of its images: their noise counts then."""
    target, degradation = batches.target, batches.degradation
    rows = batches.part.rows if target is None else target.rows
    most = max(16, STATISTICS_VALUES // dataset.images[0].size)
    if len(rows) > most:
        rows = np.random.default_rng(seed).choice(rows, most, replace=False)
    if target is not None:
        images = target.filled(gather(target.images, rows))
    else:
        images = gather(dataset.images, rows)
        if degradation is not None:
            images = degradation.once(images, rows, seed)
    pixels = stretch.measure(images, kind, dataset.missing)
    stretch.require_standardised(images, kind, pixels)
    return pixels


def _learning_rate(training: config.Training, steps: int) -> float | keras.optimizers.schedules.LearningRateSchedule:
    if training.schedule == "constant":
        return training.learning_rate
    return keras.optimizers.schedules.CosineDecay(training.learning_rate, steps * training.epochs, FINAL_RATE)
