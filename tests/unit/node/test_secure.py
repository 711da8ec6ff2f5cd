"""Whom TLS believes and whom it does not, told in words; files that change, and files that are no good."""

from __future__ import annotations

import logging
import os
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dicom_node import log, security
from dicom_node.config import Tls, TlsClients, TlsProfile
from dicom_node.dimse import secure
from dicom_node.errors import TlsError
from tests.certificates import Authority, Issued


@dataclass(frozen=True)
class Peer:
    host: str = "127.0.0.1"
    tls: bool = True
    tls_name: str | None = "localhost"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("other"), "Other CA")


@pytest.fixture(scope="module")
def node(authority: Authority) -> Tls:
    return settings(authority, authority.issue("node", "localhost", "127.0.0.1"))


def settings(authority: Authority, issued: Issued | None = None, **more: Any) -> Tls:
    own = {} if issued is None else {"certificate": issued.certificate, "key": issued.key}
    return Tls(ca=authority.file, **own, **more)


@dataclass
class Meeting:
    """How a handshake went, seen from both ends: a word, or None for well."""

    server: str | None = None
    client: str | None = None
    proof: secure.Proof | None = None


def meet(
    server: Tls, client: Tls, *, clients: TlsClients = TlsClients.REQUIRED, peer: Peer | None = None
) -> Meeting:
    found = Meeting()
    door = secure.Door(server, clients)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def heard(told: security.Occurrence) -> None:
            if told.event == "handshake-failed":  # what the other end tells is heard here too
                found.server = told.reason

        def serve() -> None:
            raw, address = listener.accept()
            with raw, security.listening(heard):
                connection = door.shake(raw, address, 60.0)
                if connection is not None:
                    with connection:
                        found.proof = secure.proof_of(connection)
                        connection.sendall(b"x")
                        connection.recv(1)

        serving = threading.Thread(target=serve)
        serving.start()
        opened = secure.Client(client, peer or Peer())
        arguments = opened.arguments
        assert arguments is not None
        connection = arguments[0].wrap_socket(
            socket.socket(), server_side=False, server_hostname=arguments[1]
        )
        connection.settimeout(60)
        with connection:
            try:
                connection.connect(listener.getsockname())
                connection.recv(1)
            except OSError:
                failure = opened.failure()
                found.client = failure[0] if failure else "closed"
        serving.join()
    return found


def test_two_that_believe_each_other(node: Tls, authority: Authority) -> None:
    issued = authority.issue("ct1", "ct1.example", "10.0.0.7")
    found = meet(node, settings(authority, issued))
    assert (found.server, found.client) == (None, None)
    assert found.proof is not None
    assert found.proof.names == {"ct1.example", "10.0.0.7"}
    assert found.proof.has("CT1.example")
    assert found.proof.has(f"sha256:{found.proof.fingerprint}")
    assert not found.proof.has("ct1")  # the common name counts only where there is no other
    assert not found.proof.has(f"sha256:{'0' * 64}")


def test_a_certificate_without_other_names_has_its_common_name(node: Tls, authority: Authority) -> None:
    found = meet(node, settings(authority, authority.issue("old-modality")))
    assert found.proof is not None
    assert found.proof.names == {"old-modality"}


def test_who_shows_nothing(node: Tls, authority: Authority) -> None:
    assert meet(node, settings(authority)).server == "no-certificate"
    found = meet(node, settings(authority), clients=TlsClients.OPTIONAL)
    assert (found.server, found.client, found.proof) == (None, None, secure.Proof())
    assert meet(node, settings(authority), clients=TlsClients.NONE).server is None
    assert secure.proof_of(socket.socket()) is None


def test_a_client_of_another_authority(node: Tls, authority: Authority, other: Authority) -> None:
    strange = settings(authority, other.issue("stranger", "stranger.example"))
    for clients in (TlsClients.REQUIRED, TlsClients.OPTIONAL):
        found = meet(node, strange, clients=clients)
        assert found.server == "certificate-unknown-issuer"
        assert found.client == "own-certificate-refused"


def test_a_server_of_another_authority(node: Tls, authority: Authority, other: Authority) -> None:
    found = meet(node, settings(other, authority.issue("c")))
    assert found.client == "certificate-unknown-issuer"


def test_certificates_of_the_past(node: Tls, authority: Authority) -> None:
    old = authority.issue("old", "localhost", days=-1)
    assert meet(node, settings(authority, old)).server == "certificate-expired"
    assert meet(settings(authority, old), settings(authority, authority.issue("c"))).client == (
        "certificate-expired"
    )


def test_a_server_of_another_name(node: Tls, authority: Authority) -> None:
    client = settings(authority, authority.issue("c"))
    assert meet(node, client, peer=Peer(tls_name="pacs.example")).client == "certificate-other-name"
    assert meet(node, client, peer=Peer(host="127.0.0.2", tls_name=None)).client == "certificate-other-name"
    assert meet(node, client, peer=Peer(host="127.0.0.1", tls_name=None)).client is None


def test_revoked_certificates_and_lists_that_are_missing_or_run_out(tmp_path: Path) -> None:
    authority, other = Authority(tmp_path / "a"), Authority(tmp_path / "b", "Other CA")
    good, bad = authority.issue("good", "localhost"), authority.issue("bad", "localhost")
    server = settings(authority, good, crl=authority.crl(bad))
    assert meet(server, settings(authority, good)).server is None
    assert meet(server, settings(authority, bad)).server == "certificate-revoked"
    client = settings(authority, good, crl=authority.crl())
    assert meet(settings(authority, bad), client).client == "certificate-revoked"
    old = settings(authority, good, crl=authority.crl(days=-1))
    assert meet(old, settings(authority, good)).server == "crl-expired"
    foreign = settings(authority, good, crl=other.crl())
    assert meet(foreign, settings(authority, good)).server == "crl-missing"


@pytest.mark.parametrize("profile", TlsProfile)
@pytest.mark.parametrize("rsa_keys", [True, False])
def test_every_suite_of_a_profile_is_ephemeral_and_authenticated(
    tmp_path: Path, profile: TlsProfile, rsa_keys: bool
) -> None:
    authority = Authority(tmp_path, rsa_keys=rsa_keys)
    made = settings(authority, authority.issue("node", "localhost"), profile=profile)
    context = secure.server_context(made, TlsClients.REQUIRED)
    names = {suite["name"] for suite in context.get_ciphers() if suite["protocol"] == "TLSv1.2"}
    assert names == set(secure.SUITES[profile])
    assert all(suite["aead"] for suite in context.get_ciphers())
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert meet(made, made).server is None


def test_a_peer_that_knows_only_old_protocols_or_old_suites(node: Tls) -> None:
    door = secure.Door(node, TlsClients.REQUIRED)
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")
    cbc = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    cbc.check_hostname, cbc.verify_mode = False, ssl.CERT_NONE
    cbc.maximum_version = ssl.TLSVersion.TLSv1_2
    cbc.set_ciphers("AES256-SHA:ECDHE-ECDSA-AES256-SHA")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    assert [told(door, old), told(door, cbc)] == ["tls-too-old", "no-shared-cipher"]


def told(door: secure.Door, context: ssl.SSLContext) -> str:
    """Why the door did not open."""
    reasons: list[str] = []
    ours, theirs = socket.socketpair()
    with ours, theirs:

        def knock() -> None:
            with pytest.raises(OSError), context.wrap_socket(theirs):  # noqa: PT011
                pass

        knocking = threading.Thread(target=knock)
        knocking.start()
        with security.listening(lambda occurrence: reasons.append(occurrence.reason)):
            assert door.shake(ours, ("local", 0), 60.0) is None
        ours.shutdown(socket.SHUT_RDWR)
        knocking.join()
    return reasons[0]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"\x01\x00\x00\x00\x00\x10" + bytes(16), "no-tls"),  # an A-ASSOCIATE-RQ in the clear
        (b"GET / HTTP/1.1\r\n\r\n", "no-tls"),
        (b"\x16\x03\x01\x00\x05", "handshake-timeout"),
        (b"", "handshake-timeout"),
    ],
)
def test_who_says_something_else_or_nothing(node: Tls, said: bytes, reason: str) -> None:
    door = secure.Door(node, TlsClients.REQUIRED)
    reasons: list[str] = []
    ours, theirs = socket.socketpair()
    with ours, theirs, security.listening(lambda occurrence: reasons.append(occurrence.reason)):
        theirs.sendall(said)
        patience_s = 0.2 if reason == "handshake-timeout" else 60.0
        assert door.shake(ours, ("local", 0), patience_s) is None
    assert reasons == [reason]


def test_a_handshake_in_crumbs_has_an_end(node: Tls) -> None:
    """A client that sends a byte now and then has no more time than one that is silent."""
    door, over = secure.Door(node, TlsClients.REQUIRED), threading.Event()
    ours, theirs = socket.socketpair()
    with ours, theirs:

        def dribble() -> None:
            for byte in b"\x16\x03\x01\x02\x00" + bytes(5000):
                if over.wait(0.02):
                    return
                theirs.sendall(bytes((byte,)))

        dribbling = threading.Thread(target=dribble)
        dribbling.start()
        started = time.monotonic()
        assert door.shake(ours, ("local", 0), 0.3) is None
        assert time.monotonic() - started < 60.0
        over.set()
        dribbling.join()


def test_health_checks_are_no_occurrence(node: Tls) -> None:
    door = secure.Door(node, TlsClients.REQUIRED)
    heard: list[security.Occurrence] = []
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours, security.listening(heard.append):
        assert door.shake(ours, ("local", 0), 60.0) is None
    assert not heard


# ---- files ----


@pytest.fixture
def renewed(tmp_path: Path) -> tuple[Authority, Tls, secure.Renewed]:
    authority = Authority(tmp_path)
    made = settings(authority, authority.issue("node", "localhost"), crl=authority.crl())
    return authority, made, secure.Renewed(made, secure.client_context)


def test_a_context_follows_its_files(renewed: tuple[Authority, Tls, secure.Renewed]) -> None:
    authority, made, contexts = renewed
    before = contexts.context()
    assert contexts.context() is before
    authority.issue("node", "localhost")  # both files anew
    _age(made.certificate, 1)
    after = contexts.context()
    assert after is not before
    authority.crl(days=5)
    _age(made.crl, 2)
    assert contexts.context() is not after


def _age(path: Path | None, seconds: int) -> None:
    """As if it was written so long ago: two writes may fall into one tick of the clock of files."""
    assert path is not None
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))


def test_files_that_become_no_good_leave_the_last_good_ones_in_use(
    renewed: tuple[Authority, Tls, secure.Renewed], caplog: pytest.LogCaptureFixture
) -> None:
    _, made, contexts = renewed
    before = contexts.context()
    assert made.key is not None
    made.key.write_text("nothing")
    assert contexts.context() is before
    assert [str(log.line(record)["event"]) for record in caplog.records] == ["tls-not-reloaded"]
    made.key.unlink()
    assert contexts.context() is before


def test_files_that_are_no_good_are_named(tmp_path: Path, authority: Authority) -> None:
    issued, stranger = authority.issue("one", "localhost"), authority.issue("two", "localhost")
    crossed = Tls(certificate=issued.certificate, key=stranger.key, ca=authority.file)
    absent = Tls(certificate=tmp_path / "absent.pem", key=issued.key, ca=authority.file)
    rubbish = tmp_path / "rubbish.pem"
    rubbish.write_text("no certificate")
    for settings_, said in (
        (crossed, "one.pem with .*two.key.*mismatch"),
        (absent, "absent.pem cannot be used: No such file"),
        (settings(authority, issued, crl=rubbish), "rubbish.pem cannot be used"),
        (Tls(certificate=issued.certificate, key=issued.key, ca=rubbish), "rubbish.pem cannot be used"),
        (Tls(certificate=issued.certificate, key=tmp_path / "no.key", ca=authority.file), "no.key cannot be"),
        (Tls(), "tls.certificate and tls.key are missing"),
    ):
        with pytest.raises(TlsError, match=said):
            secure.server_context(settings_, TlsClients.REQUIRED)
    with pytest.raises(TlsError, match=r"tls\.ca is missing"):
        secure.client_context(Tls())


def test_a_key_that_others_may_read_is_refused_with_the_remedy(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    issued = authority.issue("node", "localhost")
    issued.key.chmod(0o644)
    with pytest.raises(TlsError, match=f"mode 0644.*chmod 600 {issued.key}"):
        secure.client_context(settings(authority, issued))
    issued.key.chmod(0o640)  # Debian's ssl-cert
    secure.client_context(settings(authority, issued))


def test_an_encrypted_key_is_refused_and_asked_for_nowhere(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
    )

    authority = Authority(tmp_path)
    issued = authority.issue("node", "localhost")
    locked = BestAvailableEncryption(b"secret")
    issued.key.write_bytes(issued.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked))
    with pytest.raises(TlsError, match="encrypted; write it without a passphrase"):
        secure.client_context(settings(authority, issued))


def test_what_runs_out_soon_is_told_as_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    authority = Authority(tmp_path)
    made = settings(authority, authority.issue("node", "localhost", days=300), crl=authority.crl(days=3.5))
    assert set(secure.ends(made)) == {"certificate", "ca", "crl"}
    caplog.set_level(logging.INFO)
    secure.tell_ends(made)
    lines = {str(line["tls"]): line for line in map(log.line, caplog.records)}
    assert (lines["certificate"]["level"], lines["certificate"]["days"]) == ("info", 299)
    assert (lines["crl"]["level"], lines["crl"]["days"]) == ("warning", 3)
    (tmp_path / "ca.pem").write_text("nothing")
    secure.tell_ends(made)
    assert log.line(caplog.records[-1])["event"] == "tls-end-unknown"


def test_a_peer_in_the_clear_has_no_tls_and_needs_no_files() -> None:
    client = secure.Client(Tls(), Peer(tls=False))
    assert client.arguments is None
    assert client.failure() is None


def test_every_reason_is_a_word_of_the_list() -> None:
    assert secure.reason_of(ConnectionResetError())[0] == "hung-up"
    assert secure.reason_of(ssl.SSLError(1, "something else"))[0] == "handshake-failed"
    assert {"certificate-expired", "no-tls", "hung-up", "handshake-failed"} <= set(secure.WORDS)
