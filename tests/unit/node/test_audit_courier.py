"""Messages reach the repository in order, each at least once, and stay until it has them."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node.audit.courier import SETTLE_S, Courier
from dicom_node.audit.store import Store
from dicom_node.errors import PeerError
from tests.ledgers import Clock


class Desk:
    """A repository that can be away, hang up, or not have everything yet."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.away = self.hung_up = False
        self.has_all = self.closes_well = True

    def open(self) -> None:
        pass

    def send(self, message: bytes) -> None:
        if self.away:
            raise PeerError("away")
        self.hung_up = False
        self.taken.append(message)

    def check(self) -> bool:
        if self.hung_up:
            self.hung_up = False
            raise PeerError("hung up")
        return self.has_all

    def close(self) -> bool:
        return self.closes_well


@pytest.fixture
def store(scratch: Path) -> Store:
    return Store(scratch / "audit", 100)


def courier(store: Store, desk: Desk, clock: Clock) -> Courier:
    return Courier(store, desk, clock=clock)


def turn(made: Courier) -> None:
    made._contained(made.turn)


def test_what_waits_is_sent_in_order_and_forgotten_when_it_has_settled(store: Store, clock: Clock) -> None:
    desk = Desk()
    made = courier(store, desk, clock)
    store.put([b"1", b"2"])
    turn(made)
    store.put([b"3"])
    turn(made)
    assert desk.taken == [b"1", b"2", b"3"]
    assert len(store.waiting()) == 3
    clock.now += SETTLE_S
    turn(made)
    assert store.waiting() == []
    assert desk.taken == [b"1", b"2", b"3"]


def test_what_the_other_machine_has_not_acknowledged_stays(store: Store, clock: Clock) -> None:
    desk = Desk()
    desk.has_all = False
    made = courier(store, desk, clock)
    store.put([b"1"])
    turn(made)
    clock.now += 10 * SETTLE_S
    turn(made)
    assert len(store.waiting()) == 1


def test_what_had_not_settled_when_the_repository_hung_up_is_sent_again(store: Store, clock: Clock) -> None:
    desk = Desk()
    made = courier(store, desk, clock)
    store.put([b"1"])
    turn(made)
    clock.now += SETTLE_S
    turn(made)
    store.put([b"2", b"3"])
    turn(made)
    desk.hung_up = True
    turn(made)
    turn(made)
    assert desk.taken == [b"1", b"2", b"3", b"2", b"3"]


def test_a_repository_that_is_away_is_asked_ever_more_seldom_and_loses_nothing(
    store: Store, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    desk = Desk()
    desk.away = True
    made = courier(store, desk, clock)
    store.put([b"1", b"2"])
    pauses = []
    for _ in range(9):
        turn(made)
        pauses.append(made._pause_s())
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    assert caplog.text.count("audit-repository-away") == 1
    desk.away = False
    turn(made)
    assert desk.taken == [b"1", b"2"]


def test_one_that_hangs_up_when_there_is_nothing_to_tell_is_not_away(
    store: Store, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    desk = Desk()
    made = courier(store, desk, clock)
    desk.hung_up = True
    turn(made)
    assert caplog.text == ""


@pytest.mark.parametrize(("well", "left"), [(True, 0), (False, 1)])
def test_a_stop_forgets_what_is_certain_to_have_been_read(
    store: Store, clock: Clock, well: bool, left: int
) -> None:
    desk = Desk()
    desk.closes_well = well
    made = courier(store, desk, clock)
    store.put([b"1"])
    made.start()
    made.stop()
    assert desk.taken == [b"1"]
    assert len(store.waiting()) == left
