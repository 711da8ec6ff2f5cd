"""`anatomy-net/1`: the map of `anatomy`, learned by an integer network with a finite reach.

    view -> least and greatest cell of every block -> companded to 0..255 -> network -> one logit a block

`anatomy` takes its levels from the whole image, so that a change anywhere may move its map everywhere. This
network decides from the surroundings of a block alone. The model card tells whether it is good enough to be a
modality's default.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from blessmark.profile import V1
from blessmark.segment.integer import Images, NumpyRuntime, Runtime, RuntimeOf, load
from blessmark.types import BoolArray, IntArray, View

_BLOCK = V1.block_px
#: codes to a doubling of the value: 16 bits fill 0..255 from zero, 15 bits to either side of 128
_STEPS_UNSIGNED = 16
_STEPS_SIGNED = 8
_MIDDLE = 128


@dataclass(frozen=True, slots=True)
class AnatomyNet:
    """Body against background from the neighbourhood of each block; see `types.Segmenter`."""

    runtime: Runtime

    @property
    def id(self) -> str:
        return self.runtime.network.id

    @property
    def reach_px(self) -> int:
        return (self.runtime.network.reach + 1) * _BLOCK + 1

    def roi_blocks(self, view: View) -> BoolArray:
        """bool [rows // 8, cols // 8]: False where every channel is outside the patient."""
        rows, cols = (length // _BLOCK for length in view.samples.shape[1:])
        if rows * cols == 0:
            return np.ones((rows, cols), np.bool_)
        logits = self.runtime.logits(np.stack([network_input(plane, view.lo) for plane in view.samples]))
        return np.asarray((logits > 0).any(axis=0))[:rows, :cols]


def packaged(on: RuntimeOf = NumpyRuntime) -> AnatomyNet:
    """The segmenter with the packaged weights on a runtime, the reference unless told otherwise."""
    return AnatomyNet(on(load("anatomy-net")))


def network_input(plane: IntArray, lo: int) -> Images:
    """uint8 [block rows, block cols, 2]: least and greatest 2 x 2 cell of each block, companded.

    Padded by repetition to what the network can halve twice.
    """
    rows, cols = (length // _BLOCK for length in plane.shape)
    whole = plane[: rows * _BLOCK, : cols * _BLOCK].reshape(rows * _BLOCK // 2, 2, -1, 2)
    cells = (whole.sum(axis=(1, 3)) >> 2).reshape(rows, _BLOCK // 2, cols, _BLOCK // 2)
    codes = companded(np.stack([cells.min(axis=(1, 3)), cells.max(axis=(1, 3))], axis=-1), lo)
    return np.pad(codes, ((0, -rows % 4), (0, -cols % 4), (0, 0)), mode="edge")


def companded(values: npt.NDArray[np.integer], lo: int) -> npt.NDArray[np.uint8]:
    """Logarithmic codes 0..255 of samples: from zero up if `lo` is 0, to both sides of 128 if it is below.

    A logarithm needs no window: eight and sixteen bits, and scanners of any gain, look alike up to an offset.
    """
    if lo >= 0:
        return np.minimum(_log2(values - lo, _STEPS_UNSIGNED), 255).astype(np.uint8)
    steps = np.sign(values) * _log2(np.abs(values), _STEPS_SIGNED)
    return np.asarray(np.clip(steps + _MIDDLE, 0, 255), np.uint8)


def _log2(values: npt.NDArray[np.integer], steps: int) -> npt.NDArray[np.int64]:
    """steps * log2(1 + v), linear within each doubling and rounded down; exact for values below 2^53."""
    above = values.astype(np.int64) + 1
    octave = np.frexp(above)[1].astype(np.int64) - 1
    return np.asarray(octave * steps + ((above - (1 << octave)) * steps >> octave))
