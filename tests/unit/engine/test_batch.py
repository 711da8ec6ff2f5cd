"""Maps drawn together, and the memory of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from blessmark.segment import segmenter
from blessmark.segment.batch import FRAMES, Ahead, drawn_ahead
from blessmark.types import BoolArray, Frame, Lattice, View
from blessmark.view import invariant_view
from tests.phantoms import frame, noise


class Bright:
    """Blocks with a sample above 100; counts what it is asked for."""

    id = "bright/1"
    reach_px = 8

    def __init__(self) -> None:
        self.together: list[int] = []
        self.alone = 0

    def roi_blocks(self, view: View) -> BoolArray:
        self.alone += 1
        return self._map(view)

    def roi_blocks_of(self, views: Sequence[View]) -> list[BoolArray]:
        self.together.append(len(views))
        return [self._map(view) for view in views]

    def _map(self, view: View) -> BoolArray:
        rows, cols = (side // 8 for side in view.samples.shape[1:])
        plane = view.samples[0, : rows * 8, : cols * 8].reshape(rows, 8, cols, 8)
        return np.asarray(plane.max(axis=(1, 3)) > 100)


def frames(count: int, shape: tuple[int, int] = (32, 24)) -> list[Frame]:
    return [frame(noise(shape, 110, seed=number)) for number in range(count)]


@pytest.mark.parametrize(
    ("count", "together"), [(7, [7]), (3, [3, 3]), (4, [4, 3]), (2, [2, 2, 2]), (1, []), (FRAMES, [7])]
)
def test_as_many_as_asked_for_are_drawn_together_and_a_single_one_alone(count, together):
    drawer, given = Bright(), frames(7)
    pairs = list(drawn_ahead(given, drawer, count))
    assert drawer.together == together
    assert [one is other for (one, _), other in zip(pairs, given, strict=True)] == [True] * 7


def test_the_map_drawn_ahead_is_not_drawn_again():
    drawer = Bright()
    for one, ahead in drawn_ahead(frames(3), drawer):
        view = invariant_view(one, Lattice.QUARTER)
        assert np.array_equal(ahead.roi_blocks(view), drawer._map(view))
        assert (ahead.id, ahead.reach_px) == (drawer.id, drawer.reach_px)
    assert drawer.alone == 0


def test_another_view_gets_a_map_of_its_own():
    drawer = Bright()
    one, other = frames(2)
    (_, ahead), _ = drawn_ahead([one, other], drawer)
    for view in (invariant_view(one, Lattice.QUINCUNX), invariant_view(other, Lattice.QUARTER)):
        assert np.array_equal(ahead.roi_blocks(view), drawer._map(view))
    assert drawer.alone == 2


def test_large_frames_are_not_kept_together(monkeypatch):
    monkeypatch.setattr("blessmark.segment.batch._SAMPLES", 3 * 32 * 24)
    drawer = Bright()
    assert len(list(drawn_ahead(frames(8), drawer))) == 8
    assert drawer.together == [3, 3, 2]


def test_frames_are_taken_no_further_ahead_than_a_group():
    taken = []

    def source():
        for one in frames(9):
            taken.append(one)
            yield one

    next(drawn_ahead(source(), Bright(), 3))
    assert len(taken) == 4  # the fourth tells that the group is full


def test_a_segmenter_that_draws_one_by_one_is_left_alone():
    anatomy, given = segmenter("anatomy"), frames(2)
    assert list(drawn_ahead(given, anatomy)) == [(one, anatomy) for one in given]


def test_networks_draw_together():
    assert all(isinstance(ahead, Ahead) for _, ahead in drawn_ahead(frames(2), segmenter("vessels")))
