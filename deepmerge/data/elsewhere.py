"""A data set, and the images of a target, as another process finds them: by their files, which it reads itself."""

from collections import OrderedDict
from dataclasses import dataclass, replace

import numpy as np

from deepmerge import config
from deepmerge.data import dataset as datasets
from deepmerge.data import targets
from deepmerge.data.dataset import Dataset
from deepmerge.data.targets import Unlabelled
from deepmerge.errors import InputError

MOST = 4  # data sets that a process keeps open
_open: OrderedDict[str, Dataset] = OrderedDict()  # by fingerprint


@dataclass(frozen=True)
class Source:
    """The files of a data set, its name, and the fingerprint that they should have."""

    files: config.Data
    name: str
    fingerprint: str

    @classmethod
    def of(cls, data: Dataset, files: config.Data) -> "Source":
        """Of a data set that is open here, where nobody need read it again."""
        _keep(data)
        return cls(files, data.name, data.fingerprint)

    def read(self) -> Dataset:
        """The data set. Raises InputError where the files hold another one here."""
        if self.fingerprint not in _open:
            data = datasets.read(self.files, self.name)
            if data.fingerprint != self.fingerprint:
                raise InputError(
                    f"{self.files.images} and its labels and catalogue should be those that the command was given "
                    f"(fingerprint {self.fingerprint}), got {data.fingerprint}; workers read the same files"
                )
            _keep(data)
        return _open[self.fingerprint]


@dataclass(frozen=True)
class Rows:
    """Images of a target that may be seen: how it is called, and their rows (n,)."""

    reference: str
    rows: np.ndarray

    def read(self) -> Unlabelled:
        """The target."""
        return replace(targets.read(self.reference), rows=self.rows)


def _keep(data: Dataset) -> None:
    _open[data.fingerprint] = data
    while len(_open) > MOST:
        _open.popitem(last=False)
