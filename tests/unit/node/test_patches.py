"""The repairs of pynetdicom that the tests of receiver and sender do not see from outside."""

from __future__ import annotations

import logging
import socket
import struct
import threading
import time
from types import SimpleNamespace
from typing import Any

import pynetdicom
import pytest
from pynetdicom import _config
from pynetdicom.timer import Timer
from pynetdicom.transport import AssociationSocket

from dicom_node import log
from dicom_node.dimse import patches


class Loop(threading.Thread):
    """An association's loop as the library writes it, slow between gate and queue."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.dul = SimpleNamespace(_idle_timer=SimpleNamespace(_start_time=None))
        self.gate = patches._Gate(self)
        self.ending = False
        self.away_from_gate = False
        self.turns = 0

    def run(self) -> None:
        while not self.ending:
            self.gate.wait()
            self.away_from_gate = True
            time.sleep(0.005)
            self.turns += 1
            self.away_from_gate = False


def test_whoever_closes_the_gate_finds_the_loop_before_it() -> None:
    loop = Loop()
    loop.start()
    for _ in range(40):
        loop.gate.clear()
        turns = loop.turns
        assert not loop.away_from_gate
        time.sleep(0.002)
        loop.gate.set()
        loop.gate.clear()  # at once again: the loop was woken and must not slip through
        assert not loop.away_from_gate
        assert loop.turns - turns <= 1
        loop.gate.set()
        time.sleep(0.002)
    loop.ending = True
    loop.join(120)
    assert not loop.is_alive()


def test_the_gate_of_a_loop_that_ended_closes_at_once() -> None:
    loop = Loop()
    loop.ending = True
    loop.start()
    loop.join(120)
    loop.gate.clear()


class Reader(threading.Thread):
    """A thread that reads for an association, and is held up where it has found no gate yet."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.gate: patches._ReaderGate | None = None
        self.found_none, self.may_read = threading.Event(), threading.Event()
        self.ending = self.read = False

    def run(self) -> None:
        while not self.ending:
            gate = self.gate
            if gate is not None:
                gate.wait()
            else:
                self.found_none.set()
                self.may_read.wait(120)
            self.read = True


def test_a_reader_that_passed_before_there_was_a_gate_is_waited_for() -> None:
    # else it takes the answer to the first request, and whoever sent that waits for nothing
    reader = Reader()
    reader.start()
    assert reader.found_none.wait(120)
    reader.gate = patches._ReaderGate(reader)
    threading.Timer(0.3, reader.may_read.set).start()
    reader.gate.clear()
    assert reader.read, "closed while the reader was on its way"
    reader.read = False
    time.sleep(0.05)
    assert not reader.read
    reader.ending = True
    reader.gate.set()
    reader.join(120)


def test_the_library_is_repaired_once_and_kept_quiet() -> None:
    assert patches.apply()
    assert patches.apply()
    assert _config.LOG_HANDLER_LEVEL == "none"
    assert not logging.getLogger("pynetdicom").isEnabledFor(logging.ERROR)


def test_another_version_of_the_library_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(patches, "_applied", False)
    monkeypatch.setattr(pynetdicom, "__version__", "4.0.0")
    assert not patches.apply()
    assert any("library-not-repaired" in str(log.line(record)) for record in caplog.records)


def wrapper(connection: socket.socket, patience: float | None) -> Any:
    """What the library hangs around a socket, as far as the repairs look at it."""
    made = AssociationSocket.__new__(AssociationSocket)
    made.socket = connection
    made._assoc = SimpleNamespace(network_timeout=patience, is_acceptor=False)
    return made


def test_a_timer_that_is_stopped_has_not_run_out_and_starts_anew() -> None:
    """It may have, a moment ago: what it was to wait for came first."""
    patches.apply()
    late = Timer(-1.0)
    late.start()
    assert late.expired
    late.stop()
    assert not late.expired
    late.start()
    assert late.expired


def test_a_clock_that_is_set_ends_no_association(monkeypatch: pytest.MonkeyPatch) -> None:
    patches.apply()
    idle, ended = Timer(60.0), Timer(-1.0)
    for timer in (idle, ended):
        timer.start()
    for jump_s in (7200.0, -7200.0):
        now = time.time() + jump_s
        monkeypatch.setattr(time, "time", lambda now=now: now)
        assert not idle.expired
        assert ended.expired


def test_a_peer_that_stops_in_the_middle_is_given_up() -> None:
    patches.apply()
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
        with ours, theirs:
            theirs.sendall(b"half")
            with pytest.raises(TimeoutError):
                wrapper(ours, 0.1).recv(8)


def test_what_was_read_before_the_peer_closed_is_returned() -> None:
    patches.apply()
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
        with ours:
            theirs.sendall(b"half")
            theirs.close()
            assert wrapper(ours, None).recv(8) == b"half"


def test_a_socket_that_the_peer_reset_is_closed() -> None:
    patches.apply()
    unconnected = socket.socket()
    wrapper(unconnected, None)._shutdown_socket()
    assert unconnected.fileno() == -1


class Nowhere:
    """A sink that is not asked."""


def test_an_object_may_pause_and_may_be_slow_but_not_too_much_of_either() -> None:
    conduct = patches._Conduct(Nowhere(), stall_s=10.0, began=100.0, last=100.0)
    assert not conduct.overdue(109.9)
    assert conduct.overdue(110.1)
    conduct.last = 150.0
    assert conduct.overdue(150.1)  # fifty seconds for nothing at all
    conduct.received = 50 * patches.SLOWEST_BYTES_S
    assert not conduct.overdue(155.0)
    assert conduct.overdue(160.1)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (b"", []),
        (b"\0\0\0\2\1\3", [(1, b"\3")]),
        (b"\0\0\0\3\1\0x\0\0\0\2\3\2", [(1, b"\0x"), (3, b"\2")]),
    ],
)
def test_the_values_of_a_pdu(values: bytes, expected: list[tuple[int, bytes]]) -> None:
    primitive = patches._Data(bytearray(6) + values).to_primitive()
    assert [(number, bytes(view)) for number, view in primitive.presentation_data_value_list] == expected


@pytest.mark.parametrize("values", [b"\0", b"\0\0\0\1\1", b"\0\0\0\3\1\3", b"\0\0\0\2\1\3\0"])
def test_values_that_do_not_fit_their_pdu(values: bytes) -> None:
    with pytest.raises((ValueError, struct.error)):
        patches._Data(bytearray(6) + values)
