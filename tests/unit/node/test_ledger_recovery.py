"""A start takes every lease back and accuses nobody."""

from __future__ import annotations

import pytest

from dicom_node.errors import StaleLease
from dicom_node.jobs import InstanceState
from dicom_node.ledger import INTERRUPTED_LIMIT, Ledger
from tests.ledgers import Clock, arrival, blob, outcome, send, state, work


def test_recovery_takes_every_lease_back_and_accuses_nobody(book: Ledger, clock: Clock) -> None:
    delivery = send(book)
    stale = work(book, "1.9")
    assert book.recover() == 2
    assert book.snapshot().lost == 0
    with pytest.raises(StaleLease):
        book.finish(stale, outcome())
    with pytest.raises(StaleLease):
        book.delivered(delivery, 0)
    assert len(book.claim_work("w", 16, 10.0)) == 1
    assert len(book.claim_sends("pacs", 16, 10.0)) == 1
    assert len(book.trace("1.9")) == 2


def test_what_is_in_work_at_every_restart_is_quarantined_in_the_end(book: Ledger) -> None:
    book.add(arrival(), blob("a"), 1)
    for _ in range(INTERRUPTED_LIMIT):
        assert len(book.claim_work("w", 16, 1000.0)) == 1
        book.recover()
    assert book.claim_work("w", 16, 1000.0) == []
    assert state(book) is InstanceState.QUARANTINED
