"""What a command costs beside the work itself: start-up, `mlflow run`, tracking."""

import inspect
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

from benchmarks.measure import Fact, console, interleaved

ROOT = Path(__file__).parents[1]


def startup(repeats: int) -> Iterator[Fact]:
    """Seconds until the help is there."""
    console.print("start-up")
    works = {"--help": [], "train --help": ["train"]}
    calls = {
        name: lambda words=words: subprocess.run(
            [sys.executable, "-m", "deepmerge", *words, "--help"], stdout=subprocess.DEVNULL, check=True
        )
        for name, words in works.items()
    }
    seconds = interleaved(calls, repeats)
    yield Fact("start-up", "`deepmerge --help`", median(seconds["--help"]), "s", 0.3)
    yield Fact("start-up", "`deepmerge train --help`", median(seconds["train --help"]), "s")


def launching(repeats: int) -> Iterator[Fact]:
    """Seconds that `mlflow run` adds to the same command."""
    console.print("mlflow run")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "project")
        hidden = shutil.ignore_patterns(".git", ".venv", "mlruns", "mlflow.db*", "optuna.db*", ".dvc", "results")
        shutil.copytree(ROOT, copy, ignore=hidden)
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
        environment |= {"PYTHONPATH": str(copy), "MLFLOW_TRACKING_URI": f"sqlite:///{copy}/mlflow.db"}

        def call(*words: str) -> None:
            subprocess.run(words, cwd=copy, env=environment, capture_output=True, check=True)

        works = {
            "alone": lambda: call(sys.executable, "-m", "deepmerge", "train", "pristine", "--epochs", "1"),
            "mlflow run": lambda: call("mlflow", "run", ".", "-e", "train", "-P", "epochs=1"),
        }
        seconds = interleaved(works, repeats)
    yield Fact("launching", "`deepmerge train pristine --epochs 1`", median(seconds["alone"]), "s")
    more = seconds["mlflow run"] - seconds["alone"]
    yield Fact("launching", "`mlflow run . -e train -P epochs=1` above it", median(more), "s", 8.0)


class Stopwatch:
    """Adds up the time in the functions of a module, each call within another counted once."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._depth = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count what happens here."""
        self._depth += 1
        start = time.perf_counter()
        try:
            yield
        finally:
            self._depth -= 1
            if not self._depth:
                self.seconds += time.perf_counter() - start

    def watch(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, or context manager whose body does not count, watched."""
        if not inspect.isgeneratorfunction(inspect.unwrap(function)):

            @wraps(function)
            def watched(*arguments: Any, **named: Any) -> Any:
                with self.running():
                    return function(*arguments, **named)

            return watched

        @contextmanager
        def entered(*arguments: Any, **named: Any) -> Iterator[Any]:
            manager = function(*arguments, **named)
            with self.running():
                value = manager.__enter__()
            try:
                yield value
            finally:
                with self.running():
                    manager.__exit__(None, None, None)

        return entered


def tracking(epochs: int, images: int) -> Iterator[Fact]:
    """The share of MLflow in a whole training, from reading the images to the last figure."""
    console.print("tracking")
    from benchmarks.memory import write_images
    from deepmerge import config

    with tempfile.TemporaryDirectory() as folder:
        samples = {"the demo sample": "pristine", f"{images:,} images": str(write_images(Path(folder), images))}
        for name, dataset in samples.items():
            whole, share = _tracked(config.load(dataset, {"epochs": epochs}), Path(folder))
            work = f"a training of {epochs} epochs on {name}"
            yield Fact("tracking", work, whole, "s")
            most = 3.0 if dataset != "pristine" else None  # what MLflow does takes as long for a small sample
            yield Fact("tracking", f"MLflow in {work}", 100 * share / whole, "%", most)


def _tracked(experiment: Any, folder: Path) -> tuple[float, float]:
    """Seconds of a training job, and the seconds of it in the functions of tracking.runs."""
    import mlflow

    from deepmerge.jobs.train import train
    from deepmerge.tracking import runs

    watch = Stopwatch()
    before = {name: value for name, value in vars(runs).items() if inspect.isfunction(value) and name[0] != "_"}
    ours = {name: value for name, value in before.items() if inspect.unwrap(value).__module__.startswith(runs.__name__)}
    with mock.patch.dict(os.environ, {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}):
        runs.connect()
        mlflow.search_experiments()  # makes the database, once, which takes two seconds
        watched: dict[str, Any] = {name: watch.watch(value) for name, value in ours.items()}
        with mock.patch.multiple(runs, **watched):
            start = time.perf_counter()
            train(experiment)
            return time.perf_counter() - start, watch.seconds


def run(topics: set[str], quick: bool) -> Iterator[Fact]:
    """All facts of the topics asked for."""
    if "start-up" in topics:
        yield from startup(2 if quick else 7)
    if "launching" in topics:
        yield from launching(1 if quick else 2)
    if "tracking" in topics:
        yield from tracking(2 if quick else 20, 1500 if quick else 15_426)
