"""Tuning as a user runs it: real processes, which get killed, here and on a Dask cluster; on sqlite and PostgreSQL."""

import contextlib
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import mlflow
import numpy as np
import optuna
import pandas as pd
import psutil
import pytest
import yaml
from conftest import environment, free_port
from mlflow.tracking import MlflowClient
from optuna.trial import TrialState
from test_cluster import scheduler, started

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
EPOCHS = 20  # enough that a trial can be caught in the act, and no more than the patience
QUICK = ("--epochs", str(EPOCHS), "--batch-size", "32", "--learning-rate", "0.003", "--folds", "1")
RUNNING, COMPLETE = TrialState.RUNNING, TrialState.COMPLETE
DEADLINE = 240  # seconds for anything to happen


class Desk:
    """A folder with a small sample in it, in which `deepmerge tune tiny.yaml` is typed."""

    def __init__(self, folder, experiment):
        self.folder = folder
        for file in experiment.parent.iterdir():
            shutil.copy(file, folder)
        self.storage = f"sqlite:///{folder}/optuna.db"
        self.tracking = f"sqlite:///{folder}/mlflow.db"
        self.opened = None

    def start(self, trials, *words, workers=2, seeds=0, limit=None, quick=QUICK, **variables):
        """Start tuning in a process group of its own."""

        def limited():
            signal.signal(signal.SIGINT, signal.default_int_handler)  # a test in the background may have it ignored
            if limit is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

        command = [sys.executable, "-m", "deepmerge", "tune", "tiny.yaml", "--trials", str(trials), *quick, *words]
        return subprocess.Popen(
            [*command, "--cluster", str(workers), "--seeds", str(seeds)],
            cwd=self.folder,
            env=environment(PYTHONPATH=str(ROOT), **variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=limited,
        )

    def tune(self, trials, *words, **how):
        process = self.start(trials, *words, **how)
        out, errors = process.communicate(timeout=DEADLINE)
        assert process.returncode == 0, out + errors
        return out

    @property
    def study(self):
        if self.opened is None:  # each opening holds connections, of which a server has a hundred
            self.opened = optuna.storages.RDBStorage(self.storage)
        [name] = optuna.get_all_study_names(self.opened)
        return optuna.load_study(study_name=name, storage=self.opened)

    def trials(self, *states):
        """Trials in these states."""
        return self.study.get_trials(deepcopy=False, states=states or None)

    def wait_for_trials(self, number, state, process, also=lambda trial: True):
        deadline = time.monotonic() + DEADLINE
        found = []
        while len(found) < number:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline, "nothing happened"
            time.sleep(0.1)
            if self.has_begun:  # before, its databases may be half made, and looking would make tables too
                found = [trial for trial in self.trials(state) if also(trial)]
        return found

    @property
    def has_begun(self):
        """Whether the command has opened the run of the study, when both databases are there."""
        there = not self.tracking.startswith("sqlite") or (self.folder / "mlflow.db").exists()
        return there and bool(self.runs("study"))

    def runs(self, kind):
        client = MlflowClient(self.tracking)
        return client.search_runs([e.experiment_id for e in client.search_experiments()], f"tags.kind = '{kind}'")

    def check(self, trials):
        """The study is full, nothing counts twice, and MLflow tells the same."""
        finished = [trial for trial in self.trials() if trial.state.name in ("COMPLETE", "PRUNED")]
        assert len(finished) == trials
        assert len({tuple(trial.params.items()) for trial in finished}) == trials
        assert self.trials(RUNNING) == []
        runs = {run.info.run_id: run for run in self.runs("trial")}
        status = {"COMPLETE": "FINISHED", "PRUNED": "KILLED"}
        for trial in finished:
            assert runs.pop(trial.user_attrs["run_id"]).info.status == status[trial.state.name]
        assert {run.info.status for run in runs.values()} <= {"KILLED", "FAILED"}
        [parent] = self.runs("study")
        assert parent.info.status == "FINISHED"
        assert {run.data.tags["mlflow.parentRunId"] for run in self.runs("trial")} == {parent.info.run_id}
        return parent


@pytest.fixture
def desk(tmp_path, write_sample):
    space = {"dropout": {"low": 0.0, "high": 0.6}, "learning_rate": {"low": 1e-3, "high": 1e-2, "log": True}}
    experiment = write_sample(tuning={"space": space, "pruning": False})
    (tmp_path / "desk").mkdir()
    return Desk(tmp_path / "desk", experiment)


def workers_of(process):
    """The processes that train for the command; it has other children, such as git."""
    found = []
    for child in psutil.Process(process.pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child)
    return found


def running(trial):
    return "run_id" in trial.user_attrs


def retried(trial):
    """Number of the trial that was cut off of which this one is the next try."""
    return trial.system_attrs.get("failed_trial")


def test_a_study_is_made_used_and_continued(desk):
    out = desk.tune(3)
    parent = desk.check(3)
    assert parent.data.metrics["trials_complete"] == 3
    best = min(trial.values[0] for trial in desk.trials())
    assert parent.data.metrics["best_trial_val_log_loss"] == best
    assert parent.data.metrics["first_trial_val_log_loss"] == desk.trials()[0].values[0]
    assert re.search(rf"best_trial_val_log_loss +{best:.4g}", out)
    again = desk.study.user_attrs["winner_again"]
    assert again["trial"] == desk.study.best_trial.number
    assert again["value"] == parent.data.metrics["winner_again_val_log_loss"] != best
    assert not [name for run in [parent, *desk.runs("trial")] for name in run.data.metrics if name.startswith("test_")]
    folder = Path(parent.info.artifact_uri.removeprefix("file://"))
    assert {file.name for file in (folder / "figures").iterdir()} >= {"history.png", "slices.png", "curves.png"}
    assert len(pd.read_csv(folder / "study.csv")) == 3
    tuned = yaml.safe_load((desk.folder / "tuned" / "tiny.yaml").read_text())
    assert tuned["settings"] == desk.study.best_params

    desk.tune(4, "--out", "results", seeds=2)
    desk.check(4)
    assert len(pd.read_csv(desk.folder / "results" / "study.csv")) == 4
    client = MlflowClient(desk.tracking)
    winners = client.search_runs(["1"], f"tags.study = '{desk.study.study_name}' and tags.trained = 'yes'")
    assert {run.data.params["seed"] for run in winners} == {"0", "1"}
    [version] = client.search_model_versions("name = 'deepmerge-tiny'")
    better = min(winners, key=lambda run: run.data.metrics["best_val_log_loss"])
    assert version.run_id == better.info.run_id
    assert float(version.tags["dropout"]) == desk.study.best_params["dropout"]
    for run in winners:
        assert run.data.params["params"] == "tuned"
        assert "test_auc" in run.data.metrics

    again = desk.tune(4, seeds=2)
    assert better.info.run_id in again  # nothing is trained twice
    assert len(client.search_runs(["1"], "tags.trained = 'yes'")) == 2


def test_tuned_settings_are_used_by_name_and_data_that_changed_are_noticed(desk):
    desk.tune(2)
    done = subprocess.run(
        [sys.executable, "-m", "deepmerge", "train", "tiny.yaml", "--params", "tuned", "--epochs", "1"],
        cwd=desk.folder,
        env=environment(PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        check=True,
    )
    client = MlflowClient(desk.tracking)
    [run] = client.search_runs(["1"], "tags.trained = 'yes'")
    assert float(run.data.params["dropout"]) == desk.study.best_params["dropout"]
    assert run.data.params["epochs"] == "1"
    assert run.data.tags["study"] == desk.study.study_name
    assert "found on other data" not in done.stderr

    name = desk.study.study_name
    images = np.load(desk.folder / "tiny_X.npy")
    images[0, 0, 0, 0] += 1
    np.save(desk.folder / "tiny_X.npy", images)
    process = desk.start(2, "--study", name)
    assert "got other data_fingerprint" in process.communicate(timeout=DEADLINE)[1]
    assert process.returncode == 2


def test_a_study_survives_the_loss_of_a_worker_of_the_command_and_of_everything(desk):
    process = desk.start(5)
    desk.wait_for_trials(2, RUNNING, process, lambda trial: trial.intermediate_values)
    workers_of(process)[0].kill()  # its trial is trained anew by another, and no run tells of it
    desk.wait_for_trials(1, COMPLETE, process)

    # Without the command no worker goes on.
    workers = workers_of(process)
    assert workers
    begun = {trial.number for trial in desk.wait_for_trials(1, RUNNING, process, running)}
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive
    assert begun <= {trial.number for trial in desk.trials(RUNNING)}

    # A power cut leaves trials that seem to run.
    process = desk.start(5)
    desk.wait_for_trials(1, RUNNING, process, lambda trial: trial.number not in begun and running(trial))
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert desk.trials(RUNNING)

    desk.tune(5)
    desk.check(5)
    assert {retried(trial) for trial in desk.trials()} >= begun


def test_a_second_command_is_refused_while_the_first_goes_on(desk):
    process = desk.start(2, workers=1)
    desk.wait_for_trials(1, RUNNING, process, running)
    second = desk.start(2, workers=1)
    _, errors = second.communicate(timeout=DEADLINE)
    assert second.returncode == 2
    assert "one command at a time can work on a study" in errors
    assert "Traceback" not in errors
    assert process.wait(DEADLINE) == 0
    desk.check(2)


def test_ctrl_c_closes_the_books_and_the_same_command_goes_on(desk):
    process = desk.start(4)
    desk.wait_for_trials(1, RUNNING, process, lambda trial: trial.intermediate_values)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=DEADLINE)
    assert process.returncode == 130
    # Where a signal meets the garbage collector, Python says that it ignores it; then it is sent again.
    assert errors.count("Traceback") == errors.count("Exception ignored")
    assert desk.trials(RUNNING) == []
    [parent] = desk.runs("study")
    assert parent.info.status == "KILLED"
    assert {run.info.status for run in desk.runs("trial")} <= {"KILLED", "FINISHED"}
    desk.tune(4)
    desk.check(4)


def test_a_full_disk_ends_it_in_one_line_and_with_space_it_goes_on(desk):
    """No file may grow beyond the size that the databases have after one trial."""
    desk.tune(1)
    size = max(Path(desk.folder, name).stat().st_size for name in ("optuna.db", "mlflow.db"))
    process = desk.start(40, limit=size + 4096)
    _, errors = process.communicate(timeout=DEADLINE)
    assert process.returncode == 1, errors
    assert [line for line in errors.splitlines() if line.startswith("Error:")]
    assert "Traceback" not in errors
    done = len([trial for trial in desk.trials() if trial.state.name == "COMPLETE"])
    assert done < 40
    desk.tune(done + 2)
    desk.check(done + 2)


def test_with_one_worker_the_same_seed_is_the_same_study_also_when_interrupted(desk):
    desk.tune(3, workers=1)
    whole = [(trial.params, trial.values) for trial in desk.trials()]
    for name in ("optuna.db", "mlflow.db"):
        Path(desk.folder, name).unlink()
    desk.opened = None
    process = desk.start(3, workers=1)
    desk.wait_for_trials(1, RUNNING, process, lambda trial: trial.number == 1 and running(trial))
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    desk.tune(3, workers=1)
    desk.check(3)
    broken = [(trial.params, trial.values) for trial in desk.trials() if trial.values]
    assert broken == whole


def test_few_validation_galaxies_are_not_trusted_and_folds_take_their_place(desk):
    desk.tune(1, "--folds", "3")
    [folded] = desk.trials()
    desk.tune(1, quick=QUICK[: QUICK.index("--folds")])
    assert [trial.values for trial in desk.trials()] == [folded.values]  # the same study
    [study] = desk.runs("study")
    assert study.data.params["folds"] == "3"


def test_folds_are_averaged(desk):
    desk.tune(2, "--folds", "2", "--objective", "auc")
    desk.check(2)
    client = MlflowClient(desk.tracking)
    for trial in desk.trials():
        history = sorted(client.get_metric_history(trial.user_attrs["run_id"], "val_auc"), key=lambda m: m.step)
        assert [metric.step for metric in history] == list(range(1, 2 * EPOCHS + 1))
        kept = [history[last].value for last in (EPOCHS - 1, 2 * EPOCHS - 1)]  # each fold's at its end
        assert trial.values[0] == pytest.approx(np.mean(kept))


# --- PostgreSQL -----------------------------------------------------------------------------------------------


def postgres_programs():
    """Folder of initdb and pg_ctl: on the path, or where Debian puts them."""
    found = shutil.which("initdb")
    candidates = [Path(found).resolve().parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return candidates[-1] if candidates else None


@pytest.fixture
def postgres():
    """URL of a PostgreSQL server on loopback, made for one test."""
    programs = postgres_programs()
    if programs is None:
        if os.environ.get("DEEPMERGE_REQUIRE_POSTGRES"):
            pytest.fail("there should be a PostgreSQL server, got none: install Debian's package postgresql")
        pytest.skip("no PostgreSQL server on this machine (Debian: apt install postgresql)")
    # PostgreSQL refuses to run as root.
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    folder = Path(tempfile.mkdtemp(prefix="deepmerge-postgres-"))
    if as_user:
        shutil.chown(folder, "postgres")
    port = free_port()

    def run(*words):
        subprocess.run([*as_user, *map(str, words)], check=True, cwd=folder, stdout=subprocess.DEVNULL)

    run(programs / "initdb", "-D", folder / "data", "-U", "me", "-A", "trust", "--no-sync")
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    run(programs / "pg_ctl", "-D", folder / "data", "-l", folder / "log", "-o", options, "-w", "start")
    try:
        yield f"postgresql+psycopg://me@127.0.0.1:{port}/postgres"
    finally:
        run(programs / "pg_ctl", "-D", folder / "data", "-m", "immediate", "stop")
        shutil.rmtree(folder)


@pytest.fixture
def tracking_server(desk):
    """URL of an MLflow server on loopback, as several machines share one."""
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"],
        cwd=desk.folder,
        env=environment(MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + DEADLINE
    while True:
        try:
            MlflowClient(url).search_experiments()
            break
        except mlflow.exceptions.MlflowException:
            assert server.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.5)
    yield url
    os.killpg(server.pid, signal.SIGTERM)
    server.wait()


def test_a_dask_cluster_trains_through_kills_of_a_worker_and_of_the_command_with_postgresql_and_an_mlflow_server(
    desk, postgres, tracking_server, tmp_path
):
    """The workers know neither the database nor MLflow: only the command does."""
    desk.storage, desk.tracking = postgres, tracking_server
    words = ("--storage", postgres)
    on_loopback = ("--host", "127.0.0.1", "--no-dashboard", "--nthreads", "1", "--local-directory", str(tmp_path))
    with (
        scheduler() as address,
        started("dask_worker", address, *on_loopback) as nanny,
        started("dask_worker", address, *on_loopback),
    ):
        how = {"workers": address, "MLFLOW_TRACKING_URI": tracking_server}
        process = desk.start(8, *words, **how)
        desk.wait_for_trials(1, COMPLETE, process)
        desk.wait_for_trials(2, RUNNING, process, running)
        for child in workers_of(nanny):
            child.kill()
        desk.wait_for_trials(3, COMPLETE, process)

        process.send_signal(signal.SIGSTOP)  # or it would be done by the time that the other one has started
        second = desk.start(8, *words, **how)
        assert "one command at a time can work on a study" in second.communicate(timeout=DEADLINE)[1]
        assert second.returncode == 2
        process.send_signal(signal.SIGCONT)

        desk.wait_for_trials(1, RUNNING, process, running)
        process.kill()
        process.communicate()
        assert desk.trials(RUNNING)
        desk.tune(8, *words, **how)
        desk.check(8)
