"""A server that speaks S3, in a process of its own, that a test can stop, freeze and have refuse."""

from __future__ import annotations

import contextlib
import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from dicom_node.blobs.asking import Bucket, client

#: nobody's: the server takes any
_CREDENTIALS = "[default]\naws_access_key_id = test\naws_secret_access_key = test-secret-access-key\n"


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


class S3Server:
    """A moto server; what it holds is in its memory."""

    def __init__(self) -> None:
        self.port = free_port()
        command = [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "moto.server",
            "-H",
            "127.0.0.1",
            "-p",
            str(self.port),
        ]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 60.0
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/moto-api/", timeout=5):
                return
            assert time.monotonic() < until
            time.sleep(0.1)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def freeze(self) -> None:
        """Take connections and answer none."""
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self._process.pid, signal.SIGCONT)

    def stop(self) -> None:
        self.thaw()
        self._process.kill()
        self._process.wait()

    def bucket(self, name: str, folder: Path, *, url: str | None = None) -> Bucket:
        """A new bucket, and the credentials for it in a file."""
        file = folder / "credentials"
        file.write_text(_CREDENTIALS)
        file.chmod(0o600)
        made = Bucket(name, "objects/", url or self.url, "us-east-1", file)
        client(Bucket(name, "", self.url, "us-east-1", file)).create_bucket(Bucket=name)
        return made


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
