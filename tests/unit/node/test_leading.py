"""One leads, lays everything down when the lock is gone, and takes it up again when it is free."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from dicom_node import leading
from dicom_node.leading import Leadership
from dicom_node.ledger.dialects import Lead
from tests.waiting import wait_until


class Lock:
    """The lock of a database, as two sessions see it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.lost = threading.Event()

    @contextlib.contextmanager
    def lead(self, _name: str) -> Iterator[Lead]:
        if not self._lock.acquire(blocking=False):
            yield Lead(lambda: False)
            return
        try:
            yield Lead(lambda: not self.lost.is_set())
        finally:
            self._lock.release()


class Node:
    """Notes what it takes up and lays down."""

    def __init__(self, lock: Lock) -> None:
        self.told: list[str] = []
        ledger: Any = lock
        self.leadership = Leadership(ledger, "site", self.take_up)

    def take_up(self, undo: contextlib.ExitStack) -> None:
        self.told.append("up")
        undo.callback(self.told.append, "down")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leading, "_TRY_S", 0.01)
    monkeypatch.setattr(leading, "_LOOK_S", 0.01)


def test_of_two_one_leads_and_the_other_follows_when_it_stops() -> None:
    lock = Lock()
    first, second = Node(lock), Node(lock)
    first.leadership.start()
    wait_until(lambda: first.leadership.leads)
    second.leadership.start()
    time.sleep(0.1)
    assert not second.leadership.leads
    assert second.told == []
    first.leadership.stop()
    assert first.told == ["up", "down"]
    assert not first.leadership.leads
    wait_until(lambda: second.leadership.leads)
    second.leadership.stop()


def test_who_loses_the_lock_lays_everything_down_and_tries_again() -> None:
    lock = Lock()
    node = Node(lock)
    node.leadership.start()
    wait_until(lambda: node.leadership.leads)
    lock.lost.set()
    wait_until(lambda: "down" in node.told)
    lock.lost.clear()
    wait_until(lambda: node.leadership.leads)
    node.leadership.stop()
    assert node.told[0] == "up"
    assert node.told[-1] == "down"


def test_parts_that_are_being_stopped_are_not_taken_for_dead() -> None:
    """Whoever asks whether they run asks only while this node leads."""
    leads: list[bool] = []

    def take_up(undo: contextlib.ExitStack) -> None:
        undo.callback(lambda: leads.append(leadership.leads))

    ledger: Any = Lock()
    leadership = Leadership(ledger, "site", take_up)
    leadership.start()
    wait_until(lambda: leadership.leads)
    leadership.stop()
    assert leads == [False]


def test_a_part_that_does_not_start_leaves_the_lead_to_others() -> None:
    lock, tries = Lock(), []

    def broken(_undo: contextlib.ExitStack) -> None:
        tries.append(1)
        raise OSError("no")

    ledger: Any = lock
    first, second = Leadership(ledger, "site", broken), Node(lock)
    first.start()
    wait_until(lambda: tries)
    second.leadership.start()
    wait_until(lambda: second.leadership.leads)
    assert not first.leads
    first.stop()
    second.leadership.stop()
