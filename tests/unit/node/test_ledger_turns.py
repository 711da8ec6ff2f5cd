"""Whoever waits to write gets in when the other process is done, not when it next wakes."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from dicom_node.errors import LedgerUnavailable
from dicom_node.ledger import Ledger, dialects, turns
from tests.ledgers import arrival, blob


def opened(path: Path) -> contextlib.closing[sqlite3.Connection]:
    connection = sqlite3.connect(path, isolation_level=None, timeout=0.0, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    return contextlib.closing(connection)


def test_who_waits_looks_every_millisecond(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    with opened(tmp_path / "file") as one, opened(tmp_path / "file") as two:
        turns.begin(one, 1.0)

        def sleep(seconds: float) -> None:
            slept.append(seconds)
            if len(slept) == 50:
                one.execute("COMMIT")

        monkeypatch.setattr(turns, "time", SimpleNamespace(sleep=sleep, monotonic=lambda: 0.0))
        turns.begin(two, 30.0)
        two.execute("COMMIT")
        assert slept == [turns.LOOK_S] * 50


def test_who_finds_somebody_at_the_log_of_a_dead_process_waits_too() -> None:
    class Mending:
        """A connection that is told so once."""

        begun = 0

        def execute(self, statement: str) -> Mending:
            if statement == "BEGIN IMMEDIATE":
                self.begun += 1
                if self.begun == 1:
                    error = sqlite3.OperationalError("database is locked")
                    error.sqlite_errorcode = sqlite3.SQLITE_BUSY_RECOVERY
                    raise error
            return self

    connection = Mending()
    turns.begin(connection, 30.0)  # type: ignore[arg-type]
    assert connection.begun == 2


def test_there_is_an_end_to_waiting(tmp_path: Path) -> None:
    with opened(tmp_path / "file") as one, opened(tmp_path / "file") as two:
        turns.begin(one, 1.0)
        with pytest.raises(sqlite3.OperationalError) as caught:
            turns.begin(two, 0.05)
        assert caught.value.sqlite_errorcode == sqlite3.SQLITE_BUSY
        one.execute("COMMIT")
        turns.begin(two, 0.05)


@pytest.mark.sqlite
def test_a_ledger_waits_for_whoever_writes(
    scratch: Path, book: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(scratch / "ledger.sqlite") as other:
        turns.begin(other, 1.0)
        done = threading.Event()
        threading.Thread(target=lambda: book.add(arrival("1.1"), blob("1"), 1) and done.set()).start()
        assert not done.wait(0.2)
        other.execute("COMMIT")
        assert done.wait(60)
        monkeypatch.setattr(dialects, "_BUSY_TIMEOUT_S", 0.05)
        turns.begin(other, 1.0)
        with pytest.raises(LedgerUnavailable, match="locked"):
            book.add(arrival("1.2"), blob("2"), 1)
        other.execute("COMMIT")
