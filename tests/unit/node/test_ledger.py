"""What was acknowledged is there, in one state, worked on by one holder at a time, whoever dies."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from dicom_node import jobs, ledger
from dicom_node.errors import IllegalTransition, LedgerError, StaleLease
from dicom_node.jobs import Arrival, DeliveryState, InstanceState, Outcome, Send, Work
from dicom_node.ledger import Added, Ledger
from dicom_node.metrics import DeliveryTally, InstanceTally, QueueAge, Snapshot
from dicom_node.spool import Spool

_MEMORY = Path("/dev/shm")


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In memory where possible: these tests are about what survives a process, not about the disk's speed."""
    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as folder:
        yield Path(folder)


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def book(tmp_path: Path, clock: Clock) -> Iterator[Ledger]:
    opened = Ledger(tmp_path / "ledger.sqlite", clock=clock)
    yield opened
    opened.close()


def blob(content: str) -> str:
    return content.encode().hex().rjust(64, "0")


def arrival(uid: str = "1.2.3", route: str = "protect") -> Arrival:
    return Arrival("1.2.840.10008.5.1.4.1.1.2", uid, "1.2.840.10008.1.2.1", "CT1", "NODE", route)


def outcome(*destinations: str, uid: str = "2.25.1", content: str = "out") -> Outcome:
    return Outcome(
        InstanceState.READY,
        "protected",
        blob=blob(content),
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        sop_instance_uid=uid,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        destinations=destinations,
    )


def work(book: Ledger, uid: str = "1.2.3") -> Work:
    """A freshly arrived instance in the hands of worker w."""
    book.add(arrival(uid), blob(uid), 10)
    (claimed,) = book.claim_work("w", 1, 10.0)
    return claimed


def send(book: Ledger, destination: str = "pacs") -> Send:
    """A freshly queued delivery in the hands of a forwarder."""
    book.finish(work(book), outcome(destination))
    (claimed,) = book.claim_sends(destination, 1, 10.0)
    return claimed


def state(book: Ledger) -> InstanceState:
    """The state of the only instance."""
    (found,) = [state for state, count in book.counts().instances.items() if count]
    return found


def delivery_state(book: Ledger) -> DeliveryState:
    """The state of the only delivery."""
    (found,) = [state for state, count in book.counts().deliveries.items() if count]
    return found


# arrivals


def test_an_arrival_waits_for_a_worker(book: Ledger) -> None:
    added = book.add(arrival(), blob("a"), 10)
    assert added == Added(1, duplicate=False, conflict=False)
    assert state(book) is InstanceState.RECEIVED
    assert not book.counts().idle
    (claimed,) = book.claim_work("w", 16, 10.0)
    assert claimed == Work(1, 1, 1, arrival(), blob("a"), received_at=claimed.received_at)
    assert claimed.received_at == book.trace(arrival().sop_instance_uid)[0].at
    assert state(book) is InstanceState.WORKING


def test_the_same_bytes_again_start_nothing(book: Ledger) -> None:
    first = book.add(arrival(), blob("a"), 10)
    assert book.add(arrival(), blob("a"), 10) == Added(first.id, duplicate=True)
    assert len(book.claim_work("w", 16, 10.0)) == 1
    assert book.add(arrival(), blob("a"), 10).duplicate
    assert book.claim_work("w", 16, 10.0) == []
    assert book.snapshot().repeats == 2


def test_the_same_bytes_after_delivery_are_not_delivered_again(book: Ledger) -> None:
    book.delivered(send(book), 0)
    assert book.add(arrival(), blob("1.2.3"), 10).duplicate
    assert book.counts().idle


def test_the_same_uid_with_other_content_is_kept_and_counted(book: Ledger) -> None:
    book.add(arrival(), blob("a"), 10)
    assert book.add(arrival(), blob("b"), 10) == Added(2, duplicate=False, conflict=True)
    assert len(book.claim_work("w", 16, 10.0)) == 2
    assert book.snapshot().conflicts == 1


def test_the_same_object_on_another_route_is_another_instance(book: Ledger) -> None:
    book.add(arrival(route="protect"), blob("a"), 10)
    assert book.add(arrival(route="verify"), blob("a"), 10) == Added(2, duplicate=False, conflict=False)


# work


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
    assert claimed == Send(
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
    assert book.snapshot().lost == 0


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
    assert book.snapshot().lost == 2


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


# restarts


def test_recovery_takes_every_lease_back_and_accuses_nobody(book: Ledger, clock: Clock) -> None:
    delivery = send(book)
    stale = work(book, "1.9")
    assert book.recover() == 2
    assert book.snapshot().lost == 0
    with pytest.raises(StaleLease):
        book.finish(stale, outcome())
    with pytest.raises(StaleLease):
        book.delivered(delivery, 0)
    assert len(book.claim_work("w", 16, 10.0)) == 1
    assert len(book.claim_sends("pacs", 16, 10.0)) == 1
    assert len(book.trace("1.9")) == 2


def test_what_is_in_work_at_every_restart_is_quarantined_in_the_end(book: Ledger) -> None:
    book.add(arrival(), blob("a"), 1)
    for _ in range(ledger.INTERRUPTED_LIMIT):
        assert len(book.claim_work("w", 16, 1000.0)) == 1
        book.recover()
    assert book.claim_work("w", 16, 1000.0) == []
    assert state(book) is InstanceState.QUARANTINED


def test_everything_survives_reopening(tmp_path: Path, clock: Clock) -> None:
    first = Ledger(tmp_path / "again.sqlite", clock=clock)
    delivery = send(first)
    first.close()
    second = Ledger(tmp_path / "again.sqlite", clock=clock)
    second.delivered(delivery, 0xB007)
    assert second.counts().deliveries[DeliveryState.DELIVERED] == 1
    second.close()


# deliveries


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
    assert book.snapshot().deliveries == (DeliveryTally("pacs", "sending", 1, 1),)


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


# the operator


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


# questions


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


@pytest.mark.parametrize(
    ("end", "needed"),
    [(InstanceState.HELD, True), (InstanceState.QUARANTINED, True), (InstanceState.REJECTED, False)],
)
def test_a_blob_that_an_operator_may_decide_about_is_needed(
    book: Ledger, end: InstanceState, needed: bool
) -> None:
    book.finish(work(book), Outcome(end, "kept"))
    assert bool(book.needed([blob("1.2.3")])) is needed


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


# the file


def columns(path: Path) -> dict[str, list[str]]:
    with sqlite3.connect(path) as raw:
        tables = [row[0] for row in raw.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        found = {
            name: [row[1] for row in raw.execute(f"PRAGMA table_info({name})")]
            for name in tables
            if not name.startswith("sqlite_")
        }
    raw.close()
    return found


def test_the_migrations_make_exactly_the_declared_tables(book: Ledger, tmp_path: Path) -> None:
    declared = {
        table.name: [column.name for column in table.columns] for table in ledger._METADATA.sorted_tables
    }
    assert columns(tmp_path / "ledger.sqlite") == declared


def test_the_checks_of_the_schema_allow_exactly_the_states() -> None:
    script = "".join(script for _, script in ledger._scripts())
    allowed = [
        re.findall(r"'(\w+)'", check) for check in re.findall(r"CHECK \(state IN \(([^)]*)\)\)", script)
    ]
    assert allowed == [[*jobs.InstanceState], [*jobs.DeliveryState]]


def test_migrations_are_numbered_without_gaps() -> None:
    assert [number for number, _ in ledger._scripts()] == list(range(1, len(ledger._scripts()) + 1))


@pytest.mark.parametrize("version", range(len(ledger._scripts()) + 1))
def test_every_older_schema_is_brought_up_to_date(tmp_path: Path, version: int) -> None:
    path = tmp_path / "old.sqlite"
    engine = ledger._engine(path)
    with engine.begin() as connection:
        if version:
            ledger._migrate(connection, ledger._scripts()[:version])
    engine.dispose()
    opened = Ledger(path)
    book_columns = columns(path)
    opened.add(arrival(), blob("a"), 1)
    opened.close()
    assert set(book_columns) == {"instances", "deliveries", "events"}


def test_a_migration_applies_wholly_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    Ledger(path).close()
    newest = ledger._scripts()[-1][0]
    broken = "-- a; comment\nCREATE TABLE fresh (a TEXT);\n\nCREATE TABLE fresh (a TEXT);\n"
    engine = ledger._engine(path)
    with pytest.raises(sa.exc.OperationalError), engine.begin() as connection:
        ledger._migrate(connection, [*ledger._scripts(), (newest + 1, broken)])
    engine.dispose()
    assert "fresh" not in columns(path)
    Ledger(path).close()


def test_a_ledger_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    Ledger(path).close()
    with sqlite3.connect(path) as raw:
        raw.execute("PRAGMA user_version = 9999")
    raw.close()
    with pytest.raises(LedgerError, match="9999"):
        Ledger(path)


def test_a_file_that_is_no_ledger_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").write_bytes(b"something else" * 1000)
    with pytest.raises(LedgerError, match="refuses"):
        Ledger(tmp_path / "ledger.sqlite")
    (tmp_path / "file").touch()
    with pytest.raises(LedgerError, match="cannot be opened"):
        Ledger(tmp_path / "file" / "ledger.sqlite")


def test_commits_are_synchronous_and_the_file_is_private(book: Ledger, tmp_path: Path) -> None:
    with book._writing() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    for file in tmp_path.iterdir():
        assert file.stat().st_mode & 0o077 == 0


def test_refusals_do_not_quote_what_was_to_be_written(book: Ledger) -> None:
    with pytest.raises(LedgerError, match="NOT NULL") as caught:
        book.add(arrival(uid="1.2.777"), blob("a"), None)  # type: ignore[arg-type]
    assert "777" not in str(caught.value)


def test_no_statement_of_the_daily_work_scans_or_sorts_a_table(book: Ledger, clock: Clock) -> None:
    statements: dict[str, object] = {}

    def note(_c: object, _cursor: object, statement: str, parameters: object, *_: object) -> None:
        statements[statement] = parameters

    sa.event.listen(book._engine, "before_cursor_execute", note)
    book.delivered(send(book), 0)
    book.release(work(book, "1.9"), clock.now, "again")
    book.worker_died("other")
    book.needed([blob("out")])
    book.trace("1.2.3")
    book.snapshot()
    book.counts()
    sa.event.remove(book._engine, "before_cursor_execute", note)
    asked = [(text, values) for text, values in statements.items() if text.startswith(("SELECT", "UPDATE"))]
    assert len(asked) > 15
    for text, values in asked:
        with book._reading() as connection:
            plan = [row[-1] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", values)]
        for step in plan:
            # the few events of one instance may be sorted
            assert "TEMP B-TREE FOR ORDER" not in step or "FROM events" in text, text
            assert "TEMP B-TREE FOR GROUP" not in step, text
            assert not re.search(r"SCAN (instances|deliveries|events)(?! USING (COVERING )?INDEX)", step), (
                text
            )


@pytest.mark.parametrize(
    ("method", "index"),
    [("claim_work", "instances_waiting"), ("claim_sends", "deliveries_waiting")],
)
def test_claims_are_served_by_their_partial_index(book: Ledger, method: str, index: str) -> None:
    plans: list[str] = []

    def note(
        connection: sa.Connection, _cursor: object, statement: str, parameters: object, *_: object
    ) -> None:
        if statement.startswith("SELECT") and "LIMIT" in statement:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)  # type: ignore[arg-type]
            plans.append(" ".join(row[-1] for row in plan))

    sa.event.listen(book._engine, "before_cursor_execute", note)
    getattr(book, method)("somebody", 16, 10.0)
    assert len(plans) == 1
    assert index in plans[0]


def add_for_ever(book: Ledger) -> None:
    for number in itertools.count():
        book.add(arrival(f"1.{number}"), blob(str(number)), 1)
        assert book.counts().instances[InstanceState.RECEIVED] == number + 1


def test_a_full_disk_refuses_and_the_reserve_of_the_spool_lets_work_go_on(tmp_path: Path) -> None:
    disk = tmp_path / "small"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("cannot mount a small file system here")
    try:
        spool, book = Spool(disk / "spool", 4_000_000), Ledger(disk / "ledger.sqlite")
        with (disk / "other program").open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(4096)):
                pass
        with pytest.raises(LedgerError, match="full"):
            add_for_ever(book)
        added = book.counts().instances[InstanceState.RECEIVED]
        spool.release_reserve()
        book.add(arrival("2.1"), blob("x"), 1)
        assert len(book.claim_work("w", 16, 10.0)) == min(added + 1, 16)
        book.close()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# several threads, several processes, and their deaths


def test_threads_never_share_a_job(book: Ledger) -> None:
    for number in range(60):
        book.add(arrival(f"1.{number}"), blob(str(number)), 1)
    taken: list[int] = []

    def work_off(worker: str) -> None:
        while batch := book.claim_work(worker, 4, 1000.0):
            for claimed in batch:
                book.finish(claimed, outcome())
                taken.append(claimed.id)

    threads = [threading.Thread(target=work_off, args=(f"w{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(1, 61))


_CLAIMER = """
import sys
from pathlib import Path
from dicom_node.jobs import InstanceState, Outcome
from dicom_node.ledger import Ledger
book = Ledger(Path(sys.argv[1]))
sys.stdin.readline()
while batch := book.claim_work(sys.argv[2], 3, 1000.0):
    for work in batch:
        book.finish(work, Outcome(InstanceState.REJECTED, "rejected"))
        print(work.id, flush=True)
"""


def test_processes_never_share_a_job(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    book = Ledger(path)
    for number in range(60):
        book.add(arrival(f"1.{number}"), blob(str(number)), 1)
    children = [
        subprocess.Popen(
            [sys.executable, "-c", _CLAIMER, str(path), f"w{number}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    taken = [child.communicate("go\n")[0].split() for child in children]
    assert sorted(int(number) for part in taken for number in part) == list(range(1, 61))
    assert book.counts().instances[InstanceState.REJECTED] == 60
    book.close()


def test_processes_may_create_the_same_ledger_at_once(tmp_path: Path) -> None:
    code = "import sys, pathlib, dicom_node.ledger as l; l.Ledger(pathlib.Path(sys.argv[1]))"
    command = [sys.executable, "-c", code, str(tmp_path / "new.sqlite")]
    children = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(3)]
    assert [child.communicate()[1] for child in children] == [b"", b"", b""]


_RECEIVER = """
import os, signal, sys
from pathlib import Path
from dicom_node.jobs import Arrival, InstanceState, Outcome
from dicom_node.ledger import Ledger
from dicom_node.spool import Spool
import sqlalchemy as sa

folder, point = Path(sys.argv[1]), sys.argv[2]
def die(*_, **__): os.kill(os.getpid(), signal.SIGKILL)
spool, book = Spool(folder / "spool", 0), Ledger(folder / "ledger.sqlite")
if point == "synced":
    Path.rename = die
blob = spool.put([b"object"])
if point == "renamed":
    die()
if point == "before commit":
    sa.event.listen(book._engine, "commit", die)
added = book.add(Arrival("1", "1.2.3", "1", "A", "B", "protect"), blob.name, blob.size)
if point == "committed":
    die()
print("acknowledged", flush=True)
(work,) = book.claim_work("w", 1, 0.0)
if point == "leased":
    die()
out = spool.put([b"marked"])
if point == "before finish":
    sa.event.listen(book._engine, "commit", die)
outcome = Outcome(InstanceState.READY, "protected", blob=out.name, destinations=("a", "b"))
book.finish(work, outcome)
die()
"""

_POINTS = ["synced", "renamed", "before commit", "committed", "leased", "before finish", "finished"]


@pytest.mark.parametrize("point", _POINTS)
def test_a_killed_receiver_keeps_what_it_acknowledged(tmp_path: Path, point: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _RECEIVER, str(tmp_path), point], capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    acknowledged = b"acknowledged" in done.stdout
    assert acknowledged == (_POINTS.index(point) > _POINTS.index("committed"))
    spool, book = Spool(tmp_path / "spool", 0, keep_s=0.0), Ledger(tmp_path / "ledger.sqlite")
    book.recover()
    for part in (spool.folder / "tmp").iterdir():
        os.utime(part, (1.0, 1.0))
    spool.sweep()
    spool.discard(book.needed)
    claimed = book.claim_work("w", 16, 1000.0)
    sends = book.claim_sends("a", 16, 1000.0) + book.claim_sends("b", 16, 1000.0)
    for name in [job.blob for job in claimed] + [job.blob for job in sends]:
        spool.verify(name)
    stored = _POINTS.index(point) >= _POINTS.index("committed")
    assert (len(claimed), len(sends)) == ((0, 2) if point == "finished" else (int(stored), 0))
    assert len(list(spool.folder.glob("??/*"))) == int(stored), "what nobody acknowledged is not kept"
    book.close()
