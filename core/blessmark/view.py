"""The view of a frame that embedding does not change, and why it does not.

Embedding modifies lattice pixels only. The view replaces every lattice pixel by the mean of its four
direct neighbours, none of which is a lattice pixel, so no lattice pixel's value reaches the view:
view(embed(f)) == view(f), whatever was embedded. A segmenter that sees only the view therefore draws
the same map for the sender and for the receiver.
"""

from __future__ import annotations

import numpy as np

from blessmark.jit import compiled
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
    return View(_view(frame.samples, int(lattice)), lattice, frame.lo, frame.hi, frame.padding)


@compiled
def _view(samples: IntArray, lattice: int) -> IntArray:
    channels, rows, cols = samples.shape
    view = samples.copy()
    for channel in range(channels):
        plane = samples[channel]
        for r in range(rows):
            if lattice == 0 and r & 1 == 0:
                continue
            for c in range(1 - r % 2 if lattice == 1 else 1, cols, 2):
                if 0 < r < rows - 1 and 0 < c < cols - 1:
                    around = plane[r - 1, c] + plane[r + 1, c] + plane[r, c - 1] + plane[r, c + 1]
                    view[channel, r, c] = (around + 2) >> 2
                else:
                    view[channel, r, c] = plane[r, c - 1] if c > 0 else plane[r - 1, c]
    return view
