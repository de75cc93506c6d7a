"""A training after some of its epochs, with all that the next epoch depends on, in one file without pickles.

What an epoch shows is a function of its number and the seed (`data.batches`), so that only the learner has a memory.
"""

import json
import logging
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from deepmerge.files import replacing

log = logging.getLogger(__name__)


@dataclass
class Checkpoint:
    """Where a training stands.

    history: a list of values for each measure, one an epoch; best: the lowest validation log loss, of `best_epoch`,
    which counts from 1; best_weights: the weights to keep; variables: those of network, optimizer and adaptation, the
    seeds of dropout among them.
    """

    history: dict[str, list[float]] = field(default_factory=dict)
    best: float = math.inf
    best_epoch: int = 0
    best_weights: Sequence[np.ndarray] = ()
    variables: Sequence[np.ndarray] = ()

    @property
    def epochs(self) -> int:
        """How many epochs were learned."""
        return max(map(len, self.history.values()), default=0)

    def values(self, epoch: int) -> dict[str, float]:
        """The measures of an epoch, from 1."""
        return {name: values[epoch - 1] for name, values in self.history.items()}

    def add(self, values: Mapping[str, float]) -> None:
        """Add the measures of the next epoch."""
        for name, value in values.items():
            self.history.setdefault(name, []).append(value)

    def write(self, path: Path) -> None:
        """Write it whole or not at all. Raises OSError where that cannot be done."""
        told = {"history": self.history, "best": self.best, "best_epoch": self.best_epoch}
        arrays: dict[str, Any] = {f"best_{number}": array for number, array in enumerate(self.best_weights)}
        arrays |= {f"variable_{number}": array for number, array in enumerate(self.variables)}
        with replacing(path) as aside:
            np.savez(aside, told=np.array(json.dumps(told)), **arrays)


def read(path: Path, like: Checkpoint) -> Checkpoint:
    """The checkpoint in a file; `like` where there is none, or one that is damaged or of another network.

    like: that of a training at its beginning.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            told = json.loads(str(file["told"]))
            weights = [file[f"best_{number}"] for number in range(len(like.best_weights))]
            variables = [file[f"variable_{number}"] for number in range(len(like.variables))]
    except FileNotFoundError:
        return like
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        log.warning("The training begins anew: its checkpoint %s cannot be read (%s)", path, error)
        return like
    if [array.shape for array in variables] != [array.shape for array in like.variables]:
        log.warning("The training begins anew: its checkpoint %s is of another network", path)
        return like
    return Checkpoint(told["history"], told["best"], told["best_epoch"], weights, variables)
