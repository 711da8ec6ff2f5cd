"""A coarse portrait of a frame: enough to tell later in which way it was changed, far too little to see by.

8 x 8 cells, however large the frame is. Of each: how bright it is, and how rough. With range and shape that
is 530 bytes; a node seals them into the header beside the originals (docs/format/portrait.md).
Everything that is told from a portrait is a hint (`cause`).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from blessmark.jit import compiled
from blessmark.planes import PlaneArray, widened
from blessmark.types import Frame, IntArray

#: cells in a row, and in a column
SIDE = 8
#: of a frame with more rows or columns about so many are looked at; more would cost time and tell nothing
_LINES = 256
#: brightness and roughness are kept in parts of a grey level
_PARTS = 16
_HEAD = struct.Struct(">BIIBii")
_VERSION = 1
_CELLS = SIDE * SIDE
_TWO = np.float32(2)
#: as many bends of 18 bits add up exactly in 24
_ROWS = 64

Cells = npt.NDArray[np.float64]
Plane = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Portrait:
    """What a frame looked like.

    Attributes
    ----------
    rows, cols, channels, lo, hi : those of the frame
    mean : float64 [8, 8], mean sample of each cell, all channels together
    rough : float64 [8, 8], mean size of the second differences along rows and columns
    """

    rows: int
    cols: int
    channels: int
    lo: int
    hi: int
    mean: Cells
    rough: Cells

    def to_bytes(self) -> bytes:
        """530 bytes; `from_bytes` is its inverse."""
        head = _HEAD.pack(_VERSION, self.rows, self.cols, self.channels, self.lo, self.hi)
        cells = np.concatenate([self.mean.ravel(), self.rough.ravel()]) * _PARTS
        return head + bytes(np.rint(cells).astype(">i4").tobytes())

    @classmethod
    def from_bytes(cls, content: bytes) -> Portrait | None:
        """What `to_bytes` wrote; None for anything else."""
        if len(content) != LENGTH or content[0] != _VERSION:
            return None
        _, rows, cols, channels, lo, hi = _HEAD.unpack_from(content)
        cells = np.frombuffer(content, ">i4", offset=_HEAD.size).astype(np.float64) / _PARTS
        mean, rough = cells.reshape(2, SIDE, SIDE)
        return cls(rows, cols, channels, lo, hi, mean, rough)


#: bytes of a portrait
LENGTH = _HEAD.size + 2 * 4 * _CELLS


def portrait(frame: Frame) -> Portrait:
    """The portrait of a frame of at least 8 x 8 pixels; smaller ones repeat their edges."""
    across = _Cells.of(frame.rows, max(SIDE, frame.cols))
    down = _Cells.of(frame.cols, max(SIDE, frame.rows))
    if frame.channels == 1 and min(frame.rows, frame.cols) >= SIDE:
        plane = np.ascontiguousarray(frame.planes[0])
        levels, bends = _sums_across(plane, across.step, across.starts, across.stops, across.cuts)
        levels += frame.shift * across.sizes
        bends_down = _bends_down(plane, down.step, down.starts, down.stops, down.cuts)
    else:
        samples = widened(frame.planes, frame.shift)
        levels, bends = _sums_of_lines(samples, across)
        bends_down = _sums_of_lines(samples.transpose(0, 2, 1), down)[1].T
    rough = np.asarray(bends / across.sizes + bends_down / down.sizes.T)
    mean = np.asarray(levels / across.sizes)
    return Portrait(frame.rows, frame.cols, frame.channels, frame.lo, frame.hi, mean, rough)


class _Cells(NamedTuple):
    """Where the eight cells of a side begin and end, counted in the lines that are looked at.

    Attributes
    ----------
    step : every such line is looked at
    starts, stops : int64 [8]; of less than eight lines one belongs to several cells
    cuts : int64 [9], where the cells begin and end along a line
    sizes : int64 [8, 8], how many samples of each cell are looked at
    """

    step: int
    starts: npt.NDArray[np.int64]
    stops: npt.NDArray[np.int64]
    cuts: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]

    @staticmethod
    @lru_cache(maxsize=16)
    def of(lines: int, length: int) -> _Cells:
        """Those of so many lines of so many samples."""
        step = max(1, lines // _LINES)
        last = -(-lines // step) - 1
        tops = -(-(np.arange(SIDE + 1) * lines // SIDE) // step)
        starts = np.minimum(tops[:-1], last)
        stops = np.maximum(np.minimum(tops[1:], last + 1), starts + 1)
        cuts = np.arange(SIDE + 1) * length // SIDE
        return _Cells(step, starts, stops, cuts, np.outer(stops - starts, np.diff(cuts)))


@compiled
def _sums_across(
    plane: PlaneArray,
    step: int,
    starts: npt.NDArray[np.int64],
    stops: npt.NDArray[np.int64],
    lefts: npt.NDArray[np.int64],
) -> tuple[Cells, Cells]:
    """Sums of every `step`-th row, and of |left - 2 x + right| along it, 0 at its ends, over 8 x 8 cells.

    Columns add up apart, which vector units can do, and in 32 bits: a cell has 64 rows at most.
    """
    levels, bends = np.zeros((SIDE, SIDE)), np.zeros((SIDE, SIDE))
    level, bend = np.zeros(plane.shape[1], np.int32), np.zeros(plane.shape[1], np.int32)
    for row in range(SIDE):
        for r in range(starts[row], stops[row]):
            line = plane[r * step]
            for c in range(len(line)):
                level[c] = np.int32(level[c] + np.int32(line[c]))
            before, after, inner = line[: len(line) - 2], line[2:], bend[1:]
            for c in range(len(line) - 2):
                inner[c] = np.int32(inner[c] + _turn(before[c], line[c + 1], after[c]))
        for col in range(SIDE):
            levels[row, col] = _folded(level, lefts[col], lefts[col + 1], 1)
            bends[row, col] = _folded(bend, lefts[col], lefts[col + 1], 1)
    return levels, bends


@compiled
def _bends_down(
    plane: PlaneArray,
    step: int,
    starts: npt.NDArray[np.int64],
    stops: npt.NDArray[np.int64],
    tops: npt.NDArray[np.int64],
) -> Cells:
    """The same bends along every `step`-th column, over the same cells."""
    bends, bend = np.zeros((SIDE, SIDE)), np.zeros(plane.shape[1], np.int32)
    for row in range(SIDE):
        first, last = max(tops[row], 1), min(tops[row + 1], plane.shape[0] - 1)
        for some in range(first, last, _ROWS):
            for r in range(some, min(some + _ROWS, last)):
                above, here, below = plane[r - 1], plane[r], plane[r + 1]
                for c in range(len(here)):
                    bend[c] = np.int32(bend[c] + _turn(above[c], here[c], below[c]))
            for col in range(SIDE):
                bends[row, col] += _folded(bend, starts[col] * step, stops[col] * step, step)
            bend[:] = 0  # the columns between too
    return bends


@compiled
def _turn(before: np.int16, here: np.int16, after: np.int16) -> np.int32:
    """How far a sample is from a straight line, twice; in 18 bits."""
    ends = np.int32(np.int32(before) + np.int32(after))
    return np.int32(abs(np.int32(ends - np.int32(np.int32(2) * np.int32(here)))))


@compiled
def _folded(columns: IntArray, start: int, stop: int, step: int) -> float:
    """The sum of every `step`-th column, which are 0 from then on."""
    total = 0.0
    for c in range(start, min(stop, len(columns)), step):
        total += columns[c]
        columns[c] = 0
    return total


def _sums_of_lines(samples: IntArray, cells: _Cells) -> tuple[Cells, Cells]:
    """What `_sums_across` tells, of colour or of a frame with less than eight samples in a line."""
    some = samples[:, :: cells.step]
    plane = some[0] if len(some) == 1 else some.mean(axis=0)
    if plane.shape[1] < SIDE:
        plane = np.pad(plane, ((0, 0), (0, SIDE - plane.shape[1])), mode="edge")
    lines = np.ascontiguousarray(plane, np.float32)
    return _cell_sums(lines, cells.starts, cells.stops, cells.cuts)


@compiled
def _cell_sums(
    lines: Plane, starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64], lefts: npt.NDArray[np.int64]
) -> tuple[Cells, Cells]:
    """Sums of the lines, and of |left - 2 x + right| along each, 0 at its ends, over 8 x 8 cells.

    The order does not matter: whole numbers, and thirds of colours of 8 bits, add up without rounding.
    """
    levels, bends = np.zeros((SIDE, SIDE)), np.zeros((SIDE, SIDE))
    last = lines.shape[1] - 1
    for row in range(SIDE):
        for r in range(starts[row], stops[row]):
            for col in range(SIDE):
                for c in range(lefts[col], lefts[col + 1]):
                    levels[row, col] += lines[r, c]
                    if 0 < c < last:
                        bend = lines[r, c - 1] - _TWO * lines[r, c] + lines[r, c + 1]
                        bends[row, col] += abs(bend)
    return levels, bends
