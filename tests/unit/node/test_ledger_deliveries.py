"""A delivery is in one hand at a time and ends delivered or given up."""

from __future__ import annotations

import itertools

import pytest

from dicom_node.errors import StaleLease
from dicom_node.jobs import DeliveryState, Receipt, Send
from dicom_node.ledger import Ledger
from dicom_node.ledger.dialects import Place
from dicom_node.metrics import ATTEMPTS, DELIVERY_DELAY, RESULTS, STAGE_SECONDS, DeliveryTally, Reading
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


def test_what_was_taken_back_is_claimed_at_once_while_the_clock_goes_on(place: Place) -> None:
    book = Ledger(place, clock=itertools.count(1_000_000).__next__)
    book.finish(work(book), outcome("pacs"))
    (taken,) = book.claim_sends("pacs", 1, 1.0)
    assert [each.id for each in book.claim_sends("pacs", 1, 1000.0)] == [taken.id]
    book.close()


def several(book: Ledger, count: int) -> list[Send]:
    for number in range(count):
        uid = f"1.2.{number}"
        book.finish(work(book, uid), outcome("pacs", uid=uid))
    return book.claim_sends("pacs", count, 10.0)


def test_receipts_are_recorded_together(book: Ledger, clock: Clock) -> None:
    first, second, third = several(book, 3)
    clock.now += 2
    took = Reading(STAGE_SECONDS, ("send",), 0.5)
    book.take_receipts(
        [Receipt(first, 0, readings=(took,)), Receipt(second, 0xB000, "vna"), Receipt(third, 0)]
    )
    figures = book.snapshot()
    assert figures.deliveries == (DeliveryTally("pacs", "delivered", 3),)
    assert figures.total(ATTEMPTS, "pacs") == figures.total(DELIVERY_DELAY, "pacs") == 3
    assert figures.total(STAGE_SECONDS, "send") == 1
    assert book.results() == {("pacs", "delivered"): 2, ("vna", "warning"): 1}
    said = [(event.what, event.destination, event.reason) for event in book.trace("1.2.1")][-2:]
    assert said == [("failed-over", "pacs", "vna"), ("delivered", "pacs", "status-b000")]


def test_of_receipts_one_of_which_is_stale_none_is_recorded(book: Ledger, clock: Clock) -> None:
    mine, lost = several(book, 2)
    book.beat_send(mine, 100.0)
    clock.now += 10
    (heir,) = book.claim_sends("pacs", 5, 10.0)
    assert heir.id == lost.id
    with pytest.raises(StaleLease):
        book.take_receipts([Receipt(mine, 0), Receipt(lost, 0)])
    assert book.snapshot().deliveries == (DeliveryTally("pacs", "sending", 2),)
    assert book.snapshot().total(RESULTS, "pacs") == 0
    book.take_receipts([Receipt(mine, 0), Receipt(heir, 0)])
    assert book.counts().idle


def test_what_was_taken_and_what_is_next_share_a_transaction(book: Ledger) -> None:
    (first,) = several(book, 1)
    book.finish(work(book, "9.9"), outcome("pacs", uid="9.9"))
    (second,) = book.claim_sends("pacs", 5, 10.0, receipts=[Receipt(first, 0)])
    assert second.sop_instance_uid == "9.9"
    assert book.results() == {("pacs", "delivered"): 1}
    with pytest.raises(StaleLease):
        book.claim_sends("pacs", 5, 10.0, receipts=[Receipt(first, 0)])
    book.pause("pacs")
    assert book.claim_sends("pacs", 5, 10.0, receipts=[Receipt(second, 0)]) == []
    assert book.counts().idle


def test_a_low_priority_waits_for_all_that_is_due_of_a_higher(book: Ledger, clock: Clock) -> None:
    """Though the highest has nothing that is due, and the claim is larger than what the others have."""
    for uid, priority in (("1.1", 10), ("1.2", 0), ("1.3", -10)):
        book.finish(work(book, uid), outcome("pacs", uid=uid), priority=priority)
    (urgent,) = book.claim_sends("pacs", 1, 10.0)
    book.retry(urgent, clock.now + 5, "no-answer")
    assert [each.sop_instance_uid for each in book.claim_sends("pacs", 5, 10.0)] == ["1.2", "1.3"]
