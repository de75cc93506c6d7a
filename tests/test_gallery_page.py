"""The page of a gallery: whole, closed against what it is given, and usable in a browser."""

import base64
import csv
import hashlib
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import browser
import numpy as np
import pytest
from PIL import Image

from deepmerge.data.tags import TAGS
from deepmerge.errors import InputError
from deepmerge.gallery.packs import Packs
from deepmerge.gallery.page import Column, Gallery, html_page

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"' <!-- <script> {{ 7 * 7 }} & \u2028"
IDS = [str(2**53 + 1), 'NGC "1", b', "Ćir <b>x</b>", HOSTILE, "=cmd()", " blank ", "two\nlines", "7"]
COUNT = 60


def pictures(count, side=16):
    """Each of a colour of its own, so that it can be told which one is seen."""
    held = Packs()
    shades = (np.arange(count) * 200 // count + 30).astype(np.uint8)
    held.add(np.broadcast_to(shades[:, None, None, None], (count, side, side, 3)).copy())
    return held


def gallery(count=COUNT, text="text", **changes):
    ids = [IDS[i // 4] if i // 4 < len(IDS) else str(1000 + i // 4) for i in range(count)]
    labels = ["merger" if (i // 4) % 3 == 0 else "non-merger" for i in range(count)]
    p = [((7 * i) % count) / count for i in range(count)]
    made = Gallery(
        title=text,
        warning=text,
        facts=[text],
        columns=[
            Column("row", "row", "number", range(count), text),
            Column("galaxy_id", "galaxy", "text", ids),
            Column("label", "label", "category", labels),
            Column("probability", text or "P", "number", [np.nan if i == 5 else v for i, v in enumerate(p)]),
            Column("odd", text, "category", [text if i % 2 else "even" for i in range(count)]),
        ],
        thumbnails=pictures(count),
        filters=("F160W", "mean", "F814W"),
        tags=TAGS,
        key=f"test {text}",
        made_with=text,
        maps=pictures(count, 8),
        places=np.random.default_rng(0).normal(size=(count, 2)),
        neighbours=[[(i + 4) % count] for i in range(count)],
    )
    return replace(made, **changes)


class Tree(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.inner, self._open, self.attributes = [], {}, None, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]
        self._open = (tag, dict(attrs).get("id"))

    def handle_data(self, data):
        self.inner[self._open] = self.inner.get(self._open, "") + data


@pytest.mark.parametrize("text", ["text", HOSTILE, "", "Ćiprijanović ≥ 0.5"])
def test_whatever_it_is_given_stays_text(text):
    plain, found = Tree(html_page(gallery(text="text"))), Tree(html_page(gallery(text=text)))
    own = [tag for tag in found.tags if text or tag != "p"]
    assert own == [tag for tag in plain.tags if text or tag != "p"]
    assert not {name for name in found.attributes if name.startswith("on") or name == "style"}
    data = json.loads(found.inner["script", "data"])
    assert data["columns"][1]["values"][12] == HOSTILE
    assert data["columns"][0]["help"] == text


def test_only_its_own_style_and_script_may_run_and_nothing_is_fetched():
    page = html_page(gallery())
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1].replace("&#39;", "'")
    rules = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    inline = {"style-src": re.findall(r"<style>(.*?)</style>", page, re.DOTALL)}
    inline["script-src"] = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    for rule, [content] in inline.items():
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"
    assert not re.search(r"https?://", page)


def test_the_same_gallery_gives_the_same_bytes():
    assert html_page(gallery()) == html_page(gallery())


def test_large_ids_are_texts_and_undefined_numbers_null():
    columns = gallery().data()["columns"]
    assert columns[1]["values"][0] == "9007199254740993"
    assert columns[3]["values"][5] is None
    assert json.loads(json.dumps(columns)) == columns


def test_columns_of_another_length_are_refused():
    with pytest.raises(InputError, match=r"as many of each thing, got \{'maps': 3\}"):
        gallery(maps=pictures(3))
    with pytest.raises(InputError, match="columns should be row and brightness"):
        gallery(sort="brightness")


# In a browser


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with browser.opened(tmp_path_factory.mktemp("browser")) as page:
        page.size(1300, 800)
        yield page


@pytest.fixture
def look(page, tmp_path):
    """Open a gallery afresh."""

    def look(made):
        path = tmp_path / "gallery.html"
        path.write_text(html_page(made), encoding="utf-8")
        page.problems.clear()
        page.requests.clear()
        page.open("about:blank", ready="true")
        page.open(path.as_uri())
        return page

    yield look
    assert page.problems == []


def order(page):
    """Rows of the tiles in sight, as they stand."""
    tiles = page.run(
        "[...document.querySelectorAll('.tile:not([hidden])')].map(t => [t.getBoundingClientRect().y,"
        " t.getBoundingClientRect().x, t.i]).sort((a, b) => a[0] - b[0] || a[1] - b[1]).map(t => t[2])"
    )
    return [int(row) for row in tiles]


def exported(page):
    page.press("e")
    return list(csv.reader(io.StringIO(page.run("document.getElementById('csv').value"))))


@pytest.mark.slow
def test_tags_by_key_come_out_as_a_table_that_any_reader_takes(look):
    page = look(gallery(text=HOSTILE))
    for place in range(32):
        page.press("ArrowRight")
        if place % 4 == 0:
            page.press(str(1 + place % 3))
    lines = exported(page)
    assert lines[0] == ["row", "galaxy_id", "label", "tag"]
    assert [line[1] for line in lines[1:]] == IDS
    assert [int(line[0]) for line in lines[1:]] == list(range(0, 32, 4))
    assert [line[2] for line in lines[1:5]] == ["merger", "non-merger", "non-merger", "merger"]
    assert {line[3] for line in lines[1:]} <= set(TAGS)
    assert page.run("document.title").startswith(HOSTILE[:20])
    assert page.run("document.querySelectorAll('img[src=x]').length") == 0
    assert {address.split(":")[0] for address in page.requests} <= {"file", "data", "about"}


@pytest.mark.slow
def test_tags_stay_when_the_page_is_opened_again_and_can_be_taken_away(look):
    page = look(gallery(text="again"))
    page.press("ArrowRight")
    page.press("4")
    page = look(gallery(text="again"))
    assert exported(page)[1:] == [["0", IDS[0], "merger", "artefact"]]
    page.click("#export-dialog .close")
    page.press("ArrowRight")
    page.press("0")
    assert exported(page)[1:] == []


@pytest.mark.slow
def test_tags_of_a_table_are_there_and_keep_the_label_that_was_meant(look):
    page = look(gallery(text="given", tagged={8: ("wrong label", "merger")}))
    assert exported(page)[1:] == [["8", IDS[2], "merger", "wrong label"]]


@pytest.mark.slow
def test_a_range_is_chosen_with_shift_and_tagged_at_once(look):
    page = look(gallery(text="range"))
    page.press("ArrowRight")
    for _ in range(3):
        page.press("ArrowRight", modifiers=8)
    page.press("6")
    assert [int(line[0]) for line in exported(page)[1:]] == [0, 1, 2, 3]


@pytest.mark.slow
def test_it_sorts_with_what_is_unknown_last_and_filters(look):
    page = look(gallery(text="sort", sort="probability"))
    p = {i: ((7 * i) % COUNT) / COUNT for i in range(COUNT) if i != 5}
    assert order(page)[:20] == sorted(p, key=lambda i: -p[i])[:20]
    page.press("End")
    page.until("document.querySelector('.tile.focus')?.i === 5")
    page.press("r")
    assert order(page)[:10] == sorted(p, key=lambda i: p[i])[:10]
    page.run("document.querySelector('[data-column=label][data-name=merger]').click()")
    assert page.run("document.getElementById('shown').textContent") == "20"
    assert all((i // 4) % 3 == 0 for i in order(page))
    page.run("document.getElementById('search').value = '9007199254740993'")
    page.run("document.getElementById('search').dispatchEvent(new Event('input'))")
    page.until("document.getElementById('shown').textContent === '4'")
    page.click("#reset")
    page.until(f"document.getElementById('shown').textContent === '{COUNT}'")


@pytest.mark.slow
def test_each_tile_shows_the_picture_of_its_image_and_the_map_under_the_pointer(look):
    page = look(gallery(text="pictures", sort="probability"))
    shade = """(async tile => { const seen = tile.querySelector('.picture'); await seen.decode();
        const canvas = Object.assign(document.createElement('canvas'), {width: 1, height: 1});
        const context = canvas.getContext('2d'); context.drawImage(seen, 0, 0, 1, 1);
        return [tile.i, context.getImageData(0, 0, 1, 1).data[0]]; })"""
    found = page.run(f"Promise.all([...document.querySelectorAll('.tile:not([hidden])')].map({shade}))")
    assert len(found) > 20
    assert all(abs(value - (i * 200 // COUNT + 30)) <= 3 for i, value in found)
    assert page.run("document.querySelector('.tile .heat').getAttribute('src')") is None
    page.click(".tile")
    assert page.run("document.querySelector('.tile:hover .heat').src").startswith("data:image/jpeg")
    page.press("g")
    assert page.run("!document.getElementById('map').hidden && document.getElementById('grid').hidden")


@pytest.mark.slow
def test_ten_thousand_images_are_a_screenful_of_elements_wherever_one_is(look):
    count = 10_000
    columns = [Column("row", "row", "number", range(count)), Column("galaxy_id", "galaxy", "text", range(count))]
    page = look(gallery(count, text="many", columns=columns))
    for share in (0, 0.5, 1):
        page.run(f"document.getElementById('grid').scrollTop = {share} * document.getElementById('rail').clientHeight")
        page.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        shown = order(page)
        assert shown == list(range(shown[0], shown[0] + len(shown)))
        assert page.run("document.querySelectorAll('.tile').length") < 200
    assert shown[-1] == count - 1


@pytest.mark.slow
def test_it_works_in_a_frame_without_an_origin_as_mlflow_shows_it(page, tmp_path):
    inner = base64.b64encode(html_page(gallery(text="frame")).encode()).decode()
    outer = tmp_path / "frame.html"
    outer.write_text(
        f"<script>const text = atob('{inner}'); const bytes = Uint8Array.from(text, c => c.charCodeAt(0));"
        "const frame = document.createElement('iframe'); frame.sandbox = 'allow-scripts';"
        "Object.assign(frame, {width: 1200, height: 700});"
        "frame.src = URL.createObjectURL(new Blob([bytes], {type: 'text/html'}));"
        "document.documentElement.append(frame);</script>"
    )
    page.problems.clear()
    page.open(outer.as_uri(), ready="document.querySelector('iframe') !== null")
    page.run("new Promise(done => setTimeout(done, 3000))")
    page.move(400, 300)
    picture = tmp_path / "frame.png"
    page.picture(picture)
    seen = np.asarray(Image.open(picture).convert("L"), int)[100:600, 300:900]
    assert (seen < 40).mean() > 0.3  # the dark page, and not an empty frame
    assert seen.std() > 20
    assert page.problems == []
