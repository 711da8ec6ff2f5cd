"""`blessmark-block-6`, `-8`, `-10`: the paper's region-of-interest network, which sees one block at a time.

Eleven convolutions on an isolated m x m block (BlessMark, section II-A and Fig. 2): ten of 3 x 3 with ReLU,
one of 1 x 1. A block is region of interest as soon as one of its pixels is. The paper's softmax over two
classes with a threshold of 0.5 is the sign of the difference of its two outputs, which is the one logit here.

Because the map of a block depends on that block alone, the `dct` carrier may ask for single blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from blessmark.segment.integer import NumpyRuntime, Runtime, load
from blessmark.types import BoolArray, IntArray, View

#: sides of a block for which the package holds weights, pixels
BLOCK_SIDES = (6, 8, 10)


@dataclass(frozen=True, slots=True)
class BlockNet:
    """Vessels as region of interest, block by block; a `types.Segmenter` where `side` is 8."""

    runtime: Runtime
    side: int

    @property
    def id(self) -> str:
        return self.runtime.network.id

    @property
    def reach_px(self) -> int:
        return self.side - 1

    def roi_blocks(self, view: View) -> BoolArray:
        """bool [rows // side, cols // side]: True where a block holds any ROI pixel."""
        return self.roi_map(view.samples, view.lo, view.hi)

    def roi_map(self, samples: IntArray, lo: int, hi: int) -> BoolArray:
        """The same of int32 [channels, rows, cols] in lo..hi; of colour only the middle channel is seen."""
        rows, cols = (length // self.side for length in samples.shape[1:])
        middle = samples[samples.shape[0] // 2, : rows * self.side, : cols * self.side]
        blocks = middle.reshape(rows, self.side, cols, self.side).swapaxes(1, 2)
        return self.roi_of(blocks.reshape(-1, self.side, self.side), lo, hi).reshape(rows, cols)

    def roi_of(self, blocks: IntArray, lo: int, hi: int) -> BoolArray:
        """bool [n] of int32 [n, side, side] in lo..hi."""
        if not len(blocks):
            return np.zeros(0, np.bool_)
        logits = self.runtime.logits(in_eight_bits(blocks, lo, hi)[..., None])
        return np.asarray((logits > 0).any(axis=(1, 2)))


def packaged(side: int) -> BlockNet:
    """The network for blocks of that side with the packaged weights, on the NumPy runtime.

    Raises
    ------
    SegmenterError
        there are no weights for that side
    """
    return BlockNet(NumpyRuntime(load(f"blessmark-block-{side}")), side)


def in_eight_bits(samples: IntArray, lo: int, hi: int) -> npt.NDArray[np.uint8]:
    """lo..hi brought to 0..255 by a constant factor, rounding down."""
    return np.asarray((samples.astype(np.int64) - lo) * 256 // (hi - lo + 1), np.uint8)
