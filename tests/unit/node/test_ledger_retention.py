"""Bytes are needed until nobody can ask for them any more."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from dicom_node.commitment import Report
from dicom_node.jobs import InstanceState, Outcome
from dicom_node.ledger import Ledger, retention, schema
from dicom_node.metrics import ATTEMPTS
from tests.ledgers import Clock, arrival, blob, outcome, send, work


def test_blobs_are_needed_until_they_have_arrived_everywhere(book: Ledger, clock: Clock) -> None:
    both = [blob("1.2.3"), blob("out")]
    claimed = work(book)
    assert book.needed(both) == {blob("1.2.3")}
    book.finish(claimed, outcome("pacs", "vna"))
    assert book.needed(both) == {blob("out")}
    book.delivered(book.claim_sends("pacs", 1, 10.0)[0], 0)
    assert book.needed(both) == {blob("out")}
    (last,) = book.claim_sends("vna", 1, 10.0)
    book.dead(last, "refused")
    assert book.needed(both) == {blob("out")}, "a dead letter may be requeued"
    book.requeue(last.id)
    book.delivered(book.claim_sends("vna", 1, 10.0)[0], 0)
    assert book.needed(both) == frozenset()
    assert book.needed([]) == frozenset()


def test_blobs_are_needed_until_their_destination_commits_to_them(book: Ledger) -> None:
    book.finish(work(book), outcome("pacs"))
    book.delivered(book.claim_sends("pacs", 1, 10.0)[0], 0, to_commit=True)
    assert book.needed([blob("out")]) == {blob("out")}
    ask = book.claim_ask("pacs", "2.25.7", 10, collect_s=0.0, answer_s=60.0)
    assert ask is not None
    assert book.needed([blob("out")]) == {blob("out")}
    report = Report(ask.transaction_uid, dict.fromkeys(ask.references, 0))
    book.take_report(report, 3, lambda _name: lambda _silences: 0.0)
    assert book.needed([blob("out")]) == frozenset()


@pytest.mark.parametrize(
    ("end", "needed"),
    [(InstanceState.HELD, True), (InstanceState.QUARANTINED, True), (InstanceState.REJECTED, False)],
)
def test_a_blob_that_an_operator_may_decide_about_is_needed(
    book: Ledger, end: InstanceState, needed: bool
) -> None:
    book.finish(work(book), Outcome(end, "kept"))
    assert bool(book.needed([blob("1.2.3")])) is needed


def purge(book: Ledger, before: float) -> int:
    gone, after = 0, 0
    while True:
        step = book.purge(before, after)
        gone += step.instances
        if step.after is None:
            return gone
        after = step.after


def test_an_instance_is_forgotten_when_everything_about_it_is_old(book: Ledger, clock: Clock) -> None:
    book.finish(work(book), outcome("pacs", "vna"))
    clock.now += 100
    for name in ("pacs", "vna"):
        assert purge(book, clock.now) == 0, "it is not yet everywhere"
        book.delivered(book.claim_sends(name, 1, 10.0)[0], 0)
    assert purge(book, clock.now) == 0, "it has just been delivered"
    clock.now += 1
    assert purge(book, clock.now) == 1
    assert book.trace("1.2.3") == []
    assert book.snapshot().deliveries == ()
    assert not book.add(arrival(), blob("1.2.3"), 10).duplicate, "what is forgotten is new again"


@pytest.mark.parametrize(
    ("end", "goes"),
    [
        (InstanceState.READY, True),
        (InstanceState.REJECTED, True),
        (InstanceState.HELD, False),
        (InstanceState.QUARANTINED, False),
    ],
)
def test_what_waits_for_an_operator_is_never_forgotten(
    book: Ledger, clock: Clock, end: InstanceState, goes: bool
) -> None:
    book.finish(work(book), Outcome(end, "done"))
    clock.now += 1e9
    assert bool(purge(book, clock.now)) is goes


def test_dead_letters_are_kept_and_dropped_ones_are_not(book: Ledger, clock: Clock) -> None:
    first = send(book)
    book.dead(first, "refused")
    clock.now += 1e9
    assert purge(book, clock.now) == 0
    book.drop(first.id)
    clock.now += 1
    assert purge(book, clock.now) == 1


def test_counters_go_up_only_although_rows_are_forgotten(book: Ledger, clock: Clock) -> None:
    first = send(book)
    book.retry(first, clock.now, "busy")
    book.delivered(book.claim_sends("pacs", 1, 10.0)[0], 0)
    book.add(arrival(), blob("1.2.3"), 10)
    book.add(arrival(), blob("other"), 10)
    book.claim_work("w", 1, 10.0)
    book.worker_died("w")
    book.finish(book.claim_work("v", 1, 10.0)[0], outcome("pacs", content="other out"))
    book.delivered(book.claim_sends("pacs", 1, 10.0)[0], 0)
    before = book.snapshot()
    clock.now += 1
    assert purge(book, clock.now) == 2
    after = book.snapshot()
    assert after.counted == before.counted
    assert after.deliveries == ()
    assert after.total(ATTEMPTS, "pacs") == 3


def test_a_purge_goes_in_steps_past_what_must_stay(
    book: Ledger, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_WINDOW", 2)
    for number in range(7):
        end = InstanceState.HELD if number in (0, 1, 4) else InstanceState.REJECTED
        book.finish(work(book, f"1.{number}"), Outcome(end, "done"))
    clock.now += 1
    young = work(book, "1.9")
    assert [book.purge(clock.now).instances, book.purge(clock.now, 2).instances] == [0, 2]
    assert purge(book, clock.now) == 2
    book.finish(young, outcome())


def test_what_something_else_is_bound_to_stays(clock: Clock, scratch: Path) -> None:
    class Bound(Ledger):
        def _bound(self) -> tuple[sa.ColumnElement[bool], ...]:
            return (schema.instances.c.sop_instance_uid == "1.2.3",)

    book = Bound(scratch / "bound.sqlite", clock=clock)
    for uid in ("1.2.3", "1.2.4"):
        book.finish(work(book, uid), outcome("pacs", content=uid))
        book.delivered(book.claim_sends("pacs", 1, 10.0)[0], 0)
    assert book.needed([blob("1.2.3"), blob("1.2.4")]) == {blob("1.2.3")}
    clock.now += 1
    assert purge(book, clock.now) == 1
    assert [kept.id for kept in book.instances_in(InstanceState.READY, 10)] == [1]
    book.close()


def test_the_ledger_knows_what_it_names(book: Ledger) -> None:
    book.delivered(send(book), 0)
    asked = [blob("1.2.3"), blob("out"), blob("stranger")]
    assert book.needed(asked) == frozenset()
    assert book.known(asked) == {blob("1.2.3"), blob("out")}


@pytest.mark.sqlite
def test_the_file_shrinks_after_a_purge(book: Ledger, clock: Clock, scratch: Path) -> None:
    for number in range(1500):
        book.add(arrival(f"1.{number}"), blob(str(number)), 1)
    while batch := book.claim_work("w", 100, 10.0):
        for claimed in batch:
            book.finish(claimed, Outcome(InstanceState.REJECTED, "rejected"))
    book.compact()
    full = (scratch / "ledger.sqlite").stat().st_size
    clock.now += 1
    assert purge(book, clock.now) == 1500
    while book.compact():
        pass
    assert (scratch / "ledger.sqlite").stat().st_size < full / 2
    assert (scratch / "ledger.sqlite-wal").stat().st_size == 0
    book.check()
