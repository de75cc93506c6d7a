"""The failures that the command line prints in one line without a traceback."""

LONGEST = 2000  # characters; a message that names ten files has some thousand
LAST = 500  # of them that stand at the end, which says how to mend it


class _Told(Exception):
    """A failure told in one line, whatever the files, or the libraries, that its message quotes hold."""

    def __init__(self, message: object) -> None:
        super().__init__(one_line(message))


class InputError(_Told, ValueError):
    """Wrong input. The message says what was expected, what was received, and how to mend it (exit status 2)."""


class Refused(_Told):
    """A promotion that its gate refused. The message says why and how to go on (exit status 3)."""


class Failed(_Told, RuntimeError):
    """What could not be done although the input is right. The message is all there is to know (exit status 1)."""


def one_line(words: object) -> str:
    """Text in one line of at most LONGEST characters: breaks as blanks, what cannot be printed escaped.

    A file's content that is quoted as it is could otherwise write to the terminal what it likes.
    """
    text = " ".join(line.strip() for line in str(words).splitlines())
    text = "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - LAST - 1]}…{text[-LAST:]}"
