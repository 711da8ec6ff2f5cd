"""MACs of tile packets: over the place, the untouched pixels, the restored sites and the packet's head.

    frame number | tile row | tile column | window rows | window columns | channels | lattice | sites
    samples of the tile, 0 at its sites | samples at its sites, in coding order | k and shards

No trial changes the first two lines, and neither does embedding, so they are hashed once (docs/format/v1.md
section 5). Many tiles go together.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from blessmark.carrier.sites import IndexArray, untouched
from blessmark.jit import compiled
from blessmark.payload import blake
from blessmark.payload.crypto import DerivedKeys, tile_mac
from blessmark.planes import PlaneArray
from blessmark.profile import V1
from blessmark.types import BoolArray, Frame, Lattice

ByteArray = npt.NDArray[np.uint8]

_PLACE = np.dtype(
    [
        ("frame", ">u4"),
        ("row", ">u2"),
        ("col", ">u2"),
        ("high", ">u2"),
        ("wide", ">u2"),
        ("channels", "u1"),
        ("lattice", "u1"),
        ("sites", ">u2"),
    ]
)
_PLACE_SAMPLES = _PLACE.itemsize // 2
_BLOCK_SAMPLES = blake.BLOCK_BYTES // 2
#: of so many tiles the untouched pixels are cut out at once: 0.5 MB where the frame has one channel
_CUT_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Windows:
    """The tiles of a survey.

    Attributes
    ----------
    at : int64 [n, 2], their row and column in the grid
    boxes : int64 [n, 4], their top, left, bottom and right pixels
    counts : int64 [n], how many sites they have
    """

    at: IndexArray
    boxes: IndexArray
    counts: IndexArray


@dataclass
class _Begun:
    """What was hashed: the state of each tile, of how many bytes, and what fills no block, in bytes."""

    states: blake.StateArray
    hashed: IndexArray
    rests: blake.RowArray
    lengths: IndexArray
    known: BoolArray

    @classmethod
    def none(cls, count: int) -> _Begun:
        zeros = np.zeros(count, np.int64)
        states, rests = np.empty((count, 8), np.uint64), np.empty((count, _BLOCK_SAMPLES), np.uint16)
        return cls(states, zeros, rests, zeros.copy(), np.zeros(count, np.bool_))


@dataclass
class Macs:
    """MACs of the tiles of one survey of a frame; a place is the number of a tile in it."""

    frame: Frame
    roi: BoolArray
    lattice: Lattice
    keys: DerivedKeys = field(repr=False)
    windows: Windows

    def __post_init__(self) -> None:
        self._begun = _Begun.none(len(self.windows.boxes))

    def tags(
        self,
        places: IndexArray,
        values: PlaneArray,
        firsts: IndexArray,
        heads: ByteArray,
        length: IndexArray | int,
    ) -> ByteArray:
        """uint8 [n, 4]: the MACs of packets in those places, int64 [n].

        Parameters
        ----------
        values : int16, what planes hold at the restored sites of tiles; those of each begin at `firsts`
        firsts : int64 [n]
        heads : uint8 [n, bytes], k and shards in the first `length` bytes; int64 [n] if they differ
        """
        self.begin(places)
        begun, counts = self._begun, self.windows.counts[places]
        ends = np.zeros(len(places), np.int64) + length
        lengths = begun.lengths[places] + 2 * counts + ends
        rows = np.empty((len(places), blake.padded(int(lengths.max(initial=0))) // 2), np.uint16)
        _follow(
            begun.rests, begun.lengths, places, values, self.frame.shift, firsts, counts, heads, ends, rows
        )
        tags = blake.digests(begun.states[places], rows, lengths, blake.KEYED + begun.hashed[places])
        return tags[:, : V1.mac_bytes]

    def begin(self, places: IndexArray) -> None:
        """Hash what no trial changes of those tiles, where it was not yet."""
        missing = places[~self._begun.known[places]]
        for first in range(0, len(missing), _CUT_AT_ONCE):
            self._hash(missing[first : first + _CUT_AT_ONCE])

    def _hash(self, places: IndexArray) -> None:
        begun, boxes = self._begun, self.windows.boxes[places]
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        lengths = _PLACE.itemsize + 2 * self.frame.channels * areas
        # one block more than whole ones have, for what is left of the longest
        rows = np.empty((len(places), blake.padded(int(lengths.max()) + 1) // 2), np.uint16)
        rows[:, :_PLACE_SAMPLES] = self._heads(places, boxes)
        untouched(self.frame, self.roi, boxes, self.lattice, _PLACE_SAMPLES, rows)
        hashed = lengths // blake.BLOCK_BYTES * blake.BLOCK_BYTES
        begun.states[places] = blake.absorbed(tile_mac(self.keys), rows, hashed)
        begun.rests[places] = rows[
            np.arange(len(places))[:, None], hashed[:, None] // 2 + np.arange(_BLOCK_SAMPLES)
        ]
        begun.hashed[places], begun.lengths[places], begun.known[places] = hashed, lengths - hashed, True

    def _heads(self, places: IndexArray, boxes: IndexArray) -> blake.RowArray:
        """uint16 [n, 8]: where those tiles are and how many sites they have, as it is hashed."""
        heads, windows = np.empty(len(places), _PLACE), self.windows
        heads["frame"], heads["channels"], heads["lattice"] = (
            self.frame.number,
            self.frame.channels,
            self.lattice,
        )
        heads["row"], heads["col"] = windows.at[places].T
        heads["high"], heads["wide"] = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
        heads["sites"] = windows.counts[places]
        return heads.view("<u2").reshape(-1, _PLACE_SAMPLES)


@compiled
def _follow(
    rests: blake.RowArray,
    lengths: IndexArray,
    places: IndexArray,
    values: PlaneArray,
    shift: int,
    firsts: IndexArray,
    counts: IndexArray,
    heads: ByteArray,
    ends: IndexArray,
    rows: blake.RowArray,
) -> None:
    """Write what follows the blocks that were hashed: their rest, the samples at the sites, and the head."""
    more, flat = np.uint16(shift & 0xFFFF), rows.reshape(-1)
    for n in range(len(places)):
        place, begin = places[n], n * rows.shape[1]
        for i in range(lengths[place] // 2):
            flat[begin + i] = rests[place, i]
        at, first = np.uint64(begin + lengths[place] // 2), np.uint64(firsts[n])
        for i in range(np.uint64(counts[n])):
            flat[at + i] = np.uint16(np.uint16(values[first + i]) + more)
        at += np.uint64(counts[n])
        for i in range(at, np.uint64(begin + rows.shape[1])):
            flat[i] = np.uint16(0)
        for i in range(ends[n]):
            flat[at + np.uint64(i >> 1)] |= np.uint16(heads[n, i]) << np.uint16(8 * (i & 1))
