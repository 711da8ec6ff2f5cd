"""A ledger becomes another's, whole: every row under its number, and nobody goes on with the old one."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node.commitment import Reference, Request
from dicom_node.errors import LedgerError
from dicom_node.jobs import InstanceState, Outcome
from dicom_node.ledger import Ledger
from dicom_node.ledger.dialects import Place
from dicom_node.metrics import ATTEMPTS
from tests.ledgers import Clock, arrival, blob, outcome, send, story, work


@pytest.fixture
def old(scratch: Path, clock: Clock) -> Iterator[Ledger]:
    """A ledger of one machine with something in every table."""
    book = Ledger(scratch / "old.sqlite", clock=clock)
    book.delivered(send(book), 0, to_commit=True)
    book.claim_ask("pacs", "2.25.9", 1, collect_s=0.0, answer_s=60.0)
    book.take_request(Request("2.25.8", "CT1", "NODE", (Reference("1.2", "1.2.3"),)), 60.0)
    book.finish(work(book, "1.5"), outcome("vna", uid="2.25.5"))
    book.finish(work(book, "1.6"), Outcome(InstanceState.HELD, "held", "no-pixel-data"))
    book.add(arrival("1.7"), blob("7"), 3_000_000_000)
    book.converted(blob("out"), "1.2.840.10008.1.2.4.90", blob("smaller"))
    book.went_down("vna", clock.now - 9)
    book.pause("pacs")
    book.set_back(60.0)
    yield book
    book.close()


def test_every_row_is_there_under_its_number(old: Ledger, place: Place, clock: Clock) -> None:
    book = Ledger(place, clock=clock)
    copied = old.copy_to(book)
    assert all(copied.values()), copied
    assert book.counts() == old.counts()
    assert book.queues() == old.queues()
    assert book.snapshot() == old.snapshot()
    assert story(book) == story(old)
    assert [book.item(number) for number in range(1, 5)] == [old.item(number) for number in range(1, 5)]
    assert book.outages() == old.outages()
    assert book.born_at() == old.born_at()
    assert book.last_step() == old.last_step()
    book.close()


def test_work_goes_on_there_and_no_number_is_given_twice(old: Ledger, place: Place, clock: Clock) -> None:
    with old._writing() as connection:
        connection.exec_driver_sql("UPDATE sqlite_sequence SET seq = 70 WHERE name = 'instances'")
    book = Ledger(place, clock=clock)
    old.copy_to(book)
    assert book.add(arrival("1.8"), blob("8"), 1).id == 71
    assert book.add(arrival("1.5"), blob("1.5"), 10).duplicate
    (sent,) = book.claim_sends("vna", 8, 10.0)
    book.delivered(sent, 0)
    assert [claimed.size for claimed in book.claim_work("w", 1, 10.0)] == [3_000_000_000]
    assert book.snapshot().total(ATTEMPTS) == 2
    book.close()


def test_a_ledger_that_has_rows_is_not_copied_into(old: Ledger, place: Place, clock: Clock) -> None:
    book = Ledger(place, clock=clock)
    book.add(arrival("9.9"), blob("9"), 1)
    with pytest.raises(LedgerError, match="is not empty, it has instances"):
        old.copy_to(book)
    assert book.counts().instances[InstanceState.RECEIVED] == 1
    book.close()


def test_a_copy_that_fails_leaves_nothing(
    old: Ledger, place: Place, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = Ledger(place, clock=clock)

    def fail(*_: object) -> None:
        raise LedgerError("in the midst of it")

    monkeypatch.setattr(book._dialect, "number_from", fail)
    with pytest.raises(LedgerError, match="midst"):
        old.copy_to(book)
    assert book.counts().idle
    assert book.trace("1.2.3") == []
    monkeypatch.undo()
    assert old.copy_to(book)["instances"] == 4
    book.close()


def test_nobody_goes_on_with_a_ledger_that_was_moved_until_that_is_taken_back(scratch: Path) -> None:
    path = scratch / "moved.sqlite"
    book = Ledger(path)
    book.note_moved("radiology")
    book.close()
    for existing in (False, True):
        with pytest.raises(LedgerError, match="was moved to radiology"):
            Ledger(path, existing=existing)
    with sqlite3.connect(path) as raw:
        assert raw.execute("SELECT schema FROM floor").fetchone()[0] > 1000, "nor does an older program"
    raw.close()
    again = Ledger(path, even_moved=True)
    assert again.moved_to() == "radiology"
    again.note_moved("")
    again.close()
    last = Ledger(path)
    last.answers()
    last.close()
