"""Who rests is woken once, who is busy is not waited for, and a ring lasts as long as what it set off."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from dicom_node.dispatch.doorbells import Doorbell


class Ringer(threading.Thread):
    """Rings once, and notes when it was let go."""

    def __init__(self, bell: Doorbell, limit_s: float = 30.0) -> None:
        super().__init__(daemon=True)
        self.bell, self.limit_s = bell, limit_s
        self.start()

    def run(self) -> None:
        self.bell.ring(self.limit_s)


@pytest.fixture(params=[True, False], ids=["patient", "impatient"])
def bell(request: pytest.FixtureRequest) -> Iterator[Doorbell]:
    made = Doorbell(patient=request.param)
    yield made
    made.close()


def _wait_for_one_who_rests(bell: Doorbell) -> None:
    while not bell._resting:
        time.sleep(0.001)


def test_a_ring_ends_when_who_heard_it_rests_again(bell: Doorbell) -> None:
    heard, go_on = threading.Event(), threading.Event()

    def lane() -> None:
        bell.rest(30.0)
        heard.set()
        go_on.wait(30.0)
        bell.rest(0.0)

    threading.Thread(target=lane, daemon=True).start()
    _wait_for_one_who_rests(bell)
    ringer = Ringer(bell)
    assert heard.wait(30.0)
    assert ringer.is_alive(), "what it set off goes on"
    go_on.set()
    ringer.join(120)
    assert not ringer.is_alive()


def test_an_impatient_bell_is_not_held_up_by_who_is_busy_and_leaves_its_mark() -> None:
    bell = Doorbell(patient=False)
    bell.ring(3600.0)
    started = time.monotonic()
    bell.rest(3600.0)
    assert time.monotonic() - started < 60.0


def test_a_patient_bell_waits_for_who_is_busy() -> None:
    bell = Doorbell(patient=True)
    ringer = Ringer(bell)
    while not bell._calls:
        time.sleep(0.001)
    bell.rest(3600.0)
    assert ringer.is_alive()
    bell.rest(0.0)
    ringer.join(120)
    assert not ringer.is_alive()


def test_a_ring_that_nobody_comes_for_is_forgotten() -> None:
    bell = Doorbell(patient=True)
    bell.ring(0.01)
    assert not bell._calls


def test_each_ring_wakes_another(bell: Doorbell) -> None:
    woken = threading.Semaphore(0)

    def lane() -> None:
        bell.rest(3600.0)
        woken.release()
        threading.Event().wait(0.2)

    lanes = [threading.Thread(target=lane, daemon=True) for _ in range(2)]
    for each in lanes:
        each.start()
    while bell._resting < 2:
        time.sleep(0.001)
    for _ in lanes:
        Ringer(bell)
    assert all(woken.acquire(timeout=30.0) for _ in lanes)


def test_rousing_wakes_everybody_and_nobody_answers_a_ring(bell: Doorbell) -> None:
    lanes = [threading.Thread(target=bell.rest, args=(3600.0,), daemon=True) for _ in range(3)]
    for each in lanes:
        each.start()
    while bell._resting < 3:
        time.sleep(0.001)
    bell.rouse()
    for each in lanes:
        each.join(120)
    assert not any(each.is_alive() for each in lanes)


def test_closing_lets_everybody_go() -> None:
    bell = Doorbell(patient=True)
    ringer = Ringer(bell, 3600.0)
    while not bell._calls:
        time.sleep(0.001)
    bell.close()
    ringer.join(120)
    assert not ringer.is_alive()
    bell.ring(3600.0)
