"""The same networks and sums as others would write them: plain Keras, PyTorch, tf-keras-vis, scikit-learn."""

import sys
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import sklearn.metrics as sk

from deepmerge import config
from deepmerge.model.architectures import CONVOLUTIONS, DENSE_UNITS
from deepmerge.model.stretch import PixelStatistics

# PyTorch's compiler, which is not needed here, brings an LLVM that ends a process with TensorFlow's in it.
sys.modules["triton"] = None  # type: ignore[assignment]
try:
    import torch
except ImportError:
    torch = None


def plain_keras(shape: tuple[int, int, int], settings: config.Network, pixels: PixelStatistics) -> keras.Model:
    """The network in the layers and functions that Keras offers for each of its steps."""
    published = settings.architecture == "published"
    layers = keras.layers
    inputs = keras.Input(shape)
    x = layers.Normalization(mean=np.zeros(shape[2]), variance=pixels.softening**2)(inputs)
    x = keras.ops.arcsinh(x)
    x = layers.Normalization(mean=pixels.mean, variance=pixels.variance)(x)
    for filters, size in CONVOLUTIONS:
        x = layers.Conv2D(filters, size, padding="same", activation="relu")(x)
        x = layers.BatchNormalization(axis=2 if published else -1)(x)
        x = layers.MaxPooling2D(2)(x)
        x = layers.Dropout(settings.dropout)(x) if published else x
    x = layers.Flatten()(x)
    x = x if published else layers.Dropout(settings.dropout)(x)
    for units in DENSE_UNITS:
        penalty = keras.regularizers.L2(settings.l2)
        x = layers.Dense(units, "softmax" if published else "relu", kernel_regularizer=penalty)(x)
        x = x if published else layers.Dropout(settings.dropout)(x)
    return keras.Model(inputs, layers.Dense(1, activation="sigmoid")(x))


def fit_keras(model: keras.Model, images: np.ndarray, labels: np.ndarray, batch_size: int, epochs: int) -> None:
    """Train as the paper's notebook did: `fit` on arrays in memory."""
    model.fit(images, labels, batch_size=batch_size, epochs=epochs, verbose=0)


def torch_trainer(
    shape: tuple[int, int, int], settings: config.Network, pixels: PixelStatistics, model: keras.Model
) -> tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray, np.ndarray, int, int], None]]:
    """The network in PyTorch, channels last in memory, with the weights of `model`: functions to predict and to fit."""
    published = settings.architecture == "published"
    nn = torch.nn

    class WidthNorm(torch.nn.BatchNorm2d):
        def forward(self, x: Any) -> Any:
            return super().forward(x.transpose(1, 3)).transpose(1, 3)

    def constant(values: np.ndarray) -> Any:
        return torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1)

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.softening, self.mean = constant(pixels.softening), constant(pixels.mean)
            self.deviation = constant(np.sqrt(pixels.variance))
            before, width, convolutional = shape[2], shape[1], []
            for filters, size in CONVOLUTIONS:
                norm = WidthNorm(width, eps=1e-3, momentum=0.01) if published else None
                norm = norm or nn.BatchNorm2d(filters, eps=1e-3, momentum=0.01)
                convolutional += [nn.Conv2d(before, filters, size, padding=size // 2), nn.ReLU(), norm, nn.MaxPool2d(2)]
                convolutional += [nn.Dropout(settings.dropout)] * published
                before, width = filters, width // 2
            self.convolutional = nn.Sequential(*convolutional)
            dense, inputs = [] if published else [nn.Dropout(settings.dropout)], before * width * (shape[0] // 8)
            for units in DENSE_UNITS:
                dense += [nn.Linear(inputs, units), nn.Softmax(1) if published else nn.ReLU()]
                dense += [] if published else [nn.Dropout(settings.dropout)]
                inputs = units
            self.dense = nn.Sequential(*dense, nn.Linear(inputs, 1))

        def forward(self, x: Any) -> Any:
            x = (torch.asinh(x / self.softening) - self.mean) / self.deviation
            return self.dense(self.convolutional(x).permute(0, 2, 3, 1).flatten(1))

    network = Network()
    _copy_weights(model, network)
    network = network.to(memory_format=torch.channels_last)
    linear = [layer for layer in network.dense if isinstance(layer, nn.Linear)]
    penalised = [layer.weight for layer in linear[:-1]]
    optimizer = torch.optim.Adam(network.parameters())
    loss_of = nn.BCEWithLogitsLoss()

    def first(images: np.ndarray) -> Any:
        return torch.from_numpy(images).permute(0, 3, 1, 2)  # channels last in memory as it is

    def predict(images: np.ndarray) -> np.ndarray:
        network.eval()
        with torch.no_grad():
            return torch.sigmoid(network(first(images)))[:, 0].numpy()

    def fit(images: np.ndarray, labels: np.ndarray, batch_size: int, epochs: int) -> None:
        network.train()
        x, y = first(images), torch.from_numpy(labels)
        for _ in range(epochs):
            order = torch.randperm(len(x))
            for start in range(0, len(x), batch_size):
                chosen = order[start : start + batch_size]
                batch = x[chosen].contiguous(memory_format=torch.channels_last)
                optimizer.zero_grad()
                penalty = sum(settings.l2 * (weight**2).sum() for weight in penalised)
                (loss_of(network(batch), y[chosen]) + penalty).backward()
                optimizer.step()

    return predict, fit


def _copy_weights(model: keras.Model, network: Any) -> None:
    """From Keras to PyTorch, layer by layer."""
    kinds = {"Conv2D": torch.nn.Conv2d, "BatchNormalization": torch.nn.BatchNorm2d, "Dense": torch.nn.Linear}
    modules: list[Any] = [module for module in network.modules() if isinstance(module, tuple(kinds.values()))]
    layers = [layer for layer in model.layers if type(layer).__name__ in kinds]
    with torch.no_grad():
        for layer, module in zip(layers, modules, strict=True):
            weights = [torch.from_numpy(np.ascontiguousarray(w)) for w in layer.get_weights()]
            if isinstance(module, torch.nn.BatchNorm2d):
                targets = [module.weight, module.bias, module.running_mean, module.running_var]
            else:
                order = (3, 2, 0, 1) if isinstance(module, torch.nn.Conv2d) else (1, 0)
                targets, weights[0] = [module.weight, module.bias], weights[0].permute(order)
            for target, values in zip(targets, weights, strict=True):
                target.copy_(values)


def gradcam_of_tf_keras_vis(model: keras.Model) -> Callable[[np.ndarray], np.ndarray] | None:
    """Grad-CAM of the merger probability by tf-keras-vis, maps (n, H, W); None where it is not installed."""
    try:
        from tf_keras_vis.gradcam import Gradcam
    except ImportError:
        return None
    explainer = Gradcam(model, clone=True)

    def explain(images: np.ndarray) -> np.ndarray:
        return explainer(lambda output: output[:, 0], images, penultimate_layer="conv_3", normalize_cam=False)

    return explain


def bootstrap_loop(labels: np.ndarray, probability: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Metrics of every resample, one scikit-learn call after another; weights (resamples, n)."""
    predicted = probability >= 0.5
    found: dict[str, list[float]] = {name: [] for name in SCIKIT_LEARN}
    for row in weights:
        for name, metric in SCIKIT_LEARN.items():
            found[name].append(metric(labels, probability, predicted, row))
    return {name: np.array(values) for name, values in found.items()}


SCIKIT_LEARN: dict[str, Callable[..., float]] = {
    "accuracy": lambda y, p, z, w: sk.accuracy_score(y, z, sample_weight=w),
    "purity": lambda y, p, z, w: sk.precision_score(y, z, sample_weight=w),
    "completeness": lambda y, p, z, w: sk.recall_score(y, z, sample_weight=w),
    "f1": lambda y, p, z, w: sk.f1_score(y, z, sample_weight=w),
    "auc": lambda y, p, z, w: sk.roc_auc_score(y, p, sample_weight=w),
    "brier": lambda y, p, z, w: sk.brier_score_loss(y, p, sample_weight=w),
}
