"""C-FIND against an archive in this process that answers, fails, goes on for ever, or goes away."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import pytest
from pydicom.dataset import Dataset

from dicom_node.dimse import patches
from dicom_node.dimse.query import Finder
from dicom_node.errors import PeerError, UsageError
from dicom_node.inquiry import RETURNED, Keys, Level, Row
from tests.shelf import Shelf, instance
from tests.waiting import failing, wait_until


@contextlib.contextmanager
def finder(shelf: Shelf, **peer: Any) -> Iterator[tuple[Finder, list[str]]]:
    notes: list[str] = []
    with (
        shelf.open(**peer) as settings,
        contextlib.closing(Finder("shelf", settings, "AUDITOR", notes)) as made,
    ):
        yield made, notes


def rows(made: Finder, level: Level = Level.IMAGE, keys: Keys = {}, limit: int | None = None) -> list[Row]:  # noqa: B006
    return list(made.find(level, keys, RETURNED[level], limit))


def test_matches_are_rows_and_one_association_serves_many_questions() -> None:
    shelf = Shelf([instance(1), instance(2, series=1)])
    with finder(shelf) as (made, notes):
        assert [row.get("PatientID") for row in rows(made, Level.PATIENT)] == ["P1"]
        assert [row.unique for row in rows(made, Level.STUDY)] == ["1.2.300"]
        assert len(rows(made, Level.SERIES, {"StudyInstanceUID": "1.2.300"})) == 2
        assert [row.unique for row in rows(made, keys={"SeriesInstanceUID": "1.2.30.1"})] == ["1.2.3.2"]
        assert rows(made, keys={"StudyInstanceUID": "9"}) == []
    assert (shelf.associations, notes) == (1, [])


def test_ignored_keys_are_worth_a_note() -> None:
    with finder(Shelf([instance(1), instance(2)], pending=0xFF01)) as (made, notes):
        assert len(rows(made)) == 2
    assert len(notes) == 1


def test_enough_is_enough() -> None:
    shelf = Shelf([instance(number) for number in range(500)])
    answer = shelf._answer

    def slow(asked: Dataset, ds: Dataset) -> Dataset:
        time.sleep(0.01)  # or it has told all of them before it reads the cancel
        return answer(asked, ds)

    shelf._answer = slow  # type: ignore[method-assign]
    with finder(shelf) as (made, _):
        assert len(rows(made, limit=3)) == 3
        assert len(rows(made, limit=2)) == 2  # the association is as good as before
    wait_until(lambda: shelf.cancelled == 2)
    assert shelf.associations == 1


def test_an_archive_that_goes_on_after_a_cancel_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicom_node.dimse.query._CANCEL_ANSWERS", 3)
    shelf = Shelf([instance(number) for number in range(60)])
    shelf.before_find = lambda event: setattr(type(event), "is_cancelled", property(lambda _: False))
    original = None
    from pynetdicom.events import Event

    original = Event.is_cancelled
    try:
        with finder(shelf) as (made, _):
            assert len(rows(made, limit=1)) == 1
            assert len(rows(made, limit=1)) == 1
        assert shelf.associations == 2
    finally:
        Event.is_cancelled = original  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("status", "remedy", "retryable"),
    [
        (0xA700, "ask for less at once, or later", True),
        (0xA900, "try fewer keys, or another level", False),
        (0x0122, "conformance statement", False),
        (0x0124, "enter this AE title there", False),
        (0xC123, "see the log of the archive", False),
    ],
)
def test_a_failure_is_told_with_its_status_and_what_to_do(status: int, remedy: str, retryable: bool) -> None:
    with (
        finder(Shelf([instance(1)], status=status)) as (made, _),
        pytest.raises(PeerError, match=remedy) as caught,
    ):
        rows(made)
    assert f"{status:04X}" in str(caught.value)
    assert (caught.value.status, caught.value.retryable) == (status, retryable)


def test_an_archive_that_breaks_off_is_told_and_may_be_asked_again() -> None:
    shelf = Shelf([instance(1)])
    shelf.before_find = lambda event: event.assoc.abort()
    with finder(shelf) as (made, _):
        with pytest.raises(PeerError, match="broke off"):
            rows(made)
        shelf.before_find = lambda event: None
        assert len(rows(made)) == 1


def test_silence_ends_a_question() -> None:
    shelf = Shelf([instance(1)])
    shelf.before_find = lambda event: time.sleep(1.5)
    with finder(shelf, timeout_s=0.5) as (made, _):
        failing(lambda: rows(made), PeerError, "raise timeout_s")


def test_nobody_there_and_nothing_offered_are_told_apart() -> None:
    shelf = Shelf([])
    with finder(shelf) as (made, _):
        pass
    with pytest.raises(PeerError, match="cannot be reached"):
        rows(made)
    with finder(shelf, host="host.invalid") as (made, _), pytest.raises(PeerError):
        rows(made)


def test_a_value_that_no_number_can_be_is_told_before_it_is_sent() -> None:
    with (
        finder(Shelf([instance(1)])) as (made, _),
        pytest.raises(UsageError, match="InstanceNumber takes no such value"),
    ):
        rows(made, keys={"InstanceNumber": "first"})


def test_the_library_is_repaired() -> None:
    assert patches.apply()
