"""The figures are what the rows say."""

from __future__ import annotations

from dicom_node.ledger import Ledger
from dicom_node.metrics import DeliveryTally, InstanceTally, QueueAge, Snapshot
from tests.ledgers import Clock, arrival, blob, send


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
    assert figures.deliveries == (DeliveryTally("pacs", "queued", 1, 1),)
    assert figures.ages == (QueueAge("pacs", 7.0),)
    assert figures.oldest_unprocessed_s == 2.0


def test_an_empty_ledger_has_an_empty_snapshot(book: Ledger) -> None:
    assert book.snapshot() == Snapshot((), (), (), 0.0, 0, 0, 0)
    assert book.counts().idle
