"""Serve a model: what asks gets probabilities, or one line of JSON that says what was wrong."""

import asyncio
import json
import logging
import socket
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from deepmerge.errors import InputError
from deepmerge.model import devices, prediction
from deepmerge.tracking import runs

log = logging.getLogger(__name__)

MOST_BYTES = 64 * 2**20  # of a request: some 400 images of the release as JSON
MOST_IMAGES = 1024  # in a request
MOST_WAITING = 8  # requests that are read or scored at a time, as each is in memory
SECONDS = 60.0  # in which a request has to arrive


def serve(model: str, host: str, port: int) -> None:
    """Serve a model until it is told to end; `model` as `runs.find` takes it, without 'last'.

    ``POST /invocations`` takes what `mlflow models serve` takes of a model of ours, ``{"inputs": images}`` with images
    (n, H, W, F), and gives the same ``{"predictions": …}``, null for an image with a pixel that is no number. Raises
    InputError for a model whose files are not those that were logged, and a port that is taken.
    """
    if model == runs.LAST:
        raise InputError("model should be a run id, a models:/ URI, a run.json or the name of a data set, got 'last'")
    devices.prepare()
    network = prediction.load(runs.model_file(runs.find(model, model)))
    listening = listen(host, port)
    log.info("Serving %s at http://%s:%d/invocations; Ctrl-C ends it", model, host, listening.getsockname()[1])
    uvicorn.Server(uvicorn.Config(application(network), log_level="warning")).run(sockets=[listening])


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises InputError where that is not possible."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise InputError(
            f"host and port should be an address of this machine that is free, got {host}:{port}: "
            f"{error.strerror or error}; choose another with --port"
        ) from None


class _Refused(Exception):
    """A request that is not answered with probabilities: an HTTP status, and why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


def application(network: keras.Model) -> Starlette:
    """The web application that scores images with a network."""
    shape = tuple(network.input_shape[1:])
    waiting = 0

    async def invocations(request: Request) -> Response:
        nonlocal waiting
        if waiting >= MOST_WAITING:
            return _refusal(_Refused(503, f"at most {MOST_WAITING} requests at a time; ask again in a moment"))
        waiting += 1
        try:
            content = await asyncio.wait_for(_body(request), SECONDS)
            return JSONResponse(await asyncio.to_thread(_answer, content, network, shape))
        except TimeoutError:
            return _refusal(_Refused(408, f"a request should arrive within {SECONDS:g} seconds"))
        except _Refused as refused:
            return _refusal(refused)
        finally:
            waiting -= 1

    async def ping(request: Request) -> Response:
        return Response("\n", media_type="application/json")

    posted = Route("/invocations", invocations, methods=["POST"])
    return Starlette(routes=[posted, Route("/ping", ping), Route("/health", ping)])


def _refusal(refused: _Refused) -> Response:
    return JSONResponse({"error": str(refused)}, refused.status)


async def _body(request: Request) -> bytes:
    """The body of a request, of which no more is read than a request may have."""
    content = bytearray()
    async for piece in request.stream():
        content += piece
        if len(content) > MOST_BYTES:
            raise _Refused(413, f"a request should have at most {MOST_BYTES:,} bytes; ask for fewer images at a time")
    return bytes(content)


def _answer(content: bytes, network: keras.Model, shape: tuple[int, ...]) -> Mapping[str, Any]:
    images = _images(content, shape)
    (outputs,) = prediction.outputs_of_pieces(network, [np.moveaxis(images, -1, 1)])
    return {"predictions": [[None if np.isnan(number) else number for number in row] for row in outputs.tolist()]}


def _images(content: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """Images (n, H, W, F) of a request, float64. Raises _Refused for anything else."""
    wanted = f"inputs should be images of shape (n, {', '.join(map(str, shape))})"
    try:
        asked = json.loads(content)
    except (ValueError, RecursionError):
        raise _Refused(400, 'a request should be JSON such as {"inputs": images}') from None
    if not isinstance(asked, dict) or set(asked) != {"inputs"} or not isinstance(asked["inputs"], list):
        raise _Refused(400, f'a request should be JSON such as {{"inputs": images}} and nothing else; {wanted}')
    if len(asked["inputs"]) > MOST_IMAGES:
        raise _Refused(413, f"inputs should be at most {MOST_IMAGES} images at a time, got {len(asked['inputs'])}")
    try:
        images = np.array(asked["inputs"], np.float64)
    except (ValueError, TypeError, OverflowError):
        raise _Refused(400, f"{wanted}, and numbers alone") from None
    if images.shape[1:] != shape:
        raise _Refused(400, f"{wanted}, got {images.shape}")
    return images
