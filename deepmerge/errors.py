"""The failures that the command line prints in one line without a traceback."""


class InputError(ValueError):
    """Wrong input. The message says what was expected, what was received, and how to mend it (exit status 2)."""


class Refused(Exception):
    """A promotion that its gate refused. The message says why and how to go on (exit status 3)."""


class Failed(RuntimeError):
    """What could not be done although the input is right. The message is all there is to know (exit status 1)."""
