"""Images in files of their own: decoded once, then read from the cache as fast as from any npy."""

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from benchmarks.measure import Fact, Row, compared, console, interleaved
from deepmerge import cluster, config
from deepmerge.data import dataset as datasets
from deepmerge.data.batches import TrainingBatches
from deepmerge.data.dataset import Dataset
from deepmerge.data.splits import Part

SIDE, BATCH = 64, 64
FOLDER = 1000  # files in one folder


def run(topics: set[str], quick: bool) -> tuple[list[Row], list[Fact]]:
    """All results, if they are asked for."""
    if "cutouts" not in topics:
        return [], []
    images = 600 if quick else 100_000
    console.print(f"cutouts, {images} JPEG files")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write(folder, images)
        settings = config.Data(images=folder / "catalogue.csv", cache=folder / "cache")
        start = time.perf_counter()
        cached = datasets.read(settings, "cutouts")
        first = time.perf_counter() - start
        start = time.perf_counter()
        datasets.read(settings, "cutouts")
        again = time.perf_counter() - start
        np.save(folder / "images.npy", cached.images)
        plain = replace(cached, images=np.load(folder / "images.npy", mmap_mode="r"))
        seconds = interleaved({"deepmerge": lambda: _epoch(cached), "an npy": lambda: _epoch(plain)}, 1 if quick else 5)
        work = f"an image of {images:,} JPEG cutouts in the batches of an epoch"
        rows = compared("cutouts", work, seconds, "deepmerge", dict.fromkeys(seconds, images), {"an npy": 0.9})
        decoding = f"an image of {images:,} JPEG files decoded, once, by {cluster.count_cores()} processes"
        return rows, [
            Fact("cutouts", decoding, 1e3 * first / images, "ms"),
            Fact("cutouts", f"{images:,} JPEG files opened from the cache", again, "s"),
        ]


def _write(folder: Path, images: int) -> None:
    """JPEG files of noise and a blob, as large as those of surveys, and a table that names them."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    blob = 180 * np.exp(-(rows**2 + columns**2) / 100)[..., np.newaxis]
    # A hundred different ones: what is measured is reading, and drawing noise takes longer.
    drawn = [np.clip(blob + rng.normal(30, 8, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8) for _ in range(100)]
    names = [f"{number // FOLDER}/{number}.jpg" for number in range(images)]
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(drawn[number % len(drawn)]).save(folder / name)
    labels = np.arange(images) % 2
    pd.DataFrame({"id": range(images), "label": labels, "file": names}).to_csv(folder / "catalogue.csv", index=False)


def _epoch(data: Dataset) -> None:
    """All batches of an epoch, turned and flipped, as training reads them."""
    part = Part(np.arange(len(data.images)), np.zeros(len(data.images), np.uint8))
    epoch = TrainingBatches(data.images, data.labels, part, BATCH, "none", True, 0).epoch(0)
    for number in range(len(epoch)):
        epoch.batch(number)
