"""Of one who puts an object again and one who removes it, only the first gets his way."""

from __future__ import annotations

import threading

from dicom_node.ledger import Ledger
from tests.ledgers import Clock, blob

_A, _B = blob("a"), blob("b")


def test_what_is_pinned_is_not_doomed_until_the_pin_ends(book: Ledger, clock: Clock) -> None:
    assert book.pin(_A, 10.0)
    assert book.doom([_A, _B], 100.0) == {_B}
    clock.now += 11
    assert book.doom([_A, _B], 100.0) == {_A}


def test_what_is_doomed_is_not_pinned_until_it_is_spared(book: Ledger, clock: Clock) -> None:
    assert book.doom([_A], 100.0) == {_A}
    assert not book.pin(_A, 10.0)
    assert book.pin(_B, 10.0)
    book.spare([_A, _B])
    assert book.pin(_A, 10.0)
    assert book.doom([_B], 100.0) == frozenset(), "sparing ends no pin"


def test_a_removal_that_never_ended_is_forgotten(book: Ledger, clock: Clock) -> None:
    assert book.doom([_A], 100.0) == {_A}
    assert book.doom([_A], 100.0) == frozenset()
    clock.now += 101
    assert book.pin(_A, 10.0)
    assert book.doom([_A], 100.0) == frozenset()


def test_a_pin_may_be_prolonged(book: Ledger, clock: Clock) -> None:
    assert book.pin(_A, 10.0)
    assert book.pin(_A, 50.0)
    clock.now += 20
    assert book.doom([_A], 100.0) == frozenset()


def test_nothing_is_nothing(book: Ledger, clock: Clock) -> None:
    assert book.doom([], 1.0) == frozenset()
    book.spare([])


def test_one_of_two_at_once_wins(book: Ledger, clock: Clock) -> None:
    for turn in range(20):
        name, results = blob(str(turn)), {}
        barrier = threading.Barrier(2)

        def pin(
            name: str = name, results: dict[str, bool] = results, both: threading.Barrier = barrier
        ) -> None:
            both.wait()
            results["pinned"] = book.pin(name, 10.0)

        thread = threading.Thread(target=pin)
        thread.start()
        barrier.wait()
        doomed = name in book.doom([name], 10.0)
        thread.join()
        assert results["pinned"] != doomed


def test_one_store_is_remembered(book: Ledger) -> None:
    assert book.store_id() == ""
    assert book.note_store("one") == "one"
    assert book.note_store("two") == "one"
    assert book.store_id() == "one"


def test_where_the_rows_went(book: Ledger) -> None:
    assert book.moved_to() == ""
    book.note_moved("radiology")
    assert book.moved_to() == "radiology"
    book.note_moved("")
    assert book.moved_to() == ""


def test_how_far_the_trail_was_told_only_grows(book: Ledger) -> None:
    assert book.told_to() == -1
    book.note_told(0)
    book.note_told(7_000_000_000)
    book.note_told(3)
    assert book.told_to() == 7_000_000_000


def test_the_salt_of_the_logs_is_that_of_who_came_first(book: Ledger) -> None:
    assert book.note_log_salt("ab") == "ab"
    assert book.note_log_salt("cd") == "ab"
