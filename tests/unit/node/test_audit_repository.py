"""The connection to the repository: TLS with certificates on both sides, TCP, UDP; and who is not let in."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

import pytest

from dicom_node.audit.repository import Datagrams, Stream, repository_of
from dicom_node.config import Audit, AuditTransport, Tls
from dicom_node.dimse.secure import client_context
from dicom_node.errors import PeerError
from tests.audit_trails import Papers, Sink, papers


def settings(port: int, transport: AuditTransport = AuditTransport.TLS) -> Audit:
    return Audit(host="localhost", port=port, transport=transport, timeout_s=5.0)


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Papers]:
    folder = tmp_path_factory.mktemp("papers")
    authority, signer = papers(folder, "authority")
    stranger, _ = papers(folder, "stranger")
    return {
        "authority": authority,
        "repository": papers(folder, "repository", signer)[0],
        "node": papers(folder, "node", signer)[0],
        "stranger": stranger,
    }


def secured(sink: Sink, known: dict[str, Papers], shows: str, believes: str = "authority") -> Stream:
    own = known[shows]
    tls = Tls(certificate=own.certificate, key=own.key, ca=known[believes].certificate)
    return Stream(settings(sink.port), lambda: client_context(tls))


def again_and_again(*steps: Callable[[], object]) -> None:
    for _ in range(100):
        for step in steps:
            step()
        time.sleep(0.02)


def settled(repository: Stream) -> bool:
    deadline = time.monotonic() + 5.0
    while not repository.check():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return True


def test_messages_arrive_over_tls_and_the_end_is_certain(known: dict[str, Papers]) -> None:
    with Sink(known["repository"], known["authority"].certificate) as sink:
        repository = secured(sink, known, "node")
        for message in (b"one", "zwei, ä".encode()):
            repository.send(message)
        assert settled(repository)
        assert repository.close()
        assert sink.messages == [b"one", "zwei, ä".encode()]


def test_a_certificate_that_the_repository_does_not_know_is_told(known: dict[str, Papers]) -> None:
    with Sink(known["repository"], known["authority"].certificate) as sink:
        repository = secured(sink, known, "stranger")
        with pytest.raises(PeerError, match="audit repository localhost:"):
            # with TLS 1.3 the server refuses after the client is done
            again_and_again(lambda: repository.send(b"x"), repository.check)
        assert sink.messages == []


def test_a_repository_that_nobody_vouches_for_is_told_nothing(known: dict[str, Papers]) -> None:
    with Sink(known["stranger"], known["authority"].certificate) as sink:
        with pytest.raises(PeerError, match="cannot be reached"):
            secured(sink, known, "node").send(b"secret")
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
        listener.settimeout(5.0)
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
