"""How TensorFlow runs: decided once, before its first operation, and part of every run's record."""

import logging
import os

import keras
import tensorflow as tf

from deepmerge.cores import count_cores
from deepmerge.errors import InputError


def prepare() -> int:
    """Give TensorFlow as many threads as OMP_NUM_THREADS says, or else as this process may use cores; quiet Keras.

    Results repeat bit by bit for the same number only, so it is returned to be recorded.
    """
    told = os.environ.get("OMP_NUM_THREADS", "")
    if told and not (told.isdecimal() and int(told)):
        raise InputError(f"OMP_NUM_THREADS should be a whole number from 1, got {told!r}")
    threads = int(told) if told else count_cores()
    if tf.config.threading.get_intra_op_parallelism_threads() != threads:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    # MLflow has Keras predict the example, with a bar of its own; without a terminal it becomes a log line.
    keras.config.disable_interactive_logging()
    logging.getLogger("absl").setLevel(logging.WARNING)
    return threads
