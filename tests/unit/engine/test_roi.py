"""The final map: padding and forced regions on top of what the segmenter says."""

from __future__ import annotations

import numpy as np
import pytest

from blessmark.errors import SegmenterError
from blessmark.roi import Maps, block_map, pixel_mask, roi_share
from blessmark.segment.whole import Whole
from blessmark.types import Lattice, Rectangle
from tests.phantoms import frame
from tests.strategies import Drawn

BLANK = np.zeros((35, 50), int)  # 4 x 6 blocks and a rest on both sides


def where(roi):
    return [tuple(map(int, block)) for block in np.argwhere(roi)]


def test_the_segmenter_decides_where_nothing_else_does():
    drawn = np.zeros((4, 6), bool)
    drawn[1, 2] = True

    roi = block_map(Drawn(drawn), frame(BLANK), Lattice.QUARTER)

    assert (roi == drawn).all()
    assert roi is not drawn


@pytest.mark.parametrize("value", [-2000, -1990])
def test_a_block_with_padding_is_roi(value):
    plane = BLANK.copy()
    plane[8, 40] = value

    roi = block_map(Whole(), frame(plane, lo=-2048, padding=(-2000, -1990)), Lattice.QUARTER)

    assert where(roi) == [(1, 5)]


@pytest.mark.parametrize("value", [-2001, -1989])
def test_beside_the_padding_range_is_not_padding(value):
    image = frame(np.full((16, 16), value), lo=-2048, padding=(-2000, -1990))

    assert not block_map(Whole(), image, Lattice.QUARTER).any()


@pytest.mark.parametrize(
    ("lattice", "pixel", "counts"),
    [
        (Lattice.QUARTER, (9, 17), False),
        (Lattice.QUARTER, (9, 18), True),
        (Lattice.QUINCUNX, (9, 17), True),
        (Lattice.QUINCUNX, (9, 18), False),
    ],
)
def test_padding_is_judged_by_pixels_that_embedding_leaves_alone(lattice, pixel, counts):
    plane = np.full((32, 32), 7)
    plane[pixel] = 0

    roi = block_map(Whole(), frame(plane, padding=(0, 0)), lattice)

    assert where(roi) == ([(1, 2)] if counts else [])


def test_padding_in_any_channel_counts():
    other = BLANK + 5
    other[20, 20] = 0

    assert where(block_map(Whole(), frame(BLANK + 5, other, padding=(0, 0)), Lattice.QUARTER)) == [(2, 2)]


@pytest.mark.parametrize(
    ("region", "blocks"),
    [
        (Rectangle(8, 8, 9, 9), [(1, 1)]),
        (Rectangle(7, 15, 9, 17), [(0, 1), (0, 2), (1, 1), (1, 2)]),
        (Rectangle(-5, -5, 8, 8), [(0, 0)]),
        (Rectangle(30, 46, 900, 900), [(3, 5)]),
        (Rectangle(33, 0, 35, 50), []),
        (Rectangle(8, 8, 8, 20), []),
        (Rectangle(9, 8, 9, 20), []),
        (Rectangle(20, 8, 9, 20), []),
        (Rectangle(-9, -9, -1, -1), []),
    ],
    ids=[
        "inside",
        "across",
        "from outside",
        "to outside",
        "partial blocks",
        "empty",
        "empty in a block",
        "reversed",
        "elsewhere",
    ],
)
def test_every_block_that_a_forced_region_touches_is_roi(region, blocks):
    image = frame(BLANK, forced_roi=(region,))

    assert where(block_map(Whole(), image, Lattice.QUARTER)) == blocks


@pytest.mark.parametrize("answer", [np.zeros((3, 6), bool), np.zeros((4, 6), np.uint8)])
def test_a_segmenter_that_answers_with_something_else_is_refused(answer):
    with pytest.raises(SegmenterError, match=r"drawn/1 answered .* where bool \[4, 6\]"):
        block_map(Drawn(answer), frame(BLANK), Lattice.QUARTER)


def test_share():
    assert roi_share(np.array([[True, False], [False, False]])) == 0.25
    assert roi_share(np.zeros((0, 4), bool)) == 1.0


def test_pixel_mask_spreads_blocks_and_keeps_partial_blocks():
    roi = np.zeros((4, 6), bool)
    roi[1, 2] = True

    mask = pixel_mask(roi, 35, 50)

    expected = np.ones((35, 50), bool)
    expected[:32, :48] = False
    expected[8:16, 16:24] = True
    assert (mask == expected).all()


class Counted(Whole):
    """Says how often it has drawn."""

    def __init__(self) -> None:
        self.drawn = 0

    def roi_blocks(self, view):
        self.drawn += 1
        return super().roi_blocks(view)


def test_a_map_is_drawn_once_and_anew_only_below_what_shows_otherwise():
    segmenter, above = Counted(), frame(BLANK)
    maps = Maps(above)
    first = maps.of(segmenter, Lattice.QUARTER)

    assert maps.of(segmenter, Lattice.QUARTER) is first
    assert maps.below(frame(BLANK)).of(segmenter, Lattice.QUARTER) is first
    assert segmenter.drawn == 1

    other = BLANK.copy()
    other[:8, :8] = 4000
    again = maps.below(frame(other)).of(segmenter, Lattice.QUARTER)
    assert segmenter.drawn == 2
    assert (again == block_map(Whole(), frame(other), Lattice.QUARTER)).all()
