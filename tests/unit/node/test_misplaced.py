"""Frames that moved within their instance, found by the numbers that they were marked with."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from blessmark.types import Evidence, Finding, Record, Tier, Verdict
from dicom_node.misplaced import misplaced


def record(number: int, frames: int) -> Record:
    return Record(Tier.FULL, b"", b"", number, frames, 0)


class Cine:
    """Frames that hold what was marked under these numbers, None where nothing can be read."""

    def __init__(self, holds: Sequence[int | None], frames: int) -> None:
        self.holds, self.frames, self.looks = holds, frames, 0

    def verdict(self, number: int, other: int) -> Verdict:
        if self.holds[number - 1] != other:
            return Verdict(Finding.DAMAGED, Evidence(other))
        return Verdict(Finding.AUTHENTIC, Evidence(other), record(other, self.frames), exact=True)

    def found(self) -> dict[int, int]:
        where = [self.verdict(number, number) for number in range(1, len(self.holds) + 1)]
        found = misplaced(where, len(self.holds), self.look)
        assert all(each.finding is Finding.PIXELS_ALTERED and not each.exact for each in found.values())
        assert all(each.evidence.frame == number for number, each in found.items())
        return {number: each.record.frame for number, each in found.items() if each.record is not None}

    def look(self, number: int, other: int) -> Verdict:
        self.looks += 1
        return self.verdict(number, other)


@pytest.mark.parametrize(
    ("holds", "frames", "expected"),
    [
        ([1, 2, 3], 3, {}),
        ([1, 3, 2, 4], 4, {2: 3, 3: 2}),
        ([1, 3, 4, 5], 5, {2: 3, 3: 4, 4: 5}),
        ([2, 3, 4], 4, {1: 2, 2: 3, 3: 4}),
        ([3, 1, 2], 3, {1: 3, 2: 1, 3: 2}),
        ([1, None, 2], 3, {3: 2}),
        ([1, None, 3], 3, {}),
    ],
)
def test_every_frame_is_found_where_it_was(
    holds: list[int | None], frames: int, expected: dict[int, int]
) -> None:
    assert Cine(holds, frames).found() == expected


def test_a_cut_costs_one_look_a_frame() -> None:
    cine = Cine([1, *range(3, 101)], 100)
    assert len(cine.found()) == 98
    assert cine.looks <= 100


def test_what_is_not_found_is_not_looked_for_without_end() -> None:
    cine = Cine([1, *[None] * 500], 501)
    assert cine.found() == {}
    assert cine.looks == 32
