"""What a server does in one message; that it does it is in tests/conformance."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from dicom_node.ledger import trips
from dicom_node.ledger.trips import ARRIVE, FINISH, LEASE_WORK, TAKE_AND_LEASE, Trip, as_rows


class _Session:
    """A driver's, as far as a trip needs one; tells what it was asked, and when it was sent."""

    def __init__(self) -> None:
        self.told: list[str] = []

    @contextlib.contextmanager
    def cursor(self) -> Iterator[_Session]:
        yield self

    @contextlib.contextmanager
    def pipeline(self) -> Iterator[None]:
        yield
        self.told.append("sent")

    def execute(self, text: str, values: Mapping[str, object]) -> None:
        self.told.append(text % values)

    def fetchall(self) -> list[tuple[Any, ...]]:
        return [(True,)]


def test_a_lock_is_taken_by_a_statement_before_it_in_the_same_message() -> None:
    session = _Session()
    assert Trip("find %(uid)s", "lock %(uid)s").run(session, {"uid": "1.2"}) == [(True,)]
    assert session.told == ["lock 1.2", "find 1.2", "sent"]


def test_without_a_lock_it_is_one_statement() -> None:
    session = _Session()
    Trip("find %(uid)s").run(session, {"uid": "1.2"})
    assert session.told == ["find 1.2"]


def test_rows_travel_as_json() -> None:
    assert json.loads(as_rows([{"id": 1, "what": 'a "word"'}])) == [{"id": 1, "what": 'a "word"'}]


@pytest.mark.parametrize("trip", [ARRIVE, TAKE_AND_LEASE, LEASE_WORK, FINISH])
def test_no_plan_depends_on_the_size_of_a_table(trip: Trip) -> None:
    """An update that joins may read the whole table; which table is small was known when it was planned."""
    for update in re.findall(r"UPDATE (?:deliveries|instances)\b.*?\n\)", trip._text, re.DOTALL):
        assert "WHERE id = ANY (ARRAY(" in update
    assert "%(tally)s" in trip._text, "what was counted goes with it"


def test_what_was_lost_is_queued_again_for_the_reasons_that_an_arrival_mends() -> None:
    for reason in trips.MENDED_BY_ARRIVAL:
        assert f"d.reason = '{reason}'" in FINISH._text
