"""A place is told without its secrets, and what a database says is told as what it means."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError

from dicom_node.errors import LedgerCollision, LedgerError, LedgerUnavailable
from dicom_node.ledger import Ledger
from dicom_node.ledger.dialects import PostgreSQL, SQLite, dialect_of, four_digits, scripts
from dicom_node.ledger.schema import instances

URL = sa.URL.create("postgresql", "node", "s3cr/et", "db.example", 5432, "dicom_node")


class Said(Exception):  # noqa: N818 - what a driver raises
    """An error of a server, with its class."""

    def __init__(self, sqlstate: str | None, text: str = "") -> None:
        super().__init__(text)
        self.sqlstate = sqlstate


def refusal(sqlstate: str | None, text: str = "Key (uid)=(1.2.777) is there") -> LedgerError:
    dialect = PostgreSQL(URL, 1)
    dialect.engine()
    return dialect.refusal(DBAPIError("INSERT 1.2.777", {"uid": "1.2.777"}, Said(sqlstate, text)))


def test_a_path_is_a_file_and_an_address_a_server(tmp_path: Path) -> None:
    assert isinstance(dialect_of(tmp_path / "ledger.sqlite"), SQLite)
    assert isinstance(dialect_of(URL), PostgreSQL)


def test_a_place_is_told_without_its_secret() -> None:
    assert str(dialect_of(URL)) == "dicom_node on db.example"
    several = URL.set(host=None, port=None, query={"host": ("one.example:5432", "two.example:5432")})
    assert str(dialect_of(several)) == "dicom_node on one.example:5432,two.example:5432"


@pytest.mark.parametrize(
    ("sqlstate", "kind", "words"),
    [
        ("40P01", LedgerCollision, "in the way"),
        ("40001", LedgerCollision, "in the way"),
        ("25006", LedgerUnavailable, "standby"),
        ("53100", LedgerUnavailable, "disk"),
        ("57P01", LedgerUnavailable, "stopped"),
        ("57014", LedgerUnavailable, "took too long"),
        ("55P03", LedgerUnavailable, "lock"),
        (None, LedgerUnavailable, "cannot be reached"),
        ("23502", LedgerError, "no such row"),
        ("22021", LedgerError, "no such value"),
        ("42501", LedgerError, "must own the tables"),
        ("28P01", LedgerError, "password file"),
        ("3D000", LedgerError, "CREATE DATABASE"),
        ("XX001", LedgerError, "damaged"),
    ],
)
def test_what_a_server_says_is_told_as_what_it_means(
    sqlstate: str | None, kind: type[LedgerError], words: str
) -> None:
    told = refusal(sqlstate)
    assert type(told) is kind
    assert words in str(told)
    for secret in ("1.2.777", "s3cr/et", "INSERT"):
        assert secret not in str(told)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('FATAL:  password authentication failed for user "node"', "password file"),
        ('FATAL:  database "dicom_node" does not exist', "CREATE DATABASE"),
        ('FATAL:  role "node" does not exist', "does not let this role in"),
    ],
)
def test_what_keeps_one_out_at_the_door_is_not_taken_for_an_outage(text: str, words: str) -> None:
    """The driver gives no class for what happens before a session has begun."""
    told = refusal(None, f"connection failed: {text}")
    assert type(told) is LedgerError
    assert words in str(told)


def test_nobody_listening_is_an_outage() -> None:
    nowhere = URL.set(host="127.0.0.1", port=1)
    started = time.monotonic()
    with pytest.raises(LedgerUnavailable, match="cannot be reached") as caught:
        Ledger(nowhere)
    assert time.monotonic() - started < 60
    assert "s3cr/et" not in f"{caught.value!r} {caught.value.__cause__}"


def test_each_dialect_has_the_same_newest_schema() -> None:
    assert scripts(SQLite)[-1][0] == scripts(PostgreSQL)[-1][0]
    numbers = [number for number, _ in scripts(PostgreSQL)]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_rows_are_locked_where_several_write_at_once(tmp_path: Path) -> None:
    query = sa.select(instances.c.id)
    assert dialect_of(tmp_path / "ledger.sqlite").locked(query, instances.c.id) is query
    locked = dialect_of(URL).locked(query, instances.c.id, skip=True)
    text = str(locked.compile(dialect=postgresql.dialect()))
    assert text.endswith("ORDER BY instances.id FOR NO KEY UPDATE SKIP LOCKED")


def test_codes_have_four_digits_in_either() -> None:
    column: sa.ColumnElement[int] = sa.literal_column("274")
    in_sqlite = str(four_digits(column).compile(dialect=sqlite.dialect()))
    assert in_sqlite == "printf('%04x', 274)"
    in_postgresql = str(four_digits(column).compile(dialect=postgresql.dialect()))
    assert in_postgresql == "lpad(to_hex(274), 4, '0')"
