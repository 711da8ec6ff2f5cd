"""Who rings wakes one who rests; many rings are one call."""

from __future__ import annotations

import multiprocessing
import threading
import time
from types import SimpleNamespace

import pytest

from dicom_node import bells as module
from dicom_node.bells import Bells
from tests.waiting import wait_until


def _rested_s(rest: object, *words: object) -> float:
    started = time.monotonic()
    rest(*words)  # type: ignore[operator]
    return time.monotonic() - started


def test_a_ring_is_heard_by_who_rests_afterwards() -> None:
    bells = Bells({"a": object()})
    bells.ring_work()
    assert _rested_s(bells.rest_work, 600.0) < 500.0
    bells.ring_sends("a")
    assert _rested_s(bells.rest_sends, "a", 600.0) < 500.0


def test_whether_somebody_has_rung_since_is_known_without_a_rest() -> None:
    bells = Bells({"a": object()})
    assert not bells.rung_sends("a")
    bells.ring_sends("a")
    assert bells.rung_sends("a")
    bells.rest_sends("a", 5.0)
    assert not bells.rung_sends("a")


def test_many_rings_are_one_call() -> None:
    bells = Bells({})
    for _ in range(100):
        bells.ring_work()
    bells.rest_work(1.0)
    assert _rested_s(bells.rest_work, 0.1) > 0.05


def test_a_destination_that_is_not_configured_has_no_bell() -> None:
    Bells({"a": object()}).ring_sends("unknown")


def _ring(bells: Bells) -> None:
    bells.ring_work()


def test_a_ring_is_heard_in_another_process() -> None:
    bells = Bells({})
    ringer = multiprocessing.get_context("spawn").Process(target=_ring, args=(bells,))
    ringer.start()
    try:
        assert _rested_s(bells.rest_work, 600.0) < 500.0
    finally:
        ringer.join()


def test_who_rested_knows_whether_somebody_rang() -> None:
    bells = Bells({"a": 1})
    assert bells.rest_sends("a", 0.01) is False
    bells.ring_sends("a")
    assert bells.rest_sends("a", 60.0) is True


def test_everybody_who_rests_is_roused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that is set back would keep them, and no ring may come for hours."""
    bells = Bells({"a": 1, "b": 1})
    threads = [threading.Thread(target=bells.rest_work, args=(3600.0,), daemon=True) for _ in range(2)]
    threads += [
        threading.Thread(target=bells.rest_sends, args=(name, 3600.0), daemon=True) for name in "aaab"
    ]
    for thread in threads:
        thread.start()
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        """As long as it takes until one more has taken his ring."""
        pauses.append(seconds)
        wait_until(lambda: sum(not thread.is_alive() for thread in threads) >= len(pauses))

    monkeypatch.setattr(module, "time", SimpleNamespace(sleep=pause))
    bells.rouse_all(2, {"a": 3, "b": 1})
    assert pauses == [module._BETWEEN_S] * len(threads)
