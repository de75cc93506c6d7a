"""Train a network: Adam, early stopping on the validation log loss, the best weights kept."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np

from deepmerge import config
from deepmerge.data.batches import TrainingBatches, class_weights, gather
from deepmerge.data.dataset import Dataset
from deepmerge.data.splits import Split
from deepmerge.model import network

log = logging.getLogger(__name__)

# 512 images of the release: enough that the median pixel is known to a fraction of a per cent, at any sample size.
STATISTICS_VALUES = 512 * 75 * 75 * 2
STOPPED_BY = "val_log_loss"  # without the L2 penalty of val_loss, which differs between settings
FINAL_RATE = 0.05  # the cosine schedule ends at this share of the first learning rate


class TrainingDiverged(RuntimeError):
    """The loss was no longer a finite number."""


@dataclass(frozen=True)
class Trained:
    """A trained network, its history (a list of values for each name, one an epoch) and its best epoch, from 1."""

    model: keras.Model
    history: dict[str, list[float]]
    best_epoch: int


EpochReport = Callable[[int, dict[str, float]], None]


def train(
    dataset: Dataset,
    split: Split,
    settings: config.Experiment,
    on_epoch: EpochReport = lambda epoch, values: None,
) -> Trained:
    """Train on the training part and stop early on the validation part; the test part is not touched.

    `on_epoch` is called after each epoch with its number, from 1, and its losses and accuracies; what it raises ends
    the training. Both classes weigh the same in all validation numbers. Raises TrainingDiverged on a loss that is not
    finite.
    """
    training = settings.training
    keras.utils.set_random_seed(training.seed)
    batches = TrainingBatches(
        dataset.images,
        dataset.labels,
        split.train,
        batch_size=training.batch_size,
        balance=training.balance,
        augment=training.augment,
        seed=training.seed,
    )
    shape = (*dataset.images.shape[2:], dataset.images.shape[1])
    pixels = _pixel_statistics(dataset, split, settings)
    model = network.build(shape, settings.network, pixels, for_training=True)
    model.compile(
        optimizer=keras.optimizers.Adam(_learning_rate(training, len(batches))),
        loss="binary_crossentropy",
        weighted_metrics=[
            keras.metrics.BinaryCrossentropy(name="log_loss"),
            keras.metrics.BinaryAccuracy(name="accuracy"),
            keras.metrics.AUC(name="auc"),
        ],
    )
    stopping = keras.callbacks.EarlyStopping(STOPPED_BY, 0, training.patience, mode="min", restore_best_weights=True)
    watch = _Watch(on_epoch, training)
    model.fit(
        _Sequence(batches),
        validation_data=_Validation(dataset, split),
        epochs=training.epochs,
        callbacks=[watch, stopping],
        shuffle=False,
        verbose=0,
    )
    best = int(np.argmin(watch.history[STOPPED_BY]))
    trained = network.build(shape, settings.network, pixels)
    # Early stopping restores the best weights itself only when patience ran out.
    trained.set_weights(stopping.best_weights or model.get_weights())
    return Trained(trained, watch.history, best + 1)


def _pixel_statistics(dataset: Dataset, split: Split, settings: config.Experiment) -> network.PixelStatistics:
    rows = split.train.rows
    most = max(16, STATISTICS_VALUES // dataset.images[0].size)
    if len(rows) > most:
        rows = np.random.default_rng(settings.split.split_seed).choice(rows, most, replace=False)
    return network.measure_pixels(gather(dataset.images, rows), settings.network.stretch)


def _learning_rate(training: config.Training, steps: int) -> float | keras.optimizers.schedules.LearningRateSchedule:
    if training.schedule == "constant":
        return training.learning_rate
    return keras.optimizers.schedules.CosineDecay(training.learning_rate, steps * training.epochs, FINAL_RATE)


class _Sequence(keras.utils.PyDataset):
    """Training batches for Keras, which asks for batch i of the running epoch."""

    def __init__(self, batches: TrainingBatches):
        super().__init__()
        self.batches = batches
        self.number = 0
        self.epoch = batches.epoch(0)

    def __len__(self) -> int:
        return len(self.epoch)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        images, labels, weights = self.epoch.batch(index)
        return images, labels[:, np.newaxis], weights

    def on_epoch_end(self) -> None:
        self.number += 1
        self.epoch = self.batches.epoch(self.number)


class _Validation(keras.utils.PyDataset):
    """Validation batches: never shuffled nor augmented, both classes weighing the same."""

    size = 256

    def __init__(self, dataset: Dataset, split: Split):
        super().__init__()
        self.images = dataset.images
        self.part = split.validation
        labels = dataset.labels[self.part.rows]
        self.labels = labels[:, np.newaxis].astype(np.float32)
        self.weights = class_weights(labels)

    def __len__(self) -> int:
        return math.ceil(len(self.part) / self.size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        chosen = slice(index * self.size, (index + 1) * self.size)
        images = gather(self.images, self.part.rows[chosen], self.part.transforms[chosen])
        return images, self.labels[chosen], self.weights[chosen]


class _Watch(keras.callbacks.Callback):
    """Keeps the history, reports each epoch, and stops on a loss that is not finite."""

    def __init__(self, on_epoch: EpochReport, training: config.Training):
        super().__init__()
        self.on_epoch = on_epoch
        self.training = training
        self.history: dict[str, list[float]] = {}

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        values = {name: float(value) for name, value in (logs or {}).items()}
        bad = [name for name in ("loss", "val_loss") if not math.isfinite(values[name])]
        if bad:
            raise TrainingDiverged(
                f"{bad[0]} should stay finite, got {values[bad[0]]} in epoch {epoch + 1}; try a learning rate below "
                f"{self.training.learning_rate:g}, and 'deepmerge data check' for NaN or infinite pixels"
            )
        values["learning_rate"] = float(self.model.optimizer.learning_rate)
        for name, value in values.items():
            self.history.setdefault(name, []).append(value)
        self.on_epoch(epoch + 1, values)
