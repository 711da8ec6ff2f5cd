"""Who rings waits for nothing; what the broker does not take is dropped and counted."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

pytest.importorskip("celery")

from celery import Celery

from dicom_node.dispatch import ringer as made
from dicom_node.dispatch.application import WORK, queue
from dicom_node.dispatch.ringer import COVERS, WAITING, Ring, Ringer
from tests.waiting import wait_until


def _in_memory(name: str) -> Celery:
    return Celery("t", broker=f"memory://{name}", set_as_current=False, fixups=[])


def _held(app: Celery, began: threading.Event, gate: threading.Event) -> Callable[[], Celery]:
    """What opens the application when the gate is; it tells when it was asked to."""

    def opened() -> Celery:
        began.set()
        gate.wait(60.0)
        return app

    return opened


def _messages(app: Celery, name: str) -> list[object]:
    """The arguments of every message in a queue."""
    found = []
    with app.connection_for_read() as connection:
        basket = connection.SimpleQueue(queue(name))
        while len(basket):
            message = basket.get_nowait()
            found.append(message.payload[0][0])
            message.ack()
    return found


def test_rings_reach_the_queue_in_turn_each_message_for_several() -> None:
    app, began, gate = _in_memory("turn"), threading.Event(), threading.Event()
    lost: list[int] = []
    ringer = Ringer(_held(app, began, gate), lost.append)
    ringer.ring(Ring(WORK, "t.work", 0))
    assert began.wait(60.0), "or more would go out with the first"
    for row in range(1, 1 + 3 * COVERS):
        ringer.ring(Ring(WORK, "t.work", row))
    gate.set()
    ringer.stop(60.0)
    assert _messages(app, "t.work") == [0, *range(1, 1 + 3 * COVERS, COVERS)]
    assert lost == []
    assert ringer.connected


def test_what_sends_is_made_once() -> None:
    app = _in_memory("once")
    made_for: list[str] = []

    def application() -> Celery:
        made_for.append("a connection")
        return app

    ringer = Ringer(application, lambda _count: None)
    for row in range(3):
        ringer.ring(Ring(WORK, "t.once", row))
        wait_until(lambda: not ringer._waiting)
    ringer.stop(30.0)
    assert _messages(app, "t.once") == [0, 1, 2]
    assert made_for == ["a connection"]


def test_a_broker_that_is_away_costs_nobody_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(made, "_PAUSE_S", 0.01)
    lost: list[int] = []
    app = Celery("t", broker="amqp://nobody@127.0.0.1:1/", set_as_current=False, fixups=[])
    rung, waited = threading.Event(), list[bool]()

    def opened() -> Celery:
        waited.append(rung.wait(60.0))
        return app

    ringer = Ringer(opened, lost.append)
    for row in range(1000):
        ringer.ring(Ring(WORK, "t.work", row))
    rung.set()
    wait_until(lambda: lost)
    assert waited[0], "who rings has rung before anybody looks for the broker"
    assert not ringer.connected
    assert 0 < sum(lost) <= 1000
    ringer.stop()


def test_what_is_lost_is_counted_by_rings_not_by_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(made, "_PAUSE_S", 0.01)
    lost, gate = list[int](), threading.Event()

    def broken() -> Celery:
        gate.wait(60.0)
        raise OSError

    ringer = Ringer(broken, lost.append)
    for row in range(1 + 3 * COVERS):
        ringer.ring(Ring(WORK, "t.work", row))
    gate.set()
    wait_until(lambda: sum(lost) == 1 + 3 * COVERS)
    ringer.stop()


def test_of_very_many_rings_only_so_many_wait() -> None:
    app, began, gate = _in_memory("many"), threading.Event(), threading.Event()
    ringer = Ringer(_held(app, began, gate), lambda _count: None)
    ringer.ring(Ring(WORK, "t.many", 0))
    # what has been rung when the thread begins goes out first: by now, one
    assert began.wait(60.0)
    for row in range(1, 10 * WAITING):
        ringer.ring(Ring(WORK, "t.many", row))
    gate.set()
    ringer.stop(30.0)
    sent = _messages(app, "t.many")
    assert sent == [0, *range(9 * WAITING, 10 * WAITING, COVERS)], "the oldest are left out"


def test_the_first_ring_after_a_rest_goes_out_at_once_and_the_next_wait_for_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(made, "SPACING_S", 60.0)
    app = _in_memory("spaced")
    ringer = Ringer(lambda: app, lambda _count: None)
    ringer.ring(Ring(WORK, "t.spaced", 0))
    wait_until(lambda: not ringer._waiting)
    for row in (1, 2, 3):
        ringer.ring(Ring(WORK, "t.spaced", row))
    ringer.ring(Ring(WORK, "t.other", 4))
    wait_until(lambda: "t.other" not in ringer._waiting)
    assert [ring.row for ring in ringer._waiting["t.spaced"]] == [1, 2, 3]
    ringer.stop(30.0)
    assert _messages(app, "t.spaced") == [0, 1]
    assert _messages(app, "t.other") == [4]


def test_what_waits_for_one_queue_holds_up_no_other() -> None:
    app = _in_memory("two")
    ringer = Ringer(lambda: app, lambda _count: None)
    for name in ("t.a", "t.b"):
        ringer.ring(Ring(WORK, name, 0))
    ringer.stop(30.0)
    assert _messages(app, "t.a") == _messages(app, "t.b") == [0]


def test_after_the_end_nothing_is_rung() -> None:
    ringer = Ringer(lambda: pytest.fail("nobody is asked"), lambda _count: None)
    ringer.stop()
    ringer.ring(Ring(WORK, "t.work", 1))
