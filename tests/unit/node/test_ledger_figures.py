"""The figures are what the rows say."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node.errors import LedgerError
from dicom_node.jobs import DeliveryState, InstanceState, Outcome
from dicom_node.ledger import Ledger, Queue
from dicom_node.metrics import DeliveryTally, InstanceTally, QueueAge, Snapshot
from tests.ledgers import Clock, arrival, blob, outcome, send, work


def test_a_snapshot_holds_every_figure(book: Ledger, clock: Clock) -> None:
    first = send(book)
    clock.now += 5
    book.retry(first, clock.now + 100, "no-answer")
    book.add(arrival("1.5"), blob("5"), 1)
    clock.now += 2
    figures = book.snapshot()
    assert set(figures.instances) == {
        InstanceTally("ready", "protected", "", 1),
        InstanceTally("received", "", "", 1),
    }
    assert figures.deliveries == (DeliveryTally("pacs", "queued", 1),)
    assert figures.ages == (QueueAge("pacs", 7.0),)
    assert figures.oldest_unprocessed_s == 2.0


def test_an_empty_ledger_has_an_empty_snapshot(book: Ledger) -> None:
    assert book.snapshot() == Snapshot((), (), (), 0.0, book.snapshot().counted)
    assert book.counts().idle


def test_queues_are_listed_with_their_oldest(book: Ledger, clock: Clock) -> None:
    started = clock.now
    for number in range(2):
        book.finish(work(book, f"1.{number}"), outcome("pacs", uid=f"2.{number}"))
        clock.now += 5
    book.finish(work(book, "1.7"), Outcome(InstanceState.HELD, "held"))
    book.add(arrival("1.8"), blob("8"), 1)
    book.dead(book.claim_sends("pacs", 1, 10.0)[0], "refused")
    assert book.queues() == [
        Queue("", InstanceState.RECEIVED, 1, started + 10),
        Queue("", InstanceState.READY, 2, None),
        Queue("", InstanceState.HELD, 1, started + 10),
        Queue("pacs", DeliveryState.DEAD, 1, started),
        Queue("pacs", DeliveryState.QUEUED, 1, started + 5),
    ]


@pytest.mark.sqlite
def test_a_ledger_that_can_be_read_answers(book: Ledger, scratch: Path) -> None:
    book.answers()
    book.close()
    (scratch / "ledger.sqlite").write_bytes(b"no ledger" * 1000)
    with pytest.raises(LedgerError):
        book.answers()
