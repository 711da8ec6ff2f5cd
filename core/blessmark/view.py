"""The view of a frame that embedding does not change, and why it does not.

Embedding modifies lattice pixels only. The view replaces every lattice pixel by the mean of its four
direct neighbours, none of which is a lattice pixel, so no lattice pixel's value reaches the view:
view(embed(f)) == view(f), whatever was embedded. A segmenter that sees only the view therefore draws
the same map for the sender and for the receiver.
"""

from __future__ import annotations

import numpy as np

from blessmark.jit import compiled
from blessmark.planes import PlaneArray
from blessmark.types import BoolArray, Frame, Lattice, View


def lattice_mask(rows: int, cols: int, lattice: Lattice) -> BoolArray:
    """bool [rows, cols]: True at the pixels that the carrier may change."""
    row, col = np.ogrid[:rows, :cols]
    if lattice is Lattice.QUARTER:
        return np.asarray((row & col & 1) == 1)
    return np.asarray(((row + col) & 1) == 1)


def invariant_view(frame: Frame, lattice: Lattice) -> View:
    """What a segmenter may look at.

    Every lattice pixel becomes (N + S + W + E + 2) >> 2; on the border of the image, where one of the
    four is missing, it becomes its left neighbour, or its upper one in the first column.
    """
    planes = _view(frame.planes, int(lattice))
    return View.of_planes(planes, lattice, frame.lo, frame.hi, frame.padding)


def shows(frame: Frame, view: View) -> bool:
    """Whether `view`, on its lattice, is that of `frame`: its samples are made again, row by row."""
    return (frame.shape, frame.shift) == (view.shape, view.shift) and bool(
        _shows(frame.planes, view.planes, int(view.lattice))
    )


@compiled
def _view(planes: PlaneArray, lattice: int) -> PlaneArray:
    channels, rows, _ = planes.shape
    view = np.empty_like(planes)
    for channel in range(channels):
        for r in range(rows):
            _row(planes[channel], r, lattice, view[channel, r])
    return view


@compiled
def _shows(planes: PlaneArray, view: PlaneArray, lattice: int) -> bool:
    channels, rows, cols = planes.shape
    line = np.empty(cols, np.int16)
    for channel in range(channels):
        for r in range(rows):
            _row(planes[channel], r, lattice, line)
            differing, seen = np.int16(0), view[channel, r]
            for c in range(cols):
                differing |= np.int16(line[c] ^ seen[c])
            if differing:
                return False
    return True


@compiled
def _row(plane: PlaneArray, r: int, lattice: int, line: PlaneArray) -> None:
    """Row `r` of the view of one plane."""
    rows, cols = plane.shape
    own, first = plane[r], 1 - r % 2 if lattice == 1 else 1
    if r == 0 or r == rows - 1 or (lattice == 0 and r & 1 == 0):
        for c in range(cols):
            line[c] = own[c]
        for c in range(first, cols if lattice == 1 or r & 1 == 1 else 0, 2):
            line[c] = own[c - 1] if c > 0 else plane[r - 1, c]
        return
    line[0] = own[0] if first == 1 else plane[r - 1, 0]
    up, down, east, target, other = plane[r - 1, 1:], plane[r + 1, 1:], own[2:], line[1:], np.int32(1 - first)
    for j in range(max(0, cols - 2)):  # the mean everywhere, and then kept at every second pixel: no strides
        mean = np.int32(np.int32(up[j] + down[j] + own[j] + east[j]) + np.int32(2)) >> np.int32(2)
        target[j] = own[j + 1] if (np.int32(j) ^ other) & np.int32(1) else mean
    if cols > 1:
        line[cols - 1] = own[cols - 2] if (cols - 1 - first) & 1 == 0 else own[cols - 1]
