"""Where work is done: this process, processes of this machine, or a Dask cluster, with the same results."""

# ruff: noqa: F401 – the names are here for others to use

from deepmerge.cluster.cores import WORKER, count_cores, count_side_by_side, threads_each
from deepmerge.cluster.places import Where, opened
from deepmerge.cluster.room import Here, Piece, Report, Room, Stopped, WorkerLost
