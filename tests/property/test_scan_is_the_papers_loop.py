"""The one scan over both bit values is, in effect, the paper's loop of embedding and segmenting."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from blessmark.carrier import dct
from blessmark.segment.block import packaged
from blessmark.types import BoolArray, IntArray

BOUNDS = (0, 255)


def literal(
    cover: IntArray, bits: np.ndarray, segment, pair: dct.Pair, threshold: int
) -> tuple[IntArray, BoolArray] | None:
    """Algorithm 1 line by line: the whole image embedded and segmented until the map stays.

    `cover` is int32 [rows, cols]. Blocks that switched keep their embedded version in the modified cover.
    None when the blocks do not suffice.
    """
    cover = cover.copy()
    roi = segment(cover)
    while True:
        tentative = cover.copy()
        grid = dct.cut(tentative[None], pair.side)[:, :, 0]
        places = np.argwhere(~roi)
        if len(places) < len(bits):
            return None
        for bit, (row, col) in zip(bits, places, strict=False):
            grid[row, col] = dct.marked(pair, grid[row, col][None], int(bit), threshold, BOUNDS)[0]
        again = segment(tentative)
        if np.array_equal(again, roi):
            return tentative, roi
        for row, col in np.argwhere(again & ~roi):
            dct.cut(cover[None], pair.side)[row, col, 0] = grid[row, col]
        roi = again


def scanned(
    cover: IntArray, bits: np.ndarray, stays, pair: dct.Pair, threshold: int
) -> tuple[IntArray, int] | None:
    """The product's way: the marked image and how many blocks switched."""
    content = dct.cut(cover[None].copy(), pair.side)
    flat = content.reshape(-1, 1, pair.side, pair.side)
    places = np.flatnonzero(stays(flat).all(axis=1))
    original = flat[places]
    placed = dct.place(
        dct.choices(pair, original, threshold, BOUNDS, lambda k, blocks: stays(blocks)), original, bits
    )
    if placed is None:
        return None
    marked = cover[None].copy()
    row, col = np.divmod(places[: placed.walked], content.shape[1])
    dct.cut(marked, pair.side)[row, col] = placed.blocks
    return marked[0], int(placed.switched.sum())


def extracted(marked: IntArray, segment, pair: dct.Pair, count: int) -> np.ndarray:
    """Algorithm 2."""
    free = dct.cut(marked[None], pair.side)[:, :, 0][~segment(marked)]
    return dct.read_bits(pair, free)[:count]


class Brittle:
    """A block-local map that many embeddings switch: a block is ROI when a hash of it says so."""

    def __init__(self, side: int, share: int, salt: int) -> None:
        self.side, self.share, self.salt = side, share, salt

    def stays(self, blocks: IntArray) -> BoolArray:
        weights = np.arange(1, self.side**2 + 1) * 2654435761 + self.salt
        mixed = (blocks.reshape(len(blocks), self.side**2).astype(np.int64) * weights).sum(axis=1)
        return ((mixed ^ (mixed >> 7)) % 100 >= self.share)[:, None]

    def segment(self, image: IntArray) -> BoolArray:
        grid = dct.cut(image[None], self.side)
        found = ~self.stays(grid.reshape(-1, 1, self.side, self.side))
        return found.reshape(grid.shape[:2])


@st.composite
def covers(draw: st.DrawFn, side: int) -> IntArray:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows, cols = draw(st.integers(3, 9)) * side + draw(st.integers(0, 5)), draw(st.integers(3, 9)) * side
    level = draw(st.sampled_from((0, 3, 128, 253, 255)))
    noise = rng.normal(level, draw(st.sampled_from((0, 1, 8, 80))), (rows, cols))
    return np.clip(noise.round(), 0, 255).astype(np.int32)


def check(cover: IntArray, bits: np.ndarray, stays, segment, pair: dct.Pair) -> None:
    ours = scanned(cover, bits, stays, pair, 255)
    theirs = literal(cover, bits, segment, pair, 255)
    before = segment(cover)
    for marked, roi in [(each[0], segment(each[0])) for each in (ours, theirs) if each is not None]:
        assert np.array_equal(extracted(marked, segment, pair, len(bits)), bits), "blind, without an error"
        kept = dct.cut((marked == cover)[None].astype(np.int32), pair.side).all(axis=(2, 3, 4))
        assert kept[before].all(), "what was region of interest is untouched"
        assert (roi | ~before).all(), "and is region of interest still"
    if theirs is not None:
        assert ours is not None, "the scan fits whatever the loop fits"
        if np.array_equal(theirs[1], before):
            assert ours[1] == 0
            assert np.array_equal(ours[0], theirs[0]), "where nothing switches they are the same image"


@settings(max_examples=60)
@given(st.data())
def test_with_a_map_that_switches_often(data):
    side = data.draw(st.sampled_from(dct.SIDES))
    cover = data.draw(covers(side))
    brittle = Brittle(side, data.draw(st.sampled_from((0, 3, 10, 30))), data.draw(st.integers(0, 1000)))
    room = int((~brittle.segment(cover)).sum())
    count = data.draw(st.integers(1, max(1, room)))
    bits = np.random.default_rng(count).integers(0, 2, count).astype(np.uint8)
    check(cover, bits, brittle.stays, brittle.segment, dct.dct_pair(side))


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_with_the_papers_network(data):
    side = data.draw(st.sampled_from(dct.SIDES))
    network, cover = packaged(side), data.draw(covers(side))

    def stays(blocks: IntArray) -> BoolArray:
        return ~network.roi_of(blocks[:, 0], *BOUNDS)[:, None]

    def segment(image: IntArray) -> BoolArray:
        return network.roi_map(image[None], *BOUNDS)

    room = int((~segment(cover)).sum())
    bits = np.random.default_rng(room).integers(0, 2, max(1, room * 2 // 3)).astype(np.uint8)
    check(cover, bits, stays, segment, dct.dct_pair(side))
