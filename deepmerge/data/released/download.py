"""One file over HTTP, however often the line drops."""

import itertools
import json
import logging
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deepmerge.errors import InputError
from deepmerge.files import naming, replacing
from deepmerge.progress import progress_bar

logger = logging.getLogger(__name__)

TRIES = 5
FIRST_PAUSE_S = 1.0
TIMEOUTS_S = (10, 60)  # to connect, between two pieces
PIECE_BYTES = 1 << 16
MB = 1_000_000


def kind_of(start: bytes) -> str:
    """Describe what a file that starts with these bytes seems to be."""
    return "a web page" if start.lstrip().startswith(b"<") else f"something that starts {start[:9]!r}"


def download(url: str, part: Path, *, magic: bytes) -> None:
    """Download `url` to `part`, going on where an earlier try of the same remote file stopped.

    Raises InputError for no answer after some tries, and for one that is not a file starting with `magic`.
    """
    import requests

    retried = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError, _Again)
    for attempt in range(TRIES):
        try:
            return _go_on(url, part, magic)
        except retried as error:
            logger.info("%s (try %d of %d): %s", url, attempt + 1, TRIES, _root(error))
            last = error
        except requests.RequestException as error:
            raise InputError(f"Cannot download {url}: {error}.") from error
        if attempt + 1 < TRIES:
            time.sleep(FIRST_PAUSE_S * 2**attempt)
    raise InputError(
        f"No complete answer from {url} after {TRIES} tries ({_root(last)}). Check the network and the proxy "
        "settings; the same command goes on from where it stopped."
    ) from last


class _Again(Exception):
    """A failure that may pass: worth another try."""


def _go_on(url: str, part: Path, magic: bytes) -> None:
    """Do one request for what `part` still lacks, and append it."""
    import requests

    earlier = _Remote.read(notes_file(part))
    start = part.stat().st_size if part.exists() and earlier and earlier.url == url else 0
    # Compressed on the way, byte offsets would mean nothing.
    headers = {"Accept-Encoding": "identity"}
    if start and earlier:
        headers |= {"Range": f"bytes={start}-"} | ({"If-Range": earlier.validator} if earlier.validator else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUTS_S) as answer:
        status = answer.status_code
        served = _Remote.of(url, answer)
        if start and status in (206, 416) and not served.continues(earlier, start):
            part.unlink()
            raise _Again("the remote file changed; starting over")
        if start and status == 416:
            return
        if status in (408, 425, 429) or status >= 500:
            raise _Again(f"the server answers {status} {answer.reason}")
        if status not in (200, 206):
            raise InputError(
                f"Expected a file at {url}, the server answers {status} {answer.reason}. Check the address, "
                "or download the file by hand and import it."
            )
        if status == 200:
            start = 0
        pieces = answer.iter_content(PIECE_BYTES)
        first = next(pieces, b"")
        if start == 0 and not first.startswith(magic):
            raise InputError(
                f"Expected {part.name.removesuffix('.part')} at {url}, got {kind_of(first)}. "
                "A proxy or login page may be in between: open the address in a browser."
            )
        total = -(-(served.size or 0) // MB)
        with (
            naming(part),
            part.open("ab" if start else "wb") as out,
            progress_bar(f"{part.name} [MB]", total) as advance,
        ):
            # After the old bytes are gone: notes must never vouch for bytes of another file.
            served.write(notes_file(part))
            advance(start // MB)
            for piece in itertools.chain([first], pieces):
                out.write(piece)
                before, start = start, start + len(piece)
                advance(start // MB - before // MB)
    size = part.stat().st_size
    if served.size is not None and size != served.size:
        if size > served.size:
            part.unlink()
        raise _Again(f"got {size} of {served.size} bytes")


@dataclass(frozen=True)
class _Remote:
    """A remote file as one answer described it: enough to tell whether it is still the same."""

    url: str
    validator: str | None
    size: int | None
    start: int | None  # of the answer in the file

    @classmethod
    def of(cls, url: str, answer: Any) -> "_Remote":
        etag, modified = answer.headers.get("ETag"), answer.headers.get("Last-Modified")
        # If-Range takes strong validators only.
        validator = etag if etag and not etag.startswith("W/") else modified
        match answer.status_code:
            case 206:  # bytes <start>-<end>/<size>
                span, _, size = answer.headers.get("Content-Range", "").partition("/")
                start = span.removeprefix("bytes ").partition("-")[0]
            case 416:  # bytes */<size>: all there is, if that is where we are
                start = size = answer.headers.get("Content-Range", "").removeprefix("bytes */")
            case _:
                start, size = "0", answer.headers.get("Content-Length", "")
        return cls(url, validator, _whole(size), _whole(start))

    @classmethod
    def read(cls, path: Path) -> "_Remote | None":
        try:
            return cls(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, path: Path) -> None:
        with replacing(path) as aside:
            aside.write_text(json.dumps(asdict(self)))

    def continues(self, earlier: "_Remote | None", start: int) -> bool:
        """Whether the answer goes on at `start` of the `earlier` file: same validator or, lacking one, size."""
        if earlier is None or self.start != start:
            return False
        if self.validator and earlier.validator:
            return self.validator == earlier.validator
        return self.size is not None and self.size == earlier.size


def _whole(text: str) -> int | None:
    return int(text) if text.isdecimal() else None


def notes_file(part: Path) -> Path:
    """Where it is noted which remote file `part` is a piece of."""
    return part.with_name(f"{part.name}.json")


def _root(error: BaseException) -> BaseException:
    """The innermost cause: urllib3 and requests wrap its few words in many."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return error
