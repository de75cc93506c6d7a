"""Files of all kinds, valid ones mutated: each reads to what its reader promises, or is refused in one line.

The same examples in every run; DEEPMERGE_FUZZ=5000 tries so many random ones of each kind instead.
"""

import gzip
import io
import os
import re
import resource
import signal
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from astropy.io import fits
from astropy.table import Table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deepmerge import config, errors
from deepmerge.data import catalogue, dataset, positions, split_table, splits, tags
from deepmerge.data.formats import any_table, arrays, stamps
from deepmerge.data.formats.image_file import open_images
from deepmerge.data.released import archive
from deepmerge.errors import InputError

pytestmark = pytest.mark.slow

LONGER = os.environ.get("DEEPMERGE_FUZZ")
MEMORY = 2**30  # bytes that a reader may take; its files have some ten thousand
PATIENCE = 60  # seconds after which a reader counts as hung

fuzzed = settings(
    deadline=None,
    derandomize=not LONGER,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)


def tries(count):
    return settings(fuzzed, max_examples=int(LONGER) if LONGER else count)


# What is asked of every reader


def hung(number, frame):
    raise TimeoutError(f"read for {PATIENCE} s")


@contextmanager
def bounded():
    """Let a reader take so much memory, disk and time, and no more."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limits = {resource.RLIMIT_AS: pages * resource.getpagesize() + MEMORY, resource.RLIMIT_FSIZE: MEMORY}
    before = {kind: resource.getrlimit(kind) for kind in limits}
    handler = signal.signal(signal.SIGALRM, hung)
    for kind, limit in limits.items():
        resource.setrlimit(kind, (limit, before[kind][1]))
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)
        for kind, limit in before.items():
            resource.setrlimit(kind, limit)


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def read_or_refused(read, folder):
    """What `read` gives; None where it refuses its input as it should. Files in `folder` stay as they are."""
    before = contents(folder)
    result = None
    try:
        with bounded():
            result = read()
    except InputError as error:
        said = str(error)
        assert said.strip()
        assert len(said) <= errors.LONGEST, said
        assert "\n" not in said, said
    assert contents(folder) == before
    return result


# Mutations


def header(descr, order, shape, version=b"\x01\x00"):
    """The header of an npy file that says of itself what it likes."""
    text = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}".encode()
    text = text.ljust(117) + b"\n"
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text


TOKENS = [
    *(b"", b"\0", b"\xff", b"\x80\x80", b"\r", b"\n", b"\r\n", b'"', b"'", b",", b";", b"\t", b"|", b"#", b" " * 90),
    *(b"\xef\xbb\xbf", b"\xff\xfe", b"\xe2\x80\xa8", b"\xc2\x85", "é".encode("latin-1"), "１２".encode(), "٣".encode()),
    *(b"-1", b"0", b"1e400", b"-1e400", b"nan", b"inf", b"1_0", b"0x10", b"1.5", b"2147483648", b"9223372036854775808"),
    *(b"9" * 30, b"9" * 5000, b"a" * 300, b"1e5", b"-0", b"+1", b"1d3", b"T", b"F", b"None", b"null", b"=1+1", b"%s{}"),
]
places = st.one_of(st.integers(0, 400), st.integers(0, 2**20))  # beginnings say what follows
small = st.binary(max_size=8)
edit = st.one_of(
    st.tuples(st.just("put"), places, st.sampled_from([1, 2, 4, 8]), st.one_of(small, st.sampled_from(TOKENS))),
    st.tuples(st.just("insert"), places, st.just(0), st.sampled_from(TOKENS)),
    st.tuples(st.just("drop"), places, st.integers(1, 3000), st.just(b"")),
    st.tuples(st.just("again"), places, st.integers(1, 3000), st.just(b"")),
    st.tuples(st.just("cut"), places, st.just(0), st.just(b"")),
)


def edited(content, edits):
    for kind, place, length, token in edits:
        place %= len(content) + 1
        head, tail = content[:place], content[place:]
        if kind == "put":
            content = head + token + tail[max(length, len(token)) :]
        elif kind == "insert":
            content = head + token + tail
        elif kind == "drop":
            content = head + tail[length:]
        elif kind == "again":
            content = head + tail[:length] + tail
        else:
            content = head
    return content


def edits_of(content, least=0):
    return st.lists(edit, min_size=least, max_size=4).map(lambda edits: edited(content, edits))


def words_replaced(content, words, tokens):
    """Replace up to three of what the pattern `words` finds by tokens."""
    found = [match.span() for match in re.finditer(words, content)]

    def replace(changes):
        out, left = [], 0
        for number, token in sorted(dict(changes).items()):
            start, end = found[number]
            out += [content[left:start], token]
            left = end
        return b"".join([*out, content[left:]])

    change = st.tuples(st.integers(0, len(found) - 1), tokens)
    return st.lists(change, min_size=1, max_size=3).map(replace)


def mutated(*contents, words=None):
    """One of some valid contents, or random bytes, changed in a few places; words of it by the pattern `words`."""
    kinds = [st.binary(max_size=300)]
    for content in contents:
        kinds += [edits_of(content, 1)] * 2
        if words is not None:
            replaced = words_replaced(content, words, st.one_of(st.sampled_from(TOKENS), small))
            kinds += [replaced, replaced, replaced.flatmap(edits_of)]
    return st.one_of(kinds)


# Images: npy

N = 8
RNG = np.random.default_rng(5)
LABELS = np.array([1, 1, 1, 1, 0, 0, 0, 0], np.uint8)
IMAGES = RNG.normal(1, 0.3, (N, 2, 32, 32)).astype(np.float32)
CATALOGUE = (
    "galaxy_id,view,stage,log_mstar\n"
    "1,0,past,10.5\n1,1,past,10.5\n2,0,future,9.8\n2,1,future,9.8\n"
    "3,0,non-merger,\n3,1,non-merger,\n4,0,non-merger,11\n5,0,non-merger,11\n"
)


def saved(save):
    file = io.BytesIO()
    save(file)
    return file.getvalue()


LENGTHS = ["-1", "0", "1", "2", "8", "32", "33", str(2**31), str(2**62), str(2**63), "1.5", "True", "None", "'8'", "()"]
shapes = st.one_of(
    st.lists(st.sampled_from(LENGTHS), max_size=6).map(lambda parts: f"({''.join(f'{part}, ' for part in parts)})"),
    st.sampled_from(["8", "None", "'many'", "[8, 2, 32, 32]", "(8, 2, 32, 32)", "{}", "(" * 90, "(8, 2, 32, 32)[0]"]),
)
KINDS = "<f4 >f4 <f8 <f2 |u1 <i8 >u2 |b1 <c8 |O <U7 |S5 <U0 |V4 <M8[s] <m8[ns] <f16 nonsense f4,f4 \0 <U9999999999"
descrs = st.one_of(
    st.sampled_from([repr(kind) for kind in KINDS.split()]),
    st.sampled_from(["[('a', '<f4')]", "[]", "5", "('<f4', (2, 2))", "[('', 'O')]", "[('a', [('b', '<f4')])]"]),
)
npy_headers = st.builds(
    lambda descr, order, shape, version, data: header(descr, order, shape, version) + data,
    descrs,
    st.sampled_from(["False", "True", "0", "None"]),
    shapes,
    st.sampled_from([b"\x01\x00", b"\x02\x00", b"\x03\x00", b"\x09\x00"]),
    st.sampled_from([b"", b"\0" * 8, IMAGES.tobytes(), b"\xff" * 70000]),
)
NPY = saved(lambda file: np.save(file, IMAGES))
npy_files = st.one_of(npy_headers, mutated(NPY, NPY[:70], words=rb"[0-9]+|'[^']*'|True|False"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A sample in a folder, and a working directory beside it."""
    work, folder = tmp_path_factory.mktemp("work"), tmp_path_factory.mktemp("sample")
    np.save(folder / "tiny_X.npy", IMAGES)
    np.save(folder / "tiny_y.npy", LABELS)
    (folder / "tiny.csv").write_text(CATALOGUE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(work)
        yield folder


def files_of(folder, **changes):
    named = {"images": "tiny_X.npy", "labels": "tiny_y.npy", "catalogue": "tiny.csv", **changes}
    return config.Data(**{name: folder / file for name, file in named.items() if file})


@contextmanager
def put(path, content):
    """A file with some content, as long as it is needed."""
    path.write_bytes(content)
    try:
        yield path
    finally:
        path.unlink()


def all_of(path):
    """The images of a file, all of them read."""
    with open_images(path) as file:
        file.require((None, None, None))
        return file.shape, list(file.pieces(3))


def are_pieces(found):
    shape, pieces = found
    assert all(piece.dtype.kind in "buif" for piece in pieces)
    assert sum(len(piece) for piece in pieces) == shape[0]
    assert all(piece.shape[1:] == shape[1:] for piece in pieces)


def is_dataset(data):
    images, labels, table = data.images, data.labels, data.catalogue
    assert images.ndim == 4
    assert images.dtype.kind in "buif"
    assert min(images.shape[2:]) >= 32
    assert len(images) == len(labels) == len(table)
    assert labels.dtype == np.uint8
    assert set(labels.tolist()) == {0, 1}
    assert len(data.filters) == images.shape[1]
    is_catalogue(table, labels)
    assert re.fullmatch("[0-9a-f]{32}", data.fingerprint)


def is_catalogue(table, labels):
    assert len(table) == len(labels)
    assert {"galaxy_id", "view", "copy", "stage"} <= set(table)
    assert set(table["stage"]) <= set(catalogue.STAGES)
    assert ((table["stage"] != "non-merger").to_numpy() == labels).all()
    assert not table["galaxy_id"].isna().any()


@given(npy_files)
@tries(150)
def test_npy_images(folder, content):
    with put(folder / "new.npy", content) as path:
        array = read_or_refused(lambda: arrays.open_array(path, "images"), folder)
        if array is not None:
            assert array.dtype.kind in "buif"
        data = read_or_refused(lambda: dataset.read(files_of(folder, images="new.npy"), "tiny"), folder)
        if data is not None:
            is_dataset(data)


@given(npy_files)
@tries(60)
def test_npy_images_that_are_scored(folder, content):
    with put(folder / "new.npy", content) as path:
        if (found := read_or_refused(lambda: all_of(path), folder)) is not None:
            are_pieces(found)


NPY_LABELS = saved(lambda file: np.save(file, LABELS))


@given(st.one_of(npy_headers, mutated(NPY_LABELS, words=rb"[0-9]+|'[^']*'")))
@tries(100)
def test_npy_labels(folder, content):
    with put(folder / "new.npy", content):
        data = read_or_refused(lambda: dataset.read(files_of(folder, labels="new.npy"), "tiny"), folder)
        if data is not None:
            is_dataset(data)


# Images: FITS


def fits_file(*hdus):
    return saved(fits.HDUList(list(hdus)).writeto)


LABEL_HDU = fits.BinTableHDU.from_columns([fits.Column("label", "B", array=LABELS)])
FULL_HDU = fits.BinTableHDU.from_columns(
    [
        fits.Column("GALAXY_ID", "J", array=np.arange(N), null=99),
        fits.Column("label", "L", array=LABELS.astype(bool)),
        fits.Column("name", "5A", array=["ab", "c", "", "d", "e", "f", "g", "h"]),
        fits.Column("mass", "I", array=np.arange(N), null=-5, unit="solMass"),
        fits.Column("ra", "D", array=np.arange(N), unit="deg"),
        fits.Column("dec", "E", array=np.arange(N), unit="arcmin"),
        fits.Column("parts", "2E", array=np.zeros((N, 2))),
        fits.Column("many", "PE()", array=np.array([np.arange(n) for n in range(N)], dtype=object)),
        fits.Column("bits", "3X", array=np.ones((N, 3), bool)),
    ]
)
TEXT_HDU = fits.TableHDU.from_columns(
    [fits.Column("label", "I3", array=LABELS), fits.Column("x", "F8.3", array=np.arange(N) / 3)]
)
SCALED = fits.ImageHDU((IMAGES * 1000).astype(np.int16), name="SCI")
SCALED.header["BSCALE"], SCALED.header["BZERO"], SCALED.header["BLANK"] = 0.001, 5.0, -32768
SCALED_COLUMN = (b"TUNIT4  = 'solMass '          ", b"TSCAL4  =                  0.5")
WHOLE = (IMAGES[:, :, ::2, ::2] * 1000).astype(np.int16)
FITS = [
    fits_file(fits.PrimaryHDU(IMAGES), LABEL_HDU),
    fits_file(fits.PrimaryHDU(), SCALED, FULL_HDU),
    fits_file(fits.PrimaryHDU(), SCALED, FULL_HDU).replace(*SCALED_COLUMN),
    fits_file(fits.PrimaryHDU((IMAGES * 99).astype(np.uint16)), TEXT_HDU),
    *(
        fits_file(fits.PrimaryHDU(), fits.CompImageHDU(WHOLE, compression_type=kind), LABEL_HDU)
        for kind in ("RICE_1", "GZIP_2", "HCOMPRESS_1")
    ),
    fits_file(fits.PrimaryHDU(), fits.CompImageHDU(IMAGES, compression_type="RICE_1"), FULL_HDU),
    fits_file(fits.PrimaryHDU(IMAGES[0])),
    fits_file(fits.PrimaryHDU(), FULL_HDU),
]
CARD_VALUES = [
    *("-1", "0", "1", "2", "4", "5", "-32", "8", "999", "2147483648", "9223372036854775808", "9" * 25, "1.5", "1E400"),
    *(
        "T",
        "F",
        "'text'",
        "''",
        "'unclosed",
        "NaN",
        "",
        "'1PE(9999)'",
        "'9999999999E'",
        "'Q'",
        "'3X'",
        "'0A'",
        "'I300'",
    ),
    *(
        "'RICE_1'",
        "'GZIP_1'",
        "'NOCOMPRESS'",
        "'HCOMPRESS_1'",
        "'PLIO_1'",
        "(1, 2)",
        "'\x7f'",
        "é",
        "'&'",
        "'E'",
        "'D'",
    ),
    *("'XTENSION'", "'IMAGE'", "'BINTABLE'", "'TABLE'", "'A3DTABLE'", "1 2", "/", "'SUBTRACTIVE_DITHER_2'"),
]
WORST = (
    "NAXIS",
    "BITPIX",
    "TFORM",
    "TTYPE",
    "TDIM",
    "ZNAXIS",
    "ZTILE",
    "ZBITPIX",
    "PCOUNT",
    "GCOUNT",
    "TFIELDS",
    "TZERO",
)


def cards_of(content):
    """Where there are cards with values in a FITS file: places and keywords."""
    found = []
    for place in range(0, len(content) - 79, 80):
        match = re.match(rb"([A-Z][A-Z0-9_-]{0,7}) *= ", content[place : place + 80])
        if match:
            found.append((place, match[1].decode()))
    return found


@st.composite
def fits_mutated(draw):
    """A FITS file with cards of another value, lost, twice or new ones; perhaps further changes, perhaps packed."""
    content = draw(st.sampled_from(FITS))
    found = cards_of(content)
    weighty = [card for card in found if card[1].rstrip("0123456789") in WORST]
    for _ in range(draw(st.integers(0, 3))):
        place, keyword = draw(st.sampled_from(weighty if draw(st.booleans()) else found))
        kind = draw(st.sampled_from(["value", "value", "value", "keyword", "gone", "raw"]))
        if kind == "keyword":
            keyword = draw(st.sampled_from(found))[1]
        value = draw(st.sampled_from(CARD_VALUES))
        card = f"{keyword:8}= {value:>20}".encode("latin-1")[:80].ljust(80)
        if kind == "keyword":
            card = f"{keyword:8}".encode() + content[place + 8 : place + 80]
        elif kind == "gone":
            card = b" " * 80
        elif kind == "raw":
            card = draw(st.binary(min_size=1, max_size=80)).ljust(80)
        content = content[:place] + card + content[place + 80 :]
    content = edited(content, draw(st.lists(edit, max_size=2)))
    pack = draw(st.sampled_from([None, None, None, gzip.compress]))
    if pack is not None:
        content = edited(pack(content), draw(st.lists(edit, max_size=1)))
    return content


@given(fits_mutated())
@tries(250)
def test_fits_images(folder, content):
    with put(folder / "new.fits", content) as path:
        if (found := read_or_refused(lambda: all_of(path), folder)) is not None:
            are_pieces(found)


@given(fits_mutated())
@tries(150)
def test_fits_imported(folder, tmp_path_factory, content):
    into = tmp_path_factory.mktemp("into")
    with put(folder / "new.fits", content) as path:
        read_or_refused(lambda: archive.import_fits(path, into, stem="new"), folder)
    made = {path.name for path in into.iterdir()}
    assert made == set() or made >= {"new_X.npy", "new_y.npy", "new_source.json"}
    if made:
        images, labels = np.load(into / "new_X.npy"), np.load(into / "new_y.npy")
        assert (images.dtype, images.ndim, labels.dtype) == (np.float32, 4, np.uint8)
        assert len(images) == len(labels)
        source = dataset.read_source(into / "new_X.npy")
        if source["catalogue"] is not None:
            assert len(any_table.read(into / source["catalogue"], "catalogue", ["galaxy_id"])) == len(labels)


@given(fits_mutated(), st.sampled_from([None, 32, 16]))
@tries(100)
def test_fits_of_one_image(folder, content, size):
    data = config.Data.model_construct(images=folder, size=size, resize="resample", filters=None)
    with put(folder / "new.fits", content) as path:
        image = read_or_refused(lambda: stamps.read([path], data), folder)
    if image is not None:
        assert image.ndim == 3
        assert image.dtype == np.float32


# Tables


def is_text(table):
    assert isinstance(table, pd.DataFrame)
    assert table.columns.is_unique
    assert all(isinstance(cell, str) and cell == cell.strip() for name in table for cell in table[name])


def written(**options):
    """The catalogue in another format."""
    table = pd.read_csv(io.StringIO(CATALOGUE)).assign(ra=np.arange(N) * 1.5, dec=-np.arange(N) / 7)
    file = io.BytesIO()
    if options["format"] == "parquet":
        table.to_parquet(file, index=False)
        return file.getvalue()
    made = Table.from_pandas(table)
    made["ra"].unit = "deg"
    if options["format"] == "votable":
        made.write(file, format="votable", tabledata_format=options["coding"])
        return file.getvalue()
    text = io.StringIO()
    made.write(text, format="ascii.ecsv", delimiter=options.get("delimiter", " "))
    return text.getvalue().encode()


CSV = CATALOGUE.encode()
CELLS = rb"[^,\n]+"
WINDOWS = CSV.replace(b",", b";").replace(b"\n", b"\r\n")
COMMENTED = b"\xef\xbb\xbf# made by hand\n\n" + CSV.replace(b",", b"\t")
TABLES = {
    ".csv": mutated(CSV, WINDOWS, COMMENTED, words=CELLS),
    ".csv.gz": edits_of(gzip.compress(CSV)),
    ".ecsv": mutated(written(format="ecsv"), written(format="ecsv", delimiter=","), words=rb"[^\s:,{}]+"),
    ".vot": mutated(
        *(written(format="votable", coding=kind) for kind in ("tabledata", "binary2")),
        words=rb'"[^"]*"|>[^<]+<|<[^>]*>',
    ),
    ".parquet": edits_of(written(format="parquet"), 1),
    ".fits": fits_mutated(),
}


@pytest.mark.parametrize("suffix", TABLES)
def test_catalogues(suffix, folder):
    @given(TABLES[suffix])
    @tries(80)
    def check(content):
        name = f"new{suffix}"
        with put(folder / name, content) as path:
            table = read_or_refused(lambda: any_table.read(path, "table", []), folder)
            if table is not None:
                is_text(table)
            data = read_or_refused(lambda: dataset.read(files_of(folder, catalogue=name), "tiny"), folder)
            if data is not None:
                is_dataset(data)
            if (found := read_or_refused(lambda: positions.read(path), folder)) is not None:
                assert found["ra"].between(-180, 360).all()
                assert found["dec"].between(-90, 90).all()

    check()


@given(mutated(b"row,galaxy_id,tag,label\n0,1,wrong label,1\n5,3,merger,\n6,4,artefact,0\n", words=CELLS))
@tries(80)
def test_tables_of_tags(folder, content):
    ids = catalogue.read(folder / "tiny.csv", LABELS)["galaxy_id"]
    with put(folder / "tags.csv", content) as path:
        rows = read_or_refused(lambda: tags.excluded(path, ids), folder)
        if rows is not None:
            assert set(rows.tolist()) <= set(range(N))
        labels = read_or_refused(lambda: tags.relabelled(path, ids, LABELS), folder)
        if labels is not None:
            assert labels.dtype == np.uint8
            assert set(labels.tolist()) <= {0, 1}


@pytest.fixture(scope="module")
def data(folder):
    return dataset.read(files_of(folder), "tiny")


PLAIN_SPLIT = b"split,row\ntrain,0\ntrain,1\nvalidation,2\nvalidation,3\ntrain,4\ntrain,5\ntest,6\ntest,7\n"
FULL_SPLIT = (
    b"split,row,transform,galaxy_id,label,view,stage\ntrain,0,0,1,1,0,past\ntrain,1,3,1,1,1,past\n"
    b"validation,2,0,2,1,0,future\ntest,4,0,3,0,0,non-merger\ntest,6,0,4,0,0,non-merger\n"
)


@given(mutated(PLAIN_SPLIT, FULL_SPLIT, words=CELLS), st.sampled_from(["galaxy", "rows"]))
@tries(150)
def test_split_tables(folder, data, content, protocol):
    with put(folder / "split.csv", content) as path:
        table = read_or_refused(lambda: split_table.read(path, data, protocol), folder)
        if table is not None:
            assert set(table["split"]) == set(split_table.PARTS)
            assert table["row"].isin(range(N)).all()
            assert table["transform"].isin(range(8)).all()
            assert not table.duplicated(["row", "transform"]).any()
            parts = table.assign(galaxy=data.galaxies[table["row"]]).groupby("galaxy")["split"].nunique()
            assert protocol == "rows" or (parts == 1).all()
        wanted = config.Split.model_construct(**dict(config.Split()) | {"split": protocol, "split_table": path})
        read_or_refused(lambda: splits.make(data, wanted), folder)


# Experiments

EXPERIMENT = b"""name: tiny
data: &data {images: tiny_X.npy, labels: tiny_y.npy, catalogue: tiny.csv, columns: {id: galaxy_id}, size: 32}
split: {split: galaxy, test_fraction: 0.2, validation_fraction: 0.1, split_seed: 3}
network: {architecture: deepmerge, width: 0.5, options: {}, labels: merger}
training:
  epochs: 3
  learning_rate: 1e-3
  noise: {sigma: [0.1, 0.2]}
  adapt: {to: noisy, method: mmd, weight: 0.5}
tuning: {trials: 5, search: {dropout: [0.1, 0.5]}}
study: {seeds: 2, folds: 3}
"""
YAML_TOKENS = [
    *("&a", "*a", "*data", "&a [*a]", "<<: *data", "!!python/object:os.system", "!!int x", "!!float 1e", "!!binary aa"),
    *("!!set {a}", "!!timestamp 2001-01-01", "!!omap [a: 1]", "!!null x", "!!bool maybe", "!!str", "!x", "!<tag:x> 1"),
    *(
        "[" * 50,
        "{" * 50,
        "[" * 3000,
        "- " * 200,
        "? ",
        "? [a]\n: b",
        "{a: 1, a: 2}",
        "---\n",
        "...\n",
        "--- a\n--- b\n",
    ),
    *(
        "%YAML 9.9\n---\n",
        "%TAG ! x\n",
        "\t",
        "|\n",
        ">\n",
        "|9\n a",
        "@",
        "`",
        "%",
        "2001-01-01",
        "1:30",
        "012",
        "0o9",
    ),
    *(
        "0x" + "f" * 5000,
        "9" * 5000,
        "1e400",
        "-1e400",
        ".nan",
        ".inf",
        "-.inf",
        "~",
        "null",
        "yes",
        "no",
        "true",
        "''",
    ),
    *(
        '"\\x00"',
        '"\\ud800"',
        '"\\uD83D\\uDE00"',
        '"\\U00110000"',
        '"a\\nb"',
        "'a\n\n b'",
        "a" * 5000,
        "[]",
        "{}",
        "[[]]",
    ),
    *(
        "[1, [2, [3]]]",
        "{a: {b: {c: 1}}}",
        "[null]",
        "[true]",
        "[.nan]",
        "-1",
        "0",
        "1.5",
        "1",
        "é",
        "\u2028",
        "../x.npy",
    ),
    *("/", ".", "..", "a:b", "tiny_X.npy:", "tiny_X.npy:0", ":", "learned", "median", "{to: {}}", "{sigma: {a: 1}}"),
]
FIELDS = [
    (name, field)
    for name, section in config.Experiment.model_fields.items()
    for field in getattr(section.annotation, "model_fields", ())
]
yaml_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**70), 2**70),
        st.sampled_from(
            [-1, 0, 1, 2, 0.5, 1e400, float("nan"), 1e-320, "", "nan", "tiny.csv", "a\0b", "\n", "é" * 300]
        ),
        st.floats(),
        st.text(max_size=8),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def experiments(draw):
    """An experiment file with some settings of any value."""
    content = yaml.safe_load(EXPERIMENT)
    for section, field in draw(st.lists(st.sampled_from(FIELDS), max_size=4)):
        if draw(st.booleans()) or not isinstance(content.get(section, {}), dict):
            content.setdefault(section, {})
        if isinstance(content[section] if section in content else content.setdefault(section, {}), dict):
            content[section][field] = draw(yaml_values)
    if draw(st.booleans()):
        content[draw(st.sampled_from(["name", "data", "split", "network", "tuning", "study", "x"]))] = draw(yaml_values)
    return yaml.safe_dump(content, allow_unicode=draw(st.booleans())).encode("utf-8", "surrogatepass")


token = st.one_of(st.sampled_from(YAML_TOKENS).map(lambda text: text.encode("utf-8", "surrogatepass")), small)
SCALARS = rb"[A-Za-z0-9_.-]+|[:{}\[\],&]|\n *"
experiment_files = st.one_of(
    experiments(),
    words_replaced(EXPERIMENT, SCALARS, token),
    words_replaced(EXPERIMENT, SCALARS, token).flatmap(edits_of),
    mutated(EXPERIMENT, EXPERIMENT.decode().encode("utf-16")),
)


@given(experiment_files)
@tries(400)
def test_experiments(folder, content):
    with put(folder / "tiny.yaml", content) as path:
        experiment = read_or_refused(lambda: config.load(str(path)), folder)
    if experiment is not None:
        assert config.load.__globals__["NAME"].fullmatch(experiment.name)
        again = config.from_record(experiment.model_dump(mode="json"), "record")
        assert again.model_dump_json() == experiment.model_dump_json()


@given(
    st.dictionaries(
        st.one_of(st.sampled_from([field for _, field in FIELDS]), st.text(max_size=9)),
        st.one_of(st.text(max_size=20), st.sampled_from(YAML_TOKENS)),
        max_size=3,
    )
)
@tries(300)
def test_settings_of_the_command_line(folder, overrides):
    with put(folder / "tiny.yaml", EXPERIMENT) as path:
        experiment = read_or_refused(lambda: config.load(str(path), overrides), folder)
    assert experiment is None or isinstance(experiment, config.Experiment)


@given(st.one_of(st.text(max_size=300), st.sampled_from(YAML_TOKENS)))
@tries(100)
def test_names_of_experiments(folder, name):
    read_or_refused(lambda: config.load(name), folder)
    read_or_refused(lambda: config.name_of(name), folder)


# What tells where images come from

SOURCE = (
    b'{"data_source": "own", "filters": ["a", "b"], "catalogue": "tiny.csv", "masks": null, "settings": {"fits": "x"}}'
)


@given(st.one_of(mutated(SOURCE, words=rb'"[^"]*"|null|[\[\]{}:,]'), st.just(b"[" * 100_000)))
@tries(100)
def test_notes_beside_images(folder, content):
    with put(folder / "tiny_source.json", content):
        data = read_or_refused(lambda: dataset.read(files_of(folder), "tiny"), folder)
    if data is not None:
        is_dataset(data)
