"""A coarse portrait of a frame: enough to tell later in which way it was changed, far too little to see by.

8 x 8 cells, however large the frame is. Of each: how bright it is, and how rough. With range and shape that
is 530 bytes; a node seals them into the header beside the originals (docs/format/portrait.md).
Everything that is told from a portrait is a hint (`cause`).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from blessmark.jit import compiled
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
    across, down = _lines(frame.samples), _lines(frame.samples.transpose(0, 2, 1))
    mean, rough_across = _cell_means(across, frame.rows)
    _, rough_down = _cell_means(down, frame.cols)
    return Portrait(
        frame.rows, frame.cols, frame.channels, frame.lo, frame.hi, mean, rough_across + rough_down.T
    )


def _lines(samples: IntArray) -> Plane:
    """float32 [lines, length]: the mean of the channels, of the rows or some of them."""
    some = samples[:, :: _step(samples.shape[1])]
    plane = some[0] if len(some) == 1 else some.mean(axis=0)
    if plane.shape[1] < SIDE:
        plane = np.pad(plane, ((0, 0), (0, SIDE - plane.shape[1])), mode="edge")
    return np.ascontiguousarray(plane, np.float32)


def _step(rows: int) -> int:
    return max(1, rows // _LINES)


def _cell_means(lines: Plane, rows: int) -> tuple[Cells, Cells]:
    """float64 [8, 8] each: means of `lines`, and of their bends, over the cells of a frame of so many rows.

    `lines` are some of its rows. A frame of less than eight rows lends a row to several cells.
    """
    tops = -(-(np.arange(SIDE + 1) * rows // SIDE) // _step(rows))
    lefts = np.arange(SIDE + 1) * lines.shape[1] // SIDE
    starts = np.minimum(tops[:-1], len(lines) - 1)
    stops = np.maximum(np.minimum(tops[1:], len(lines)), starts + 1)
    levels, bends = _cell_sums(lines, starts, stops, lefts)
    sizes = np.outer(stops - starts, np.diff(lefts))
    return np.asarray(levels / sizes), np.asarray(bends / sizes)


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
