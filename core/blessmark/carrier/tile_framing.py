"""Tile framing: one short authenticated packet a tile, erasure-coded across tiles.

Packet = [k | shards | MAC], masked. k is the number of data shards of the message, the shards are
Reed-Solomon points of it, the MAC covers k, the shards, where the tile is *and its restored pixels, ROI
included*: what authenticates is the place, the message and the picture at once. No header: the reader
finds (T, Z, length) by trial and the MAC decides (docs/format/v1.md section 5).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from blessmark.carrier.lattice import (
    Bands,
    Taken,
    cheapest,
    insert_all,
    peek,
    table_of,
    take,
)
from blessmark.carrier.sites import IndexArray, Sites, SiteTable, Window, find_all_sites
from blessmark.jit import compiled
from blessmark.payload import erasure, packets
from blessmark.payload.crypto import DerivedKeys, order_words, packet_masks, tile_mac
from blessmark.profile import V1
from blessmark.types import BoolArray, Frame, IntArray, Lattice
from blessmark.view import invariant_view

#: A hit of up to 193 x 193 pixels touches at most this many tiles in a row and in a column.
_HIT_TILES = 4
#: How many times the needed shards must be left after such a hit.
_RESERVE = 2
#: Of so many tiles of a marked frame one is searched for its sites again.
_LOOKED_AT = 8
#: Share of shards beyond the message that must fit, at least (numerator / denominator).
_PARITY = (5, 4)

_LENGTHS: IndexArray = np.array([V1.packet_bits(j) for j in V1.shards_per_packet], np.int64)
_SHARDS: IndexArray = np.array(V1.shards_per_packet, np.int64)
_SIZES = [int(bits) // 8 for bits in _LENGTHS]
_UP, _DOWN = 0, -1
#: frame number, tile row, tile column, window rows, window columns, channels, lattice, sites
_PLACE = struct.Struct(">IHHHHBBH")
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

    def boxes(self, tiles: IndexArray) -> IndexArray:
        """int64 [n, 4]: top, left, bottom, right of each of `tiles`."""
        top, left = (V1.tile_px * part for part in np.divmod(tiles, self.shape[1]))
        bottom = np.minimum(top + V1.tile_px, self.rows)
        return np.stack([top, left, bottom, np.minimum(left + V1.tile_px, self.cols)], axis=1)

    def usable(self, roi: BoolArray) -> BoolArray:
        """bool [tiles]: whether each is large enough and holds at least one NROI block."""
        side, (high, wide) = V1.tile_px // V1.block_px, self.shape
        free = np.zeros((high * side, wide * side), np.bool_)
        free[: roi.shape[0], : roi.shape[1]] = ~roi
        holds = np.asarray(free.reshape(high, side, wide, side).any(axis=(1, 3)))
        holds[self.rows - V1.tile_px * np.arange(high) < V1.min_tile_px] = False
        holds[:, self.cols - V1.tile_px * np.arange(wide) < V1.min_tile_px] = False
        return holds.reshape(-1)


@dataclass(frozen=True, slots=True)
class Survey:
    """Tiles of a frame under one map, and their sites; they are the same in the marked frame."""

    tiles: IndexArray
    table: SiteTable


@dataclass(frozen=True, slots=True)
class TilePlan:
    """What one tile can carry: for each packet size the row of its cheapest bands in `_TRIAL_TABLE`, else -1.

    `place` is the number of the tile in the survey.
    """

    tile: int
    place: int
    bands: IndexArray


@dataclass(frozen=True, slots=True)
class Plan:
    """What a frame can carry in tile framing on one lattice."""

    frame: Frame
    roi: BoolArray
    lattice: Lattice
    grid: TileGrid
    tiles: tuple[TilePlan, ...]
    survey: Survey
    macs: _Macs
    words: npt.NDArray[np.uint32]

    def holds_in(self, marked: Frame, turn: int) -> bool:
        """Whether a reader of `marked` finds the sites of this plan, in order and with their predictions.

        One tile in `_LOOKED_AT` is looked at, one at least; `turn`, any number, says which.
        """
        survey = self.survey
        step = min(_LOOKED_AT, len(survey.tiles))
        places = np.arange(turn % step, len(survey.tiles), step)
        again = _survey(marked, self.roi, self.grid, survey.tiles[places], self.lattice, self.words).table
        return all(again.of(n).same_as(survey.table.of(place)) for n, place in enumerate(places.tolist()))

    @property
    def capacity_shards(self) -> int:
        return int(_SHARDS[_largest(self.tiles)[-1]].sum()) if self.tiles else 0


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
    survey = _survey(frame, roi, grid, np.flatnonzero(grid.usable(roi)), lattice, words)
    values, bands = survey.table.every.values(frame.samples), table_of(band_candidates(max_change))
    best = cheapest(values, survey.table, frame.bounds, bands, _LENGTHS)
    tiles = tuple(
        TilePlan(int(survey.tiles[place]), place, best[place])
        for place in np.flatnonzero((best >= 0).any(axis=1)).tolist()
    )
    return Plan(frame, roi, lattice, grid, tiles, survey, _Macs(frame, grid, survey, lattice, keys), words)


def _survey(
    frame: Frame,
    roi: BoolArray,
    grid: TileGrid,
    tiles: IndexArray,
    lattice: Lattice,
    words: npt.NDArray[np.uint32],
) -> Survey:
    table = find_all_sites(frame, roi, grid.boxes(tiles), lattice, V1.predictor(lattice), words)
    return Survey(tiles, table)


def embed(plan: Plan, keys: DerivedKeys, message: bytes, *, resilient: bool) -> IntArray | None:
    """The marked samples, or None when the message with its parity does not fit; `plan.frame` is not touched.

    `resilient` asks for more: after the loss of any 4 x 4 tiles (every hit of up to 193 x 193 pixels) there
    must be twice the shards left that the message needs, for a hit also makes the map change around it.
    """
    data = packets.shards_of(message)
    sizes = _packet_sizes(plan, len(data), resilient)
    if sizes is None:
        return None
    marked, table = plan.frame.samples.copy(), plan.survey.table
    content = np.zeros((len(plan.survey.tiles), _SIZES[-1]), np.uint8)
    bits, bands = np.zeros(len(content), np.int64), np.zeros((len(content), 5), np.int64)
    for tile, size, packet in zip(plan.tiles, sizes, _packets_of(plan, data, sizes), strict=True):
        content[tile.place, : len(packet)] = np.frombuffer(packet, np.uint8)
        bits[tile.place], bands[tile.place] = _LENGTHS[size], _TRIAL_TABLE[tile.bands[size]]
    content ^= packet_masks(keys, plan.frame.number, plan.lattice, len(plan.grid))[
        plan.survey.tiles, : _SIZES[-1]
    ]
    insert_all(marked, table, plan.frame.bounds, bands, content, bits)
    return marked


def _packets_of(plan: Plan, data: npt.NDArray[np.uint16], sizes: list[int]) -> Iterator[bytes]:
    """The packet of every planned tile, not yet masked."""
    counts = [V1.shards_per_packet[size] for size in sizes]
    points = [packets.points(tile.tile, count) for tile, count in zip(plan.tiles, counts, strict=True)]
    shards = np.split(erasure.encode(data, np.concatenate(points)), np.cumsum(counts)[:-1])
    values = plan.survey.table.every.values(plan.frame.samples).astype("<u2").tobytes()
    starts = plan.survey.table.starts
    for tile, part in zip(plan.tiles, shards, strict=True):
        head = packets.pack(len(data), part).tobytes()
        own = values[2 * starts[tile.place] : 2 * starts[tile.place + 1]]
        yield head + plan.macs.tag(tile.place, head, own)


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

    def __init__(self, frame: Frame, lattice: Lattice, keys: DerivedKeys, *, of: Plan | None = None) -> None:
        """`of` is the plan that `frame` was marked by, where its sender reads it back.

        Sites and what else the plan knows depend on pixels that embedding leaves alone, and the sender has
        made sure that it did; so they are taken from there instead of being found a second time.
        """
        self.grid = TileGrid(frame.rows, frame.cols)
        self.packets: dict[int, Packet] = {}
        self.restored = frame.samples
        self._frame, self._lattice, self._keys, self._plan = frame, lattice, keys, of
        self._masks: npt.NDArray[np.uint8] | None = None
        self._words: npt.NDArray[np.uint32] | None = None
        self._tried: set[tuple[int, bytes]] = set()
        self._order, self._sizes = list(range(len(_TRIALS))), list(range(len(_SIZES)))

    def read(self, roi: BoolArray, *, patience: int | None = None) -> None:
        """Look for packets in every tile of `roi` that has not given one yet.

        Tiles of one message claim the same k, so what most tiles claim is tried first. `patience` ends the
        search after so many vain tries; by the map that was embedded with it must be None, or a few packets
        amid many tiles without one would be given up.
        """
        openings = self._open(roi, range(len(self.grid)))
        claimed = np.zeros((len(openings), _MOST_CLAIMED + 1), np.bool_)
        for row, opening in enumerate(openings):
            claimed[row, opening.claims] = True
        tries, unread = 0, len(openings)
        for needed in _by_claims(claimed, self._known()):
            for row in np.flatnonzero(claimed[:, needed]).tolist():
                if self._read_packet(openings[row], needed):
                    claimed[row] = False
                    unread -= 1
                else:
                    tries += 1
            if unread == 0 or (patience is not None and tries >= patience):
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

    def _open(self, roi: BoolArray, tiles: Iterable[int]) -> list[_Opening]:
        """What each of `tiles` that is usable and new under `roi` claims."""
        usable, new = self.grid.usable(roi), []
        for tile in tiles:
            if not usable[tile] or tile in self.packets:
                continue
            trial = (tile, self.grid.blocks(tile, roi).tobytes())
            if trial not in self._tried:
                self._tried.add(trial)
                new.append(tile)
        return self._claims_of(*self._surveyed(roi, new)) if new else []

    def _surveyed(self, roi: BoolArray, tiles: list[int]) -> tuple[Survey, _Macs]:
        plan, frame = self._plan, self._frame
        if plan is not None and plan.roi is roi and len(plan.survey.tiles) == len(tiles):
            return plan.survey, plan.macs
        numbers = np.array(tiles, np.int64)
        survey = _survey(frame, roi, self.grid, numbers, self._lattice, self._site_words())
        return survey, _Macs(frame, self.grid, survey, self._lattice, self._keys)

    def _claims_of(self, survey: Survey, macs: _Macs) -> list[_Opening]:
        """The tiles of a survey that have sites enough for a packet."""
        table, openings = survey.table, []
        values = table.every.values(self._frame.samples)
        heads = peek(values, table, self._frame.bounds, _TRIAL_TABLE, 8)
        claims = np.where(heads < 0, 0, heads ^ self._tile_masks()[survey.tiles, :1])
        for place in np.flatnonzero(np.diff(table.starts) >= _LENGTHS[0]).tolist():
            tile, part = int(survey.tiles[place]), slice(table.starts[place], table.starts[place + 1])
            own = claims[place].tolist()
            openings.append(_Opening(tile, place, table.of(place), values[part], own, macs))
        return openings

    def _tile_masks(self) -> npt.NDArray[np.uint8]:
        if self._masks is None:
            self._masks = packet_masks(self._keys, self._frame.number, self._lattice, len(self.grid))
        return self._masks

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
        for trial in [trial for trial in self._order if opening.claims[trial] == needed]:
            predicted = opening.sites.predicted
            taken = take(opening.values, predicted, self._frame.bounds, _TRIALS[trial], _LENGTHS)
            authentic = self._authenticated(opening, taken)
            if authentic is not None:
                _to_front(self._order, trial)
                self._keep(opening, *authentic)
                return True
        return False

    def _authenticated(
        self, opening: _Opening, taken: Taken
    ) -> tuple[IntArray, npt.NDArray[np.uint8]] | None:
        """(restored site values, packet head) of the one packet length whose MAC is right."""
        before, after = (values.astype("<u2").tobytes() for values in (taken.restored, opening.values))
        mask, ends = self._tile_masks()[opening.tile, : taken.content.size], taken.ends.tolist()
        packet = (taken.content ^ mask).tobytes()
        for size in [size for size in self._sizes if ends[size] > 0]:
            end, length = ends[size], _SIZES[size]
            head, tag = packet[: length - V1.mac_bytes], packet[length - V1.mac_bytes : length]
            if opening.macs.tag(opening.place, head, before[: 2 * end], after[2 * end :]) == tag:
                _to_front(self._sizes, size)
                restored = np.concatenate([taken.restored[:end], opening.values[end:]])
                return restored, np.frombuffer(head, np.uint8)
        return None

    def _keep(self, opening: _Opening, values: IntArray, head: npt.NDArray[np.uint8]) -> None:
        if not self.packets:
            self.restored = self._frame.samples.copy()
        self.restored.reshape(-1)[opening.sites.index] = values
        needed, shards = packets.unpack(head)
        self.packets[opening.tile] = Packet(opening.tile, needed, shards)


@dataclass(frozen=True, slots=True)
class _Opening:
    """One tile under one map: its sites, their marked values, and what each of `_TRIALS` would have it claim.

    `place` is its number in the survey that `macs` are for. `claims` holds a k for each trial, 0 where a
    trial finds too few bits.
    """

    tile: int
    place: int
    sites: Sites
    values: IntArray
    claims: list[int]
    macs: _Macs


def _to_front(order: list[int], found: int) -> None:
    """What was right for one tile is tried first for the next."""
    order.insert(0, order.pop(order.index(found)))


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
_TRIAL_TABLE = table_of(_TRIALS)


def _largest(tiles: Sequence[TilePlan]) -> IndexArray:
    """int64 [sizes, tiles]: position of the largest packet that fits each tile, up to each of the sizes.

    Where a packet fits, so does every smaller one.
    """
    fits = np.array([tile.bands >= 0 for tile in tiles], np.int64).reshape(-1, len(_LENGTHS))
    return np.asarray(fits.cumsum(axis=1).T - 1)


def _packet_sizes(plan: Plan, needed: int, resilient: bool) -> list[int] | None:
    """Which packet size every tile carries, as positions in `shards_per_packet`; None when too few fit.

    Every usable tile is filled, with packets no larger than resilience takes, or with the largest that fit
    when that does not suffice and `resilient` does not insist.
    """
    total, sizes = 0, np.zeros(0, np.int64)
    numbers = np.array([tile.tile for tile in plan.tiles], np.int64)
    for sizes in _largest(plan.tiles):
        shards = np.zeros(len(plan.grid), np.int64)
        shards[numbers] = _SHARDS[sizes]
        total = int(shards.sum())
        if total - _heaviest_hit(shards.reshape(plan.grid.shape)) >= _RESERVE * needed:
            return list(sizes.tolist())
    chosen: list[int] = sizes.tolist()
    if resilient or total * _PARITY[1] < needed * _PARITY[0] or _distinct_points(plan, chosen) < needed:
        return None
    return chosen


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


class _Macs:
    """MACs of the tiles of one survey; everything that no trial changes is hashed once, when first asked for.

    That part is the place and the untouched pixels, so it is the same for a frame and for what was embedded
    into it.
    """

    def __init__(
        self, frame: Frame, grid: TileGrid, survey: Survey, lattice: Lattice, keys: DerivedKeys
    ) -> None:
        self._frame, self._grid, self._survey, self._lattice = frame, grid, survey, lattice
        self._fresh = tile_mac(keys)
        self._hashes: dict[int, hashlib.blake2b] = {}

    def tag(self, place: int, head: bytes, *restored: bytes) -> bytes:
        """4 bytes over the place, the untouched pixels, the restored sites in coding order and the head.

        `restored` is uint16, little-endian, in as many parts as the caller has.
        """
        if place not in self._hashes:
            self._hashes[place] = self._begun(place)
        hash_ = self._hashes[place].copy()
        for part in restored:
            hash_.update(part)
        hash_.update(head)
        return hash_.digest()

    def _begun(self, place: int) -> hashlib.blake2b:
        frame, tile = self._frame, int(self._survey.tiles[place])
        window, sites = self._grid.window(tile), self._survey.table.of(place)
        box = (window.top, window.left, window.bottom, window.right)
        untouched = _without_sites(frame.samples, *box, sites.index)
        row, col = divmod(tile, self._grid.shape[1])
        shape = (*untouched.shape[1:], frame.channels)
        hash_ = self._fresh.copy()
        hash_.update(_PLACE.pack(frame.number, row, col, *shape, int(self._lattice), sites.index.size))
        hash_.update(untouched.astype("<u2", copy=False).data)
        return hash_


@compiled
def _without_sites(
    samples: IntArray, top: int, left: int, bottom: int, right: int, index: IndexArray
) -> npt.NDArray[np.uint16]:
    """The window's samples as uint16, the sites (whose values change) set to zero."""
    channels, rows, cols = samples.shape
    part = np.empty((channels, bottom - top, right - left), np.uint16)
    for channel in range(channels):
        for r in range(top, bottom):
            for c in range(left, right):
                part[channel, r - top, c - left] = samples[channel, r, c] & 0xFFFF
    for i in range(index.size):
        row, col = index[i] // cols, index[i] % cols
        part[row // rows, row % rows - top, col - left] = 0
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


def _by_frequency(values: list[int]) -> list[int]:
    return sorted(set(values), key=lambda value: (-values.count(value), value))


def _decode(found: list[Packet], needed: int) -> Iterator[tuple[bytes, frozenset[int]]]:
    points = np.concatenate([packets.points(p.tile, len(p.shards)) for p in found])
    shards = np.concatenate([p.shards for p in found])
    owners = np.concatenate([np.full(len(p.shards), p.tile, np.int64) for p in found])
    for decoded in erasure.decode(points, shards, needed, groups=owners):
        disagreeing = set(owners[~decoded.agrees].tolist())
        yield packets.message_of(decoded.data), frozenset(set(owners.tolist()) - disagreeing)
