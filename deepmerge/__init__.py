"""DeepMerge: networks that tell merging galaxies from non-merging ones, tracked in MLflow.

The names below are what a notebook needs; each is imported when it is first used, so that ``import deepmerge`` costs
nothing::

    import deepmerge as dm

    data = dm.load("pristine")
    split = dm.split(data, seed=5)
    model = dm.train(data, split, epochs=20)
    result = dm.evaluate(model, data, split.test)
    dm.plot.roc(result)
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deepmerge.data.dataset import Dataset
    from deepmerge.errors import InputError
    from deepmerge.estimate import Estimate
    from deepmerge.notebook import plot
    from deepmerge.notebook.data import load, simulate, split
    from deepmerge.notebook.model import Model, load_model, train
    from deepmerge.notebook.result import Result, evaluate, saliency
    from deepmerge.notebook.track import track

# Where each name comes from: a module, or a name in one.
_HOMES = {
    "Dataset": "deepmerge.data.dataset",
    "Estimate": "deepmerge.estimate",
    "InputError": "deepmerge.errors",
    "Model": "deepmerge.notebook.model",
    "Result": "deepmerge.notebook.result",
    "evaluate": "deepmerge.notebook.result",
    "load": "deepmerge.notebook.data",
    "load_model": "deepmerge.notebook.model",
    "plot": "deepmerge.notebook",
    "saliency": "deepmerge.notebook.result",
    "simulate": "deepmerge.notebook.data",
    "split": "deepmerge.notebook.data",
    "track": "deepmerge.notebook.track",
    "train": "deepmerge.notebook.model",
}

__all__ = [  # the keys of _HOMES, spelled out for those who read code without running it
    "Dataset",
    "Estimate",
    "InputError",
    "Model",
    "Result",
    "evaluate",
    "load",
    "load_model",
    "plot",
    "saliency",
    "simulate",
    "split",
    "track",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'deepmerge' has no attribute {name!r}; it offers {', '.join(__all__)}")
    home = importlib.import_module(_HOMES[name])
    found = importlib.import_module(f"{_HOMES[name]}.plot") if name == "plot" else getattr(home, name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
