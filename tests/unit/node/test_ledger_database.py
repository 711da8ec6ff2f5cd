"""The file is private, commits are on disk, and what it refuses is said without values."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from dicom_node.errors import LedgerError, LedgerUnavailable
from dicom_node.jobs import Send
from dicom_node.ledger import Ledger, dialects
from dicom_node.ledger.database import Grouped
from tests.ledgers import arrival, blob

pytestmark = pytest.mark.sqlite


def test_a_file_that_is_no_ledger_is_refused(scratch: Path) -> None:
    (scratch / "ledger.sqlite").write_bytes(b"something else" * 1000)
    with pytest.raises(LedgerError, match=r"is damaged.*back-up"):
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


class Sum:
    """Writes that add up, one transaction at a time."""

    def __init__(self, book: Ledger) -> None:
        self.commits: list[list[int]] = []
        self._group: list[int] = []
        self.group = Grouped(book)
        sa.event.listen(book._engine, "begin", lambda _c: self._group.clear())
        sa.event.listen(book._engine, "commit", lambda _c: self.commits.append(list(self._group)))

    def write(self, item: int) -> int:
        """The square of a number, once it is committed."""

        def step(_connection: sa.Connection) -> int:
            if item < 0:
                raise ValueError("negative")
            self._group.append(item)
            return item * item

        return self.group(step)


def together(book: Ledger, total: Sum, items: list[int]) -> dict[int, int | Exception]:
    """Every item in a thread of its own; all wait until they have queued up behind one who has the turn."""
    found: dict[int, int | Exception] = {}

    def ask(item: int) -> None:
        try:
            found[item] = total.write(item)
        except Exception as error:
            found[item] = error

    threads = [threading.Thread(target=ask, args=(item,)) for item in items]
    with book._turn:
        for thread in threads:
            thread.start()
        while len(total.group._waiting) < len(items):
            time.sleep(0.001)
    for thread in threads:
        thread.join()
    return found


def test_what_threads_write_at_once_is_committed_together(book: Ledger) -> None:
    total = Sum(book)
    found = together(book, total, list(range(8)))
    assert found == {item: item * item for item in range(8)}
    assert [sorted(group) for group in total.commits] == [list(range(8))]


def test_one_that_cannot_be_written_costs_the_others_nothing(book: Ledger) -> None:
    total = Sum(book)
    found = together(book, total, [1, -2, 3])
    assert (found[1], found[3]) == (1, 9)
    assert isinstance(found[-2], ValueError)
    assert sorted(total.commits) == [[1], [3]]


def test_the_lead_passes_on_and_nobody_is_left_behind(book: Ledger) -> None:
    total = Sum(book)
    found: list[int] = []

    def ask(first: int) -> None:
        found.extend(total.write(item) for item in range(first, first + 50))

    threads = [threading.Thread(target=ask, args=(50 * number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(found) == [item * item for item in range(400)]
    assert sorted(item for group in total.commits for item in group) == list(range(400))
    assert len(total.commits) < 400


def test_a_thread_alone_waits_for_nobody(book: Ledger) -> None:
    total = Sum(book)
    assert [total.write(2), total.write(3)] == [4, 9]
    assert total.commits == [[2], [3]]
    with pytest.raises(ValueError, match="negative"):
        total.write(-1)


def test_arrivals_of_several_threads_share_a_commit(book: Ledger) -> None:
    commits: list[object] = []
    sa.event.listen(book._engine, "commit", commits.append)
    numbers: list[int] = []
    threads = [
        threading.Thread(
            target=lambda n=n: numbers.append(book.add(arrival(f"1.{n}"), blob(str(n)), 1).id)  # type: ignore[misc]
        )
        for n in range(8)
    ]
    with book._turn:
        for thread in threads:
            thread.start()
        while len(book._together._waiting) < 8:
            time.sleep(0.001)
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(1, 9))
    assert len(commits) == 1


def test_a_row_that_breaks_a_rule_is_not_tried_for_ever(book: Ledger) -> None:
    """`insist` repeats what is unavailable; this would be refused every second until the end of days."""
    for write in (lambda: book.add(arrival(), blob("a"), None), lambda: _broken(book)):  # type: ignore[arg-type]
        with pytest.raises(LedgerError, match="takes no such row") as caught:
            write()
        assert not isinstance(caught.value, LedgerUnavailable)


def _broken(book: Ledger) -> None:
    with book._writing() as connection:
        connection.connection.cursor().execute("INSERT INTO runs (id, born_at) VALUES (1, 0)")


def test_a_refusal_below_sqlalchemy_is_one_all_the_same(book: Ledger) -> None:
    """Giving space back goes by the driver itself; its error would end the thread that keeps house."""
    with pytest.raises(LedgerUnavailable, match="no such table"), book._writing() as connection:
        connection.connection.cursor().execute("DELETE FROM nowhere")


def queue(book: Ledger, uid: str) -> None:
    book.add(arrival(uid), blob(uid), 1, straight_to=("pacs",))


def test_what_does_not_wait_for_the_disk_is_there_with_what_does(book: Ledger) -> None:
    queue(book, "1.1")
    mark = book.mark()
    assert not book.is_on_disk(mark)
    book.claim_sends("pacs", 1, 10.0, awaits_disk=False)
    assert not book.is_on_disk(book.mark())
    mark = book.mark()
    book.claim_sends("pacs", 1, 10.0)
    assert not book.is_on_disk(mark), "a commit of nothing leaves the disk alone"
    queue(book, "1.2")
    assert book.is_on_disk(mark)
    mark = book.mark()
    book.sync()
    assert book.is_on_disk(mark)


def test_what_another_process_queued_tells_that_all_before_it_is_on_disk(scratch: Path, book: Ledger) -> None:
    queue(book, "1.1")
    book.claim_sends("pacs", 1, 10.0, awaits_disk=False)
    mark = book.mark()
    with contextlib.closing(Ledger(scratch / "ledger.sqlite")) as other:
        queue(other, "1.2")
    assert not book.is_on_disk(mark), "it has not been seen yet"
    book.claim_sends("pacs", 1, 10.0, awaits_disk=False)
    assert book.is_on_disk(mark)
    assert not book.is_on_disk(book.mark())


def test_what_is_queued_with_a_claim_and_taken_back_tells_nothing(book: Ledger) -> None:
    """Several threads share a transaction; one that fails has synced nothing of what was before it."""
    queue(book, "1.1")
    book.claim_sends("pacs", 1, 10.0, awaits_disk=False)
    mark = book.mark()
    step = book._claim_sends

    def fails(connection: sa.Connection, *asked: Any, **more: Any) -> list[Send]:
        book._add(connection, arrival("1.2"), blob("1.2"), 1, ("pacs",), 0)
        step(connection, *asked, **more)
        raise LedgerUnavailable("the disk is full")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(book, "_claim_sends", fails)
        with pytest.raises(LedgerUnavailable):
            book.claim_sends("pacs", 1, 10.0)
    assert not book.is_on_disk(mark)


def test_commits_wait_for_the_disk_unless_they_say_that_they_do_not(book: Ledger) -> None:
    def synchronous() -> int:
        assert book._writer is not None
        raw: Any = book._writer.connection.dbapi_connection
        return int(raw.execute("PRAGMA synchronous").fetchone()[0])

    queue(book, "1.1")
    assert synchronous() == 2
    (send,) = book.claim_sends("pacs", 1, 10.0, awaits_disk=False)
    assert synchronous() == 1
    book.delivered(send, 0)
    assert synchronous() == 2


def test_a_disk_that_does_not_sync_is_told(book: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_handle: int) -> None:
        raise OSError(5, "Input/output error")

    mark = book.mark()
    monkeypatch.setattr(os, "fdatasync", fails)
    with pytest.raises(LedgerUnavailable, match="check its disk"):
        book.sync()
    assert not book.is_on_disk(mark)


def test_a_log_that_is_gone_holds_nothing_back(tmp_path: Path) -> None:
    dialects.dialect_of(tmp_path / "none.sqlite", 1).sync()


def test_the_log_of_a_ledger_behind_a_link_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "ledger.sqlite").symlink_to(tmp_path / "disk" / "ledger.sqlite")
    (tmp_path / "disk" / "ledger.sqlite").touch()
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", lambda handle: synced.append(os.fstat(handle).st_ino))
    with contextlib.closing(Ledger(tmp_path / "ledger.sqlite")) as book:
        queue(book, "1.1")
        book.claim_sends("pacs", 1, 10.0, awaits_disk=False)
        book.sync()
        assert synced == [(tmp_path / "disk" / "ledger.sqlite-wal").stat().st_ino]
