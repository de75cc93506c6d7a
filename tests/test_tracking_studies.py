"""Studies, with functions in place of trainings."""

import contextlib
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import mlflow
import numpy as np
import optuna
import pytest
import yaml
from optuna.trial import TrialState

from deepmerge import config
from deepmerge.errors import InputError
from deepmerge.tracking import plugin, processes, runs, studies, study_storage
from deepmerge.tracking.trial_table import table

pytestmark = pytest.mark.usefixtures("client")
SPACE = {
    "dropout": {"low": 0.0, "high": 0.6},
    "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
    "batch_size": {"low": 16, "high": 128},
    "stretch": {"choices": ["asinh", "log"]},
}


class Diverged(Exception):
    pass


class DiskFull(Exception):
    pass


@pytest.fixture(autouse=True)
def in_haste(client, monkeypatch):
    monkeypatch.setattr(studies, "PAUSE", 0.02)
    monkeypatch.setattr(study_storage, "PAUSE", 0)
    mlflow.set_experiment(plugin.EXPERIMENT)


@pytest.fixture
def parent(client):
    """Id of a run that stands for the study."""
    experiment = client.get_experiment_by_name(plugin.EXPERIMENT).experiment_id
    return client.create_run(experiment, run_name="study").info.run_id


@pytest.fixture
def study(tmp_path):
    """Open a study of so many trials; the same name is the same study."""

    def open_study(trials, name="s", seed=7, epochs=4, **tuned):
        path = tmp_path / "mine.yaml"
        told = {"trials": trials, "space": SPACE, **tuned}
        data = {"images": "x.npy", "labels": "y.npy"}
        path.write_text(yaml.safe_dump({"data": data, "tuning": told, "training": {"seed": seed, "epochs": epochs}}))
        opened = studies.Study(f"sqlite:///{tmp_path}/optuna.db", name, config.load(str(path)))
        opened.begin_with(config.load(str(path)).first_trial())
        return opened

    return open_study


def bowl(params, report=None):
    """An objective to be minimised, 0 at dropout 0.3 and learning rate 1e-2."""
    return (params["dropout"] - 0.3) ** 2 + (np.log10(params["learning_rate"]) + 2) ** 2


def tried(study):
    return [trial.params for trial in study.trials() if studies.is_finished(trial)]


def children(client, parent):
    experiment = client.get_experiment_by_name(plugin.EXPERIMENT).experiment_id
    condition = f"tags.mlflow.parentRunId = '{parent}'"
    return client.search_runs([experiment], condition, order_by=["start_time ASC"])


@pytest.mark.slow
def test_a_study_ends_with_exactly_the_trials_that_were_asked_for_and_finds_better_ones(study, parent):
    opened = study(25)
    opened.work(bowl, parent, Diverged, {})
    assert opened.is_full
    values = [trial.values[0] for trial in opened.trials()]
    assert len(values) == 25
    assert opened.best().values[0] == min(values) < 0.05 < values[0]


def test_the_first_trial_has_the_experiments_own_settings(study, parent):
    opened = study(1)
    opened.work(bowl, parent, Diverged, {})
    own = {"dropout": 0.2, "learning_rate": 1e-3, "batch_size": 64, "stretch": "asinh"}
    assert tried(opened) == [own]


def test_settings_have_their_types_and_lie_in_the_search_space(study, parent):
    seen = []
    study(12).work(lambda params, report: seen.append(params) or 1.0, parent, Diverged, {})
    for params in seen:
        assert isinstance(params["batch_size"], int)
        assert 16 <= params["batch_size"] <= 128
        assert params["stretch"] in ("asinh", "log")
        assert 1e-4 <= params["learning_rate"] <= 1e-1
    assert len({params["dropout"] for params in seen}) == 12


def test_more_trials_are_added_to_those_of_an_earlier_call(study, parent):
    study(3).work(bowl, parent, Diverged, {})
    before = tried(study(3))
    study(3).work(lambda params, report: pytest.fail("the study is full"), parent, Diverged, {})
    study(5).work(bowl, parent, Diverged, {})
    assert tried(study(5))[:3] == before
    assert len(tried(study(5))) == 5


@pytest.mark.slow
@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit, DiskFull])
def test_an_interrupted_study_goes_on_as_if_it_had_not_been(study, parent, client, interruption):
    study(16, "whole").work(bowl, parent, Diverged, {})
    calls = []

    def interrupted(params, report):
        calls.append(params)
        if len(calls) in (1, 4, 13):  # the first; among the random ones; among those of the sampler
            raise interruption
        return bowl(params)

    for _ in range(3):
        with pytest.raises(interruption):
            study(16, "broken").work(interrupted, parent, Diverged, {})
    study(16, "broken").work(interrupted, parent, Diverged, {})
    assert tried(study(16, "broken")) == tried(study(16, "whole"))
    assert len(calls) == 19
    status = "FAILED" if interruption is DiskFull else "KILLED"
    cut_off = [run for run in children(client, parent) if "cut off" in run.data.tags.get("failure", "")]
    assert len(cut_off) == 3
    assert {run.info.status for run in cut_off} <= {status, "KILLED"}
    assert not [run for run in children(client, parent) if run.info.status == "RUNNING"]


def test_another_seed_is_another_study(study, parent):
    for name, seed in (("a", 1), ("b", 2)):
        study(4, name, seed=seed).work(bowl, parent, Diverged, {})
    assert tried(study(4, "a"))[1:] != tried(study(4, "b"))[1:]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), Diverged("loss was nan")])
def test_what_diverges_counts_as_failed_and_says_why(study, parent, client, bad):
    def objective(params, report):
        if len(children(client, parent)) == 2:
            if isinstance(bad, Exception):
                raise bad
            return bad
        return bowl(params)

    opened = study(3)
    opened.work(objective, parent, Diverged, {})
    assert table(opened)["state"].tolist() == ["complete", "failed", "complete"]
    assert opened.finished() == 3
    run = children(client, parent)[1]
    assert run.info.status == "FAILED"
    reason = table(opened)["reason"][1]
    assert reason
    assert reason in run.data.tags["failure"]
    assert opened.best().number != 1


def test_a_study_in_which_everything_diverges_ends(study, parent):
    opened = study(4)

    def objective(params, report):
        raise Diverged("always")

    opened.work(objective, parent, Diverged, {})
    assert table(opened)["state"].tolist() == ["failed"] * 4
    assert opened.best() is None
    assert opened.importances() == {}


def test_a_trial_behind_the_others_is_pruned_and_counts(study, parent, client):
    def objective(params, report):
        bad = len(children(client, parent)) == 7
        for epoch in range(1, 5):
            report(epoch, 9.0 if bad else 1.0 / epoch, {"val_log_loss": 9.0 if bad else 1.0 / epoch})
        return 0.25

    opened = study(7)
    opened.work(objective, parent, Diverged, {})
    assert table(opened)["state"].tolist() == ["complete"] * 6 + ["pruned"]
    assert opened.finished() == 7
    run = children(client, parent)[-1]
    assert run.info.status == "KILLED"
    assert "failure" not in run.data.tags
    history = client.get_metric_history(run.info.run_id, "val_log_loss")
    assert [(m.step, m.value) for m in history] == [
        (1, 9.0),
        (2, 9.0),
        (3, 9.0),
    ]  # the first half of the epochs is spared
    assert study(7, "unpruned", pruning=False).optuna.pruner.__class__ is optuna.pruners.NopPruner


def test_every_trial_is_a_run_below_that_of_the_study(study, parent, client):
    def objective(params, report):
        runs.log_parameters(params)
        report(1, 0.5, {"val_auc": 0.7})
        return bowl(params)

    opened = study(2)
    opened.work(objective, parent, Diverged, {"kind": "trial", "study": "s"})
    found = children(client, parent)
    assert [run.info.run_name for run in found] == ["trial-0", "trial-1"]
    for run, trial in zip(found, opened.trials(), strict=True):
        assert run.info.status == "FINISHED"
        assert run.data.params == {name: str(value) for name, value in trial.params.items()}
        assert run.data.metrics["trial_log_loss"] == trial.values[0]
        assert run.data.metrics["val_auc"] == 0.7
        assert run.data.tags.items() >= {"kind": "trial", "study": "s", "trial": str(trial.number)}.items()
    assert table(opened)["run_id"].tolist() == [run.info.run_id for run in found]


@pytest.mark.slow
def test_the_trial_of_a_dead_worker_is_queued_again_and_its_run_closed(study, parent, client):
    """A worker that is killed while it works: a process of its own that ends without a word."""
    opened = study(3)
    experiment = opened.url.removeprefix("sqlite:///").replace("optuna.db", "mine.yaml")
    code = f"""
import os
import mlflow
from deepmerge import config
from deepmerge.tracking import studies
mlflow.set_experiment({plugin.EXPERIMENT!r})
opened = studies.Study({opened.url!r}, "s", config.load({experiment!r}))
opened.work(lambda params, report: os.kill(os.getpid(), 9), {parent!r}, ZeroDivisionError, {{}})
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert [run.info.status for run in children(client, parent)] == ["RUNNING"]
    assert opened.trials()[0].state == TrialState.RUNNING
    opened.reap()
    opened.reap()
    [run] = children(client, parent)
    assert (run.info.status, run.data.tags["failure"]) == ("KILLED", "cut off; tried again in another run")
    assert opened.finished() == 0
    opened.work(bowl, parent, Diverged, {})
    assert table(opened)["state"].tolist() == ["cut off", "complete", "complete", "complete"]
    assert tried(opened)[0] == opened.trials()[0].params


def test_the_trial_of_a_living_worker_is_left_alone(study, parent):
    def objective(params, report):
        study(1).reap()
        return bowl(params)

    opened = study(1)
    opened.work(objective, parent, Diverged, {})
    assert table(opened)["state"].tolist() == ["complete"]


@pytest.mark.parametrize("reports", [True, False])
def test_a_worker_that_was_taken_for_dead_drops_its_result_and_goes_on(study, parent, client, monkeypatch, reports):
    lost = []

    def objective(params, report):
        if not lost:
            lost.append(params)
            with monkeypatch.context() as patched:
                patched.setattr(processes, "is_gone", lambda worker: True)
                study(2).reap()
            if reports:
                report(1, 0.0, {})
            return -1.0
        return bowl(params)

    opened = study(2)
    opened.work(objective, parent, Diverged, {})
    assert table(opened)["state"].tolist() == ["cut off", "complete", "complete"]
    assert tried(opened)[0] == lost[0]
    assert min(trial.values[0] for trial in opened.trials() if trial.values) >= 0


def test_two_workers_that_ask_at_the_same_moment_do_not_get_the_same_queued_trial(study, parent, monkeypatch):
    """Both are held where Optuna has read that the trial waits and has not yet taken it, if they can get there."""
    storages = [study(2).optuna._storage, study(2).optuna._storage]  # each with a connection of its own
    storages = [getattr(storage, "_backend", storage) for storage in storages]
    [trial] = study(2).optuna.get_trials(states=[TrialState.WAITING])
    both_have_read = threading.Barrier(2)
    checked = type(storages[0]).check_trial_is_updatable

    def slow(storage, trial_id, state):
        checked(storage, trial_id, state)
        with contextlib.suppress(threading.BrokenBarrierError):
            both_have_read.wait(timeout=1)

    monkeypatch.setattr(type(storages[0]), "check_trial_is_updatable", slow)

    def take(storage):
        return storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING)

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(take, storages)) == [False, True]


@pytest.mark.slow
def test_a_trial_that_kills_every_worker_is_given_up(study, parent, monkeypatch):
    def poison(params, report):
        if params["stretch"] == "asinh" and params["dropout"] == 0.2:
            raise DiskFull
        return bowl(params)

    attempts = 0
    while not study(2).is_full:
        attempts += 1
        try:
            study(2).work(poison, parent, Diverged, {})
        except DiskFull:
            continue
    assert attempts == studies.RETRIES + 2
    assert table(study(2))["state"].tolist() == ["cut off"] * (studies.RETRIES + 1) + ["complete"] * 2


def test_a_worker_that_comes_too_late_for_the_last_place_does_nothing(study, parent):
    def objective(params, report):
        study(1).try_one(lambda *_: pytest.fail("the place was taken"), parent, Diverged, {})
        return bowl(params)

    opened = study(1)
    opened.work(objective, parent, Diverged, {})
    assert table(opened)["state"].tolist() == ["complete"]


def test_a_task_is_claimed_by_one_process_at_a_time(study, monkeypatch):
    opened = study(1)
    assert opened.claim("training")
    assert not opened.claim("training")
    with monkeypatch.context() as patched:
        patched.setattr(processes, "is_gone", lambda worker: True)
        assert opened.claim("training")
    opened.release("training")
    assert opened.claim("training")


def test_what_matters_is_found(study, parent):
    opened = study(30)
    opened.work(lambda params, report: (np.log10(params["learning_rate"]) + 2) ** 2, parent, Diverged, {})
    found = opened.importances()
    assert set(found) == set(SPACE)
    assert max(found, key=found.get) == "learning_rate"
    assert sum(found.values()) == pytest.approx(1)


@pytest.mark.slow  # processes that import Optuna
def test_processes_that_begin_a_study_at_the_same_moment_share_a_new_database(tmp_path):
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"data": {"images": "x", "labels": "y"}}))
    code = (
        "from deepmerge import config\nfrom deepmerge.tracking import studies\n"
        "study = studies.Study('sqlite:///optuna.db', 's', config.load('mine.yaml'))\n"
        "print(study.created, study.finished())"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    said = [process.communicate(timeout=300)[0] for process in processes]
    assert sorted(said) == ["False 0\n"] * 5 + ["True 0\n"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.yaml", "optuna.db"]


def test_an_auc_is_maximised(study, parent):
    opened = study(6, objective="auc")
    opened.work(lambda params, report: params["dropout"], parent, Diverged, {})
    assert opened.best().params["dropout"] == max(params["dropout"] for params in tried(opened))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nonsense", "storage should be the URL of a database"),
        ("sqlite:////nowhere/at/all/optuna.db", "storage should be the URL of a database that can be reached"),
        ("postgresql+nodriver://me:secret@localhost/x", "got postgresql+nodriver://me@localhost/x"),
        ("postgresql+nodriver://localhost/x?password=secret", "got postgresql+nodriver://localhost/x"),
        ("postgresql+psycopg://me:a:secret@localhost/x", "storage should be the URL of a database"),
        ("postgresql+psycopg://me:a@secret:b@localhost/x", "storage should be the URL of a database"),
    ],
)
def test_a_storage_that_cannot_be_opened_is_said_without_its_password(tmp_path, url, said):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"data": {"images": "x", "labels": "y"}}))
    with pytest.raises(InputError) as error:
        studies.Study(url, "s", config.load(str(path)))
    assert said in str(error.value)
    assert "secret" not in str(error.value)
    assert "\n" not in str(error.value)
