"""Training on several devices and machines, simulated on one: virtual devices, processes on loopback."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
from conftest import environment

from deepmerge.cluster import WORKER
from deepmerge.errors import InputError
from deepmerge.model import devices

# A small network learns from batches of eight, whose halves are the same images: on two devices, each half then has the
# batch norm moments of the whole, so that all of it should come out as on one device.
SCRIPT = """
import json, os, sys
import keras, numpy as np, tensorflow as tf
from deepmerge.data.batches import TrainingBatches
from deepmerge.data.splits import Part
from deepmerge.model import devices
from deepmerge.model.layers import FastBatchNormalization
from deepmerge.model.learner import Learner

devices.prepare()
if sys.argv[1] == "virtual":
    two = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)
strategy = devices.strategy()
rng = np.random.default_rng(0)
images = rng.normal(1, 1, (22, 1, 6, 6)).astype(np.float32)
labels = (images.mean((1, 2, 3)) > 1).astype(np.uint8)
rows = np.concatenate([np.tile(np.arange(start, min(start + 4, 22)), 2) for start in range(0, 22, 4)])
epoch = TrainingBatches(images, labels, Part(rows, np.zeros(44, np.uint8)), 8, "weights", False, 0).epoch(0)
in_order = {"rows": rows, "labels": labels[rows], "weights": rng.uniform(0.5, 2, 22).astype(np.float32)[rows]}
for name, values in in_order.items():
    object.__setattr__(epoch, name, values)

def make():
    keras.utils.set_random_seed(1)
    layers = keras.layers
    model = keras.Sequential([keras.Input((6, 6, 1)), layers.Conv2D(2, 3), FastBatchNormalization(), layers.Flatten(),
                              layers.Dense(1, "sigmoid", kernel_regularizer="l2")])
    return model, keras.optimizers.SGD(0.1)

learner = Learner(strategy, make)
found = [learner.learn(epoch) for _ in range(3)]
print(json.dumps({
    "replicas": strategy.num_replicas_in_sync,
    "writes": devices.is_chief(),
    "weights": np.concatenate([w.ravel() for w in learner.model.get_weights()]).tolist(),
    "probability": found[-1][0].tolist(),
    "penalty": [penalty for _, penalty in found],
}))
"""


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def machines(count, words, folder=None):
    """Start the same command on so many 'machines'; what each printed."""
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(count)]}
    started = []
    for index in range(count):
        place = {"cluster": cluster, "task": {"type": "worker", "index": index}}
        told = environment(TF_CONFIG=json.dumps(place), OMP_NUM_THREADS="1", TF_CPP_MIN_LOG_LEVEL="3")
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen(words, cwd=folder, env=told, text=True, **pipes))
    try:
        ended = [(process.communicate(timeout=300), process.returncode) for process in started]
    finally:
        for process in started:
            process.kill()
    for (out, error), status in ended:
        assert status == 0, f"{out}\n{error}"
    return [out for (out, _), _ in ended]


@pytest.mark.slow
def test_two_devices_and_two_machines_learn_what_one_device_learns():
    words = [sys.executable, "-c", SCRIPT]
    alone, virtual = (
        subprocess.run([*words, kind], env=environment(), capture_output=True, text=True, check=True).stdout
        for kind in ("alone", "virtual")
    )
    one, two, *both = (json.loads(out.splitlines()[-1]) for out in (alone, virtual, *machines(2, [*words, "machines"])))
    assert [found["replicas"] for found in (one, two, *both)] == [1, 2, 2, 2]
    assert [found["writes"] for found in (one, two, *both)] == [True, True, True, False]
    for found in (two, *both):
        for name in ("weights", "probability", "penalty"):
            np.testing.assert_allclose(found[name], one[name], rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.slow
def test_of_two_machines_that_train_the_first_writes_the_run(write_sample, tmp_path):
    experiment = write_sample(training={"epochs": 2, "batch_size": 16})
    words = [sys.executable, "-m", "deepmerge", "main", str(experiment)]
    first, second = machines(2, words, tmp_path)
    assert "test_auc" in first
    assert "best_epoch" in second
    assert "test_auc" not in second
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    [run] = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert run.info.status == "FINISHED"
    assert run.data.tags["devices"] == "2"


@pytest.mark.parametrize(
    ("task", "cluster", "expected"),
    [
        ({"type": "worker", "index": 0}, {"worker": ["a:1", "b:1"]}, True),
        ({"type": "worker", "index": 1}, {"worker": ["a:1", "b:1"]}, False),
        ({"type": "chief", "index": 0}, {"chief": ["a:1"], "worker": ["b:1"]}, True),
        ({"type": "worker", "index": 0}, {"chief": ["a:1"], "worker": ["b:1"]}, False),
    ],
)
def test_one_machine_writes_the_results(monkeypatch, task, cluster, expected):
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": task}))
    assert devices.is_chief() == expected


@pytest.mark.parametrize(
    "told", ["{", "[]", '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 3}}']
)
def test_a_tf_config_that_names_no_machines_is_explained(monkeypatch, told):
    monkeypatch.setenv("TF_CONFIG", told)
    with pytest.raises(InputError, match=r"TF_CONFIG should look like .* unset it to train on this machine alone"):
        devices.strategy.__wrapped__()


@pytest.mark.parametrize(("worker", "expected"), [(None, None), ("0", ["a"]), ("1", ["b"]), ("2", ["a"])])
def test_each_worker_takes_one_gpu_and_a_command_alone_all(monkeypatch, worker, expected):
    """No GPU here: what TensorFlow would be told."""
    monkeypatch.delenv(WORKER, raising=False)
    if worker is not None:
        monkeypatch.setenv(WORKER, worker)
    seen, growing = [], []
    monkeypatch.setattr(devices.tf.config.threading, "get_intra_op_parallelism_threads", lambda: -1)
    for name in ("set_intra_op_parallelism_threads", "set_inter_op_parallelism_threads"):
        monkeypatch.setattr(devices.tf.config.threading, name, lambda count: None)
    monkeypatch.setattr(devices.tf.config, "list_physical_devices", lambda kind: ["a", "b"])
    monkeypatch.setattr(devices.tf.config, "set_visible_devices", lambda gpus, kind: seen.append(gpus))
    monkeypatch.setattr(devices.tf.config.experimental, "set_memory_growth", lambda gpu, on: growing.append(gpu))
    devices.prepare()
    assert seen == ([] if expected is None else [expected])
    assert growing == (expected or ["a", "b"])


def test_without_other_machines_this_one_writes(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert devices.is_chief()
    assert "TF_CONFIG" not in os.environ
