"""A whole node between real peers: what a sender got an answer for arrives, as it was, wherever it should."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit
from pynetdicom import AE, evt
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.transport import ThreadedAssociationServer

from benchmarks.stand import free_port
from dicom_node.config import Config
from dicom_node.jobs import PASSED, Outcome, Work, passed
from dicom_node.service import Service
from dicom_node.worker import Processor, Tell
from tests.waiting import wait_until

CT, PRIVATE, WORKLIST = "1.2.840.10008.5.1.4.1.1.2", "1.3.46.670589.11.0.0.12.4", "1.2.840.10008.5.1.4.31"
STORESCU, STORESCP, ECHOSCU = "/usr/bin/storescu", "/usr/bin/storescp", "/usr/bin/echoscu"


def config(folder: Path, destinations: dict[str, int], role: str = "pass") -> Config:
    return Config.model_validate(
        {
            "node": {"id": "n", "ae_title": "NODE", "bind": "127.0.0.1", "port": free_port()},
            "storage": {"folder": folder, "reserve_mb": 16},
            "workers": {"count": 1},
            "destinations": {
                name: {
                    "ae_title": name.upper(),
                    "host": "127.0.0.1",
                    "port": port,
                    "timeout_s": 60.0,
                    "associations": 1,
                    "retry": {"first_s": 0.2, "cap_s": 0.5},
                }
                for name, port in destinations.items()
            },
            "routes": ({"name": "all", "role": role, "destinations": tuple(destinations)},),
            "http": {"port": None},
        },
        strict=False,
    )


def slow(made: Config, _tell: Tell) -> Processor:
    """Passes on after long enough to be killed in the middle."""

    def delayed(work: Work) -> Outcome:
        time.sleep(0.2)
        return passed(work, made.routes[0], PASSED)

    return delayed


@contextlib.contextmanager
def node(folder: Path, destinations: dict[str, int], role: str = "pass", **options: Any) -> Iterator[Service]:
    made = Service(config(folder, destinations, role), **options)
    made.start()
    try:
        yield made
    finally:
        made.stop()


def data_set_of(part10: bytes) -> bytes:
    """The bytes after the file meta information."""
    assert part10[128:132] == b"DICM"
    return part10[144 + struct.unpack_from("<I", part10, 140)[0] :]


def objects(folder: Path, count: int, kilobytes: int = 20, **changes: Any) -> list[Path]:
    """Synthetic CT images, all different, with private elements and no real patient."""
    folder.mkdir(exist_ok=True)
    return [_object(folder / f"{number:04d}.dcm", number, kilobytes, changes) for number in range(count)]


def _object(path: Path, number: int, kilobytes: int, changes: dict[str, Any]) -> Path:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = changes.pop("syntax", ExplicitVRLittleEndian)
    ds.SOPClassUID, ds.SOPInstanceUID = CT, f"1.2.826.0.1.{number + 1}"
    ds.PatientName, ds.PatientID = "Synthetic^Object", "0000"
    ds.Rows, ds.Columns, ds.BitsAllocated, ds.BitsStored = 32 * kilobytes, 16, 16, 12
    block = ds.private_block(0x0099, "DICOM-NODE TEST", create=True)
    block.add_new(0x01, "UN", bytes(range(256)))
    ds.PixelData = (number.to_bytes(2, "little") * 16) * (32 * kilobytes)
    for keyword, value in changes.items():
        setattr(ds, keyword, value)
    ds.save_as(path, enforce_file_format=True)
    return path


class Archive:
    """A storage SCP in this process; `stop` and `start` make it go away and come back at the same port."""

    contexts: ClassVar[Sequence[PresentationContext]] = (
        build_context(CT, [ExplicitVRLittleEndian, JPEGBaseline8Bit]),
        build_context(PRIVATE),
    )

    def __init__(self, port: int) -> None:
        self.port = port
        self.data_sets: dict[str, bytes] = {}
        self._server: Any = None

    def start(self) -> Archive:
        entity = AE(ae_title="ARCHIVE")
        self._server = entity.make_server(
            ("127.0.0.1", self.port),
            server_class=ThreadedAssociationServer,
            contexts=list(self.contexts),
            evt_handlers=[(evt.EVT_C_STORE, self._store)],
        )
        entity._servers.append(self._server)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def _store(self, event: Any) -> int:
        self.data_sets[str(event.request.AffectedSOPInstanceUID)] = event.request.DataSet.getvalue()
        return 0x0000

    def stop(self) -> None:
        for association in self._server.active_associations:
            association.abort()
        self._server.shutdown()

    def holds(self, paths: list[Path]) -> bool:
        """Whether exactly these objects are here, byte for byte."""
        return sorted(self.data_sets.values()) == sorted(data_set_of(path.read_bytes()) for path in paths)


@pytest.fixture
def archives() -> Iterator[Callable[[], Archive]]:
    made: list[Archive] = []

    def make() -> Archive:
        made.append(Archive(free_port()).start())
        return made[-1]

    yield make
    for archive in made:
        archive.stop()


def send(service: Service, paths: list[Path], *contexts: Any) -> list[int]:
    """Send files with an SCU in this process; the statuses."""
    entity = AE(ae_title="MODALITY")
    association = entity.associate(
        "127.0.0.1",
        service.receiver.port,
        contexts=list(contexts or (build_context(CT, ExplicitVRLittleEndian),)),
    )
    assert association.is_established
    try:
        return [int(association.send_c_store(path).Status) for path in paths]
    finally:
        association.release()


def test_what_was_acknowledged_is_at_both_destinations_byte_for_byte(
    tmp_path: Path, archives: Callable[[], Archive]
) -> None:
    one, two, paths = archives(), archives(), objects(tmp_path / "in", 10)
    with node(tmp_path / "node", {"one": one.port, "two": two.port}) as service:
        assert send(service, paths) == [0x0000] * 10
        wait_until(lambda: one.holds(paths) and two.holds(paths))


def test_a_destination_that_was_down_gets_everything_when_it_is_back(
    tmp_path: Path, archives: Callable[[], Archive]
) -> None:
    up, down, paths = archives(), archives(), objects(tmp_path / "in", 6)
    down.stop()
    with node(tmp_path / "node", {"up": up.port, "down": down.port}) as service:
        send(service, paths)
        wait_until(lambda: up.holds(paths))
        assert down.data_sets == {}
        down.start()
        wait_until(lambda: down.holds(paths))


@pytest.mark.slow
def test_a_worker_killed_in_the_middle_loses_nothing(tmp_path: Path, archives: Callable[[], Archive]) -> None:
    archive, paths = archives(), objects(tmp_path / "in", 4)
    with node(tmp_path / "node", {"a": archive.port}, "protect", factory=slow) as service:
        send(service, paths)
        wait_until(lambda: service.ledger.counts().instances["working"])
        os.kill(service.workers.pids[0], signal.SIGKILL)
        wait_until(lambda: archive.holds(paths))


@pytest.mark.slow
def test_a_node_that_stops_and_starts_again_goes_on_where_it_was(
    tmp_path: Path, archives: Callable[[], Archive]
) -> None:
    archive, paths = archives(), objects(tmp_path / "in", 6)
    archive.stop()
    with node(tmp_path / "node", {"a": archive.port}) as service:
        assert send(service, paths) == [0x0000] * 6
    archive.start()
    with node(tmp_path / "node", {"a": archive.port}):
        wait_until(lambda: archive.holds(paths))


@pytest.mark.slow
def test_garbage_and_refused_contexts_do_not_disturb_the_rest(
    tmp_path: Path, archives: Callable[[], Archive]
) -> None:
    archive, paths = archives(), objects(tmp_path / "in", 2)
    with node(tmp_path / "node", {"a": archive.port}) as service:
        for payload in (os.urandom(5000), b"\x04\x00\xff\xff\xff\xff", b""):
            with socket.create_connection(("127.0.0.1", service.receiver.port)) as connection:
                connection.sendall(payload)
        contexts = [
            build_context(WORKLIST),
            build_context(CT, "1.2.3.4.5"),
            build_context(CT, ExplicitVRLittleEndian),
        ]
        assert send(service, paths, *contexts) == [0x0000] * 2
        wait_until(lambda: archive.holds(paths))


def run(*command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a DCMTK tool; without TCP_NODELAY it sends twenty images a second."""
    environment = os.environ | {"TCP_NODELAY": "1"}
    return subprocess.run(command, check=check, capture_output=True, text=True, timeout=60, env=environment)


@contextlib.contextmanager
def storescp(folder: Path, *options: str) -> Iterator[int]:
    """DCMTK's receiver, writing files bit for bit; its port."""
    folder.mkdir()
    port = free_port()
    command = [STORESCP, "--fork", "+xa", "+B", *options, "-od", str(folder), str(port)]
    with subprocess.Popen(command, env=os.environ | {"TCP_NODELAY": "1"}) as process:
        try:
            wait_until(lambda: run(ECHOSCU, "127.0.0.1", str(port), check=False).returncode == 0)
            yield port
        finally:
            process.kill()


def holds(folder: Path, paths: list[Path]) -> bool:
    """Whether a folder that storescp fills has exactly the data sets of these files."""
    try:
        arrived = sorted(data_set_of(path.read_bytes()) for path in folder.iterdir())
    except (AssertionError, IndexError, struct.error, FileNotFoundError):
        return False  # one is being written
    return arrived == sorted(data_set_of(path.read_bytes()) for path in paths)


@pytest.mark.interop
def test_dcmtk_to_node_to_two_dcmtk(tmp_path: Path) -> None:
    paths = objects(tmp_path / "in", 20, 100)
    with (
        storescp(tmp_path / "one") as one,
        storescp(tmp_path / "two") as two,
        node(tmp_path / "node", {"one": one, "two": two}) as service,
    ):
        run(STORESCU, "-aec", "NODE", "+sd", "127.0.0.1", str(service.receiver.port), str(tmp_path / "in"))
        wait_until(lambda: holds(tmp_path / "one", paths) and holds(tmp_path / "two", paths))


@pytest.mark.interop
def test_dcmtk_verifies_us(tmp_path: Path) -> None:
    with node(tmp_path / "node", {}) as service:
        run(ECHOSCU, "-aec", "NODE", "127.0.0.1", str(service.receiver.port))


@pytest.mark.interop
def test_dcmtk_is_told_that_there_is_no_room(tmp_path: Path) -> None:
    (path,) = objects(tmp_path / "in", 1)
    with node(tmp_path / "node", {}) as service:
        service.spool.reserve_bytes = 1 << 60
        told = run(STORESCU, "-v", "127.0.0.1", str(service.receiver.port), str(path), check=False)
        assert (
            "Out of resources" in told.stdout + told.stderr or "OutOfResources" in told.stdout + told.stderr
        )
        assert service.ledger.counts().idle
        service.spool.reserve_bytes = 0
        assert run(STORESCU, "127.0.0.1", str(service.receiver.port), str(path)).returncode == 0


@pytest.mark.interop
def test_dcmtk_with_a_uid_that_climbs_folders(tmp_path: Path) -> None:
    (path,) = objects(tmp_path / "in", 1)
    climbing = tmp_path / "in" / "climbing.dcm"
    assert path.read_bytes().count(b"1.2.826.0.1.1\0") == 2
    climbing.write_bytes(path.read_bytes().replace(b"1.2.826.0.1.1\0", b"../../../../x\0"))
    with node(tmp_path / "node", {}) as service:
        told = run(STORESCU, "-v", "127.0.0.1", str(service.receiver.port), str(climbing), check=False)
        assert "0x117" in told.stdout + told.stderr
        assert service.ledger.counts().idle
    assert not list(tmp_path.rglob("x"))


@pytest.mark.interop
@pytest.mark.slow
def test_a_hundred_images_of_half_a_megabyte(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    paths = objects(tmp_path / "in", 100, 512)
    with storescp(tmp_path / "one") as one, node(tmp_path / "node", {"one": one}) as service:
        started = time.monotonic()
        run(STORESCU, "-aec", "NODE", "+sd", "127.0.0.1", str(service.receiver.port), str(tmp_path / "in"))
        received = time.monotonic()
        wait_until(lambda: service.ledger.counts().idle and holds(tmp_path / "one", paths))
        record_property("received_per_s", round(100 / (received - started), 1))
        record_property("delivered_per_s", round(100 / (time.monotonic() - started), 1))
