"""A person sees what waits for one, decides it, and can follow any object."""

from __future__ import annotations

import pytest

from dicom_node.errors import IllegalTransition, LedgerError
from dicom_node.jobs import InstanceState, Outcome
from dicom_node.ledger import Ledger
from tests.ledgers import Clock, blob, outcome, send, state, work


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
    assert book.snapshot().deliveries[0].attempts == 2, "but the figures forget nothing"


def test_only_dead_letters_are_requeued(book: Ledger) -> None:
    delivery = send(book)
    with pytest.raises(IllegalTransition, match="is sending"):
        book.requeue(delivery.id)
    with pytest.raises(LedgerError, match="no delivery 99"):
        book.requeue(99)


def test_a_held_instance_can_be_resumed(book: Ledger) -> None:
    book.finish(work(book), Outcome(InstanceState.HELD, "held", "no-room"))
    (kept,) = book.held()
    assert (kept.reason, kept.sop_instance_uid, kept.blob) == ("no-room", "1.2.3", blob("1.2.3"))
    book.resume(kept.id)
    assert book.held() == []
    (again,) = book.claim_work("w", 1, 10.0)
    book.finish(again, outcome("pacs"))
    assert state(book) is InstanceState.READY


def test_a_held_instance_can_be_rejected(book: Ledger) -> None:
    book.finish(work(book), Outcome(InstanceState.HELD, "held"))
    book.reject(1, "operator")
    assert state(book) is InstanceState.REJECTED
    with pytest.raises(IllegalTransition):
        book.resume(1)


def test_only_kept_instances_wait_for_the_operator(book: Ledger) -> None:
    work(book)
    with pytest.raises(IllegalTransition, match="is working"):
        book.resume(1)
    with pytest.raises(LedgerError, match="no instance 99"):
        book.reject(99, "operator")


def test_a_trace_tells_the_whole_story_under_either_uid(book: Ledger, clock: Clock) -> None:
    delivery = send(book)
    book.retry(delivery, clock.now, "status-a700")
    (again,) = book.claim_sends("pacs", 1, 10.0)
    book.delivered(again, 0)
    story = [(event.what, event.destination, event.reason) for event in book.trace("1.2.3")]
    assert story == [
        ("received", "", ""),
        ("ready", "", ""),
        ("queued", "pacs", ""),
        ("retry", "pacs", "status-a700"),
        ("delivered", "pacs", "status-0000"),
    ]
    assert book.trace("2.25.1") == book.trace("1.2.3")
    assert book.trace("1.2.4") == []
