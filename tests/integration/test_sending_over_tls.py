"""The sender, and storage commitment, over TLS to peers of stock pynetdicom and Python's own TLS.

Whole tests of the sender are run again, with nothing changed in them but how it connects.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE

from dicom_node import security
from dicom_node.commitment import Ask, Due, Reference, Report
from dicom_node.config import Destination, Query, Requester, Tls
from dicom_node.dimse import commit
from dicom_node.dimse.retrieve import DimseArchive
from dicom_node.dimse.store import Sender
from dicom_node.errors import PeerError, TlsError
from dicom_node.inquiry import Level, Order
from dicom_node.landing import Landing
from tests.certificates import Authority
from tests.commitment_peers import CT, Archive, Modality, answers
from tests.shelf import Shelf, instance
from tests.unit.node import test_store as plain
from tests.unit.node.test_store import job, part10, peer
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def tls(authority: Authority) -> Tls:
    issued = authority.issue("node", "node.example")
    return Tls(certificate=issued.certificate, key=issued.key, ca=authority.file)


@pytest.fixture
def archive_shows(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """Has every listener of pynetdicom speak TLS, with a certificate for this machine, and want one."""
    issued = authority.issue("archive", "127.0.0.1")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.file))
    context.load_cert_chain(issued.certificate, issued.key)
    context.verify_mode = ssl.CERT_REQUIRED
    make = functools.partialmethod(AE.make_server, ssl_context=context)
    monkeypatch.setattr(AE, "make_server", make)
    return context


@pytest.fixture
def secured(archive_shows: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch, tls: Tls) -> None:
    stock = plain.destination

    class Out(Sender):
        def __init__(self, name: str, destination: Destination, calling_ae: str) -> None:
            super().__init__(name, destination, calling_ae, tls)

        deliver = plain.Out.deliver

    monkeypatch.setattr(plain, "destination", lambda port, **more: stock(port, tls=True, **more))
    monkeypatch.setattr(plain, "Out", Out)


@pytest.mark.parametrize(
    "test",
    [
        plain.test_the_bytes_of_the_data_set_arrive_as_they_are,
        plain.test_a_peer_that_refuses_the_association,
        plain.test_a_peer_that_accepts_and_says_nothing,
        plain.test_a_peer_that_does_not_answer_in_time,
        plain.test_a_peer_that_aborts_is_tried_anew_next_time,
        plain.test_abort_breaks_a_send_that_hangs,
        plain.test_a_file_that_is_gone_or_is_none,
        plain.test_more_classes_than_an_association_can_carry,
    ],
    ids=lambda test: test.__name__.removeprefix("test_"),
)
def test_as_in_the_clear(
    test: Callable[..., None], secured: None, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    wanted = inspect.signature(test).parameters
    test(**{name: tmp_path if name == "tmp_path" else request.getfixturevalue(name) for name in wanted})


@pytest.mark.parametrize("says", ["release", "abort", "the end"])
def test_what_a_peer_says_while_nothing_is_sent_is_noticed(secured: None, tmp_path: Path, says: str) -> None:
    plain.test_what_a_peer_says_while_nothing_is_sent_is_noticed(tmp_path, says)


def test_a_large_object_arrives_whole(secured: None, tmp_path: Path) -> None:
    """Many batches, while the association's own thread reads the same connection."""
    content = bytes(range(256)) * 100_000
    path = part10(tmp_path)
    path.write_bytes(path.read_bytes()[: -len(plain.DATA_SET)] + content)
    with peer() as archive, plain.sender(archive.port, timeout_s=30.0) as out:
        assert out.deliver(job(), path) == 0x0000
    assert archive.received == [content]


@pytest.mark.parametrize(
    ("changes", "shown", "reason", "said"),
    [
        ({"tls_name": "other.example"}, "node", "certificate-other-name", "of another name"),
        ({}, "stranger", "certificate-unknown-issuer", "nobody in tls.ca has signed"),
        ({}, "nothing", "own-certificate-refused", "set tls.certificate"),
    ],
)
def test_whom_it_does_not_trust_gets_nothing_and_the_reason_is_told(
    archive_shows: ssl.SSLContext,
    tmp_path: Path,
    tls: Tls,
    changes: dict[str, Any],
    shown: str,
    reason: str,
    said: str,
) -> None:
    other = Authority(tmp_path / "other", "Other CA")
    settings = {
        "node": tls,
        "stranger": tls.model_copy(update={"ca": other.file}),
        "nothing": Tls(ca=tls.ca),
    }[shown]
    told: list[str] = []
    with (
        peer() as archive,
        security.listening(lambda occurrence: told.append(occurrence.reason)),
    ):
        destination = plain.destination(archive.port, tls=True, **changes)
        with pytest.raises(PeerError, match=said) as caught:
            Sender("archive", destination, "NODE", settings).agree(job())
    assert (caught.value.reason, caught.value.retryable) == (reason, True)
    assert told == [reason]
    assert archive.received == []


def test_a_peer_in_the_clear_is_not_sent_to_over_tls_and_is_told_apart(tmp_path: Path, tls: Tls) -> None:
    with peer() as archive:
        out = Sender("archive", plain.destination(archive.port, tls=True), "NODE", tls)
        with pytest.raises(PeerError) as caught:
            out.agree(job())
    assert caught.value.retryable
    assert archive.received == []


def test_a_new_certificate_of_ours_counts_for_the_next_association(
    archive_shows: ssl.SSLContext, tmp_path: Path
) -> None:
    authority = Authority(tmp_path / "ca", "New CA")
    issued = authority.issue("node")
    archive_shows.load_verify_locations(authority.file)
    unknown = Authority(tmp_path / "unknown", "Unknown CA")
    old = unknown.issue("node")
    for source, target in ((old.certificate, "own.pem"), (old.key, "own.key")):
        (tmp_path / target).write_bytes(source.read_bytes())
    (tmp_path / "own.key").chmod(0o600)
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(b"")
    certificates = archive_shows.get_ca_certs(binary_form=True)
    bundle.write_text("".join(ssl.DER_cert_to_PEM_cert(each) for each in certificates))
    settings = Tls(certificate=tmp_path / "own.pem", key=tmp_path / "own.key", ca=bundle)
    with peer() as archive:
        out = Sender("archive", plain.destination(archive.port, tls=True), "NODE", settings)
        with pytest.raises(PeerError):
            out.agree(job())
        (tmp_path / "own.pem").write_bytes(issued.certificate.read_bytes())
        (tmp_path / "own.key").write_bytes(issued.key.read_bytes())
        assert out.agree(job()) == plain.EXPLICIT
        out.close()


def test_files_that_are_no_good_keep_the_sender_from_starting(tmp_path: Path) -> None:
    with pytest.raises(TlsError, match=r"tls\.ca"):
        Sender("archive", plain.destination(1, tls=True), "NODE", Tls())


# ---- storage commitment ----


def due() -> Due:
    return Due(1, "MODALITY", "NODE", 1, Report("1.2.3", {}))


def test_an_answer_about_commitment_goes_over_tls(archive_shows: ssl.SSLContext, tls: Tls) -> None:
    modality = Modality(0)
    modality.start()
    try:
        requester = Requester(
            ae_title="MODALITY", host="127.0.0.1", port=modality.port, tls=True, timeout_s=60.0
        )
        said = due()
        assert commit.deliver(said, requester, tls) == 0x0000
        assert [answers(told) for _, told in modality.heard] == [{}]
        with pytest.raises(PeerError, match="it asks for a certificate"):
            commit.deliver(said, requester, Tls(ca=tls.ca))
        with pytest.raises(PeerError, match=r"tls\.ca is missing"):
            commit.deliver(said, requester, Tls())
    finally:
        modality.stop()


def test_a_destination_is_asked_for_commitment_over_tls_and_answers_on_the_same_connection(
    archive_shows: ssl.SSLContext, tls: Tls
) -> None:
    reports: list[Report] = []

    def take(report: Report) -> bool:
        reports.append(report)
        return True

    desk = commit.Desk(lambda _request: None, take)
    archive = Archive(0)
    archive.channel, archive.stored = "same", {"1.2.3": 1}
    archive.start()
    try:
        where = plain.destination(archive.port, tls=True, commitment=True)
        inquirer = commit.Inquirer("archive", where, "NODE", desk, 10.0, tls)
        assert inquirer.ask(Ask(1, "archive", "1.2.9", (Reference(CT, "1.2.3"),), 1)) == 0x0000
        wait_until(lambda: reports)
        inquirer.close()
    finally:
        archive.stop()
    assert [dict(report.answers) for report in reports] == [{Reference(CT, "1.2.3"): 0}]


# ---- archives that are asked ----


def test_an_archive_is_asked_over_tls_and_sends_over_the_same_connection(
    archive_shows: ssl.SSLContext, tls: Tls, tmp_path: Path
) -> None:
    held = [instance(number) for number in range(3)]
    with Shelf(held).open() as settings:
        peer = settings.model_copy(update={"tls": True})
        landing = Landing(tmp_path, lambda _landed: None, durable=False)
        with contextlib.closing(DimseArchive("shelf", peer, Query(ae_title="AUDITOR"), tls)) as archive:
            rows = list(archive.find(Level.IMAGE, {}, ("SOPInstanceUID",), None))
            assert len(rows) == 3
            first = held[0]
            expected = {str(ds.SOPInstanceUID): str(ds.SOPClassUID) for ds in held}
            order = Order(Level.SERIES, "1.2.300", str(first.SeriesInstanceUID), expected)
            landing.expect(order)
            assert archive.fetch(order, landing).completed == 3
        other = peer.model_copy(update={"tls_name": "other.example"})
        stranger = DimseArchive("shelf", other, Query(ae_title="AUDITOR"), tls)
        with contextlib.closing(stranger), pytest.raises(PeerError, match="is not to be trusted") as caught:
            list(stranger.find(Level.IMAGE, {}, ("SOPInstanceUID",), None))
    assert caught.value.reason == "certificate-other-name"


# ---- what the threads do to each other ----


def test_a_peer_that_aborts_in_the_middle_of_an_object(secured: None, tmp_path: Path) -> None:
    """One thread writes, the other reads the A-ABORT; neither hangs, and the next attempt is a new one."""
    path = part10(tmp_path)
    path.write_bytes(path.read_bytes() + bytes(30_000_000))
    with peer() as archive, plain.sender(archive.port, timeout_s=60.0) as out:
        out.agree(job())

        def abort() -> None:
            time.sleep(0.05)
            for association in archive.server.active_associations:
                association.abort()

        aborting = threading.Thread(target=abort)
        aborting.start()
        with pytest.raises(PeerError):
            out.deliver(job(), path)
        aborting.join()
        assert out.deliver(job(), part10(tmp_path)) == 0x0000
