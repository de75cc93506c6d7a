"""What a network depends on beyond its settings: the file of its code, and the weights that it begins with."""

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from deepmerge import config
from deepmerge.errors import InputError
from deepmerge.tracking import runs

SOURCE, START = "network_source_sha256", "network_start_sha256"  # tags of runs


def pinned(experiment: config.Experiment) -> config.Experiment:
    """The same experiment, its `network.start` named by a run id or a file, which mean the same tomorrow.

    Raises InputError where there is no such model.
    """
    start = experiment.network.start
    if start is None or start.endswith(".keras"):
        return experiment
    run_id = runs.find(start, experiment.name).info.run_id
    return experiment.model_copy(update={"network": experiment.network.model_copy(update={"start": run_id})})


def at_hand(network: config.Network, name: str) -> config.Network:
    """The settings of a network with `start` as a file that it can be read from; `name` is that of the experiment."""
    start = network.start
    if start is None:
        return network
    if not start.endswith(".keras"):
        return network.model_copy(update={"start": str(runs.model_file(runs.find(start, name)))})
    if not Path(start).is_file():
        raise InputError(
            f"network.start should be a models:/ URI, a run id, a run.json or a .keras file, got {start}, where there "
            "is no file"
        )
    return network


def first_weights(network: config.Network, name: str) -> bytes | None:
    """The file of the weights that a network begins with, to be sent to where it trains; None without any."""
    start = at_hand(network, name).start
    return None if start is None else Path(start).read_bytes()


@contextmanager
def beginning_with(network: config.Network, weights: bytes | None) -> Iterator[config.Network]:
    """Yield the settings of a network with what `first_weights` gave as the file of its `start`."""
    if weights is None:
        yield network
        return
    with tempfile.TemporaryDirectory(prefix="deepmerge-") as folder:
        file = Path(folder, "start.keras")
        file.write_bytes(weights)
        yield network.model_copy(update={"start": str(file)})


def digests(network: config.Network, name: str) -> dict[str, str]:
    """What tells the code and the first weights of a network from others: SHA-256 of these files, as tags."""
    found = {}
    if network.source is not None and not network.is_recorded:
        found[SOURCE] = hashlib.sha256(network.code()).hexdigest()
    if network.start is not None:
        found[START] = hashlib.sha256(Path(str(at_hand(network, name).start)).read_bytes()).hexdigest()
    return found


def log_source(network: config.Network) -> None:
    """Log the file of a network of the user's own on the open run."""
    if network.source is not None and not network.is_recorded:
        runs.log_file(network.source[0])


def of_record(network: config.Network, tags: Mapping[str, str], named: config.Network | None) -> config.Network:
    """The network of a run that was loaded, whose code may run only where an experiment file names the same.

    `tags` are the run's, `named` is the network of the user's own experiment file.
    """
    if network.source is None:
        return network
    its = network.source[1]
    if named is not None and named.source is not None and named.source[1] == its:
        path = named.source[0]
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == tags.get(SOURCE):
            return network.model_copy(update={"architecture": named.architecture})
    return network.model_copy(update={"architecture": f"{config.RECORDED}{network.architecture}"})
