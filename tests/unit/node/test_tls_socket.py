"""A TLS connection that two threads may use, that is readable only when there is something to read."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import socket
import ssl
import threading
import time
from collections.abc import Iterator

import pytest

from dicom_node.config import Tls, TlsClients
from dicom_node.dimse import exchange, secure
from dicom_node.dimse.tls_socket import TlsSocket
from tests.certificates import Authority
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    authority = Authority(tmp_path_factory.mktemp("ca"))
    issued = authority.issue("node", "localhost")
    return Tls(certificate=issued.certificate, key=issued.key, ca=authority.file)


Pair = tuple[TlsSocket, TlsSocket]


@contextlib.contextmanager
def connected(settings: Tls) -> Iterator[Pair]:
    """Both ends of a connection: the server's, the client's."""
    made: list[TlsSocket] = []
    server = secure.server_context(settings, TlsClients.REQUIRED)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            made.append(TlsSocket.accept(listener.accept()[0], server, 60.0))

        accepting = threading.Thread(target=accept)
        accepting.start()
        client = TlsSocket.unconnected(
            socket.socket(), secure.client_context(settings), "localhost", lambda _error: None
        )
        client.settimeout(60)
        client.connect(listener.getsockname())
        accepting.join()
    with made[0], client:
        yield made[0], client


def read(connection: TlsSocket, count: int) -> bytes:
    got = b""
    while len(got) < count and (piece := connection.recv(count - len(got))):
        got += piece
    return got


def test_what_is_sent_arrives_in_both_directions(settings: Tls) -> None:
    with connected(settings) as (server, client):
        assert client.version() == "TLSv1.3"
        for sender, receiver in ((client, server), (server, client)):
            sender.sendall(bytes(range(256)) * 200)
            assert read(receiver, 51200) == bytes(range(256)) * 200
            assert sender.send(b"") == 0


def test_it_is_readable_only_when_there_is_something_to_read(settings: Tls) -> None:
    """Also just after the handshake, when the session tickets of TLS 1.3 are on their way."""
    with connected(settings) as (server, client):
        time.sleep(0.05)
        assert not client.readable()
        assert not server.readable()
        server.sendall(b"ab")
        wait_until(client.readable)
        assert client.recv(1) == b"a"
        assert client.readable()  # although the network has nothing more
        assert client.recv(10) == b"b"
        assert not client.readable()
        server.shutdown(socket.SHUT_RDWR)
        wait_until(client.readable)
        assert client.recv(1) == b""


def test_half_a_record_is_nothing_to_read(settings: Tls) -> None:
    with connected(settings) as (server, client):
        with server._session.state:
            server._session.ready().write(b"x" * 1000)
        record = server._encrypted()
        for at in range(0, len(record), 300):
            assert not client.readable()
            server._raw.sendall(record[at : at + 300])
            time.sleep(0.02)
        wait_until(client.readable)
        assert read(client, 1000) == b"x" * 1000


def test_a_record_at_a_time_or_many_small_reads(settings: Tls) -> None:
    content = os.urandom(200_000)
    with connected(settings) as (server, client):
        sending = threading.Thread(target=client.sendall, args=(content,))
        sending.start()
        random_, got = random.Random(1), bytearray()
        while len(got) < len(content):
            if random_.random() < 0.3:
                server.readable()
            got += server.recv(random_.choice((1, 6, 1000, 16384, 100_000)))
        sending.join()
    assert got == content


def test_two_threads_read_and_write_at_once_without_disturbing_each_other(settings: Tls) -> None:
    content = os.urandom(1 << 20)
    digest = hashlib.sha256(content * 8).digest()
    with connected(settings) as ends:
        found: list[bytes] = []

        def send(end: TlsSocket) -> None:
            with end.dup() as handle:
                for _ in range(8):
                    handle.sendall(content)

        def receive(end: TlsSocket) -> None:
            seen, left = hashlib.sha256(), 8 * len(content)
            while left:
                piece = end.recv(min(left, 100_000))
                seen.update(piece)
                left -= len(piece)
            found.append(seen.digest())

        threads = [threading.Thread(target=do, args=(end,)) for end in ends for do in (send, receive)]
        for each in threads:
            each.start()
        for each in threads:
            each.join(120)
    assert found == [digest, digest]


def test_a_reader_that_waits_has_an_end(settings: Tls) -> None:
    with connected(settings) as (server, _client):
        server.settimeout(0.1)
        with pytest.raises(TimeoutError):
            server.recv(1)


def test_crumbs_of_a_record_do_not_lengthen_the_wait(settings: Tls) -> None:
    """The time-out is that of the call, not of each piece that comes from the network."""
    with connected(settings) as (server, client):
        with client._session.state:
            client._session.ready().write(b"x" * 1000)
        record, over = client._encrypted(), threading.Event()

        def dribble() -> None:
            for at in range(len(record)):
                if over.wait(0.02):
                    return
                client._raw.sendall(record[at : at + 1])

        dribbling = threading.Thread(target=dribble)
        dribbling.start()
        server.settimeout(0.3)
        with pytest.raises(TimeoutError):
            server.recv(1)
        over.set()
        dribbling.join()


def test_a_writer_that_nobody_reads_has_an_end_and_can_be_broken_off(settings: Tls) -> None:
    with connected(settings) as (server, client):
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.sendall(bytes(1 << 26))
        assert server is not None
    with connected(settings) as (_server, client):
        broken = threading.Event()

        def send() -> None:
            with contextlib.suppress(OSError), client.dup() as handle:
                handle.settimeout(30.0)
                while True:
                    handle.sendall(bytes(1 << 20))
            broken.set()

        sending = threading.Thread(target=send)
        sending.start()
        time.sleep(0.2)
        client.shutdown(socket.SHUT_RDWR)
        assert broken.wait(60)
        sending.join()


def test_leave_is_taken_as_tls_wants_it(settings: Tls) -> None:
    """A peer that tells a farewell from a cut line sees the farewell."""
    server = secure.server_context(settings, TlsClients.NONE)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection = TlsSocket.accept(listener.accept()[0], server, 60.0)
            connection.sendall(b"bye")
            connection.shutdown(socket.SHUT_RDWR)
            connection.close()

        serving = threading.Thread(target=serve)
        serving.start()
        context = secure.client_context(settings)
        with (
            socket.create_connection(listener.getsockname()) as raw,
            context.wrap_socket(raw, server_hostname="localhost", suppress_ragged_eofs=False) as plain,
        ):
            assert plain.recv(10) == b"bye"
            assert plain.recv(10) == b""  # and no SSLEOFError
        serving.join()


def test_damage_on_the_way_is_an_error_and_told(settings: Tls) -> None:
    with connected(settings) as (server, client):
        with client._session.state:
            client._session.ready().write(b"x" * 100)
        record = bytearray(client._encrypted())
        record[50] ^= 1
        client._raw.sendall(record)
        with pytest.raises(ssl.SSLError):
            server.recv(100)
        with pytest.raises(ssl.SSLError, match=r"(?i)mac"):
            client.readable()


def test_it_is_no_connection_before_it_is_connected(settings: Tls) -> None:
    with TlsSocket.unconnected(
        socket.socket(), secure.client_context(settings), "localhost", lambda _error: None
    ) as client:
        assert not client.heard
        with pytest.raises(ConnectionError):
            client.sendall(b"x")
        with pytest.raises(ConnectionError):
            client.version()


def test_options_are_those_of_the_tcp_socket(settings: Tls) -> None:
    """A sender asks how far away its peer is: without an answer nothing would go out over TLS."""
    with connected(settings) as pair:
        for each in pair:
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            assert each.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
            assert len(each.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 152)) == 152
            assert exchange._is_near(each) in (True, False)
