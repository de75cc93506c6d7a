"""The server of a model: the numbers of the network, and one line of JSON for what it cannot score."""

import json
import socket
import threading
import urllib.error
import urllib.request

import numpy as np
import pytest
import uvicorn

from deepmerge import config
from deepmerge.errors import InputError
from deepmerge.jobs import serve
from deepmerge.model import network as networks
from deepmerge.model import prediction, stretch

IMAGES = np.random.default_rng(0).normal(size=(5, 32, 32, 2))


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    pixels = stretch.measure(IMAGES.astype(np.float32), "asinh")
    model = networks.build((32, 32, 2), config.Network(width=0.25), pixels)
    path = tmp_path_factory.mktemp("model") / "model.keras"
    model.save(path)
    return prediction.load(path)


@pytest.fixture(scope="module")
def address(network):
    """Of a server in a thread of this process."""
    listening = serve.listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(serve.application(network), log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join(30)


def ask(address, body, path="/invocations"):
    """Status and content of an answer, which is JSON in one line."""
    asked = urllib.request.Request(
        address + path, body if isinstance(body, bytes | None) else json.dumps(body).encode()
    )
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(asked, timeout=60) as answer:
            status, text = answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        status, text = error.code, error.read().decode()
    assert "\n" not in text.strip()
    return status, json.loads(text) if text.strip() else None


def test_the_answers_are_those_of_the_network(address, network):
    status, answer = ask(address, {"inputs": IMAGES.tolist()})
    assert status == 200
    np.testing.assert_allclose(answer["predictions"], np.asarray(network(IMAGES.astype(np.float32))), atol=1e-6)


@pytest.mark.parametrize("bad", [None, float("nan"), float("inf"), 1e40])
def test_an_image_with_a_pixel_that_is_no_number_has_no_probability(address, bad):
    images = IMAGES.tolist()
    images[1][2][3][0] = bad
    status, answer = ask(address, {"inputs": images})
    assert status == 200
    assert [row[0] is None for row in answer["predictions"]] == [False, True, False, False, False]


def nested(depth):
    return b'{"inputs": ' + b"[" * depth + b"]" * depth + b"}"


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"", 400, "should be JSON"),
        (b"\xff\xfe", 400, "should be JSON"),
        (b"[1, 2", 400, "should be JSON"),
        (nested(100_000), 400, "should be JSON"),
        (nested(60), 400, "shape (n, 32, 32, 2)"),
        ([1, 2], 400, "should be JSON such as"),
        ({"instances": IMAGES.tolist()}, 400, "should be JSON such as"),
        ({"inputs": IMAGES.tolist(), "params": {}}, 400, "nothing else"),
        ({"inputs": {"a": 1}}, 400, "should be JSON such as"),
        ({"inputs": "text"}, 400, "should be JSON such as"),
        ({"inputs": []}, 400, "got (0,)"),
        ({"inputs": [[1, 2], [3]]}, 400, "numbers alone"),
        ({"inputs": [[["a"]]]}, 400, "numbers alone"),
        ({"inputs": [10**400]}, 400, "numbers alone"),
        ({"inputs": IMAGES[0].tolist()}, 400, "got (32, 32, 2)"),
        ({"inputs": np.moveaxis(IMAGES, -1, 1).tolist()}, 400, "got (5, 2, 32, 32)"),
        ({"inputs": [0] * (serve.MOST_IMAGES + 1)}, 413, f"at most {serve.MOST_IMAGES} images"),
        (b"0" * (serve.MOST_BYTES + 1), 413, "at most 67,108,864 bytes"),
    ],
    ids=range(18),
)
def test_what_cannot_be_scored_is_refused_in_one_line(address, body, status, said):
    found, answer = ask(address, body)
    assert found == status
    assert list(answer) == ["error"]
    assert said in answer["error"]
    assert ask(address, {"inputs": IMAGES[:1].tolist()})[0] == 200  # it serves on


def test_a_request_that_does_not_arrive_and_too_many_at_once_are_refused(address, monkeypatch):
    monkeypatch.setattr(serve, "SECONDS", 1.0)
    host, port = address.removeprefix("http://").split(":")
    head = b"POST /invocations HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf of"
    sockets = [socket.create_connection((host, int(port)), timeout=30) for _ in range(serve.MOST_WAITING + 1)]
    for one in sockets:
        one.sendall(head)
    statuses = sorted(int(one.recv(4096).split()[1]) for one in sockets)
    for one in sockets:
        one.close()
    assert statuses == [408] * serve.MOST_WAITING + [503]
    assert ask(address, {"inputs": IMAGES.tolist()})[0] == 200


def test_it_says_that_it_lives(address):
    assert ask(address, None, "/ping") == (200, None)


def test_a_port_that_is_taken_is_said():
    with serve.listen("127.0.0.1", 0) as taken, pytest.raises(InputError, match=r"is free, got 127\.0\.0\.1:\d+"):
        serve.listen("127.0.0.1", taken.getsockname()[1])
