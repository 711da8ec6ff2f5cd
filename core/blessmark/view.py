"""The view of a frame that embedding does not change, and why it does not.

Embedding modifies lattice pixels only. The view replaces every lattice pixel by the mean of its four
direct neighbours, none of which is a lattice pixel, so no lattice pixel's value reaches the view:
view(embed(f)) == view(f), whatever was embedded. A segmenter that sees only the view therefore draws
the same map for the sender and for the receiver.
"""

from __future__ import annotations

import numpy as np

from blessmark.types import BoolArray, Frame, IntArray, Lattice, View


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
    samples = np.stack([_plane_view(plane, lattice) for plane in frame.samples])
    return View(samples, lattice, frame.lo, frame.hi, frame.padding)


def _plane_view(plane: IntArray, lattice: Lattice) -> IntArray:
    view = plane.copy()
    offsets = ((1, 1),) if lattice is Lattice.QUARTER else ((0, 1), (1, 0))
    for row, col in offsets:
        _fill_interior(view, plane, row, col)
        _fill_border(view, plane, row, col)
    return view


def _fill_interior(view: IntArray, plane: IntArray, row: int, col: int) -> None:
    """Average the four direct neighbours of the pixels (row::2, col::2) that have them all."""
    rows, cols = plane.shape
    r, c = (row or 2), (col or 2)
    centre = view[r : rows - 1 : 2, c : cols - 1 : 2]
    if centre.size == 0:
        return
    height, width = centre.shape
    r_end, c_end = r + 2 * height - 1, c + 2 * width - 1
    north, south = plane[r - 1 : r_end - 1 : 2, c:c_end:2], plane[r + 1 : r_end + 1 : 2, c:c_end:2]
    west, east = plane[r:r_end:2, c - 1 : c_end - 1 : 2], plane[r:r_end:2, c + 1 : c_end + 1 : 2]
    np.right_shift(north + south + west + east + 2, 2, out=centre)


def _fill_border(view: IntArray, plane: IntArray, row: int, col: int) -> None:
    """Copy the left (or upper) neighbour into lattice pixels on the border of the image."""
    rows, cols = plane.shape
    for r in {0, rows - 1}:
        if r % 2 == row:
            for c in range(col, cols, 2):
                view[r, c] = plane[r, c - 1] if c > 0 else plane[r - 1, c]
    for c in {0, cols - 1}:
        if c % 2 == col:
            for r in range(row, rows, 2):
                view[r, c] = plane[r, c - 1] if c > 0 else plane[r - 1, c]
