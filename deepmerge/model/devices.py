"""How TensorFlow runs: decided once, before its first operation, and part of every run's record."""

import json
import logging
import os
from functools import cache

import keras
import tensorflow as tf

from deepmerge.cluster import WORKER, threads_each
from deepmerge.errors import InputError

CLUSTER = "TF_CONFIG"  # TensorFlow's own: JSON that names the machines of a training and which of them this is


def prepare() -> int:
    """Give TensorFlow as many threads as OMP_NUM_THREADS says, or else as this process may use cores; quiet Keras.

    Results repeat bit by bit for the same number only, so it is returned to be recorded.
    """
    threads = threads_each()
    if tf.config.threading.get_intra_op_parallelism_threads() != threads:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        gpus = tf.config.list_physical_devices("GPU")
        if gpus and WORKER in os.environ:
            gpus = [gpus[int(os.environ[WORKER]) % len(gpus)]]
            tf.config.set_visible_devices(gpus, "GPU")
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)  # else the first process takes all of its memory
    # MLflow has Keras predict the example, with a bar of its own; without a terminal it becomes a log line.
    keras.config.disable_interactive_logging()
    logging.getLogger("absl").setLevel(logging.WARNING)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it warns of every network that is traced anew
    return threads


@cache
def strategy() -> tf.distribute.Strategy:
    """The devices that share a training: the machines of TF_CONFIG, else all GPUs that are visible, else one device.

    With TF_CONFIG it must be called before TensorFlow's first operation, on every machine. Raises InputError for a
    TF_CONFIG that names no machines.
    """
    if os.environ.get(CLUSTER):
        _place()
        return tf.distribute.MultiWorkerMirroredStrategy()
    several = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if len(several) > 1:
        return tf.distribute.MirroredStrategy([device.name for device in several])
    return tf.distribute.get_strategy()


def kind() -> str:
    """What computes a training on one device: the name of the GPU, or CPU."""
    gpus = tf.config.get_visible_devices("GPU")
    return str(tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU")) if gpus else "CPU"


def is_chief() -> bool:
    """Whether this process writes results: the only one, or the first of the machines that train together."""
    return not os.environ.get(CLUSTER) or _place() == 0


def _place() -> int:
    """Number of this machine among those of TF_CONFIG; a chief, where there is one, comes before the workers."""
    try:
        settings = json.loads(os.environ[CLUSTER])
        cluster, kind, index = settings["cluster"], settings["task"]["type"], int(settings["task"]["index"])
        cluster[kind][index]
    except (ValueError, TypeError, LookupError):
        raise InputError(
            f'{CLUSTER} should look like {{"cluster": {{"worker": ["host:port", …]}}, "task": {{"type": "worker", '
            f'"index": 0}}}}, got {os.environ[CLUSTER]!r}; unset it to train on this machine alone'
        ) from None
    return index + (len(cluster.get("chief", ())) if kind == "worker" else 0)
