"""An instance is worked on by one holder at a time, and poison is found out."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from dicom_node.config import Role, Route
from dicom_node.errors import IllegalTransition, LedgerError, StaleLease
from dicom_node.jobs import PASSED, DeliveryState, InstanceState, Outcome, Send, Work, passed
from dicom_node.ledger import Added, Ended, Ledger
from dicom_node.ledger.dialects import Place
from dicom_node.metrics import (
    CONFLICTS,
    LOST,
    PROCESSED,
    RECEIVED_BYTES,
    REPEATS,
    UNKNOWN,
    InstanceTally,
    Reading,
)
from tests.ledgers import Clock, arrival, blob, outcome, send, state, work


def test_an_arrival_waits_for_a_worker(book: Ledger) -> None:
    added = book.add(arrival(), blob("a"), 10)
    assert added == Added(1, duplicate=False, conflict=False)
    assert state(book) is InstanceState.RECEIVED
    assert not book.counts().idle
    (claimed,) = book.claim_work("w", 16, 10.0)
    assert claimed == Work(1, 1, 1, arrival(), blob("a"), received_at=claimed.received_at, size=10)
    assert claimed.received_at == book.trace(arrival().sop_instance_uid)[0].at
    assert state(book) is InstanceState.WORKING


def test_the_same_bytes_again_start_nothing(book: Ledger) -> None:
    first = book.add(arrival(), blob("a"), 10)
    assert book.add(arrival(), blob("a"), 10) == Added(first.id, duplicate=True)
    assert len(book.claim_work("w", 16, 10.0)) == 1
    assert book.add(arrival(), blob("a"), 10).duplicate
    assert book.claim_work("w", 16, 10.0) == []
    assert book.snapshot().total(REPEATS) == 2


def test_the_same_bytes_after_delivery_are_not_delivered_again(book: Ledger) -> None:
    book.delivered(send(book), 0)
    assert book.add(arrival(), blob("1.2.3"), 10).duplicate
    assert book.counts().idle


def test_the_same_uid_with_other_content_is_kept_and_counted(book: Ledger) -> None:
    book.add(arrival(), blob("a"), 10)
    assert book.add(arrival(), blob("b"), 10) == Added(2, duplicate=False, conflict=True)
    assert len(book.claim_work("w", 16, 10.0)) == 2
    assert book.snapshot().total(CONFLICTS) == 1


def test_what_goes_straight_on_looks_as_if_a_worker_had_passed_it(scratch: Path, clock: Clock) -> None:
    books = [Ledger(scratch / f"{name}.sqlite", clock=clock) for name in ("worked", "straight")]
    worked, straight = books
    route = Route(name="all", role=Role.PASS, destinations=("pacs", "vna"), priority=4)
    worked.add(arrival(route="all"), blob("a"), 10, [Reading(RECEIVED_BYTES, ("other",), 10.0)])
    (claimed,) = worked.claim_work("w", 1, 10.0)
    outcome = replace(passed(claimed, route, PASSED), readings=(Reading(PROCESSED, (UNKNOWN, PASSED)),))
    worked.finish(claimed, outcome, priority=route.priority)
    added = straight.add(
        arrival(route="all"),
        blob("a"),
        10,
        [Reading(RECEIVED_BYTES, ("other",), 10.0)],
        straight_to=("pacs", "vna", "pacs"),
        priority=4,
    )
    assert added == Added(1, duplicate=False, queued_for=("pacs", "vna"))
    assert straight.snapshot() == worked.snapshot()
    assert straight.steps(0, 10) == worked.steps(0, 10)
    assert straight.claim_work("w", 1, 10.0) == []
    assert [b.claim_sends("vna", 1, 10.0) for b in books[1:]] == [
        b.claim_sends("vna", 1, 10.0) for b in books[:1]
    ]
    for book in books:
        book.close()


def test_what_goes_straight_on_goes_once_and_a_conflict_goes_too(book: Ledger) -> None:
    book.add(arrival(), blob("a"), 10, straight_to=("pacs",))
    assert book.add(arrival(), blob("a"), 10, straight_to=("pacs",)) == Added(1, duplicate=True)
    other = book.add(arrival(), blob("b"), 10, straight_to=("pacs",))
    assert (other.conflict, other.queued_for) == (True, ("pacs",))
    assert [send.blob for send in book.claim_sends("pacs", 10, 10.0)] == [blob("a"), blob("b")]
    assert book.snapshot().total(PROCESSED) == 2


def test_what_went_straight_on_and_was_lost_is_made_again_by_a_worker(book: Ledger) -> None:
    book.add(arrival(), blob("a"), 10, straight_to=("pacs",))
    (claim,) = book.claims()
    book.lose(claim, "bytes-missing")
    assert book.claim_sends("pacs", 1, 10.0) == []
    assert book.add(arrival(), blob("a"), 10, straight_to=("pacs",)).queued_for == ()
    (claimed,) = book.claim_work("w", 1, 10.0)
    book.finish(claimed, replace(outcome("pacs"), blob=blob("a")))
    assert [send.blob for send in book.claim_sends("pacs", 1, 10.0)] == [blob("a")]


def test_the_same_object_on_another_route_is_another_instance(book: Ledger) -> None:
    book.add(arrival(route="protect"), blob("a"), 10)
    assert book.add(arrival(route="verify"), blob("a"), 10) == Added(2, duplicate=False, conflict=False)


def test_work_is_leased_longest_waiting_first_and_once(book: Ledger, clock: Clock) -> None:
    for uid in ("1.1", "1.2", "1.3"):
        book.add(arrival(uid), blob(uid), 1)
        clock.now += 1
    first = book.claim_work("a", 2, 100.0)
    second = book.claim_work("b", 2, 100.0)
    assert [claimed.arrival.sop_instance_uid for claimed in first + second] == ["1.1", "1.2", "1.3"]
    assert book.claim_work("c", 2, 100.0) == []


def test_finished_work_queues_its_deliveries(book: Ledger) -> None:
    book.finish(work(book), outcome("pacs", "vna", "pacs"))
    assert state(book) is InstanceState.READY
    assert book.counts().deliveries[DeliveryState.QUEUED] == 2
    (claimed,) = book.claim_sends("vna", 16, 10.0)
    assert replace(claimed, job=0, received_at=0.0, queued_at=0.0) == Send(
        2,
        token=1,
        attempts=1,
        destination="vna",
        blob=blob("out"),
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        sop_instance_uid="2.25.1",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
    )


@pytest.mark.parametrize("end", [InstanceState.HELD, InstanceState.REJECTED, InstanceState.QUARANTINED])
def test_work_may_end_without_deliveries(book: Ledger, end: InstanceState) -> None:
    book.finish(work(book), Outcome(end, "kept", "palette-colour"))
    assert state(book) is end
    assert book.counts().idle
    assert book.snapshot().instances == (InstanceTally(end, "kept", "palette-colour", 1),)


def test_an_outcome_that_delivers_nothing_to_somebody_is_refused(book: Ledger) -> None:
    claimed = work(book)
    with pytest.raises(LedgerError, match="nothing to deliver"):
        book.finish(claimed, Outcome(InstanceState.READY, "protected", destinations=("pacs",)))
    with pytest.raises(LedgerError, match="nothing to deliver"):
        book.finish(claimed, Outcome(InstanceState.HELD, "held", blob=blob("a"), destinations=("pacs",)))
    assert state(book) is InstanceState.WORKING


@pytest.mark.parametrize("end", [InstanceState.RECEIVED, InstanceState.WORKING])
def test_work_cannot_end_in_a_state_that_is_no_end(book: Ledger, end: InstanceState) -> None:
    claimed = work(book)
    with pytest.raises(IllegalTransition):
        book.finish(claimed, Outcome(end, "again"))


def test_released_work_comes_back_when_it_is_due(book: Ledger, clock: Clock) -> None:
    book.release(work(book), clock.now + 5, "spool-full")
    assert book.claim_work("w", 1, 10.0) == []
    clock.now += 5
    (again,) = book.claim_work("w", 1, 10.0)
    assert (again.token, again.attempts) == (2, 2)
    assert book.snapshot().total(LOST) == 0


def test_a_beat_keeps_the_lease(book: Ledger, clock: Clock) -> None:
    claimed = work(book)
    for _ in range(5):
        clock.now += 9
        book.beat(claimed, 10.0)
        assert book.claim_work("other", 1, 10.0) == []
    book.finish(claimed, outcome())


def test_an_expired_lease_goes_to_another_and_the_first_holder_is_refused(book: Ledger, clock: Clock) -> None:
    zombie = work(book)
    clock.now += 10
    (heir,) = book.claim_work("other", 1, 10.0)
    assert heir.token > zombie.token
    for attempt in (
        lambda: book.finish(zombie, outcome("pacs")),
        lambda: book.release(zombie, clock.now, "late"),
        lambda: book.beat(zombie, 10.0),
    ):
        with pytest.raises(StaleLease, match="drop its result"):
            attempt()
    assert book.counts().deliveries[DeliveryState.QUEUED] == 0
    book.finish(heir, outcome("pacs"))
    with pytest.raises(StaleLease):
        book.finish(heir, outcome("pacs"))
    assert book.counts().deliveries[DeliveryState.QUEUED] == 1


def test_what_was_taken_back_is_claimed_at_once_while_the_clock_goes_on(place: Place) -> None:
    book = Ledger(place, clock=itertools.count(1_000_000).__next__)
    taken = work(book)
    book.beat(taken, 1.0)
    assert [each.id for each in book.claim_work("other", 1, 1000.0)] == [taken.id]
    book.close()


def test_an_expired_lease_that_nobody_took_still_counts(book: Ledger, clock: Clock) -> None:
    late = work(book)
    clock.now += 1000
    book.finish(late, outcome())
    assert state(book) is InstanceState.READY


def test_an_instance_that_loses_its_worker_twice_is_quarantined(book: Ledger, clock: Clock) -> None:
    work(book)
    clock.now += 10
    assert len(book.claim_work("b", 1, 10.0)) == 1
    clock.now += 10
    assert book.claim_work("c", 1, 10.0) == []
    (kept,) = book.held()
    assert (kept.state, kept.reason) == (InstanceState.QUARANTINED, "killed-its-worker")
    assert book.snapshot().total(LOST) == 2


def test_a_dead_worker_loses_its_work_at_once_and_only_its_own(book: Ledger) -> None:
    for uid in ("1.1", "1.2"):
        book.add(arrival(uid), blob(uid), 1)
    book.claim_work("a", 1, 1000.0)
    (others,) = book.claim_work("b", 1, 1000.0)
    assert book.worker_died("a") == 1
    assert book.worker_died("a") == 0
    book.beat(others, 1000.0)


def test_who_was_in_the_same_batch_as_a_poison_is_not_accused(book: Ledger) -> None:
    for number in range(4):
        book.add(arrival(f"1.{number}"), blob(str(number)), 1)
    assert len(book.claim_work("a", 16, 1000.0)) == 4
    book.worker_died("a")
    finished = []
    for round_ in range(8):
        worker = f"w{round_}"
        batch = book.claim_work(worker, 16, 1000.0)
        assert len(batch) <= 1, "suspects are leased alone"
        for claimed in batch:
            if claimed.arrival.sop_instance_uid == "1.2":
                book.worker_died(worker)
            else:
                book.finish(claimed, outcome())
                finished.append(claimed.arrival.sop_instance_uid)
    assert finished == ["1.0", "1.1", "1.3"]
    assert [kept.sop_instance_uid for kept in book.held()] == ["1.2"]


def test_an_innocent_in_front_of_a_suspect_takes_no_risk(book: Ledger, clock: Clock) -> None:
    book.add(arrival("1.1"), blob("1"), 1)
    book.claim_work("a", 1, 1000.0)
    book.add(arrival("1.2"), blob("2"), 1)
    clock.now += 1
    book.worker_died("a")
    assert [claimed.arrival.sop_instance_uid for claimed in book.claim_work("b", 16, 10.0)] == ["1.2"]


def test_several_ends_are_recorded_at_once_and_a_lost_lease_costs_only_its_own(book: Ledger) -> None:
    for uid in ("1.1", "1.2", "1.3"):
        book.add(arrival(uid), blob(uid), 1)
    works = book.claim_work("w", 3, 100.0)
    book.release(works[1], 1e12, "taken-away")
    stale = book.finish_all([Ended(each, outcome("archive"), place) for place, each in enumerate(works)])
    assert list(stale) == [works[1].id]
    sends = book.claim_sends("archive", 10, 100.0)
    assert [each.job for each in sends] == [works[2].id, works[0].id]


def test_what_comes_next_is_claimed_with_the_record_of_what_is_done(book: Ledger) -> None:
    for uid in ("1.1", "1.2", "1.3", "1.4"):
        book.add(arrival(uid), blob(uid), 1)
    works = book.claim_work("w", 2, 100.0)
    book.release(works[1], 1e12, "taken-away")
    stale, following = book.finish_and_claim(
        [Ended(each, outcome("archive")) for each in works], "w", 4, 100.0
    )
    assert list(stale) == [works[1].id]
    assert [each.arrival.sop_instance_uid for each in following] == ["1.3", "1.4"]
    assert [each.job for each in book.claim_sends("archive", 10, 100.0)] == [works[0].id]
    assert book.claim_work("w", 4, 100.0) == []
    assert book.finish_and_claim([Ended(each, outcome()) for each in following], "w", 4, 100.0) == ({}, [])


def test_an_end_that_is_none_is_refused_before_anything_is_recorded(book: Ledger) -> None:
    for uid in ("1.1", "1.2"):
        book.add(arrival(uid), blob(uid), 1)
    first, second = book.claim_work("w", 2, 100.0)
    with pytest.raises(IllegalTransition):
        book.finish_all([Ended(first, outcome()), Ended(second, Outcome(InstanceState.RECEIVED, "x"))])
    assert state(book) is InstanceState.WORKING
