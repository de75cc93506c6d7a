import signal
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow  # each imports TensorFlow

SCRIPT = """
import gc, sys, time
from deepmerge.jobs.tune import workers

class Deaf:
    def __del__(self):  # what a signal raises in here is dropped by Python
        print("ready", flush=True)
        time.sleep(3)

workers.take_order()
Deaf()
print("goes on", flush=True)
workers.end_if_told()
print("not told", flush=True)
"""


def run(told):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", SCRIPT], **pipes) as worker:
        worker.stdin.write("{}\n")
        worker.stdin.flush()
        assert worker.stdout.readline() == "ready\n"
        if told:
            worker.send_signal(signal.SIGTERM)
        rest = worker.stdout.read()
        worker.wait(20)
        return rest, worker.returncode


def test_a_worker_whose_signal_got_lost_ends_at_the_next_opportunity():
    assert run(told=True) == ("goes on\n", 128 + signal.SIGTERM)


def test_a_worker_that_was_not_told_goes_on():
    assert run(told=False) == ("goes on\nnot told\n", 0)
