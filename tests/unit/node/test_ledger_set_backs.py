"""What waits follows a clock that was set back: once, in small steps, wherever that is cut off."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa

from dicom_node.errors import LedgerUnavailable, StaleLease
from dicom_node.jobs import DeliveryState
from dicom_node.ledger import Ledger, set_backs
from dicom_node.ledger.dialects import Place
from dicom_node.ledger.schema import deliveries, instances
from tests.ledgers import Clock, arrival, blob, delivery_state, outcome, send, work

HOUR = 3600.0


def follow(book: Ledger, by_s: float) -> int:
    """Note it and follow to the end; how many times were moved."""
    book.set_back(by_s)
    return sum(book.follow_the_clock())


def test_a_clock_that_is_set_back_holds_nothing_up(book: Ledger, clock: Clock) -> None:
    """What waited before, at once or for a minute, waits no hour longer; no lease lasts an hour longer."""
    book.finish(work(book, "1.1"), outcome("pacs"))
    book.add(arrival("1.2"), blob("b"), 1)
    (mine,) = book.claim_work("w", 1, 10.0)
    book.add(arrival("1.3"), blob("c"), 1)
    book.add(arrival("1.4"), blob("d"), 1)
    (later,) = book.claim_work("w", 1, 10.0)
    book.release(later, clock.now + 60.0, "later")
    clock.now -= HOUR
    assert book.claim_work("w", 8, 10.0) == []
    assert book.claim_sends("pacs", 8, 10.0) == []

    assert follow(book, HOUR) == 4
    assert [each.arrival.sop_instance_uid for each in book.claim_work("v", 8, 100.0)] == ["1.4"]
    assert len(book.claim_sends("pacs", 8, 100.0)) == 1
    clock.now += 11.0
    assert [each.arrival.sop_instance_uid for each in book.claim_work("v", 8, 100.0)] == ["1.2"]
    with pytest.raises(StaleLease):
        book.finish(mine, outcome())
    clock.now += 49.0
    assert [each.arrival.sop_instance_uid for each in book.claim_work("v", 8, 100.0)] == ["1.3"]


def test_a_lease_that_was_taken_since_the_clock_was_set_back_stays(book: Ledger, clock: Clock) -> None:
    clock.now -= HOUR
    mine = work(book)
    assert follow(book, HOUR) == 0
    assert book.claim_work("v", 8, 10.0) == []
    book.finish(mine, outcome())


def test_a_lease_of_whichever_clock_does_not_end_under_its_holder(book: Ledger, clock: Clock) -> None:
    """Set back by less than a lease lasts, nobody can tell by which clock one was taken: it is renewed."""
    clock.now -= 250.0
    book.add(arrival(), blob("a"), 1)
    (mine,) = book.claim_work("w", 1, 300.0)
    assert follow(book, 250.0) == 0
    clock.now += 100.0
    assert book.claim_work("v", 8, 300.0) == []
    book.beat(mine, 300.0)


def test_a_clock_that_is_set_back_is_followed_once(book: Ledger, clock: Clock) -> None:
    """By whoever notices; the next start, or the tenth, finds nothing more to do, and the story tells."""
    book.add(arrival(), blob("a"), 1)
    clock.now -= HOUR
    assert follow(book, HOUR) == 1
    clock.now += 600.0
    assert book.behind_s() == 0.0
    assert follow(book, HOUR) == 0
    assert [step.what for step in book.steps(0, 9)].count("clock-set-back") == 1


def test_a_clock_that_is_put_forward_ends_leases_and_nothing_comes_twice(book: Ledger, clock: Clock) -> None:
    """By a day: who holds what is overtaken by another, and refused."""
    delivery = send(book)
    clock.now += 24 * HOUR
    (again,) = book.claim_sends("pacs", 8, 10.0)
    assert again.id == delivery.id
    with pytest.raises(StaleLease):
        book.delivered(delivery, 0)
    book.delivered(again, 0)
    assert delivery_state(book) is DeliveryState.DELIVERED


def test_what_a_server_times_follows_no_clock_of_this_machine(
    book: Ledger, clock: Clock, place: Place
) -> None:
    assert book.behind_s() == 0.0
    book.add(arrival(), blob("a"), 1)
    clock.now -= HOUR
    assert book.by_this_clock is isinstance(place, Path)
    assert book.behind_s() == (HOUR if book.by_this_clock else 0.0)


# ---- in steps ----


def times(book: Ledger) -> list[float]:
    """When every instance and every delivery is due, as far as they wait."""
    with book._reading() as connection:
        due = [
            connection.execute(sa.select(table.c.next_at).where(table.c.state == state).order_by(table.c.id))
            for table, state in ((instances, "received"), (deliveries, "queued"))
        ]
        return [at for rows in due for at in rows.scalars()]


def waiting(book: Ledger, clock: Clock, count: int) -> list[float]:
    """Instances that arrived one second after the other, and as many deliveries; when they are due."""
    for number in range(count):
        book.finish(work(book, f"2.{number}"), outcome("pacs"))
        clock.now += 1.0
    for number in range(count):
        book.add(arrival(f"1.{number}"), blob(f"a{number}"), 1)
        clock.now += 1.0
    return times(book)


@pytest.mark.parametrize("ended_after", range(9))
def test_who_is_killed_between_two_steps_moves_nothing_twice_and_leaves_nothing_out(
    place: Place, book: Ledger, clock: Clock, monkeypatch: pytest.MonkeyPatch, ended_after: int
) -> None:
    monkeypatch.setattr(set_backs, "_BATCH", 2)
    before = waiting(book, clock, 5)
    clock.now -= 60.0
    book.set_back(60.0)
    assert len(list(itertools.islice(book.follow_the_clock(), ended_after))) == ended_after
    again = Ledger(place, clock=clock)
    assert again.behind_s() == 0.0, "the next start knows of it by what was noted"
    assert list(again.follow_the_clock()) != []
    assert times(again) == [at - 60.0 for at in before]
    assert list(again.follow_the_clock()) == []
    again.close()


def test_of_two_that_follow_at_once_each_moves_what_the_other_has_not(
    place: Place, book: Ledger, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(set_backs, "_BATCH", 1)
    before = waiting(book, clock, 4)
    clock.now -= 60.0
    book.set_back(60.0)
    other = Ledger(place, clock=clock)
    steps = [book.follow_the_clock(), other.follow_the_clock()]
    while steps:
        steps = [each for each in steps if next(each, None) is not None]
    assert times(book) == [at - 60.0 for at in before]
    other.close()


def test_a_step_that_fails_has_moved_nothing(
    book: Ledger, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(set_backs, "_BATCH", 2)
    before = waiting(book, clock, 3)
    clock.now -= 60.0
    book.set_back(60.0)
    run_many, calls = set_backs.Statement.run_many, itertools.count()

    def full(*arguments: object) -> int:
        moved = run_many(*arguments)  # type: ignore[arg-type]
        if next(calls) == 5:
            raise LedgerUnavailable("no room")
        return moved

    monkeypatch.setattr(set_backs.Statement, "run_many", full)
    with pytest.raises(LedgerUnavailable):
        list(book.follow_the_clock())
    list(book.follow_the_clock())
    assert times(book) == [at - 60.0 for at in before]


def test_a_second_set_back_waits_for_the_first(book: Ledger, clock: Clock) -> None:
    before = waiting(book, clock, 3)
    clock.now -= 60.0
    book.set_back(60.0)
    clock.now -= 30.0
    assert follow(book, 30.0) > 0
    assert times(book) == [at - 90.0 for at in before]


def test_what_comes_after_it_was_noted_stays_as_it_is(book: Ledger, clock: Clock) -> None:
    before = waiting(book, clock, 2)
    clock.now -= 60.0
    book.set_back(60.0)
    clock.now += 5.0
    book.add(arrival("3.1"), blob("new"), 1)
    list(book.follow_the_clock())
    assert times(book) == [*(at - 60.0 for at in before[:2]), clock.now, *(at - 60.0 for at in before[2:])]


def test_others_write_between_two_steps(book: Ledger, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(set_backs, "_BATCH", 1)
    waiting(book, clock, 3)
    clock.now -= 60.0
    book.set_back(60.0)
    for number, _ in enumerate(book.follow_the_clock()):
        added = threading.Thread(target=book.add, args=(arrival(f"4.{number}"), blob(f"n{number}"), 1))
        added.start()
        added.join(60.0)
        assert not added.is_alive()


def test_a_batch_is_found_by_the_number_of_its_rows(book: Ledger) -> None:
    """Not by the index of what waits, which has a million entries of one destination."""
    if not book.by_this_clock:
        pytest.skip("a server plans by what it has counted")
    with book._reading() as connection:
        for statement in set_backs._MOVES.values():
            spelled = statement._for(connection.dialect)
            given = spelled.given({"number": 1, "later_than": 0.0, "by_s": 1.0})
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {spelled.text}", given).all()
            assert "USING INTEGER PRIMARY KEY (rowid=?)" in plan[0].detail
