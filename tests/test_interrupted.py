"""Commands that are really killed: kill -9 at many moments, signals to `mlflow run` and to what it started."""

import json
import os
import random
import signal
import subprocess
import time

import psutil
import pytest
from conftest import environment

pytestmark = pytest.mark.slow

MAIN = ("python", "-m", "deepmerge", "main", "pristine", "--epochs", "4", "--dropout", "0.4")
PATIENCE = 300  # seconds for a moment to come, on a machine that has other work


def progress(project):
    """What an interrupted command has left: the time of its checkpoint, and the steps that are done."""
    found = []
    for note in project.folder.glob(".deepmerge/trainings/*/note.json"):
        checkpoint = note.with_name("checkpoint.npz")
        found += [checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0, *json.loads(note.read_text())["done"]]
    return found


def start(project, *words):
    return subprocess.Popen(
        words,
        cwd=project.folder,
        env=environment(PYTHONPATH=str(project.folder)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # shells ignore it in the background
    )


def gets_on(project, process):
    """Wait until a command has got a step further; False where it ended."""
    before, deadline = progress(project), time.monotonic() + PATIENCE
    while process.poll() is None:
        if progress(project) not in (before, []):
            return True
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return False


def results(said):
    lines = [line.split(maxsplit=1) for line in said.splitlines() if len(line.split()) > 1 and "  " in line]
    return dict(lines)


def history(project, run):
    client = project._client()
    return {
        name: [(entry.step, entry.value) for entry in client.get_metric_history(run.info.run_id, name)]
        for name in run.data.metrics
        if name.startswith(("train_", "val_"))
    }


def weights(project, run):
    import keras

    file = next(project.folder.glob(f"mlruns/*/models/{run.data.tags['model_id']}/artifacts/data/model.keras"))
    loaded = keras.models.load_model(file, compile=False, safe_mode=True)
    return b"".join(array.tobytes() for array in loaded.get_weights())


def left_processes(project):
    return [one for one in psutil.process_iter(["cwd"]) if one.info["cwd"] == str(project.folder)]


def test_kill_9_after_each_step_ends_in_one_run_as_if_nothing_had_been(checkout):
    uncut = checkout.succeed(*MAIN)
    (reference,) = checkout.runs()
    kills, moments = 0, random.Random(0)
    while True:
        process = start(checkout, *MAIN)
        if not gets_on(checkout, process):
            break
        time.sleep(moments.uniform(0, 0.7))
        if not progress(checkout):  # all is done and noted in the run; the same command would begin another one
            break
        process.kill()
        process.communicate()
        kills += 1
    said = process.communicate()[0]
    assert process.returncode == 0, said
    assert kills >= 4
    run, *others = checkout.runs()
    assert [other.info.run_id for other in others] == [reference.info.run_id]
    ended, expected = results(said), results(uncut.stdout)
    assert ended.pop("run_id") == run.info.run_id != expected.pop("run_id")
    assert ended == expected
    assert len(expected) > 20
    assert weights(checkout, run) == weights(checkout, reference)
    assert history(checkout, run) == history(checkout, reference)
    assert run.info.status == "FINISHED"
    assert run.data.metrics == reference.data.metrics
    assert progress(checkout) == []


LAUNCH = ("mlflow", "run", ".", "--env-manager", "local", "-e", "train", "-P", "epochs=20", "-P", "seed=3")


def test_signals_to_mlflow_run_or_to_what_it_started_end_both_and_the_same_command_goes_on(checkout):
    known = {run.info.run_id for run in checkout.runs()}
    told = [
        ("launcher", signal.SIGTERM, "stopped: the process that had started it is gone"),
        ("launcher", signal.SIGINT, "stopped by SIGTERM"),
        ("child", signal.SIGTERM, "stopped by SIGTERM"),
        ("child", signal.SIGINT, "stopped by SIGINT"),
        ("launcher", signal.SIGKILL, "stopped: the process that had started it is gone"),
    ]
    trained = None
    for whom, number, said in told:
        launcher = start(checkout, *LAUNCH)
        assert gets_on(checkout, launcher), launcher.communicate()[0]
        running = [run for run in checkout.runs() if run.info.run_id not in known and "threads" in run.data.tags]
        assert [run.info.status for run in running] == ["RUNNING"]
        trained = trained or running[0].info.run_id
        child = int(json.loads(running[0].data.tags["process"])["pid"])
        os.kill(launcher.pid if whom == "launcher" else child, number)
        launcher.communicate(timeout=PATIENCE)  # until the last of both has closed its output
        run = checkout._client().get_run(trained)
        assert (run.info.status, run.data.tags["failure"]) == ("KILLED", said)
        assert left_processes(checkout) == []
    checkout.succeed(*LAUNCH)
    run = checkout._client().get_run(trained)
    assert run.info.status == "FINISHED"
    assert "failure" not in run.data.tags
    assert [step for step, _ in history(checkout, run)["val_loss"]] == list(range(1, 21))
    assert {run.info.status for run in checkout.runs()} <= {"FINISHED", "FAILED", "KILLED"}


def test_what_kill_9_left_running_is_closed_by_the_next_command(checkout):
    launcher = start(checkout, *LAUNCH[:-1], "seed=4")
    assert gets_on(checkout, launcher)
    run = checkout.runs()[0]
    for pid in (launcher.pid, int(json.loads(run.data.tags["process"])["pid"])):
        os.kill(pid, signal.SIGKILL)
    launcher.communicate()
    assert checkout._client().get_run(run.info.run_id).info.status == "RUNNING"
    checkout.succeed("python", "-m", "deepmerge", "models")
    run = checkout._client().get_run(run.info.run_id)
    assert (run.info.status, run.data.tags["failure"]) == ("KILLED", "process gone")
    refused = checkout.command("python", "-m", "deepmerge", "evaluate", "pristine", "--model", run.info.run_id)
    assert refused.returncode == 2
