"""The page says what it was given, fetches nothing, and cannot be broken by what it is given."""

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.image import imsave

from deepmerge.errors import InputError
from deepmerge.report import page as pages
from deepmerge.report.page import Picture, Report, Section, Table, html_page

SIMULATED = "Simulated demo data, not Illustris"
HOSTILE = "<script>alert(1)</script>\"' onload=x & {} {0} </style> \\1"
STYLE = Path(pages.__file__).with_name("report.css")
VOID = {"meta", "img"}


@pytest.fixture(scope="module")
def png():
    held = io.BytesIO()
    imsave(held, np.zeros((150, 300)))
    return held.getvalue()


def page(png, text="text"):
    """A report that has something in every place, `text` in all that hold any."""
    table = Table(text, [text, text, text], [[text, "0.966 [0.939, 0.989]", text]], apart=1)
    inner = Section(text, tables=[replace(table, folded=True)], sections=[Section(text, points=[text])])
    whole = Section(text, [text], [text], [text], {text: text}, [table], [Picture(text, text, png)], [inner])
    return Report(text, text, text, {text: text}, [whole, Section(text)], text)


class Tree(HTMLParser):
    """What stands in a page; fails where a tag is closed that is not the last one opened."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), "an attribute twice"
        self.elements.append(SimpleNamespace(tag=tag, text="", at=dict(attrs), within=[e.tag for e in self.open]))
        if tag not in VOID:
            self.open.append(self.elements[-1])

    def handle_endtag(self, tag):
        assert self.open.pop().tag == tag

    def handle_data(self, data):
        for element in self.open:
            element.text += data

    def all(self, *tags):
        return [element for element in self.elements if element.tag in tags]


@pytest.mark.parametrize("text", ["text", HOSTILE, "", "Ćiprijanović ≥ 0.5"])
def test_the_page_is_well_formed_whatever_it_holds(png, text):
    tree = Tree(html_page(page(png, text)))
    ids = [element.at["id"] for element in tree.elements if "id" in element.at]
    assert len(ids) == len(set(ids))
    links = [element.at["href"] for element in tree.all("a")]
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)
    assert [element.text for element in tree.all("h1")] == [text]
    levels = [int(element.tag[1]) for element in tree.all("h1", "h2", "h3", "h4", "h5", "h6")]
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert all(element.at["scope"] in ("col", "row") for element in tree.all("th"))


def test_what_comes_from_outside_is_shown_and_not_run(png):
    harmless, hostile = Tree(html_page(page(png))), Tree(html_page(page(png, HOSTILE)))
    assert [e.tag for e in hostile.elements] == [e.tag for e in harmless.elements]
    assert [sorted(e.at) for e in hostile.elements] == [sorted(e.at) for e in harmless.elements]
    shown = [
        theirs.text for ours, theirs in zip(harmless.elements, hostile.elements, strict=True) if ours.text == "text"
    ]
    assert len(shown) > 20
    assert set(shown) == {HOSTILE}
    assert hostile.all("img")[0].at["alt"] == HOSTILE


def test_the_page_fetches_nothing_and_runs_nothing(png):
    text = html_page(page(png, "see https://elsewhere.org/x.png, arXiv:1810.03993 and doi:10.17909/t9-vqk6-pc80."))
    tree = Tree(text)
    assert not tree.all("script", "link", "iframe", "object", "base", "form")
    assert not re.search(r"url\(|@import|javascript:", text)
    for element in tree.elements:
        assert element.at.get("src", "data:image/png;base64,").startswith("data:image/png;base64,")
        assert not [name for name in element.at if name.startswith("on") or name in ("srcset", "action", "poster")]
    allowed = ("#", "https://arxiv.org/abs/", "https://doi.org/10.")
    assert all(element.at["href"].startswith(allowed) for element in tree.all("a"))
    [policy] = [element for element in tree.all("meta") if "http-equiv" in element.at]
    assert policy.at["content"].startswith("default-src 'none'")


def test_citations_become_links_without_the_full_stop_behind_them():
    cited = Section("s", paragraphs=["As in arXiv:1810.03993, doi:10.17909/t9-vqk6-pc80."])
    links = {e.text: e.at["href"] for e in Tree(html_page(Report("", "", "", {}, [cited], ""))).all("a")}
    assert links["arXiv:1810.03993"] == "https://arxiv.org/abs/1810.03993"
    assert links["doi:10.17909/t9-vqk6-pc80"] == "https://doi.org/10.17909/t9-vqk6-pc80"


def test_the_same_report_gives_the_same_bytes(png):
    assert html_page(page(png)) == html_page(page(png))


def test_a_warning_is_the_first_thing_on_the_page_and_in_its_title(png):
    tree = Tree(html_page(replace(page(png), warning=SIMULATED)))
    [body] = tree.all("body")
    assert body.text.strip().startswith(SIMULATED)
    assert tree.all("title")[0].text == f"{SIMULATED}: text"


def test_a_page_without_a_warning_has_no_banner(png):
    tree = Tree(html_page(replace(page(png), warning="", title="Report")))
    assert not [element for element in tree.elements if element.at.get("class") == "warning"]
    assert tree.all("title")[0].text == "Report"


def test_the_contents_lead_to_every_section(png):
    whole = replace(page(png), sections=[Section("One"), Section("One"), Section("Two")])
    tree = Tree(html_page(whole))
    targets = {e.at["id"]: e.text.strip() for e in tree.all("section")}
    assert [(e.text, targets[e.at["href"][1:]]) for e in tree.all("a")] == [
        ("One", "One"),
        ("One", "One"),
        ("Two", "Two"),
    ]


def test_a_picture_is_embedded_whole_with_the_shape_it_has(png):
    [image] = Tree(html_page(page(png))).all("img")
    assert base64.b64decode(image.at["src"].partition(",")[2]) == png
    assert (image.at["width"], image.at["height"]) == ("200", "100")  # 300 × 150 pixels at two thirds


def test_columns_set_apart_are_the_last_ones_and_folded_tables_can_be_opened():
    table = Table("c", list("abcd"), [list("efgh")], apart=2)
    tree = Tree(html_page(Report("", "", "", {}, [Section("s", tables=[table, replace(table, folded=True)])], "")))
    apart = [e.text for e in tree.all("th", "td") if e.at.get("class") == "apart"]
    assert apart == list("cdgh") * 2
    assert ["details" in e.within for e in tree.all("table")] == [False, True]


def test_the_style_prints_what_is_folded_and_knows_dark_screens():
    style = STYLE.read_text()
    assert "details::details-content" in style.partition("@media print")[2]
    assert "prefers-color-scheme: dark" in style


@pytest.mark.parametrize(
    ("ink", "paper"), [("text", "page"), ("quiet", "page"), ("link", "page"), ("warning-text", "warning-page")]
)
@pytest.mark.parametrize("theme", [0, 1, 2], ids=["light", "dark", "print"])
def test_texts_can_be_read_on_their_ground(ink, paper, theme):
    """A contrast of 4.5 or more, the level AA of WCAG 2.1."""
    block = re.findall(r":root \{(.*?)\}", STYLE.read_text(), re.DOTALL)[theme]

    def luminance(name):
        digits = re.search(rf"--{name}: #(\w+)", block)[1]
        digits = "".join(2 * d for d in digits) if len(digits) == 3 else digits
        c = np.frombuffer(bytes.fromhex(digits), np.uint8) / 255
        return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]

    low, high = sorted((luminance(ink), luminance(paper)))
    assert (high + 0.05) / (low + 0.05) >= 4.5


@pytest.mark.parametrize(
    "build", [lambda: Table("t", ["a", "b"], [["1", "2"], ["3"]]), lambda: Picture("p", "", b"GIF89a")]
)
def test_a_table_or_picture_that_cannot_be_shown_is_refused(build):
    with pytest.raises(InputError, match=r"expected .*received"):
        build()
