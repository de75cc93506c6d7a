"""The program: run a command, and end it well: cleaned up on a signal, with a message and a status on a failure."""

import logging
import sys
import traceback
from typing import Any

import typer

from deepmerge import files, stopping
from deepmerge.cli.commands import app
from deepmerge.errors import Failed, InputError, Refused, one_line
from deepmerge.tracking import environment, failures, launcher, outbox, passwords


def main() -> None:
    """Run the command line. Exit status: 0 done, 2 wrong input, 3 promotion refused (one line each), 1 all else."""
    environment.prepare()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(passwords.Formatter("%(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    stopping.on_signals()
    launcher.watch()

    # Without arguments there is nothing to be wrong: the parser shows the help.
    one_line = sys.argv[1:] not in ([], ["data"], ["study"])
    try:
        with failures.explained():
            status = app(standalone_mode=not one_line)
        message = None
    except typer.Abort:
        sys.exit(130)
    except SystemExit:  # told to end
        if left := outbox.undelivered():
            print(f"Error: {left}", file=sys.stderr)
        raise
    except Exception as error:
        status, message = _explained(error)
    if left := outbox.undelivered():
        status, message = status or 1, "\n".join(filter(None, [message, f"Error: {left}"]))
    if message is not None:
        print(passwords.scrubbed(message).rstrip(), file=sys.stderr)
    sys.exit(status)


def _explained(error: Any) -> tuple[int, str]:
    """Exit status and message for what ended a command: one line, or the traceback where nobody foresaw it."""
    match error:
        case InputError():
            return 2, f"Error: {error}"
        case Refused():
            return 3, f"Refused: {error}"
        case Failed():
            return 1, f"Error: {error}"
        case OSError() if (said := files.explained(error)) is not None:
            return 1, f"Error: {one_line(said)}"
    if hasattr(error, "format_message"):  # the parser's errors are no public class of Typer; each knows its message
        alike = getattr(error, "possibilities", None)  # options like the unknown one, the likest first
        words = f"{error.message}, did you mean {alike[0]}?" if alike else f"{error.format_message().rstrip('.')};"
        return 2, f"Error: {words} --help lists what there is"
    return 1, traceback.format_exc()
