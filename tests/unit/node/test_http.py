"""Metrics and health, asked over HTTP."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterable, Iterator
from http.client import HTTPConnection, RemoteDisconnected

import pytest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from dicom_node import http
from dicom_node.errors import LedgerError, OutputError
from dicom_node.http import HttpServer
from tests.waiting import wait_until


class Gauge(Collector):
    """One metric, or an error."""

    error: Exception | None = None

    def collect(self) -> Iterable[Metric]:
        if self.error is not None:
            raise self.error
        yield GaugeMetricFamily("dicom_node_test", "A test.", value=3)


class Site:
    def __init__(self) -> None:
        self.problems: list[str] = []
        self.failures: list[str] = []
        self.gauge = Gauge()
        self.status = "<p>all is well</p>"
        self.server = HttpServer(
            "127.0.0.1", 0, self.gauge, lambda: self.problems, lambda: self.failures, lambda: self.status
        )
        self.server.start()

    def get(self, path: str, method: str = "GET") -> tuple[int, str]:
        connection = HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    yield made
    made.server.stop()


def test_metrics(site: Site) -> None:
    status, body = site.get("/metrics?x=1")
    assert status == 200
    assert "dicom_node_test 3.0" in body
    assert "process_resident_memory_bytes" in body


def test_alive_even_when_not_ready(site: Site) -> None:
    site.problems = ["spool", "workers"]
    assert site.get("/healthz") == (200, "alive\n")
    assert site.get("/readyz") == (503, "spool\nworkers\n")


def test_what_has_stopped_is_named_to_whoever_restarts_us(site: Site) -> None:
    site.failures = ["forwarder"]
    assert site.get("/healthz") == (503, "forwarder\n")


def test_ready(site: Site) -> None:
    assert site.get("/readyz") == (200, "ready\n")


@pytest.mark.parametrize("path", ["/", "/status", "/?x=1"])
def test_the_page_for_people(site: Site, path: str) -> None:
    assert site.get(path) == (200, "<p>all is well</p>")


@pytest.mark.parametrize("path", ["/", "/metrics", "/healthz", "/nowhere"])
def test_every_answer_tells_browsers_what_not_to_do(site: Site, path: str) -> None:
    connection = HTTPConnection("127.0.0.1", site.server.port, timeout=60)
    connection.request("GET", path)
    headers = connection.getresponse().headers
    connection.close()
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Content-Security-Policy"].startswith("default-src 'none'; ")
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]


def test_a_head_is_an_answer_without_its_body(site: Site) -> None:
    assert site.get("/", "HEAD") == (200, "")


@pytest.mark.parametrize("path", ["/metrics/", "/../etc/passwd", "/admin"])
def test_nothing_else_is_served(site: Site, path: str) -> None:
    assert site.get(path)[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_can_be_changed(site: Site, method: str) -> None:
    assert site.get("/metrics", method) == (405, "nothing can be changed here\n")


def test_a_ledger_that_refuses_is_a_500_and_not_the_end(site: Site) -> None:
    site.gauge.error = LedgerError("locked")
    status, body = site.get("/metrics")
    assert status == 500
    assert "locked" not in body
    site.gauge.error = None
    assert site.get("/metrics")[0] == 200


def test_who_hangs_up_early_and_what_nobody_foresaw_print_nothing(
    site: Site, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    site.status = "x" * 20_000_000
    with socket.create_connection(("127.0.0.1", site.server.port)) as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.sendall(b"GET / HTTP/1.0\r\n\r\n")
        peer.recv(1)
    site.gauge.error = ValueError("Doe^Jane")
    with pytest.raises(RemoteDisconnected):
        site.get("/metrics")
    assert site.get("/healthz") == (200, "alive\n")
    assert [record.msg for record in caplog.records] == ["page-failed"]
    assert capfd.readouterr().err == ""


#: half a request; an answer that nobody reads
@pytest.mark.parametrize("sent", [b"", b"GET /metrics HTTP/1.0\r\nX: ", b"GET / HTTP/1.0\r\n\r\n"])
def test_peers_that_keep_their_connections_keep_neither_threads_nor_scrapes(
    sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit in ("_SILENCE_S", "_LONGEST_S"):  # by themselves they would not end
        monkeypatch.setattr(http, limit, 3600.0)
    site = Site()
    site.status = "x" * 12_000_000
    before = threading.active_count()
    with contextlib.ExitStack() as idle:
        idle.callback(site.server.stop)
        for _ in range(3 * http._MOST):
            peer = idle.enter_context(socket.create_connection(("127.0.0.1", site.server.port)))
            peer.sendall(sent)
        assert site.get("/metrics")[0] == 200
        # those that were sent away do
        wait_until(lambda: threading.active_count() <= before + http._MOST)


def test_a_peer_that_sends_a_byte_now_and_then_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_LONGEST_S", 0.2)
    site = Site()
    try:
        with socket.create_connection(("127.0.0.1", site.server.port)) as peer:

            def is_sent_away() -> bool:
                try:
                    peer.sendall(b"G")
                except OSError:
                    return True
                return False

            wait_until(is_sent_away)
    finally:
        site.server.stop()


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = HttpServer("127.0.0.1", taken.getsockname()[1], Gauge(), list, list, str)
        with pytest.raises(OutputError, match="cannot serve HTTP"):
            server.start()
    server.stop()
