"""What is counted is committed with what it counts, once, whoever fails or waits."""

from __future__ import annotations

import threading

import pytest
import sqlalchemy as sa

from dicom_node.errors import LedgerError
from dicom_node.ledger import Ledger
from dicom_node.ledger.dialects import Place
from dicom_node.ledger.tallies import count
from dicom_node.metrics import PSNR, REPEATS, STAGE_SECONDS, STORES, Counted, Reading
from tests.ledgers import arrival, blob

SENT = Reading(STORES, ("CT1", "0000"))


def total(book: Ledger) -> float:
    return book.snapshot().total(STORES)


def test_a_histogram_has_its_sum_and_one_row_for_each_bucket_that_was_hit(book: Ledger) -> None:
    for value in (42.0, 44.0, 90.0, 1000.0):
        book.count_soon(Reading(PSNR, (), value))
    book.settle()
    own = [each for each in book.snapshot().counted if each.metric == PSNR.name]
    assert sorted(own, key=lambda each: each.bound) == [
        Counted(PSNR.name, (), "", 1176.0),
        Counted(PSNR.name, (), "45.0", 2.0),
        Counted(PSNR.name, (), "90.0", 1.0),
        Counted(PSNR.name, (), "inf", 1.0),
    ]
    assert book.snapshot().total(PSNR) == 4


def test_an_arrival_and_its_count_share_a_commit(book: Ledger) -> None:
    commits: list[object] = []
    sa.event.listen(book._engine, "commit", commits.append)
    book.add(arrival(), blob("a"), 1, [SENT, Reading(STAGE_SECONDS, ("spool",), 0.02)])
    book.add(arrival(), blob("a"), 1, [SENT])
    # a server is told of what is new in one message, which it commits by itself
    assert len(commits) == (1 if book._dialect.shared else 2)
    snapshot = book.snapshot()
    assert snapshot.total(STORES, "CT1", "0000") == 2
    assert snapshot.total(STAGE_SECONDS, "spool") == 1
    assert snapshot.total(REPEATS) == 1


def test_what_could_not_be_written_was_not_counted(book: Ledger) -> None:
    with pytest.raises(LedgerError):
        book.add(arrival(), blob("a"), None, [SENT])  # type: ignore[arg-type]
    assert total(book) == 0

    def fail() -> None:
        with book._writing() as connection:
            count(connection, [SENT])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    book.add(arrival(), blob("a"), 1)
    assert total(book) == 0


@pytest.mark.sqlite
def test_one_that_fails_in_company_takes_no_count_with_it(book: Ledger) -> None:
    """The others are written once more, each alone; they count once."""
    sizes = [1, 2, None, 4]

    def add(number: int, size: int | None) -> None:
        try:
            book.add(arrival(f"1.{number}"), blob(str(number)), size, [SENT])  # type: ignore[arg-type]
        except LedgerError:
            assert size is None

    threads = [threading.Thread(target=add, args=pair) for pair in enumerate(sizes)]
    with book._turn:
        for thread in threads:
            thread.start()
        while len(book._together._waiting) < len(threads):
            pass
    for thread in threads:
        thread.join()
    assert total(book) == 3


def test_what_is_counted_without_a_row_goes_with_the_next_commit(book: Ledger) -> None:
    book.count_soon(SENT, SENT)
    assert total(book) == 0, "nothing is shown that a crash could take back"
    book.pause("pacs")
    assert total(book) == 2
    book.count_soon(SENT)
    book.settle()
    book.settle()
    assert total(book) == 3


def test_it_waits_while_the_ledger_refuses(book: Ledger) -> None:
    book.count_soon(SENT)
    with pytest.raises(LedgerError):
        book.add(arrival(), blob("a"), None)  # type: ignore[arg-type]
    assert total(book) == 0
    book.settle()
    assert total(book) == 1


def test_nothing_counted_costs_no_commit(book: Ledger) -> None:
    commits: list[object] = []
    sa.event.listen(book._engine, "commit", commits.append)
    book.settle()
    assert commits == []


def test_several_threads_lose_no_count(book: Ledger) -> None:
    def tell() -> None:
        for _ in range(200):
            book.count_soon(SENT)

    threads = [threading.Thread(target=tell) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        book.settle()
    for thread in threads:
        thread.join()
    book.settle()
    assert total(book) == 800


def test_counts_outlive_the_process_and_add_up_over_several(book: Ledger, place: Place) -> None:
    other = Ledger(place)
    for each in (book, other):
        each.count_soon(SENT)
        each.settle()
    other.close()
    again = Ledger(place)
    assert total(again) == 2
    again.close()
