"""An operator sees what waits, one object with its deliveries, and the story of each."""

from __future__ import annotations

import pytest
from sqlalchemy import event

from dicom_node.jobs import DeliveryState, InstanceState, Outcome
from dicom_node.ledger import Backlog, Ledger, view
from tests.ledgers import Clock, arrival, blob, outcome, send, work


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


def test_deliveries_are_listed_longest_queued_first(book: Ledger, clock: Clock) -> None:
    for number in range(3):
        book.finish(work(book, f"1.{number}"), outcome("pacs", "vna", uid=f"2.{number}"), priority=number)
        clock.now += 1
    listed = book.parcels("pacs", DeliveryState.QUEUED, 2)
    assert [(parcel.instance_id, parcel.priority) for parcel in listed] == [(1, 0), (2, 1)]
    assert book.parcels("pacs", DeliveryState.DEAD, 2) == []
    assert book.parcels("other", DeliveryState.QUEUED, 2) == []


def test_a_delivery_is_shown_with_what_came_of_it(book: Ledger, clock: Clock) -> None:
    first = send(book)
    book.retry(first, clock.now + 60, "status-a700")
    shown = book.parcel(first.id)
    assert shown is not None
    assert (shown.state, shown.next_at, shown.attempts, shown.reason, shown.blob) == (
        DeliveryState.QUEUED,
        clock.now + 60,
        1,
        "status-a700",
        blob("out"),
    )
    assert book.parcel(99) is None


def test_an_instance_is_shown_with_all_its_deliveries(book: Ledger) -> None:
    book.finish(work(book), outcome("pacs", "vna"))
    book.add(arrival(), blob("1.2.3"), 10)
    shown = book.item(1)
    assert shown is not None
    assert (shown.state, shown.result, shown.size, shown.repeats, shown.conflict) == (
        InstanceState.READY,
        "protected",
        10,
        1,
        False,
    )
    assert [parcel.destination for parcel in shown.deliveries] == ["pacs", "vna"]
    assert book.item(99) is None


def test_no_list_is_longer_than_was_asked_for(book: Ledger) -> None:
    for number in range(3):
        book.finish(work(book, f"1.{number}"), Outcome(InstanceState.HELD, "held"))
        book.dead(send(book, f"d{number}") if not number else _sent(book, number), "refused")
    assert len(book.held(2)) == 2
    assert len(book.dead_letters(limit=2)) == 2


def _sent(book: Ledger, number: int) -> object:
    book.finish(work(book, f"3.{number}"), outcome(f"d{number}", uid=f"4.{number}"))
    return book.claim_sends(f"d{number}", 1, 10.0)[0]


def test_a_backlog_is_told_by_destination(book: Ledger, clock: Clock) -> None:
    first = clock.now
    for number in range(3):
        book.finish(work(book, f"1.{number}"), outcome("pacs", "vna", uid=f"2.{number}"))
        clock.now += 1
    (sending,) = book.claim_sends("pacs", 1, 10.0)
    (dead,) = book.claim_sends("vna", 1, 10.0)
    book.dead(dead, "status-a900")
    assert book.backlogs() == [
        Backlog("pacs", 2, 1, 0, first + 1),
        Backlog("vna", 2, 0, 1, first + 1),
    ]
    book.delivered(sending, 0)
    assert book.backlogs()[0] == Backlog("pacs", 2, 0, 0, first + 1)


def test_what_waits_here_is_counted(book: Ledger, clock: Clock) -> None:
    assert (book.unprocessed(), book.kept()) == ((0, None), 0)
    book.finish(work(book, "1.1"), Outcome(InstanceState.HELD, "held", "pixel-error"))
    came = clock.now = clock.now + 1
    book.add(arrival("1.2"), blob("1.2"), 10)
    clock.now += 1
    book.add(arrival("1.3"), blob("1.3"), 10)
    assert (book.unprocessed(), book.kept()) == ((2, came), 1)


def test_verdicts_are_told_latest_first(book: Ledger) -> None:
    fates = [
        (InstanceState.READY, "verified", "authentic"),
        (InstanceState.READY, "protected", ""),
        (InstanceState.READY, "verified", "no-pixel-data"),
        (InstanceState.HELD, "held", "damaged"),
        (InstanceState.HELD, "held", "pixel-error"),
        (InstanceState.READY, "recovered", "approximate"),
        (InstanceState.REJECTED, "rejected", "unmarked"),
    ]
    for number, fate in enumerate(fates):
        book.finish(work(book, f"1.{number}"), Outcome(*fate))
    assert [(each.id, each.finding) for each in book.judged(10)] == [
        (7, "unmarked"),
        (6, "authentic"),
        (4, "damaged"),
        (1, "authentic"),
    ]
    assert [each.id for each in book.judged(2)] == [7, 6]


@pytest.mark.sqlite
def test_a_status_costs_what_waits_and_not_what_was_delivered(book: Ledger) -> None:
    """Every question of the status page is answered from an index, none by a look at a whole table."""
    with book._reading() as connection:
        plans: list[tuple[str, str]] = []

        def explained(_: object, __: object, statement: str, parameters: object, *___: object) -> None:
            if statement.startswith("SELECT"):
                raw = connection.connection.cursor()
                raw.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
                plans.extend((row[3], statement) for row in raw.fetchall())

        event.listen(book._engine, "before_cursor_execute", explained)
        try:
            book.backlogs()
            book.judged(10)
            book.kept()
            book.unprocessed()
        finally:
            event.remove(book._engine, "before_cursor_execute", explained)
    scans = [(plan, statement) for plan, statement in plans if plan.startswith("SCAN")]
    assert scans
    for plan, statement in scans:
        # indexes that hold nothing but what waits, what was selected already, and the newest in their order
        waiting = plan.endswith(("instances_age", "instances_kept", "anon_1"))
        assert waiting or (plan == "SCAN instances" and "ORDER BY instances.id DESC\n LIMIT" in statement), (
            plan
        )
    assert not [plan for plan, statement in plans if "TEMP B-TREE" in plan and "anon_1" not in statement]


def test_verdicts_are_looked_for_among_the_newest(book: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view, "_NEWEST", 2)
    for number, result in enumerate(("verified", "protected", "protected")):
        outcome_ = Outcome(InstanceState.READY, result, "authentic" if result == "verified" else "")
        book.finish(work(book, f"1.{number}"), outcome_)
        assert len(book.judged(5)) == (1 if number < 2 else 0)
