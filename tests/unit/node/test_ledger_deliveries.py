"""A delivery is in one hand at a time and ends delivered or given up."""

from __future__ import annotations

import pytest

from dicom_node.errors import StaleLease
from dicom_node.jobs import DeliveryState
from dicom_node.ledger import Ledger
from dicom_node.metrics import ATTEMPTS, DeliveryTally
from tests.ledgers import Clock, delivery_state, outcome, send, work


def test_deliveries_are_sent_by_priority_then_time_then_number(book: Ledger, clock: Clock) -> None:
    for uid, priority in (("1.1", 0), ("1.2", 5), ("1.3", 0), ("1.4", 5)):
        book.finish(work(book, uid), outcome("pacs", uid=uid), priority=priority)
    (late,) = book.claim_sends("pacs", 1, 10.0)
    book.retry(late, clock.now + 1, "status-a700")
    clock.now += 2
    order = [claimed.sop_instance_uid for claimed in book.claim_sends("pacs", 16, 10.0)]
    assert order == ["1.4", "1.2", "1.1", "1.3"]


def test_destinations_do_not_see_each_other(book: Ledger) -> None:
    book.finish(work(book), outcome("pacs", "vna"))
    assert [claimed.destination for claimed in book.claim_sends("pacs", 16, 10.0)] == ["pacs"]
    assert [claimed.destination for claimed in book.claim_sends("vna", 16, 10.0)] == ["vna"]
    assert book.claim_sends("other", 16, 10.0) == []


def test_a_delivery_ends_delivered(book: Ledger) -> None:
    book.delivered(send(book), 0xB000)
    assert delivery_state(book) is DeliveryState.DELIVERED
    assert book.counts().idle


def test_a_retried_delivery_comes_back_when_it_is_due(book: Ledger, clock: Clock) -> None:
    first = send(book)
    book.retry(first, clock.now + 5, "no-answer")
    assert book.claim_sends("pacs", 16, 10.0) == []
    clock.now += 5
    (second,) = book.claim_sends("pacs", 16, 10.0)
    assert (second.id, second.attempts, second.token) == (first.id, 2, 2)


def test_a_delivery_that_was_not_tried_costs_no_attempt(book: Ledger) -> None:
    first = send(book)
    book.put_back(first)
    (second,) = book.claim_sends("pacs", 16, 10.0)
    assert (second.attempts, second.token) == (1, 2)
    assert book.snapshot().deliveries == (DeliveryTally("pacs", "sending", 1),)


def test_attempts_are_counted_when_they_end_so_that_their_counter_never_goes_down(
    book: Ledger, clock: Clock
) -> None:
    counted = []

    def count() -> None:
        counted.append(book.snapshot().total(ATTEMPTS, "pacs"))

    first = send(book)
    count()
    book.put_back(first)
    count()
    book.retry(book.claim_sends("pacs", 1, 10.0)[0], clock.now, "no-answer")
    count()
    book.claim_sends("pacs", 1, 10.0)
    clock.now += 10
    book.delivered(book.claim_sends("pacs", 1, 10.0)[0], 0)
    count()
    assert counted == [0, 0, 1, 3], "the one whose lease ran out is one of them"


def test_an_expired_delivery_goes_to_another_and_the_first_holder_is_refused(
    book: Ledger, clock: Clock
) -> None:
    zombie = send(book)
    book.beat_send(zombie, 20.0)
    clock.now += 10
    assert book.claim_sends("pacs", 1, 10.0) == []
    clock.now += 10
    (heir,) = book.claim_sends("pacs", 1, 10.0)
    for attempt in (
        lambda: book.delivered(zombie, 0),
        lambda: book.retry(zombie, clock.now, "late"),
        lambda: book.dead(zombie, "late"),
        lambda: book.put_back(zombie),
        lambda: book.beat_send(zombie, 1.0),
    ):
        with pytest.raises(StaleLease):
            attempt()
    book.delivered(heir, 0)
    assert delivery_state(book) is DeliveryState.DELIVERED
