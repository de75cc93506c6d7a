"""MLflow's own server in this process, with the faults of a bad network or a bad day."""

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from werkzeug.serving import make_server


class Server:
    """It keeps its runs in `store` and its artifacts below `artifacts`, and can be slow, failing or gone."""

    def __init__(self, store: str, artifacts: Path) -> None:
        # The server reads what it keeps from the environment.
        os.environ["_MLFLOW_SERVER_SERVE_ARTIFACTS"] = "true"
        os.environ["_MLFLOW_SERVER_ARTIFACT_DESTINATION"] = artifacts.as_uri()
        os.environ["_MLFLOW_SERVER_ARTIFACT_ROOT"] = "mlflow-artifacts:/"
        from mlflow.server import app
        from mlflow.server.handlers import initialize_backend_stores

        initialize_backend_stores(store, store, "mlflow-artifacts:/")
        self._app = app.wsgi_app
        self.seconds = 0.0  # of each request
        self.fails: Callable[[str, str], bool] = lambda method, path: False  # which requests get an answer of 503
        self.loses: Callable[[str, str], bool] = lambda method, path: False  # whose answers are lost: done, and 503
        self.requests: list[tuple[str, str]] = []  # method and path
        self._port = 0
        self.start()

    def start(self) -> None:
        """Listen, at the same port as before."""
        self._server = make_server("127.0.0.1", self._port, self._answer, threaded=True)
        self._port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Let nobody answer."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def close(self) -> None:
        """Stop, and let this process forget what the server chose for it."""
        self.stop()
        from mlflow import set_registry_uri

        set_registry_uri(None)
        for name in [name for name in os.environ if name.startswith(("_MLFLOW_SERVER", "MLFLOW_REGISTRY_URI"))]:
            del os.environ[name]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def _answer(self, environ, start_response):
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.requests.append((method, path))
        time.sleep(self.seconds)
        if self.fails(method, path):
            return self._busy(start_response)
        if self.loses(method, path):
            with suppress(Exception):
                list(self._app(environ, lambda *ignored: None))
            return self._busy(start_response)
        return self._app(environ, start_response)

    def _busy(self, start_response):
        start_response("503 Service Unavailable", [("Content-Type", "text/plain")])
        return [b"busy"]
