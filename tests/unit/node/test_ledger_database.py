"""The file is private, commits are on disk, and what it refuses is said without values."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node.errors import LedgerError
from dicom_node.ledger import Ledger
from tests.ledgers import arrival, blob


def test_a_file_that_is_no_ledger_is_refused(scratch: Path) -> None:
    (scratch / "ledger.sqlite").write_bytes(b"something else" * 1000)
    with pytest.raises(LedgerError, match="refuses"):
        Ledger(scratch / "ledger.sqlite")
    (scratch / "file").touch()
    with pytest.raises(LedgerError, match="cannot be opened"):
        Ledger(scratch / "file" / "ledger.sqlite")


def test_commits_are_synchronous_and_the_file_is_private(book: Ledger, scratch: Path) -> None:
    with book._writing() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    for file in scratch.iterdir():
        assert file.stat().st_mode & 0o077 == 0


def test_refusals_do_not_quote_what_was_to_be_written(book: Ledger) -> None:
    with pytest.raises(LedgerError, match="NOT NULL") as caught:
        book.add(arrival(uid="1.2.777"), blob("a"), None)  # type: ignore[arg-type]
    assert "777" not in str(caught.value)
