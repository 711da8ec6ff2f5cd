"""Every older file becomes the present one, wholly or not at all."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa

from dicom_node import commitment, jobs
from dicom_node.errors import LedgerError
from dicom_node.ledger import Ledger, database, schema
from tests.ledgers import arrival, blob


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


def test_the_checks_of_the_schema_allow_exactly_the_states() -> None:
    script = "".join(script for _, script in schema.scripts())
    allowed = [
        re.findall(r"'(\w+)'", check) for check in re.findall(r"CHECK \(state IN \(([^)]*)\)\)", script)
    ]
    assert allowed == [
        [*jobs.InstanceState],
        [*jobs.DeliveryState],
        [*commitment.CommitmentState],
        [*commitment.AskState],
        [*commitment.PromiseState],
    ]


def test_migrations_are_numbered_without_gaps() -> None:
    assert [number for number, _ in schema.scripts()] == list(range(1, len(schema.scripts()) + 1))


@pytest.mark.parametrize("version", range(len(schema.scripts()) + 1))
def test_every_older_schema_is_brought_up_to_date(scratch: Path, version: int) -> None:
    path = scratch / "old.sqlite"
    engine = database.open_engine(path)
    with engine.begin() as connection:
        if version:
            schema.migrate(connection, schema.scripts()[:version])
    engine.dispose()
    opened = Ledger(path)
    book_columns = columns(path)
    opened.add(arrival(), blob("a"), 1)
    opened.close()
    assert set(book_columns) == set(schema.METADATA.tables)


def test_a_migration_applies_wholly_or_not_at_all(scratch: Path) -> None:
    path = scratch / "ledger.sqlite"
    Ledger(path).close()
    newest = schema.scripts()[-1][0]
    broken = "-- a; comment\nCREATE TABLE fresh (a TEXT);\n\nCREATE TABLE fresh (a TEXT);\n"
    engine = database.open_engine(path)
    with pytest.raises(sa.exc.OperationalError), engine.begin() as connection:
        schema.migrate(connection, [*schema.scripts(), (newest + 1, broken)])
    engine.dispose()
    assert "fresh" not in columns(path)
    Ledger(path).close()


def test_a_ledger_of_a_newer_version_is_refused(scratch: Path) -> None:
    path = scratch / "ledger.sqlite"
    Ledger(path).close()
    with sqlite3.connect(path) as raw:
        raw.execute("PRAGMA user_version = 9999")
    raw.close()
    with pytest.raises(LedgerError, match="9999"):
        Ledger(path)
