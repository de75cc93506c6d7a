"""What ends a command from outside, in processes of their own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Says when it is ready, cleans up slowly, and says that it did.
PROGRAM = """
import os, sys, time
from deepmerge import stopping
from deepmerge.tracking import launcher
stopping.on_signals()
launcher.PAUSE = 0.05
launcher.watch()
try:
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        time.sleep(0.5)
        print("cleaned", flush=True)
except BaseException as error:
    print(stopping.reason(error), flush=True)
    raise
"""


def heed_signals():
    """Whatever `nohup`, or a shell in the background, has the tests themselves ignore."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def started(program=PROGRAM, **variables):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=heed_signals,
    )
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, -signal.SIGINT)]
)
@pytest.mark.parametrize("times", [1, 3])
def test_a_signal_ends_a_process_after_its_cleaning_up_however_often_it_is_sent(number, status, times):
    process = started()
    for _ in range(times):
        process.send_signal(number)
        time.sleep(0.1)
    said, _ = process.communicate(timeout=30)
    assert said.splitlines() == ["cleaned", f"stopped by {signal.Signals(number).name}"]
    assert process.returncode == status


def test_an_impatient_user_can_end_the_cleaning_up():
    process = started(PROGRAM.replace("stopping.on_signals()", "stopping.on_signals(); stopping.PATIENCE = 0.1"))
    process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=30)
    assert said.splitlines() == ["stopped by SIGTERM"]


def test_a_signal_that_was_lost_ends_the_process_after_the_epoch():
    program = PROGRAM.replace(
        "        time.sleep(60)\n",
        "        class Swallows:\n"
        "            def __del__(self): os.kill(os.getpid(), 15); time.sleep(0.1)\n"  # as in a garbage collection
        "        Swallows()\n"
        "        stopping.end_if_told()\n"
        "        time.sleep(60)\n",
    )
    process = started(program)
    said, lost = process.communicate(timeout=30)
    assert "Exception ignored in" in lost
    assert said.splitlines() == ["cleaned", "stopped by SIGTERM"]
    assert process.returncode == 143


SHELL = """
import subprocess, sys
from deepmerge.tracking import launcher
def start():
    subprocess.Popen(["bash", "-c", sys.argv[2] + " -c " + "'" + sys.argv[1] + "'; true"])
"""
LAUNCHERS = {
    "mlflow": SHELL + "with launcher.announced(): start()\n",
    "dvc": SHELL + "import os\nos.environ['DVC_STAGE'] = 'train'\nstart()\n",
}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("name", LAUNCHERS)
def test_what_a_launcher_started_ends_when_that_is_gone(tmp_path, name, number):
    """By way of a shell, which stays."""
    (tmp_path / name).write_text(LAUNCHERS[name] + 'print("launched", flush=True)\nsys.stdin.read()\n')
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / name), PROGRAM, sys.executable],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert {process.stdout.readline(), process.stdout.readline()} == {"launched\n", "ready\n"}
    process.send_signal(number)
    rest = process.stdout.read().splitlines()
    assert rest == ["cleaned", "stopped: the process that had started it is gone"]
    process.wait(timeout=30)


def test_without_a_launcher_a_process_goes_on_when_its_parent_is_gone():
    """As with `nohup deepmerge train &` and a shell that ends."""
    code = f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', {PROGRAM.replace('60', '3')!r}])"
    started = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert started.communicate(timeout=60)[0].splitlines() == ["ready", "cleaned"]
