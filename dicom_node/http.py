"""Metrics and health over HTTP: `/metrics` for Prometheus, `/healthz` and `/readyz` for our keepers.

    /healthz   200 `alive`, or 503 and what has stopped: a restart would help
    /readyz    200 `ready`, or 503 and what keeps the node from its work: a restart may not help

One word a line. Nothing here changes anything, and nothing here names a patient.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from dicom_node import log
from dicom_node.errors import NodeError, OutputError

_LOG = logging.getLogger(__name__)
_TEXT = "text/plain; charset=utf-8"

Page = tuple[HTTPStatus, str, bytes]


class HttpServer:
    """Serves the pages from a thread.

    Parameters
    ----------
    bind, port : where to listen; port 0 takes a free one
    collector : what `/metrics` shows
    problems : what keeps the node from doing its work now, one word each; empty when it is ready
    failures : what has stopped and will not go on by itself, one word each; empty when it is alive
    """

    def __init__(
        self,
        bind: str,
        port: int,
        collector: Collector,
        problems: Callable[[], Sequence[str]],
        failures: Callable[[], Sequence[str]],
    ) -> None:
        registry = CollectorRegistry()
        registry.register(collector)
        ProcessCollector(registry=registry)
        pages: dict[str, Callable[[], Page]] = {
            "/metrics": lambda: (HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(registry)),
            "/healthz": lambda: _state("alive", failures()),
            "/readyz": lambda: _state("ready", problems()),
        }
        self._address = (bind, port)
        self._handler = _handler(pages)
        self._server: ThreadingHTTPServer | None = None

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return self._address[1] if self._server is None else self._server.server_port

    def start(self) -> None:
        """Listen; returns at once. Raises OutputError when the address cannot be bound."""
        try:
            self._server = ThreadingHTTPServer(self._address, self._handler)
        except OSError as error:
            where = f"{self._address[0]}:{self._address[1]}"
            raise OutputError(
                f"cannot serve HTTP on {where}: {error.strerror}; choose another http.port"
            ) from error
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.1,), name="http", daemon=True).start()

    def stop(self) -> None:
        """Stop listening."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()


def _state(fine: str, wrong: Sequence[str]) -> Page:
    status = HTTPStatus.SERVICE_UNAVAILABLE if wrong else HTTPStatus.OK
    return status, _TEXT, "".join(f"{word}\n" for word in wrong or [fine]).encode()


def _handler(pages: dict[str, Callable[[], Page]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10.0
        server_version, sys_version = "dicom-node", ""

        def do_GET(self) -> None:
            page = pages.get(self.path.partition("?")[0])
            status, kind, body = (HTTPStatus.NOT_FOUND, _TEXT, b"not here\n") if page is None else _made(page)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Scrapes come every few seconds; they are not worth a line."""

    return Handler


def _made(page: Callable[[], Page]) -> Page:
    try:
        return page()
    except NodeError as error:
        log.event(_LOG, "page-failed", level=logging.ERROR, error=error)
        return (
            HTTPStatus.INTERNAL_SERVER_ERROR,
            _TEXT,
            b"the ledger or the spool cannot be read; see the log\n",
        )
