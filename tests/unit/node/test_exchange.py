"""One object and its answer over a connection that is this thread's, with a peer made of bytes."""

from __future__ import annotations

import contextlib
import queue
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from dicom_node.dimse import exchange, patches
from dicom_node.dimse.exchange import Exchange
from dicom_node.dimse.reception import part10_head
from dicom_node.dimse.stream import Outgoing, Request
from dicom_node.errors import SpoolError
from dicom_node.jobs import Arrival
from tests.answering import ABORT, RELEASE, response

REQUEST = Request(7, CTImageStorage, "1.2.3")
SUCCESS = response(7, 0x0000)


class Line:
    """As much of an association as an exchange touches, over a pair of sockets."""

    def __init__(self, largest: int = 16384) -> None:
        self.near, self.far = socket.socketpair()
        self.is_established = True
        self.is_acceptor = False
        self.requestor = SimpleNamespace(maximum_length=16382)
        self.dimse = SimpleNamespace(maximum_pdu_size=largest, msg_queue=queue.Queue())
        self.restarted = 0
        self.dul = SimpleNamespace(
            socket=SimpleNamespace(socket=self.near),
            event_queue=queue.Queue(),
            to_user_queue=queue.Queue(),
            to_provider_queue=queue.Queue(),
            state_machine=SimpleNamespace(current_state="Sta6"),
            _idle_timer=SimpleNamespace(restart=self._restart, _start_time=None),
        )
        self.dul.is_alive = lambda: False
        self.is_alive = lambda: False
        assert patches.apply()
        patches.install_gates(self)

    def _restart(self) -> None:
        self.restarted += 1

    @property
    def is_let_go(self) -> bool:
        reader: threading.Event = self.dul._dicom_node_gate
        return reader.is_set() and self._reactor_checkpoint.is_set()  # type: ignore[attr-defined, no-any-return]

    def close(self) -> None:
        self.near.close()
        self.far.close()


@pytest.fixture
def line() -> Iterator[Line]:
    made = Line()
    yield made
    made.close()


def some_object(folder: Path, size: int = 1000) -> Outgoing:
    path = folder / "object"
    with path.open("wb") as file:
        head = part10_head(Arrival(CTImageStorage, "1.2.3", ExplicitVRLittleEndian, "A", "B", "r"))
        file.write(head)
        file.truncate(len(head) + size)
    return Outgoing(path)


def sent(
    line: Line,
    out: Outgoing,
    timeout_s: float = 60.0,
    meanwhile: Callable[[], float | None] = exchange.nothing_else,
) -> int | None:
    own = Exchange(line)
    try:
        with out:
            return own.store(REQUEST, own.load(out, 3), timeout_s, meanwhile)
    finally:
        own.close()


def test_the_command_comes_first_and_then_the_object(tmp_path: Path, line: Line) -> None:
    line.far.sendall(response(7, 0xB000))
    assert sent(line, some_object(tmp_path)) == 0xB000
    assert line.is_let_go
    line.near.close()
    received, found, at = line.far.makefile("rb").read(), [], 0
    while at < len(received):
        _, length, item, context, control = struct.unpack_from(">BxIIBB", received, at)
        assert (length, context) == (item + 4, 3)
        found.append((control, received[at + 12 : at + 6 + length]))
        at += 6 + length
    assert [control for control, _ in found] == [0x03, 0x02]
    assert found[1][1] == bytes(1000)


@pytest.mark.parametrize("said", [response(8, 0x0000), SUCCESS.replace(b"\0\0\0\x09", b"\0\0\1\x09")])
def test_an_answer_to_something_else_or_without_a_status(tmp_path: Path, line: Line, said: bytes) -> None:
    line.far.sendall(said)
    assert sent(line, some_object(tmp_path)) is None


def test_an_answer_that_comes_byte_by_byte(tmp_path: Path, line: Line) -> None:
    def dribble() -> None:
        for number in range(len(SUCCESS)):
            line.far.sendall(SUCCESS[number : number + 1])
            time.sleep(0.001)

    peer = threading.Thread(target=dribble)
    peer.start()
    assert sent(line, some_object(tmp_path)) == 0x0000
    peer.join()


@pytest.mark.parametrize(
    ("said", "what"),
    [
        (ABORT, "aborted"),
        (RELEASE, "asked for release"),
        (b"GET / HTTP", "no PDU"),
        (b"", "association ended"),
    ],
)
def test_a_peer_that_ends_it_is_heard_at_once(tmp_path: Path, line: Line, said: bytes, what: str) -> None:
    line.far.sendall(said)
    line.far.shutdown(socket.SHUT_WR)
    started = time.monotonic()
    with pytest.raises(ConnectionError, match=what):
        sent(line, some_object(tmp_path), 60.0)
    assert time.monotonic() - started < 30.0
    assert line.is_let_go


def test_no_answer_in_time(tmp_path: Path, line: Line) -> None:
    assert sent(line, some_object(tmp_path), 0.05) is None


def test_a_peer_that_takes_nothing_is_given_up_within_one_batch(
    tmp_path: Path, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "SLOWEST_BYTES_S", 1 << 40)
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        sent(line, some_object(tmp_path, 1 << 30), 0.2)
    assert time.monotonic() - started < 60.0
    assert line.is_let_go


def test_a_peer_that_hangs_up_in_the_middle(tmp_path: Path, line: Line) -> None:
    line.far.close()
    with pytest.raises(OSError, match=r"Broken pipe|reset"):
        sent(line, some_object(tmp_path, 1 << 22))


def test_a_file_that_is_cut_off_on_the_way(tmp_path: Path, line: Line) -> None:
    own, out = Exchange(line), some_object(tmp_path, 1 << 21)
    loaded = own.load(out, 1)
    with out.path.open("r+b") as file:
        file.truncate(1 << 20)
    drain = threading.Thread(target=lambda: line.far.makefile("rb").read())
    drain.start()
    with pytest.raises(SpoolError, match="to its end"):
        own.store(REQUEST, loaded, 60.0)
    own.close()
    line.near.shutdown(socket.SHUT_RDWR)
    drain.join()


def test_what_is_done_meanwhile_is_done_again_when_it_wants_until_the_answer_comes(
    tmp_path: Path, line: Line
) -> None:
    calls: list[int] = []

    def meanwhile() -> float | None:
        calls.append(1)
        if len(calls) == 3:
            line.far.sendall(SUCCESS)
            return None
        return 0.01

    assert sent(line, some_object(tmp_path), 30.0, meanwhile) == 0x0000
    assert len(calls) == 3


def test_an_answer_that_is_there_is_read_however_long_the_rest_took(tmp_path: Path, line: Line) -> None:
    def meanwhile() -> None:
        time.sleep(0.1)
        line.far.sendall(SUCCESS)

    assert sent(line, some_object(tmp_path), 0.05, meanwhile) == 0x0000


def test_who_talks_on_without_an_answer_is_given_up(tmp_path: Path, line: Line) -> None:
    nothing, given_up = struct.pack(">BxI", 0x04, 0), threading.Event()

    def talk() -> None:
        with contextlib.suppress(OSError):
            while not given_up.is_set():
                line.far.sendall(nothing)

    peer = threading.Thread(target=talk, daemon=True)
    peer.start()
    assert sent(line, some_object(tmp_path), 0.05) is None
    given_up.set()
    line.far.shutdown(socket.SHUT_RDWR)
    peer.join()


def test_who_speaks_between_two_objects_is_not_sent_another(tmp_path: Path, line: Line) -> None:
    own = Exchange(line)
    assert own.usable
    line.far.sendall(ABORT)
    assert not own.usable
    own.close()


def test_a_second_answer_is_noticed(tmp_path: Path, line: Line) -> None:
    own = Exchange(line)
    line.far.sendall(SUCCESS + SUCCESS)
    with some_object(tmp_path) as out:
        assert own.store(REQUEST, own.load(out, 1), 5.0) == 0x0000
    assert not own.usable
    own.close()


def test_memory_is_used_again(tmp_path: Path, line: Line) -> None:
    own, out = Exchange(line), some_object(tmp_path)
    first = own.load(out, 1)
    own.unload(first)
    assert own.load(out, 1).memory is first.memory
    out.close()
    own.close()


@pytest.mark.parametrize(
    "over",
    [
        lambda line: setattr(line, "is_established", False),
        lambda line: setattr(line.dul.state_machine, "current_state", "Sta8"),
        lambda line: line.dimse.msg_queue.put((1, "a request")),
        lambda line: line.dul.event_queue.put("Evt16"),
        lambda line: setattr(line.dul.socket, "socket", None),
    ],
)
def test_an_association_that_is_over_is_left_to_the_library(line: Line, over: Callable[[Line], Any]) -> None:
    over(line)
    with pytest.raises(ConnectionError):
        Exchange(line)
    assert line.is_let_go


def test_whoever_gives_the_connection_back_leaves_no_idle_time_behind(line: Line) -> None:
    """The timer stood still meanwhile; run out, it would end the association as idle."""
    own = Exchange(line)
    before = line.restarted
    own.close()
    assert line.restarted > before


def test_little_waits_in_the_system_for_a_peer_that_is_near(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
        with near, far:
            asked = near.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 152)
            assert exchange._is_near(near) == (struct.unpack("148xI", asked)[0] < 500)
            monkeypatch.setattr(exchange, "_NEAR_US", 0)
            assert not exchange._is_near(near)
            monkeypatch.setattr(exchange, "_TCP_INFO", None)
            assert not exchange._is_near(near)


def test_what_is_no_tcp_is_left_alone() -> None:
    near, far = socket.socketpair()
    with near, far:
        assert not exchange._is_near(near)
