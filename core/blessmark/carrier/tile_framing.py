"""Tile framing: one short authenticated packet a tile, erasure-coded across tiles.

Packet = [k | shards | MAC], masked. k is the number of data shards of the message, the shards are
Reed-Solomon points of it, the MAC covers k, the shards, where the tile is *and its restored pixels, ROI
included*: what authenticates is the place, the message and the picture at once. No header: the reader
finds (T, Z, length) by trial and the MAC decides (docs/format/v1.md section 5).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from blessmark.carrier.lattice import (
    Bands,
    BitArray,
    IndexArray,
    Sites,
    Window,
    costs,
    find_sites,
    insert,
    peek,
    remove,
    table,
)
from blessmark.payload import erasure, packets
from blessmark.payload.crypto import DerivedKeys, order_words, packet_masks, tile_mac
from blessmark.profile import V1
from blessmark.types import BoolArray, Frame, IntArray, Lattice
from blessmark.view import invariant_view

#: A hit of up to 193 x 193 pixels touches at most this many tiles in a row and in a column.
_HIT_TILES = 4
#: How many times the needed shards must be left after such a hit.
_RESERVE = 2
#: Share of shards beyond the message that must fit, at least (numerator / denominator).
_PARITY = (5, 4)

_LENGTHS: IndexArray = np.array([V1.packet_bits(j) for j in V1.shards_per_packet], np.int64)
_SIZES = [int(bits) // 8 for bits in _LENGTHS]
_UP, _DOWN = 0, -1
#: The greatest k that a packet can claim.
_MOST_CLAIMED = 255


@dataclass(frozen=True, slots=True)
class TileGrid:
    """The fixed 64 x 64 grid over an image; partial tiles at the edges count in the numbering."""

    rows: int
    cols: int

    @property
    def shape(self) -> tuple[int, int]:
        """Tile rows, tile columns."""
        return -(-self.rows // V1.tile_px), -(-self.cols // V1.tile_px)

    def __len__(self) -> int:
        return self.shape[0] * self.shape[1]

    def window(self, tile: int) -> Window:
        """The pixels of tile number `tile` in raster order."""
        row, col = divmod(tile, self.shape[1])
        top, left = row * V1.tile_px, col * V1.tile_px
        return Window(top, left, min(top + V1.tile_px, self.rows), min(left + V1.tile_px, self.cols))

    def blocks(self, tile: int, roi: BoolArray) -> BoolArray:
        """The part of a map that lies in tile number `tile`."""
        row, col = divmod(tile, self.shape[1])
        blocks = V1.tile_px // V1.block_px
        return roi[row * blocks : (row + 1) * blocks, col * blocks : (col + 1) * blocks]

    def usable(self, tile: int, roi: BoolArray) -> bool:
        """Whether a tile is large enough and holds at least one NROI block."""
        window = self.window(tile)
        shortest = min(window.bottom - window.top, window.right - window.left)
        return shortest >= V1.min_tile_px and not self.blocks(tile, roi).all()

    def candidates(self, roi: BoolArray) -> Iterator[int]:
        """The usable tiles."""
        return (tile for tile in range(len(self)) if self.usable(tile, roi))


@dataclass(frozen=True, slots=True)
class TilePlan:
    """What one tile can carry: for each packet size its cheapest bands, None where it does not fit."""

    tile: int
    sites: Sites
    bands: tuple[Bands | None, ...]

    def largest(self, most: int) -> int:
        """Position in `shards_per_packet` of the largest packet of at most `most` shards, -1 if none."""
        fitting = [i for i, b in enumerate(self.bands) if b is not None and V1.shards_per_packet[i] <= most]
        return fitting[-1] if fitting else -1


@dataclass(frozen=True, slots=True)
class Plan:
    """What a frame can carry in tile framing on one lattice."""

    frame: Frame
    lattice: Lattice
    grid: TileGrid
    tiles: tuple[TilePlan, ...]

    @property
    def capacity_shards(self) -> int:
        return sum(V1.shards_per_packet[t.largest(V1.points_per_tile)] for t in self.tiles)


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet whose MAC is right, read from a marked frame."""

    tile: int
    needed: int
    shards: npt.NDArray[np.uint16]


def plan(frame: Frame, roi: BoolArray, lattice: Lattice, keys: DerivedKeys, max_change: int) -> Plan:
    """Find the cheapest bands for each packet size in every tile; no sample moves more than `max_change`."""
    grid = TileGrid(frame.rows, frame.cols)
    words = order_words(keys, frame.number, lattice, frame.rows, frame.cols)
    tiles = []
    for tile in grid.candidates(roi):
        sites = find_sites(frame, roi, grid.window(tile), lattice, V1.predictor(lattice), words)
        bands = _cheapest_bands(frame, sites, max_change)
        if any(bands):
            tiles.append(TilePlan(tile, sites, bands))
    return Plan(frame, lattice, grid, tuple(tiles))


def embed(plan: Plan, keys: DerivedKeys, message: bytes, *, resilient: bool) -> IntArray | None:
    """The marked samples, or None when the message with its parity does not fit; `plan.frame` is not touched.

    `resilient` asks for more: after the loss of any 4 x 4 tiles (every hit of up to 193 x 193 pixels) there
    must be twice the shards left that the message needs, for a hit also makes the map change around it.
    """
    data = packets.shards_of(message)
    sizes = _packet_sizes(plan, len(data), resilient)
    if sizes is None:
        return None
    marked = plan.frame.samples.copy()
    masks = packet_masks(keys, plan.frame.number, plan.lattice, len(plan.grid))
    for tile_plan, size in zip(plan.tiles, sizes, strict=True):
        points = packets.points(tile_plan.tile, V1.shards_per_packet[size])
        head = packets.pack(len(data), erasure.encode(data, points))
        _embed_tile(plan, tile_plan, size, keys, head, masks[tile_plan.tile], marked)
    return marked


class Reader:
    """Finds packets in a marked frame, tile by tile, by whatever map its caller proposes.

    A packet proves by its MAC that the map was right where it lies, so maps may simply be tried: first the
    segmenter's, then, where an image was damaged so that its segmenter sees it differently now, others. No
    tile is tried twice by the same map.

    Attributes
    ----------
    packets : tile number -> the packet that authenticates there
    restored : int32 [channels, rows, cols], the frame with those tiles restored
    """

    def __init__(self, frame: Frame, lattice: Lattice, keys: DerivedKeys) -> None:
        self.grid = TileGrid(frame.rows, frame.cols)
        self.packets: dict[int, Packet] = {}
        self.restored = frame.samples
        self._frame, self._lattice, self._keys = frame, lattice, keys
        self._masks = packet_masks(keys, frame.number, lattice, len(self.grid))
        self._words: npt.NDArray[np.uint32] | None = None
        self._tried: set[tuple[int, bytes]] = set()
        self._order = list(range(len(_TRIALS)))

    def read(self, roi: BoolArray, *, patience: int | None = None) -> None:
        """Look for packets in every tile of `roi` that has not given one yet.

        Tiles of one message claim the same k, so what most tiles claim is tried first. `patience` ends the
        search after so many vain tries; by the map that was embedded with it must be None, or a few packets
        amid many tiles without one would be given up.
        """
        openings = list(self._open(roi, range(len(self.grid))))
        claimed = np.zeros((len(openings), _MOST_CLAIMED + 1), np.bool_)
        for row, opening in enumerate(openings):
            claimed[row, opening.claims] = True
        tries = 0
        for needed in _by_claims(claimed, self._known()):
            for row in np.flatnonzero(claimed[:, needed]).tolist():
                if self._read_packet(openings[row], needed):
                    claimed[row] = False
                else:
                    tries += 1
            if patience is not None and tries >= patience:
                break
        self._forget_order()

    def read_only(self, roi: BoolArray, needed: int) -> None:
        """`read` for packets of one k alone; costs hardly anything where there are none."""
        for opening in self._open(roi, range(len(self.grid))):
            self._read_packet(opening, needed)
        self._forget_order()

    def retry(self, roi: BoolArray, tiles: Iterable[int]) -> None:
        """Look for packets of the messages known so far in those of `tiles` that have not given one yet."""
        known = self._known()
        for opening in self._open(roi, tiles):
            any(self._read_packet(opening, needed) for needed in known)

    def search(self, tiles: Iterable[int], fixed: BoolArray) -> None:
        """`retry` in `tiles` by maps drawn from each tile alone; `fixed` is ROI in all of them.

        Wherever a map is "darker (or brighter) than some level, one block away from anything else", one of
        the nested sets that `_local_maps` yields is that map, whatever became of the rest of the image.
        """
        view = invariant_view(self._frame, self._lattice).samples
        for tile in tiles:
            for roi in _local_maps(view, self.grid.window(tile)):
                if tile in self.packets:
                    break
                self.retry(roi | fixed, (tile,))

    def messages(self) -> Iterator[tuple[bytes, frozenset[int]]]:
        """Candidate messages, best evidence first, each with the tiles whose shards agree with it."""
        for needed in self._known():
            yield from _decode([p for p in self.packets.values() if p.needed == needed], needed)

    def _known(self) -> list[int]:
        """The k of every message that has a packet, most frequent first."""
        return _by_frequency([packet.needed for packet in self.packets.values()])

    def _open(self, roi: BoolArray, tiles: Iterable[int]) -> Iterator[_Opening]:
        """What each of `tiles` that is usable and new under `roi` claims."""
        frame, predictor = self._frame, V1.predictor(self._lattice)
        for tile in tiles:
            trial = (tile, self.grid.blocks(tile, roi).tobytes())
            if tile in self.packets or trial in self._tried or not self.grid.usable(tile, roi):
                continue
            self._tried.add(trial)
            window = self.grid.window(tile)
            sites = find_sites(frame, roi, window, self._lattice, predictor, self._site_words())
            if sites.index.size >= _LENGTHS[0]:
                values = sites.values(frame.samples)
                heads = peek(values, sites.predicted, frame.bounds, _TRIAL_TABLE, 8)
                claims = np.where(heads < 0, 0, heads ^ self._masks[tile][0])
                yield _Opening(tile, sites, values, claims)

    def _site_words(self) -> npt.NDArray[np.uint32]:
        if self._words is None:
            frame = self._frame
            self._words = order_words(self._keys, frame.number, self._lattice, frame.rows, frame.cols)
        return self._words

    def _forget_order(self) -> None:
        """Readers without a packet are kept in numbers, and the words take four bytes a pixel."""
        if not self.packets:
            self._words = None

    def _read_packet(self, opening: _Opening, needed: int) -> bool:
        """Try all bands under which the tile claims `needed` and every length; on success keep the packet."""
        trials = [trial for trial in self._order if opening.claims[trial] == needed]
        if not trials:
            return False
        mac = _TileMac(self._frame, self.grid, opening.tile, self._lattice, opening.sites, self._keys)
        for trial in trials:
            values = opening.values.copy()
            bits, ends = remove(
                values, opening.sites.predicted, self._frame.bounds, _TRIALS[trial], 0, int(_LENGTHS[-1])
            )
            authentic = _authenticated(mac, opening.values, values, bits, ends, self._masks[opening.tile])
            if authentic is not None:
                self._order.insert(0, self._order.pop(self._order.index(trial)))
                self._keep(opening, *authentic)
                return True
        return False

    def _keep(self, opening: _Opening, values: IntArray, head: npt.NDArray[np.uint8]) -> None:
        if not self.packets:
            self.restored = self._frame.samples.copy()
        self.restored.reshape(-1)[opening.sites.index] = values
        needed, shards = packets.unpack(head)
        self.packets[opening.tile] = Packet(opening.tile, needed, shards)


@dataclass(frozen=True, slots=True)
class _Opening:
    """One tile under one map: its sites, their marked values, and what each of `_TRIALS` would have it claim.

    `claims` is int64 [trials] of k, 0 where a trial finds too few bits.
    """

    tile: int
    sites: Sites
    values: IntArray
    claims: IndexArray


def _by_claims(claimed: BoolArray, known: list[int]) -> list[int]:
    """Every k that a tile claims, those of `known` first, then those that most tiles claim."""
    counts = claimed.sum(axis=0)
    ranked = sorted(np.flatnonzero(counts[1:]) + 1, key=lambda needed: -counts[needed])
    return known + [int(needed) for needed in ranked if needed not in known]


def band_candidates(max_change: int) -> list[Bands]:
    """Every (T, Z) that needs no header, in the order in which a reader tries them."""
    return [
        Bands(_UP, _DOWN, t, t << doubling, t << doubling)
        for t in V1.expansions
        if t <= max_change
        for doubling in range(V1.shift_doublings)
    ]


#: What a reader tries.
_TRIALS = band_candidates(V1.expansions[-1])
_TRIAL_TABLE = table(_TRIALS)


def _cheapest_bands(frame: Frame, sites: Sites, max_change: int) -> tuple[Bands | None, ...]:
    """The bands of least expected squared change for each packet size."""
    best: list[Bands | None] = [None] * len(_LENGTHS)
    least = [0] * len(_LENGTHS)
    if sites.index.size < _LENGTHS[0]:
        return tuple(best)
    values = sites.values(frame.samples)
    for bands in band_candidates(max_change):
        for size, cost in enumerate(costs(values, sites.predicted, frame.bounds, bands, _LENGTHS)):
            if cost >= 0 and (best[size] is None or cost < least[size]):
                best[size], least[size] = bands, int(cost)
    return tuple(best)


def _packet_sizes(plan: Plan, needed: int, resilient: bool) -> list[int] | None:
    """Which packet size every tile carries, as positions in `shards_per_packet`; None when too few fit.

    Every usable tile is filled, with packets no larger than resilience takes, or with the largest that fit
    when that does not suffice and `resilient` does not insist.
    """
    sizes: list[int] = []
    total = 0
    for most in V1.shards_per_packet:
        sizes = [tile.largest(most) for tile in plan.tiles]
        shards = np.zeros(plan.grid.shape, np.int64)
        for tile, size in zip(plan.tiles, sizes, strict=True):
            shards[divmod(tile.tile, plan.grid.shape[1])] = V1.shards_per_packet[size]
        total = int(shards.sum())
        if total - _heaviest_hit(shards) >= _RESERVE * needed:
            return sizes
    if resilient or total * _PARITY[1] < needed * _PARITY[0] or _distinct_points(plan, sizes) < needed:
        return None
    return sizes


def _heaviest_hit(shards: IndexArray) -> int:
    """Most shards that any 4 x 4 window of tiles holds."""
    sums = np.pad(shards, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    high, wide = min(_HIT_TILES, shards.shape[0]), min(_HIT_TILES, shards.shape[1])
    boxes = sums[high:, wide:] - sums[:-high, wide:] - sums[high:, :-wide] + sums[:-high, :-wide]
    return int(boxes.max())


def _distinct_points(plan: Plan, sizes: list[int]) -> int:
    """How many different evaluation points the packets hold; beyond 4096 tiles they repeat."""
    most = np.zeros(V1.point_tiles, np.int64)
    for tile, size in zip(plan.tiles, sizes, strict=True):
        slot = tile.tile % V1.point_tiles
        most[slot] = max(most[slot], V1.shards_per_packet[size])
    return int(most.sum())


def _embed_tile(
    plan: Plan,
    tile: TilePlan,
    size: int,
    keys: DerivedKeys,
    head: npt.NDArray[np.uint8],
    mask: npt.NDArray[np.uint8],
    marked: IntArray,
) -> None:
    bands = tile.bands[size]
    assert bands is not None, "sizes come from the plan"
    values = tile.sites.values(plan.frame.samples)
    mac = _TileMac(plan.frame, plan.grid, tile.tile, plan.lattice, tile.sites, keys)
    tag = mac.tag(head.tobytes(), values.astype("<u2"))
    packet = np.concatenate([head, np.frombuffer(tag, np.uint8)])
    bits = np.unpackbits(packet ^ mask[: packet.size])
    insert(values, tile.sites.predicted, plan.frame.bounds, bands, 0, bits)
    marked.reshape(-1)[tile.sites.index] = values


class _TileMac:
    """MAC of one tile; everything that no trial changes is hashed once."""

    def __init__(
        self, frame: Frame, grid: TileGrid, tile: int, lattice: Lattice, sites: Sites, keys: DerivedKeys
    ) -> None:
        window = grid.window(tile)
        untouched = _window_without_sites(frame, window, sites)
        row, col = divmod(tile, grid.shape[1])
        place = struct.pack(
            ">IHHHHBBH",
            frame.number,
            row,
            col,
            *untouched.shape[1:],
            frame.channels,
            int(lattice),
            sites.index.size,
        )
        self._hash = tile_mac(keys)
        self._hash.update(place)
        self._hash.update(untouched.tobytes())

    def tag(self, head: bytes, *restored: npt.NDArray[np.uint16]) -> bytes:
        """4 bytes over the place, the untouched pixels, the restored sites in coding order and the head.

        `restored` is uint16, little-endian, in as many parts as the caller has.
        """
        hash_ = self._hash.copy()
        for part in restored:
            hash_.update(part.data)
        hash_.update(head)
        return hash_.digest()


def _window_without_sites(frame: Frame, window: Window, sites: Sites) -> npt.NDArray[np.uint16]:
    """The window's samples as little-endian uint16, the sites (whose values change) set to zero."""
    part = frame.samples[:, window.top : window.bottom, window.left : window.right].astype("<u2")
    channel, rest = np.divmod(sites.index, frame.rows * frame.cols)
    row, col = np.divmod(rest, frame.cols)
    part[channel, row - window.top, col - window.left] = 0
    return part


def _local_maps(view: IntArray, window: Window) -> Iterator[BoolArray]:
    """Maps bool [rows // 8, cols // 8] whose NROI lies in one tile: its darkest, then its brightest blocks.

    The darkness of a block is the brightest sample of the 3 x 3 blocks around it, so that the sets keep a
    block's distance from anything brighter, as segmenters of body against background do.
    """
    step = V1.block_px
    shape = view.shape[1] // step, view.shape[2] // step
    top, left = window.top // step, window.left // step
    bottom, right = min(window.bottom // step, shape[0]), min(window.right // step, shape[1])
    for signed in (view, -view):
        darkness = _block_darkness(signed, top, left, bottom, right)
        for level in np.unique(darkness):
            roi = np.ones(shape, np.bool_)
            roi[top:bottom, left:right] = darkness > level
            yield roi


def _block_darkness(view: IntArray, top: int, left: int, bottom: int, right: int) -> IntArray:
    """int32 [bottom - top, right - left]: the greatest sample of the 3 x 3 blocks around each block."""
    step = V1.block_px
    rows, cols = view.shape[1] // step, view.shape[2] // step
    first, last = max(0, top - 1), min(rows, bottom + 1)
    west, east = max(0, left - 1), min(cols, right + 1)
    part = view[:, first * step : last * step, west * step : east * step].max(axis=0)
    highest = part.reshape(last - first, step, east - west, step).max(axis=(1, 3))
    low = int(highest.min()) if highest.size else 0
    padded = np.pad(highest, 1, constant_values=low)
    around = np.lib.stride_tricks.sliding_window_view(padded, (3, 3)).max(axis=(2, 3))
    return np.asarray(around[top - first : bottom - first, left - west : right - west])


def _authenticated(
    mac: _TileMac,
    marked: IntArray,
    restored: IntArray,
    bits: BitArray,
    ends: IndexArray,
    mask: npt.NDArray[np.uint8],
) -> tuple[IntArray, npt.NDArray[np.uint8]] | None:
    """(restored site values, packet head) of the one packet length whose MAC is right."""
    before, after = restored.astype("<u2"), marked.astype("<u2")
    packed = np.packbits(bits)
    packet = (packed ^ mask[: packed.size]).tobytes()
    for length, size in zip(_LENGTHS, _SIZES, strict=True):
        if bits.size < length:
            return None
        end = ends[length - 1]
        head = packet[: size - V1.mac_bytes]
        if mac.tag(head, before[:end], after[end:]) == packet[size - V1.mac_bytes : size]:
            return np.concatenate([restored[:end], marked[end:]]), np.frombuffer(head, np.uint8)
    return None


def _by_frequency(values: list[int]) -> list[int]:
    return sorted(set(values), key=lambda value: (-values.count(value), value))


def _decode(found: list[Packet], needed: int) -> Iterator[tuple[bytes, frozenset[int]]]:
    points = np.concatenate([packets.points(p.tile, len(p.shards)) for p in found])
    shards = np.concatenate([p.shards for p in found])
    owners = np.concatenate([np.full(len(p.shards), p.tile, np.int64) for p in found])
    for decoded in erasure.decode(points, shards, needed, groups=owners):
        disagreeing = set(owners[~decoded.agrees].tolist())
        yield packets.message_of(decoded.data), frozenset(set(owners.tolist()) - disagreeing)
