"""How many threads TensorFlow uses: decided once, before its first operation, and part of every run's record."""

import os

import tensorflow as tf


def pin_threads() -> int:
    """Give TensorFlow as many threads as OMP_NUM_THREADS says, or else as this process may use cores.

    Results repeat bit by bit for the same number only, so it is returned to be recorded.
    """
    threads = int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))
    if tf.config.threading.get_intra_op_parallelism_threads() != threads:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    return threads
