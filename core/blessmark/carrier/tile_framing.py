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
    remove,
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
_UP, _DOWN = 0, -1


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

    def candidates(self, roi: BoolArray) -> Iterator[int]:
        """Tiles that are large enough and hold at least one NROI block."""
        blocks = V1.tile_px // V1.block_px
        for tile in range(len(self)):
            window = self.window(tile)
            if min(window.bottom - window.top, window.right - window.left) < V1.min_tile_px:
                continue
            row, col = divmod(tile, self.shape[1])
            if not roi[row * blocks : (row + 1) * blocks, col * blocks : (col + 1) * blocks].all():
                yield tile


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
    """Find the cheapest way to carry each packet size in every tile, moving no sample by more than `max_change`."""
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
    segmenter's, then, where an image was damaged so that its segmenter sees it differently now, local ones.

    Attributes
    ----------
    packets : tile number -> the packet that authenticates there
    restored : int32 [channels, rows, cols], the frame with those tiles restored
    """

    def __init__(self, frame: Frame, lattice: Lattice, keys: DerivedKeys) -> None:
        self.grid = TileGrid(frame.rows, frame.cols)
        self.packets: dict[int, Packet] = {}
        self.restored = frame.samples.copy()
        self._frame, self._lattice, self._keys = frame, lattice, keys
        self._words = order_words(keys, frame.number, lattice, frame.rows, frame.cols)
        self._masks = packet_masks(keys, frame.number, lattice, len(self.grid))
        self._trials = _Trials()

    def read(self, roi: BoolArray) -> None:
        """Look for packets in every tile of `roi` that has not given one yet."""
        for tile in self.grid.candidates(roi):
            if tile not in self.packets:
                self._read_tile(tile, roi, self._trials.bands)

    def search(self, tiles: Iterable[int], fixed: BoolArray) -> None:
        """Look for packets in `tiles` by maps drawn from each tile alone; `fixed` blocks are ROI in all of them.

        Wherever a map is "darker (or brighter) than some level, one block away from anything else", one of
        the nested sets that `_local_maps` yields is that map, whatever became of the rest of the image.
        """
        view = invariant_view(self._frame, self._lattice).samples
        for tile in tiles:
            if tile in self.packets:
                continue
            for roi in _local_maps(view, self.grid.window(tile)):
                if self._read_tile(tile, roi | fixed, self._trials.seen):
                    break

    def messages(self) -> Iterator[tuple[bytes, frozenset[int]]]:
        """Candidate messages, best evidence first, each with the tiles whose shards agree with it."""
        for needed in _by_frequency([packet.needed for packet in self.packets.values()]):
            yield from _decode([p for p in self.packets.values() if p.needed == needed], needed)

    def _read_tile(self, tile: int, roi: BoolArray, candidates: Iterable[Bands]) -> bool:
        """Try every (T, Z, length); on success keep the packet and write the tile's restored sites."""
        frame, window = self._frame, self.grid.window(tile)
        predictor = V1.predictor(self._lattice)
        sites = find_sites(frame, roi, window, self._lattice, predictor, self._words)
        if sites.index.size < _LENGTHS[0]:
            return False
        mac = _TileMac(frame, self.grid, tile, self._lattice, sites, self._keys)
        marked, mask = sites.values(frame.samples), self._masks[tile]
        for bands in tuple(candidates):
            values = marked.copy()
            bits, ends = remove(values, sites.predicted, frame.bounds, bands, 0, int(_LENGTHS[-1]))
            if bits.size < _LENGTHS[0] or not self._trials.plausible(int(np.packbits(bits[:8])[0] ^ mask[0])):
                continue
            authentic = _authenticated(mac, marked, values, bits, ends, mask)
            if authentic is None:
                continue
            values, head = authentic
            self.restored.reshape(-1)[sites.index] = values
            needed, shards = packets.unpack(head)
            self._trials.succeeded(bands, needed)
            self.packets[tile] = Packet(tile, needed, shards)
            return True
        return False


def band_candidates(max_change: int) -> list[Bands]:
    """Every (T, Z) that needs no header, in the order in which a reader tries them."""
    return [
        Bands(_UP, _DOWN, t, t << doubling, t << doubling)
        for t in V1.expansions
        if t <= max_change
        for doubling in range(V1.shift_doublings)
    ]


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
    packet = np.concatenate([head, mac.tag(values, head)])
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
            ">IHHHHBB", frame.number, row, col, *untouched.shape[1:], frame.channels, int(lattice)
        )
        self._hash = tile_mac(keys)
        self._hash.update(place)
        self._hash.update(untouched.tobytes())

    def tag(self, restored: IntArray, head: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """uint8 [4] over the place, the untouched pixels, the restored sites in coding order, and the head."""
        hash_ = self._hash.copy()
        hash_.update(restored.astype("<u2").tobytes())
        hash_.update(head.tobytes())
        return np.frombuffer(hash_.digest(), np.uint8)


def _window_without_sites(frame: Frame, window: Window, sites: Sites) -> npt.NDArray[np.uint16]:
    """The window's samples as little-endian uint16, the sites (whose values change) set to zero."""
    part = frame.samples[:, window.top : window.bottom, window.left : window.right].astype("<u2")
    channel, rest = np.divmod(sites.index, frame.rows * frame.cols)
    row, col = np.divmod(rest, frame.cols)
    part[channel, row - window.top, col - window.left] = 0
    return part


class _Trials:
    """The order in which bands are tried: what the last tile used comes first, for it mostly repeats.

    Once three packets agree on k, a tile that claims another k cannot belong to the same message, and is
    not worth a MAC.
    """

    def __init__(self) -> None:
        self.bands = band_candidates(V1.expansions[-1])
        self._seen = 0
        self._needed: list[int] = []

    @property
    def seen(self) -> list[Bands]:
        """The bands that any tile has used so far, latest first; all of them before the first success."""
        return self.bands[: self._seen] or self.bands

    def plausible(self, needed: int) -> bool:
        """Whether a packet of a `needed`-shard message may still be found here."""
        if needed == 0:
            return False
        agreed = len(self._needed) >= 3 and len(set(self._needed)) == 1
        return not agreed or needed == self._needed[0]

    def succeeded(self, bands: Bands, needed: int) -> None:
        """Remember what the tile just read used."""
        self._needed.append(needed)
        place = self.bands.index(bands)
        self._seen = max(self._seen, self._seen + (place >= self._seen))
        self.bands.insert(0, self.bands.pop(place))


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
    t, l, b, r = max(0, top - 1), max(0, left - 1), min(rows, bottom + 1), min(cols, right + 1)
    part = view[:, t * step : b * step, l * step : r * step].max(axis=0)
    highest = part.reshape(b - t, step, r - l, step).max(axis=(1, 3))
    low = int(highest.min()) if highest.size else 0
    padded = np.pad(highest, 1, constant_values=low)
    around = np.lib.stride_tricks.sliding_window_view(padded, (3, 3)).max(axis=(2, 3))
    return np.asarray(around[top - t : bottom - t, left - l : right - l])


def _authenticated(
    mac: _TileMac,
    marked: IntArray,
    restored: IntArray,
    bits: BitArray,
    ends: IndexArray,
    mask: npt.NDArray[np.uint8],
) -> tuple[IntArray, npt.NDArray[np.uint8]] | None:
    """(restored site values, packet head) of the one packet length whose MAC is right."""
    for length in _LENGTHS:
        if bits.size < length:
            return None
        end = ends[length - 1]
        values = np.concatenate([restored[:end], marked[end:]])
        packet = np.packbits(bits[:length]) ^ mask[: length // 8]
        head = packet[: -V1.mac_bytes]
        if (mac.tag(values, head) == packet[-V1.mac_bytes :]).all():
            return values, head
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
