"""Fixtures that several test modules share."""

import os
import shutil
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from unittest import mock

# TensorFlow reads it at import; tests of stages would otherwise drown in its greetings.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import settings
from hypothesis import strategies as st
from scipy import stats

# The same examples in every run, and no limit of time for each: machines differ.
settings.register_profile("repeatable", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("repeatable")

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent

GALAXIES = {"past": 14, "future": 10, "non-merger": 36}
VIEWS = 2


def blob(size: int, x: float, y: float, width: float) -> np.ndarray:
    rows, columns = np.mgrid[:size, :size] - (size - 1) / 2
    return np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * width**2))


@pytest.fixture
def write_sample(tmp_path: Path) -> Callable[..., Path]:
    """Write a small sample that can be learned (mergers have two nuclei); returns its experiment file."""

    def write(name: str = "tiny", size: int = 32, filters: int = 2, catalogue: bool = True, **settings: object) -> Path:
        rng = np.random.default_rng(11)
        stages = np.repeat(list(GALAXIES), list(GALAXIES.values()))
        images = np.empty((len(stages) * VIEWS, filters, size, size), np.float32)
        for i, stage in enumerate(np.repeat(stages, VIEWS)):
            scene = 20 * blob(size, 0, 0, 2.0)
            if stage != "non-merger":
                angle = rng.uniform(0, 2 * np.pi)
                scene += 15 * blob(size, 7 * np.cos(angle), 7 * np.sin(angle), 1.6)
            images[i] = scene + rng.normal(0, 0.3, (filters, size, size))
        folder = tmp_path / "sample"
        folder.mkdir(exist_ok=True)
        np.save(folder / f"{name}_X.npy", images)
        np.save(folder / f"{name}_y.npy", np.repeat(stages != "non-merger", VIEWS).astype(np.uint8))
        data = {"images": f"{name}_X.npy", "labels": f"{name}_y.npy"}
        if catalogue:
            ids = np.repeat(100 + np.arange(len(stages)), VIEWS)
            table = {
                "galaxy_id": ids,
                "view": np.tile(np.arange(VIEWS), len(stages)),
                "stage": np.repeat(stages, VIEWS),
            }
            pd.DataFrame(table).to_csv(folder / f"{name}.csv", index=False)
            data["catalogue"] = f"{name}.csv"
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump({"data": data, **settings}))
        return path

    return write


@pytest.fixture
def no_warnings():
    """Let any warning, matplotlib's among them, fail the test."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def texts(figure):
    """Everything written on a figure, with single spaces."""
    from matplotlib.text import Text

    return [" ".join(text.get_text().split()) for text in figure.findobj(Text) if text.get_visible()]


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    """A tracking store without anything in it, made once, since that takes two seconds; its file."""
    from deepmerge.tracking import database

    path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    database.make_store(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="module")
def database(tmp_path_factory, empty_database):
    """A tracking store with the project's experiment that all tests of a module share; its URI."""
    from mlflow.tracking import MlflowClient

    from deepmerge.tracking import plugin

    folder = tmp_path_factory.mktemp("store")
    shutil.copy(empty_database, folder)
    uri = f"sqlite:///{folder}/mlflow.db"
    MlflowClient(uri).create_experiment(plugin.EXPERIMENT, (folder / "artifacts").as_uri())
    return uri


@pytest.fixture
def client(database, monkeypatch):
    """Point MLflow at the module's store as a user does, and leave none of its global state behind."""
    import mlflow

    launcher = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME")
    # A run that ends, or begins, changes the environment behind pytest's back.
    with mock.patch.dict(os.environ, {"MLFLOW_TRACKING_URI": database}):
        for name in launcher:
            os.environ.pop(name, None)
        monkeypatch.setattr("mlflow.tracking.fluent._active_experiment_id", None)
        mlflow.set_tracking_uri(database)
        yield mlflow.MlflowClient()
        while mlflow.active_run():
            mlflow.end_run()
        mlflow.set_tracking_uri(None)


def environment(**variables):
    """A user's environment with this Python on the path, no conda, and nothing told to MLflow."""
    ours = ("MLFLOW_", "CONDA", "DEEPMERGE_", "PYTHONPATH", "VIRTUAL_ENV")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    folders = [str(BIN), *(f for f in os.environ["PATH"].split(os.pathsep) if not Path(f, "conda").exists())]
    return {**kept, "PATH": os.pathsep.join(folders), "MLFLOW_DISABLE_TELEMETRY": "true", **variables}


def free_port():
    """A port on loopback that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Project:
    """A copy of the project, committed to a repository of its own, with a small simulated sample."""

    def __init__(self, folder):
        self.folder = folder

    def command(self, *words, **variables):
        if words[0] == "deepmerge":  # the script is of an editable install: let it take the code of the copy
            variables["PYTHONPATH"] = str(self.folder)
        return subprocess.run(
            words, cwd=self.folder, env=environment(**variables), capture_output=True, text=True, check=False
        )

    def succeed(self, *words, **variables):
        done = self.command(*words, **variables)
        assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}\n{done.stderr}"
        return done

    def commit(self, message):
        self.succeed("git", "add", ".")
        identity = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "core.hooksPath=/dev/null")
        self.succeed("git", *identity, "commit", "--quiet", "--message", message)

    def runs(self):
        """All runs, newest first."""
        client = self._client()
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        return client.search_runs(experiments, order_by=["start_time DESC"])

    def artifact(self, run, path):
        return Path(run.info.artifact_uri.removeprefix("file://"), path)

    def experiment(self, run):
        return self._client().get_experiment(run.info.experiment_id).name

    def _client(self):
        # Tests of plain functions load this file too and need no MLflow.
        from mlflow.tracking import MlflowClient

        return MlflowClient(f"sqlite:///{self.folder}/mlflow.db")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A Project for the tests of one module."""
    copy = Project(tmp_path_factory.mktemp("checkout"))
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in listed.stdout.rstrip("\0").split("\0"):
        if (ROOT / name).is_file():
            (copy.folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy.folder / name)
    copy.succeed("git", "init", "--quiet")
    copy.commit("A copy")
    copy.succeed(
        *("python", "-m", "deepmerge", "data", "simulate", "--galaxies", "120", "--merger-fraction", "0.4"),
    )
    return copy


def predictions(galaxies=120, views=4, *, scatter=1.0, shared=1.0, decimals=None, seed=0):
    """One merger in three; `shared` is the scatter that all views of a galaxy have in common."""
    rng = np.random.default_rng(seed)
    galaxy = np.repeat(rng.permutation(galaxies) + 1000, views)
    labels = (galaxy % 3 == 0).astype(int)
    offset = rng.normal(size=galaxies)[galaxy - 1000]
    logit = 2 * labels - 1 + shared * offset + scatter * rng.normal(size=len(galaxy))
    probabilities = 1 / (1 + np.exp(-logit))
    return labels, probabilities if decimals is None else probabilities.round(decimals), galaxy


def influences(measure, labels, galaxies):
    """What each galaxy adds to the numbers of ``measure(weights of the images)``, (G, …), and its stratum, (G,).

    By weighing it a little more and a little less: slow, and independent of how the product does it.
    """
    names, number = np.unique(galaxies, return_inverse=True)
    step, found = 1e-5, []
    for galaxy in range(len(names)):
        up, down = (np.array(measure(1 + sign * step * (number == galaxy)), float) for sign in (1, -1))
        found.append((up - down) / (2 * step))
    strata = [frozenset(np.asarray(labels)[number == galaxy].tolist()) for galaxy in range(len(names))]
    return np.array(found), np.unique([repr(sorted(one)) for one in strata], return_inverse=True)[1]


def spread_by_hand(influence, strata):
    """Standard error and Satterthwaite's degrees of freedom of one number, from influences (G,) and strata (G,)."""
    variances, freedoms = [], []
    for stratum in np.unique(strata):
        members = influence[strata == stratum]
        n, mean = len(members), sum(members) / len(members)
        second = sum((one - mean) ** 2 for one in members)
        if n == 1 or second < 1e-18:
            variances.append(members[0] ** 2 if n == 1 else 0.0)
            freedoms.append(1)
            continue
        kurtosis = n * sum((one - mean) ** 4 for one in members) / second**2
        variances.append(n / (n - 1) * second)
        freedoms.append(min(n - 1, 2 * n / (kurtosis - 1)) if kurtosis > 1 else n - 1)
    variance = sum(variances)
    if variance < 1e-18:
        return 0.0, np.nan
    return np.sqrt(variance), variance**2 / sum(v**2 / f for v, f in zip(variances, freedoms, strict=True))


def share_by_hand(value, influence, strata):
    """The interval of a share on the logit scale, NaN where nothing scatters."""
    error, freedom = spread_by_hand(influence, strata)
    if not (error > 0 and 1e-9 < value < 1 - 1e-9):
        return [np.nan, np.nan]
    middle, half = np.log(value / (1 - value)), stats.t.ppf(0.975, freedom) * error / value / (1 - value)
    return [1 / (1 + np.exp(-(middle - half))), 1 / (1 + np.exp(-(middle + half)))]


def measured_galaxies(galaxies=90, views=4, *, shared=1.0, slope=0.0, missing=0.0, seed=0):
    """Labels, probabilities, galaxies and a property of each image; one galaxy in three is a merger."""
    rng = np.random.default_rng(seed)
    galaxy = rng.permutation(np.repeat(np.arange(galaxies), views))
    labels = (galaxy % 3 == 0).astype(int)
    mass = rng.normal(10.3, 0.4, galaxies)
    offset = shared * rng.normal(size=galaxies) + slope * (mass - 10.3)
    logit = 2 * labels - 1 + offset[galaxy] + rng.normal(size=len(galaxy))
    values = mass[galaxy] + rng.normal(0, 0.1, len(galaxy))
    values[rng.random(len(galaxy)) < missing] = np.nan
    return labels, 1 / (1 + np.exp(-logit)), galaxy, values


@st.composite
def catalogues(draw):
    """A shuffled catalogue: 12 to 24 galaxies of each of two or three stages, 1 to 3 views of each, perhaps copies."""
    stages = draw(st.sampled_from([("past", "future", "non-merger"), ("merger", "non-merger")]))
    stage = [name for name in stages for _ in range(draw(st.integers(12, 24)))]
    views = draw(st.lists(st.integers(1, 3), min_size=len(stage), max_size=len(stage)))
    copies = draw(st.integers(1, 2))
    rows = [
        (galaxy, view, copy, stage[galaxy])
        for galaxy, count in enumerate(views)
        for view in range(count)
        for copy in range(copies)
    ]
    names = draw(st.sampled_from(["{}", "NGC {}", "{}b", "00{}"]))
    table = pd.DataFrame(rows, columns=["galaxy_id", "view", "copy", "stage"])
    if names != "{}":
        table["galaxy_id"] = table["galaxy_id"].map(names.format)
    return table.sample(frac=1, random_state=draw(st.integers(0, 99))).reset_index(drop=True)


def data_of(catalogue, side=4):
    """A data set of a catalogue, whose images hold their own row number in the upper left corner."""
    from deepmerge.data.dataset import Dataset

    images = np.zeros((len(catalogue), 1, side, side), np.float32)
    images[:, 0, 0, 0] = np.arange(len(catalogue))
    labels = (catalogue["stage"] != "non-merger").to_numpy().astype(np.uint8)
    return Dataset("s", images, labels, catalogue, None, "own", ("r",))


@pytest.fixture(scope="session")
def released():
    """The released sample's rows; three of four mergers are past, one is future."""
    from deepmerge.data.released import layout

    catalogue = layout.layout_catalogue()
    mergers = catalogue["stage"] != "non-merger"
    catalogue.loc[mergers, "stage"] = np.where(catalogue["galaxy_id"][mergers] % 4 > 0, "past", "future")
    return data_of(catalogue)


def within_the_page(figure):
    drawn = figure.get_tightbbox()
    return bool((drawn.min >= 0).all() and (drawn.max <= figure.get_size_inches()).all())


def shown_images(figure):
    return [np.ma.filled(axes.images[0].get_array(), np.nan) for axes in figure.axes if axes.images]
