"""What readers found is counted with the outcome, once, and stays counted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dicom_node.errors import StaleLease
from dicom_node.jobs import InstanceState, Outcome
from dicom_node.ledger import Ledger
from dicom_node.ledger.dialects import Place
from tests.ledgers import Clock, arrival, blob, outcome, work

HELD = Outcome(InstanceState.HELD, "held", "wrong-key", finding="wrong-key")


def test_every_judgement_counts_and_what_nobody_judged_does_not(book: Ledger) -> None:
    assert book.verdicts() == {}
    book.finish(work(book, "1.1"), HELD)
    book.finish(work(book, "1.2"), replace(outcome(), finding="authentic"))
    book.finish(work(book, "1.3"), outcome())
    book.rework(1)
    (again,) = book.claim_work("w", 1, 10.0)
    book.finish(again, replace(outcome(), finding="authentic"))
    assert book.verdicts() == {("protect", "authentic"): 2, ("protect", "wrong-key"): 1}


def test_a_result_that_comes_too_late_counts_nothing(book: Ledger) -> None:
    late = work(book)
    book.worker_died("w")
    with pytest.raises(StaleLease):
        book.finish(late, HELD)
    assert book.verdicts() == {}


def test_neither_a_purge_nor_a_restart_takes_anything_away(place: Place, clock: Clock) -> None:
    first = Ledger(place, clock=clock)
    first.add(arrival("1.1", route="back"), blob("1"), 10)
    (claimed,) = first.claim_work("w", 1, 10.0)
    first.finish(claimed, Outcome(InstanceState.REJECTED, "rejected", "damaged", finding="damaged"))
    assert first.purge(clock() + 1).instances == 1
    first.close()
    second = Ledger(place)
    assert second.verdicts() == {("back", "damaged"): 1}
    second.close()
