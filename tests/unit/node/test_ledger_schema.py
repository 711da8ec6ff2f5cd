"""Every older file becomes the present one, wholly or not at all."""

from __future__ import annotations

import re
import sqlite3
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from dicom_node import commitment, jobs
from dicom_node.errors import LedgerError
from dicom_node.ledger import Ledger, dialects, schema
from dicom_node.metrics import ATTEMPTS, CONFLICTS, LOST, REPEATS
from tests.ledgers import Clock, arrival, blob, send

pytestmark = pytest.mark.sqlite
SCRIPTS = dialects.scripts(dialects.SQLite)


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


def test_the_migrations_make_exactly_the_declared_tables(book: Ledger, scratch: Path) -> None:
    declared = {
        table.name: [column.name for column in table.columns] for table in schema.METADATA.sorted_tables
    }
    assert columns(scratch / "ledger.sqlite") == declared


def test_the_checks_of_the_schema_allow_exactly_the_states(book: Ledger, scratch: Path) -> None:
    with sqlite3.connect(scratch / "ledger.sqlite") as raw:
        tables = raw.execute("SELECT sql FROM sqlite_schema WHERE type = 'table' ORDER BY name").fetchall()
    raw.close()
    checks = [
        found for (sql,) in tables for found in re.findall(r"CHECK \(state IN \(([^)]*)\)\)", sql or "")
    ]
    allowed = [re.findall(r"'(\w+)'", check) for check in checks]
    assert allowed == [
        [*commitment.AskState],
        [*commitment.CommitmentState],
        [*jobs.DeliveryState],
        [*jobs.InstanceState],
        [*commitment.PromiseState],
    ]


def test_migrations_are_numbered_without_gaps() -> None:
    assert [number for number, _ in SCRIPTS] == list(range(1, len(SCRIPTS) + 1))


@pytest.mark.parametrize("version", range(len(SCRIPTS) + 1))
def test_every_older_schema_is_brought_up_to_date(scratch: Path, version: int) -> None:
    path = scratch / "old.sqlite"
    engine = dialects.open_engine(path)
    with engine.begin() as connection:
        if version:
            schema.migrate(connection, SCRIPTS[:version])
    engine.dispose()
    opened = Ledger(path)
    found = columns(path)
    opened.add(arrival(), blob("a"), 1)
    opened.close()
    assert set(found) == set(schema.METADATA.tables)


_DUMPS = sorted((Path(__file__).parent / "old_ledgers").glob("*.sql"))


@pytest.fixture(params=_DUMPS, ids=lambda path: path.stem)
def old(request: pytest.FixtureRequest, scratch: Path) -> Path:
    """A ledger as an older version left it; `tools/make_ledger_dump.py` tells what is in it."""
    path = scratch / "old.sqlite"
    with sqlite3.connect(path) as raw:
        raw.executescript(request.param.read_text("utf-8"))
    raw.close()
    return path


def test_there_is_a_dump_of_the_first_schema() -> None:
    assert [path.stem for path in _DUMPS][:1] == ["0001"]


def test_a_ledger_that_had_rows_before_this_was_noted_calls_no_object_a_stranger(scratch: Path) -> None:
    with sqlite3.connect(scratch / "old.sqlite") as raw:
        raw.executescript(_DUMPS[0].read_text("utf-8"))
    raw.close()
    book = Ledger(scratch / "old.sqlite")
    assert book.born_at() == 0.0
    book.close()


def test_an_old_ledger_keeps_every_row_and_goes_on(old: Path, clock: Clock) -> None:
    clock.now = 2_000_000.0
    book = Ledger(old, clock=clock)
    counts = book.counts()
    assert {str(state): count for state, count in counts.instances.items() if count} == {
        "received": 2,
        "working": 1,
        "ready": 2,
        "held": 1,
        "rejected": 1,
        "quarantined": 1,
    }
    assert {str(state): count for state, count in counts.deliveries.items() if count} == {
        "queued": 1,
        "sending": 1,
        "delivered": 1,
        "dead": 1,
    }
    assert [book.snapshot().total(metric) for metric in (REPEATS, CONFLICTS, ATTEMPTS)] == [1, 1, 4]
    assert [event.what for event in book.trace("1.6")] == [
        "received",
        "ready",
        "queued",
        "queued",
        "delivered",
        "retry",
    ]
    assert book.add(arrival("1.2"), f"{2:064x}", 1002).duplicate
    assert book.recover() == 2
    assert [work.id for work in book.claim_work("w", 8, 10.0)] == [1, 8]
    assert [send.sop_instance_uid for send in book.claim_sends("vna", 8, 10.0)] == ["2.25.7", "2.25.6"]
    (letter,) = book.dead_letters()
    book.requeue(letter.id)
    assert len(book.claim_sends("pacs", 8, 10.0)) == 1
    book.rework(3)
    assert book.add(arrival("1.9"), blob("9"), 1).id == 9, "numbers are never given out twice"
    assert book.born_at() < time.time(), "objects older than this are not taken for orphans"
    book.check()
    with book._reading() as connection:
        assert connection.exec_driver_sql("PRAGMA foreign_key_check").all() == []
    book.close()


def test_counters_go_on_where_the_rows_of_the_fourth_schema_left_them(scratch: Path) -> None:
    path = scratch / "old.sqlite"
    engine = dialects.open_engine(path)
    with engine.begin() as connection:
        schema.migrate(connection, SCRIPTS[:4])
        for statement in (
            "INSERT INTO carried VALUES ('repeats', '', 7), ('lost', '', 2), ('tries', 'pacs', 30)",
            "INSERT INTO attempts VALUES ('pacs', 'delivered', 20), ('vna', 'transient', 3)",
        ):
            connection.exec_driver_sql(statement)
    engine.dispose()
    book = Ledger(path)
    figures = book.snapshot()
    assert [figures.total(metric) for metric in (REPEATS, CONFLICTS, LOST)] == [7, 0, 2]
    assert figures.total(ATTEMPTS, "pacs") == 30
    book.retry(send(book), 0.0, "busy", result="transient")
    assert book.snapshot().total(ATTEMPTS, "pacs") == 31
    assert book.results() == {("pacs", "delivered"): 20, ("pacs", "transient"): 1, ("vna", "transient"): 3}
    book.close()


def test_a_migration_applies_wholly_or_not_at_all(scratch: Path) -> None:
    path = scratch / "ledger.sqlite"
    Ledger(path).close()
    newest = SCRIPTS[-1][0]
    broken = "-- a; comment\nCREATE TABLE fresh (a TEXT);\n\nCREATE TABLE fresh (a TEXT);\n"
    engine = dialects.open_engine(path)
    with pytest.raises(sa.exc.OperationalError), engine.begin() as connection:
        schema.migrate(connection, [*SCRIPTS, (newest + 1, broken)])
    engine.dispose()
    assert "fresh" not in columns(path)
    Ledger(path).close()


def _upgraded(path: Path, *later: str) -> None:
    """What a later program would leave: every migration of today and some that nobody has written yet."""
    scripts = [*SCRIPTS]
    scripts += [(len(scripts) + place, script) for place, script in enumerate(later, 1)]
    engine = dialects.open_engine(path)
    with engine.begin() as connection:
        schema.migrate(connection, scripts)
    engine.dispose()


def test_an_upgrade_that_only_adds_can_be_taken_back(scratch: Path) -> None:
    path = scratch / "ledger.sqlite"
    before = Ledger(path)
    before.add(arrival("1.1"), blob("a"), 1)
    before.close()
    _upgraded(path, "CREATE TABLE later (x INTEGER);", "ALTER TABLE instances ADD COLUMN y TEXT;")
    for existing in (False, True):
        book = Ledger(path, existing=existing)
        assert book.counts().instances[jobs.InstanceState.RECEIVED] == 1
        book.close()
    book = Ledger(path)
    assert not book.add(arrival("1.2"), blob("b"), 1).duplicate
    assert len(book.claim_work("w", 8, 10.0)) == 2
    book.close()


@pytest.mark.parametrize("existing", [False, True])
def test_an_upgrade_that_changes_what_is_there_cannot(scratch: Path, existing: bool) -> None:
    number = len(SCRIPTS) + 1
    _upgraded(scratch / "ledger.sqlite", f"-- floor: {number}\nALTER TABLE deliveries RENAME TO sendings;")
    with pytest.raises(LedgerError, match=rf"has schema {number}, this version knows {number - 1}"):
        Ledger(scratch / "ledger.sqlite", existing=existing)


def test_a_file_of_a_stranger_is_refused(scratch: Path) -> None:
    with sqlite3.connect(scratch / "ledger.sqlite") as raw:
        raw.execute("PRAGMA user_version = 99")
    raw.close()
    with pytest.raises(LedgerError, match="has schema 99"):
        Ledger(scratch / "ledger.sqlite")
