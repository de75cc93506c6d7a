"""The one place where the command line imports the stages."""

import importlib
import os
from pathlib import Path
from types import ModuleType


def stages() -> ModuleType:
    """Import the stages, with TensorFlow behind them; its greeting on stderr goes nowhere."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    stderr = os.dup(2)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            return importlib.import_module("deepmerge.stages")
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
