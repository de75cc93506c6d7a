"""The command line."""

from deepmerge.cli.commands import app
from deepmerge.cli.program import main

__all__ = ["app", "main"]
