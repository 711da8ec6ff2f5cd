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
    channels, rows, cols = planes.shape
    view, kept = np.empty_like(planes), _alternating(cols)
    for channel in range(channels):
        flat, target = planes[channel].reshape(-1), view[channel].reshape(-1)
        for r in range(rows):
            _row(flat, rows, cols, r, lattice, kept, target, r * cols)
    return view


@compiled
def _shows(planes: PlaneArray, view: PlaneArray, lattice: int) -> bool:
    channels, rows, cols = planes.shape
    line, kept = np.empty(cols, np.int16), _alternating(cols)
    for channel in range(channels):
        flat, seen = planes[channel].reshape(-1), view[channel].reshape(-1)
        for r in range(rows):
            _row(flat, rows, cols, r, lattice, kept, line, 0)
            differing, start = np.int16(0), np.uint64(r * cols)
            for c in range(np.uint64(cols)):
                differing = np.int16(differing | np.int16(line[c] ^ seen[start + c]))
            if differing:
                return False
    return True


@compiled
def _alternating(cols: int) -> PlaneArray:
    """0 and -1 in turn, as many as a row and two more have."""
    kept = np.zeros(cols + 2, np.int16)
    kept[1::2] = -1
    return kept


@compiled
def _row(
    flat: PlaneArray,
    rows: int,
    cols: int,
    r: int,
    lattice: int,
    kept: PlaneArray,
    target: PlaneArray,
    to: int,
) -> None:
    """Row `r` of the view of one plane, into `target` from `to` on."""
    start, first = r * cols, 1 - r % 2 if lattice == 1 else 1
    if r == 0 or r == rows - 1 or (lattice == 0 and r & 1 == 0):
        for c in range(np.uint64(cols)):
            target[np.uint64(to) + c] = flat[np.uint64(start) + c]
        for c in range(first, cols if lattice == 1 or r & 1 == 1 else 0, 2):
            target[to + c] = flat[start + c - 1] if c > 0 else flat[start - cols]
        return
    _means(flat, cols, start, first, kept, target, to)
    target[to] = flat[start] if first == 1 else flat[start - cols]
    if cols > 1:
        last = start + cols - 1
        target[to + cols - 1] = flat[last - 1] if (cols - 1 - first) & 1 == 0 else flat[last]


@compiled
def _means(
    flat: PlaneArray, cols: int, start: int, first: int, kept: PlaneArray, target: PlaneArray, to: int
) -> None:
    """The row that begins at `start`: means of the neighbours of every second pixel, the others as they are.

    The four are divided by four before they are added up, and their rests apart: so 16 bits suffice. Means
    are made everywhere, for then there are no steps of two; a place without a sign is never one from the
    end, and no slice has to be counted. So the compiler makes a loop of vectors out of it.
    """
    wide, begin, out, odd = np.uint64(cols), np.uint64(start), np.uint64(to), np.uint64(first)
    for j in range(np.uint64(1), np.uint64(max(cols, 2) - 1)):
        k = begin + j
        n, s, w, e = flat[k - wide], flat[k + wide], flat[k - np.uint64(1)], flat[k + np.uint64(1)]
        fourths = np.int16(np.int16(_fourth(n) + _fourth(s)) + np.int16(_fourth(w) + _fourth(e)))
        rests = np.int16(np.int16(_rest(n) + _rest(s)) + np.int16(_rest(w) + _rest(e)))
        mean = np.int16(fourths + _fourth(np.int16(rests + np.int16(2))))
        target[out + j] = np.int16(mean ^ np.int16(np.int16(mean ^ flat[k]) & kept[j + odd]))


@compiled
def _fourth(number: np.int16) -> np.int16:
    return np.int16(number >> np.int16(2))


@compiled
def _rest(number: np.int16) -> np.int16:
    return np.int16(number & np.int16(3))
