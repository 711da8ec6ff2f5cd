"""Destinations of every temper over real sockets: what each does to its own deliveries, not to others."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydicom import dcmread, uid
from pynetdicom import AE, evt
from pynetdicom.presentation import build_context
from pynetdicom.transport import ThreadedAssociationServer

from benchmarks.stand import free_port
from blessmark import pixels
from blessmark.payload.record import FULL_FIELDS
from blessmark.segment import segmenter
from dicom_node import forwarder
from dicom_node.bells import Bells
from dicom_node.config import Config
from dicom_node.dimse.reception import part10_head
from dicom_node.forwarder import Forwarder
from dicom_node.jobs import Arrival, DeliveryState, InstanceState, Outcome
from dicom_node.ledger import Ledger
from dicom_node.protect import Site as Marking
from dicom_node.protect import protect, written
from dicom_node.retry import Meaning, classify
from dicom_node.review import Reader, review
from dicom_node.spool import Spool
from tests.builders import Encoding, dataset, file_bytes, phantom
from tests.strategies import RING
from tests.waiting import wait_until

CT = str(uid.CTImageStorage)
EXPLICIT, IMPLICIT = str(uid.ExplicitVRLittleEndian), str(uid.ImplicitVRLittleEndian)


class Archive:
    """A storage SCP that answers what `answer` says and remembers what it got, in order."""

    def __init__(self, port: int = 0, *syntaxes: str) -> None:
        self.port = port or free_port()
        self.received: list[tuple[str, str, bytes]] = []
        self.answer: Callable[[Any], int] = lambda _event: 0x0000
        self.syntaxes = syntaxes or (EXPLICIT,)
        self.proposed: list[list[tuple[str, list[str]]]] = []
        self.entity = AE(ae_title="ARCHIVE")
        self._server: Any = None

    def start(self, *handlers: tuple[Any, Callable[..., Any]]) -> Archive:
        self._server = self.entity.make_server(
            ("127.0.0.1", self.port),
            server_class=ThreadedAssociationServer,
            contexts=[build_context(CT, list(self.syntaxes))],
            evt_handlers=[(evt.EVT_C_STORE, self._store), (evt.EVT_REQUESTED, self._requested), *handlers],
        )
        self.entity._servers.append(self._server)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def _requested(self, event: Any) -> None:
        contexts = event.assoc.requestor.requested_contexts
        self.proposed.append([(cx.abstract_syntax, list(cx.transfer_syntax)) for cx in contexts])

    def _store(self, event: Any) -> int:
        status = self.answer(event)
        if classify(status) in (Meaning.DONE, Meaning.WARNING):
            self.received.append(
                (
                    str(event.request.AffectedSOPInstanceUID),
                    str(event.context.transfer_syntax),
                    event.request.DataSet.getvalue(),
                )
            )
        return status

    def uids(self) -> set[str]:
        return {name for name, _, _ in self.received}

    def stop(self) -> None:
        if self._server is not None:
            for association in self._server.active_associations:
                association.abort()
            self._server.shutdown()
            self._server.server_close()


class Sender:
    """A forwarder between a ledger that is fed by hand and the archives."""

    def __init__(self, folder: Path, destinations: Mapping[str, Mapping[str, Any]]) -> None:
        self.config = Config.model_validate(
            {
                "node": {"id": "n", "ae_title": "NODE"},
                "storage": {"folder": folder, "reserve_mb": 16},
                "destinations": {
                    name: {
                        "ae_title": "ARCHIVE",
                        "host": "127.0.0.1",
                        "timeout_s": 60.0,
                        "retry": {"first_s": 0.1, "cap_s": 0.3, "refusals": 2},
                        **options,
                    }
                    for name, options in destinations.items()
                },
                "routes": ({"name": "all", "role": "pass", "destinations": tuple(destinations)},),
            },
            strict=False,
        )
        self.spool = Spool(self.config.storage.spool_dir, 1_000_000)
        self.ledger = Ledger(self.config.storage.ledger_path)
        self.bells = Bells(self.config.destinations)
        self.forwarder = Forwarder(
            self.config, self.spool, self.ledger, rest=self.bells.rest_sends, wake=self.bells.ring_sends
        )

    def queue(self, content: bytes, *names: str) -> str:
        """Make a Part 10 file ready for destinations; its SOP Instance UID."""
        ds = dcmread(io.BytesIO(content), stop_before_pixels=True)
        blob = self.spool.put([content])
        instance, syntax = str(ds.SOPInstanceUID), str(ds.file_meta.TransferSyntaxUID)
        self.ledger.add(Arrival(CT, instance, syntax, "A", "B", "all"), blob.name, blob.size)
        (work,) = self.ledger.claim_work("test", 1, 180.0)
        wanted = names or tuple(self.config.destinations)
        self.ledger.finish(
            work, Outcome(InstanceState.READY, "passed", "", blob.name, CT, instance, syntax, wanted)
        )
        for name in wanted:
            self.bells.ring_sends(name)
        return instance

    def queue_some(self, count: int, *names: str, size: int = 32) -> list[str]:
        return [self.queue(image(number, size=size), *names) for number in range(count)]

    def tally(self, name: str) -> dict[str, int]:
        return {row.state: row.count for row in self.ledger.snapshot().deliveries if row.destination == name}

    def reasons(self) -> set[str]:
        return {letter.reason for letter in self.ledger.dead_letters()}


def image(number: int, *, syntax: str = EXPLICIT, size: int = 32) -> bytes:
    """A synthetic CT."""
    samples = phantom(size, size, hi=4095, seed=number)
    return file_bytes(dataset(samples, Encoding(syntax=syntax), SOPClassUID=CT, Modality="CT"))


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Sender]]:
    monkeypatch.setattr(forwarder, "POLL_S", 0.05)
    made: list[Sender] = []

    def build(**destinations: Mapping[str, Any]) -> Sender:
        made.append(Sender(tmp_path, destinations))
        made[-1].forwarder.start()
        return made[-1]

    yield build
    for sender in made:
        sender.forwarder.stop(0.5)
        sender.ledger.close()


@pytest.fixture
def archive() -> Iterator[Archive]:
    made = Archive()
    yield made
    made.stop()


@contextlib.contextmanager
def listener(serve: Callable[[socket.socket], object]) -> Iterator[int]:
    """A TCP server that does `serve` with each connection and then closes it; its port."""
    stopping = threading.Event()

    def run() -> None:
        server.settimeout(0.1)
        while not stopping.is_set():
            with contextlib.suppress(OSError):
                connection, _ = server.accept()
                threading.Thread(target=one, args=(connection,), daemon=True).start()

    def one(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            serve(connection)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield int(server.getsockname()[1])
        stopping.set()
        thread.join()


def silent(connection: socket.socket) -> None:
    connection.settimeout(30.0)
    while connection.recv(65536):
        pass


# ---- statuses: each class, answered by a real peer ----


@pytest.mark.parametrize("status", [0x0000, 0xB000, 0xB007, 0x0111])
def test_taken_with_or_without_a_warning(make: Callable[..., Sender], archive: Archive, status: int) -> None:
    archive.answer = lambda _event: status
    sender = make(a={"port": archive.start().port})
    sender.queue_some(2)
    wait_until(lambda: sender.tally("a") == {DeliveryState.DELIVERED: 2})
    assert sender.ledger.results() == {("a", "warning" if status else "delivered"): 2}


@pytest.mark.parametrize("status", [0xA900, 0xC000, 0x0122, 0x0124])
def test_refused_for_good_and_the_next_goes_through(
    make: Callable[..., Sender], archive: Archive, status: int
) -> None:
    sender = make(a={"port": archive.start().port})
    bad = sender.queue(image(1), "a")
    archive.answer = lambda event: status if event.request.AffectedSOPInstanceUID == bad else 0x0000
    good = [sender.queue(image(number)) for number in range(2, 6)]
    wait_until(lambda: sender.tally("a") == {DeliveryState.DELIVERED: 4, DeliveryState.DEAD: 1})
    assert sender.reasons() == {f"status-{status:04x}"}
    assert archive.uids() == set(good)
    assert sender.ledger.results() == {("a", "delivered"): 4, ("a", "refused"): 2}


@pytest.mark.parametrize("status", [0xA700, 0x0110, 0x0213])
def test_told_to_come_back_later_and_then_taken(
    make: Callable[..., Sender], archive: Archive, status: int
) -> None:
    asked: dict[str, int] = {}

    def later(event: Any) -> int:
        name = str(event.request.AffectedSOPInstanceUID)
        asked[name] = asked.get(name, 0) + 1
        return status if asked[name] < 3 else 0x0000

    archive.answer = later
    sender = make(a={"port": archive.start().port})
    sender.queue_some(3)
    wait_until(lambda: sender.tally("a") == {DeliveryState.DELIVERED: 3})
    assert sender.ledger.results() == {("a", "delivered"): 3, ("a", "transient"): 6}


def test_some_objects_refused_among_many(make: Callable[..., Sender], archive: Archive) -> None:
    archive.answer = lambda event: 0xC000 if hash(event.request.AffectedSOPInstanceUID) % 3 == 0 else 0x0000
    sender = make(a={"port": archive.start().port, "associations": 2})
    names = sender.queue_some(30)
    bad = {name for name in names if hash(uid.UID(name)) % 3 == 0}
    wait_until(lambda: sender.ledger.counts().idle)
    assert archive.uids() == set(names) - bad
    assert len(sender.ledger.dead_letters()) == len(bad)


# ---- peers that do not get as far as an answer ----


@contextlib.contextmanager
def refusing_for_good(archive: Archive) -> Iterator[None]:
    archive.entity.ae_title, archive.entity.require_called_aet = "SOMEBODY_ELSE", True
    archive.start()
    yield
    archive.entity.require_called_aet = False


@contextlib.contextmanager
def refusing_for_now(archive: Archive) -> Iterator[None]:
    """Somebody else has its only association."""
    archive.entity.maximum_associations = 1
    archive.start()
    taken = AE().associate("127.0.0.1", archive.port, contexts=[build_context(CT, EXPLICIT)])
    assert taken.is_established
    yield
    taken.release()


@pytest.mark.parametrize(
    ("refusing", "reason"),
    [(refusing_for_good, "rejected-permanent"), (refusing_for_now, "rejected-transient")],
)
def test_a_refused_association_is_tried_again(
    make: Callable[..., Sender], archive: Archive, refusing: Callable[..., Any], reason: str
) -> None:
    with refusing(archive):
        sender = make(a={"port": archive.port, "associations": 1})
        sender.queue_some(3)
        wait_until(lambda: sender.ledger.results().get(("a", reason), 0) >= 2)
        assert sender.tally("a").get(DeliveryState.DEAD) is None
        wait_until(lambda: set(sender.ledger.outages()) == {"a"})
    wait_until(lambda: sender.tally("a") == {DeliveryState.DELIVERED: 3})
    assert sender.ledger.outages() == {}


class Cutter:
    """Passes connections on to an archive, and cuts the first one in the middle of an object."""

    def __init__(self, archive: Archive, after: int) -> None:
        self.archive, self.left, self.cuts = archive, after, 0

    def __call__(self, connection: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", self.archive.port)) as beyond:
            back = threading.Thread(target=self._answers, args=(beyond, connection), daemon=True)
            back.start()
            while data := connection.recv(8192):
                self.left -= len(data)
                if not self.cuts and self.left < 0:
                    self.cuts += 1
                    return
                beyond.sendall(data)

    @staticmethod
    def _answers(beyond: socket.socket, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := beyond.recv(8192):
                connection.sendall(data)


def test_a_connection_that_breaks_in_the_middle_of_an_object(
    make: Callable[..., Sender], archive: Archive
) -> None:
    cutter = Cutter(archive.start(), after=200_000)
    with listener(cutter) as port:
        sender = make(a={"port": port, "associations": 1})
        names = sender.queue_some(4, size=256)
        wait_until(lambda: sender.tally("a") == {DeliveryState.DELIVERED: 4})
        assert sorted(name for name, *_ in archive.received) == sorted(names)
    assert cutter.cuts == 1
    assert sender.ledger.results() == {("a", "closed"): 1, ("a", "delivered"): 4}


def test_a_peer_that_aborts_instead_of_answering(make: Callable[..., Sender], archive: Archive) -> None:
    aborted = []

    def abort_once(event: Any) -> int:
        if not aborted:
            aborted.append(True)
            event.assoc.abort()
        return 0x0000

    archive.answer = abort_once
    sender = make(a={"port": archive.start().port, "associations": 1})
    sender.queue_some(4)
    wait_until(lambda: sender.tally("a") == {DeliveryState.DELIVERED: 4})
    assert sender.ledger.results() == {("a", "closed"): 1, ("a", "delivered"): 4}


def test_an_answer_that_never_comes(make: Callable[..., Sender], archive: Archive) -> None:
    go, stalled = threading.Event(), []

    def stall_once(_event: Any) -> int:
        if not stalled:
            stalled.append(True)
            go.wait(60)
        return 0x0000

    archive.answer = stall_once
    sender = make(a={"port": archive.start().port, "associations": 1, "timeout_s": 1.0})
    sender.queue_some(3)
    wait_until(lambda: sender.tally("a") == {DeliveryState.DELIVERED: 3})
    go.set()
    # a machine that stands still leaves more of them unanswered
    assert sender.ledger.results()["a", "no-answer"] >= 1


@pytest.mark.parametrize(
    ("serve", "reasons"),
    [
        (lambda _connection: None, {"unreachable"}),
        (lambda connection: connection.sendall(os.urandom(500)), {"unreachable"}),
        (silent, {"unreachable"}),
    ],
    ids=["closes at once", "garbage", "silent"],
)
def test_a_peer_that_is_none(
    make: Callable[..., Sender], serve: Callable[[socket.socket], object], reasons: set[str]
) -> None:
    with listener(serve) as port:
        sender = make(a={"port": port, "associations": 1, "timeout_s": 0.3})
        sender.queue_some(3)
        wait_until(lambda: sum(sender.ledger.results().values()) >= 2)
        assert {result for _, result in sender.ledger.results()} == reasons
        assert sender.tally("a").get(DeliveryState.DEAD) is None


# ---- one destination never slows another ----


def test_five_destinations_of_which_four_misbehave(make: Callable[..., Sender], archive: Archive) -> None:
    """A takes everything while B is closed, C hangs, D is slow and E refuses; then each ends as it should."""
    slow, refusing, closed, taken = Archive(), Archive(), Archive(), threading.Event()
    slow.answer = lambda _event: int(not taken.wait(60))
    refusing.answer = lambda _event: 0xC000
    slow.start()
    refusing.start()
    archive.start()
    with listener(silent) as hanging:
        sender = make(
            a={"port": archive.port},
            b={"port": closed.port},
            c={"port": hanging, "timeout_s": 5.0},
            d={"port": slow.port, "associations": 1},
            e={"port": refusing.port},
        )
        names = sender.queue_some(40)
        wait_until(lambda: sender.tally("a") == {DeliveryState.DELIVERED: 40})
        done = {name: sender.tally(name).get(DeliveryState.DELIVERED, 0) for name in "abcde"}
        assert done == {"a": 40, "b": 0, "c": 0, "d": 0, "e": 0}
        assert archive.uids() == set(names)
        taken.set()

        wait_until(lambda: sender.tally("e") == {DeliveryState.DEAD: 40})
        wait_until(lambda: sender.tally("d") == {DeliveryState.DELIVERED: 40})
        wait_until(lambda: sender.tally("b") == {DeliveryState.QUEUED: 40})
        assert sum(sender.tally("c").values()) == 40
        assert sender.tally("c").get(DeliveryState.DEAD) is None
        wait_until(lambda: "b" in sender.ledger.outages())
        closed.start()
        wait_until(lambda: sender.tally("b") == {DeliveryState.DELIVERED: 40})
        assert closed.uids() == set(names)
    for each in (slow, refusing, closed):
        each.stop()


def test_a_fail_over_by_real_peers_and_back(make: Callable[..., Sender], archive: Archive) -> None:
    main = Archive()
    sender = make(
        main={"port": main.port, "failover": "other", "failover_after_s": 0.5},
        other={"port": archive.start().port},
    )
    names = sender.queue_some(10, "main")
    wait_until(lambda: archive.uids() == set(names))
    wait_until(lambda: sender.tally("main") == {DeliveryState.DELIVERED: 10})
    assert sender.forwarder.failed_over() == ["main"]
    main.start()
    number = 100

    def back() -> bool:
        nonlocal number
        number += 1
        names.append(sender.queue(image(number), "main"))
        time.sleep(0.2)
        return not sender.forwarder.failed_over()

    wait_until(back)
    wait_until(lambda: sender.ledger.counts().idle)
    assert main.uids() | archive.uids() == set(names)
    assert not main.uids() & archive.uids()
    main.stop()


# ---- transfer syntaxes ----


def test_what_the_peer_takes_goes_as_it_is(make: Callable[..., Sender], archive: Archive) -> None:
    archive.syntaxes = (IMPLICIT, uid.JPEGLSLossless, EXPLICIT)
    sender = make(a={"port": archive.start().port, "associations": 1})
    contents = [image(1), image(2, syntax=uid.JPEGLSLossless), image(3, syntax=IMPLICIT)]
    for content in contents:
        sender.queue(content)
    wait_until(lambda: sender.tally("a") == {DeliveryState.DELIVERED: 3})
    assert {data for *_, data in archive.received} == {data_set_of(content) for content in contents}
    first = archive.proposed[0]
    assert all(len(syntaxes) == 1 for _, syntaxes in first), "one presentation context for each syntax"
    assert first[0] == (CT, [EXPLICIT])


def data_set_of(part10: bytes) -> bytes:
    return part10[144 + struct.unpack_from("<I", part10, 140)[0] :]


def test_what_it_does_not_take_is_converted_and_the_mark_still_verifies(
    make: Callable[..., Sender], archive: Archive
) -> None:
    archive.syntaxes = (IMPLICIT,)
    original = dataset(
        phantom(256, 192, hi=4095),
        Encoding(syntax=uid.JPEGLSLossless),
        SOPClassUID=CT,
        PatientName="Phantom^Test",
        PatientID="1",
    )
    ds = pixels.read(file_bytes(original))
    assert protect(ds, Marking("n", RING, segmenter("anatomy"), FULL_FIELDS), 1_790_000_000).changed
    sender = make(a={"port": archive.start().port, "associations": 1})
    sender.queue(written(ds))
    wait_until(lambda: sender.tally("a") == {DeliveryState.DELIVERED: 1})
    ((_, syntax, content),) = archive.received
    assert syntax == IMPLICIT
    head = file_bytes(dataset(phantom(8, 8), Encoding(syntax=IMPLICIT)))
    sent = pixels.read(head[: -len(data_set_of(head))] + content)
    assert str(review(sent, "x", Reader(RING, (segmenter("anatomy"),))).finding) == "authentic"


@pytest.mark.parametrize(
    ("options", "syntax", "reason"),
    [
        ({"transcode": "never"}, IMPLICIT, "no-context"),
        ({"transcode_to": ["implicit"]}, IMPLICIT, "no-context"),
        ({}, uid.MPEG2MPML, "no-context"),
        ({}, uid.JPEG2000Lossless, "not-convertible"),
    ],
)
def test_what_cannot_be_sent_is_a_dead_letter_with_its_reason(
    make: Callable[..., Sender], archive: Archive, options: dict[str, Any], syntax: str, reason: str
) -> None:
    """The last one claims to be JPEG 2000, and is none."""
    sender = make(a={"port": archive.start().port, "associations": 1, **options})
    content = image(1, syntax=IMPLICIT)
    if syntax != IMPLICIT:
        ds = dataset(phantom(32, 32), Encoding(syntax=uid.RLELossless), SOPClassUID=CT)
        ds.file_meta.TransferSyntaxUID = uid.UID(syntax)
        content = file_bytes(ds)
    sender.queue(content)
    good = sender.queue(image(2))
    wait_until(lambda: sender.tally("a") == {DeliveryState.DELIVERED: 1, DeliveryState.DEAD: 1})
    assert sender.reasons() == {reason}
    assert archive.uids() == {good}


@contextlib.contextmanager
def storescp(folder: Path, *options: str) -> Iterator[int]:
    """DCMTK's receiver; its port."""
    port = free_port()
    command = ["/usr/bin/storescp", *options, "-od", str(folder), str(port)]
    with subprocess.Popen(command, env=os.environ | {"TCP_NODELAY": "1"}) as process:
        try:
            wait_until(lambda: listens(port))
            yield port
        finally:
            process.kill()


@pytest.mark.interop
@pytest.mark.parametrize(
    "option", ["+xa", "+x=", "+xi"], ids=["takes all", "prefers explicit", "implicit only"]
)
@pytest.mark.parametrize("syntax", [uid.JPEGLSLossless, uid.RLELossless, EXPLICIT, IMPLICIT])
def test_dcmtk_gets_what_it_takes_and_the_mark_verifies(
    make: Callable[..., Sender], tmp_path: Path, option: str, syntax: str
) -> None:
    ds = pixels.read(
        file_bytes(
            dataset(phantom(256, 192, hi=4095), Encoding(syntax=syntax), SOPClassUID=CT, PatientID="1")
        )
    )
    assert protect(ds, Marking("n", RING, segmenter("anatomy"), FULL_FIELDS), 1_790_000_000).changed
    folder = tmp_path / "received"
    folder.mkdir()
    with storescp(folder, option) as port:
        sender = make(a={"port": port, "associations": 1, "timeout_s": 10.0})
        sender.queue(written(ds))
        wait_until(lambda: sender.tally("a") == {DeliveryState.DELIVERED: 1})
        wait_until(lambda: list(folder.iterdir()))
    (path,) = folder.iterdir()
    received = pixels.read(path)
    assert str(review(received, "x", Reader(RING, (segmenter("anatomy"),))).finding) == "authentic"
    if option == "+xa":
        assert received.file_meta.TransferSyntaxUID == syntax
    if option == "+xi":
        assert received.file_meta.TransferSyntaxUID == IMPLICIT


@pytest.mark.interop
@pytest.mark.slow
def test_a_gigabyte_goes_out_in_little_memory(
    make: Callable[..., Sender], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Through the forwarder to DCMTK's storescp; the file is sparse, the bytes on the wire are not."""
    size, name, resident = 10**9, "00" * 32, psutil.Process().memory_info
    with storescp(tmp_path, "--ignore") as port:
        sender = make(a={"port": port, "associations": 1, "timeout_s": 30.0})
        with sender.spool.path(name).open("wb") as file:
            file.write(part10_head(Arrival(CT, "1.2.3", EXPLICIT, "A", "B", "all")))
            file.write(b"\xe0\x7f\x10\x00OW\0\0" + size.to_bytes(4, "little"))
            file.truncate(file.tell() + size)
        before = peak = resident().rss
        sender.ledger.add(Arrival(CT, "1.2.3", EXPLICIT, "A", "B", "all"), name, size)
        (work,) = sender.ledger.claim_work("test", 1, 180.0)
        done = Outcome(InstanceState.READY, "passed", "", name, CT, "1.2.3", EXPLICIT, ("a",))
        sender.ledger.finish(work, done)
        deadline = time.monotonic() + 120
        while sender.tally("a") != {DeliveryState.DELIVERED: 1}:
            assert time.monotonic() < deadline
            peak = max(peak, resident().rss)
            time.sleep(0.02)
    record_property("rss_growth_mb", round((peak - before) / 1e6, 1))
    assert peak - before < 50e6


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
        return True
    return False
