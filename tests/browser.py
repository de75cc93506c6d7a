"""A headless Chromium that tests drive by its DevTools protocol, over a socket on this machine."""

import base64
import json
import re
import shutil
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--hide-scrollbars",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-extensions",
    "--remote-debugging-port=0",
    "--remote-allow-origins=*",
    "--disable-background-networking",
    "--force-color-profile=srgb",
)


class Page:
    """A tab: `run` an expression, press keys, click, take pictures; `problems` are what its console complained of."""

    def __init__(self, socket, loop):
        self._socket, self._loop, self._number, self.problems, self.requests = socket, loop, 0, [], []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def _wait(self, call, *arguments, timeout=60):
        return self._loop.run_sync(lambda: call(*arguments), timeout=timeout)

    def ask(self, method, **parameters):
        """Send a command of the protocol, and return its result."""
        self._number += 1
        message = json.dumps({"id": self._number, "method": method, "params": parameters})
        self._wait(self._socket.write_message, message)
        while True:
            answer = json.loads(self._wait(self._socket.read_message))
            self._note(answer)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]

    def _note(self, event):
        match event.get("method"):
            case "Runtime.exceptionThrown":
                self.problems.append(event["params"]["exceptionDetails"].get("exception", {}).get("description", "?"))
            case "Log.entryAdded":
                self.problems.append(event["params"]["entry"]["text"])
            case "Network.requestWillBeSent":
                self.requests.append(event["params"]["request"]["url"])

    def open(self, address, ready="document.documentElement.dataset.ready === 'yes'"):
        """Load a page, wait until an expression is true, and return the seconds that it took."""
        start = time.monotonic()
        self.ask("Page.navigate", url=address)
        self.until(ready)
        return time.monotonic() - start

    def run(self, expression):
        """The value of a JavaScript expression, promises waited for."""
        found = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(found["exceptionDetails"]["exception"].get("description"))
        return found["result"].get("value")

    def until(self, expression, seconds=60):
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while True:
            try:
                if self.run(expression):
                    return
            except RuntimeError:  # the page is being replaced
                pass
            if time.monotonic() > end:
                raise TimeoutError(expression)
            time.sleep(0.02)

    def press(self, key, modifiers=0):
        """Press a key as a person does; modifiers: 8 for Shift."""
        text = key if len(key) == 1 else ""
        for kind in ("keyDown", "keyUp"):
            self.ask(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                text=text if kind == "keyDown" else "",
                modifiers=modifiers,
            )

    def click(self, selector, **more):
        """Click in the middle of an element."""
        x, y = self.run(
            f"(({{left, top, width, height}}) => [left + width / 2, top + height / 2])"
            f"(document.querySelector({json.dumps(selector)}).getBoundingClientRect())"
        )
        self.move(x, y)
        for kind in ("mousePressed", "mouseReleased"):
            self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1, **more)

    def move(self, x, y):
        self.ask("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def size(self, width, height, scale=1):
        self.ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=False
        )

    def picture(self, path):
        """Write what is seen as PNG."""
        Path(path).write_bytes(base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"]))


@contextmanager
def opened(folder):
    """Yield a page of a browser whose profile is in `folder`; skip the test where there is no browser."""
    if CHROMIUM is None:
        pytest.skip("wants a Chromium on the path, to look at the page")
    websocket = pytest.importorskip("tornado.websocket", reason="wants tornado, to talk to the browser")
    ioloop = pytest.importorskip("tornado.ioloop")
    log = Path(folder, "chromium.log")
    with log.open("w") as file:
        process = subprocess.Popen(
            [CHROMIUM, *FLAGS, f"--user-data-dir={folder}/profile", "about:blank"],
            stderr=file,
            stdout=subprocess.DEVNULL,
        )
    try:
        loop = ioloop.IOLoop(make_current=False)
        address = _address(log, process)
        port = re.search(r":(\d+)/", address)[1]
        socket = loop.run_sync(lambda: _tab(websocket, port), timeout=60)
        yield Page(socket, loop)
    finally:
        process.terminate()
        process.wait(30)


def _address(log, process):
    for _ in range(600):
        if found := re.search(r"DevTools listening on (ws://\S+)", log.read_text()):
            return found[1]
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise RuntimeError(f"the browser should start, but said: {log.read_text()[-500:]}")


async def _tab(websocket, port):
    from tornado.httpclient import AsyncHTTPClient

    answer = await AsyncHTTPClient().fetch(f"http://127.0.0.1:{port}/json/list")
    [tab] = [one for one in json.loads(answer.body) if one["type"] == "page"]
    return await websocket.websocket_connect(tab["webSocketDebuggerUrl"], max_message_size=2**28)
