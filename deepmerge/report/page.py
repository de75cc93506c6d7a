"""A report as one self-contained page: values in, HTML text out.

Nothing is fetched and nothing runs: pictures and style are embedded, there is no script, and the page itself forbids
both. Texts are plain: whatever they hold is escaped, and `arXiv:…` and `doi:…` in them become links. The same report
gives the same bytes.
"""

import base64
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from deepmerge.errors import InputError

TEMPLATE = "report.html.jinja"
PNG = b"\x89PNG\r\n\x1a\n"
# Figures have 200 pixels an inch; at two thirds of that their letters are about as large as those of the page.
SHOWN = 2 / 3
_LINKS = {r"arXiv:(\d{4}\.\d{4,5})": "https://arxiv.org/abs/", r"doi:(10\.\d{4,9}/[\w./-]*\w)": "https://doi.org/"}


@dataclass(frozen=True)
class Table:
    """A table whose first column names the rows. Raises InputError where a row is not as long as the header.

    apart: so many of the last columns are set apart from the others; folded: on the screen it is shown on demand.
    """

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    apart: int = 0
    folded: bool = False

    def __post_init__(self) -> None:
        odd = {len(row) for row in self.rows} - {len(self.header)}
        if odd:
            raise InputError(
                f"table {self.caption[:40]!r}: expected {len(self.header)} cells in every row, as in its header, "
                f"received {min(odd)}"
            )


@dataclass(frozen=True)
class Picture:
    """A PNG as bytes. Its title is also read out where it cannot be seen. Raises InputError for another format."""

    title: str
    caption: str
    png: bytes

    def __post_init__(self) -> None:
        if not self.png.startswith(PNG) or len(self.png) < 24:
            raise InputError(f"picture {self.title!r}: expected a PNG file, received bytes {self.png[:8]!r}…")

    @property
    def base64(self) -> str:
        """The file, as an address of data holds it."""
        return base64.b64encode(self.png).decode("ascii")

    @property
    def size(self) -> list[int]:
        """Width and height on the page, in its pixels."""
        return [round(SHOWN * side) for side in struct.unpack(">2I", self.png[16:24])]


@dataclass(frozen=True)
class Section:
    """A part of the page, shown in the order of its fields; `notes` are warnings and stand in a frame."""

    title: str
    notes: Sequence[str] = ()
    paragraphs: Sequence[str] = ()
    points: Sequence[str] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    sections: Sequence["Section"] = ()


@dataclass(frozen=True)
class Report:
    """The whole page. `warning` (simulated data, a leaking split) stays in sight and comes first in the window's title,
    which browsers print on every sheet; `made_with` says what made it, and when if that is to be said.
    """

    title: str
    subtitle: str
    warning: str
    facts: Mapping[str, str]
    sections: Sequence[Section]
    made_with: str


def html_page(report: Report) -> str:
    """Write the report as one HTML page: its sections are headed by `<h2>`, those within them by `<h3>`, `<h4>`, …."""
    return _TEMPLATES.get_template(TEMPLATE).render(report=report)


def _cited(text: str) -> Markup:
    """Escape a text, keep its intervals on one line, and make links of what it cites."""
    html = re.sub(r"\[(\S+), (\S+)\]", r"[\1,&nbsp;\2]", str(escape(text)))
    for pattern, address in _LINKS.items():
        html = re.sub(pattern, rf'<a href="{address}\1">\g<0></a>', html)
    return Markup(html)


_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_TEMPLATES.filters["cited"] = _cited
