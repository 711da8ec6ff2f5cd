"""Real peers from Debian's packages, started on free loopback ports and stopped by pid."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.stand import free_port

#: DCMTK crawls at 20 images a second without it
ENVIRONMENT = {**os.environ, "TCP_NODELAY": "1"}


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Return once `condition` holds; fail with `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.1)


@contextlib.contextmanager
def process(*command: str | Path, log: Path, cwd: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program, its output in `log`; ask it to stop at the end, and make it stop if it does not."""
    with log.open("wb") as output:
        child = subprocess.Popen(
            [str(part) for part in command], stdout=output, stderr=output, env=ENVIRONMENT, cwd=cwd
        )
        try:
            yield child
        finally:
            child.terminate()
            try:
                child.wait(30)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def listens(port: int) -> bool:
    """Whether something accepts connections on a loopback port."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
        return True
    return False


@dataclass(frozen=True)
class Storescp:
    """DCMTK's storescp, keeping what arrives in `folder`."""

    port: int
    folder: Path

    def files(self) -> list[Path]:
        return sorted(path for path in self.folder.iterdir() if path.is_file())


@contextlib.contextmanager
def storescp(folder: Path, *options: str) -> Iterator[Storescp]:
    port = free_port()
    folder.mkdir(parents=True)
    command = ("/usr/bin/storescp", "--fork", "+xa", *options, "--output-directory", folder, str(port))
    with process(*command, log=folder.with_suffix(".log")):
        wait_until(lambda: listens(port), 20, "storescp listens")
        yield Storescp(port, folder)


@dataclass(frozen=True)
class Orthanc:
    """An Orthanc of its own, asked over its REST interface."""

    dicom_port: int
    http_port: int

    def instances(self) -> list[str]:
        return list(json.loads(self._get("/instances")))

    def file(self, instance: str) -> bytes:
        return self._get(f"/instances/{instance}/file")

    def store(self, content: bytes) -> str:
        """Upload a file; the id of its instance."""
        return str(self.post("/instances", content)["ID"])

    def remove(self, instance: str) -> None:
        self.delete(f"/instances/{instance}")

    def preview(self, instance: str) -> bytes:
        return self._get(f"/instances/{instance}/preview")

    def get(self, path: str) -> Any:
        return json.loads(self._get(path))

    def post(self, path: str, body: bytes | dict[str, Any]) -> Any:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return json.loads(self._get(path, data))

    def delete(self, path: str) -> None:
        self._get(path, method="DELETE")

    def _get(self, path: str, data: bytes | None = None, method: str | None = None) -> bytes:
        address = f"http://127.0.0.1:{self.http_port}{path}"
        request = urllib.request.Request(address, data, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            content: bytes = answer.read()
            return content


#: where Debian keeps the plugin of the package orthanc-dicomweb
DICOMWEB_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


@contextlib.contextmanager
def orthanc(folder: Path, node_port: int | None = None, **more: Any) -> Iterator[Orthanc]:
    """With `node_port` it knows the node as its modality "node", AE title NODE; `more` are settings of it."""
    folder.mkdir(parents=True)
    peer = Orthanc(free_port(), free_port())
    settings = {
        "DicomModalities": {} if node_port is None else {"node": ["NODE", "127.0.0.1", node_port]},
        "Name": "PACS",
        "DicomAet": "ORTHANC",
        "DicomPort": peer.dicom_port,
        "HttpPort": peer.http_port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "UnknownSopClassAccepted": True,
        "Plugins": [],
        **more,
    }
    path = folder / "orthanc.json"
    path.write_text(json.dumps(settings))
    with process("/usr/sbin/Orthanc", path, log=folder / "log.txt"):
        wait_until(lambda: listens(peer.dicom_port) and listens(peer.http_port), 40, "Orthanc listens")
        yield peer


@dataclass(frozen=True)
class RunningNode:
    """A `dicom-node serve` of its own."""

    port: int
    folder: Path
    keys: Path
    log: Path
    pid: int


@contextlib.contextmanager
def node(
    folder: Path,
    destinations: dict[str, tuple[str, int]],
    role: str = "protect",
    more: str = "",
    *,
    port: int | None = None,
    options: str = "",
    node_keys: str = "",
    route: str = "",
    retry: str = "first_s: 1.0",
) -> Iterator[RunningNode]:
    """A node that sends everything to all `destinations`, name -> (AE title, port).

    `more` is YAML to add; `options` are more keys of every destination, `node_keys` of the node, `route` of
    the route; `retry` is how destinations are tried again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    keys = folder / "keyring"
    if not keys.exists():
        dicom_node("keys", "new", "--keys", str(keys))
    port = port or free_port()
    config = folder / "node.yaml"
    peers = "".join(
        f"  {name}: {{ae_title: {ae}, host: 127.0.0.1, port: {peer}, retry: {{{retry}}}{options}}}\n"
        for name, (ae, peer) in destinations.items()
    )
    config.write_text(
        f"node: {{id: test, ae_title: NODE, bind: 127.0.0.1, port: {port}{node_keys}}}\n"
        f"storage: {{folder: {folder / 'state'}}}\n"
        f"keys: {{ring: {keys}}}\n"
        "workers: {count: 2}\n"
        f"destinations:\n{peers}"
        f"routes:\n  - {{name: all, role: {role}, destinations: [{', '.join(destinations)}]{route}}}\n"
        "http: {port: null}\n" + more
    )
    log = folder / "node.log"
    with process(sys.executable, "-m", "dicom_node", "serve", "--config", config, log=log) as child:
        wait_until(lambda: listens(port) or child.poll() is not None, 60, f"the node listens; see {log}")
        assert child.poll() is None, log.read_text()
        yield RunningNode(port, folder, keys, log, child.pid)


def dicom_node(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line; its output and exit code."""
    command = [sys.executable, "-m", "dicom_node", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)


def send(port: int, files: list[Path], *options: str) -> None:
    """Send files with DCMTK's storescu; every one must be answered with success."""
    command = ["/usr/bin/storescu", *options, "-aec", "NODE", "127.0.0.1", str(port), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
