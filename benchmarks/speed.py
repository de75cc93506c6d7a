"""Training, scoring, explaining and measuring, each beside its peers on the same images and the same network."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from benchmarks import peers
from benchmarks.measure import Row, compared, console, interleaved
from deepmerge import config
from deepmerge.analysis import bootstrap as resampling
from deepmerge.analysis import metrics, saliency
from deepmerge.analysis.sample import Sample as Predictions
from deepmerge.data import dataset as datasets
from deepmerge.data.batches import TrainingBatches, gather
from deepmerge.data.formats.image_file import open_images
from deepmerge.data.splits import Part
from deepmerge.model import devices, network, prediction, stretch
from deepmerge.model.layers import faster
from deepmerge.model.learner import Learner

BATCH = 64


class Sample:
    """Images of the demo sample: as they lie on disk (n, F, H, W), and in memory with filters behind (n, H, W, F)."""

    def __init__(self, images: int) -> None:
        experiment = config.load("pristine")
        data = datasets.read(experiment.data, experiment.name)
        # Every so often over the whole file, since mergers come first.
        self.rows = np.linspace(0, len(data.images) - 1, images).astype(int)
        self.stored, self.labels = data.images, data.labels
        self.images = gather(data.images, self.rows)
        self.classes = data.labels[self.rows].astype(np.float32)[:, np.newaxis]
        self.pixels = stretch.measure(self.images[:512], "asinh")

    def network(self, architecture: str, for_training: bool = False) -> keras.Model:
        """The project's network."""
        settings = config.Network(architecture=architecture)
        return network.build(self.images.shape[1:], settings, self.pixels, for_training=for_training)

    def plain(self, architecture: str) -> keras.Model:
        """The same in plain Keras."""
        return peers.plain_keras(self.images.shape[1:], config.Network(architecture=architecture), self.pixels)


def _agree(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Raise where probabilities of one network differ by more than three libraries' ways to add up."""
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


def training(sample: Sample, repeats: int) -> Iterator[Row]:
    """Epochs of training with turned and flipped images, against arrays in memory that nobody turns."""
    epochs, count = 2, len(sample.rows)
    for architecture in ("default", "published"):
        console.print(f"training, {architecture} network")
        settings = config.Network(architecture=architecture)
        keras.utils.set_random_seed(0)

        def make(architecture: str = architecture) -> tuple[keras.Model, keras.optimizers.Optimizer]:
            return sample.network(architecture, for_training=True), keras.optimizers.Adam(1e-3)

        learner = Learner(devices.strategy(), make)
        part = Part(sample.rows, np.zeros(count, np.uint8))
        batches = TrainingBatches(sample.stored, sample.labels, part, BATCH, "none", True, 0)
        plain = sample.plain(architecture)
        plain.set_weights(learner.model.get_weights())
        some = sample.images[:256]
        expected = learner.model(some, training=False).numpy()[:, 0]
        _agree(plain(some, training=False).numpy()[:, 0], expected)
        plain.compile(keras.optimizers.Adam(1e-3), "binary_crossentropy", metrics=["accuracy"])

        def ours(learner: Learner = learner, batches: TrainingBatches = batches) -> None:
            for epoch in range(epochs):
                learner.learn(batches.epoch(epoch))

        works = {
            "deepmerge": ours,
            "Keras fit": lambda plain=plain: peers.fit_keras(plain, sample.images, sample.classes, BATCH, epochs),
        }
        if peers.torch is not None:
            predict, fit = peers.torch_trainer(some.shape[1:], settings, sample.pixels, plain)
            _agree(predict(some), expected)
            works["PyTorch"] = lambda fit=fit: fit(sample.images, sample.classes, BATCH, epochs)
        targets = {"Keras fit": 1.6, "PyTorch": 1.6}
        counts = dict.fromkeys(works, count * epochs)
        work = f"an image, {architecture} network, batches of {BATCH}"
        yield from compared("training", work, interleaved(works, repeats), "deepmerge", counts, targets)


def inference(sample: Sample, images: int, repeats: int, folder: Path) -> Iterator[Row]:
    """Scores of a file of images, against `predict` on the same images in memory."""
    console.print(f"inference, {images} images")
    model = sample.network("default")
    plain = sample.plain("default")
    plain.set_weights(model.get_weights())
    path = folder / "images.npy"
    shape = (images, *sample.stored.shape[1:])
    file = np.lib.format.open_memmap(path, "w+", np.float32, shape)
    for start in range(0, images, len(sample.stored)):
        file[start : start + len(sample.stored)] = sample.stored[: images - start]
    file.flush()
    del file
    memory = gather(np.load(path, mmap_mode="r"), np.arange(images))

    used = faster(model)  # as `prediction.load` gives it

    def ours() -> np.ndarray:
        with open_images(path) as opened:
            return np.concatenate(list(prediction.predict_pieces(used, opened.pieces(prediction.batch_size(shape)))))

    works = {
        "deepmerge": ours,
        "model.predict": lambda: model.predict(memory, verbose=0),
        "plain Keras predict": lambda: plain.predict(memory, verbose=0),
    }
    _agree(ours()[:1000], model.predict(memory[:1000], verbose=0)[:, 0])
    targets = {"model.predict": 2.0, "plain Keras predict": 2.0}
    counts = dict.fromkeys(works, images)
    yield from compared(
        "inference", f"an image of {images:,}", interleaved(works, repeats), "deepmerge", counts, targets
    )


def explanation(sample: Sample, repeats: int) -> Iterator[Row]:
    """Grad-CAM of the last convolution for one class, against tf-keras-vis; ours maps both classes."""
    model = sample.network("default")
    theirs = peers.gradcam_of_tf_keras_vis(model)
    if theirs is None:
        return
    console.print("Grad-CAM")
    images, few = sample.images[:1024], sample.images[:24]
    explainer = saliency.Explainer(faster(model), method="gradcam")
    batched, single = "tf-keras-vis, batches of 256", "tf-keras-vis, one by one"
    works = {
        "deepmerge": lambda: list(explainer.batches(images)),
        batched: lambda: [theirs(images[i : i + 256]) for i in range(0, len(images), 256)],
        single: lambda: [theirs(few[i : i + 1]) for i in range(len(few))],
    }
    counts = {"deepmerge": len(images), batched: len(images), single: len(few)}
    targets = {batched: 6.0, single: 100.0}
    yield from compared("Grad-CAM", "an image", interleaved(works, repeats), "deepmerge", counts, targets)


def bootstrap(images: int, resamples: int, repeats: int) -> Iterator[Row]:
    """Intervals of all metrics, against six metrics in a loop over the same resamples of galaxies; same numbers."""
    console.print("bootstrap")
    rng = np.random.default_rng(0)
    galaxies = np.repeat(np.arange(images // 5), 5)
    labels = (galaxies % 8 == 0).astype(int)  # the release has 15 % mergers
    probability = 1 / (1 + np.exp(-1.5 * (2 * labels - 1) - rng.normal(size=len(labels))))
    found: dict[str, Any] = {}

    def ours() -> None:
        found["ours"] = metrics.evaluate(labels, probability, galaxies, resamples=resamples, seed=0).metrics

    weights = np.concatenate(list(resampling.resampled(Predictions.of(labels, probability, galaxies), resamples, 0)))[
        :, galaxies
    ]

    def loop() -> None:
        found["loop"] = peers.bootstrap_loop(labels, probability, weights)

    seconds = interleaved({"deepmerge": ours, "scikit-learn in a loop": loop}, repeats)
    for name, values in found["loop"].items():  # ours are closed forms, so near, and not the same
        low, high = np.quantile(values, (0.025, 0.975))
        assert low <= found["ours"][name].value <= high, name
    work = f"{len(found['ours'])} metrics of {len(labels):,} images, {resamples:,} resamples"
    peer = f"{len(found['loop'])} of them by scikit-learn in a loop"
    seconds = {"deepmerge": seconds["deepmerge"], peer: seconds["scikit-learn in a loop"]}
    yield from compared("bootstrap", work, seconds, "deepmerge", dict.fromkeys(seconds, 1), {peer: 50.0})


def run(topics: set[str], quick: bool) -> Iterator[Row]:
    """All rows of the topics asked for."""
    devices.prepare()
    if topics & {"training", "inference", "Grad-CAM"}:
        sample = Sample(256 if quick else 2048)
    if "training" in topics:
        yield from training(sample, 1 if quick else 5)
    if "inference" in topics:
        with tempfile.TemporaryDirectory() as folder:
            yield from inference(sample, 512 if quick else 100_000, 1 if quick else 2, Path(folder))
    if "Grad-CAM" in topics:
        yield from explanation(sample, 1 if quick else 5)
    if "bootstrap" in topics:
        yield from bootstrap(600 if quick else 3085, 30 if quick else 1000, 1 if quick else 3)
