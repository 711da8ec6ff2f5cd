"""The connection to the repository: TLS with certificates on both sides, TCP, UDP; and who is not let in."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from dicom_node.audit.repository import Datagrams, Stream, repository_of
from dicom_node.config import Audit, AuditTransport, Tls
from dicom_node.dimse.secure import client_context
from dicom_node.errors import PeerError
from tests.audit_trails import Sink
from tests.certificates import Authority, Issued
from tests.waiting import wait_until


def settings(port: int, transport: AuditTransport = AuditTransport.TLS) -> Audit:
    return Audit(host="localhost", port=port, transport=transport, timeout_s=60.0)


@dataclass(frozen=True)
class Known:
    """An authority, what it vouches for, and somebody for whom another one does."""

    ca: Path
    repository: Issued
    node: Issued
    stranger: Issued


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Known:
    authority, other = (Authority(tmp_path_factory.mktemp(name)) for name in ("ours", "theirs"))
    own = [authority.issue(name, "localhost") for name in ("repository", "node")]
    return Known(authority.file, *own, other.issue("stranger", "localhost"))


def secured(sink: Sink, known: Known, shows: Issued) -> Stream:
    tls = Tls(certificate=shows.certificate, key=shows.key, ca=known.ca)
    return Stream(settings(sink.port), lambda: client_context(tls))


def again_and_again(*steps: Callable[[], object]) -> None:
    """Until one of them raises an error, with which this is left."""

    def turn() -> bool:
        for step in steps:
            step()
        return False

    wait_until(turn)


def settled(repository: Stream) -> bool:
    wait_until(repository.check)
    return True


def test_messages_arrive_over_tls_and_the_end_is_certain(known: Known) -> None:
    with Sink(known.repository, known.ca) as sink:
        repository = secured(sink, known, known.node)
        for message in (b"one", "zwei, ä".encode()):
            repository.send(message)
        assert settled(repository)
        assert repository.close()
        assert sink.messages == [b"one", "zwei, ä".encode()]


def test_a_certificate_that_the_repository_does_not_know_is_told(known: Known) -> None:
    with Sink(known.repository, known.ca) as sink:
        repository = secured(sink, known, known.stranger)
        with pytest.raises(PeerError, match="audit repository localhost:"):
            # with TLS 1.3 the server refuses after the client is done
            again_and_again(lambda: repository.send(b"x"), repository.check)
        assert sink.messages == []


def test_a_repository_that_nobody_vouches_for_is_told_nothing(known: Known) -> None:
    with Sink(known.stranger, known.ca) as sink:
        with pytest.raises(PeerError, match="cannot be reached"):
            secured(sink, known, known.node).send(b"secret")
        assert sink.messages == []


def test_one_that_hangs_up_is_noticed_and_may_come_back() -> None:
    sink = Sink()
    repository = repository_of(settings(sink.port, AuditTransport.TCP), None)
    with sink:
        repository.send(b"one")
        sink.wait_for_bytes(1)
    with pytest.raises(PeerError, match="has hung up"):
        again_and_again(repository.check)
    with pytest.raises(PeerError, match="cannot be reached"):
        repository.send(b"two")
    with sink:
        repository.send(b"two")
        assert repository.close()
    assert sink.messages == [b"one", b"two"]


def test_an_end_without_a_connection_is_not_certain() -> None:
    assert not Stream(settings(1), None).close()


def test_a_message_is_a_datagram() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(60)
        made = Audit(host="127.0.0.1", port=listener.getsockname()[1], transport=AuditTransport.UDP)
        repository = repository_of(made, None)
        repository.send(b"one")
        assert listener.recv(100) == b"one"
        assert repository.check()
        assert repository.close()


def test_a_port_at_which_nobody_listens_is_noticed_sooner_or_later() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    repository = Datagrams(Audit(host="127.0.0.1", port=port, transport=AuditTransport.UDP))
    with pytest.raises(PeerError, match="takes no messages"):
        again_and_again(lambda: repository.send(b"one"), repository.check)


def test_files_of_tls_that_are_no_good_are_a_repository_that_cannot_be_reached(tmp_path: Path) -> None:
    with Sink() as sink:
        repository = Stream(settings(sink.port), lambda: client_context(Tls(ca=tmp_path / "none.pem")))
        with pytest.raises(PeerError, match=r"cannot be reached: .*none\.pem"):
            repository.send(b"x")
