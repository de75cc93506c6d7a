"""What messages and records show of an address: everything but its password."""

import logging
import os
import re
import sys
from collections.abc import Iterable, Iterator
from urllib.parse import unquote, unquote_plus

MASK = "***"
# Where an address stands in a text. It ends where a text would put a quote or a blank.
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>`]+")
_WHOLE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://.+")
# Parameters behind the question mark that are secrets; odbc_connect holds a whole connection string.
_PARAMETER = re.compile(
    r"(?P<mark>[?&;])(?P<name>[^?&;=#@/]*(?:pass|pwd|secret|token|credential|api_?key|access_?key|odbc_connect)[^?&;=#@/]*)"
    r"=(?P<value>[^&;#]*)",
    re.IGNORECASE,
)
_SEPARATORS = re.compile(r"[@:/?#]")


def hidden(url: str) -> str:
    """An address without its password: the one before ``@``, and what parameters such as ``password=`` hold."""
    return _taken_apart(url)[0]


def scrubbed(text: str, *urls: str) -> str:
    """A text without the passwords of the addresses in it, of `urls`, of arguments and of the environment.

    Libraries repeat addresses in their own messages, whole or in part, as they stand or decoded.
    """
    for url in {*urls, *_of_process()}:
        shown, secrets = _taken_apart(url)
        text = text.replace(url, shown)
        # What the rest of the address shows anyway, such as a password that is the user's name, is no use to hide.
        for secret in sorted(secrets, key=len, reverse=True):
            if secret not in shown:
                text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", MASK, text)
    return _ADDRESS.sub(lambda match: hidden(match.group()), text)


class Formatter(logging.Formatter):
    """Writes log lines without passwords."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        return scrubbed(super().format(record))


def _taken_apart(url: str) -> tuple[str, set[str]]:
    """An address without its passwords, and these, in all ways in which a message might repeat them."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url, set()
    secrets = [match["value"] for match in _PARAMETER.finditer(rest)]
    rest = _PARAMETER.sub(lambda match: "?" * (match["mark"] == "?"), rest)
    rest = re.sub(r"\?(?=#|$)", "", re.sub(r"\?[&;]+", "?", rest))
    # A file has no login. Elsewhere the last @ counts: people write passwords with @, : and / as they are.
    if "@" in rest and not rest.startswith("/"):
        login, _, place = rest.rpartition("@")
        user, _, password = login.partition(":")
        secrets.append(password)
        rest = f"{user}@{place}"
    return f"{scheme}{separator}{rest}", set(_spellings(secrets))


def _spellings(secrets: Iterable[str]) -> Iterator[str]:
    for secret in filter(None, secrets):
        yield from {secret, unquote(secret), unquote_plus(secret)}
        # A library that takes such a password for host and port names parts of it.
        yield from filter(None, _SEPARATORS.split(secret))


def _of_process() -> set[str]:
    """Addresses among the arguments and in the environment of this process."""
    named = [value for name, value in os.environ.items() if name.upper().endswith(("URI", "URL", "PROXY"))]
    matches = (_WHOLE.search(text) for text in [*sys.argv, *named])
    return {match.group() for match in matches if match and not re.search(r"\s", match.group())}
