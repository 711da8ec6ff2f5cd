"""What is not embedded leaves the node with the data set that it came with, bit for bit."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE, evt
from pynetdicom.pdu_primitives import SOPClassCommonExtendedNegotiation
from pynetdicom.presentation import build_context
from pynetdicom.transport import ThreadedAssociationServer

from benchmarks.stand import free_port
from dicom_node import keys
from dicom_node.service import Service
from tests.assorted import OBJECTS, PRIVATE, Thing
from tests.integration.test_store_and_forward import config, data_set_of, run, storescp
from tests.waiting import wait_until
from tests.wire import ACCEPTED, Wire, context

STORESCU = "/usr/bin/storescu"


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


_ODD = "PDF of odd length"
EXPECTED = {name: digest(thing.data_set) for name, thing in OBJECTS.items()}


@contextlib.contextmanager
def node(folder: Path, role: str, port: int) -> Iterator[Service]:
    """A node with its own key ring, and one destination."""
    folder.mkdir()
    keys.generate(folder / "keyring")
    made = config(folder / "state", {"archive": port}, role)
    made = made.model_copy(update={"keys": made.keys.model_copy(update={"ring": folder / "keyring"})})
    service = Service(made)
    service.start()
    try:
        yield service
    finally:
        service.stop()


@contextlib.contextmanager
def archive() -> Iterator[tuple[int, dict[str, str]]]:
    """A storage SCP that takes every object here: its port, and SOP Instance UID -> digest."""
    arrived: dict[str, str] = {}

    def keep(event: Any) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        arrived[uid] = digest(event.request.DataSet.getvalue())
        return 0x0000

    entity = AE(ae_title="ARCHIVE")
    server = entity.make_server(
        ("127.0.0.1", free_port()),
        server_class=ThreadedAssociationServer,
        contexts=[build_context(thing.sop_class, thing.syntax) for thing in OBJECTS.values()],
        evt_handlers=[(evt.EVT_C_STORE, keep), (evt.EVT_SOP_COMMON, _private_as_storage)],
    )
    entity._servers.append(server)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server.server_address[1], arrived
    finally:
        server.shutdown()


def _private_as_storage(event: Any) -> dict[str, SOPClassCommonExtendedNegotiation]:
    private = SOPClassCommonExtendedNegotiation()
    private.sop_class_uid, private.service_class_uid = PRIVATE, "1.2.840.10008.4.2"
    return {PRIVATE: private}


def send(port: int, things: Mapping[str, Thing] = OBJECTS) -> None:
    """Send objects on one association, from a bare socket."""
    proposed = {(thing.sop_class, thing.syntax): number for number, thing in enumerate(things.values())}
    with Wire(port) as wire:
        asked = [context(2 * number + 1, *pair) for pair, number in proposed.items()]
        assert wire.associate(*asked) == ACCEPTED
        for name, thing in things.items():
            number = 2 * proposed[thing.sop_class, thing.syntax] + 1
            status = wire.store(thing.sop_class, thing.sop_instance, thing.data_set, number=number)
            assert status == 0x0000, name


@pytest.mark.parametrize("role", ["pass", "protect"])
def test_every_kind_arrives_as_it_was(tmp_path: Path, role: str) -> None:
    with archive() as (port, arrived), node(tmp_path / "node", role, port) as service:
        send(service.receiver.port)
        wait_until(lambda: len(arrived) == len(OBJECTS))
        by_name = {name: arrived[thing.sop_instance] for name, thing in OBJECTS.items()}
    assert by_name == EXPECTED


@pytest.mark.interop
def test_every_kind_arrives_at_dcmtk_as_it_was(tmp_path: Path) -> None:
    """storescp keeps what comes bit for bit, but ends the association at a fragment of odd length."""
    with (
        storescp(tmp_path / "dcmtk", "--promiscuous") as port,
        node(tmp_path / "node", "protect", port) as service,
    ):
        send(service.receiver.port, {name: thing for name, thing in OBJECTS.items() if name != _ODD})
        wait_until(lambda: service.ledger.counts().idle)
    arrived = {digest(data_set_of(path.read_bytes())) for path in (tmp_path / "dcmtk").iterdir()}
    assert {name for name, expected in EXPECTED.items() if expected not in arrived} == {_ODD}


#: option of storescu that proposes the transfer syntax of a file
_OPTIONS = {
    "SR, Japanese names": "-xe",
    "PR, implicit": "-xi",
    "SEG, one bit": "-xe",
    "RTSTRUCT, big endian": "-xb",
    "SR, UTF-8, deflated": "-xd",
    "MPEG-2": "-xm",
}


@pytest.mark.interop
def test_what_dcmtk_sends_arrives_as_if_there_were_no_node(tmp_path: Path) -> None:
    """storescu writes data sets its own way, so the measure is what it sends to storescp directly."""
    with (
        storescp(tmp_path / "direct") as direct,
        storescp(tmp_path / "through") as through,
        node(tmp_path / "node", "protect", through) as service,
    ):
        for number, (name, option) in enumerate(_OPTIONS.items()):
            path = tmp_path / f"{number}.dcm"
            path.write_bytes(OBJECTS[name].part10())
            for port in (direct, service.receiver.port):
                run(STORESCU, "-R", option, "-aec", "NODE", "127.0.0.1", str(port), str(path))
        wait_until(lambda: service.ledger.counts().idle)
    digests = [
        sorted(digest(data_set_of(path.read_bytes())) for path in (tmp_path / folder).iterdir())
        for folder in ("direct", "through")
    ]
    assert len(digests[0]) == len(_OPTIONS)
    assert digests[0] == digests[1]
