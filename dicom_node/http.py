"""Metrics, health and status over HTTP: `/metrics` for Prometheus, `/healthz` and `/readyz` for our keepers,
`/` for people.

    /healthz   200 `alive`, or 503 and what has stopped: a restart would help
    /readyz    200 `ready`, or 503 and what keeps the node from its work: a restart may not help

One word a line. Nothing here changes anything, and nothing here names a patient. Peers that are slow, or
many, neither keep threads nor keep others out: see `guests`.
"""

from __future__ import annotations

import logging
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from dicom_node import log
from dicom_node.errors import NodeError, OutputError
from dicom_node.guests import Guests
from dicom_node.pages.rendering import policy

_LOG = logging.getLogger(__name__)
_TEXT, _HTML = "text/plain; charset=utf-8", "text/html; charset=utf-8"
#: nobody keeps an answer, takes it for something else, or shows it inside another page
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": f"{policy()}; frame-ancestors 'none'",
}

#: connections at once; Prometheus, a keeper and a few browsers need fewer
_MOST = 16
#: how long a peer may be silent, and how long it may stay, whatever it does
_SILENCE_S, _LONGEST_S = 10.0, 30.0
#: how long the next peer waits for the place of one that was sent away
_PATIENCE_S = 1.0

Page = tuple[HTTPStatus, str, bytes]


class HttpServer:
    """Serves the pages from a thread.

    Parameters
    ----------
    bind, port : where to listen; port 0 takes a free one
    collector : what `/metrics` shows
    problems : what keeps the node from doing its work now, one word each; empty when it is ready
    failures : what has stopped and will not go on by itself, one word each; empty when it is alive
    status : makes the page for people, `/` and `/status`, as HTML
    """

    def __init__(
        self,
        bind: str,
        port: int,
        collector: Collector,
        problems: Callable[[], Sequence[str]],
        failures: Callable[[], Sequence[str]],
        status: Callable[[], str],
    ) -> None:
        registry = CollectorRegistry()
        registry.register(collector)
        ProcessCollector(registry=registry)
        pages: dict[str, Callable[[], Page]] = {
            "/metrics": lambda: (HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(registry)),
            "/healthz": lambda: _state("alive", failures()),
            "/readyz": lambda: _state("ready", problems()),
        }
        pages |= dict.fromkeys(("/", "/status"), lambda: (HTTPStatus.OK, _HTML, status().encode()))
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
            self._server = _Server(self._address, self._handler)
        except OSError as error:
            where = f"{self._address[0]}:{self._address[1]}"
            raise OutputError(
                f"cannot serve HTTP on {where}: {error.strerror}; choose another http.port"
            ) from error
        threading.Thread(target=self._server.serve_forever, args=(0.1,), name="http", daemon=True).start()

    def stop(self) -> None:
        """Stop listening."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()


class _Server(ThreadingHTTPServer):
    """Each of `_MOST` connections at most has a thread of its own, which ends with the process."""

    daemon_threads = True
    #: in the kernel, before they have a thread
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._guests = Guests(_MOST, _LONGEST_S, _PATIENCE_S)
        super().__init__(address, handler)

    def verify_request(self, request: object, client_address: object) -> bool:
        """Whether there is a place for it."""
        assert isinstance(request, socket.socket)
        assert isinstance(client_address, tuple)
        return self._guests.admit(request, str(client_address[0]))

    def shutdown_request(self, request: socket.socket | tuple[bytes, socket.socket]) -> None:
        """Its place is free."""
        assert isinstance(request, socket.socket)
        self._guests.leave(request)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Called several times a second."""
        self._guests.send_late_away()

    def handle_error(self, _request: object, _client_address: object) -> None:
        """Say that a page was not answered; the standard library would print whatever the error quotes."""
        error = sys.exception()
        if not isinstance(error, ConnectionError):  # who hangs up early has changed his mind
            log.event(_LOG, "page-failed", level=logging.ERROR, error=error)


def _state(fine: str, wrong: Sequence[str]) -> Page:
    status = HTTPStatus.SERVICE_UNAVAILABLE if wrong else HTTPStatus.OK
    return status, _TEXT, "".join(f"{word}\n" for word in wrong or [fine]).encode()


def _handler(pages: dict[str, Callable[[], Page]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _SILENCE_S
        server_version, sys_version = "dicom-node", ""

        def do_GET(self) -> None:
            page = pages.get(self.path.partition("?")[0])
            self._answer((HTTPStatus.NOT_FOUND, _TEXT, b"not here\n") if page is None else _made(page))

        do_HEAD = do_GET  # noqa: N815 - the name that the standard library looks for

        def _refuse(self) -> None:
            self.close_connection = True  # a body that nobody reads would be taken for the next request
            self._answer((HTTPStatus.METHOD_NOT_ALLOWED, _TEXT, b"nothing can be changed here\n"))

        do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = _refuse  # noqa: N815

        def _answer(self, page: Page) -> None:
            status, kind, body = page
            self.send_response(status)
            for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **_HEADERS}.items():
                self.send_header(name, value)
            if status is HTTPStatus.METHOD_NOT_ALLOWED:
                self.send_header("Allow", "GET, HEAD")
            self.end_headers()
            if self.command != "HEAD":
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
