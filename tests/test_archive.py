import gzip
import json
import os
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits

from deepmerge import config
from deepmerge.data import dataset
from deepmerge.data.released import archive, download, layout
from deepmerge.errors import InputError

NAME = layout.release("pristine", 2).fits_name
FILES = {
    "pristine_2filt_X.npy",
    "pristine_2filt_y.npy",
    "pristine_2filt_source.json",
    "release_catalogue.csv",
}


class Server:
    """Files over HTTP on 127.0.0.1, with Range and If-Range as Apache has them, and faults to order.

    `faults` is used up one request for image files at a time: {"drop": k} sends k bytes and hangs up,
    {"short": k} serves the file as if it ended at byte k, {"status": s}, {"html": True}, {"deaf": True}
    ignores Range, {"careless": True} ignores If-Range, {"shift": k} answers from k bytes further on,
    {"most": k} answers a Range with k bytes at most.
    """

    def __init__(self):
        self.files, self.faults, self.asked = {}, [], []
        self.validators = ("ETag",)
        self.version = 1
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def do_GET(self):
                server.answer(self)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        # Clients that hang up are part of the play.
        self.http.handle_error = lambda *args: None
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,))
        self.thread.start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()

    def answer(self, handler):
        name = handler.path.rpartition("/")[2]
        wanted = handler.headers.get("Range")
        self.asked.append((name, wanted))
        fault = (self.faults.pop(0) if name.endswith(".fits") and self.faults else None) or {}
        if "status" in fault or name not in self.files:
            return self.reply(handler, fault.get("status", 404), {}, [b"<html>sorry</html>"])
        if "html" in fault:
            return self.reply(handler, 200, {}, [b"<!DOCTYPE html><p>Please log in"])
        path = self.files[name]
        size = fault.get("short", path.stat().st_size)
        known = {
            "ETag": f'"v{self.version}"',
            "W/ETag": f'W/"v{self.version}"',
            "Last-Modified": f"Sun, 0{self.version} Nov 2026 00:00:00 GMT",
        }
        headers = {key.removeprefix("W/"): known[key] for key in self.validators}
        condition = None if "careless" in fault else handler.headers.get("If-Range")
        met = condition in (None, headers.get("ETag"), headers.get("Last-Modified"))
        start, end = 0, size
        if wanted and met and "deaf" not in fault:
            start = int(wanted.removeprefix("bytes=").removesuffix("-")) + fault.get("shift", 0)
            if start >= size:
                return self.reply(handler, 416, {"Content-Range": f"bytes */{size}"}, [])
            end = min(size, start + fault.get("most", size))
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        headers["Content-Length"] = end - start
        end = min(end, start + fault.get("drop", size))
        return self.reply(handler, 206 if start else 200, headers, pieces(path, start, end), "drop" in fault)

    def reply(self, handler, status, headers, body, hang_up=False):
        handler.send_response(status)
        if "Content-Length" not in headers:
            headers["Content-Length"] = sum(map(len, body))
        for key, value in headers.items():
            handler.send_header(key, str(value))
        handler.end_headers()
        for piece in body:
            handler.wfile.write(piece)
        handler.close_connection = hang_up


def pieces(path, start, end):
    with path.open("rb") as file:
        file.seek(start)
        while start < end:
            piece = file.read(min(1 << 20, end - start))
            yield piece
            start += len(piece)


@pytest.fixture
def server():
    server = Server()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    monkeypatch.setattr(download, "FIRST_PAUSE_S", 0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def small(monkeypatch):
    """A release of one merger and five non-mergers, the third with two views: 38 rows in all."""
    for name, value in {"ROWS": 38, "MERGERS": 1, "NON_MERGERS": 5, "SHORT_NON_MERGER": 2}.items():
        monkeypatch.setattr(layout, name, value)


def sample(filters=2, seed=0):
    images = np.random.default_rng(seed).normal(size=(layout.ROWS, filters, 75, 75)).astype(np.float32)
    return images, (np.arange(layout.ROWS) < 20 * layout.MERGERS).astype(np.uint8)


def write_fits(path, images, labels, *, dtype=">f4", label_format="K"):
    table = fits.BinTableHDU.from_columns([fits.Column("label", label_format, array=labels)])
    fits.HDUList([fits.PrimaryHDU(images.astype(dtype)), table]).writeto(path, overwrite=True)
    return path


def write_catalogue(folder):
    catalogue = layout.layout_catalogue()
    merger = (catalogue["stage"] == "merger").to_numpy().astype(int)
    values = np.where(merger, np.nan, 1.5)
    arrays = {
        "subsamples_ID": catalogue["galaxy_id"].to_numpy() + 100,
        "subsamples_y": np.stack([merger, merger, 0 * merger], axis=1),
        "logMstar": values + 9,
        "concentration": values,
        "m20": -values,
    }
    folder.mkdir(exist_ok=True)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return folder


@pytest.fixture
def remote(small, server, tmp_path):
    """The small release and its catalogue on a server: (server, fetch into tmp_path/data, images, labels)."""
    images, labels = sample()
    served = write_catalogue(tmp_path / "served")
    write_fits(served / NAME, images, labels)
    server.files = {path.name: path for path in served.iterdir()}
    data = tmp_path / "data"

    def fetch(variant="pristine", **settings):
        archive.fetch(variant, data, **{"base_url": server.url, "catalogue_url": server.url} | settings)

    return server, fetch, images, labels


def names(folder):
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def asked_for_images(server):
    return [wanted for name, wanted in server.asked if name == NAME]


@contextmanager
def refused(match):
    with pytest.raises(InputError, match=match) as caught:
        yield
    assert "\n" not in str(caught.value)


def check_data(folder, images, labels, stem="pristine_2filt"):
    x, y = np.load(folder / f"{stem}_X.npy"), np.load(folder / f"{stem}_y.npy")
    assert (x.dtype, y.dtype) == (np.dtype("=f4"), np.dtype("u1"))
    np.testing.assert_array_equal(x, images.astype("f4"))
    np.testing.assert_array_equal(y, labels)


# --- fetch ---


def test_fetch_leaves_arrays_catalogue_and_source_alone(remote, tmp_path):
    server, fetch, images, labels = remote
    fetch()
    assert names(tmp_path / "data") == FILES
    check_data(tmp_path / "data", images, labels)
    source = json.loads((tmp_path / "data/pristine_2filt_source.json").read_text())
    assert source["data_source"] == "released"
    assert source["filters"] == ["F814W", "F160W"]
    assert source["doi"] == "10.17909/t9-vqk6-pc80"
    assert (source["catalogue"], source["masks"]) == ("release_catalogue.csv", None)
    catalogue = pd.read_csv(tmp_path / "data/release_catalogue.csv")
    assert catalogue["stage"].tolist() == ["past"] * 20 + ["non-merger"] * 18
    assert catalogue["galaxy_id"].min() == 100
    assert asked_for_images(server) == [None]


def test_three_filters_of_double_precision(remote, tmp_path):
    server, fetch, *_ = remote
    name = layout.release("noisy", 3).fits_name
    images, labels = sample(filters=3)
    images = images + np.float64(1e-9)
    server.files[name] = write_fits(tmp_path / name, images, labels, dtype=">f8", label_format="D")
    fetch("noisy", filters=3)
    check_data(tmp_path / "data", images, labels, stem="noisy")
    assert len(json.loads((tmp_path / "data/noisy_source.json").read_text())["filters"]) == 3


def test_finished_arrays_are_not_downloaded_again(remote, caplog):
    server, fetch, *_ = remote
    fetch()
    server.asked.clear()
    with caplog.at_level("INFO"):
        fetch()
    assert server.asked == []
    assert "no images downloaded" in caplog.text


@pytest.mark.parametrize("drop", [0, 1, 2880, 100_000, 1_500_000])
def test_a_dropped_connection_is_taken_up_again(remote, tmp_path, drop):
    server, fetch, images, labels = remote
    server.faults = [{"drop": drop}, {"drop": drop // 2}]
    fetch()
    check_data(tmp_path / "data", images, labels)
    assert names(tmp_path / "data") == FILES
    if drop >= download.PIECE_BYTES:
        assert asked_for_images(server)[1].startswith("bytes=")


def test_the_next_call_goes_on_where_the_last_gave_up(remote, tmp_path, monkeypatch):
    server, fetch, images, labels = remote
    monkeypatch.setattr(download, "TRIES", 1)
    server.faults = [{"drop": 1_000_000}]
    with refused("No complete answer .* goes on from where it stopped"):
        fetch()
    data = tmp_path / "data"
    assert names(data) == {f"{NAME}.part", f"{NAME}.part.json"}
    size = (data / f"{NAME}.part").stat().st_size
    assert 0 < size <= 1_000_000
    fetch()
    assert asked_for_images(server) == [None, f"bytes={size}-"]
    check_data(data, images, labels)
    assert names(data) == FILES


@pytest.mark.parametrize("validators", [("ETag",), ("Last-Modified",), ("W/ETag", "Last-Modified"), ("W/ETag",), ()])
@pytest.mark.parametrize("changed", [True, False])
def test_a_changed_remote_file_starts_over(remote, tmp_path, monkeypatch, validators, changed):
    server, fetch, images, labels = remote
    monkeypatch.setattr(download, "TRIES", 2)
    server.validators = validators
    server.faults = [{"drop": 1_000_000}, {"status": 503}]
    with refused("No complete answer"):
        fetch()
    if changed:
        images, labels = sample(seed=1)
        write_fits(server.files[NAME], images, labels)
        server.version = 2
        if not set(validators) & {"ETag", "Last-Modified"}:
            # Then only a change of size can be seen.
            with server.files[NAME].open("ab") as file:
                file.write(bytes(2880))
    fetch()
    check_data(tmp_path / "data", images, labels)
    assert asked_for_images(server)[2].startswith("bytes=")
    assert len(asked_for_images(server)) == 3 + (changed and not set(validators) & {"ETag", "Last-Modified"})


def test_a_server_without_ranges_sends_all_again(remote, tmp_path):
    server, fetch, images, labels = remote
    server.faults = [{"drop": 1_000_000}, {"deaf": True}]
    fetch()
    check_data(tmp_path / "data", images, labels)


@pytest.mark.parametrize("fault", [{"careless": True}, {"shift": 10}, {"most": 200_000}])
def test_a_server_with_ideas_of_its_own_about_ranges_spoils_nothing(remote, tmp_path, monkeypatch, fault):
    server, fetch, images, labels = remote
    with monkeypatch.context() as patch:
        patch.setattr(download, "TRIES", 1)
        server.faults = [{"drop": 1_000_000}, fault]
        with refused("No complete answer"):
            fetch()
    if "careless" in fault:
        images, labels = sample(seed=1)
        write_fits(server.files[NAME], images, labels)
        server.version = 2
    fetch()
    check_data(tmp_path / "data", images, labels)
    # Only a good piece of the right file is built upon.
    assert (asked_for_images(server)[2] is not None) == ("most" in fault)


def test_a_short_remote_file_is_refused_and_gone_on_with_once_mended(remote, tmp_path):
    server, fetch, images, labels = remote
    server.faults = [{"short": 500_000}]
    with refused("truncated: its headers announce .* kept as .*delete it to start afresh"):
        fetch()
    assert names(tmp_path / "data") == {f"{NAME}.part", f"{NAME}.part.json"}
    fetch()
    assert asked_for_images(server) == [None, "bytes=500000-"]
    check_data(tmp_path / "data", images, labels)


def test_a_complete_download_that_was_not_converted_is_not_repeated(remote, tmp_path, monkeypatch):
    server, fetch, images, labels = remote
    with monkeypatch.context() as patch:
        patch.setattr(archive, "_convert", lambda *args: (_ for _ in ()).throw(InputError("full.")))
        with refused("full. The download is kept"):
            fetch()
    fetch()
    size = server.files[NAME].stat().st_size
    assert asked_for_images(server) == [None, f"bytes={size}-"]
    check_data(tmp_path / "data", images, labels)


@pytest.mark.parametrize("status", [403, 404, 410])
def test_an_address_that_is_wrong_is_tried_once(remote, tmp_path, status):
    server, fetch, *_ = remote
    server.faults = [{"status": status}]
    with refused(f"answers {status} .* Check the address"):
        fetch()
    assert len(asked_for_images(server)) == 1
    assert names(tmp_path / "data") == set()


def test_a_busy_server_is_asked_again(remote, tmp_path):
    server, fetch, images, labels = remote
    server.faults = [{"status": 503}, {"status": 429}, {"drop": 900_000}, {"status": 500}]
    fetch()
    check_data(tmp_path / "data", images, labels)


def test_a_server_that_stays_busy_is_given_up(remote, tmp_path):
    server, fetch, *_ = remote
    server.faults = [{"status": 503}] * 100
    with refused(f"after {download.TRIES} tries .*503"):
        fetch()
    assert len(asked_for_images(server)) == download.TRIES
    assert names(tmp_path / "data") == set()


def test_a_web_page_in_place_of_the_file_is_refused(remote, tmp_path):
    server, fetch, *_ = remote
    server.faults = [{"html": True}]
    with refused("got a web page"):
        fetch()
    assert names(tmp_path / "data") == set()


def test_a_web_page_does_not_spoil_a_partial_download(remote, tmp_path, monkeypatch):
    server, fetch, images, labels = remote
    monkeypatch.setattr(download, "TRIES", 1)
    server.faults = [{"drop": 1_000_000}, {"html": True}]
    with refused("No complete answer"):
        fetch()
    with refused("got a web page"):
        fetch()
    fetch()
    assert asked_for_images(server)[2].startswith("bytes=")
    check_data(tmp_path / "data", images, labels)


def test_no_network(remote):
    _, fetch, *_ = remote
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with refused("Connection refused.*Check the network"):
        fetch(base_url=f"http://127.0.0.1:{port}/")


def test_the_proxy_of_the_environment_is_used(remote, tmp_path, monkeypatch):
    server, fetch, images, labels = remote
    for variable in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(variable, server.url)
    fetch(base_url="http://archive.invalid/hlsps", catalogue_url="http://raw.invalid")
    check_data(tmp_path / "data", images, labels)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_while_downloading(remote, tmp_path):
    _, fetch, *_ = remote
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / f"{NAME}.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match=f"No space left on device.*{NAME}.part"):
        fetch()
    assert not any(name.endswith(".npy") for name in names(tmp_path / "data"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_while_converting(remote, tmp_path, monkeypatch):
    _, fetch, images, labels = remote
    replacing = archive.replacing

    @contextmanager
    def full(path):
        with replacing(path) as aside:
            yield Path("/dev/full") if path.name.endswith("_X.npy") else aside

    with monkeypatch.context() as patch:
        patch.setattr(archive, "replacing", full)
        with pytest.raises(OSError, match=r"No space left on device.*_X\.npy"):
            fetch()
    assert names(tmp_path / "data") == {f"{NAME}.part", f"{NAME}.part.json"}
    fetch()
    check_data(tmp_path / "data", images, labels)


@pytest.mark.parametrize("fault", ["missing", "page", "other rows", "unreadable"])
def test_without_catalogue_arrays_ids_follow_from_the_row_order(remote, tmp_path, caplog, fault):
    server, fetch, images, labels = remote
    file = server.files["m20.npy"]
    good = file.read_bytes()
    if fault == "missing":
        del server.files["m20.npy"]
    elif fault == "other rows":
        np.save(file, np.zeros(7))
    else:
        file.write_bytes(b"<html>" if fault == "page" else good[:50])
    fetch()
    check_data(tmp_path / "data", images, labels)
    assert "Galaxy ids follow from the row order" in caplog.text
    catalogue = tmp_path / "data/release_catalogue.csv"
    pd.testing.assert_frame_equal(pd.read_csv(catalogue), layout.layout_catalogue(), check_dtype=False)

    # Once it is deleted, the next call gets the catalogue and nothing else.
    catalogue.unlink()
    file.write_bytes(good)
    server.files["m20.npy"] = file
    fetch()
    assert "m20" in pd.read_csv(catalogue)
    assert len(asked_for_images(server)) == 1


def test_the_second_variant_uses_the_catalogue_that_is_there(remote, tmp_path):
    server, fetch, images, labels = remote
    server.files[layout.release("noisy", 2).fits_name] = server.files[NAME]
    fetch()
    server.asked.clear()
    fetch("noisy")
    assert len(server.asked) == 1
    check_data(tmp_path / "data", images, labels, stem="noisy_2filt")


def simulate(folder, shape):
    folder.mkdir(exist_ok=True)
    np.save(folder / "pristine_2filt_X.npy", np.zeros(shape, "f4"))
    np.save(folder / "pristine_2filt_y.npy", np.zeros(shape[0], "u1"))
    (folder / "pristine_2filt_source.json").write_text('{"data_source": "simulated"}')


@pytest.mark.parametrize("rows", [38, 10])
def test_simulated_data_of_the_same_name_are_replaced_only_on_demand(remote, tmp_path, rows):
    server, fetch, images, labels = remote
    data = tmp_path / "data"
    simulate(data, (rows, 2, 75, 75))
    (data / "catalogue.csv").write_text("theirs")
    with refused("holds simulated data.*--overwrite"):
        fetch()
    assert server.asked == []
    fetch(overwrite=True)
    check_data(data, images, labels)
    assert json.loads((data / "pristine_2filt_source.json").read_text())["data_source"] == "released"
    assert (data / "catalogue.csv").read_text() == "theirs"


def test_arrays_from_the_authors_get_source_and_catalogue(remote, tmp_path):
    server, fetch, images, labels = remote
    data = tmp_path / "data"
    data.mkdir()
    np.save(data / "pristine_2filt_X.npy", images)
    np.save(data / "pristine_2filt_y.npy", labels.astype(float))
    fetch()
    assert names(data) == FILES
    assert asked_for_images(server) == []
    assert json.loads((data / "pristine_2filt_source.json").read_text())["data_source"] == "released"


def test_arrays_of_unknown_origin_in_another_order_are_not_called_released(remote, tmp_path):
    _, fetch, images, labels = remote
    data = tmp_path / "data"
    data.mkdir()
    np.save(data / "pristine_2filt_X.npy", images)
    np.save(data / "pristine_2filt_y.npy", labels[::-1])
    with refused("Give other data another name"):
        fetch()
    assert names(data) == {"pristine_2filt_X.npy", "pristine_2filt_y.npy"}


def test_a_fits_file_in_the_folder_is_used_and_kept(remote, tmp_path):
    server, fetch, images, labels = remote
    data = tmp_path / "data"
    data.mkdir()
    server.files[NAME].rename(data / NAME)
    fetch()
    check_data(data, images, labels)
    assert names(data) == FILES | {NAME}
    assert asked_for_images(server) == []


def test_an_unknown_variant_asks_nobody(remote):
    server, fetch, *_ = remote
    with refused("pristine or noisy"):
        fetch("clean")
    assert server.asked == []


# --- import ---


@pytest.mark.parametrize(
    ("shape", "dtype", "label_format"),
    [
        ((5, 1, 32, 32), ">f4", "L"),
        ((4, 4, 40, 33), ">f8", "D"),
        ((3, 2, 64, 64), ">i2", "B"),
        ((3, 2, 64, 64), "u2", "K"),  # stored with BZERO
        ((3, 2, 32, 50), "u1", "I"),
    ],
)
def test_own_images_of_any_size_and_type(tmp_path, shape, dtype, label_format):
    images = np.random.default_rng(0).uniform(0, 200, size=shape).astype(dtype)
    labels = np.arange(shape[0]) % 2
    path = write_fits(tmp_path / "my survey.fits", images, labels, dtype=dtype, label_format=label_format)
    archive.import_fits(path, tmp_path / "out")
    check_data(tmp_path / "out", images, labels, stem="my survey")
    archive.import_fits(path, tmp_path / "out", stem="mine")
    check_data(tmp_path / "out", images, labels, stem="mine")
    source = json.loads((tmp_path / "out/mine_source.json").read_text())
    assert (source["data_source"], source["catalogue"], source["doi"]) == ("own", None, None)
    assert len(source["filters"]) == shape[1]
    assert "release_catalogue.csv" not in names(tmp_path / "out")


def test_scaled_integers_are_unscaled(tmp_path):
    path = write_fits(tmp_path / "a.fits", np.full((2, 1, 32, 32), 10), np.array([0, 1]), dtype=">i2")
    with fits.open(path, mode="update", do_not_scale_image_data=True) as hdus:
        hdus[0].header["BSCALE"], hdus[0].header["BZERO"] = 0.5, 3.0
    archive.import_fits(path, tmp_path)
    np.testing.assert_array_equal(np.load(tmp_path / "a_X.npy"), np.full((2, 1, 32, 32), 8.0))


def test_chunks_join_without_a_seam(tmp_path, monkeypatch):
    images = np.random.default_rng(0).normal(size=(23, 2, 32, 32)).astype("f4")
    path = write_fits(tmp_path / "a.fits", images, np.arange(23) % 2)
    for chunk_bytes in (1, 3 * images[0].nbytes, images.nbytes):
        monkeypatch.setattr(archive, "CHUNK_BYTES", chunk_bytes)
        archive.import_fits(path, tmp_path)
        check_data(tmp_path, images, np.arange(23) % 2, stem="a")


def tables(*columns):
    return fits.BinTableHDU.from_columns([fits.Column(f"c{i}", "K", array=c) for i, c in enumerate(columns)])


GOOD = np.zeros((4, 2, 32, 32), ">f4")
LABELS = np.array([0, 1, 0, 1])


@pytest.mark.parametrize(
    ("hdus", "message"),
    [
        ([fits.PrimaryHDU(GOOD)], "a table of labels"),
        ([fits.PrimaryHDU(GOOD[:, 0]), tables(LABELS)], r"images \(N, filters, H, W\)"),
        ([fits.PrimaryHDU(np.moveaxis(GOOD, 1, 3)), tables(LABELS)], "channels first"),
        ([fits.PrimaryHDU(GOOD[..., :31]), tables(LABELS)], "H, W ≥ 32"),
        ([fits.PrimaryHDU(), tables(LABELS)], r"got HDU 0 \(PRIMARY\): no data; HDU 1: a table of 4 rows \(c0\)"),
        ([fits.PrimaryHDU(), fits.CompImageHDU(GOOD[0]), tables(LABELS)], r"HDU 1 .*: images \(2, 32, 32\)"),
        ([fits.PrimaryHDU(GOOD), fits.ImageHDU(GOOD[0, 0])], "a table of labels.*got none"),
        ([fits.PrimaryHDU(GOOD), tables(LABELS, LABELS)], r"one column.*'c0', 'c1'"),
        ([fits.PrimaryHDU(GOOD), tables(LABELS[:3])], "4 labels.*got 3"),
        ([fits.PrimaryHDU(GOOD), tables(LABELS * 2)], r"got 4 of the values \[0, 2\]"),
        (
            [
                fits.PrimaryHDU(GOOD),
                fits.BinTableHDU.from_columns([fits.Column("c", "3A", array=["yes", "no", "no", "yes"])]),
            ],
            "of the values .*'no'",
        ),
    ],
)
def test_other_layouts_are_refused(tmp_path, hdus, message):
    path = tmp_path / "a.fits"
    fits.HDUList([hdu.copy() for hdu in hdus]).writeto(path)
    with refused(message):
        archive.import_fits(path, tmp_path / "out")
    assert names(tmp_path / "out") == set()


@pytest.mark.parametrize("keep", [0, 5, 80, 2879, 2881, 20_000, -2880 * 2, -2880])
def test_truncated_files_are_refused(tmp_path, keep):
    content = write_fits(tmp_path / "a.fits", GOOD, LABELS).read_bytes()[:keep]
    (tmp_path / "a.fits").write_bytes(content)
    with refused("truncated|cannot be read|starts|table of labels"):
        archive.import_fits(tmp_path / "a.fits", tmp_path / "out")
    assert names(tmp_path / "out") == set()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(b"SIMPLE  =", mtime=0), "cannot be read"),
        (gzip.compress(bytes(9), mtime=0)[:-3], "truncated or damaged: it cannot be unpacked"),
        (gzip.compress(b"<html>", mtime=0), "a web page"),
        (b"\x1f\x9d\x90....", "compressed otherwise. Unpack it"),
        (b"PK\x03\x04....", "compressed"),
        (b"<!DOCTYPE html>", "a web page"),
        (b"\x93NUMPY\x01\x00....", "something that starts"),
        (b"SIMPLE  = nonsense", "cannot be read"),
        (None, "there is none"),
    ],
)
def test_files_that_are_not_plain_fits_are_refused(tmp_path, content, message):
    path = tmp_path / "a.fits"
    if content is not None:
        path.write_bytes(content)
    with refused(message):
        archive.import_fits(path, tmp_path / "out")


def test_a_released_file_on_disk(small, tmp_path):
    images, labels = sample()
    path = write_fits(tmp_path / NAME, images, labels)
    out = tmp_path / "out"
    archive.import_fits(path, out)
    assert names(out) == FILES
    check_data(out, images, labels)
    assert "m20" not in pd.read_csv(out / "release_catalogue.csv")

    archive.import_fits(path, out, catalogue_arrays=write_catalogue(tmp_path / "arrays"))
    full = (out / "release_catalogue.csv").read_text()
    assert "m20" in full
    archive.import_fits(path, out)
    assert (out / "release_catalogue.csv").read_text() == full

    renamed = path.rename(tmp_path / "download.fits")
    archive.import_fits(renamed, out, stem="noisy_2filt")
    assert json.loads((out / "noisy_2filt_source.json").read_text())["data_source"] == "released"


def test_own_data_cannot_take_a_released_name(small, tmp_path):
    images, labels = sample()
    path = write_fits(tmp_path / "mine.fits", images[1:], labels[1:])
    with refused("Give other data another name"):
        archive.import_fits(path, tmp_path / "out", stem="pristine_2filt")
    with refused("plain name"):
        archive.import_fits(path, tmp_path / "out", stem="../mine")
    with refused("catalogue arrays belong to the released sample"):
        archive.import_fits(path, tmp_path / "out", catalogue_arrays=write_catalogue(tmp_path / "arrays"))
    with refused("catalogue array ids expected at"):
        archive.import_fits(path, tmp_path / "out", catalogue_arrays=tmp_path)
    assert names(tmp_path / "out") == set()


def test_catalogue_arrays_of_another_order_are_refused(small, tmp_path):
    images, labels = sample()
    path = write_fits(tmp_path / NAME, images, labels)
    arrays = write_catalogue(tmp_path / "arrays")
    np.save(arrays / "subsamples_y.npy", np.load(arrays / "subsamples_y.npy")[::-1])
    with refused("they differ"):
        archive.import_fits(path, tmp_path / "out", catalogue_arrays=arrays)
    assert names(tmp_path / "out") == set()


def write_with_ids(path, ids, **more):
    columns = [fits.Column("OBJID", "K", array=ids), fits.Column("label", "B", array=LABELS)]
    columns += [fits.Column(name, "D", array=values) for name, values in more.items()]
    table = fits.BinTableHDU.from_columns(columns)
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(GOOD, name="SCI"), table]).writeto(path, overwrite=True)
    return path


@pytest.mark.parametrize("packed", [False, True])
def test_ids_beside_the_labels_become_a_catalogue_that_is_found_without_being_named(tmp_path, packed):
    ids = 2**60 + np.array([1, 0, 1, 2])
    path = write_with_ids(tmp_path / "mine.fits", ids, mass=[9.5, 10, 11, 12])
    if packed:
        (tmp_path / "mine.fits.gz").write_bytes(gzip.compress(path.read_bytes()))
        path = tmp_path / "mine.fits.gz"
    out = tmp_path / "out"
    archive.import_fits(path, out)
    assert names(out) == {"mine_X.npy", "mine_y.npy", "mine_source.json", "mine_catalogue.csv"}
    check_data(out, GOOD, LABELS, stem="mine")
    source = json.loads((out / "mine_source.json").read_text())
    assert (source["data_source"], source["catalogue"]) == ("own", "mine_catalogue.csv")
    files = config.Data(images=out / "mine_X.npy", labels=out / "mine_y.npy")
    assert dataset.read(files, "mine").galaxies.tolist() == [1, 0, 1, 2]
    assert (out / "mine_catalogue.csv").read_text().splitlines()[1] == f"{ids[0]},9.5"


def test_a_catalogue_that_came_from_elsewhere_is_replaced_only_on_demand(tmp_path):
    path = write_with_ids(tmp_path / "mine.fits", np.arange(4))
    (tmp_path / "mine_catalogue.csv").write_text("theirs")
    with refused("mine_catalogue.csv is there already.*--overwrite"):
        archive.import_fits(path, tmp_path)
    assert names(tmp_path) == {"mine.fits", "mine_catalogue.csv"}
    assert (tmp_path / "mine_catalogue.csv").read_text() == "theirs"
    archive.import_fits(path, tmp_path, overwrite=True)
    archive.import_fits(path, tmp_path)
    assert (tmp_path / "mine_catalogue.csv").read_text().split() == ["galaxy_id", "0", "1", "2", "3"]


def test_bad_ids_leave_nothing_behind(tmp_path):
    path = tmp_path / "mine.fits"
    columns = [fits.Column("id", "D", array=[1e17, 2, 3, 4]), fits.Column("label", "B", array=LABELS)]
    fits.HDUList([fits.PrimaryHDU(GOOD), fits.BinTableHDU.from_columns(columns)]).writeto(path)
    with refused("Save ids as integers or text"):
        archive.import_fits(path, tmp_path / "out")
    assert names(tmp_path / "out") == set()


def test_tile_compressed_images_are_imported(tmp_path, monkeypatch):
    images = np.random.default_rng(0).integers(0, 9, (4, 2, 32, 32)).astype("i4")
    hdus = [fits.PrimaryHDU(), fits.CompImageHDU(images), tables(LABELS)]
    fits.HDUList(hdus).writeto(tmp_path / "a.fits.fz")
    monkeypatch.setattr(archive, "CHUNK_BYTES", 1)
    archive.import_fits(tmp_path / "a.fits.fz", tmp_path)
    check_data(tmp_path, images, LABELS, stem="a")


def test_a_released_file_may_be_packed(small, tmp_path):
    images, labels = sample()
    path = write_fits(tmp_path / NAME, images, labels)
    (tmp_path / f"{NAME}.gz").write_bytes(gzip.compress(path.read_bytes(), 1))
    archive.import_fits(tmp_path / f"{NAME}.gz", tmp_path / "out")
    assert names(tmp_path / "out") == FILES
    check_data(tmp_path / "out", images, labels)


def test_other_data_of_the_same_stem_are_replaced_only_on_demand(tmp_path):
    one = write_fits(tmp_path / "one.fits", GOOD, LABELS)
    two = write_fits(tmp_path / "two.fits", GOOD + 1, LABELS)
    archive.import_fits(one, tmp_path, stem="s")
    archive.import_fits(one, tmp_path, stem="s")
    with refused(r"holds own data from one\.fits, not two\.fits.*--overwrite"):
        archive.import_fits(two, tmp_path, stem="s")
    archive.import_fits(two, tmp_path, stem="s", overwrite=True)
    check_data(tmp_path, GOOD + 1, LABELS, stem="s")
    (tmp_path / "s_source.json").unlink()
    with refused("holds unknown data"):
        archive.import_fits(two, tmp_path, stem="s")


def sparse_fits(path, shape, labels, bitpix=-32):
    """Write zeros of any size in no time, but for the first and the last image."""
    header = fits.PrimaryHDU(np.zeros((1, *shape[1:]), f">f{-bitpix // 8}")).header
    header["NAXIS4"] = shape[0]
    with path.open("wb") as file:
        file.write(header.tostring().encode())
        start = file.tell()
        end = start + int(np.prod(shape)) * -bitpix // 8
        first = np.arange(np.prod(shape[1:]), dtype=f">f{-bitpix // 8}").tobytes()
        file.write(first)
        file.seek(end - len(first))
        file.write(first)
        file.truncate(end + -(end - start) % 2880)
    table = fits.BinTableHDU.from_columns([fits.Column("label", "K", array=labels)])
    fits.append(path, table.data, table.header)
    return path


@pytest.fixture(scope="module")
def fresh_process(tmp_path_factory):
    """What a new process prints: heavy modules after the import, its peak memory after each conversion."""
    folder = tmp_path_factory.mktemp("memory")
    for name, n in {"small": 100, "big": 4500}.items():
        sparse_fits(folder / f"{name}.fits", (n, 2, 75, 75), np.arange(n) % 2)
    assert (folder / "big.fits").stat().st_size > 200e6
    code = """
import resource, sys
from pathlib import Path
from deepmerge.data.released.archive import import_fits
print(*{"astropy", "requests", "rich"} & set(sys.modules))
for name in ("small", "big"):
    import_fits(Path(sys.argv[1], f"{name}.fits"), Path(sys.argv[1]))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", code, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (folder / "big.fits").unlink()
    (folder / "big_X.npy").unlink()
    return done.stdout.split("\n")


def test_the_import_is_light(fresh_process):
    assert fresh_process[0] == ""


def test_memory_stays_flat(fresh_process):
    small, big = map(int, fresh_process[1:3])
    per_unit = 1024 if sys.platform == "linux" else 1
    assert (big - small) * per_unit < 4 * archive.CHUNK_BYTES


@pytest.mark.slow
@pytest.mark.parametrize("bitpix", [-32, -64])
def test_the_true_size(server, tmp_path, bitpix):
    labels = (np.arange(15426) < 8120).astype(np.uint8)
    served = write_catalogue(tmp_path / "served")
    sparse_fits(served / NAME, (15426, 2, 75, 75), labels, bitpix)
    server.files = {path.name: path for path in served.iterdir()}
    server.faults = [{"drop": 300_000_000}]
    data = tmp_path / "data"
    archive.fetch("pristine", data, base_url=server.url, catalogue_url=server.url)
    assert names(data) == FILES
    x, y = np.load(data / "pristine_2filt_X.npy", mmap_mode="r"), np.load(data / "pristine_2filt_y.npy")
    assert (x.shape, x.dtype) == ((15426, 2, 75, 75), np.dtype("=f4"))
    np.testing.assert_array_equal(x[0].ravel(), np.arange(11250))
    np.testing.assert_array_equal(x[-1], x[0])
    assert not x[1:-1:1000].any()
    np.testing.assert_array_equal(y, labels)
    assert len(pd.read_csv(data / "release_catalogue.csv")) == 15426
    # Pytest keeps the folders of three runs.
    (data / "pristine_2filt_X.npy").unlink()
    (served / NAME).unlink()
