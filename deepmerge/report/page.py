"""A report as one self-contained page: values in, HTML text out.

Nothing is fetched and nothing runs: pictures and style are embedded, there is no script, and the page itself forbids
both. Texts are plain: whatever they hold is escaped, and `arXiv:…` and `doi:…` in them become links. The same report
gives the same bytes.
"""

import base64
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import numpy as np

from deepmerge.errors import InputError
from deepmerge.estimate import Estimate

STYLE = Path(__file__).with_name("report.css")
PNG = b"\x89PNG\r\n\x1a\n"
# Figures have 200 pixels an inch; at two thirds of that their letters are about as large as those of the page.
SHOWN = 2 / 3
# What a report says first of a test set, and in which words.
HEADLINE = {
    "auc": "AUC",
    "balanced_accuracy": "Balanced accuracy",
    "accuracy": "Accuracy at the sample's own ratio",
    "completeness": "Completeness",
    "purity_at_balance": "Purity, both classes equally many",
    "purity": "Purity at the sample's own ratio",
    "brier_at_balance": "Brier score, both classes equally many (lower is better)",
    "calibration_error_at_balance": "Calibration error (ECE), both classes equally many (lower is better)",
}
PUBLISHED = {"pristine": "0.79", "noisy": "0.76"}  # accuracy: Ćiprijanović et al. 2020, abstract
# 98.6 %: their split rebuilt from the released catalogue (README); 53 %: 8120 of the 15426 released images.
HEADLINE_CAPTION = (
    "On test images; in brackets the 95 % interval from a bootstrap over galaxies. A calibration error has none, since "
    "noise lifts it anew in every resample. Published, set apart on the right: "
    "Ćiprijanović et al. 2020, A&C 32, 100390, arXiv:2004.11981, on Illustris images, rows split at random: 98.6 % of "
    "the test rows have their galaxy in the training set. Hence neither comparable with ours nor an upper or lower "
    "bound for them. Some 53 % of those rows are mergers: the published accuracy is nearest in kind to a balanced one."
)
# What a model card says of every model of this project.
USES = (
    "Ranking merger candidates for a closer look, in HST-like images simulated as the training images were: same "
    "redshift (z = 2 in the DeepMerge sample), filters, pixel scale, PSF and depth.",
)
MISUSES = (
    "Not for merger rates or fractions without calibration at the survey's merger fraction: probabilities and purity "
    "hold at the class ratio they were trained or measured at, and in a survey mergers are rarer.",
    "Not for other redshifts, depths, filters or PSFs than those of the training images.",
    "Not for real images without domain adaptation and a test on real galaxies with known labels.",
)
FACTORS = (
    "Varied in the DeepMerge sample: viewing angle, stage (past merger, future merger, non-merger), stellar mass.",
    "The same for all its images, hence untested: redshift, filters, depth, PSF, the simulation and its physics.",
)
CAVEATS = (
    "In simulated samples the label is a time window around coalescence, not what an observer would call a merger.",
    "Views of one galaxy are not independent: count galaxies, not images, when you judge a difference.",
    "Intervals hold the scatter of the test galaxies, not that of another training, split or simulation.",
    "Saliency maps show where the network looked, not why, nor that it was right.",
)
UNDEFINED = Estimate(np.nan, np.nan, np.nan)
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


def headline(datasets: Mapping[str, Mapping[str, Estimate]]) -> Table:
    """Tabulate HEADLINE for the test images of each data set and, set apart, what was published.

    datasets: metrics of `metrics.evaluate` by name of the data set. One that is missing is undefined: runs leave out
    NaN. The numbers of images and mergers, and the accuracy of always naming the commoner class, tell how to read
    accuracy and purity. Raises InputError where a data set has none of the metrics.
    """
    if not datasets:
        raise InputError("datasets: expected the metrics of one or more, received none")
    for name, measured in datasets.items():
        if not set(HEADLINE) & set(measured):
            raise InputError(
                f"metrics of {name}: expected some of {', '.join(HEADLINE)}, received "
                f"{', '.join(measured) or 'none'}; run 'deepmerge evaluate' first"
            )
    unpublished = ["–"] * len(PUBLISHED)
    rows = [
        [
            words,
            *(measured.get(metric, UNDEFINED).text() for measured in datasets.values()),
            *(PUBLISHED.values() if metric == "accuracy" else unpublished),
        ]
        for metric, words in HEADLINE.items()
    ]
    images, trivial = zip(*(_class_counts(measured) for measured in datasets.values()), strict=True)
    below_accuracy = list(HEADLINE).index("accuracy") + 1
    rows.insert(below_accuracy, ["Accuracy of naming the commoner class every time", *trivial, *unpublished])
    rows.append(["Test images (of which mergers)", *images, *unpublished])
    header = ["metric", *datasets, *(f"published, {variant}, random rows" for variant in PUBLISHED)]
    return Table(HEADLINE_CAPTION, header, rows, apart=len(PUBLISHED))


def _class_counts(measured: Mapping[str, Estimate]) -> tuple[str, str]:
    """The numbers of images and mergers, and the accuracy of naming the commoner class for every image."""
    if not {"tp", "fp", "tn", "fn"} <= set(measured):
        return "undefined", "undefined"
    tp, fp, tn, fn = (measured[name].value for name in ("tp", "fp", "tn", "fn"))
    total = tp + fp + tn + fn
    return f"{total:.0f} ({tp + fn:.0f})", f"{max(tp + fn, fp + tn) / total:.3f}"


def model_card(
    model: str,
    *,
    architecture: str,
    parameters: int,
    settings: Mapping[str, object],
    parts: Mapping[str, tuple[int, int]],
    protocol: str,
    simulated: bool,
    origin: Mapping[str, str],
) -> Section:
    """Describe a model as a model card (Mitchell et al. 2019, arXiv:1810.03993, section 4).

    model: its name; parameters: number of weights; settings: of network and training; parts: (galaxies, images) of
    train, validation and test; protocol: 'galaxy' or 'rows'; simulated: whether the data are the demo's; origin: what
    it takes to make the model again (fingerprints of data and split, commit, versions, threads). The analyses that the
    paper asks for are those of the report. Raises InputError for another protocol.
    """
    if protocol not in ("galaxy", "rows"):
        raise InputError(f"protocol should be 'galaxy' or 'rows', got {protocol!r}")
    split = {
        "galaxy": "Split by galaxy before any augmentation: no galaxy is in two parts.",
        "rows": "Random rows, as published: galaxies are in training and test at once, so the metrics are optimistic.",
    }[protocol]
    demo = [
        "The training data are simulated demo data, not Illustris: for trying things out, not for science."
    ] * simulated
    counts = Table(
        "Galaxies and images of each part",
        ["part", "galaxies", "images"],
        [[part, f"{galaxies:,}", f"{images:,}"] for part, (galaxies, images) in parts.items()],
    )
    used = {name: str(value) for name, value in settings.items()}
    return Section(
        f"Model card: {model}",
        notes=demo,
        sections=[
            Section(
                "Model details",
                facts={"architecture": architecture, "parameters": f"{parameters:,}", **origin},
                paragraphs=["A convolutional network: raw pixels in, probability of a merger out."],
            ),
            Section("Intended use", points=USES),
            Section("Not intended", points=MISUSES),
            Section("Factors", points=FACTORS),
            Section(
                "Metrics",
                paragraphs=[
                    "Those of the headline table, an image being called a merger from a probability of 0.5 on, with "
                    "95 % intervals from a bootstrap over galaxies, stratified by class."
                ],
            ),
            Section(
                "Training and evaluation data",
                notes=[split] * (protocol == "rows"),
                paragraphs=[split] * (protocol == "galaxy"),
                tables=[counts, Table("Settings", ["setting", "value"], list(used.items()), folded=True)],
            ),
            Section(
                "Ethical considerations",
                paragraphs=["No people are in the data. What misuse can harm is science: see what is not intended."],
            ),
            Section("Caveats and recommendations", points=CAVEATS),
        ],
    )


def html_page(report: Report) -> str:
    """Write the report as one HTML page: its sections are headed by `<h2>`, those within them by `<h3>`, `<h4>`, …."""
    numbered = list(enumerate(report.sections, 1))
    contents = "\n".join(f'<li><a href="#s{n}">{escape(section.title)}</a></li>' for n, section in numbered)
    sections = "\n".join(f'<section id="s{n}">\n{_section(section, 2)}\n</section>' for n, section in numbered)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(": ".join(filter(None, (report.warning, report.title))))}</title>
<style>
{STYLE.read_text(encoding="utf-8")}</style>
</head>
<body>
{_each('<p class="warning" role="note">{}</p>', [report.warning] if report.warning else [])}
<header>
<h1>{_text(report.title)}</h1>
<p class="subtitle">{_text(report.subtitle)}</p>
{_facts(report.facts)}
</header>
<nav aria-labelledby="contents">
<h2 id="contents">Contents</h2>
<ol>
{contents}
</ol>
</nav>
<main>
{sections}
</main>
<footer>{_text(report.made_with)}</footer>
</body>
</html>
"""


def _text(text: str) -> str:
    """Escape a text, keep its intervals on one line, and make links of what it cites."""
    html = re.sub(r"\[(\S+), (\S+)\]", r"[\1,&nbsp;\2]", escape(text))
    for pattern, address in _LINKS.items():
        html = re.sub(pattern, rf'<a href="{address}\1">\g<0></a>', html)
    return html


def _each(element: str, texts: Iterable[str]) -> str:
    """Put every text into the element, at its {}."""
    return "\n".join(element.format(_text(text)) for text in texts)


def _facts(facts: Mapping[str, str]) -> str:
    pairs = "\n".join(f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>" for name, value in facts.items())
    return f"<dl>\n{pairs}\n</dl>" if facts else ""


def _section(section: Section, level: int) -> str:
    points = _each("<li>{}</li>", section.points)
    pictures = "\n".join(map(_picture, section.pictures))
    parts = [
        f"<h{level}>{escape(section.title)}</h{level}>",
        _each('<p class="note" role="note">{}</p>', section.notes),
        _each("<p>{}</p>", section.paragraphs),
        f"<ul>\n{points}\n</ul>" if points else "",
        _facts(section.facts),
        *map(_table, section.tables),
        f'<div class="pictures">\n{pictures}\n</div>' if pictures else "",
        *(_section(part, min(level + 1, 6)) for part in section.sections),
    ]
    return "\n".join(filter(None, parts))


def _table(table: Table) -> str:
    rows = "\n".join(_row(row, table.apart) for row in table.rows)
    # Keyboards scroll only what can have the focus.
    body = f"""<div class="scroll" tabindex="0"><table>
<thead>
{_row(table.header, table.apart, header=True)}
</thead>
<tbody>
{rows}
</tbody>
</table></div>"""
    caption = _text(table.caption)
    if table.folded:
        return f'<details class="table">\n<summary>{caption}</summary>\n{body}\n</details>'
    return f'<figure class="table">\n{body}\n<figcaption>{caption}</figcaption>\n</figure>'


def _row(texts: Sequence[str], apart: int, *, header: bool = False) -> str:
    cells = []
    for column, text in enumerate(texts):
        look = ' class="apart"' if column >= len(texts) - apart else ""
        if header or column == 0:
            scope = "col" if header else "row"
            cells.append(f'<th scope="{scope}"{look}>{_text(text)}</th>')
        else:
            cells.append(f"<td{look}>{_text(text)}</td>")
    return f"<tr>{''.join(cells)}</tr>"


def _picture(picture: Picture) -> str:
    width, height = (round(SHOWN * side) for side in struct.unpack(">2I", picture.png[16:24]))
    source = base64.b64encode(picture.png).decode("ascii")
    size = f'width="{width}" height="{height}"'
    return f"""<figure>
<img src="data:image/png;base64,{source}" alt="{escape(picture.title)}" {size}>
<figcaption><strong>{_text(picture.title)}</strong> {_text(picture.caption)}</figcaption>
</figure>"""
