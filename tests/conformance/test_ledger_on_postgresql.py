"""What only a server that several nodes share can do to a ledger.

Clocks that differ, processes that die with leases in hand, two that arrive at once, a database that is away,
full, killed, or another than a moment ago. What holds for a ledger wherever it is, is held against both by
`tests/unit/node/test_ledger*.py`.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from benchmarks.postgresql import PASSWORD, Server, is_installed
from dicom_node import commitment, jobs, stores
from dicom_node.commitment import Judge, Reference, Report, Request
from dicom_node.config import Config, Promise
from dicom_node.errors import LedgerError, LedgerUnavailable, StaleLease
from dicom_node.jobs import DeliveryState, InstanceState
from dicom_node.ledger import Ledger, Step, address, dialects, schema
from dicom_node.ledger.trips import Trip
from dicom_node.metrics import CONFLICTS, REPEATS, DeliveryTally, InstanceTally
from tests.ledgers import arrival, blob, outcome, story, work

pytestmark = [pytest.mark.interop, pytest.mark.slow]
SCRIPTS = dialects.scripts(dialects.PostgreSQL)


@pytest.fixture
def place(server: Server) -> sa.URL:
    return server.database()


@pytest.fixture
def book(place: sa.URL) -> Iterator[Ledger]:
    """A ledger by the server's own clock."""
    opened = Ledger(place)
    yield opened
    opened.close()


@pytest.fixture
def own() -> Iterator[Server]:
    """A server that a test may stop and kill."""
    if not is_installed():
        pytest.skip("no PostgreSQL; tools/install_peers.sh postgresql")
    made = Server().make()
    yield made
    made.remove()


def child(code: str, place: sa.URL, *arguments: str) -> subprocess.Popen[str]:
    """Another process with a ledger of the same database, `book`."""
    head = (
        "import os, sys, time\n"
        "from dicom_node.errors import *\n"
        "from dicom_node.jobs import *\n"
        "from dicom_node.ledger import Ledger, address\n"
        "from tests.ledgers import *\n"
        "book = Ledger(address(os.environ['PLACE']), holder=sys.argv[1] if sys.argv[1:] else '')\n"
    )
    secret = {**os.environ, "PLACE": place.render_as_string(hide_password=False)}
    secret["PYTHONPATH"] = os.pathsep.join(sys.path)
    return subprocess.Popen(
        [sys.executable, "-c", head + code, *arguments],
        env=secret,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def until(what: Callable[[], bool], seconds: float = 60.0) -> None:
    ends_at = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < ends_at
        time.sleep(0.05)


# ---- the schema ----


def test_the_migrations_make_exactly_the_declared_tables(server: Server, place: sa.URL, book: Ledger) -> None:
    query = "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
    found: dict[str, set[str]] = {}
    for table, column in server.execute(query, str(place.database)):
        found.setdefault(str(table), set()).add(str(column))
    declared = {table.name: set(table.columns.keys()) for table in schema.METADATA.sorted_tables}
    for name in ("tallies", "instance_counts", "delivery_counts", "commitment_counts"):
        declared[name].add("shard")
    assert found == declared | {"schema_version": {"version"}}


def test_the_checks_of_the_schema_allow_exactly_the_states() -> None:
    text = " ".join(script for _, script in SCRIPTS)
    for states in (
        commitment.AskState,
        commitment.CommitmentState,
        jobs.DeliveryState,
        jobs.InstanceState,
        commitment.PromiseState,
    ):
        assert f"CHECK (state IN ({', '.join(repr(str(state)) for state in states)}))" in text


def test_indexes_are_those_of_the_file(server: Server, place: sa.URL, book: Ledger, tmp_path: Path) -> None:
    query = "SELECT indexname FROM pg_indexes WHERE schemaname = 'public'"
    found = {str(name) for (name,) in server.execute(query, str(place.database))}
    file = Ledger(tmp_path / "ledger.sqlite")
    with file._reading() as connection:
        names = connection.exec_driver_sql("SELECT name FROM sqlite_schema WHERE type = 'index'").scalars()
        wanted = {name for name in names if not name.startswith("sqlite_")}
    file.close()
    assert wanted - found == set()


def test_several_may_make_the_same_ledger_at_once(place: sa.URL) -> None:
    children = [child("print(book.counts().idle)", place, f"n{number}") for number in range(5)]
    assert [process.communicate(timeout=120)[0] for process in children] == ["True\n"] * 5


def test_who_only_looks_in_makes_no_ledger(server: Server, place: sa.URL) -> None:
    with pytest.raises(LedgerError, match="has schema 0"):
        Ledger(place, existing=True)
    assert server.execute("SELECT 1 FROM pg_tables WHERE schemaname = 'public'", str(place.database)) == []


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize(("floor", "usable"), [(None, True), (SCRIPTS[-1][0] + 1, False)])
def test_a_newer_schema_is_used_if_it_says_so(
    server: Server, place: sa.URL, existing: bool, floor: int | None, usable: bool
) -> None:
    Ledger(place).close()
    newer = SCRIPTS[-1][0] + 1
    server.execute(f"UPDATE schema_version SET version = {newer}", str(place.database))
    if floor is not None:
        server.execute(f"UPDATE floor SET schema = {floor}", str(place.database))
    if usable:
        opened = Ledger(place, existing=existing)
        assert not opened.add(arrival(), blob("a"), 1).duplicate
        opened.close()
    else:
        with pytest.raises(LedgerError, match=f"has schema {newer}"):
            Ledger(place, existing=existing)


# ---- what a commit is worth, and who is let in ----


def test_a_commit_is_on_disk_whatever_the_server_thinks_of_it(server: Server, place: sa.URL) -> None:
    server.execute(f"ALTER DATABASE {place.database} SET synchronous_commit = off")
    book = Ledger(place)
    with book._writing() as connection:
        assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"
    book.close()
    server.execute(f"ALTER DATABASE {place.database} SET synchronous_commit = remote_apply")
    book = Ledger(place)
    with book._writing() as connection:
        assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "remote_apply"
    book.close()


def test_a_server_that_forgets_what_it_committed_is_refused() -> None:
    if not is_installed():
        pytest.skip("no PostgreSQL")
    made = Server(["fsync=off"]).make()
    try:
        with pytest.raises(LedgerError, match="fsync or full_page_writes off"):
            Ledger(made.database())
    finally:
        made.remove()


def test_who_is_not_let_in_is_told_what_to_mend_and_no_secret(server: Server, place: sa.URL) -> None:
    for wrong, words in (
        (place.set(password="not-this-one"), "password file"),
        (place.set(database="nowhere"), "CREATE DATABASE"),
    ):
        with pytest.raises(LedgerError, match=words) as caught:
            Ledger(wrong)
        assert not isinstance(caught.value, LedgerUnavailable)
        told = f"{caught.value!r} {caught.value.__cause__!r} {caught.value.__suppress_context__}"
        assert PASSWORD not in told
        assert "not-this-one" not in told


def test_a_row_that_breaks_a_rule_is_told_without_its_values(book: Ledger) -> None:
    for arrived in (arrival("1.2.777"), arrival("1.2.777\0")):
        size = None if "\0" not in arrived.sop_instance_uid else 1
        with pytest.raises(LedgerError, match="report this") as caught:
            book.add(arrived, blob("a"), size)  # type: ignore[arg-type]
        assert not isinstance(caught.value, LedgerUnavailable)
        assert "777" not in f"{caught.value} {caught.value.__cause__}"


# ---- several at once ----

_RACER = """
worker = sys.argv[1]
sys.stdin.readline()
while batch := book.claim_work(worker, 3, 1000.0):
    for work in batch:
        book.finish(work, outcome('pacs', 'vna', uid=f'2.{work.id}', content=str(work.id)))
        print('work', work.id)
for name in ('pacs', 'vna'):
    while sends := book.claim_sends(name, 4, 1000.0):
        for send in sends:
            book.delivered(send, 0, to_commit=name == 'vna')
            print('send', send.id)
"""


def test_eight_processes_share_the_work_and_nothing_is_done_twice(
    server: Server, place: sa.URL, book: Ledger
) -> None:
    for number in range(120):
        book.add(arrival(f"1.{number}"), blob(str(number)), 1)
    racers = [child(_RACER, place, f"n{number}") for number in range(8)]
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    done = Counter(said for racer in racers for said in racer.communicate(timeout=240)[0].splitlines())
    # whoever ends first may leave deliveries that were queued behind its back
    for name in ("pacs", "vna"):
        for left in book.claim_sends(name, 1000, 1000.0):
            book.delivered(left, 0, to_commit=name == "vna")
            done[f"send {left.id}"] += 1
    assert set(done.values()) == {1}
    assert sorted(done) == sorted([f"work {n}" for n in range(1, 121)] + [f"send {n}" for n in range(1, 241)])
    agree(server, place, book)


def agree(server: Server, place: sa.URL, book: Ledger) -> None:
    """What is counted is what the rows say."""
    rows = server.execute(
        "SELECT state, result, reason, count(*) FROM instances GROUP BY 1, 2, 3", str(place.database)
    )
    assert set(book.snapshot().instances) == {InstanceTally(*row) for row in rows}  # type: ignore[arg-type]
    rows = server.execute(
        "SELECT destination, state, count(*) FROM deliveries GROUP BY 1, 2", str(place.database)
    )
    assert set(book.snapshot().deliveries) == {DeliveryTally(*row) for row in rows}  # type: ignore[arg-type]


def at_once(*calls: Callable[[], object]) -> None:
    """Each in a thread of its own, from the same moment."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], object]) -> None:
        barrier.wait()
        call()

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)


def test_the_same_object_at_once_on_two_nodes_is_one_arrival(place: sa.URL, book: Ledger) -> None:
    other = Ledger(place, holder="other")
    for number in range(20):
        found: list[bool] = []
        calls = [
            lambda each=each: found.append(each.add(arrival(f"1.{number}"), blob("a"), 1).duplicate)  # type: ignore[misc]  # noqa: B023
            for each in (book, other, book, other)
        ]
        at_once(*calls)
        assert sorted(found) == [False, True, True, True]
    assert book.snapshot().total(REPEATS) == 60
    other.close()


def test_one_uid_with_several_contents_at_once_is_a_conflict(place: sa.URL, book: Ledger) -> None:
    other = Ledger(place, holder="other")
    for number in range(20):
        calls = [
            lambda each=each, content=content: each.add(arrival(f"1.{number}"), blob(content), 1)  # type: ignore[misc]  # noqa: B023
            for each, content in ((book, "a"), (other, "b"), (book, "c"))
        ]
        at_once(*calls)
    assert book.counts().instances[InstanceState.RECEIVED] == 60
    assert book.snapshot().total(CONFLICTS) == 40
    other.close()


def test_the_trail_is_told_whole_and_in_order_while_many_write(book: Ledger) -> None:
    """Numbers are given out in one order and committed in another; none is passed over for that."""
    told: list[Step] = []
    stop = threading.Event()

    def follow() -> None:
        while not stop.is_set():
            told.extend(book.steps(told[-1].id if told else 0, 50))

    def write(first: int) -> None:
        for number in range(first, first + 40):
            book.add(arrival(f"1.{number}"), blob(str(number)), 1)
            for claimed in book.claim_work("w", 2, 1000.0):
                book.finish(claimed, outcome("pacs"))

    reader = threading.Thread(target=follow)
    reader.start()
    at_once(*(lambda first=first: write(first) for first in (0, 100, 200, 300)))  # type: ignore[misc]
    stop.set()
    reader.join(60)
    told += story(book, told[-1].id if told else 0)
    numbers = [step.id for step in told]
    assert numbers == sorted(set(numbers))
    assert len(numbers) == 160 * 3
    assert Counter(step.what for step in told) == {"received": 160, "ready": 160, "queued": 160}


def test_no_two_connections_count_in_the_same_row(server: Server, place: sa.URL, book: Ledger) -> None:
    with contextlib.ExitStack() as stack:
        shards = [
            stack.enter_context(book._reading()).exec_driver_sql("SHOW dicom_node.shard").scalar()
            for _ in range(6)
        ]
    assert len(set(shards)) == 6


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_two_that_arrive_at_once_know_of_each_other_however_the_database_isolates(
    server: Server, place: sa.URL, level: str
) -> None:
    server.execute(f"ALTER DATABASE {place.database} SET default_transaction_isolation = '{level}'")
    one, other, added = Ledger(place), Ledger(place, holder="other"), list[bool]()
    adding = [
        threading.Thread(target=lambda each=each: added.append(each.add(arrival(), blob("a"), 1).duplicate))  # type: ignore[misc]
        for each in (one, other)
    ]
    with one._writing() as connection:
        one._dialect.one_at_a_time(connection, arrival().sop_instance_uid)
        for each in adding:
            each.start()
        until(lambda: server.execute("SELECT count(*) FROM pg_locks WHERE NOT granted", "postgres") == [(2,)])
    for each in adding:
        each.join(60)
    assert sorted(added) == [False, True]
    one.close()
    other.close()


def test_a_claim_holds_although_leases_that_ran_out_cannot_be_ended(
    book: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it leased would else wait for the end of a lease that nobody knows of."""
    for number in range(3):
        book.finish(work(book, f"1.{number}"), outcome("pacs", uid=f"2.{number}"))
    (mine,) = book.claim_sends("pacs", 1, 1000.0)
    book.claim_sends("pacs", 1, -1.0)

    def refuse(*_asked: object) -> int:
        raise LedgerUnavailable("away")

    with monkeypatch.context() as refusing:
        refusing.setattr(book, "_take_back_sends", refuse)
        (last,) = book.claim_sends("pacs", 2, 1000.0, receipts=[jobs.Receipt(mine, 0)])
        assert book.claim_sends("pacs", 2, 1000.0, receipts=[jobs.Receipt(last, 0)]) == []
    assert book.counts().deliveries[DeliveryState.DELIVERED] == 2
    assert len(book.claim_sends("pacs", 2, 1000.0)) == 1, "as soon as it can be"


def test_a_deadlock_is_tried_again_and_nobody_hears_of_it(
    book: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are locked in one order, so this takes a fault; it must cost a try and not an object."""
    for number in range(2):
        book.add(arrival(f"1.{number}"), blob(str(number)), 1)
    first, second = book.claim_work("w", 2, 1000.0)
    meet = threading.Barrier(2, timeout=120)
    tries: Counter[int] = Counter()

    def cross(one: jobs.Work, other: jobs.Work) -> None:
        def step(connection: sa.Connection) -> None:
            tries[one.id] += 1
            book._change_work(connection, one, {"reason": "crossed"})
            if sum(tries.values()) <= 2:
                meet.wait()
            book._change_work(connection, other, {"reason": "crossed"})

        book._together(step)

    at_once(lambda: cross(first, second), lambda: cross(second, first))
    # whoever was first to be tried again may get its first row before the other has woken up
    assert sum(tries.values()) > 2, "one of the two was tried again"


# ---- nodes that die, sleep, or start anew ----

_HOLDER = """
(work,) = book.claim_work('w', 1, float(sys.argv[2]))
print(work.id, work.token, flush=True)
sys.stdin.readline()
try:
    book.finish(work, outcome('pacs'))
except StaleLease:
    print('stale', flush=True)
"""


def test_what_a_killed_worker_held_is_taken_up_by_another(place: sa.URL, book: Ledger) -> None:
    book.add(arrival(), blob("a"), 1)
    holder = child(_HOLDER, place, "elsewhere", "2.0")
    number, token = map(int, line(holder).split())
    holder.kill()
    holder.communicate()
    assert book.claim_work("w", 1, 10.0) == [], "its lease has not ended"
    taken: list[jobs.Work] = []
    until(lambda: bool(taken.extend(book.claim_work("w", 1, 60.0)) or taken))
    assert (taken[0].id, taken[0].token) == (number, token + 1)
    book.finish(taken[0], outcome("pacs"))


def test_who_slept_through_its_lease_can_record_nothing(place: sa.URL, book: Ledger) -> None:
    book.add(arrival(), blob("a"), 1)
    sleeper = child(_HOLDER, place, "elsewhere", "1.0")
    line(sleeper)
    os.kill(sleeper.pid, signal.SIGSTOP)
    taken: list[jobs.Work] = []
    until(lambda: bool(taken.extend(book.claim_work("w", 1, 60.0)) or taken))
    os.kill(sleeper.pid, signal.SIGCONT)
    assert "stale" in sleeper.communicate("go on\n", timeout=60)[0]
    book.finish(taken[0], outcome("pacs"))
    assert [event.what for event in book.trace("1.2.3")].count("ready") == 1


def test_a_start_takes_back_what_is_its_own_and_no_more(place: sa.URL, book: Ledger) -> None:
    here, there = Ledger(place, holder="a_b:work"), Ledger(place, holder="aXb:work")
    for number in range(2):
        book.add(arrival(f"1.{number}"), blob(str(number)), 1)
    (mine,) = here.claim_work("w1", 1, 1000.0)
    (theirs,) = there.claim_work("w1", 1, 1000.0)
    again = Ledger(place, holder="a_b:work")
    assert again.recover() == 1
    with pytest.raises(StaleLease):
        here.finish(mine, outcome())
    there.finish(theirs, outcome("pacs"))
    (parcel,) = there.claim_sends("pacs", 1, 1000.0)
    assert again.recover() == 0
    assert there.recover() == 1, "sends, too"
    with pytest.raises(StaleLease):
        there.delivered(parcel, 0)
    (parcel,) = there.claim_sends("pacs", 1, 1000.0, worker="lane")
    assert here.worker_died("lane") == 0, "the other node's has the same name and another holder"
    there.beat_send(parcel, 1000.0)
    there.worker_died("lane")
    with pytest.raises(StaleLease):
        there.beat_send(parcel, 1000.0)
    for each in (here, there, again):
        each.close()


def test_each_node_knows_its_own_falls(place: sa.URL, book: Ledger) -> None:
    here, there = Ledger(place, holder="here"), Ledger(place, holder="there")
    assert not here.begin_run("boot-1")
    assert not there.begin_run("boot-9"), "its first run on this ledger"
    assert here.begin_run("boot-2")
    here.end_run()
    assert not here.begin_run("boot-3")
    assert not there.begin_run("boot-9")
    assert abs(here.born_at() - time.time()) < 600
    for each in (here, there):
        each.close()


def test_one_leads_and_when_it_dies_another_does(place: sa.URL, book: Ledger) -> None:
    code = "with book.lead('house') as lead:\n    print(bool(lead), flush=True)\n    sys.stdin.readline()\n"
    leader = child(code, place, "first")
    assert line(leader) == "True"
    with book.lead("house") as lead:
        assert not lead
    with book.lead("garden") as lead:
        assert lead
    leader.kill()
    leader.communicate()

    def leads() -> bool:
        with book.lead("house") as lead:
            return bool(lead)

    until(leads)


def test_the_server_asks_after_whoever_says_nothing(book: Ledger) -> None:
    """Else a leader whose machine fell would keep the lock for as long as the system's default, two hours."""
    asked = {"idle": "10", "interval": "5", "count": "3"}
    with book._writing() as connection:
        for what, seconds in asked.items():
            assert connection.exec_driver_sql(f"SHOW tcp_keepalives_{what}").scalar() == seconds
        assert connection.exec_driver_sql("SHOW tcp_user_timeout").scalar() == "30000"


def test_two_ledgers_of_one_name_are_told_apart(
    place: sa.URL, book: Ledger, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(stores, "_NAME_S", 0.5)
    cluster = {
        "name": "c",
        "database": {"url": "postgresql://u@h/d"},
        "blobs": {"kind": "directory", "directory": tmp_path},
    }
    section = {
        "node": {"id": "n", "ae_title": "NODE"},
        "destinations": {"a": {"ae_title": "A", "host": "h", "port": 1}},
        "routes": ({"name": "r", "role": "pass", "destinations": ("a",)},),
        "storage": {"folder": tmp_path},
        "cluster": cluster,
    }
    config = Config.model_validate(section, strict=False)
    second = Ledger(place)
    with stores.under_its_name(config, book):
        with pytest.raises(LedgerError, match="another node"), stores.under_its_name(config, second):
            pass
        code = "with book.lead(sys.argv[2]) as lead:\n    print(bool(lead))\n"
        other = child(code, place, "other", f"node {stores.holder(config)}")
        assert other.communicate(timeout=60)[0].strip() == "False"
    with stores.under_its_name(config, second):
        pass
    second.close()


def test_who_lost_its_connection_leads_no_more(server: Server, place: sa.URL, book: Ledger) -> None:
    with book.lead("house") as lead:
        assert lead
        assert lead
        killed = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'"
        server.execute(killed.format(place.database))
        assert not lead
    with book.lead("house") as lead:
        assert lead
    book.answers()


# ---- clocks ----


@pytest.mark.parametrize("skew_s", [-7200.0, 7200.0])
def test_a_clock_that_is_wrong_neither_ends_a_lease_nor_stretches_it(
    server: Server, place: sa.URL, book: Ledger, monkeypatch: pytest.MonkeyPatch, skew_s: float
) -> None:
    right = time.time
    book.add(arrival(), blob("a"), 1)
    monkeypatch.setattr(time, "time", lambda: right() + skew_s)
    skewed = Ledger(place, holder="skewed")
    (leased,) = skewed.claim_work("w", 1, 600.0)
    assert abs(leased.received_at - right()) < 60
    assert skewed.claim_work("w", 1, 600.0) == []
    skewed.release(leased, time.time() + 300.0, "busy")
    skewed.add(arrival("1.9"), blob("b"), 1)
    monkeypatch.undo()
    query = "SELECT next_at, received_at, lease_until FROM instances ORDER BY id"
    (first, second) = server.execute(query, str(place.database))
    now = time.time()
    assert abs(float(str(first[0])) - now - 300.0) < 60, "the wait is as long as it was meant"
    assert abs(float(str(first[2])) - now - 600.0) < 60
    assert abs(float(str(second[1])) - now) < 60
    assert [each.arrival.sop_instance_uid for each in book.claim_work("w", 8, 10.0)] == ["1.9"]
    assert abs(book.last_event_at() - now) < 60
    skewed.close()


# ---- a server that is away, full, killed, or another ----


Calls = dict[str, Callable[[], object]]


def every_call(book: Ledger, number: int) -> Calls:
    """Every method that asks the server, with what they need made beforehand."""
    book.finish(work(book, f"7.{number}"), outcome("pacs", "vna", uid=f"8.{number}", content=f"7.{number}"))
    deliveries = _calls_for_deliveries(book)
    book.add(arrival(f"6.{number}"), blob(f"6.{number}"), 1)
    return (
        _calls_for_work(book, number)
        | deliveries
        | _calls_for_commitment(book, number)
        | _calls_for_blobs(book, blob(f"7.{number}"))
        | _calls_for_people(book, f"7.{number}")
        | _calls_for_the_house(book)
    )


def _calls_for_work(book: Ledger, number: int) -> Calls:
    (claimed,) = book.claim_work("w", 1, 900.0)
    return {
        "add": lambda: book.add(arrival(f"5.{number}"), blob(f"5.{number}"), 1),
        "straight": lambda: book.add(arrival(f"4.{number}"), blob("4"), 1, straight_to=("pacs",)),
        "claim_work": lambda: book.claim_work("w", 1, 900.0),
        "beat": lambda: book.beat(claimed, 900.0),
        "finish": lambda: book.finish(claimed, outcome("pacs", uid=f"9.{number}")),
        "worker_died": lambda: book.worker_died("nobody"),
        "due": lambda: book.due(5),
    }


def _calls_for_deliveries(book: Ledger) -> Calls:
    (one,) = book.claim_sends("pacs", 1, 900.0)
    (two,) = book.claim_sends("vna", 1, 900.0)
    return {
        "claim_sends": lambda: book.claim_sends("pacs", 1, 900.0),
        "beat_send": lambda: book.beat_send(one, 900.0),
        "delivered": lambda: book.delivered(one, 0, to_commit=True),
        "retry": lambda: book.retry(two, time.time() + 900.0, "busy"),
        "outage": lambda: (book.went_down("pacs", 1.0), book.take_hurry("pacs"), book.came_back("pacs")),
        "pause": lambda: (book.pause("vna"), book.paused(), book.resume("vna")),
    }


def _calls_for_commitment(book: Ledger, number: int) -> Calls:
    judge = Judge(Promise.DELIVERED, lambda _name: True, lambda _route: True)
    asked = Reference("1.2", f"7.{number}")
    return {
        "claim_ask": lambda: book.claim_ask("pacs", f"2.{number}", 9, collect_s=0.0, answer_s=9.0),
        "take_report": lambda: book.take_report(Report(f"2.{number}", {}), 3, lambda _n: lambda _s: 9.0),
        "expire_asks": lambda: book.expire_asks("pacs", lambda _silences: 9.0),
        "take_request": lambda: book.take_request(Request(f"3.{number}", "CT1", "NODE", (asked,)), 0.0),
        "decide_promises": lambda: book.decide_promises(judge, 9),
        "due_reports": lambda: book.due_reports((), 9),
        "forget": lambda: (book.forget_asks(0.0), book.forget_promises(0.0)),
    }


def _calls_for_blobs(book: Ledger, came: str) -> Calls:
    return {
        "purge": lambda: book.purge(1.0),
        "needed": lambda: book.needed([came]),
        "known": lambda: book.known([came]),
        "claims": lambda: list(book.claims()),
        "converted": lambda: book.converted(came, "1.2.4", blob("small")),
        "conversion": lambda: book.conversion(came, "1.2.4"),
        "guards": lambda: (book.pin(blob("p"), 9.0), book.store_id(), book.moved_to()),
    }


def _calls_for_people(book: Ledger, uid: str) -> Calls:
    return {
        "held": lambda: (book.held(), book.rework_held(), book.requeue_dead(), book.drop_waiting("none")),
        "view": lambda: (book.backlogs(), book.judged(5), book.trace(uid), book.item(1), book.unprocessed()),
        "figures": lambda: (book.snapshot(), book.counts(), book.queues(), book.answers()),
        "trail": lambda: (book.steps(0, 5), book.last_step()),
    }


def _calls_for_the_house(book: Ledger) -> Calls:
    return {
        "recover": lambda: book.recover(),
        "run": lambda: (book.begin_run("boot"), book.end_run()),
        "count_soon": lambda: (book.count_soon(jobs.Reading(REPEATS)), book.settle()),
        "lead": lambda: _lead(book),
        "check": lambda: (book.check(), book.compact()),
    }


def _lead(book: Ledger) -> None:
    with book.lead("house") as lead:
        assert lead


def test_every_method_is_refused_while_the_server_is_away_and_works_when_it_is_back(own: Server) -> None:
    book = Ledger(own.database())
    calls = every_call(book, 1)
    own.stop()
    for name, call in calls.items():
        with pytest.raises(LedgerUnavailable) as caught:
            call()
        assert PASSWORD not in f"{caught.value} {caught.value.__cause__}", name
    own.start()
    for name in calls:
        calls[name]()
    assert book.counts().deliveries[DeliveryState.DELIVERED] == 1
    book.close()


def test_nobody_notices_that_the_server_was_started_anew_between_two_calls(own: Server) -> None:
    book = Ledger(own.database())
    for number in range(3):
        at_once(*(lambda n=n: book.add(arrival(f"1.{number}.{n}"), blob(str(n)), 1) for n in range(6)))  # type: ignore[misc]  # noqa: B023
        own.stop(signal.SIGKILL if number else signal.SIGINT)
        own.start()
    assert book.counts().instances[InstanceState.RECEIVED] == 18
    book.close()


def test_what_was_acknowledged_survives_a_server_that_is_killed(own: Server) -> None:
    """Writers go on through two kills; each that was told yes is there."""
    book = Ledger(own.database())
    acknowledged: list[str] = []
    stop = threading.Event()

    def write(first: int) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            uid = f"1.{first}.{number}"
            with contextlib.suppress(LedgerUnavailable):
                book.add(arrival(uid), blob(uid), 1)
                acknowledged.append(uid)

    threads = [threading.Thread(target=write, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(2):
        before = len(acknowledged)
        until(lambda before=before: len(acknowledged) > before + 20)  # type: ignore[misc]
        own.stop(signal.SIGKILL)
        own.start()
    before = len(acknowledged)
    until(lambda: len(acknowledged) > before + 20)
    stop.set()
    for thread in threads:
        thread.join(60)
    found = [event for uid in acknowledged for event in book.trace(uid)]
    assert len(found) == len(acknowledged)
    book.close()


def test_a_standby_takes_over_and_the_node_finds_it(own: Server) -> None:
    place = own.database()
    standby = own.copy()
    try:
        hosts = (f"127.0.0.1:{own.port}", f"127.0.0.1:{standby.port}")
        several = place.set(host=None, port=None, query={"host": hosts})
        text = several.render_as_string(hide_password=False)
        book = Ledger(address(text))
        book.add(arrival("1.1"), blob("a"), 1)
        held = book.claim_work("w", 1, 900.0)
        wal = own.execute("SELECT pg_current_wal_flush_lsn()")[0][0]
        until(lambda: bool(standby.execute(f"SELECT pg_last_wal_replay_lsn() >= '{wal}'")[0][0]))
        own.stop(signal.SIGKILL)
        with pytest.raises(LedgerUnavailable):
            book.add(arrival("1.2"), blob("b"), 1)
        standby.promote()
        until(lambda: _works(book))
        book.finish(held[0], outcome("pacs"))
        assert book.add(arrival("1.1"), blob("a"), 1).duplicate
        book.close()
    finally:
        standby.remove()


def _works(book: Ledger) -> bool:
    try:
        book.add(arrival("1.3"), blob("c"), 1)
    except LedgerUnavailable:
        return False
    return True


def test_a_standby_alone_is_no_ledger(own: Server) -> None:
    place = own.database()
    Ledger(place).close()
    standby = own.copy()
    try:
        with pytest.raises(LedgerUnavailable):
            Ledger(place.set(port=standby.port))
    finally:
        standby.remove()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = Path("/mnt") / f"dicom-node-test-{os.getpid()}"
    if os.geteuid() != 0:
        pytest.skip("cannot mount a small file system here")
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=40m,mode=777", "tmpfs", str(disk)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        disk.rmdir()
        pytest.skip("cannot mount a small file system here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)
    disk.rmdir()


def test_a_server_whose_disk_is_full_refuses_and_goes_on_when_there_is_room(
    own: Server, small_disk: Path
) -> None:
    shutil.chown(small_disk, "postgres")
    own.execute(f"CREATE TABLESPACE small LOCATION '{small_disk}'")
    place = own.database()
    own.execute(f"ALTER DATABASE {place.database} SET TABLESPACE small")
    book = Ledger(place)
    filler = small_disk / "another program"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
    number = 0

    def add_for_ever() -> None:
        nonlocal number
        for number in range(100_000):
            book.add(arrival(f"1.{number}"), blob(str(number)), 1)

    with pytest.raises(LedgerUnavailable, match=r"(?i)disk"):
        add_for_ever()
    assert book.counts().instances[InstanceState.RECEIVED] == number
    filler.unlink()
    book.add(arrival(f"1.{number}"), blob(str(number)), 1)
    assert book.counts().instances[InstanceState.RECEIVED] == number + 1
    book.close()


# ---- depth ----

_DEPTH = 1_000_000
_DEEP = f"""
SET session_replication_role = replica;
INSERT INTO instances (sop_class_uid, sop_instance_uid, transfer_syntax_uid, calling_ae, called_ae, route,
    blob, size, received_at, state, next_at)
SELECT '1', '1.' || n, '1', 'A', 'B', 'protect', md5(n::text), 1, n,
    CASE n % 2 WHEN 0 THEN 'received' ELSE 'ready' END, n FROM generate_series(1, {_DEPTH}) AS n;
INSERT INTO deliveries (instance_id, destination, queued_at, state, next_at)
SELECT id, 'pacs', 0, 'queued', id FROM instances WHERE state = 'ready';
INSERT INTO events (at, instance_id, what) SELECT 0, id, 'received' FROM instances;
ANALYZE;
"""


def test_a_million_that_wait_are_never_read_to_find_the_next(
    server: Server, place: sa.URL, book: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.execute(_DEEP, str(place.database))
    plans: list[str] = []
    trips: list[str] = []

    def explained(trip: Trip, session: Any, values: Mapping[str, object], *, run: Any = Trip.run) -> Any:
        found = session.execute(f"EXPLAIN {trip._text}", values).fetchall()
        trips.append("\n".join(row[0] for row in found))
        return run(trip, session, values)

    monkeypatch.setattr(Trip, "run", explained)

    def explain(connection: sa.Connection, _c: object, text: str, values: object, *_: object) -> None:
        if text.startswith(("SELECT", "UPDATE", "INSERT")) and "pg_" not in text:
            raw = connection.connection.cursor()
            raw.execute(f"EXPLAIN {text}", values)  # type: ignore[arg-type]
            plans.append(text + "\n" + "\n".join(row[0] for row in raw.fetchall()))

    sa.event.listen(book._engine, "before_cursor_execute", explain)
    for claimed in book.claim_work("w", 16, 900.0)[:1]:
        book.finish(claimed, outcome("vna"))
    for taken in book.claim_sends("pacs", 16, 900.0)[:1]:
        book.delivered(taken, 0)
    book.add(arrival("9.9"), blob("9"), 1)
    book.due(10)
    sa.event.remove(book._engine, "before_cursor_execute", explain)
    assert len(plans) > 5
    assert len(trips) == 5
    for plan in trips:  # a walk over a whole index costs more
        assert float(re.findall(r"cost=[\d.]+\.\.([\d.]+)", plan)[0]) < 10_000, plan
    for plan in plans + trips:
        for table in ("instances", "deliveries", "events"):
            assert f"Seq Scan on {table}" not in plan, plan
