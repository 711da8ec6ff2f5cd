"""The receiver, asked by real SCUs over loopback."""

from __future__ import annotations

import contextlib
import io
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, build_role, evt
from pynetdicom.presentation import build_context

from dicom_node import log
from dicom_node.config import Config, Destination, Match
from dicom_node.dimse import patches
from dicom_node.dimse.scp import (
    TOO_MANY,
    UNKNOWN_CALLED,
    UNKNOWN_CALLER,
    Receiver,
    part10_head,
    refusal,
    rejection,
)
from dicom_node.errors import LedgerError, OutputError, SpoolError, SpoolFull
from dicom_node.jobs import Arrival
from dicom_node.ledger import Ledger
from dicom_node.spool import Spool

CT = "1.2.840.10008.5.1.4.1.1.2"
WORKLIST = "1.2.840.10008.5.1.4.31"
PRIVATE = "1.3.46.670589.11.0.0.12.4"
COMMITMENT, COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"
EXPLICIT, IMPLICIT, J2K = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.4.90"
#: odd on purpose: padding, private elements and nonsense must come through as they are
DATA_SET = struct.pack("<HH2sH", 0x0008, 0x0060, b"CS", 2) + b"CT" + bytes(range(256)) * 700


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
            "routes": ({"name": "all", "role": "pass"},),
        },
        strict=False,
    )
    return made.model_copy(update={"node": made.node.model_copy(update={"port": port})})


class Site:
    """A running receiver and what it keeps."""

    def __init__(self, folder: Path, **node: Any) -> None:
        self.folder = folder
        self.spool = Spool(folder / "spool", 1_000_000)
        self.ledger = Ledger(folder / "ledger.sqlite")
        self.rung = threading.Semaphore(0)
        self.receiver = Receiver(
            config(folder, **node), self.spool, self.ledger, on_arrival=self.rung.release
        )
        self.receiver.start()

    def kept(self) -> list[bytes]:
        """The spool files of everything that waits for work."""
        works = self.ledger.claim_work("test", 100, 60.0)
        return [self.spool.path(work.blob).read_bytes() for work in works]

    def close(self) -> None:
        self.receiver.stop(2.0)
        self.ledger.close()


@pytest.fixture(scope="module")
def shared_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with contextlib.closing(Site(tmp_path_factory.mktemp("site"))) as made:
        yield made


@pytest.fixture
def site(shared_site: Site) -> Site:
    """The receiver of all tests of this file, with nothing waiting."""
    shared_site.kept()
    return shared_site


@contextlib.contextmanager
def associated(site: Site, *contexts: Any, calling: str = "MODALITY", called: str = "NODE") -> Iterator[Any]:
    entity = AE(ae_title=calling)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 10
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


def part10(folder: Path, data_set: bytes = DATA_SET, **changes: str) -> Path:
    path = folder / "object.dcm"
    path.write_bytes(part10_head(arrival(**{"sop_instance_uid": uid_of(folder)} | changes)) + data_set)
    return path


def test_the_data_set_is_kept_byte_for_byte_in_a_part_10_file(site: Site, tmp_path: Path) -> None:
    with associated(site) as association:
        assert association.send_c_store(part10(tmp_path)).Status == 0x0000
    (kept,) = site.kept()
    assert kept.endswith(DATA_SET)
    meta = pydicom.dcmread(io.BytesIO(kept), stop_before_pixels=True, specific_tags=[0x00080060]).file_meta
    assert meta.FileMetaInformationGroupLength == len(kept) - len(DATA_SET) - 144
    assert meta.MediaStorageSOPClassUID == CT
    assert meta.MediaStorageSOPInstanceUID == uid_of(tmp_path)
    assert meta.TransferSyntaxUID == EXPLICIT
    assert "SourceApplicationEntityTitle" not in meta


def test_the_row_says_who_sent_what(site: Site, tmp_path: Path) -> None:
    with associated(site) as association:
        association.send_c_store(part10(tmp_path))
    (work,) = site.ledger.claim_work("test", 10, 60.0)
    assert work.arrival == arrival(sop_instance_uid=uid_of(tmp_path))
    assert site.rung.acquire(timeout=1)


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
    before = set(site.folder.parent.rglob("*"))
    with associated(site) as association:
        status = association.send_c_store(part10(tmp_path, sop_instance_uid=uid))
    assert status.Status == 0x0117
    assert not site.kept()
    assert {path.name for path in set(site.folder.parent.rglob("*")) - before} <= {
        tmp_path.name,
        "object.dcm",
    }


def test_an_empty_data_set_is_refused(site: Site, tmp_path: Path) -> None:
    with associated(site) as association:
        assert association.send_c_store(part10(tmp_path, b"")).Status == 0xC000
    assert not site.kept()


def test_a_class_under_the_context_of_another_is_refused() -> None:
    refused = refusal(arrival(sop_class_uid=PRIVATE), CT, 10)
    assert refused is not None
    assert refused.status == 0x0122


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
    def fail(_chunks: object) -> None:
        raise error

    monkeypatch.setattr(site.spool, "put", fail)
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
    def refuse(*_arguments: object) -> None:
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
        wait_until(lambda: not site.receiver._server or not site.receiver._server.active_associations)
        with associated(site) as third:
            assert third.is_established


def test_a_called_title_that_is_not_ours_is_rejected(tmp_path: Path) -> None:
    with contextlib.closing(Site(tmp_path, accept_called_ae="own")) as site:
        with associated(site, called="OTHER") as association:
            assert association.is_rejected
            assert association.acceptor.primitive.diagnostic == UNKNOWN_CALLED.reason
        with associated(site) as association:
            assert association.is_established


def test_who_is_let_in(tmp_path: Path) -> None:
    made = config(tmp_path)
    route = made.routes[0].model_copy(
        update={
            "match": made.routes[0].match.model_copy(update={"calling_ae": ("CT*",), "called_ae": ("IN",)})
        }
    )
    made = made.model_copy(update={"routes": (route,)})
    assert rejection(made, "CT1", "IN") is None
    assert rejection(made, "CT1", "OUT") is UNKNOWN_CALLED
    assert rejection(made, "MR1", "IN") is UNKNOWN_CALLER


def test_a_port_that_is_taken(site: Site, tmp_path: Path) -> None:
    other = Receiver(config(tmp_path, site.receiver.port), site.spool, site.ledger)
    with pytest.raises(OutputError, match="cannot listen on"):
        other.start()


def wait_until(done: Callable[[], object], limit_s: float = 5.0) -> None:
    deadline = time.monotonic() + limit_s
    while not done():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def raw(site: Site, payload: bytes) -> bytes:
    """Send bytes, and return what comes back until the node hangs up."""
    with socket.create_connection(("127.0.0.1", site.receiver.port), timeout=5) as connection:
        connection.sendall(payload)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
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


def request(*contexts: bytes) -> bytes:
    """An A-ASSOCIATE-RQ with these presentation context items (PS3.8 table 9-11)."""
    application = _item(0x10, b"1.2.840.10008.3.1.1.1")
    user = _item(0x50, _item(0x51, struct.pack(">I", 16384)) + _item(0x52, b"1.2.3"))
    titles = b"NODE".ljust(16) + b"MODALITY".ljust(16)
    body = struct.pack(">Hxx", 1) + titles + bytes(32) + application + b"".join(contexts) + user
    return struct.pack(">BxL", 1, len(body)) + body


def _item(kind: int, body: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(body)) + body


@pytest.mark.parametrize(
    "context",
    [
        b"\1\0\0\0" + _item(0x30, CT.encode()),
        b"\1\0\0\0" + _item(0x40, EXPLICIT.encode()),
        b"\2\0\0\0" + _item(0x30, CT.encode()) + _item(0x40, EXPLICIT.encode()),
        b"\1\0\0\0" + _item(0x30, b"1" * 80) + _item(0x40, EXPLICIT.encode()),
    ],
    ids=["no transfer syntax", "no class", "even id", "endless uid"],
)
def test_a_malformed_proposal_ends_its_connection(site: Site, context: bytes) -> None:
    answer = raw(site, request(_item(0x20, context)))
    assert not answer or answer[0] == A_ABORT
    assert raw_accepts(site)


def raw_accepts(site: Site) -> bool:
    """Whether a well-formed request is still accepted."""
    context = b"\1\0\0\0" + _item(0x30, CT.encode()) + _item(0x40, EXPLICIT.encode())
    with socket.create_connection(("127.0.0.1", site.receiver.port), timeout=5) as connection:
        connection.sendall(request(_item(0x20, context)))
        return connection.recv(1) == b"\2"


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
        started = time.monotonic()
        site.receiver.stop(1.0)
        assert time.monotonic() - started < 4.0
        wait_until(lambda: not idle.is_established)
        silent.settimeout(5)
        with contextlib.suppress(ConnectionResetError):
            assert silent.recv(10) in (b"", b"\x07\x00\x00\x00\x00\x04\x00\x00\x02\x00")
    assert not site.receiver.listening
    site.ledger.close()


def test_what_is_on_its_way_may_finish_while_stopping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(tmp_path)
    entered, go = threading.Event(), threading.Event()
    put = site.spool.put

    def slow(chunks: Any) -> Any:
        entered.set()
        go.wait(5)
        return put(chunks)

    monkeypatch.setattr(site.spool, "put", slow)
    statuses: list[int] = []
    with associated(site) as association:
        path = part10(tmp_path)
        sender = threading.Thread(target=lambda: statuses.append(association.send_c_store(path).Status))
        sender.start()
        assert entered.wait(5)
        stopper = threading.Thread(target=site.receiver.stop, args=(5.0,))
        stopper.start()
        time.sleep(0.3)
        go.set()
        sender.join(5)
        stopper.join(8)
    assert statuses == [0x0000]
    assert len(site.kept()) == 1
    site.ledger.close()


def test_the_head_of_a_file_is_the_same_for_ever() -> None:
    assert (
        part10_head(arrival()).hex()
        == part10_head(arrival(calling_ae="OTHER", called_ae="X", route="y")).hex()
    )
    assert len(part10_head(arrival())) % 2 == 0
    head = part10_head(arrival(sop_instance_uid="1.2.3"))
    assert struct.unpack_from("<I", head, 140)[0] == len(head) - 144
