"""``python -m deepmerge``: the command line, also where the console script is not installed."""

from deepmerge.cli import main

main()
