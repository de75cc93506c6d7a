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
    from deepmerge.data.dataset import Dataset as Dataset
    from deepmerge.errors import InputError as InputError
    from deepmerge.estimate import Estimate as Estimate
    from deepmerge.notebook import plot as plot
    from deepmerge.notebook.data import load as load
    from deepmerge.notebook.data import simulate as simulate
    from deepmerge.notebook.data import split as split
    from deepmerge.notebook.model import Model as Model
    from deepmerge.notebook.model import load_model as load_model
    from deepmerge.notebook.model import train as train
    from deepmerge.notebook.result import Result as Result
    from deepmerge.notebook.result import counterfactual as counterfactual
    from deepmerge.notebook.result import evaluate as evaluate
    from deepmerge.notebook.result import saliency as saliency
    from deepmerge.notebook.track import track as track

    __version__: str

# The module that each name is imported from.
_MODULES = {
    "Dataset": "data.dataset",
    "Estimate": "estimate",
    "InputError": "errors",
    "Model": "notebook.model",
    "Result": "notebook.result",
    "counterfactual": "notebook.result",
    "evaluate": "notebook.result",
    "load": "notebook.data",
    "load_model": "notebook.model",
    "plot": "notebook",
    "saliency": "notebook.result",
    "simulate": "notebook.data",
    "split": "notebook.data",
    "track": "notebook.track",
    "train": "notebook.model",
}
__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name not in _MODULES:
        raise AttributeError(f"module 'deepmerge' has no attribute {name!r}; it offers {', '.join(__all__)}")
    from deepmerge.loading import quietly

    with quietly():
        module = importlib.import_module(f"deepmerge.{_MODULES[name]}")
        value = importlib.import_module("deepmerge.notebook.plot") if name == "plot" else getattr(module, name)
    globals()[name] = value
    return value


def _version() -> str:
    from importlib import metadata  # 30 ms

    try:
        return metadata.version("deepmerge-lab")
    except metadata.PackageNotFoundError:
        return "unknown: deepmerge is run from its source here, not installed"


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
