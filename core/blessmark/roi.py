"""The final map: which blocks the carrier may use, whatever the segmenter."""

from __future__ import annotations

import numpy as np

from blessmark.errors import SegmenterError
from blessmark.jit import compiled
from blessmark.planes import PlaneArray
from blessmark.profile import V1
from blessmark.types import BoolArray, Frame, Lattice, Rectangle, Segmenter, View
from blessmark.view import invariant_view, shows

_BLOCK = V1.block_px


def block_map(segmenter: Segmenter, frame: Frame, lattice: Lattice, view: View | None = None) -> BoolArray:
    """bool [rows // 8, cols // 8]: True where a block is region of interest; embedding does not change it.

    To what the segmenter finds come the blocks that hold padding (judged by pixels that the carrier never
    changes) and those that a forced rectangle touches. `view` is that of `frame`, where the caller has it.

    Raises
    ------
    SegmenterError
        if the segmenter answers with something else than such a map
    """
    shape = frame.rows // _BLOCK, frame.cols // _BLOCK
    found = segmenter.roi_blocks(view or invariant_view(frame, lattice))
    if found.shape != shape or found.dtype != np.bool_:
        raise SegmenterError(
            f"segmenter {segmenter.id} answered {found.dtype} {list(found.shape)} where bool {list(shape)} "
            "was expected; the installation is broken"
        )
    return np.asarray(found | fixed_blocks(frame, lattice))


class Maps:
    """The maps of one frame, each drawn when it is first asked for, and kept for who asks next."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._views: dict[Lattice, View] = {}
        self._drawn: dict[tuple[str, Lattice], BoolArray] = {}

    def of(self, segmenter: Segmenter, lattice: Lattice) -> BoolArray:
        """`block_map` of the frame; not to be written to."""
        at = segmenter.id, lattice
        if at not in self._drawn:
            self._drawn[at] = block_map(segmenter, self._frame, lattice, self._view(lattice))
        return self._drawn[at]

    def below(self, frame: Frame) -> Maps:
        """Those of the frame with something taken off; where it shows the same, nothing is drawn again."""
        maps = Maps(frame)
        maps._views = {lattice: view for lattice, view in self._views.items() if shows(frame, view)}
        maps._drawn = {at: drawn for at, drawn in self._drawn.items() if at[1] in maps._views}
        return maps

    def _view(self, lattice: Lattice) -> View:
        if lattice not in self._views:
            self._views[lattice] = invariant_view(self._frame, lattice)
        return self._views[lattice]


def fixed_blocks(frame: Frame, lattice: Lattice) -> BoolArray:
    """bool [rows // 8, cols // 8]: the blocks that are ROI whatever a segmenter finds."""
    fixed = _padded_blocks(frame, lattice)
    for region in frame.forced_roi:
        fixed[_touched(region)] = True
    return fixed


def roi_share(roi: BoolArray) -> float:
    """Share of a map's blocks that are region of interest, 0..1; 1 for a map without blocks."""
    return int(np.count_nonzero(roi)) / roi.size if roi.size else 1.0


def pixel_mask(roi: BoolArray, rows: int, cols: int) -> BoolArray:
    """bool [rows, cols]: True where a pixel belongs to an ROI block or to a partial block at the edge."""
    mask = np.ones((rows, cols), np.bool_)
    height, width = roi.shape
    mask[: height * _BLOCK, : width * _BLOCK] = roi.repeat(_BLOCK, axis=0).repeat(_BLOCK, axis=1)
    return mask


def _padded_blocks(frame: Frame, lattice: Lattice) -> BoolArray:
    padding = frame.plane_padding
    if padding is None:
        return np.zeros((frame.rows // _BLOCK, frame.cols // _BLOCK), np.bool_)
    return np.asarray(_holding(frame.planes, *padding, int(lattice)))


@compiled
def _holding(planes: PlaneArray, low: int, high: int, lattice: int) -> BoolArray:
    """The blocks that hold a sample of `low..high` at a pixel that the carrier never changes.

    Even and odd rows of a block are brought together first, column by column, which vector units can do.
    """
    channels, rows, cols = planes.shape
    blocks = np.zeros((rows // _BLOCK, cols // _BLOCK), np.bool_)
    columns = np.zeros((2, cols), np.bool_)
    for row in range(blocks.shape[0]):
        columns[:] = False
        for channel in range(channels):
            for r in range(row * _BLOCK, (row + 1) * _BLOCK):
                line, found = planes[channel, r], columns[r & 1]
                for c in range(cols):
                    found[c] |= (line[c] >= low) & (line[c] <= high)
        for c in range(blocks.shape[1] * _BLOCK):
            even = columns[0, c] and (lattice == 0 or c & 1 == 0)
            odd = columns[1, c] and c & 1 == lattice
            blocks[row, c // _BLOCK] |= even or odd
    return blocks


def _touched(region: Rectangle) -> tuple[slice, slice]:
    """The blocks that share a pixel with a region, which may reach beyond the image."""
    return _blocks(region.top, region.bottom), _blocks(region.left, region.right)


def _blocks(start: int, end: int) -> slice:
    """The blocks that hold a pixel of `start..end-1`."""
    start = max(0, start)
    return slice(start // _BLOCK, (end - 1) // _BLOCK + 1) if start < end else slice(0)
