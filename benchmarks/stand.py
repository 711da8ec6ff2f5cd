"""What is put under fault: a node, or Orthanc, in processes to be killed, on a disk to be filled.

A program is started as the leader of a process group, so that one signal reaches every process of it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from benchmarks import wire
from benchmarks.wire import Broken

CT = "1.2.840.10008.5.1.4.1.1.2"
ORTHANC = "/usr/sbin/Orthanc"
_REPOSITORY = Path(__file__).resolve().parent.parent
#: below the ports that the kernel gives to outgoing connections, so that none takes a dead node's place
_PORTS = range(20000, 32000)
_given: set[int] = set()
_START_S = 120.0


def free_port() -> int:
    """A loopback port that nobody listens on, that no outgoing connection will be given, and that is new.

    Whoever was given one before may not listen yet.
    """
    while True:
        port = random.SystemRandom().choice(_PORTS)
        if port in _given:
            continue
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            _given.add(port)
            return port


def wait_until(done: Callable[[], object], limit_s: float, what: str) -> None:
    """Return once `done()` holds; AssertionError with `what` after `limit_s`."""
    deadline = time.monotonic() + limit_s
    while not done():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {limit_s:.0f} s: {what}")
        time.sleep(0.02)


def listens(port: int) -> bool:
    """Whether something accepts connections at a loopback port."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
        return True
    return False


def objects(folder: Path, count: int, *, edge: int = 64, seed: int = 0, patient: str = "") -> list[Path]:
    """Synthetic CT images of `edge` x `edge` pixels, all different: a textured disc on a flat background.

    Each is of a patient of its own, unless `patient` is the PatientID of all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    y, x = np.ogrid[-1 : 1 : edge * 1j, -1 : 1 : edge * 1j]
    disc = 1200.0 * ((y / 0.6) ** 2 + (x / 0.7) ** 2 < 1)
    return [
        _written(
            folder / f"{number:06d}.dcm",
            number,
            seed,
            patient or f"{number:06d}",
            disc * (1 + rng.normal(0, 0.02, disc.shape)),
        )
        for number in range(count)
    ]


def _written(path: Path, number: int, seed: int, patient: str, image: np.ndarray) -> Path:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = CT, f"1.2.826.0.1.3680043.10.999.{seed}.{number + 1}"
    ds.StudyInstanceUID = ds.SeriesInstanceUID = f"1.2.826.0.1.3680043.10.999.{seed}"
    ds.PatientName, ds.PatientID, ds.Modality = "Synthetic^Object", patient, "CT"
    ds.InstanceNumber, ds.SamplesPerPixel, ds.PhotometricInterpretation = number, 1, "MONOCHROME2"
    ds.Rows, ds.Columns = image.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.PixelData = image.astype("<u2").tobytes()
    ds.save_as(path, enforce_file_format=True)
    return path


@dataclass(frozen=True, slots=True)
class Peer:
    """A destination as a node is told of it."""

    port: int
    associations: int = 1
    timeout_s: float = 10.0
    host: str = "127.0.0.1"
    first_s: float = 0.2
    cap_s: float = 1.0
    refusals: int = 3


class Program:
    """A program in a process group of its own, with its output in a file that survives it."""

    def __init__(self, folder: Path, port: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.port = folder, port
        self.log = folder / "log.txt"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id of the leader."""
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the leader lives."""
        return self._process is not None and self._process.poll() is None

    def launch(self, command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> None:
        """Start, without waiting for anything."""
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, "TCP_NODELAY": "1", "PYTHONPATH": str(_REPOSITORY), **(environment or {})},
                start_new_session=True,
            )

    def kill(self) -> None:
        """SIGKILL to every process at once."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def wait(self, limit_s: float = 60.0) -> int:
        """The exit status of the leader, when it has ended."""
        assert self._process is not None
        return self._process.wait(limit_s)

    def terminate(self, limit_s: float = 60.0) -> int:
        """SIGTERM to the leader; its exit status."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(limit_s)

    def await_port(self) -> None:
        """Wait until it listens; AssertionError with the end of its log when it ends instead."""
        deadline = time.monotonic() + _START_S
        while not listens(self.port):
            if not self.running or time.monotonic() > deadline:
                raise AssertionError(f"does not listen: {self.log.read_text('utf-8')[-2000:]}")
            time.sleep(0.02)

    def said(self) -> str:
        """Everything that it printed, in all its lives."""
        return self.log.read_text("utf-8", "replace")


@dataclass
class Setup:
    """The configuration of a node under fault; everything that a scenario varies."""

    destinations: Mapping[str, Peer]
    role: str = "pass"
    workers: int = 1
    receivers: int = 1
    reserve_mb: int = 16
    #: where it listens
    host: str = "127.0.0.1"
    #: further sections of the configuration
    sections: Mapping[str, object] = field(default_factory=dict)


class Node(Program):
    """`dicom-node serve` with a folder, a key ring and ports of its own."""

    def __init__(self, folder: Path, setup: Setup) -> None:
        super().__init__(folder, free_port())
        self.http_port, self.host = free_port(), setup.host
        self.state, self.keys = folder / "state", folder / "keyring"
        self._config = folder / "node.yaml"
        if setup.role != "pass" and not self.keys.exists():
            command = [sys.executable, "-m", "dicom_node", "keys", "new", "--keys", str(self.keys)]
            subprocess.run(command, check=True, capture_output=True, timeout=60)
        self._config.write_text(json.dumps(self._settings(setup)), "utf-8")  # JSON is YAML

    def start(
        self,
        module: str = "dicom_node",
        environment: Mapping[str, str] | None = None,
        *,
        under: Sequence[str | Path] = (),
        ready: bool = True,
    ) -> Node:
        """Start, and unless `ready` is false wait until it works.

        `module` takes the command's place; `under` is a program, with its arguments, that runs it.
        """
        self.launch([*under, sys.executable, "-m", module, "serve", "--config", self._config], environment)
        if ready:
            self.await_port()
            wait_until(lambda: self.page("/healthz")[0] == 200 or not self.running, _START_S, "health")
        return self

    def processes(self) -> list[int]:
        """The process ids of the group, the leader first."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                fields = (entry / "stat").read_text("utf-8").rpartition(")")[2].split()
                if int(fields[2]) == self.pid and fields[0] != "Z":
                    found.append(int(entry.name))
        return sorted(found, key=lambda pid: (pid != self.pid, pid))

    def workers(self) -> list[int]:
        """The process ids of the workers: what the leader spawned, but for multiprocessing's own helper."""
        found = []
        for pid in self.processes()[1:]:
            with contextlib.suppress(OSError):
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
                if b"spawn_main" in command:
                    found.append(pid)
        return found

    def echo(self) -> bool:
        """Whether it answers a C-ECHO with success."""
        try:
            association = wire.call(
                self.port, "NODE", "WATCH", [(wire.VERIFICATION, wire.IMPLICIT_LITTLE)], 10.0
            )
            status = association.echo()
            association.release()
        except Broken:
            return False
        return status == 0

    def page(self, path: str) -> tuple[int, str]:
        """Status and body of a page of its HTTP server; status 0 when nobody answers."""
        try:
            with urllib.request.urlopen(f"http://{self.host}:{self.http_port}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode("utf-8")
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode("utf-8")
        except OSError:
            return 0, ""

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples whose labels include these."""
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        lines = [
            line
            for line in self.page("/metrics")[1].splitlines()
            if line.partition("{")[0].partition(" ")[0] == name and all(part in line for part in wanted)
        ]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    def _settings(self, setup: Setup) -> dict[str, object]:
        peers = {
            name: {
                "ae_title": name.upper(),
                "host": peer.host,
                "port": peer.port,
                "associations": peer.associations,
                "timeout_s": peer.timeout_s,
                "retry": {"first_s": peer.first_s, "cap_s": peer.cap_s, "refusals": peer.refusals},
            }
            for name, peer in setup.destinations.items()
        }
        return {
            "node": {
                "id": "test",
                "ae_title": "NODE",
                "bind": setup.host,
                "port": self.port,
                "receivers": setup.receivers,
            },
            "storage": {"folder": str(self.state), "reserve_mb": setup.reserve_mb},
            "keys": {"ring": str(self.keys)},
            "workers": {"count": setup.workers},
            "destinations": peers,
            "routes": [{"name": "all", "role": setup.role, "destinations": list(peers)}],
            "http": {"bind": setup.host, "port": self.http_port},
            **setup.sections,
        }


class Orthanc(Program):
    """Debian's Orthanc with the auto-routing recipe of the Orthanc Book."""

    _ROUTE = "function OnStoredInstance(id, tags, metadata, origin)\n  SendToModality(id, 'sink')\nend\n"

    def __init__(self, folder: Path, sink: int, more: Mapping[str, object] | None = None) -> None:
        super().__init__(folder, free_port())
        self.state = folder / "state"
        (folder / "route.lua").write_text(self._ROUTE, "utf-8")
        settings = {
            "Name": "peer",
            "DicomAet": "NODE",
            "DicomPort": self.port,
            "HttpPort": free_port(),
            "StorageDirectory": str(self.state),
            "IndexDirectory": str(self.state),
            "Plugins": [],
            "LuaScripts": [str(folder / "route.lua")],
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomAlwaysAllowStore": True,
            "DicomCheckCalledAet": False,
            "MaximumPduLength": 131072,
            "ConcurrentJobs": 4,
            "JobsHistorySize": 1000,
            "SaveJobs": True,
            "DicomModalities": {"sink": ["SINK", "127.0.0.1", sink]},
            **(more or {}),
        }
        (folder / "orthanc.json").write_text(json.dumps(settings), "utf-8")

    def start(self) -> Orthanc:
        """Start, and wait until it listens."""
        self.launch([ORTHANC, self.folder / "orthanc.json"])
        self.await_port()
        return self


@contextlib.contextmanager
def small_disk(folder: Path, *, megabytes: int, inodes: int = 0) -> Iterator[bool]:
    """Mount a file system of this size at `folder`; False where that is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    options = f"size={megabytes}m" + (f",nr_inodes={inodes}" if inodes else "")
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    able = os.geteuid() == 0 and shutil.which("mount") is not None
    if not able or subprocess.run(command, check=False, capture_output=True).returncode != 0:
        yield False
        return
    try:
        yield True
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def resize(folder: Path, *, megabytes: int) -> None:
    """Give a `small_disk` another size."""
    subprocess.run(["mount", "-o", f"remount,size={megabytes}m", str(folder)], check=True)


def fill(path: Path) -> None:
    """Write one file until the disk below it has no byte left."""
    with path.open("ab", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            with contextlib.suppress(_NoSpace):
                while True:
                    _append(file.fileno(), bytes(size))


class _NoSpace(Exception):  # noqa: N818 - ends a loop
    """Not a byte more."""


def _append(handle: int, content: bytes) -> None:
    try:
        written = os.write(handle, content)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise _NoSpace from error
    if written < len(content):
        raise _NoSpace
