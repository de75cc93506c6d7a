"""How TensorFlow runs: decided once, before its first operation, and part of every run's record."""

import logging

import keras
import tensorflow as tf

from deepmerge.cores import threads_each


def prepare() -> int:
    """Give TensorFlow as many threads as OMP_NUM_THREADS says, or else as this process may use cores; quiet Keras.

    Results repeat bit by bit for the same number only, so it is returned to be recorded.
    """
    threads = threads_each()
    if tf.config.threading.get_intra_op_parallelism_threads() != threads:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    # MLflow has Keras predict the example, with a bar of its own; without a terminal it becomes a log line.
    keras.config.disable_interactive_logging()
    logging.getLogger("absl").setLevel(logging.WARNING)
    return threads
