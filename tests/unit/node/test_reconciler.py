"""What is due is rung for again, whatever became of its message."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dicom_node.jobs import Arrival, InstanceState, Outcome
from dicom_node.ledger import Ledger
from dicom_node.reconciler import Reconciler


class Rung:
    """Bells that note who rang for what."""

    def __init__(self) -> None:
        self.work: list[int | None] = []
        self.sends: list[tuple[str, int | None]] = []
        self.heard = threading.Event()

    def ring_work(self, row: int | None = None) -> None:
        self.work.append(row)
        self.heard.set()

    def ring_sends(self, destination: str, row: int | None = None) -> None:
        self.sends.append((destination, row))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    made = Ledger(tmp_path / "ledger.sqlite")
    yield made
    made.close()


def _arrive(ledger: Ledger, number: int) -> int:
    arrival = Arrival("1.2", f"1.2.{number}", "1.2.3", "A", "B", "all")
    return ledger.add(arrival, f"{number:064x}", 1).id


def test_what_waits_is_rung_for_and_what_is_leased_is_not(ledger: Ledger) -> None:
    first = _arrive(ledger, 1)
    (work,) = ledger.claim_work("w", 1, 60.0)
    second = _arrive(ledger, 2)
    rung: Any = Rung()
    reconciler = Reconciler(ledger, rung, 60.0)
    assert reconciler.look() == 1
    assert rung.work == [second]
    ledger.finish(work, Outcome(InstanceState.READY, "passed", destinations=("a",), blob="0" * 64))
    assert work.id == first
    assert reconciler.look() == 2
    assert [destination for destination, _ in rung.sends] == ["a"]


def test_an_expired_lease_is_rung_for(ledger: Ledger) -> None:
    number = _arrive(ledger, 1)
    ledger.claim_work("killed", 1, 0.0)
    rung: Any = Rung()
    assert Reconciler(ledger, rung, 60.0).look() == 1
    assert rung.work == [number]


def test_it_looks_again_and_again_and_a_fault_costs_one_look(ledger: Ledger) -> None:
    _arrive(ledger, 1)
    rung: Any = Rung()
    reconciler = Reconciler(ledger, rung, 0.01)
    looked: list[int] = []
    look = reconciler.look

    def faulty() -> int:
        looked.append(1)
        if len(looked) == 1:
            raise RuntimeError("once")
        return look()

    reconciler.look = faulty  # type: ignore[method-assign]
    reconciler.start()
    assert rung.heard.wait(30.0)
    reconciler.stop()
    assert not reconciler.is_alive()
    before = len(looked)
    time.sleep(0.05)
    assert len(looked) == before
