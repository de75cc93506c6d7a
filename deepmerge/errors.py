"""The errors that are the user's to mend; the command line prints them in one line without a traceback."""


class InputError(ValueError):
    """Wrong input. The message says what was expected, what was received, and how to mend it (exit status 2)."""


class Refused(Exception):
    """A promotion that its gate refused. The message says why and how to go on (exit status 3)."""
