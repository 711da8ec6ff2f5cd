"""`vessels/1`: blood vessels in fundus photographs and angiograms, by an integer network.

    view -> cells of grey or green -> flat field -> network -> logits -> block map

A cell is a square of 2k x 2k pixels; k is taken from the size of the image, so that a fundus camera of
500 pixels and one of 4 000 show the network vessels of the same width. All of it is integer arithmetic on
the invariant view, whose lattice pixels are themselves means of untouched ones.

The flat field divides each cell by the mean of its surroundings. Vessels absorb a share of the light, so
they look alike afterwards whatever the exposure, the number of bits or the vignetting, and no statistic of
the whole image is needed: the reach of a pixel stays finite.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from blessmark.profile import V1
from blessmark.segment.integer import Images, NumpyRuntime, Runtime, RuntimeOf, load
from blessmark.types import BoolArray, IntArray, View

_BLOCK = V1.block_px
#: k is the smallest number at which the longer side of the image fits this many pixels of k x k
WORKING_PX = 1752
MAX_SCALE = 8
#: half the side of the square whose mean a cell is divided by, cells
_FIELD_RADIUS = 32
#: cells below this share of the range are surround, not patient, and do not enter that mean
_DARK_SHIFT = 4
#: what a cell as bright as its surroundings becomes
_LEVEL = 128

Wide = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Vessels:
    """Vessels as region of interest; see `types.Segmenter`."""

    runtime: Runtime

    @property
    def id(self) -> str:
        return self.runtime.network.id

    @property
    def reach_px(self) -> int:
        """Bound for the largest scale; `reach_at` tells that of an image."""
        return self._reach(MAX_SCALE)

    def reach_at(self, rows: int, cols: int) -> int:
        """How far a pixel of an image of that size can influence the map, pixels."""
        return self._reach(scale_of(rows, cols))

    def roi_blocks(self, view: View) -> BoolArray:
        """bool [rows // 8, cols // 8]: True where a block overlaps a vessel."""
        return self.roi_blocks_of([view])[0]

    def roi_blocks_of(self, views: Sequence[View]) -> list[BoolArray]:
        """One map a view; views of one size go through the network together."""
        inputs = [network_input(view, scale_of(*view.samples.shape[1:])) for view in views]
        maps: list[BoolArray | None] = [None] * len(views)
        for shape in {image.shape for image in inputs}:
            same = [i for i, image in enumerate(inputs) if image.shape == shape]
            logits = self.runtime.logits(np.stack([inputs[i] for i in same]))
            for i, result in zip(same, logits, strict=True):
                maps[i] = _blocks(result, *views[i].samples.shape[1:])
        return [each for each in maps if each is not None]

    def _reach(self, scale: int) -> int:
        cells = self.runtime.network.reach + _FIELD_RADIUS + 1
        return cells * 2 * scale + _BLOCK + 1


def packaged(on: RuntimeOf = NumpyRuntime) -> Vessels:
    """The segmenter with the packaged weights on a runtime, the reference unless told otherwise."""
    return Vessels(on(load("vessels")))


def scale_of(rows: int, cols: int) -> int:
    """k of an image of that size; a cell is 2k x 2k pixels and a logit covers k x k."""
    return min(MAX_SCALE, max(1, -(-max(rows, cols) // WORKING_PX)))


def network_input(view: View, scale: int) -> Images:
    """uint8 [cell rows, cell cols, 1]: the flat-fielded cells, padded to what the network can halve twice."""
    full_scale = (view.hi - view.lo + 1) * 4 * scale * scale
    cells = flat_field(grey_cells(view, 2 * scale), max(1, full_scale >> _DARK_SHIFT))
    rows, cols = cells.shape
    return np.pad(cells, ((0, -rows % 4), (0, -cols % 4)), mode="edge")[..., None]


def grey_cells(view: View, side: int) -> Wide:
    """int64 [ceil(rows / side), ceil(cols / side)]: samples above `lo`, summed over each cell.

    Of a colour image only the middle channel is looked at: blood absorbs green, which luma dilutes.
    """
    middle = view.samples[view.samples.shape[0] // 2]
    return _cell_sums(middle, side) - view.lo * side * side


def flat_field(grey: Wide, dark: int) -> npt.NDArray[np.uint8]:
    """Each cell relative to the mean of the lit cells around it, `_LEVEL` where they are equal.

    grey : int64 [rows, cols], not negative
    dark : a cell below this is surround; also the least mean, so that noise in the dark is not amplified
    """
    lit = grey >= dark
    count = _box_sums(lit.astype(np.int64))
    mean = np.maximum(_box_sums(np.where(lit, grey, 0)) // np.maximum(count, 1), dark)
    relative = (_LEVEL * grey + mean // 2) // mean
    return np.asarray(np.minimum(relative, 255), np.uint8)


def _cell_sums(plane: IntArray, side: int) -> Wide:
    """Sums over side x side pixels; the last row and column are repeated to fill partial cells."""
    rows, cols = plane.shape
    padded = np.pad(plane, ((0, -rows % side), (0, -cols % side)), mode="edge")
    down = padded.reshape(-1, side, padded.shape[1]).sum(axis=1, dtype=np.int64)
    return np.asarray(down.reshape(down.shape[0], -1, side).sum(axis=2))


def _box_sums(values: Wide) -> Wide:
    """Sums over the (2 r + 1)-square around each value, as far as it lies inside."""
    rows, cols = values.shape
    table = np.zeros((rows + 1, cols + 1), np.int64)
    np.cumsum(np.cumsum(values, axis=0), axis=1, out=table[1:, 1:])
    top, bottom = _window(rows)
    left, right = _window(cols)
    across = table[:, right] - table[:, left]
    return np.asarray(across[bottom] - across[top])


def _window(length: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    at = np.arange(length)
    return np.maximum(at - _FIELD_RADIUS, 0), np.minimum(at + _FIELD_RADIUS + 1, length)


def _blocks(logits: IntArray, rows: int, cols: int) -> BoolArray:
    scale = scale_of(rows, cols)
    vessel = (logits > 0).repeat(scale, axis=0).repeat(scale, axis=1)
    whole = vessel[: rows // _BLOCK * _BLOCK, : cols // _BLOCK * _BLOCK]
    return np.asarray(whole.reshape(rows // _BLOCK, _BLOCK, cols // _BLOCK, _BLOCK).any(axis=(1, 3)))
