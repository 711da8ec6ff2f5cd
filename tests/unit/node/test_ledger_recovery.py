"""A start takes every lease back and accuses nobody."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from dicom_node.errors import LedgerError, StaleLease
from dicom_node.jobs import NOT_SENDABLE, DeliveryState, InstanceState, Outcome
from dicom_node.ledger import INTERRUPTED_LIMIT, Claim, Ledger, Part
from dicom_node.metrics import LOST
from tests.ledgers import Clock, arrival, blob, delivery_state, outcome, send, state, work


def test_recovery_takes_every_lease_back_and_accuses_nobody(book: Ledger, clock: Clock) -> None:
    delivery = send(book)
    stale = work(book, "1.9")
    assert book.recover() == 2
    assert book.snapshot().total(LOST) == 0
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


def test_a_whole_file_passes_the_check_and_a_damaged_one_is_named_with_a_remedy(scratch: Path) -> None:
    path = scratch / "ledger.sqlite"
    book = Ledger(path)
    for number in range(200):
        book.add(arrival(f"1.{number}"), blob(str(number)), 1)
    book.check()
    book.compact()
    book.close()
    content = bytearray(path.read_bytes())
    page = len(content) // 4096 - 3
    content[page * 4096 : page * 4096 + 64] = b"\xff" * 64
    path.write_bytes(content)
    damaged = Ledger(path)
    with pytest.raises(LedgerError, match=r"is damaged.*back-up"):
        damaged.check()
    damaged.close()


def test_a_fall_of_the_machine_is_told_from_a_restart_of_the_node(book: Ledger) -> None:
    assert not book.begin_run("boot-1"), "a fresh ledger"
    assert not book.begin_run("boot-1"), "the node was killed, the machine stood"
    assert book.begin_run("boot-2"), "the machine fell"
    book.end_run()
    assert not book.begin_run("boot-3"), "the node had been stopped before"


def test_a_ledger_knows_when_it_was_made_and_when_anything_happened_last(book: Ledger, clock: Clock) -> None:
    assert abs(book.born_at() - time.time()) < 60
    assert book.last_event_at() == 0.0
    work(book)
    assert book.last_event_at() == clock.now


def claim(book: Ledger, part: Part) -> Claim:
    (found,) = [each for each in book.claims() if each.part is part]
    return found


def test_every_object_that_is_needed_is_claimed(book: Ledger) -> None:
    assert list(book.claims()) == []
    claimed = work(book)
    assert list(book.claims()) == [Claim(1, Part.CAME, blob("1.2.3"), 10, blob("1.2.3"), 10)]
    book.finish(claimed, replace(outcome("pacs"), size=7))
    leaving = [Claim(1, Part.LEAVES, blob("out"), 7, blob("1.2.3"), 10)]
    assert list(book.claims()) == leaving
    (first,) = book.claim_sends("pacs", 1, 10.0)
    assert list(book.claims()) == leaving
    book.dead(first, "refused")
    assert list(book.claims()) == leaving
    book.requeue(first.id)
    book.delivered(book.claim_sends("pacs", 1, 10.0)[0], 0)
    assert list(book.claims()) == []


@pytest.mark.parametrize("end", [None, InstanceState.HELD, InstanceState.QUARANTINED])
def test_what_arrived_and_is_lost_waits_quarantined_until_it_arrives_again(
    book: Ledger, end: InstanceState | None
) -> None:
    claimed = work(book)
    if end is None:
        book.recover()
    else:
        book.finish(claimed, Outcome(end, "kept", "because"))
    book.lose(claim(book, Part.CAME), "bytes-missing")
    (kept,) = book.held()
    assert (kept.state, kept.reason) == (InstanceState.QUARANTINED, "bytes-missing")
    assert list(book.claims()) == [], "what is known to be lost is not asked for again"
    assert book.add(arrival("1.2.3"), blob("1.2.3"), 10).duplicate
    assert [again.blob for again in book.claim_work("w", 1, 10.0)] == [blob("1.2.3")]


def test_what_was_to_leave_and_is_lost_is_dead_until_it_arrives_again(book: Ledger) -> None:
    book.finish(work(book), outcome("pacs", "vna"))
    book.delivered(book.claim_sends("pacs", 1, 10.0)[0], 0)
    book.lose(claim(book, Part.LEAVES), "bytes-changed")
    (letter,) = book.dead_letters()
    assert (letter.destination, letter.reason) == ("vna", "bytes-changed")
    assert book.claim_work("w", 1, 10.0) == []
    assert book.add(arrival(), blob("1.2.3"), 10).duplicate
    (again,) = book.claim_work("w", 1, 10.0)
    book.finish(again, outcome("pacs", "vna"))
    assert book.claim_sends("pacs", 1, 10.0) == [], "it was delivered before"
    assert [send.destination for send in book.claim_sends("vna", 1, 10.0)] == ["vna"]


def test_what_was_to_leave_is_made_again_from_what_arrived(book: Ledger) -> None:
    book.finish(work(book), outcome("pacs"))
    lost = claim(book, Part.LEAVES)
    book.lose(lost, "bytes-missing", remake=True)
    book.lose(lost, "bytes-missing", remake=True)
    (again,) = book.claim_work("w", 1, 10.0)
    book.finish(again, outcome("pacs"))
    assert len(book.claim_sends("pacs", 1, 10.0)) == 1
    assert [event.what for event in book.trace("1.2.3")] == [
        "received",
        "ready",
        "queued",
        "dead",
        "received",
        "ready",
        "queued",
    ]


def test_a_letter_that_died_of_something_else_stays_dead_when_its_instance_comes_again(book: Ledger) -> None:
    book.dead(send(book), "refused")
    assert book.add(arrival(), blob("1.2.3"), 10).duplicate
    assert book.claim_work("w", 1, 10.0) == []
    assert len(book.dead_letters()) == 1


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_letter_that_died_for_its_bytes_lives_again_when_its_instance_comes_again(
    book: Ledger, by_hand: bool
) -> None:
    """Also one that an operator had queued in vain, and one whose file went while the node ran."""
    claimed = send(book)
    if by_hand:
        book.put_back(claimed)
        (claim,) = [claim for claim in book.claims() if claim.part is Part.LEAVES]
        book.lose(claim, "bytes-missing")
        book.requeue(claimed.id)
        (claimed,) = book.claim_sends("pacs", 1, 10.0)
    book.dead(claimed, NOT_SENDABLE)
    assert book.add(arrival(), blob("1.2.3"), 10).duplicate
    (again,) = book.claim_work("w", 1, 10.0)
    book.finish(again, outcome("pacs"))
    assert delivery_state(book) is DeliveryState.QUEUED
