"""Which blocks the `dct` carrier may use, and why a reader finds the same ones.

A map has two parts. *Free*: what pixels that embedding never touches say; equal before and after by
construction. *Stays*: what the content of a block says about that block alone; equal after embedding because
the embedder tries both bits and skips a block that would not stay (BlessMark, section II-B).

    Blocks    the paper's network: every block is free, the network decides block by block
    Veiled    any segmenter: every second block, as on a chess board, is hidden from it and may be used
    Open      no region of interest at all, the opt-in to mark a whole image
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Protocol

import numpy as np

from blessmark.carrier.dct import SIDES, Places, cut
from blessmark.roi import pixel_mask
from blessmark.segment.block import BlockNet, packaged
from blessmark.types import BoolArray, Frame, IntArray, Lattice, Segmenter, View

#: a hidden block may leave the range of its four neighbours by this many grey levels at least
_LEAST_LEEWAY = 3
_LEEWAY_SHARE = 100


class BlockMap(Protocol):
    """Says which blocks of `side` x `side` pixels lie outside the region of interest."""

    @property
    def id(self) -> str:
        """Name and version; travels in the record."""

    @property
    def side(self) -> int:
        """Side of a block, pixels."""

    def bound(self, frame: Frame) -> BoundMap:
        """The map of one frame."""


class BoundMap(Protocol):
    """A `BlockMap` with everything that no embedding into this frame changes worked out."""

    @property
    def free(self) -> BoolArray:
        """bool [rows // side, cols // side]: blocks that untouched pixels leave free."""

    def stays(self, places: Places, blocks: IntArray) -> BoolArray:
        """bool [n, channels]: whether blocks int32 [n, channels, side, side] at `places` are outside the ROI.

        `places` numbers blocks row by row. A block is outside when all its channels are.
        """


class Blocks:
    """The paper's network as a map; see `segment.block`."""

    def __init__(self, network: BlockNet) -> None:
        self._network = network
        self.id, self.side = network.id, network.side

    def bound(self, frame: Frame) -> BoundMap:
        """Every block is free but those in forced rectangles."""
        return _BoundBlocks(self._network, frame)


class _BoundBlocks:
    def __init__(self, network: BlockNet, frame: Frame) -> None:
        self._network, self._frame = network, frame
        self.free = _unforced(frame, network.side)

    def stays(self, places: Places, blocks: IntArray) -> BoolArray:  # noqa: ARG002
        inside = _within(blocks, self._frame.bounds)
        middle = blocks.shape[1] // 2
        asked = np.flatnonzero(inside[:, middle])
        roi = self._network.roi_of(blocks[asked, middle], self._frame.lo, self._frame.hi)
        inside[asked[roi], middle] = False
        return inside


class Open:
    """Nothing is region of interest."""

    def __init__(self, side: int) -> None:
        self.side = side
        self.id = f"whole-{side}/1"

    def bound(self, frame: Frame) -> BoundMap:
        """Every block is free but those in forced rectangles."""
        return _BoundOpen(frame, self.side)


class _BoundOpen:
    def __init__(self, frame: Frame, side: int) -> None:
        self._bounds = frame.bounds
        self.free = _unforced(frame, side)

    def stays(self, places: Places, blocks: IntArray) -> BoolArray:  # noqa: ARG002
        return _within(blocks, self._bounds)


class Veiled:
    """Any segmenter, shown every second block only.

    The hidden blocks are filled from the edges of their four neighbours, so whatever is embedded into them
    the segmenter sees the same. What it cannot see, something small in the middle of a hidden block, is
    caught by looking at the block itself: it must not leave the range of its neighbours.
    """

    def __init__(self, segmenter: Segmenter, side: int) -> None:
        self._segmenter, self.side = segmenter, side
        self._last: _BoundVeiled | None = None
        name, _, version = segmenter.id.partition("/")
        self.id = f"veiled-{name}-{side}/{version}"

    def bound(self, frame: Frame) -> BoundMap:
        """Free are hidden blocks that lie outside the region of interest as a whole.

        Embedding asks again and again, and changes hidden blocks only: the last map is kept, and is that of
        every frame that looks the same veiled.
        """
        hidden = _hidden(frame, self.side)
        samples = _veiled(frame.samples, self.side, hidden)
        last = self._last
        if last is None or not last.is_of(frame, samples):
            last = self._last = _BoundVeiled(self._segmenter, frame, self.side, hidden, samples)
        return last


class _BoundVeiled:
    def __init__(
        self, segmenter: Segmenter, frame: Frame, side: int, hidden: BoolArray, samples: IntArray
    ) -> None:
        view = View(samples, Lattice.QUARTER, frame.lo, frame.hi, frame.padding)
        outside = ~pixel_mask(segmenter.roi_blocks(view), frame.rows, frame.cols)
        whole = cut(outside[None].astype(np.int32), side).all(axis=(2, 3, 4))
        self.free = hidden & whole & _unforced(frame, side)
        self._bounds = frame.bounds
        self._leeway = max(_LEAST_LEEWAY, _range_in_use(frame, samples) // _LEEWAY_SHARE)
        self._low, self._high = _neighbour_range(samples, side)
        self._facts, self._samples = _facts(frame), samples

    def is_of(self, frame: Frame, samples: IntArray) -> bool:
        """Whether this is the map of `frame`, which looks like `samples` when veiled."""
        return self._facts == _facts(frame) and np.array_equal(self._samples, samples)

    def stays(self, places: Places, blocks: IntArray) -> BoolArray:
        row, col = np.divmod(places, self.free.shape[1])
        low = self._low[row, col] - self._leeway
        high = self._high[row, col] + self._leeway
        fits = (blocks.min(axis=(2, 3)) >= low) & (blocks.max(axis=(2, 3)) <= high)
        return np.asarray(fits & _within(blocks, self._bounds))


def _facts(frame: Frame) -> tuple[object, ...]:
    """What of a frame a veiled map depends on beside its samples."""
    return frame.lo, frame.hi, frame.padding, frame.forced_roi


def maps_for(segmenters: Sequence[Segmenter], sides: Sequence[int] = SIDES) -> list[BlockMap]:
    """The map by which the `dct` carrier follows each segmenter, for each side; each map once.

    `vessels` is drawn by the paper's own network, which sees single blocks; any other segmenter is veiled.
    """
    maps = {each.id: each for segmenter in segmenters for each in (_map_for(segmenter, s) for s in sides)}
    return list(maps.values())


def _map_for(segmenter: Segmenter, side: int) -> BlockMap:
    name = segmenter.id.partition("/")[0]
    if name == "whole":
        return Open(side)
    if name == "vessels" or name.startswith("blessmark-block"):
        return _of_network(side)
    return Veiled(segmenter, side)


@cache
def _of_network(side: int) -> Blocks:
    return Blocks(packaged(side))


def _within(blocks: IntArray, bounds: tuple[int, int]) -> BoolArray:
    """bool [n, channels]: no sample is padding or beyond the range."""
    return np.asarray((blocks.min(axis=(2, 3)) >= bounds[0]) & (blocks.max(axis=(2, 3)) <= bounds[1]))


def _unforced(frame: Frame, side: int) -> BoolArray:
    """bool [rows // side, cols // side]: blocks that no forced rectangle touches."""
    free = np.ones((frame.rows // side, frame.cols // side), np.bool_)
    for region in frame.forced_roi:
        if region.top < region.bottom and region.left < region.right:
            rows = slice(max(0, region.top) // side, max(0, region.bottom - 1) // side + 1)
            free[rows, max(0, region.left) // side : max(0, region.right - 1) // side + 1] = False
    return free


def _hidden(frame: Frame, side: int) -> BoolArray:
    """The dark squares of the board, without the outermost blocks: all four neighbours exist."""
    rows, cols = frame.rows // side, frame.cols // side
    row, col = np.ogrid[:rows, :cols]
    inner = (row > 0) & (row < rows - 1) & (col > 0) & (col < cols - 1)
    return np.asarray(inner & ((row + col) % 2 == 1))


def _veiled(samples: IntArray, side: int, hidden: BoolArray) -> IntArray:
    """The samples with every hidden one replaced by the mean of the four visible edges around it."""
    veiled = samples.copy()
    blocks = cut(veiled, side)
    row, col = np.nonzero(hidden)
    west, east = blocks[row, col - 1, :, :, -1], blocks[row, col + 1, :, :, 0]
    north, south = blocks[row - 1, col, :, -1, :], blocks[row + 1, col, :, 0, :]
    blocks[row, col] = ((west + east)[..., None] + (north + south)[..., None, :] + 2) >> 2
    return veiled


def _range_in_use(frame: Frame, samples: IntArray) -> int:
    """Greatest less least sample, padding apart."""
    low, high = frame.bounds
    used = samples[(samples >= low) & (samples <= high)]
    return int(used.max()) - int(used.min()) if used.size else 0


def _neighbour_range(samples: IntArray, side: int) -> tuple[IntArray, IntArray]:
    """Least and greatest sample of the four neighbours of each block, int32 [rows, cols, channels]."""
    blocks = cut(samples, side)
    found = []
    for reduce, fill in ((np.minimum, np.iinfo(np.int32).max), (np.maximum, np.iinfo(np.int32).min)):
        own = reduce.reduce(blocks, axis=(3, 4))
        around = np.pad(own, ((1, 1), (1, 1), (0, 0)), constant_values=fill)
        pairs = (around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:])
        found.append(reduce.reduce(np.stack(pairs)))
    return found[0], found[1]
