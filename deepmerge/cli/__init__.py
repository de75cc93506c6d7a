"""The command line."""

from deepmerge.cli.commands import app, main

__all__ = ["app", "main"]
