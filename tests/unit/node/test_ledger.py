"""What was acknowledged is there, in one state, worked on by one holder at a time, whoever dies."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from dicom_node.commitment import Judge, Report, Request
from dicom_node.config import Promise
from dicom_node.errors import LedgerError
from dicom_node.jobs import DeliveryState, InstanceState
from dicom_node.ledger import Ledger
from dicom_node.ledger.dialects import Place
from dicom_node.spool import Spool
from tests.ledgers import Clock, arrival, blob, outcome, send, work


def test_everything_survives_reopening(place: Place, clock: Clock) -> None:
    first = Ledger(place, clock=clock)
    delivery = send(first)
    first.close()
    second = Ledger(place, clock=clock)
    second.delivered(delivery, 0xB007)
    assert second.counts().deliveries[DeliveryState.DELIVERED] == 1
    second.close()


@pytest.mark.sqlite
def test_no_statement_of_the_daily_work_scans_or_sorts_a_table(book: Ledger, clock: Clock) -> None:
    statements: dict[str, object] = {}

    def note(_c: object, _cursor: object, statement: str, parameters: object, *_: object) -> None:
        statements[statement] = parameters

    sa.event.listen(book._engine, "before_cursor_execute", note)
    book.delivered(send(book), 0, to_commit=True)
    ask = book.claim_ask("pacs", "2.25.1", 10, collect_s=0.0, answer_s=60.0)
    assert ask is not None
    book.ask_taken(ask)
    book.expire_asks("pacs", lambda _n: 0.0)
    book.take_report(Report("2.25.1", dict.fromkeys(ask.references, 0x0112)), 3, lambda _name: lambda _n: 0.0)
    book.take_request(Request("2.25.2", "CT1", "NODE", ask.references), 0.0)
    clock.now += 10
    book.decide_promises(Judge(Promise.DELIVERED, lambda _name: True, lambda _route: True), 10)
    book.reported(book.due_reports(("CT2",), 10)[0])
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
            assert not re.search(rf"SCAN ({_LARGE})(?! USING (COVERING )?INDEX)", step), text


_WAITING = "deliveries_waiting"
_LARGE = "instances|deliveries|events|commitments|asks|ask_items|promises|promise_items"


@pytest.mark.sqlite
@pytest.mark.parametrize(
    ("claim", "steps"),
    [
        (
            lambda book: book.claim_work("w", 16, 10.0),
            ["SEARCH instances USING INDEX instances_waiting (next_at<?)"],
        ),
        (
            lambda book: book.claim_sends("pacs", 16, 10.0),
            [
                f"SEARCH deliveries USING INDEX {_WAITING} (destination=?)",  # the highest priority
                f"SEARCH deliveries USING INDEX {_WAITING} (destination=?)",  # the lowest
                f"SEARCH deliveries USING INDEX {_WAITING} (destination=? AND priority=? AND next_at<?)",
            ],
        ),
    ],
)
def test_claims_are_served_by_their_partial_index(
    book: Ledger, claim: Callable[[Ledger], list[object]], steps: list[str]
) -> None:
    """Every read that grows with the queue starts at its place in the index that holds the waiting only."""
    book.finish(work(book), outcome("pacs"))
    book.add(arrival("1.9"), blob("9"), 1)
    assert book._writer is not None  # the connection that claims, whether through SQLAlchemy or past it
    raw: Any = book._writer.connection.dbapi_connection
    said: list[str] = []
    raw.set_trace_callback(said.append)
    assert len(claim(book)) == 1
    raw.set_trace_callback(None)
    asked = [statement for statement in said if statement.startswith("SELECT")]
    plans = [row[-1] for each in asked for row in raw.execute(f"EXPLAIN QUERY PLAN {each}")]
    assert [step for step in plans if "_waiting" in step] == steps
    # a question without a table of its own is a constant row
    scans = [step for step in plans if step.startswith("SCAN") and step != "SCAN CONSTANT ROW"]
    assert not scans + [step for step in plans if "TEMP B-TREE" in step]


def steps(book: Ledger, call: Callable[[], object]) -> int:
    """How many instructions SQLite runs for a call: what time would tell on a machine that is never busy."""
    counted = 0

    def count() -> int:
        nonlocal counted
        counted += 1
        return 0

    def listen(connection: sa.Connection) -> None:
        connection.connection.driver_connection.set_progress_handler(count, 1)  # type: ignore[union-attr]

    sa.event.listen(book._engine, "begin", listen)
    call()
    sa.event.remove(book._engine, "begin", listen)
    return counted


def filled(path: Path, depth: int) -> Ledger:
    """A ledger in which `depth` instances wait, and as many deliveries, every other for a later time."""
    book = Ledger(path)
    with book._writing() as connection:
        for number in range(1, 2 * depth + 1):
            waits = number <= depth
            row = (number, f"1.{number}", f"{number:064x}", "received" if waits else "ready", float(number))
            connection.exec_driver_sql(
                "INSERT INTO instances (id, sop_class_uid, sop_instance_uid, transfer_syntax_uid, calling_ae,"
                " called_ae, route, blob, size, received_at, state, next_at)"
                " VALUES (?, '1', ?, '1', 'A', 'B', 'protect', ?, 1, 0, ?, ?)",
                row,
            )
            if not waits:
                connection.exec_driver_sql(
                    "INSERT INTO deliveries (instance_id, destination, priority, queued_at, state, next_at)"
                    " VALUES (?, 'pacs', ?, 0, 'queued', ?)",
                    (number, number % 2, 1e12 * (number % 2)),
                )
    return book


_DAILY: dict[str, Callable[[Ledger], object]] = {
    "claim work": lambda book: book.claim_work("w", 16, 1e9),
    "claim sends": lambda book: book.claim_sends("pacs", 16, 1e9),
    "add": lambda book: book.add(arrival("9.9"), blob("9.9"), 1),
    "add again": lambda book: book.add(arrival("1.1"), f"{1:064x}", 1),
    "pause": lambda book: book.pause("pacs"),
    "item": lambda book: book.item(2),
    "held": lambda book: book.held(),
    "dead letters": lambda book: book.dead_letters(),
    "parcels": lambda book: book.parcels("pacs", DeliveryState.QUEUED, 10),
    "needed": lambda book: book.needed([blob("9.9")]),
    "answers": lambda book: book.answers(),
}


@pytest.fixture(scope="module")
def shallow_and_deep(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Ledger, Ledger]]:
    folder = tmp_path_factory.mktemp("depths")
    books = filled(folder / "shallow.sqlite", 40), filled(folder / "deep.sqlite", 2000)
    yield books
    for book in books:
        book.close()


@pytest.mark.parametrize("daily", _DAILY)
def test_what_is_done_every_day_costs_the_same_however_much_waits(
    shallow_and_deep: tuple[Ledger, Ledger], daily: str
) -> None:
    shallow, deep = (steps(book, lambda book=book: _DAILY[daily](book)) for book in shallow_and_deep)  # type: ignore[misc]
    assert shallow > 0
    assert deep < 1.2 * shallow + 50, f"{shallow} instructions in a short queue, {deep} in a long one"


def add_for_ever(book: Ledger) -> None:
    for number in itertools.count():
        book.add(arrival(f"1.{number}"), blob(str(number)), 1)
        assert book.counts().instances[InstanceState.RECEIVED] == number + 1


@pytest.fixture
def small_disk(scratch: Path) -> Iterator[Path]:
    disk = scratch / "small"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("cannot mount a small file system here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def fill(disk: Path) -> None:
    """Another program takes all that is left."""
    with (disk / "other program").open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass


def test_a_full_disk_refuses_and_the_reserve_of_the_spool_lets_work_go_on(small_disk: Path) -> None:
    spool = Spool(small_disk / "spool", 4_000_000)
    book = Ledger(small_disk / "ledger.sqlite", on_full=spool.release_reserve)
    fill(small_disk)
    with pytest.raises(LedgerError, match="full"):
        add_for_ever(book)
    added = book.counts().instances[InstanceState.RECEIVED]
    assert not (spool.folder / "reserve").exists(), "the first that is refused makes room for the others"
    book.add(arrival("2.1"), blob("x"), 1)
    assert len(book.claim_work("w", 16, 10.0)) == min(added + 1, 16)
    book.close()


def test_a_node_can_start_on_a_full_disk(small_disk: Path) -> None:
    spool, book = Spool(small_disk / "spool", 4_000_000), Ledger(small_disk / "ledger.sqlite")
    work(book)
    book.begin_run("boot")
    book.close()
    fill(small_disk)
    with pytest.raises(LedgerError):
        Ledger(small_disk / "ledger.sqlite").recover()
    again = Ledger(small_disk / "ledger.sqlite", on_full=spool.release_reserve)
    again.begin_run("boot")
    assert again.recover() == 1
    assert len(again.claim_work("w", 1, 10.0)) == 1
    again.close()


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


def test_processes_never_share_a_job(scratch: Path) -> None:
    path = scratch / "ledger.sqlite"
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


def test_processes_may_create_the_same_ledger_at_once(scratch: Path) -> None:
    code = "import sys, pathlib, dicom_node.ledger as l; l.Ledger(pathlib.Path(sys.argv[1]))"
    command = [sys.executable, "-c", code, str(scratch / "new.sqlite")]
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
    os.rename = die
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
def test_a_killed_receiver_keeps_what_it_acknowledged(scratch: Path, point: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _RECEIVER, str(scratch), point], capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    acknowledged = b"acknowledged" in done.stdout
    assert acknowledged == (_POINTS.index(point) > _POINTS.index("committed"))
    spool, book = Spool(scratch / "spool", 0, keep_s=0.0), Ledger(scratch / "ledger.sqlite")
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
