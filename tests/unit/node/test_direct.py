"""Requests that the reading thread answers: whose they are, and how an association's two threads rest."""

from __future__ import annotations

import queue
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from dicom_node.dimse.direct import FAULT, Direct, Line, Send
from tests.wire import COMMAND, CT, LAST, VERIFICATION, command, store_command

ECHO = command(sop_class=VERIFICATION, field=0x0030, message_id=1, data_set=0x0101)


class Inflow:
    """What came of a data set."""

    def __init__(self) -> None:
        self.data, self.discarded = b"", False

    def write(self, data: memoryview) -> None:
        self.data += data

    def discard(self) -> None:
        self.discarded = True


class Ours:
    """The requests of an association with contexts 1 (CT) and 3 (Verification)."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, str, int]] = []
        self.inflow = Inflow()
        self.sent: list[bytes] = []
        self.requests = Direct(
            {1: CT, 3: VERIFICATION}.get, self.begin, self.answer, self.sent.append, lambda: 0
        )

    def begin(self, *said: Any) -> Inflow:
        self.begun.append(said)
        return self.inflow

    def answer(self, _inflow: Inflow, send: Send) -> None:
        assert self.requests.answering
        send(0xA700, "no")

    def take(self, context_id: int, control: int, data: bytes) -> bool:
        return self.requests.take(context_id, memoryview(bytes((control,)) + data))


def test_an_object_is_taken_in_pieces_and_answered() -> None:
    ours = Ours()
    assert ours.take(1, COMMAND | LAST, store_command(CT, "1.2.3"))
    assert ours.requests.busy
    assert ours.take(1, 0, b"ab")
    assert not ours.sent
    assert ours.take(1, LAST, b"cd")
    assert (ours.begun, ours.inflow.data) == ([(CT, "1.2.3", 1)], b"abcd")
    assert len(ours.sent) == 1
    assert not ours.requests.busy
    assert not ours.requests.answering


@pytest.mark.parametrize(
    ("context_id", "control", "data"),
    [
        (1, COMMAND, store_command(CT, "1.2.3")),
        (3, COMMAND | LAST, store_command(CT, "1.2.3")),
        (5, COMMAND | LAST, store_command(CT, "1.2.3")),
        (3, COMMAND | LAST, store_command(VERIFICATION, "1.2.3")),
        (1, COMMAND | LAST, ECHO),
        (1, LAST, b"abcd"),
    ],
)
def test_what_is_not_for_us_is_left_alone(context_id: int, control: int, data: bytes) -> None:
    ours = Ours()
    assert not ours.take(context_id, control, data)
    assert not ours.requests.busy
    assert not ours.sent


def test_an_echo_is_answered_at_once() -> None:
    ours = Ours()
    assert ours.take(3, COMMAND | LAST, ECHO)
    assert len(ours.sent) == 1
    assert not ours.requests.busy


def test_what_was_begun_and_will_never_end_is_thrown_away() -> None:
    ours = Ours()
    ours.requests.discard()
    ours.take(1, COMMAND | LAST, store_command(CT, "1.2.3"))
    ours.requests.discard()
    assert ours.inflow.discarded
    assert not ours.requests.busy


def test_a_fault_before_the_answer_is_answered_and_one_behind_it_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours, early = Ours(), [True]

    def broken(_inflow: Inflow, send: Send) -> None:
        if not early.pop():
            send(0, "")
        raise RuntimeError("a fault")

    monkeypatch.setattr(ours.requests, "_answer", broken)
    for is_early in (True, False):
        early.append(is_early)
        ours.sent.clear()
        ours.take(1, COMMAND | LAST, store_command(CT, "1.2.3"))
        ours.take(1, LAST, b"cd")
        (sent,) = ours.sent
        assert (FAULT.to_bytes(2, "little") in sent) is is_early
    assert ours.inflow.discarded


def association() -> Any:
    """What is looked at of the library's association."""
    dimse = SimpleNamespace(msg_queue=queue.Queue(), maximum_pdu_size=0)
    timer = SimpleNamespace(restart=lambda: None)
    dul = SimpleNamespace(to_user_queue=queue.Queue(), socket=None, _idle_timer=timer)
    return SimpleNamespace(dimse=dimse, dul=dul, _accepted_cx={})


def line(of: Any) -> Line:
    return Line(of, lambda *_: Inflow(), lambda *_: None)


@pytest.mark.parametrize("wake", ["message", "primitive", "ring"])
def test_the_librarys_thread_sleeps_until_there_is_something_for_it(
    wake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dicom_node.dimse.direct._TURN_S", 60.0)
    peer = association()
    made, rested = line(peer), threading.Event()
    thread = threading.Thread(target=lambda: (made.rest(), rested.set()), daemon=True)
    thread.start()
    assert not rested.wait(0.1)
    wakes = {"message": peer.dimse.msg_queue, "primitive": peer.dul.to_user_queue}
    wakes[wake].put("x") if wake in wakes else made.ring()
    assert rested.wait(60)


def test_what_was_handed_over_is_in_hand_until_the_thread_rests_again() -> None:
    peer = association()
    made = line(peer)
    assert not made.handed
    peer.dimse.msg_queue.put("x")
    assert made.handed
    peer.dimse.msg_queue.get()
    assert made.handed
    made.rest()  # the bell was rung
    assert not made.handed


class Slow:
    """A line whose requests are answered when they are let; and the library's thread, which rests once."""

    def __init__(self) -> None:
        self.begun, self.go, self.rested = threading.Semaphore(0), threading.Semaphore(0), threading.Event()
        self.line = Line(association(), lambda *_: Inflow(), self._answer)
        self.line.requests._classes = {1: CT}.get
        self.thread = threading.Thread(target=lambda: (self.line.rest(), self.rested.set()), daemon=True)

    def _answer(self, _inflow: Inflow, _send: Send) -> None:
        self.begun.release()
        assert self.go.acquire(timeout=60)

    def take(self, count: int = 1) -> threading.Thread:
        """Let a thread take so many requests; returns when the first is being answered."""

        def take() -> None:
            for _ in range(count):
                for control, data in ((COMMAND | LAST, store_command(CT, "1.2.3")), (LAST, b"ab")):
                    self.line.requests.take(1, memoryview(bytes((control,)) + data))

        taking = threading.Thread(target=take, daemon=True)
        taking.start()
        assert self.begun.acquire(timeout=60)
        return taking


def test_nobody_gets_up_while_a_request_is_answered() -> None:
    slow = Slow()
    slow.take()
    slow.thread.start()
    slow.line.ring()
    assert not slow.rested.wait(0.2)
    slow.go.release()
    assert slow.rested.wait(60)


def test_who_waits_for_an_answer_sleeps_until_it_is_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look would take the interpreter from the thread that answers."""
    slow, looks = Slow(), list[int]()
    slow.take()
    answering = Direct.answering.fget
    assert answering is not None
    monkeypatch.setattr(
        Direct, "answering", property(lambda requests: looks.append(1) or answering(requests))
    )
    slow.thread.start()
    slow.line.ring()
    assert not slow.rested.wait(0.5)
    slow.go.release()
    assert slow.rested.wait(60)
    assert len(looks) <= 3


def test_an_answer_that_fails_wakes_who_waits_for_it() -> None:
    slow = Slow()

    def fail(_inflow: Inflow, _send: Send) -> None:
        slow.begun.release()
        assert slow.go.acquire(timeout=60)
        raise RuntimeError("a fault")

    slow.line.requests._answer = fail
    slow.take()
    slow.thread.start()
    slow.line.ring()
    assert not slow.rested.wait(0.1)
    slow.go.release()
    assert slow.rested.wait(60)


def test_of_many_answers_none_is_missed() -> None:
    """Whatever the next request does meanwhile, who waits gets up: at the last answer, if not before."""
    slow = Slow()
    for _ in range(200):
        slow.rested.clear()
        slow.thread = threading.Thread(target=lambda: (slow.line.rest(), slow.rested.set()), daemon=True)
        taking = slow.take(3)
        slow.line.ring()
        slow.thread.start()
        slow.go.release(3)
        taking.join(60)
        assert slow.rested.wait(60)
        assert not slow.line.requests.answering
        while slow.begun.acquire(blocking=False):
            pass
