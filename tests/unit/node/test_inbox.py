"""Bytes of a connection, PDU by PDU: every byte is given on, in order, however they come."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from dicom_node.dimse import inbox
from dicom_node.dimse.inbox import HEADER, Inbox

PATIENCE_S = 60.0
Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        theirs = socket.create_connection(server.getsockname())
        ours, _ = server.accept()
    with ours, theirs:
        yield ours, theirs


def pdu(kind: int, body: bytes) -> bytes:
    return HEADER.pack(kind, len(body)) + body


def taken(box: Inbox, connection: socket.socket) -> tuple[int, bytes] | None:
    """The next PDU, None at the end."""
    header = box.header(connection, PATIENCE_S)
    if header is None:
        return None
    body = box.body(connection, header[1], PATIENCE_S)
    return None if body is None else (header[0], bytes(body))


@pytest.mark.parametrize("seed", range(20))
def test_every_byte_is_given_on_in_order(seed: int, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(seed)
    monkeypatch.setattr(inbox, "_USUAL", rng.choice([10, 1000, 1 << 17]))
    monkeypatch.setattr(inbox, "_AHEAD", rng.choice([1, 6, 7, 100, 1 << 14]))
    sizes = [rng.choice([0, 4, 150, 4096, 131072, 300_000]) for _ in range(40)]
    sent = [(rng.randrange(256), rng.randbytes(size)) for size in sizes]
    stream = b"".join(pdu(*each) for each in sent)
    ours, theirs = pair

    def send() -> None:
        at = 0
        while at < len(stream):
            count = rng.choice([1, 5, 6, 7, 1000, 70_000, 1 << 20])
            theirs.sendall(stream[at : at + count])
            at += count
            if rng.random() < 0.1:
                time.sleep(0.001)
        theirs.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=send)
    sender.start()
    box = Inbox()
    for expected in sent:
        assert box.arrives(ours, PATIENCE_S)
        assert taken(box, ours) == expected
    assert box.arrives(ours, PATIENCE_S)  # the end
    assert taken(box, ours) is None
    sender.join()


def test_several_pdus_come_with_one_read(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pair
    theirs.sendall(pdu(4, b"one") + pdu(4, b"two") + pdu(5, b"\0" * 4))
    reads: list[int] = []
    came = Inbox._came
    monkeypatch.setattr(Inbox, "_came", lambda self, count: (reads.append(count), came(self, count)))
    box = Inbox()
    assert taken(box, ours) == (4, b"one")
    assert box.arrives(ours, 0.0)
    assert taken(box, ours) == (4, b"two")
    assert reads == [28]
    assert box.held == 10


def test_what_is_held_is_given_to_who_reads_by_himself(pair: Pair) -> None:
    ours, theirs = pair
    theirs.sendall(pdu(4, b"one") + pdu(5, b"rest"))
    box = Inbox()
    assert taken(box, ours) == (4, b"one")
    buffer = bytearray(6)
    assert box.give(memoryview(buffer)) == 6
    assert bytes(buffer) == HEADER.pack(5, 4)
    assert box.give(memoryview(buffer)) == 4
    assert bytes(buffer[:4]) == b"rest"
    assert box.give(memoryview(buffer)) == box.held == 0


def test_what_is_held_may_be_dropped(pair: Pair) -> None:
    ours, theirs = pair
    theirs.sendall(pdu(4, b"one") + b"garbage")
    box = Inbox()
    assert taken(box, ours) == (4, b"one")
    assert box.drop()
    assert not box.drop()
    theirs.sendall(pdu(4, b"two"))
    assert taken(box, ours) == (4, b"two")


def test_something_arrives_or_not(pair: Pair) -> None:
    ours, theirs = pair
    box = Inbox()
    started = time.monotonic()
    assert not box.arrives(ours, 0.05)
    assert time.monotonic() - started > 0.02
    theirs.sendall(b"x")
    assert box.arrives(ours, 60.0)


def test_a_pdu_has_its_time_to_come_whole(pair: Pair) -> None:
    ours, theirs = pair
    theirs.sendall(pdu(4, b"x" * 10)[:-1])
    box = Inbox()
    assert box.header(ours, 0.1) == (4, 10)
    with pytest.raises(TimeoutError):
        box.body(ours, 10, 0.1)
    theirs.sendall(b"x")
    assert box.body(ours, 10, 0.1) == b"x" * 10


def test_a_connection_that_ends_within_a_pdu(pair: Pair) -> None:
    ours, theirs = pair
    theirs.sendall(pdu(4, b"whole") + pdu(4, b"cut off")[:-1])
    theirs.shutdown(socket.SHUT_WR)
    box = Inbox()
    assert taken(box, ours) == (4, b"whole")
    assert box.header(ours, PATIENCE_S) == (4, 7)
    assert box.body(ours, 7, PATIENCE_S) is None


def test_a_connection_that_another_thread_closed(pair: Pair) -> None:
    ours, _ = pair
    box = Inbox()
    ours.close()
    with pytest.raises(OSError, match=r"closed|descriptor"):
        box.header(ours, PATIENCE_S)


def test_the_buffer_goes_when_the_connection_is_quiet(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pair
    box = Inbox()
    theirs.sendall(pdu(4, b"one"))
    assert taken(box, ours) == (4, b"one")
    assert not box.arrives(ours, 0.0)
    assert box._view is not None
    monkeypatch.setattr(inbox, "_QUIET_S", 0.0)
    assert not box.arrives(ours, 0.01)
    assert not box.arrives(ours, 0.01)
    assert box._view is None
    theirs.sendall(pdu(4, b"two"))
    assert box.arrives(ours, PATIENCE_S)
    assert taken(box, ours) == (4, b"two")


def test_a_long_pdu_gets_a_buffer_and_a_short_one_behind_it_the_same(pair: Pair) -> None:
    ours, theirs = pair
    long = b"x" * 500_000
    sender = threading.Thread(target=theirs.sendall, args=(pdu(4, long) + pdu(4, b"short"),))
    sender.start()
    box = Inbox()
    assert taken(box, ours) == (4, long)
    before = box._view
    assert taken(box, ours) == (4, b"short")
    assert box._view is before
    sender.join()
