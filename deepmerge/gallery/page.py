"""A gallery as one self-contained page: columns and pictures in, HTML text out.

Nothing is fetched. The page's own style and script are the only ones that its policy lets run, by their hashes, so that
no text in it can bring others, whatever a catalogue says. All texts are data: escaped here, and written by the script
as text. The same gallery gives the same bytes.
"""

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from deepmerge.errors import InputError
from deepmerge.gallery.packs import PACK, Packs

TEMPLATE = "gallery.html.jinja"
SCRIPTS = ("store", "pictures", "grid", "filters", "panel", "map", "tagging")  # in this order, as one
_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Column:
    """What is known of each image, (n,): numbers, the names of categories, or texts such as ids; None or NaN: unknown.

    title: what people call it; help: what it means, in a sentence.
    """

    name: str
    title: str
    kind: Literal["number", "category", "text"]
    values: Sequence[Any]
    help: str = ""

    def packed(self) -> dict[str, Any]:
        """The same for JSON: numbers to 6 digits, categories as numbers of their names."""
        entry: dict[str, Any] = {"name": self.name, "title": self.title, "kind": self.kind, "help": self.help}
        if self.kind == "number":
            return {**entry, "values": [_number(value) for value in self.values]}
        texts = ["" if value is None else str(value) for value in self.values]
        if self.kind == "text":
            return {**entry, "values": texts}
        names = list(dict.fromkeys(texts))
        codes = {name: code for code, name in enumerate(names)}
        return {**entry, "names": names, "values": [codes[text] for text in texts]}


@dataclass(frozen=True)
class Gallery:
    """All that the page shows, a line an image (n,).

    columns: among them 'row', the number by which tags name an image, and perhaps 'galaxy_id', 'label' and
    'probability', which the page knows; thumbnails (n), and maps (n) of what speaks for and against a merger.
    filters: what is shown red, green and blue. tags: the words that can be said of an image, with their meaning;
    tagged: by the number of an image, the tag that it has and the label that was meant then. sort: the column by which
    the images stand at first, the highest values first. places (n, 2): of the images on a map of the sample; neighbours
    (n, k): numbers of the images that are most alike. key: what tells this gallery's tags from those of another one in
    the memory of a browser.
    """

    title: str
    warning: str
    facts: Sequence[str]
    columns: Sequence[Column]
    thumbnails: Packs
    filters: tuple[str, str, str]
    tags: Mapping[str, str]
    key: str
    made_with: str
    maps: Packs | None = None
    maps_title: str = ""
    tagged: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    sort: str = "row"
    places: np.ndarray | None = None
    neighbours: Sequence[Sequence[int]] | None = None

    def __post_init__(self) -> None:
        count = len(self.thumbnails)
        lengths = {column.name: len(column.values) for column in self.columns}
        lengths |= {"maps": count if self.maps is None else len(self.maps)}
        lengths |= {name: count if (v := getattr(self, name)) is None else len(v) for name in ("places", "neighbours")}
        if wrong := {name: length for name, length in lengths.items() if length != count}:
            raise InputError(f"a gallery of {count} images should have as many of each thing, got {wrong}")
        if "row" not in lengths or self.sort not in lengths:
            raise InputError(f"columns should be row and {self.sort}, among others, got {', '.join(lengths)}")

    def data(self) -> dict[str, Any]:
        """What the script works with."""
        places = None if self.places is None else [[_number(x) for x in axis] for axis in np.transpose(self.places)]
        return {
            "key": self.key,
            "columns": [column.packed() for column in self.columns],
            "filters": self.filters,
            "tags": list(self.tags.items()),
            "tagged": [[number, tag, label] for number, (tag, label) in self.tagged.items()],
            "sort": self.sort,
            "thumbnails": _packed(self.thumbnails),
            "maps": None if self.maps is None else _packed(self.maps),
            "mapsTitle": self.maps_title,
            "places": places,
            "neighbours": self.neighbours,
        }


def html_page(gallery: Gallery) -> str:
    """Write the gallery as one HTML page."""
    style = (_HERE / "gallery.css").read_text(encoding="utf-8")
    parts = [(_HERE / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS]
    script = "(() => {\n'use strict';\n" + "\n".join(parts) + "})();\n"
    return _TEMPLATES.get_template(TEMPLATE).render(
        gallery=gallery,
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
        data=gallery.data(),
        packs={"thumbnails": gallery.thumbnails, "maps": gallery.maps},
    )


def _hash(text: str) -> str:
    """What a Content-Security-Policy calls an inline style or script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _packed(packs: Packs) -> dict[str, Any]:
    size = {"height": packs.height, "width": packs.width}
    return {**size, "header": packs.header, "lengths": packs.lengths, "pack": PACK}


def _number(value: Any) -> int | float | None:
    """A number of JSON, whole or to 6 digits; None where it is undefined."""
    if value is None:
        return None
    if isinstance(value, int | np.integer):
        return int(value)
    return float(f"{float(value):.6g}") if math.isfinite(value) else None


_TEMPLATES = Environment(
    loader=FileSystemLoader(_HERE),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
