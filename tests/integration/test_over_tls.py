"""The receiver behind TLS: what holds in the clear holds here, and whom it lets in.

Whole tests of the receiver are run again, with nothing changed in them but the port, and how a peer connects.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE
from pynetdicom.pdu_primitives import UserIdentityNegotiation
from pynetdicom.presentation import build_context

from dicom_node import security, users
from dicom_node.config import Access, Caller, Config, Tls, TlsClients
from dicom_node.dimse.scp import Receiver
from dicom_node.errors import KeyFileError, TlsError
from tests import wire
from tests.certificates import Authority
from tests.data_sets import simple
from tests.unit.node import test_scp as plain
from tests.waiting import wait_until
from tests.wire import CT, Wire

ECHO = "1.2.840.10008.1.1"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def tls(authority: Authority) -> Tls:
    issued = authority.issue("node", "localhost", "127.0.0.1")
    return Tls(certificate=issued.certificate, key=issued.key, ca=authority.file)


@pytest.fixture(scope="module")
def modality(authority: Authority) -> ssl.SSLContext:
    """What a modality with a certificate shows; Python's own TLS, nothing of ours."""
    return context_of(authority, "ct1", "ct1.example")


def context_of(authority: Authority, name: str, *names: str) -> ssl.SSLContext:
    issued = authority.issue(name, *names)
    context = ssl.create_default_context(cafile=str(authority.file))
    context.load_cert_chain(issued.certificate, issued.key)
    return context


class TlsReceiver(Receiver):
    """Takes the port in the clear for the one with TLS, for tests that know one port."""

    @property
    def port(self) -> int | None:
        return self.tls_port


class TlsWire(Wire):
    """A sender on Python's own TLS."""

    context: ssl.SSLContext

    def __init__(self, port: int, timeout: float = 60.0) -> None:
        super().__init__(port, timeout)
        secured = self.context.wrap_socket(
            self.socket,
            server_hostname="localhost",
            do_handshake_on_connect=False,
            suppress_ragged_eofs=True,
        )
        self.socket = secured
        # a node with little patience may have hung up by now; whoever reads next is told so
        with contextlib.suppress(*wire.ENDED):
            secured.do_handshake()


@pytest.fixture
def secured(monkeypatch: pytest.MonkeyPatch, tls: Tls, modality: ssl.SSLContext) -> None:
    """Has the tests of the receiver listen and connect over TLS."""
    stock = plain.config

    def config(folder: Path, port: int = 0, **node: Any) -> Config:
        return listening(stock(folder, port, **node), tls)

    class OfModality(TlsWire):
        context = modality

    associate = functools.partialmethod(AE.associate, tls_args=(modality, "localhost"))
    monkeypatch.setattr(plain, "config", config)
    monkeypatch.setattr(plain, "Receiver", TlsReceiver)
    monkeypatch.setattr(plain, "Wire", OfModality)
    monkeypatch.setattr(AE, "associate", associate)


def listening(made: Config, tls: Tls, clients: TlsClients = TlsClients.REQUIRED, **more: Any) -> Config:
    """The configuration with a TLS port of its own choice, and none in the clear."""
    node = made.node.model_copy(update={"port": None, "tls_port": 0, "tls_clients": clients})
    return made.model_copy(update={"node": node, "tls": tls, **more})


@pytest.fixture
def site(secured: None, tmp_path: Path) -> Iterator[plain.Site]:
    with contextlib.closing(plain.Site(tmp_path)) as made:
        yield made


@pytest.mark.parametrize(
    "test",
    [
        plain.test_the_data_set_is_kept_byte_for_byte_in_a_part_10_file,
        plain.test_storage_commitment_is_accepted_in_either_role,
        plain.test_what_is_served_beside_storage_is_handed_over,
        plain.test_128_contexts,
        plain.test_a_quiet_association_still_answers,
        plain.test_a_pdu_longer_than_announced_aborts_the_association,
        plain.test_an_object_cut_off_midway_leaves_nothing,
        plain.test_stop_does_not_wait_for_the_idle_and_the_silent,
        plain.test_an_object_goes_to_the_disk_while_it_comes,
        plain.test_a_sender_that_dies_in_the_middle_leaves_nothing,
        plain.test_an_abort_in_the_middle_leaves_nothing,
        plain.test_requests_that_do_not_wait_for_answers_are_answered_one_by_one,
        plain.test_two_messages_in_one_pdu,
        plain.test_a_peer_has_its_share_of_associations,
        plain.test_an_idle_association_is_ended,
        plain.test_crumbs_do_not_hold_an_association,
        plain.test_silence_in_the_middle_of_an_object_is_shorter_than_between_two,
        plain.test_a_connection_that_asks_nothing_is_closed,
        plain.test_connections_are_watched_by_the_system,
        plain.test_no_more_associations_than_allowed,
        plain.test_what_is_on_its_way_may_finish_while_stopping,
    ],
    ids=lambda test: test.__name__.removeprefix("test_"),
)
def test_as_in_the_clear(
    test: Callable[..., None], site: plain.Site, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder = tmp_path / "again"
    folder.mkdir()
    given = {"site": site, "tmp_path": folder}
    wanted = inspect.signature(test).parameters
    test(**{name: given.get(name) or request.getfixturevalue(name) for name in wanted})


def test_pdus_that_share_records_and_records_that_share_pdus(site: plain.Site, tmp_path: Path) -> None:
    """Borders of PDUs and of TLS records have nothing to do with each other."""
    uid, content = "1.2.3", simple(CT, "1.2.3", pixels=100_000)
    command = wire.pdu(wire.DATA, wire.value(wire.store_command(CT, uid), wire.COMMAND | wire.LAST))
    pieces = [content[at : at + 16000] for at in range(0, len(content), 16000)]
    spoken = command + b"".join(
        wire.pdu(wire.DATA, wire.value(piece, wire.LAST if piece is pieces[-1] else 0)) for piece in pieces
    )
    for size in (1000, 16384, 60_000):
        with plain.Wire(port_of(site)) as one:
            one.associate()
            for at in range(0, len(spoken), size):
                one.send(spoken[at : at + size])
            assert one.status() == 0x0000
    (kept,) = site.kept()
    assert kept.endswith(content)


def port_of(site: plain.Site) -> int:
    assert site.receiver.port is not None
    return site.receiver.port


# ---- who may come in ----


@contextlib.contextmanager
def receiver(folder: Path, tls: Tls, *callers: Caller, **more: Any) -> Iterator[Receiver]:
    """A receiver with TLS and these callers."""
    access = Access(callers=callers, users=more.pop("users", None))
    made = listening(plain.config(folder), tls, access=access, **more)
    site = plain.Site(folder)
    site.receiver.stop(1.0)
    listener = Receiver(made, site.spool, site.ledger)
    listener.start()
    try:
        yield listener
    finally:
        listener.stop(1.0)
        site.close()


def asked(
    listener: Receiver, context: ssl.SSLContext | None, calling: str = "CT1", identity: Any = None
) -> Any:
    """An association that was asked for, and the reasons that were told meanwhile."""
    entity = AE(ae_title=calling)
    entity.acse_timeout = entity.network_timeout = 60
    port = listener.port if context is None else listener.tls_port
    return entity.associate(
        "127.0.0.1",
        port,
        contexts=[build_context(ECHO), build_context(CT)],
        tls_args=None if context is None else (context, "localhost"),
        ext_neg=[] if identity is None else [identity],
    )


def answer(
    listener: Receiver, context: ssl.SSLContext | None, calling: str = "CT1", identity: Any = None
) -> str:
    """`accepted`, the reason that was told, or `closed`."""
    told: list[str] = []
    with security.listening(lambda occurrence: told.append(occurrence.reason)):
        association = asked(listener, context, calling, identity)
        if association.is_established:
            assert association.send_c_echo().Status == 0x0000
            association.release()
            return "accepted"
        wait_until(lambda: told)
    return told[0]


def test_a_certificate_of_one_peer_does_not_open_for_the_title_of_another(
    tmp_path: Path, tls: Tls, authority: Authority, modality: ssl.SSLContext
) -> None:
    other = context_of(authority, "mr1", "mr1.example")
    callers = (
        Caller(ae_title="CT1", certificates=("ct1.example",)),
        Caller(ae_title="MR*", certificates=("mr1.example",), addresses=("127.0.0.0/8",)),
        Caller(ae_title="US1", addresses=("10.0.0.0/8",)),
    )
    with receiver(tmp_path, tls, *callers) as listener:
        assert answer(listener, modality) == "accepted"
        assert answer(listener, other, "MR1") == "accepted"
        assert answer(listener, other, "CT1") == "certificate-not-allowed"
        assert answer(listener, modality, "MR1") == "certificate-not-allowed"
        assert answer(listener, modality, "US1") == "address-not-allowed"
        assert answer(listener, modality, "XA1") == "caller-not-listed"


def test_the_port_in_the_clear_does_not_open_for_who_must_show_a_certificate(
    tmp_path: Path, tls: Tls, modality: ssl.SSLContext
) -> None:
    callers = (Caller(ae_title="CT1", certificates=("ct1.example",)), Caller(ae_title="OLD"))
    with receiver(tmp_path, tls, *callers) as listener:
        listener.stop(1.0)
    made = listening(plain.config(tmp_path), tls, access=Access(callers=callers))
    made = made.model_copy(update={"node": made.node.model_copy(update={"port": 0})})
    site = plain.Site(tmp_path)
    site.receiver.stop(1.0)
    both = Receiver(made, site.spool, site.ledger)
    both.start()
    try:
        assert both.port != both.tls_port
        assert answer(both, None, "OLD") == "accepted"
        assert answer(both, None, "CT1") == "certificate-not-allowed"
        assert answer(both, modality, "CT1") == "accepted"
    finally:
        both.stop(1.0)
        site.close()
    assert (both.port, both.tls_port) == (0, 0)


def test_an_unknown_certificate_does_not_get_as_far_as_a_title(
    tmp_path: Path, tls: Tls, authority: Authority
) -> None:
    stranger = ssl.create_default_context(cafile=str(authority.file))
    with receiver(tmp_path, tls) as listener:
        assert answer(listener, stranger) == "no-certificate"


def test_a_new_revocation_list_counts_for_the_next_connection(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    issued, own = authority.issue("ct1", "ct1.example"), authority.issue("node", "localhost")
    context = ssl.create_default_context(cafile=str(authority.file))
    context.load_cert_chain(issued.certificate, issued.key)
    tls = Tls(certificate=own.certificate, key=own.key, ca=authority.file, crl=authority.crl())
    with receiver(tmp_path / "site", tls) as listener:
        assert answer(listener, context) == "accepted"
        authority.crl(issued)
        assert answer(listener, context) == "certificate-revoked"


def test_files_that_are_no_good_keep_the_node_from_listening(tmp_path: Path, tls: Tls) -> None:
    absent = tls.model_copy(update={"ca": tmp_path / "absent.pem"})
    site = plain.Site(tmp_path)
    with contextlib.closing(site):
        listener = Receiver(listening(plain.config(tmp_path), absent), site.spool, site.ledger)
        with pytest.raises(TlsError, match=r"absent\.pem"):
            listener.start()
        assert not listener.listening


def test_a_reload_goes_on_with_what_was_good_while_files_are_not(tmp_path: Path) -> None:
    """A renewal that is half done, and the reload that its hook asks for."""
    authority = Authority(tmp_path / "ca")
    own = authority.issue("node", "localhost")
    context = context_of(authority, "ct1", "ct1.example")
    tls = Tls(certificate=own.certificate, key=own.key, ca=authority.file)
    with receiver(tmp_path / "site", tls) as listener:
        own.certificate.write_text("half a certifi")
        before = listener._config
        listener.adopt(before.model_copy(update={"workers": before.workers.model_copy()}))
        assert answer(listener, context) == "accepted"
        absent = tls.model_copy(update={"ca": tmp_path / "absent.pem"})
        access = Access(callers=(Caller(ae_title="NOBODY"),))
        with pytest.raises(TlsError, match="cannot be used"):
            listener.adopt(before.model_copy(update={"tls": absent, "access": access}))
        listener.adopt(before)
        assert answer(listener, context) == "accepted"


def test_a_certificate_that_names_a_directory_too(tmp_path: Path, tls: Tls, authority: Authority) -> None:
    with receiver(tmp_path, tls, Caller(ae_title="CT1", certificates=("ct9.example",))) as listener:
        context = context_of(authority, "ct9", "ct9.example", "dir:ct9")
        assert answer(listener, context, "CT1") == "accepted"
        other = context_of(authority, "ct8", "ct8.example", "dir:ct8")
        assert answer(listener, other, "CT1") == "certificate-not-allowed"


# ---- user identity ----


def identity(name: str, passcode: str, kind: int = 2, positive: bool = False) -> UserIdentityNegotiation:
    item = UserIdentityNegotiation()
    item.user_identity_type = kind
    item.positive_response_requested = positive
    item.primary_field = name.encode()
    if kind == 2:
        item.secondary_field = passcode.encode()
    return item


def test_who_must_prove_a_user_name(tmp_path: Path, tls: Tls, modality: ssl.SSLContext) -> None:
    file = tmp_path / "users"
    file.write_text(users.entry("ct1", "sesame") + "\n" + users.entry("mr1", "other") + "\n")
    file.chmod(0o600)
    callers = (Caller(ae_title="CT1", users=("ct*",)), Caller(ae_title="*"))
    with receiver(tmp_path / "site", tls, *callers, users=file) as listener:
        assert answer(listener, modality, identity=identity("ct1", "sesame")) == "accepted"
        assert answer(listener, modality, "MR1") == "accepted"  # asked for nothing
        assert answer(listener, modality) == "user-identity-missing"
        assert answer(listener, modality, identity=identity("ct1", "", kind=1)) == "user-identity-missing"
        assert answer(listener, modality, identity=identity("ct1", "wrong")) == "user-identity-refused"
        assert answer(listener, modality, identity=identity("mr1", "other")) == "user-identity-refused"
        association = asked(listener, modality, identity=identity("ct1", "sesame", positive=True))
        (response,) = [
            item
            for item in association.acceptor.primitive.user_information
            if isinstance(item, UserIdentityNegotiation)
        ]
        assert response.server_response == b""
        association.release()


def test_who_guesses_is_not_listened_to_for_a_while(
    tmp_path: Path, tls: Tls, modality: ssl.SSLContext
) -> None:
    file = tmp_path / "users"
    file.write_text(users.entry("ct1", "sesame"))
    file.chmod(0o600)
    with receiver(tmp_path / "site", tls, Caller(ae_title="CT1", users=("*",)), users=file) as listener:
        for _ in range(users.FAILURES):
            assert answer(listener, modality, identity=identity("ct1", "guess")) == "user-identity-refused"
        assert answer(listener, modality, identity=identity("ct1", "sesame")) == "user-identity-locked"


def test_a_file_of_users_that_is_no_good_keeps_the_node_from_starting(tmp_path: Path, tls: Tls) -> None:
    file = tmp_path / "users"
    file.write_text("user ct1 sesame\n")
    file.chmod(0o600)
    with pytest.raises(KeyFileError, match="users:1"), receiver(tmp_path / "s", tls, users=file):
        pass


# ---- many that say nothing ----


def test_two_hundred_silent_clients_keep_nobody_waiting(
    tmp_path: Path, tls: Tls, modality: ssl.SSLContext, record_property: Callable[[str, object], None]
) -> None:
    """pynetdicom shakes hands in the thread that accepts: one such client, and nobody else comes in."""
    before = threading.active_count()
    with receiver(tmp_path, tls) as listener, contextlib.ExitStack() as held:
        assert listener.tls_port is not None
        for _ in range(200):
            silent = socket.create_connection(("127.0.0.1", listener.tls_port), timeout=60)
            held.enter_context(silent)
        started = time.monotonic()
        assert answer(listener, modality) == "accepted"
        record_property("seconds_beside_200", round(time.monotonic() - started, 2))
        held.close()
        wait_until(lambda: threading.active_count() <= before + 4)


def test_handshakes_that_do_not_end_are_ended_and_leave_nothing(
    tmp_path: Path, tls: Tls, modality: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dicom_node.dimse.scp.ASK_S", 0.3)
    told: list[str] = []
    with receiver(tmp_path, tls) as listener, contextlib.ExitStack() as held:
        assert listener.tls_port is not None
        for said in (b"", b"\x16\x03\x01"):
            with security.listening(lambda occurrence: told.append(occurrence.reason)):
                silent = socket.create_connection(("127.0.0.1", listener.tls_port), timeout=60)
                held.enter_context(silent)
                with contextlib.suppress(ConnectionError):
                    silent.sendall(said)
                    assert silent.recv(100)[:1] in (b"", b"\x15")  # the end, or an alert before it
                wait_until(lambda: told)
            assert told.pop() == "handshake-timeout"
        assert not listener.associations


def test_silent_handshakes_count_against_the_limit_of_their_address(
    tmp_path: Path, tls: Tls, modality: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dicom_node.dimse.scp._SPARE_OF_ADDRESS", 3)
    with receiver(tmp_path, tls) as listener, contextlib.ExitStack() as held:
        assert listener.tls_port is not None
        for _ in range(3):
            held.enter_context(socket.create_connection(("127.0.0.1", listener.tls_port), timeout=60))
        server = listener._servers[0]
        wait_until(lambda: len(server._shaking) == 3)
        with socket.create_connection(("127.0.0.1", listener.tls_port), timeout=60) as late:
            assert late.recv(1) == b""
        held.close()
        wait_until(lambda: not server._shaking)
        assert answer(listener, modality) == "accepted"
