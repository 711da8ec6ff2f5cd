"""A server that speaks S3, in a process of its own, that one can stop, freeze and have refuse."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from benchmarks.stand import free_port
from dicom_node.blobs.asking import Bucket, client

#: nobody's: the server takes any
_CREDENTIALS = "[default]\naws_access_key_id = test\naws_secret_access_key = test-secret-access-key\n"


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

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

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
