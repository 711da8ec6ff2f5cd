"""What stands between a node and the S3 of `benchmarks.buckets`, and refuses as a test tells it to."""

from __future__ import annotations

import contextlib
import http.server
import threading
import urllib.request
from collections.abc import Iterator


class _Between(http.server.BaseHTTPRequestHandler):
    """Passes requests on, or answers as it is told to."""

    protocol_version = "HTTP/1.1"
    server: Between

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        refusal = self.server.refusal
        if refusal is not None:
            self._answer(refusal, [("Content-Type", "application/xml")], b"<Error><Code>Told</Code></Error>")
            return
        headers = {name: value for name, value in self.headers.items() if name not in self.server.without}
        headers.setdefault("Content-Type", "application/octet-stream")  # else urllib calls it a form
        asked = urllib.request.Request(
            self.server.target + self.path, body or None, headers, method=self.command
        )
        try:
            with urllib.request.urlopen(asked) as answer:
                content, status, heads = answer.read(), answer.status, answer.headers.items()
        except urllib.error.HTTPError as error:
            content, status, heads = error.read(), error.code, error.headers.items()
        kept = [(n, v) for n, v in heads if n.lower() not in ("connection", "transfer-encoding", "server")]
        self._answer(status, kept, content)

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response_only(status)
        names = {name.lower() for name, _ in headers}
        for name, value in headers:
            self.send_header(name, value)
        if "content-length" not in names:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _pass  # noqa: N815 - names of the library

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


class Between(http.server.ThreadingHTTPServer):
    """What stands between a node and its S3: it may refuse, or leave headers out."""

    daemon_threads = True

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Between)
        self.target = target
        #: the status that every request is answered with, instead of being passed on
        self.refusal: int | None = None
        #: headers that do not get through
        self.without: frozenset[str] = frozenset()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextlib.contextmanager
def between(target: str) -> Iterator[Between]:
    server = Between(target)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
