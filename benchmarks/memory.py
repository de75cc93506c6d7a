"""Peak memory and time of the commands as the data grow from the released number of images to ten times as many."""

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import yaml
from matplotlib.figure import Figure

from benchmarks.measure import Fact, console
from deepmerge import config
from deepmerge.data import dataset as datasets
from deepmerge.data.batches import gather
from deepmerge.data.released.layout import ROWS
from deepmerge.plots import canvas

COMMANDS = ("train", "evaluate", "gradcam", "predict")
GROWTH = 1.25  # most that the peak memory may grow when the data grow tenfold


@dataclass(frozen=True)
class Usage:
    """What one command took for so many images: peak resident memory in MiB, mapped files included, and seconds."""

    command: str
    images: int
    memory: float
    seconds: float


def write_images(folder: Path, images: int) -> Path:
    """The demo sample again and again, each time with other noise and as other galaxies; its experiment file."""
    experiment = config.load("pristine")
    data = datasets.read(experiment.data, experiment.name)
    order = np.random.default_rng(0).permutation(len(data.galaxies))
    file = np.lib.format.open_memmap(folder / "images.npy", "w+", np.float32, (images, *data.images.shape[1:]))
    rng = np.random.default_rng(1)
    # Copies in one order: whichever galaxies are cut off at the end, both classes are there.
    for start in range(0, images, len(order)):
        rows = order[: images - start]
        file[start : start + len(rows)] = data.images[rows] + rng.normal(0, 1e-3, data.images.shape[1:])
    del file
    rows, copy = np.tile(order, images // len(order) + 1)[:images], np.arange(images) // len(order)
    np.save(folder / "labels.npy", data.labels[rows])
    catalogue = data.catalogue.iloc[rows][["view", "stage"]].reset_index(drop=True)
    catalogue.insert(0, "galaxy_id", data.galaxies[rows] + copy * (data.galaxies.max() + 1))
    catalogue.to_csv(folder / "catalogue.csv", index=False)
    path = folder / f"images_{images}.yaml"
    files = {"images": "images.npy", "labels": "labels.npy", "catalogue": "catalogue.csv"}
    path.write_text(yaml.safe_dump({"data": files, "training": {"epochs": 1}}))
    return path


def measured(words: list[str], folder: Path) -> tuple[float, float]:
    """Peak memory of a command of ours in MiB, as the system counted it, and seconds."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
    start, peak = time.perf_counter(), 0
    process = subprocess.Popen([sys.executable, "-m", "deepmerge", *words], cwd=folder, env=environment, stdout=-3)
    watched = psutil.Process(process.pid)
    while process.poll() is None:
        with suppress(psutil.NoSuchProcess):
            peak = max(peak, watched.memory_info().rss)
        time.sleep(0.02)
    if process.returncode:
        raise RuntimeError(f"deepmerge {' '.join(words)} ended with exit status {process.returncode}")
    return peak / 2**20, time.perf_counter() - start


def run(folder: Path, sizes: list[int]) -> Iterator[Usage]:
    """Each command on each number of images."""
    for images in sizes:
        console.print(f"memory, {images:,} images")
        experiment = str(write_images(folder, images))
        words = {
            "train": ["train", experiment, "--out", "results"],
            "evaluate": ["evaluate", experiment, "--model", "results/run.json"],
            "gradcam": ["gradcam", experiment, "--model", "results/run.json"],
            "predict": ["predict", "images.npy", "--model", "results/run.json"],
        }
        for command in COMMANDS:
            usage = Usage(command, images, *measured(words[command], folder))
            console.print(f"  {command}: {usage.memory:.0f} MiB, {usage.seconds:.1f} s", style="dim")
            yield usage


def reading(folder: Path, rows: int) -> Iterator[Fact]:
    """Milliseconds to read an image at random places of the file that `run` left, from the disk and from the cache."""
    if not hasattr(os, "posix_fadvise"):
        return
    images = np.load(folder / "images.npy", mmap_mode="r")
    with (folder / "images.npy").open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    chosen = np.random.default_rng(0).choice(len(images), rows, replace=False)
    for where in ("disk", "cache"):
        start = time.perf_counter()
        for part in np.array_split(chosen, max(1, rows // 64)):
            gather(images, part)
        each = 1e3 * (time.perf_counter() - start) / rows
        yield Fact("reading", f"an image of {len(images):,} at random, from the {where}", each, "ms")


def sizes(quick: bool) -> list[int]:
    """Numbers of images to measure at."""
    return [1000, 2000] if quick else [ROWS, 3 * ROWS, 10 * ROWS]


def facts(usages: list[Usage]) -> list[Fact]:
    """Growth of memory from the smallest to the largest sample, and milliseconds for each image more."""
    found = []
    for command in COMMANDS:
        ours = sorted((u for u in usages if u.command == command), key=lambda u: u.images)
        first, last = ours[0], ours[-1]
        times = last.images / first.images
        found.append(Fact("memory", f"`{command}`, peak at {first.images:,} images", first.memory, "MiB"))
        grown = last.memory / first.memory
        found.append(Fact("memory", f"`{command}`, as much at {times:.0f} times as many", grown, "×", GROWTH))
        for a, b in itertools.pairwise(ours):
            each = 1e3 * (b.seconds - a.seconds) / (b.images - a.images)
            found.append(Fact("memory", f"`{command}`, each image from {a.images:,} to {b.images:,}", each, "ms"))
    return found


@canvas.styled
def figure(usages: list[Usage]) -> Figure:
    """Peak memory, and time for each image, over the number of images."""
    colours = dict(zip(COMMANDS, (canvas.BLUE, canvas.VERMILLION, canvas.GREEN, canvas.PURPLE), strict=True))
    drawn = canvas.canvas(canvas.PAGE, 2.6, "Memory and time as the data grow", None)
    memory, seconds = drawn.subplots(1, 2)
    for command, colour in colours.items():
        ours = sorted((u for u in usages if u.command == command), key=lambda u: u.images)
        images = [u.images for u in ours]
        memory.plot(images, [u.memory / 1024 for u in ours], "o-", label=command, color=colour, markersize=4)
        seconds.plot(images, [1e3 * u.seconds / u.images for u in ours], "o-", color=colour, markersize=4)
    memory.set_ylabel("peak memory (GiB)")
    seconds.set_ylabel("whole command, for each image (ms)")
    for axes in (memory, seconds):
        axes.set(xlabel="images", xscale="log", ylim=(0, None))
        axes.set_xticks(images, [f"{n:,}" for n in images])
        axes.minorticks_off()
    memory.legend(loc="lower right")
    return drawn
