"""A person sees what waits for one, decides it, and can follow any object."""

from __future__ import annotations

import pytest

from dicom_node.errors import IllegalTransition, LedgerError
from dicom_node.jobs import DeliveryState, InstanceState, Outcome
from dicom_node.ledger import Ledger, operator
from dicom_node.ledger.dialects import Place
from dicom_node.metrics import ATTEMPTS
from tests.ledgers import Clock, blob, delivery_state, outcome, send, state, work


def test_a_dead_letter_is_listed_and_can_be_requeued(book: Ledger, clock: Clock) -> None:
    dead = send(book)
    book.dead(dead, "status-c000")
    assert book.counts().idle
    (letter,) = book.dead_letters()
    assert (letter.id, letter.destination, letter.reason, letter.attempts) == (
        dead.id,
        "pacs",
        "status-c000",
        1,
    )
    assert book.dead_letters("vna") == []
    book.requeue(letter.id)
    assert book.dead_letters("pacs") == []
    (again,) = book.claim_sends("pacs", 16, 10.0)
    assert again.attempts == 1, "requeueing gives a delivery its chances back"
    book.delivered(again, 0)
    assert book.snapshot().total(ATTEMPTS, "pacs") == 2, "but the figures forget nothing"


def test_only_dead_and_waiting_deliveries_are_requeued(book: Ledger) -> None:
    delivery = send(book)
    with pytest.raises(IllegalTransition, match="is sending"):
        book.requeue(delivery.id)
    with pytest.raises(LedgerError, match="no delivery 99"):
        book.requeue(99)


def test_a_held_instance_can_be_worked_on_again(book: Ledger) -> None:
    book.finish(work(book), Outcome(InstanceState.HELD, "held", "no-room"))
    (kept,) = book.held()
    assert (kept.reason, kept.sop_instance_uid, kept.blob) == ("no-room", "1.2.3", blob("1.2.3"))
    book.rework(kept.id)
    assert book.held() == []
    (again,) = book.claim_work("w", 1, 10.0)
    book.finish(again, outcome("pacs"))
    assert state(book) is InstanceState.READY


def test_a_held_instance_can_be_rejected(book: Ledger) -> None:
    book.finish(work(book), Outcome(InstanceState.HELD, "held"))
    book.reject(1)
    assert state(book) is InstanceState.REJECTED
    with pytest.raises(IllegalTransition):
        book.rework(1)


def test_only_kept_instances_wait_for_the_operator(book: Ledger) -> None:
    work(book)
    with pytest.raises(IllegalTransition, match="is working"):
        book.rework(1)
    with pytest.raises(LedgerError, match="no instance 99"):
        book.reject(99)


def test_a_waiting_delivery_can_be_told_to_wait_no_more(book: Ledger, clock: Clock) -> None:
    first = send(book)
    book.retry(first, clock.now + 900, "no-answer")
    assert book.claim_sends("pacs", 1, 10.0) == []
    book.requeue(first.id)
    assert [again.id for again in book.claim_sends("pacs", 1, 10.0)] == [first.id]


def test_a_paused_destination_gets_nothing_until_it_is_resumed(book: Ledger, clock: Clock) -> None:
    book.finish(work(book), outcome("pacs", "vna"))
    assert book.pause("pacs")
    assert not book.pause("pacs"), "it is paused already"
    assert book.paused() == {"pacs": clock.now}
    assert book.claim_sends("pacs", 16, 10.0) == []
    assert len(book.claim_sends("vna", 16, 10.0)) == 1
    assert book.snapshot().paused == ("pacs",)
    assert book.resume("pacs")
    assert not book.resume("pacs"), "it was not paused"
    assert len(book.claim_sends("pacs", 16, 10.0)) == 1
    assert book.paused() == {}


def test_a_pause_survives_a_restart_and_lets_what_is_under_way_finish(
    place: Place, book: Ledger, clock: Clock
) -> None:
    under_way = send(book)
    book.pause("pacs")
    again = Ledger(place, clock=clock)
    assert again.paused() == {"pacs": clock.now}
    again.delivered(under_way, 0)
    again.close()


def test_a_lease_that_ran_out_is_taken_back_from_a_paused_destination(book: Ledger, clock: Clock) -> None:
    send(book)
    book.pause("pacs")
    clock.now += 10
    assert book.claim_sends("pacs", 1, 10.0) == []
    assert delivery_state(book) is DeliveryState.QUEUED


def test_a_dropped_delivery_is_never_sent_and_stays_on_record(book: Ledger) -> None:
    first = send(book)
    book.dead(first, "status-c000")
    book.drop(first.id)
    assert delivery_state(book) is DeliveryState.DROPPED
    assert book.dead_letters() == []
    assert book.needed([blob("out")]) == frozenset()
    assert book.trace("1.2.3")[-1].what == "dropped"
    assert book.trace("1.2.3")[-1].reason == "operator"
    with pytest.raises(IllegalTransition):
        book.drop(first.id)
    with pytest.raises(IllegalTransition):
        book.requeue(first.id)
    with pytest.raises(LedgerError, match="no delivery 99"):
        book.drop(99)


def test_what_is_being_sent_is_not_dropped(book: Ledger) -> None:
    first = send(book)
    with pytest.raises(IllegalTransition, match="sending"):
        book.drop(first.id)
    book.delivered(first, 0)


def test_everything_of_a_destination_is_dropped_or_queued_again_in_steps(
    book: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operator, "_BATCH", 2)
    for number in range(5):
        book.finish(work(book, f"1.{number}"), outcome("pacs", "vna", uid=f"2.{number}"))
    for claimed in book.claim_sends("pacs", 3, 10.0) + book.claim_sends("vna", 3, 10.0):
        book.dead(claimed, "refused")
    assert [book.requeue_dead("pacs") for _ in range(3)] == [2, 1, 0]
    assert len(book.dead_letters("vna")) == 3
    assert [book.drop_waiting("pacs") for _ in range(4)] == [2, 2, 1, 0]
    assert [book.drop_waiting("vna") for _ in range(4)] == [2, 2, 1, 0]
    assert book.counts().deliveries[DeliveryState.DROPPED] == 10
    assert book.counts().idle


def test_held_instances_are_worked_on_again_together_but_poison_is_not(book: Ledger) -> None:
    for number, end in enumerate((InstanceState.HELD, InstanceState.QUARANTINED, InstanceState.HELD)):
        book.finish(work(book, f"1.{number}"), Outcome(end, "kept"))
    assert (book.rework_held(), book.rework_held()) == (2, 0)
    assert [kept.state for kept in book.held()] == [InstanceState.QUARANTINED]
