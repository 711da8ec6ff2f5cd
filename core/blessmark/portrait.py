"""A coarse portrait of a frame: enough to tell later in which way it was changed, far too little to see by.

8 x 8 cells, however large the frame is. Of each: how bright it is, and how rough. With range and shape that
is 530 bytes; a node seals them into the header beside the originals (docs/format/portrait.md).
Everything that is told from a portrait is a hint (`cause`).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

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

Cells = npt.NDArray[np.float64]
#: int32 of one channel, float32 of several
Plane = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]


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
    plane = _grey(frame.samples)
    rows, cols = _lines(plane), _lines(plane.T).T
    down, across = _spans(len(rows), frame.rows), _spans(cols.shape[1], frame.cols)
    two, zero = plane.dtype.type(2), np.int64(0) if plane.dtype.kind == "i" else np.float64(0)
    sums, along = _cells_along_rows(rows, down, _edges(rows.shape[1]), zero, two)
    down_cols = _cells_along_columns(cols, _edges(len(cols)), across, zero, two)
    return Portrait(
        frame.rows,
        frame.cols,
        frame.channels,
        frame.lo,
        frame.hi,
        sums / _areas(len(rows), frame.rows, rows.shape[1]),
        along / _areas(len(rows), frame.rows, rows.shape[1])
        + down_cols / _areas(cols.shape[1], frame.cols, len(cols)).T,
    )


def _grey(samples: IntArray) -> Plane:
    """The one channel as it is, or the mean of all as float32."""
    return samples[0] if len(samples) == 1 else np.asarray(samples.mean(axis=0), np.float32)


def _lines(plane: Plane) -> Plane:
    """[lines, length]: the rows of a plane or some of them, at least eight long."""
    some = plane[:: _step(len(plane))]
    missing = SIDE - plane.shape[1]
    return np.pad(some, ((0, 0), (0, missing)), mode="edge") if missing > 0 else some


def _step(rows: int) -> int:
    return max(1, rows // _LINES)


def _tops(rows: int) -> Indices:
    return np.asarray(-(-(np.arange(SIDE + 1) * rows // SIDE) // _step(rows)))


def _spans(lines: int, rows: int) -> Indices:
    """[8, 2]: first of the lines in each cell, and the one behind its last, where so many stand for `rows`.

    A frame of less than eight rows lends a row to several cells.
    """
    starts = np.minimum(_tops(rows)[:-1], lines - 1)
    return np.stack([starts, np.maximum(starts + 1, np.append(starts[1:], lines))], axis=1)


def _edges(length: int) -> Indices:
    """[8, 2]: the same of the samples along a line."""
    edges = np.arange(SIDE + 1) * length // SIDE
    return np.stack([edges[:-1], edges[1:]], axis=1)


def _areas(lines: int, rows: int, length: int) -> Cells:
    """float64 [8, 8]: how many samples a cell stands for, cells of lines by cells along them."""
    tops = _tops(rows)
    starts = np.minimum(tops[:-1], lines - 1)
    heights = np.maximum(1, np.minimum(tops[1:], lines) - starts)
    return np.asarray(np.outer(heights, np.diff(np.arange(SIDE + 1) * length // SIDE)), np.float64)


@compiled
def _cells_along_rows(
    lines: Plane, down: Indices, across: Indices, zero: Any, two: Any
) -> tuple[Cells, Cells]:
    """Sums over cells, and of |left - 2 x + right|, 0 at both ends of a row.

    `zero` says what is added up: int64 of whole numbers, which vectorises, else float64.
    """
    sums, bends = np.zeros((SIDE, SIDE)), np.zeros((SIDE, SIDE))
    for i in range(SIDE):
        for j in range(SIDE):
            begin, end = across[j]
            first, last = max(1, begin), min(lines.shape[1] - 1, end)
            total, bent = zero, zero
            for r in range(down[i, 0], down[i, 1]):
                for c in range(begin, end):
                    total += lines[r, c]
                for c in range(first, last):
                    bent += abs(lines[r, c - 1] - two * lines[r, c] + lines[r, c + 1])
            sums[i, j], bends[i, j] = total, bent
    return sums, bends


@compiled
def _cells_along_columns(lines: Plane, down: Indices, across: Indices, zero: Any, two: Any) -> Cells:
    """The same sums of |above - 2 x + below|, row by row as the memory lies."""
    bends = np.zeros((SIDE, SIDE))
    for i in range(SIDE):
        first, last = max(1, down[i, 0]), min(lines.shape[0] - 1, down[i, 1])
        for j in range(SIDE):
            bent = zero
            for r in range(first, last):
                for c in range(across[j, 0], across[j, 1]):
                    bent += abs(lines[r - 1, c] - two * lines[r, c] + lines[r + 1, c])
            bends[i, j] = bent
    return bends
