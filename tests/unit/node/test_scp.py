"""The receiver, asked by real SCUs over loopback."""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, build_role, evt
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.presentation import build_context

from dicom_node import log
from dicom_node.config import Config, Destination, Match
from dicom_node.dimse import contexts, patches, scp
from dicom_node.dimse.admission import TOO_MANY, UNKNOWN_CALLED
from dicom_node.dimse.reception import part10_head
from dicom_node.dimse.scp import Receiver
from dicom_node.errors import LedgerError, OutputError, SpoolError, SpoolFull
from dicom_node.jobs import Arrival
from dicom_node.ledger import Ledger
from dicom_node.metrics import (
    ASSOCIATIONS,
    CONFLICTS,
    RECEIVED_BYTES,
    REPEATS,
    STAGE_SECONDS,
    STORES,
    Declaration,
    Snapshot,
)
from dicom_node.spool import Spool
from tests import wire as wire_kinds
from tests.data_sets import simple
from tests.waiting import wait_until
from tests.wire import (
    COMMAND,
    LAST,
    VERIFICATION,
    Wire,
    command,
    context,
    item,
    pdu,
    request,
    store_command,
    value,
)

CT = "1.2.840.10008.5.1.4.1.1.2"
WORKLIST = "1.2.840.10008.5.1.4.31"
PRIVATE = "1.3.46.670589.11.0.0.12.4"
COMMITMENT, COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"
EXPLICIT, IMPLICIT, J2K = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.4.90"


def element(tag: int, vr: bytes, value: bytes) -> bytes:
    """An element in Explicit VR Little Endian."""
    long = vr in (b"OW", b"UN", b"OB", b"SQ")
    return struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr) + (
        struct.pack("<xxI" if long else "<H", len(value)) + value
    )


def data_set_of(said: Arrival) -> bytes:
    """Odd on purpose: private elements, an odd length and trailing zeros must come through as they are."""
    return b"".join(
        (
            element(0x00080016, b"UI", said.sop_class_uid.encode()),
            element(0x00080018, b"UI", said.sop_instance_uid.encode()),
            element(0x00080060, b"CS", b"CT"),
            element(0x00990001, b"UN", bytes(range(255))),
            element(0x7FE00010, b"OW", bytes(range(256)) * 700),
            bytes(10),
        )
    )


def arrival(**changes: str) -> Arrival:
    values = {
        "sop_class_uid": CT,
        "sop_instance_uid": "1.2.3.4",
        "transfer_syntax_uid": EXPLICIT,
        "calling_ae": "MODALITY",
        "called_ae": "NODE",
        "route": "all",
    }
    return Arrival(**(values | changes))


def config(folder: Path, port: int = 0, **node: Any) -> Config:
    """A node at a port of its own; the models take no port 0, so it is put in behind their back."""
    made = Config.model_validate(
        {
            "node": {"id": "n", "ae_title": "NODE", "bind": "127.0.0.1", **node},
            "storage": {"folder": folder},
            # all of them, of whom some have a name to be counted under
            "routes": ({"name": "all", "match": {"calling_ae": ("*", "MOD*")}, "role": "pass"},),
        },
        strict=False,
    )
    return made.model_copy(update={"node": made.node.model_copy(update={"port": port})})


class Site:
    """A running receiver and what it keeps."""

    def __init__(self, folder: Path, services: Sequence[Any] = (), **node: Any) -> None:
        self.folder = folder
        self.spool = Spool(folder / "spool", 1_000_000)
        self.ledger = Ledger(folder / "ledger.sqlite")
        self.rung = threading.Semaphore(0)
        self.receiver = Receiver(
            config(folder, **node),
            self.spool,
            self.ledger,
            on_arrival=self.rung.release,
            services=services,
        )
        self.receiver.start()

    def kept(self) -> list[bytes]:
        """The spool files of everything that waits for work."""
        works = self.ledger.claim_work("test", 100, 3600.0)
        return [self.spool.path(work.blob).read_bytes() for work in works]

    def close(self) -> None:
        self.receiver.stop(2.0)
        self.ledger.close()


@pytest.fixture(scope="module")
def shared_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site") / "above" / "node"
    folder.mkdir(parents=True)
    with contextlib.closing(Site(folder)) as made:
        yield made


@pytest.fixture
def site(shared_site: Site) -> Site:
    """The receiver of all tests of this file, with nobody connected and nothing waiting."""
    wait_until(lambda: not shared_site.receiver.associations)
    shared_site.kept()
    return shared_site


@contextlib.contextmanager
def associated(site: Site, *contexts: Any, calling: str = "MODALITY", called: str = "NODE") -> Iterator[Any]:
    entity = AE(ae_title=calling)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 60
    association = entity.associate(
        "127.0.0.1",
        site.receiver.port,
        contexts=list(contexts or (build_context(CT, EXPLICIT),)),
        ae_title=called,
    )
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def uid_of(folder: Path) -> str:
    """A UID of each test's own, for the receiver is shared."""
    return f"1.2.{zlib.crc32(str(folder).encode())}"


def part10(folder: Path, data_set: bytes | None = None, **changes: str) -> Path:
    said = arrival(**{"sop_instance_uid": uid_of(folder)} | changes)
    path = folder / "object.dcm"
    path.write_bytes(part10_head(said) + (data_set_of(said) if data_set is None else data_set))
    return path


def test_the_data_set_is_kept_byte_for_byte_in_a_part_10_file(site: Site, tmp_path: Path) -> None:
    with associated(site) as association:
        assert association.send_c_store(part10(tmp_path)).Status == 0x0000
    (kept,) = site.kept()
    data_set = data_set_of(arrival(sop_instance_uid=uid_of(tmp_path)))
    assert kept.endswith(data_set)
    meta = pydicom.dcmread(io.BytesIO(kept), stop_before_pixels=True, specific_tags=[0x00080060]).file_meta
    assert meta.FileMetaInformationGroupLength == len(kept) - len(data_set) - 144
    assert meta.MediaStorageSOPClassUID == CT
    assert meta.MediaStorageSOPInstanceUID == uid_of(tmp_path)
    assert meta.TransferSyntaxUID == EXPLICIT
    assert "SourceApplicationEntityTitle" not in meta


def test_the_row_says_who_sent_what(site: Site, tmp_path: Path) -> None:
    with associated(site) as association:
        association.send_c_store(part10(tmp_path))
    (work,) = site.ledger.claim_work("test", 10, 60.0)
    assert work.arrival == arrival(sop_instance_uid=uid_of(tmp_path))
    assert site.rung.acquire(timeout=60)


def test_the_same_object_from_two_senders_is_one_object(site: Site, tmp_path: Path) -> None:
    for calling in ("ONE", "TWO"):
        with associated(site, calling=calling) as association:
            assert association.send_c_store(part10(tmp_path)).Status == 0x0000
    assert len(site.kept()) == 1


def test_storage_commitment_is_accepted_in_either_role(site: Site) -> None:
    """A peer asks as SCU, and answers a request of ours as SCP (PS3.4 section J.3.3)."""
    for roles in ([], [build_role(COMMITMENT, scp_role=True)], [build_role(COMMITMENT, True, True)]):
        entity = AE(ae_title="MODALITY")
        association = entity.associate(
            "127.0.0.1", site.receiver.port, contexts=[build_context(COMMITMENT)], ext_neg=roles
        )
        (context,) = association.accepted_contexts
        proposed = [(bool(role.scu_role), bool(role.scp_role)) for role in roles]
        assert (context.as_scu, context.as_scp) == (proposed[0] if proposed else (True, False))
        association.release()


def test_who_has_no_route_but_is_asked_by_us_may_answer_and_nothing_else(tmp_path: Path) -> None:
    with contextlib.closing(Site(tmp_path)) as other:
        asked = Destination(ae_title="ARCHIVE", host="127.0.0.1", port=104, commitment=True)
        route = other.receiver._config.routes[0].model_copy(update={"match": Match(calling_ae=("CT*",))})
        other.receiver._config = other.receiver._config.model_copy(
            update={"destinations": {"archive": asked}, "routes": (route,)}
        )
        contexts = [build_context(uid, EXPLICIT) for uid in (CT, COMMITMENT, "1.2.840.10008.1.1")]
        with associated(other, *contexts, calling="ARCHIVE") as association:
            accepted = {str(context.abstract_syntax) for context in association.accepted_contexts}
        assert accepted == {COMMITMENT, "1.2.840.10008.1.1"}
        with associated(other, *contexts, calling="STRANGER") as association:
            assert association.is_rejected


def test_what_is_served_beside_storage_is_handed_over(tmp_path: Path) -> None:
    made, asked = Site(tmp_path), []

    def answer(event: Any) -> tuple[int, None]:
        asked.append(event.action_type)
        return 0x0000, None

    made.close()
    receiver = Receiver(config(tmp_path), made.spool, made.ledger, services=[(evt.EVT_N_ACTION, answer)])
    receiver.start()
    try:
        association = AE(ae_title="MODALITY").associate(
            "127.0.0.1", receiver.port, contexts=[build_context(COMMITMENT)]
        )
        said = Dataset()
        said.TransactionUID = "1.2.3"
        status, _ = association.send_n_action(said, 7, COMMITMENT, COMMITMENT_INSTANCE)
        association.release()
    finally:
        receiver.stop(2.0)
    assert (status.Status, asked) == (0x0000, [7])


def test_verification(site: Site) -> None:
    with associated(site, build_context("1.2.840.10008.1.1")) as association:
        assert association.send_c_echo().Status == 0x0000


def test_the_senders_first_known_syntax_is_accepted_per_context(site: Site) -> None:
    contexts = [
        build_context(CT, [J2K, EXPLICIT]),
        build_context(CT, [EXPLICIT, J2K]),
        build_context(CT, ["1.2.3.4.5.6", IMPLICIT]),
        build_context(CT, ["1.2.3.4.5.6"]),
        build_context(WORKLIST, IMPLICIT),
    ]
    with associated(site, *contexts) as association:
        accepted = {context.context_id: context.transfer_syntax for context in association.accepted_contexts}
        rejected = {context.context_id: context.result for context in association.rejected_contexts}
    assert accepted == {1: [J2K], 3: [EXPLICIT], 5: [IMPLICIT]}
    assert rejected == {7: 0x04, 9: 0x03}


def test_128_contexts(site: Site) -> None:
    contexts = [build_context(f"1.3.99.{number}", [J2K, EXPLICIT]) for number in range(128)]
    with associated(site, *contexts) as association:
        assert len(association.accepted_contexts) == 128


def test_a_private_class_is_stored(site: Site, tmp_path: Path) -> None:
    with associated(site, build_context(PRIVATE, EXPLICIT)) as association:
        assert association.send_c_store(part10(tmp_path, sop_class_uid=PRIVATE)).Status == 0x0000
    assert len(site.kept()) == 1


@pytest.mark.parametrize("uid", ["../../x", "1.2.3/../../x", "-1"])
def test_a_uid_that_is_none_is_refused_and_names_no_file(site: Site, tmp_path: Path, uid: str) -> None:
    above = site.folder.parents[1]
    before = set(above.rglob("*"))
    with associated(site) as association:
        status = association.send_c_store(part10(tmp_path, sop_instance_uid=uid))
    assert status.Status == 0x0117
    assert not site.kept()
    assert set(above.rglob("*")) == before


def test_an_empty_data_set_is_refused(site: Site, tmp_path: Path) -> None:
    with associated(site) as association:
        assert association.send_c_store(part10(tmp_path, b"")).Status == 0xC000
    assert not site.kept()


@pytest.mark.parametrize(
    ("error", "status"),
    [(SpoolFull("no room for Doe"), 0xA700), (SpoolError("disk"), 0xA700), (ValueError("Doe^Jane"), 0xC000)],
)
def test_what_cannot_be_kept_is_not_acknowledged(
    site: Site,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    status: int,
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(site.spool, "writer", fail)
    with associated(site) as association:
        answer = association.send_c_store(part10(tmp_path))
        assert association.is_established
    assert answer.Status == status
    assert 0 < len(answer.ErrorComment) <= 64
    assert "Doe" not in answer.ErrorComment
    if not isinstance(error, SpoolFull):
        assert not any("Doe" in str(log.line(record)) for record in caplog.records)
    assert not site.kept()


def test_a700_when_the_reserve_is_reached(tmp_path: Path) -> None:
    with contextlib.closing(Site(tmp_path)) as site:
        site.spool.reserve_bytes = 1 << 60
        with associated(site) as association:
            assert association.send_c_store(part10(tmp_path)).Status == 0xA700
        assert not site.kept()


def test_a_row_that_cannot_be_written_is_no_success(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object, **_options: object) -> None:
        raise LedgerError("the database is full")

    monkeypatch.setattr(site.ledger, "add", refuse)
    with associated(site) as association:
        assert association.send_c_store(part10(tmp_path)).Status == 0xA700


def test_no_more_associations_than_allowed(tmp_path: Path) -> None:
    with contextlib.closing(Site(tmp_path, max_associations=1)) as site, associated(site) as first:
        with associated(site) as second:
            assert second.is_rejected
            answer = second.acceptor.primitive
            assert (answer.result, answer.result_source, answer.diagnostic) == (
                TOO_MANY.result,
                TOO_MANY.source,
                TOO_MANY.reason,
            )
        assert first.is_established
        first.release()
        wait_until(lambda: not site.receiver.associations)
        with associated(site) as third:
            assert third.is_established


def test_a_called_title_that_is_not_ours_is_rejected(tmp_path: Path) -> None:
    with contextlib.closing(Site(tmp_path, accept_called_ae="own")) as site:
        with associated(site, called="OTHER") as association:
            assert association.is_rejected
            assert association.acceptor.primitive.diagnostic == UNKNOWN_CALLED.reason
        with associated(site) as association:
            assert association.is_established


def test_a_fault_of_ours_lets_nobody_in_unexamined(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(site.receiver, "_verdict", broken)
    with associated(site, build_context(VERIFICATION)) as association:
        assert association.is_rejected
        assert not association.is_established
    assert [record.msg for record in caplog.records] == ["association-fault"]


def test_a_connection_that_a_fault_costs_is_told_without_what_the_error_quotes(
    site: Site,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("Doe^Jane")

    with monkeypatch.context() as during:
        during.setattr(scp.Server, "finish_request", broken)
        assert raw(site, b"x") == b""
        wait_until(lambda: caplog.records)
    assert [record.msg for record in caplog.records] == ["association-fault"]
    assert capfd.readouterr().err == ""
    with associated(site) as association:
        assert association.is_established


def test_a_machine_without_descriptors_is_given_time(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Listener:
        def accept(self) -> None:
            raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(scp, "_RECOVER_S", 0.05)
    began = time.monotonic()
    with pytest.raises(OSError, match="Too many"):
        scp.Server.get_request(SimpleNamespace(socket=Listener()))  # type: ignore[arg-type]
    assert time.monotonic() - began >= 0.05
    assert caplog.records[0].msg == "association-fault"


def test_a_port_that_is_taken(site: Site, tmp_path: Path) -> None:
    other = Receiver(config(tmp_path, site.receiver.port), site.spool, site.ledger)
    with pytest.raises(OutputError, match="cannot listen on"):
        other.start()


def raw(site: Site, payload: bytes) -> bytes:
    """Send bytes, and return what comes back until the node hangs up."""
    with socket.create_connection(("127.0.0.1", site.receiver.port), timeout=60) as connection:
        answer = b""
        with contextlib.suppress(ConnectionError):
            connection.sendall(payload)
            while chunk := connection.recv(4096):
                answer += chunk
        return answer


A_ABORT = 0x07


@pytest.mark.parametrize(
    "payload",
    [
        b"GET / HTTP/1.1\r\nHost: node\r\n\r\n",
        b"\x01\x00\xff\xff\xff\xff" + bytes(100),
        b"\x04\x00\x00\x00\x00\x04\x00\x00\x00\x00",
        b"\x01\x00\x00\x00\x00\x10" + bytes(range(16)),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        bytes(200_000),
    ],
    ids=["http", "4 GiB", "data first", "broken request", "tls", "zeros"],
)
def test_garbage_costs_its_own_connection(site: Site, payload: bytes) -> None:
    answer = raw(site, payload)
    assert not answer or answer[0] == A_ABORT
    with associated(site, build_context("1.2.840.10008.1.1")) as association:
        assert association.send_c_echo().Status == 0x0000


@pytest.mark.parametrize(
    "proposed",
    [
        b"\1\0\0\0" + item(0x30, CT.encode()),
        b"\1\0\0\0" + item(0x40, EXPLICIT.encode()),
        b"\2\0\0\0" + item(0x30, CT.encode()) + item(0x40, EXPLICIT.encode()),
        b"\1\0\0\0" + item(0x30, b"1" * 80) + item(0x40, EXPLICIT.encode()),
    ],
    ids=["no transfer syntax", "no class", "even id", "endless uid"],
)
def test_a_malformed_proposal_ends_its_connection(site: Site, proposed: bytes) -> None:
    answer = raw(site, request(item(0x20, proposed)))
    assert not answer or answer[0] == A_ABORT
    assert raw_accepts(site)


def raw_accepts(site: Site) -> bool:
    """Whether a well-formed request is still accepted."""
    with Wire(site.receiver.port, timeout=60) as wire:
        return wire.associate() == wire_kinds.ACCEPTED


def test_a_quiet_association_still_answers(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patches, "_QUIET_S", 0.0)
    with associated(site) as association:
        time.sleep(0.05)
        assert association.send_c_store(part10(tmp_path)).Status == 0x0000
    assert len(site.kept()) == 1


def test_a_pdu_longer_than_announced_aborts_the_association(site: Site) -> None:
    with associated(site) as association:
        assert association.acceptor.maximum_length == 131072
        association.dul.socket.socket.sendall(struct.pack(">BxL", 4, 131073))
        wait_until(lambda: association.is_aborted)
    assert not site.kept()


def test_an_object_cut_off_midway_leaves_nothing(site: Site) -> None:
    with associated(site) as association:
        head = struct.pack(">BxLLBB", 4, 1000, 996, 1, 0)
        association.dul.socket.socket.sendall(head + bytes(100))
        patches.hang_up(association)
    assert not site.kept()
    assert not list((site.folder / "spool" / "tmp").iterdir())


def test_stop_does_not_wait_for_the_idle_and_the_silent(tmp_path: Path) -> None:
    site = Site(tmp_path)
    with (
        associated(site) as idle,
        socket.create_connection(("127.0.0.1", site.receiver.port)) as silent,
        socket.create_connection(("127.0.0.1", site.receiver.port)) as half,
    ):
        half.sendall(b"\x01\x00\x00\x00\x10\x00half a request")
        time.sleep(0.1)
        site.receiver.stop(1.0)
        wait_until(lambda: not idle.is_established)
        silent.settimeout(60)
        with contextlib.suppress(ConnectionResetError):
            assert silent.recv(10) in (b"", b"\x07\x00\x00\x00\x00\x04\x00\x00\x02\x00")
    assert not site.receiver.listening
    site.ledger.close()


def test_what_is_on_its_way_may_finish_while_stopping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(tmp_path)
    entered, go = threading.Event(), threading.Event()
    add = site.ledger.add

    def slow(*arguments: Any, **options: Any) -> Any:
        entered.set()
        go.wait(60)
        return add(*arguments, **options)

    monkeypatch.setattr(site.ledger, "add", slow)
    statuses: list[int] = []
    with associated(site) as association:
        path = part10(tmp_path)
        sender = threading.Thread(target=lambda: statuses.append(association.send_c_store(path).Status))
        sender.start()
        assert entered.wait(60)
        stopper = threading.Thread(target=site.receiver.stop, args=(60.0,))
        stopper.start()
        time.sleep(0.3)
        go.set()
        sender.join(60)
        stopper.join(60)
    assert statuses == [0x0000]
    assert len(site.kept()) == 1
    site.ledger.close()


def test_a_data_set_of_another_instance_or_class_is_refused(site: Site, tmp_path: Path) -> None:
    other = part10(tmp_path, data_set_of(arrival(sop_instance_uid="1.2.9")))
    with associated(site) as association:
        answer = association.send_c_store(other)
        assert answer.Status == 0xA900
        assert "Instance" in answer.ErrorComment
        other = part10(
            tmp_path, data_set_of(arrival(sop_instance_uid=uid_of(tmp_path), sop_class_uid=PRIVATE))
        )
        assert association.send_c_store(other).Status == 0xA900
        assert association.send_c_store(part10(tmp_path)).Status == 0x0000
    assert len(site.kept()) == 1


def test_a_data_set_that_is_cut_off_is_refused(site: Site, tmp_path: Path) -> None:
    whole = simple(CT, uid_of(tmp_path))
    with associated(site) as association:
        assert association.send_c_store(part10(tmp_path, whole[:-2])).Status == 0xC000
        assert association.send_c_store(part10(tmp_path, whole)).Status == 0x0000
    assert len(site.kept()) == 1


def test_an_object_goes_to_the_disk_while_it_comes(site: Site, tmp_path: Path) -> None:
    whole = simple(CT, uid_of(tmp_path), pixels=1_000_000)
    with Wire(site.receiver.port) as wire:
        assert wire.associate() == wire_kinds.ACCEPTED
        wire.begin_store(CT, uid_of(tmp_path))
        wire.data([whole[:100_000]], last=False)
        wait_until(lambda: sum(path.stat().st_size for path in being_written(site)) > 100_000)
        wire.data(whole[at : at + 100_000] for at in range(100_000, len(whole), 100_000))
        assert wire.status() == 0x0000
    (kept,) = site.kept()
    assert kept.endswith(whole)
    assert being_written(site) == []


def test_no_answer_goes_between_the_fragments_of_what_we_say(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid, stock = uid_of(tmp_path), DIMSEMessage.encode_msg
    wait_until(lambda: not site.receiver.associations)
    with Wire(site.receiver.port) as wire:
        wire.associate()
        wait_until(lambda: site.receiver.open_associations)
        (association,) = site.receiver.associations

        def halting(message: Any, context_id: int, largest: int) -> Iterator[Any]:
            first, *rest = stock(message, context_id, largest)
            yield first
            wire.begin_store(CT, uid)
            wire.data([simple(CT, uid)])
            time.sleep(0.3)
            yield from rest

        report = N_EVENT_REPORT()
        report.MessageID, report.EventTypeID = 7, 1
        report.AffectedSOPClassUID, report.AffectedSOPInstanceUID = COMMITMENT, COMMITMENT_INSTANCE
        report.EventInformation = io.BytesIO(bytes(10))
        monkeypatch.setattr(DIMSEMessage, "encode_msg", halting)
        association.dimse.send_msg(report, 1)
        controls = [wire.read()[1][5] for _ in range(3)]
    assert controls == [COMMAND | LAST, LAST, COMMAND | LAST]


def test_idle_time_starts_anew_with_an_answer_however_long_keeping_took(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid, add, moments = uid_of(tmp_path), site.ledger.add, []
    wait_until(lambda: not site.receiver.associations)
    with Wire(site.receiver.port) as wire:
        wire.associate()
        wait_until(lambda: site.receiver.open_associations)
        (association,) = site.receiver.associations

        def slow(*said: Any, **named: Any) -> Any:
            moments.append(time.monotonic())
            return add(*said, **named)

        # called when the answer is out, by the thread that has not come back to the library's loop
        def ring() -> None:
            moments.append(association.dul._idle_timer._start_time)

        monkeypatch.setattr(site.ledger, "add", slow)
        monkeypatch.setattr(site.receiver, "_on_arrival", ring)
        assert wire.store(CT, uid, simple(CT, uid)) == 0x0000
        wait_until(lambda: len(moments) == 2)
    assert moments[1] > moments[0]


def being_written(site: Site) -> list[Path]:
    return list((site.folder / "spool" / "tmp").iterdir())


def test_a_sender_that_dies_in_the_middle_leaves_nothing(site: Site, tmp_path: Path) -> None:
    with Wire(site.receiver.port) as wire:
        wire.associate()
        wire.begin_store(CT, uid_of(tmp_path))
        wire.data([simple(CT, uid_of(tmp_path))[:1000]], last=False)
        wait_until(lambda: being_written(site))
    wait_until(lambda: not being_written(site))
    assert not site.kept()


def test_an_abort_in_the_middle_leaves_nothing(site: Site, tmp_path: Path) -> None:
    with Wire(site.receiver.port) as wire:
        wire.associate()
        wire.begin_store(CT, uid_of(tmp_path))
        wire.data([simple(CT, uid_of(tmp_path))[:1000]], last=False)
        wait_until(lambda: being_written(site))
        wire.send(pdu(wire_kinds.ABORT, bytes(4)))
        assert wire.hung_up()
    wait_until(lambda: not being_written(site))
    assert not site.kept()


def test_what_nobody_answers_any_more_leaves_nothing(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two more objects were sent, unasked for, when the association ends during the first."""
    entered, go = threading.Event(), threading.Event()
    add = site.ledger.add

    def slow(*arguments: Any, **options: Any) -> Any:
        entered.set()
        go.wait(60)
        return add(*arguments, **options)

    monkeypatch.setattr(site.ledger, "add", slow)
    with Wire(site.receiver.port) as wire:
        wire.associate()
        wire.begin_store(CT, uid_of(tmp_path))
        wire.data([simple(CT, uid_of(tmp_path))])
        assert entered.wait(60)
        wire.begin_store(CT, "1.2.77", 2)
        wire.data([simple(CT, "1.2.77")])
        wire.begin_store(CT, "1.2.78", 3)
        wire.data([simple(CT, "1.2.78")])
        time.sleep(0.2)
        assert being_written(site) == []  # they wait in the network, not here
    go.set()
    wait_until(lambda: not being_written(site))
    wait_until(lambda: not site.receiver.associations)


def test_requests_that_do_not_wait_for_answers_are_answered_one_by_one(site: Site, tmp_path: Path) -> None:
    with Wire(site.receiver.port) as wire:
        wire.associate()
        for number in range(1, 9):
            wire.begin_store(CT, f"{uid_of(tmp_path)}.{number}", number)
            wire.data([simple(CT, f"{uid_of(tmp_path)}.{number}")])
        assert [wire.status() for _ in range(8)] == [0x0000] * 8
    assert len(site.kept()) == 8


def test_a_full_disk_in_the_middle_costs_a_status(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = simple(CT, uid_of(tmp_path), pixels=500_000)
    write, written = os.write, 0

    def full(handle: int, data: Any) -> int:
        nonlocal written
        if len(data) > 10_000:
            written += len(data)
            if written > 200_000:
                raise OSError(errno.ENOSPC, "No space left on device")
        return write(handle, data)

    with Wire(site.receiver.port) as wire:
        wire.associate()
        monkeypatch.setattr(os, "write", full)
        wire.begin_store(CT, uid_of(tmp_path))
        wire.data(whole[at : at + 16000] for at in range(0, len(whole), 16000))
        answer = wire.response()
        monkeypatch.undo()
        assert answer[0x0900] == b"\x00\xa7"
        assert being_written(site) == []
        assert wire.store(CT, uid_of(tmp_path), whole) == 0x0000
    assert len(site.kept()) == 1


def test_an_object_of_a_passing_route_goes_to_its_destinations_without_a_worker(tmp_path: Path) -> None:
    rung: list[str] = []
    with contextlib.closing(Site(tmp_path)) as site:
        route = site.receiver._config.routes[0].model_copy(update={"destinations": ("a", "b"), "priority": 3})
        site.receiver._config = site.receiver._config.model_copy(update={"routes": (route,)})
        site.receiver._on_queued = rung.append
        with associated(site) as association:
            for _ in range(2):
                assert association.send_c_store(part10(tmp_path)).Status == 0x0000
        assert not site.kept()
        (send,) = site.ledger.claim_sends("b", 10, 60.0)
        assert (
            site.spool.path(send.blob)
            .read_bytes()
            .endswith(data_set_of(arrival(sop_instance_uid=uid_of(tmp_path))))
        )
        wait_until(lambda: rung == ["a", "b"])
        assert site.rung.acquire(timeout=60), "the same again has nobody to go to; a worker may look"


@pytest.mark.parametrize("piece", [1 << 20, 1000, 7])
def test_what_is_read_ahead_reaches_who_deals_with_it_in_order(
    piece: int, site: Site, tmp_path: Path
) -> None:
    """Objects, one in two fragments of its command for the library, an echo, a release: cut anywhere."""
    uid = uid_of(tmp_path)
    echo = command(sop_class=VERIFICATION, field=0x0030, message_id=9, data_set=0x0101)
    stream = b""
    for number in range(1, 5):
        whole = store_command(CT, f"{uid}.{number}", number)
        parts = [whole] if number % 2 else [whole[:50], whole[50:]]
        for at, part in enumerate(parts, 1):
            last = LAST if at == len(parts) else 0
            stream += pdu(wire_kinds.DATA, value(part, COMMAND | last))
        stream += pdu(wire_kinds.DATA, value(simple(CT, f"{uid}.{number}"), LAST))
    stream += pdu(wire_kinds.DATA, value(echo, COMMAND | LAST, 3)) + pdu(wire_kinds.RELEASE, bytes(4))
    with Wire(site.receiver.port) as wire:
        wire.associate(context(1, CT, EXPLICIT), context(3, VERIFICATION, IMPLICIT))
        for at in range(0, len(stream), piece):
            wire.send(stream[at : at + piece])
        answers = [wire.response() for _ in range(5)]
        assert [answer[0x0120] for answer in answers] == [bytes((n, 0)) for n in (1, 2, 3, 4, 9)]
        assert {answer[0x0900] for answer in answers} == {b"\0\0"}
        assert wire.read()[0] == wire_kinds.RELEASED


def test_nobody_but_the_reading_thread_touches_an_object_in_order(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patches, "take_inflow", lambda *_: pytest.fail("handed over to the library"))
    with Wire(site.receiver.port) as wire:
        wire.associate(context(1, CT, EXPLICIT), context(3, VERIFICATION, IMPLICIT))
        assert wire.store(CT, uid_of(tmp_path), simple(CT, uid_of(tmp_path))) == 0x0000
        echo = command(sop_class=VERIFICATION, field=0x0030, message_id=1, data_set=0x0101)
        wire.send(pdu(wire_kinds.DATA, value(echo, COMMAND | LAST, 3)))
        assert wire.status() == 0
    assert len(site.kept()) == 1


def test_a_command_in_pieces_goes_the_librarys_way(site: Site, tmp_path: Path) -> None:
    asked = store_command(CT, uid_of(tmp_path))
    with Wire(site.receiver.port) as wire:
        wire.associate()
        for _ in range(2):
            pieces = value(asked[:50], COMMAND) + value(asked[50:], COMMAND | LAST)
            wire.send(pdu(wire_kinds.DATA, pieces))
            wire.data([simple(CT, uid_of(tmp_path))])
            assert wire.status() == 0x0000
            # and the next one directly again
            assert wire.store(CT, uid_of(tmp_path), simple(CT, uid_of(tmp_path))) == 0x0000
    assert len(site.kept()) == 1


def test_a_data_set_and_the_next_command_in_one_pdu(site: Site, tmp_path: Path) -> None:
    whole = simple(CT, uid_of(tmp_path))
    echo = command(sop_class=VERIFICATION, field=0x0030, message_id=2, data_set=0x0101)
    with Wire(site.receiver.port) as wire:
        wire.associate(context(1, CT, EXPLICIT), context(3, VERIFICATION, IMPLICIT))
        asked = value(store_command(CT, uid_of(tmp_path)), COMMAND | LAST)
        wire.send(pdu(wire_kinds.DATA, asked + value(whole, LAST) + value(echo, COMMAND | LAST, 3)))
        assert [wire.response()[0x0120], wire.response()[0x0120]] == [b"\1\0", b"\2\0"]
    assert len(site.kept()) == 1


@pytest.mark.parametrize("second", [value(store_command(CT, "1.2.3"), COMMAND | LAST), value(b"xx", LAST, 3)])
def test_what_does_not_belong_into_a_data_set_ends_the_association(
    site: Site, tmp_path: Path, second: bytes
) -> None:
    with Wire(site.receiver.port) as wire:
        wire.associate(context(1, CT, EXPLICIT), context(3, CT, EXPLICIT))
        wire.begin_store(CT, uid_of(tmp_path))
        wire.send(pdu(wire_kinds.DATA, second))
        assert wire.read()[0] == wire_kinds.ABORT
    wait_until(lambda: not being_written(site))
    assert not site.kept()


def test_a_fault_of_ours_is_answered(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(site.receiver, "_conclude", broken)
    with Wire(site.receiver.port) as wire:
        wire.associate()
        assert wire.store(CT, uid_of(tmp_path), simple(CT, uid_of(tmp_path))) == 0xC211
        monkeypatch.undo()
        assert wire.store(CT, uid_of(tmp_path), simple(CT, uid_of(tmp_path))) == 0x0000
    assert being_written(site) == []


def test_two_messages_in_one_pdu(site: Site) -> None:
    echo = command(sop_class=VERIFICATION, field=0x0030, message_id=1, data_set=0x0101)
    with Wire(site.receiver.port) as wire:
        wire.associate(context(1, VERIFICATION, IMPLICIT))
        both = value(echo, COMMAND | LAST) + value(echo, COMMAND | LAST)
        wire.send(pdu(wire_kinds.DATA, both))
        assert [wire.status(), wire.status()] == [0, 0]


@pytest.mark.parametrize(
    "payload",
    [
        pdu(4, b""),
        pdu(4, value(b"", 0)[:-1] + b"\0"),
        pdu(4, struct.pack(">L", 1) + b"\1"),
        pdu(4, struct.pack(">L", 100) + b"\1\3"),
        pdu(4, value(b"data without a command", LAST)),
        pdu(4, value(b"no command set", COMMAND | LAST)),
        pdu(4, value(store_command(CT, "1.2"), COMMAND | LAST) * 2),
        pdu(4, value(store_command(CT, "1.2"), COMMAND | LAST) + value(b"x", LAST, number=3)),
        pdu(4, value(store_command(CT, "1.2"), COMMAND | LAST, number=99)),
        pdu(4, value(command(field=0x0001, message_id=1, data_set=1), COMMAND | LAST)),
        pdu(4, value(command(field=0x7777, message_id=1, data_set=1), COMMAND | LAST)),
        pdu(4, value(bytes(40_000), COMMAND)) * 2,
        pdu(1, b"a second request"),
        pdu(2, b"an acceptance"),
        pdu(8, b"unknown"),
        pdu(4, b"", 131073),
        pdu(4, b"", 0xFFFFFFFF),
        pdu(5, b""),
    ],
    ids=[
        "no values",
        "value without control header",
        "value of one byte",
        "value longer than its PDU",
        "data without command",
        "no command set",
        "two commands for one data set",
        "data set in another context",
        "context that was not accepted",
        "store without UIDs",
        "unknown command",
        "endless command set",
        "second request",
        "acceptance",
        "unknown PDU",
        "longer than announced",
        "4 GiB",
        "empty release",
    ],
)
def test_a_malformed_pdu_costs_its_own_association(site: Site, payload: bytes) -> None:
    with Wire(site.receiver.port, timeout=60) as wire:
        assert wire.associate() == wire_kinds.ACCEPTED
        wire.try_to_send(payload)
        wire.try_to_send(pdu(wire_kinds.RELEASE, bytes(4)))
        assert wire.hung_up()
    assert raw_accepts(site)
    wait_until(lambda: not site.receiver.associations)
    assert being_written(site) == []


def test_what_was_read_ahead_of_a_malformed_pdu_holds_nobody_up(tmp_path: Path) -> None:
    with contextlib.closing(Site(tmp_path, stall_s=600.0)) as site, Wire(site.receiver.port) as wire:
        wire.associate()
        wire.send(pdu(wire_kinds.DATA, b"\0") + pdu(wire_kinds.RELEASE, bytes(4)))
        assert wire.hung_up()


def test_a_peer_has_its_share_of_associations(tmp_path: Path) -> None:
    with contextlib.closing(Site(tmp_path, max_associations_per_peer=1)) as site, associated(site) as first:
        assert first.is_established
        with associated(site) as second:
            assert second.is_rejected
            assert (second.acceptor.primitive.result, second.acceptor.primitive.diagnostic) == (2, 2)
        with associated(site, calling="OTHER") as third:
            assert third.is_established


def test_an_idle_association_is_ended(tmp_path: Path) -> None:
    with contextlib.closing(Site(tmp_path, idle_s=60.0)) as site, associated(site) as association:
        assert association.send_c_store(part10(tmp_path)).Status == 0x0000
        (ours,) = site.receiver.associations
        assert ours.network_timeout == 60.0
        ours.network_timeout = 0.5  # or a slow machine would be idle before it has sent
        wait_until(lambda: association.is_aborted)


def test_crumbs_do_not_hold_an_association(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patches, "SLOWEST_BYTES_S", 1 << 20)
    with contextlib.closing(Site(tmp_path, stall_s=1.0)) as site, Wire(site.receiver.port) as wire:
        wire.associate()
        wire.begin_store(CT, "1.2.3")
        started = time.monotonic()
        with contextlib.suppress(OSError):
            while time.monotonic() - started < 60:
                wire.data([b"x"], last=False)
                time.sleep(0.05)
        assert time.monotonic() - started < 60
        wait_until(lambda: not being_written(site))


@pytest.mark.parametrize("crumb", [pdu(4, bytes(1000))[:500], pdu(4, b"")[:3]], ids=["body", "header"])
def test_half_a_pdu_does_not_hold_an_association(tmp_path: Path, crumb: bytes) -> None:
    with contextlib.closing(Site(tmp_path, stall_s=1.0)) as site, Wire(site.receiver.port) as wire:
        wire.associate()
        wire.send(crumb)
        assert wire.hung_up()


def test_silence_in_the_middle_of_an_object_is_shorter_than_between_two(tmp_path: Path) -> None:
    with (
        contextlib.closing(Site(tmp_path, stall_s=1.0, idle_s=60.0)) as site,
        Wire(site.receiver.port) as wire,
    ):
        wire.associate()
        wire.begin_store(CT, "1.2.3")
        assert wire.hung_up()
        wait_until(lambda: not being_written(site))


def test_a_connection_that_asks_nothing_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scp, "ASK_S", 0.5)
    with contextlib.closing(Site(tmp_path)) as site:
        with Wire(site.receiver.port) as silent, Wire(site.receiver.port) as half:
            half.try_to_send(request()[:40])
            assert silent.hung_up()
            assert half.hung_up()
        wait_until(lambda: not site.receiver.associations)


def test_connections_are_watched_by_the_system(site: Site) -> None:
    with associated(site) as association:
        assert association.is_established
        (ours,) = site.receiver.associations
        assert ours.dul.socket.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_one_address_does_not_take_every_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scp, "_SPARE_OF_ADDRESS", 3)
    with contextlib.closing(Site(tmp_path)) as site, contextlib.ExitStack() as held:
        for _ in range(3):
            held.enter_context(Wire(site.receiver.port))
        wait_until(lambda: len(site.receiver.associations) == 3)
        with Wire(site.receiver.port) as fourth:
            assert fourth.hung_up()


def _moved(site: Site, before: Snapshot, metric: Declaration, *labels: str) -> float:
    """By how much a counter went up since."""
    site.ledger.settle()
    return site.ledger.snapshot().total(metric, *labels) - before.total(metric, *labels)


def test_what_is_received_and_refused_is_counted_by_peer_and_status(site: Site, tmp_path: Path) -> None:
    site.ledger.settle()
    before = site.ledger.snapshot()
    with associated(site) as association:
        path = part10(tmp_path)
        assert association.send_c_store(path).Status == 0x0000
        kept = path.stat().st_size
        assert association.send_c_store(path).Status == 0x0000
        wrong = part10(tmp_path, data_set_of(arrival(sop_instance_uid="1.2.3.4.5.6.7")))
        assert association.send_c_store(wrong).Status == 0xA900
    wait_until(lambda: _moved(site, before, ASSOCIATIONS, "MOD*", "released") == 1)
    assert _moved(site, before, STORES, "MOD*", "0000") == 2
    assert _moved(site, before, STORES, "MOD*", "a900") == 1
    assert _moved(site, before, RECEIVED_BYTES, "MOD*") == 2 * kept
    assert _moved(site, before, STAGE_SECONDS, "receive") == 2
    assert _moved(site, before, STAGE_SECONDS, "spool") == 2
    assert _moved(site, before, ASSOCIATIONS, "MOD*", "accepted") == 1
    assert site.receiver.open_associations == 0


def test_how_associations_end_is_counted(site: Site) -> None:
    site.ledger.settle()
    before = site.ledger.snapshot()
    with associated(site) as association:
        wait_until(lambda: site.receiver.open_associations == 1)
        association.abort()
    with associated(site) as association:
        patches.hang_up(association)
    wait_until(lambda: _moved(site, before, ASSOCIATIONS, "MOD*", "aborted") == 2)
    assert _moved(site, before, ASSOCIATIONS, "MOD*", "accepted") == 2


def test_titles_that_nobody_configured_share_one_name(tmp_path: Path) -> None:
    with contextlib.closing(Site(tmp_path, accept_called_ae="own")) as site:
        for number in range(12):
            with associated(site, calling=f"EVIL {number}", called="NOBODY") as association:
                assert association.is_rejected
        with associated(site, called="NOBODY") as association:
            assert association.is_rejected
        site.ledger.settle()
        figures = site.ledger.snapshot()
    assert figures.total(ASSOCIATIONS, "other", "rejected", UNKNOWN_CALLED.word) == 12
    assert figures.total(ASSOCIATIONS, "MOD*", "rejected", UNKNOWN_CALLED.word) == 1
    assert {each.labels[0] for each in figures.counted if each.metric == ASSOCIATIONS.name} == {
        "MOD*",
        "other",
    }


def test_the_same_uid_with_other_content_is_kept_and_told(
    site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    uid = uid_of(tmp_path)
    site.kept()  # whatever a peer of another test got through before it hung up
    before = site.ledger.snapshot()
    caplog.set_level(logging.INFO)
    with associated(site) as association:
        for pixels in (1000, 1000, 2000):
            path = part10(tmp_path, simple(CT, uid, pixels=pixels))
            assert association.send_c_store(path).Status == 0x0000
    assert len(site.kept()) == 2
    after = site.ledger.snapshot()
    assert [after.total(metric) - before.total(metric) for metric in (REPEATS, CONFLICTS)] == [1, 1]
    (told,) = [log.line(record) for record in caplog.records if record.msg == "same-uid-other-content"]
    assert told["level"] == "warning"
    assert told["uid"] == log.uid_hash(uid)
    assert uid not in str(told)


def test_services_beside_storage_bring_their_own_handlers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(contexts.SERVICES, WORKLIST, (IMPLICIT,))
    site = Site(tmp_path, services=((evt.EVT_C_FIND, lambda _event: iter([(0xA700, None)])),))
    with contextlib.closing(site), associated(site, build_context(WORKLIST, IMPLICIT)) as association:
        identifier = pydicom.Dataset()
        identifier.PatientID = "*"
        ((status, _),) = association.send_c_find(identifier, WORKLIST)
        assert status.Status == 0xA700


def test_a_library_that_cannot_be_repaired_still_receives(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patches, "conduct", lambda *_arguments: None)
    with associated(site) as association:
        assert association.send_c_store(part10(tmp_path)).Status == 0x0000
        assert association.send_c_store(part10(tmp_path, b"cut off")).Status == 0xC000
    assert len(site.kept()) == 1
