"""What is gained by doing pieces of work side by side: trainings, and images to score."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.measure import Fact, console
from deepmerge import cluster, config
from deepmerge.data import dataset as datasets
from deepmerge.data import protocols
from deepmerge.data.demo.simulate import simulate
from deepmerge.jobs import shards, trial
from deepmerge.model import devices, network, saved, stretch

TOPIC, PORT = "cluster", 8798
WORKERS = 2


def run(chosen: Collection[str], quick: bool) -> list[Fact]:
    """Facts about this process, two processes, and two workers started by hand as on two machines."""
    if TOPIC not in chosen:
        return []
    console.print("side by side")
    devices.prepare()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        simulate(folder, galaxies=60, merger_fraction=0.5, workers=1)
        return [*trainings(folder, 1 if quick else 20), *scoring(folder, 200 if quick else 16000)]


@contextmanager
def rooms() -> Iterator[dict[str, cluster.Room]]:
    """The three places, ready to work."""
    dask = [sys.executable, "-m"]
    address = f"tcp://127.0.0.1:{PORT}"
    words = ["--host", "127.0.0.1", "--no-dashboard"]
    with ExitStack() as stack:

        def start(*command: str) -> None:
            process = subprocess.Popen([*dask, *command, *words], stderr=subprocess.DEVNULL)
            stack.callback(process.wait)
            stack.callback(process.terminate)

        start("distributed.cli.dask_scheduler", "--port", str(PORT))
        for _ in range(WORKERS):
            start("distributed.cli.dask_worker", address, "--nthreads", "1")
        yield {
            "this process": stack.enter_context(cluster.opened(1)),
            f"{WORKERS} processes": stack.enter_context(cluster.opened(WORKERS)),
            f"{WORKERS} `dask worker`": stack.enter_context(cluster.opened(address)),
        }


def trainings(folder: Path, epochs: int) -> Iterator[Fact]:
    """Seconds of four folds, one after the other with all threads, and side by side with one thread each."""
    files = config.Data(
        images=folder / "noisy_2filt_X.npy", labels=folder / "noisy_2filt_y.npy", catalogue=folder / "catalogue.csv"
    )
    experiment = config.Experiment(name="bench", data=files).with_settings({"epochs": epochs})
    data = datasets.read(files, "bench")
    pieces = [
        trial.piece_of(trial.Order("", experiment, data, split)) for split in protocols.cross(data, experiment.split, 4)
    ]
    with rooms() as places:
        for name, room in places.items():
            seconds = [0.0, 0.0]
            for turn in range(2):  # the first time TensorFlow is imported, and networks are traced
                began = time.perf_counter()
                for piece in pieces:
                    room.submit(piece, heard=lambda said: None)
                for _ in pieces:
                    room.next().result()
                seconds[turn] = time.perf_counter() - began
            yield Fact(TOPIC, f"4 trainings, {name}", seconds[1], "s")


def scoring(folder: Path, count: int) -> Iterator[Fact]:
    """Images per second into a Parquet data set."""
    images = np.load(folder / "noisy_2filt_X.npy")
    images = np.tile(images, (-(-count // len(images)), 1, 1, 1))[:count]
    np.save(folder / "many.npy", images)
    pixels = stretch.measure(np.moveaxis(images[:64], 1, -1), "standard")
    model = saved.packed(network.build((75, 75, 2), config.Network(), pixels))
    scored = shards.Scored({}, None, None, None)
    step = count // 8
    with rooms() as places:
        for name, room in places.items():
            sent = room.send(model)
            seconds = [0.0, 0.0]
            for turn in range(2):
                began = time.perf_counter()
                for number in range(8):
                    rows, part = range(number * step, (number + 1) * step), folder / f"part-{number}.parquet"
                    room.submit(shards.Shard(folder / "many.npy", rows, pd.DataFrame(), part, scored), sent=sent)
                for _ in range(8):
                    room.next().result()
                seconds[turn] = time.perf_counter() - began
            yield Fact(TOPIC, f"images scored, {name}", 8 * step / seconds[1], "1/s")
