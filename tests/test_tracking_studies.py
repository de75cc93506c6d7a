"""Studies, with functions in place of trainings."""

import subprocess
import sys

import mlflow
import numpy as np
import optuna
import pytest
import yaml
from optuna.trial import TrialState

from deepmerge import cluster, config
from deepmerge.errors import InputError
from deepmerge.tracking import plugin, studies, study_storage
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


def work(study, objective, parent, own_fault, tags, room=None):
    """Go on with a study in a room; the objective is called with settings and a report, and may raise."""

    def piece(params):
        def call(report):
            told = []

            def tell(step, value, metrics):
                told.append((step, value, metrics, 1))
                if not report(told[-1]):
                    raise cluster.Stopped

            try:
                return objective(params, tell), told
            except cluster.Stopped:
                return None

        return call

    study.note(run_id=parent)
    study.resume()
    study.work(room or cluster.Here(), piece, parent, own_fault, tags)


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
    work(opened, bowl, parent, Diverged, {})
    assert opened.is_full
    values = [trial.values[0] for trial in opened.trials()]
    assert len(values) == 25
    assert opened.best().values[0] == min(values) < 0.05 < values[0]


def test_the_first_trial_has_the_experiments_own_settings(study, parent):
    opened = study(1)
    work(opened, bowl, parent, Diverged, {})
    own = {"dropout": 0.2, "learning_rate": 1e-3, "batch_size": 64, "stretch": "asinh"}
    assert tried(opened) == [own]


def test_settings_have_their_types_and_lie_in_the_search_space(study, parent):
    seen = []
    work(study(12), lambda params, report: seen.append(params) or 1.0, parent, Diverged, {})
    for params in seen:
        assert isinstance(params["batch_size"], int)
        assert 16 <= params["batch_size"] <= 128
        assert params["stretch"] in ("asinh", "log")
        assert 1e-4 <= params["learning_rate"] <= 1e-1
    assert len({params["dropout"] for params in seen}) == 12


def test_more_trials_are_added_to_those_of_an_earlier_call(study, parent):
    work(study(3), bowl, parent, Diverged, {})
    before = tried(study(3))
    work(study(3), lambda params, report: pytest.fail("the study is full"), parent, Diverged, {})
    work(study(5), bowl, parent, Diverged, {})
    assert tried(study(5))[:3] == before
    assert len(tried(study(5))) == 5


@pytest.mark.slow
@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit, DiskFull])
def test_an_interrupted_study_goes_on_as_if_it_had_not_been(study, parent, client, interruption):
    work(study(16, "whole"), bowl, parent, Diverged, {})
    calls = []

    def interrupted(params, report):
        calls.append(params)
        if len(calls) in (1, 4, 13):  # the first; among the random ones; among those of the sampler
            raise interruption
        return bowl(params)

    for _ in range(3):
        with pytest.raises(interruption):
            work(study(16, "broken"), interrupted, parent, Diverged, {})
    work(study(16, "broken"), interrupted, parent, Diverged, {})
    assert tried(study(16, "broken")) == tried(study(16, "whole"))
    assert len(calls) == 19
    status = "FAILED" if interruption is DiskFull else "KILLED"
    cut_off = [run for run in children(client, parent) if "cut off" in run.data.tags.get("failure", "")]
    assert len(cut_off) == 3
    assert {run.info.status for run in cut_off} <= {status, "KILLED"}
    assert not [run for run in children(client, parent) if run.info.status == "RUNNING"]


def test_another_seed_is_another_study(study, parent):
    for name, seed in (("a", 1), ("b", 2)):
        work(study(4, name, seed=seed), bowl, parent, Diverged, {})
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
    work(opened, objective, parent, Diverged, {})
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

    work(opened, objective, parent, Diverged, {})
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
    work(opened, objective, parent, Diverged, {})
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
        report(1, 0.5, {"val_auc": 0.7})
        return bowl(params)

    opened = study(2)
    work(opened, objective, parent, Diverged, {"kind": "trial", "study": "s"})
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
def test_what_a_command_leaves_that_is_killed_is_queued_again_and_its_runs_are_closed(study, parent, client):
    """Killed while a trial works, and between what it tells Optuna and what it tells MLflow."""
    work(study(1), bowl, parent, Diverged, {"kind": "trial"})
    opened = study(3)
    [done] = children(client, parent)
    client.update_run(done.info.run_id, "RUNNING")
    experiment = opened.url.removeprefix("sqlite:///").replace("optuna.db", "mine.yaml")
    code = f"""
import os
from deepmerge import cluster, config
from deepmerge.tracking import studies
opened = studies.Study({opened.url!r}, "s", config.load({experiment!r}))
with opened.alone():
    kill = lambda report: os.kill(os.getpid(), 9)
    opened.work(cluster.Here(), lambda params: kill, {parent!r}, ZeroDivisionError, {{"kind": "trial"}})
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert [run.info.status for run in children(client, parent)] == ["RUNNING", "RUNNING"]
    assert opened.trials()[1].state == TrialState.RUNNING
    opened.resume()
    opened.resume()
    first, second = children(client, parent)
    assert (first.info.status, "failure" in first.data.tags) == ("FINISHED", False)
    assert (second.info.status, second.data.tags["failure"]) == ("KILLED", "cut off; tried again in another run")
    assert opened.finished() == 1
    work(opened, bowl, parent, Diverged, {"kind": "trial"})
    assert table(opened)["state"].tolist() == ["complete", "cut off", "complete", "complete"]
    assert tried(opened)[1] == opened.trials()[1].params


class Two(cluster.Here):
    """A room that does one piece after the other, and says that it does two at a time."""

    width = 2


def test_side_by_side_there_are_exactly_as_many_trials(study, parent):
    opened = study(5)
    work(opened, bowl, parent, Diverged, {}, room=Two())
    assert table(opened)["state"].tolist() == ["complete"] * 5
    assert len({trial["dropout"] for trial in tried(opened)}) == 5


def test_what_a_trial_tells_again_after_its_worker_was_lost_counts_once_and_what_is_late_is_not_lost(
    study, parent, client
):
    def piece(params):
        def call(report):
            said = [(step, 1.0 / step, {"val_log_loss": 1.0 / step}, 3) for step in range(1, 5)]
            for each in [*said[:2], *said[:3]]:
                assert report(each)
            return 0.5, said

        return call

    opened = study(1)
    opened.note(run_id=parent)
    opened.work(cluster.Here(), piece, parent, Diverged, {})
    [trial] = opened.trials()
    assert trial.intermediate_values == {1: 1.0, 2: 1 / 2, 3: 1 / 3, 4: 1 / 4}
    [run] = children(client, parent)
    history = client.get_metric_history(run.info.run_id, "val_log_loss")
    assert [(metric.step, metric.value) for metric in history] == [(1, 1.0), (2, 1 / 2), (3, 1 / 3), (4, 1 / 4)]
    assert run.data.tags["threads"] == "3"


def test_a_trial_that_loses_every_worker_fails_with_its_reason_and_the_rest_goes_on(study, parent, client):
    def objective(params, report):
        if params["dropout"] == 0.2:
            raise cluster.WorkerLost("each of 4 workers was lost")
        return bowl(params)

    opened = study(3)
    work(opened, objective, parent, Diverged, {})
    assert table(opened)["state"].tolist() == ["failed", "complete", "complete"]
    assert "each of 4 workers was lost" in table(opened)["reason"][0]
    assert children(client, parent)[0].info.status == "FAILED"


@pytest.mark.slow
def test_a_trial_that_ends_every_command_is_given_up(study, parent):
    def poison(params, report):
        if params["stretch"] == "asinh" and params["dropout"] == 0.2:
            raise DiskFull
        return bowl(params)

    attempts = 0
    while not study(2).is_full:
        attempts += 1
        try:
            work(study(2), poison, parent, Diverged, {})
        except DiskFull:
            continue
    assert attempts == studies.RETRIES + 2
    assert table(study(2))["state"].tolist() == ["cut off"] * (studies.RETRIES + 1) + ["complete"] * 2


def test_a_second_command_on_a_study_is_refused_in_one_line_and_on_another_study_it_is_not(study):
    with study(1).alone():
        said = "one command at a time can work on a study, got a second one on s"
        with pytest.raises(InputError, match=said) as no, study(1).alone():
            pass
        with study(1, "other").alone():
            pass
    assert "\n" not in str(no.value)
    with study(1).alone():
        pass


def test_what_matters_is_found(study, parent):
    opened = study(30)
    work(opened, lambda params, report: (np.log10(params["learning_rate"]) + 2) ** 2, parent, Diverged, {})
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
        "print(study.finished())"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    said = [process.communicate(timeout=300)[0] for process in processes]
    assert said == ["0\n"] * 6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.yaml", "optuna.db"]


def test_an_auc_is_maximised(study, parent):
    opened = study(6, objective="auc")
    work(opened, lambda params, report: params["dropout"], parent, Diverged, {})
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
