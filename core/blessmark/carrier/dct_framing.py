"""How a message lies in the blocks of the `dct` carrier (docs/format/dct.md).

    keyed order of the blocks outside the region of interest:   header | message | seal | unused

Header and message ride one bit a block and channel, by the order of two coefficients. Restoring such a
block is approximate, so no hash of the original can prove a frame. The seal does instead: a MAC over every
sample of the *marked* frame, written into the least significant bits of a few blocks that carry nothing
else; the MAC takes those bits as zero, so that nothing of the frame is outside of it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from blessmark.carrier.block_maps import BlockMap
from blessmark.carrier.dct import Bits, Places, choices, cut, dct_pair, place, read_bits
from blessmark.payload.crypto import (
    DerivedKeys,
    block_cell_mac,
    block_header_mac,
    block_mask,
    block_seal_mac,
    block_words,
)
from blessmark.payload.record import Grid
from blessmark.profile import V1
from blessmark.types import BoolArray, Frame, IntArray

#: bytes of the message, threshold in hundredths of a grey level
_HEADER = struct.Struct(">HH")
_HEADER_BYTES = _HEADER.size + V1.mac_bytes
#: what the header can say
_MOST_BYTES = 65_535
#: detector, PSNR of the restoration in half decibels
_SEAL_HEAD = struct.Struct(">BB")
_SEAL_MAC_BYTES = 16
#: what the byte of the PSNR can say at most, an exact restoration included
_MOST_PSNR_DB = 127.5
#: blocks looked at together when carriers are searched
_AT_ONCE = 128
#: how often the seal moves on when writing it turns a block into region of interest
_MOST_MOVES = 64


class Survey:
    """What a map says of the blocks of one frame; asked once for each, however many keys are tried."""

    def __init__(self, frame: Frame, block_map: BlockMap) -> None:
        self.bound = block_map.bound(frame)
        self.blocks = cut(frame.samples, block_map.side)
        self._asked, self._outside = (np.zeros(self.bound.free.size, np.bool_) for _ in range(2))

    def outside(self, places: Places) -> BoolArray:
        """bool [n]: which of the blocks at `places`, free ones, are outside the region of interest."""
        fresh = places[~self._asked[places]]
        if len(fresh):
            self._outside[fresh] = self.bound.stays(fresh, self.at(fresh)).all(axis=1)
            self._asked[fresh] = True
        return self._outside[places]

    def at(self, places: Places) -> IntArray:
        """int32 [n, channels, side, side]: the blocks at `places`."""
        row, col = np.divmod(places, self.bound.free.shape[1])
        return np.asarray(self.blocks[row, col])


class Walk:
    """The blocks that carry, in keyed order, found as far as they are asked for."""

    def __init__(
        self, frame: Frame, block_map: BlockMap, keys: DerivedKeys, survey: Survey | None = None
    ) -> None:
        self._survey = survey or Survey(frame, block_map)
        self.bound, self.blocks, self.at = self._survey.bound, self._survey.blocks, self._survey.at
        words = block_words(keys, frame.number, block_map.side, self.bound.free.size)
        free = np.flatnonzero(self.bound.free)
        self._order: Places = free[np.argsort(words[free], kind="stable")]
        self._seen = 0
        self._found: Places = np.zeros(0, np.intp)

    def first(self, count: int) -> Places:
        """The places of the first `count` carriers, fewer when there are no more."""
        while len(self._found) < count and self._seen < len(self._order):
            part = self._order[self._seen : self._seen + max(_AT_ONCE, count - len(self._found))]
            self._found = np.concatenate([self._found, part[self._survey.outside(part)]])
            self._seen += len(part)
        return self._found[:count]

    @property
    def free_blocks(self) -> int:
        """How many blocks carry at most."""
        return len(self._order)


@dataclass(frozen=True, slots=True)
class Carried:
    """A frame that carries header and message, not yet its seal.

    `places` are the blocks that carry, in order; `switched` counts those between them that turned region of
    interest.
    """

    samples: IntArray
    places: Places
    bits: Bits
    switched: int


@dataclass(frozen=True, slots=True)
class Seal:
    """What the seal of a frame says.

    `intact`: the frame is what was sealed, to the last bit. `wrong_cells` are cells of `record.Grid` whose
    digest differs. `detector` is the number of the one that restores best, `psnr_db` how close it came.
    """

    detector: int
    psnr_db: float
    intact: bool
    wrong_cells: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """What a frame carries; `seal` is None when there is no room behind the message for one."""

    message: bytes
    threshold: int
    places: Places
    bits: Bits
    seal: Seal | None


def embed(
    frame: Frame, block_map: BlockMap, keys: DerivedKeys, message: bytes, threshold: int
) -> Carried | None:
    """Put header and message into the frame; None when they do not fit.

    `threshold` is in hundredths of a grey level. Raises CapacityError as `dct.place` does.
    """
    if len(message) > _MOST_BYTES:
        return None
    stream = _header(frame, block_map, keys, len(message), threshold) + message
    bits = np.unpackbits(np.frombuffer(stream, np.uint8))
    walk, pair = Walk(frame, block_map, keys), dct_pair(block_map.side)
    wanted, available = _blocks_for(frame, len(bits)), 0
    while True:
        wanted += wanted // 32 + 8
        places = walk.first(wanted)
        if len(places) == available:
            return None
        available = len(places)
        original = walk.at(places)
        stays = partial(_stays, walk, places)
        placed = place(choices(pair, original, threshold, frame.bounds, stays), original, bits)
        if placed is not None:
            break
    samples, walked = frame.samples.copy(), places[: placed.walked]
    put(samples, block_map.side, walked, placed.blocks)
    return Carried(samples, walked[~placed.switched], bits, int(placed.switched.sum()))


def seal(
    frame: Frame, block_map: BlockMap, keys: DerivedKeys, carried: Carried, detector: int, psnr_db: float
) -> IntArray | None:
    """The samples of `carried` with the seal behind its message; None when there is no room for it.

    A block that the seal itself turns into region of interest keeps what turned it, and the seal moves on.
    """
    samples = carried.samples.copy()
    head = _SEAL_HEAD.pack(detector, int(2 * max(0.0, min(psnr_db, _MOST_PSNR_DB))))
    for _ in range(_MOST_MOVES):
        marked = frame.with_samples(samples)
        walk = Walk(marked, block_map, keys)
        found = _seal_sites(marked, walk, len(carried.places))
        if found is None:
            return None
        places, sites = found
        written = _neutral(marked, sites)
        content = _seal_content(marked.with_samples(written), block_map.side, keys, head)
        written.reshape(-1)[sites] += np.unpackbits(np.frombuffer(content, np.uint8))
        row, col = np.divmod(places, walk.bound.free.shape[1])
        blocks = cut(written, block_map.side)[row, col]
        outside = walk.bound.stays(places, blocks).all(axis=1)
        if outside.all():
            return written
        put(samples, block_map.side, places[~outside], blocks[~outside])
    return None


def read(
    frame: Frame, block_map: BlockMap, keys: DerivedKeys, survey: Survey | None = None
) -> Reading | None:
    """What the frame carries; None when no header authenticates or the message runs past the last block.

    `survey` is that of this frame and map, where another key has been tried already.
    """
    walk = Walk(frame, block_map, keys, survey)
    if walk.free_blocks * frame.channels < 8 * _HEADER_BYTES:
        return None
    bits, places = _read_bits(frame, walk, block_map.side, 8 * _HEADER_BYTES)
    if len(bits) < 8 * _HEADER_BYTES:
        return None
    fields = _unmasked(frame, block_map, keys, np.packbits(bits))
    if fields is None:
        return None
    length, threshold = _HEADER.unpack(fields)
    wanted = 8 * (_HEADER_BYTES + length)
    bits, places = _read_bits(frame, walk, block_map.side, wanted)
    if len(bits) < wanted:
        return None
    message = np.packbits(bits[8 * _HEADER_BYTES :]).tobytes()
    return Reading(message, threshold, places, bits, _read_seal(frame, block_map, keys, walk, len(places)))


def put(samples: IntArray, side: int, places: Places, blocks: IntArray) -> None:
    """Write blocks int32 [n, channels, side, side] to their places in `samples`."""
    grid = cut(samples, side)
    row, col = np.divmod(places, grid.shape[1])
    grid[row, col] = blocks


def _stays(walk: Walk, places: Places, which: Places, blocks: IntArray) -> BoolArray:
    return walk.bound.stays(places[which], blocks)


def _blocks_for(frame: Frame, bits: int) -> int:
    return -(-bits // frame.channels)


def _read_bits(frame: Frame, walk: Walk, side: int, count: int) -> tuple[Bits, Places]:
    """The first `count` bits, fewer when there are no more, and the places they lie in."""
    places = walk.first(_blocks_for(frame, count))
    blocks = walk.at(places)
    return read_bits(dct_pair(side), blocks.reshape(-1, side, side))[:count], places


def _header(frame: Frame, block_map: BlockMap, keys: DerivedKeys, length: int, threshold: int) -> bytes:
    fields = _HEADER.pack(length, threshold)
    packet = np.frombuffer(fields + _header_tag(frame, block_map, keys, fields), np.uint8)
    return (packet ^ block_mask(keys, frame.number, block_map.side, len(packet))).tobytes()


def _unmasked(
    frame: Frame, block_map: BlockMap, keys: DerivedKeys, masked: npt.NDArray[np.uint8]
) -> bytes | None:
    packet = (masked ^ block_mask(keys, frame.number, block_map.side, len(masked))).tobytes()
    fields, tag = packet[: _HEADER.size], packet[_HEADER.size :]
    return fields if tag == _header_tag(frame, block_map, keys, fields) else None


def _header_tag(frame: Frame, block_map: BlockMap, keys: DerivedKeys, fields: bytes) -> bytes:
    mac = block_header_mac(keys)
    mac.update(_place_of(frame, block_map.side) + fields)
    return bytes(mac.digest())


def _place_of(frame: Frame, side: int) -> bytes:
    return struct.pack(
        ">IIIBBii", frame.number, frame.rows, frame.cols, frame.channels, side, frame.lo, frame.hi
    )


def _seal_sites(frame: Frame, walk: Walk, after: int) -> tuple[Places, Places] | None:
    """The blocks behind the first `after` ones that hold the seal, and its samples as flat indices.

    A sample takes part unless its pair (the value with and without the lowest bit, counted from the lower
    bound) reaches past the upper bound; that is so before and after.
    """
    needed = 8 * _seal_bytes(frame)
    side, low, high = walk.blocks.shape[-1], *frame.bounds
    count = 0
    while True:
        count += max(1, needed // (frame.channels * side * side))
        places = walk.first(after + count)[after:]
        index = _flat_index(frame, side, places)
        values = frame.samples.reshape(-1)[index]
        sites = index[values - ((values - low) & 1) + 1 <= high]
        if len(sites) >= needed:
            last = sites[needed - 1]
            held = int(np.flatnonzero(index == last)[0]) // (frame.channels * side * side) + 1
            return places[:held], sites[:needed]
        if len(places) < count:
            return None


def _flat_index(frame: Frame, side: int, places: Places) -> Places:
    """Where the samples of the blocks lie in the flattened frame: by block, channel, row, column."""
    row, col = np.divmod(places, frame.cols // side)
    down, right = np.ogrid[:side, :side]
    inside = down * frame.cols + right
    channel = np.arange(frame.channels)[:, None, None] * frame.rows * frame.cols
    start = (row * frame.cols + col) * side
    return np.asarray(start[:, None, None, None] + channel + inside).ravel()


def _neutral(frame: Frame, sites: Places) -> IntArray:
    """The samples with the bits of the seal cleared."""
    samples = frame.samples.copy()
    flat = samples.reshape(-1)
    flat[sites] -= (flat[sites] - frame.bounds[0]) & 1
    return samples


def _seal_bytes(frame: Frame) -> int:
    return _SEAL_HEAD.size + len(Grid.of(frame.rows, frame.cols).cells) + _SEAL_MAC_BYTES


def _seal_content(neutral: Frame, side: int, keys: DerivedKeys, head: bytes) -> bytes:
    """Head, cell digests and MAC of a frame whose seal is cleared."""
    words = neutral.samples.astype("<u2")
    cells = b"".join(
        _cell_digest(keys, neutral.number, index, words[:, cell.top : cell.bottom, cell.left : cell.right])
        for index, cell in enumerate(Grid.of(neutral.rows, neutral.cols).cells)
    )
    mac = block_seal_mac(keys)
    mac.update(_place_of(neutral, side) + head + cells)
    mac.update(np.ascontiguousarray(words).data)
    return head + cells + mac.digest()


def _cell_digest(keys: DerivedKeys, number: int, index: int, words: npt.NDArray[np.uint16]) -> bytes:
    digest = block_cell_mac(keys)
    digest.update(struct.pack(">II", number, index))
    digest.update(words.tobytes())
    return bytes(digest.digest())


def _read_seal(frame: Frame, block_map: BlockMap, keys: DerivedKeys, walk: Walk, after: int) -> Seal | None:
    found = _seal_sites(frame, walk, after)
    if found is None:
        return None
    _, sites = found
    bits = (frame.samples.reshape(-1)[sites] - frame.bounds[0]) & 1
    read = np.packbits(bits.astype(np.uint8)).tobytes()
    head = read[: _SEAL_HEAD.size]
    detector, half_db = _SEAL_HEAD.unpack(head)
    actual = _seal_content(frame.with_samples(_neutral(frame, sites)), block_map.side, keys, head)
    cells = range(_SEAL_HEAD.size, len(read) - _SEAL_MAC_BYTES)
    wrong = tuple(at - _SEAL_HEAD.size for at in cells if read[at] != actual[at])
    return Seal(detector, half_db / 2, read == actual, wrong)
