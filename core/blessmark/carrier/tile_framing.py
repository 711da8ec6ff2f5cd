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
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from blessmark.carrier.lattice import (
    Bands,
    BitArray,
    cheapest,
    fitting,
    insert_all,
    peek,
    table_of,
    take_all,
)
from blessmark.carrier.sites import (
    IndexArray,
    PlaceArray,
    SiteTable,
    Window,
    find_all_sites,
    put_at,
    untouched,
)
from blessmark.jit import compiled
from blessmark.payload import erasure, packets
from blessmark.payload.crypto import DerivedKeys, order_words, packet_masks, tile_mac
from blessmark.planes import PlaneArray, little_endian, low_words
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
#: by the position of a packet size, and 0 for -1, which says that there is no packet
_SHARDS: IndexArray = np.array((*V1.shards_per_packet, 0), np.int64)
_BITS: IndexArray = np.append(_LENGTHS, 0)
_SIZES = [int(bits) // 8 for bits in _LENGTHS]
_UP, _DOWN = 0, -1
#: frame number, tile row, tile column, window rows, window columns, channels, lattice, sites
_PLACE = struct.Struct(">IHHHHBBH")
#: The greatest k that a packet can claim.
_MOST_CLAIMED = 255
#: Of so many tiles at most packets are taken ahead of being asked.
_AHEAD = 64
#: Of so many tiles the untouched pixels are cut out at once: 64 kB where the frame has one channel.
_CUT_AT_ONCE = 8


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

    def boxes(self, tiles: IndexArray) -> IndexArray:
        """int64 [n, 4]: top, left, bottom, right of each of `tiles`."""
        top, left = (V1.tile_px * part for part in np.divmod(tiles, self.shape[1]))
        bottom = np.minimum(top + V1.tile_px, self.rows)
        return np.stack([top, left, bottom, np.minimum(left + V1.tile_px, self.cols)], axis=1)

    def prints(self, roi: BoolArray) -> BoolArray:
        """bool [tiles, 64]: the blocks of every tile; ROI where an edge leaves none."""
        side, (high, wide) = V1.tile_px // V1.block_px, self.shape
        whole = np.ones((high * side, wide * side), np.bool_)
        whole[: roi.shape[0], : roi.shape[1]] = roi
        return whole.reshape(high, side, wide, side).swapaxes(1, 2).reshape(len(self), side * side)

    def usable(self, roi: BoolArray) -> BoolArray:
        """bool [tiles]: whether each is large enough and holds at least one NROI block."""
        holds = np.asarray(~self.prints(roi).all(axis=1).reshape(self.shape))
        if self.rows % V1.tile_px and self.rows % V1.tile_px < V1.min_tile_px:
            holds[-1] = False
        if self.cols % V1.tile_px and self.cols % V1.tile_px < V1.min_tile_px:
            holds[:, -1] = False
        return np.asarray(holds.reshape(-1))


@dataclass(frozen=True, slots=True)
class Survey:
    """Tiles of a frame under one map, and their sites; they are the same in the marked frame."""

    tiles: IndexArray
    table: SiteTable


@dataclass(frozen=True, slots=True)
class Plan:
    """What a frame can carry in tile framing on one lattice.

    Attributes
    ----------
    values : int16, what the frame's planes hold at the sites of the survey
    bands : int64 [n, 5], what may be used, the first rows of `_TRIAL_TABLE`
    fits : int64 [tiles of the survey], how many of the packet sizes fit each
    """

    frame: Frame
    roi: BoolArray
    lattice: Lattice
    grid: TileGrid
    survey: Survey
    values: PlaneArray
    bands: IndexArray
    fits: IndexArray
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
    def tiles(self) -> list[int]:
        """The tiles that can carry a packet."""
        return list(self.survey.tiles[self.fits > 0].tolist())

    @property
    def capacity_shards(self) -> int:
        return int(_SHARDS[self.fits - 1].sum())


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet whose MAC is right, read from a marked frame: k and the shards, as they stand in it."""

    tile: int
    needed: int
    content: bytes

    @property
    def count(self) -> int:
        """How many shards it holds."""
        return len(self.content) // V1.shard_bytes


def plan(frame: Frame, roi: BoolArray, lattice: Lattice, keys: DerivedKeys, max_change: int) -> Plan:
    """Find the sites of every tile and the packet sizes that fit; no sample moves more than `max_change`."""
    grid = TileGrid(frame.rows, frame.cols)
    words = order_words(keys, frame.number, lattice, frame.rows, frame.cols)
    survey = _survey(frame, roi, grid, np.flatnonzero(grid.usable(roi)), lattice, words)
    values, bands = survey.table.every.values(frame.planes), _bands_to(min(max_change, V1.expansions[-1]))
    fits = fitting(values, survey.table, frame.plane_bounds, bands, _LENGTHS)
    macs = _Macs(frame, roi, grid, survey, lattice, keys)
    return Plan(frame, roi, lattice, grid, survey, values, bands, fits, macs, words)


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


def embed(plan: Plan, keys: DerivedKeys, message: bytes, *, resilient: bool) -> Frame | None:
    """The marked frame, or None when the message with its parity does not fit; `plan.frame` is not touched.

    `resilient` asks for more: after the loss of any 4 x 4 tiles (every hit of up to 193 x 193 pixels) there
    must be twice the shards left that the message needs, for a hit also makes the map change around it.
    """
    data = packets.shards_of(message)
    sizes = _packet_sizes(plan, len(data), resilient)
    if sizes is None:
        return None
    marked, table, bounds = plan.frame.planes.copy(), plan.survey.table, plan.frame.plane_bounds
    bits = _BITS[sizes]
    bands = _TRIAL_TABLE[cheapest(plan.values, table, bounds, plan.bands, bits)]
    content = _packets_of(plan, data, sizes)
    content ^= packet_masks(keys, plan.frame.number, plan.lattice, len(plan.grid))[
        plan.survey.tiles, : _SIZES[-1]
    ]
    insert_all(marked, table, bounds, bands, content, bits)
    return plan.frame.with_planes(marked)


def _packets_of(plan: Plan, data: npt.NDArray[np.uint16], sizes: IndexArray) -> BitArray:
    """uint8 [tiles of the survey, 101]: the packet of every tile with a size, not yet masked."""
    counts = _SHARDS[sizes]
    shards = erasure.encode(data, packets.points(plan.survey.tiles, counts))
    content = np.zeros((len(counts), _SIZES[-1]), np.uint8)
    _fill(content, len(data), counts, shards)
    places = np.flatnonzero(counts)
    ends = 1 + V1.shard_bytes * counts[places]
    tags = _tags_of(plan, content, places, ends)
    content[places[:, None], ends[:, None] + np.arange(V1.mac_bytes)] = tags
    return content


def _tags_of(plan: Plan, content: BitArray, places: IndexArray, ends: IndexArray) -> BitArray:
    """uint8 [places, 4]: the MACs of packets that end before `ends` and lie on the plan's own values."""
    heads, own = content.reshape(-1).data, _bytes_of(plan.values, plan.frame)
    starts, tag = (2 * plan.survey.table.starts).tolist(), plan.macs.tag
    plan.macs.begin(places.tolist())
    tags = [
        tag(
            place,
            heads[_SIZES[-1] * place : _SIZES[-1] * place + end],
            own[starts[place] : starts[place + 1]],
        )
        for place, end in zip(places.tolist(), ends.tolist(), strict=True)
    ]
    return np.frombuffer(b"".join(tags), np.uint8).reshape(-1, V1.mac_bytes)


def _bytes_of(values: PlaneArray, frame: Frame) -> memoryview:
    """The lowest two bytes of each sample, of what stands in the planes of a frame."""
    return little_endian(low_words(values, frame.shift))


@compiled
def _fill(content: BitArray, needed: int, counts: IndexArray, shards: npt.NDArray[np.uint16]) -> None:
    """Write k and the shards, the higher byte first, of every packet that has shards."""
    taken = 0
    for place in range(len(counts)):
        if counts[place] == 0:
            continue
        content[place, 0] = needed
        at = 1
        for j in range(taken, taken + counts[place]):
            for c in range(shards.shape[1]):
                content[place, at], content[place, at + 1] = shards[j, c] >> 8, shards[j, c] & 255
                at += 2
        taken += counts[place]


class Reader:
    """Finds packets in a marked frame, tile by tile, by whatever map its caller proposes.

    A packet proves by its MAC that the map was right where it lies, so maps may simply be tried: first the
    segmenter's, then, where an image was damaged so that its segmenter sees it differently now, others. No
    tile is tried twice by the same map.

    Attributes
    ----------
    packets : tile number -> the packet that authenticates there
    restored : the frame with those tiles restored
    """

    def __init__(self, frame: Frame, lattice: Lattice, keys: DerivedKeys, *, of: Plan | None = None) -> None:
        """`of` is the plan that `frame` was marked by, where its sender reads it back.

        Sites and what else the plan knows depend on pixels that embedding leaves alone, and the sender has
        made sure that it did; so they are taken from there instead of being found a second time.
        """
        self.grid = TileGrid(frame.rows, frame.cols)
        self.packets: dict[int, Packet] = {}
        self._restored, self._taken_off = frame, list[tuple[PlaceArray, PlaneArray]]()
        self._frame, self._lattice, self._keys, self._plan = frame, lattice, keys, of
        self._masks: npt.NDArray[np.uint8] | None = None
        self._words: npt.NDArray[np.uint32] | None = None
        self._tried: set[tuple[int, bytes]] = set()
        self._order, self._sizes = list(range(len(_TRIALS))), list(range(len(_SIZES)))

    @property
    def restored(self) -> Frame:
        """The frame; the tiles of its packets restored."""
        if self._taken_off:
            planes = self._restored.planes.copy()
            for places, values in self._taken_off:
                put_at(planes.reshape(-1), places, values)
            self._restored = self._frame.with_planes(planes)
            self._taken_off.clear()
        return self._restored

    def read(self, roi: BoolArray, *, patience: int | None = None) -> None:
        """Look for packets in every tile of `roi` that has not given one yet.

        Tiles of one message claim the same k, so what most tiles claim is tried first. `patience` ends the
        search after so many vain tries; by the map that was embedded with it must be None, or a few packets
        amid many tiles without one would be given up.
        """
        opening = self._open_all(roi)
        if opening is not None:
            claimed, tries, unread = opening.claimed(), 0, len(opening.places)
            for needed in _by_claims(claimed, self._known()):
                places = np.flatnonzero(claimed[:, needed]).tolist()
                opening.macs.begin(places)
                for number, place in enumerate(places):
                    if self._read_packet(opening, place, needed, places[number + 1 :]):
                        claimed[place] = False
                        unread -= 1
                    else:
                        tries += 1
                if unread == 0 or (patience is not None and tries >= patience):
                    break
        self._forget_order()

    def read_only(self, roi: BoolArray, needed: int) -> None:
        """`read` for packets of one k alone; costs hardly anything where there are none."""
        opening = self._open(roi, range(len(self.grid)))
        if opening is not None:
            for place in opening.places:
                self._read_packet(opening, place, needed, ())
        self._forget_order()

    def retry(self, roi: BoolArray, tiles: Iterable[int]) -> None:
        """Look for packets of the messages known so far in those of `tiles` that have not given one yet."""
        known = self._known()
        opening = self._open(roi, tiles)
        if opening is not None:
            for place in opening.places:
                any(self._read_packet(opening, place, needed, ()) for needed in known)

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

    def _open_all(self, roi: BoolArray) -> _Opening | None:
        """`_open` for every tile; for the first time by the map of a plan, its survey is theirs."""
        plan = self._plan
        if plan is not None and plan.roi is roi and not self._tried and plan.survey.tiles.size:
            return self._claims_of(plan.survey, plan.macs)
        return self._open(roi, range(len(self.grid)))

    def _open(self, roi: BoolArray, tiles: Iterable[int]) -> _Opening | None:
        """What those of `tiles` that are usable and new under `roi` claim; None if there are none."""
        prints, usable = self.grid.prints(roi), self.grid.usable(roi).tolist()
        width, blocks = prints.shape[1], prints.tobytes()
        new = []
        for tile in tiles:
            if not usable[tile] or tile in self.packets:
                continue
            trial = (tile, blocks[width * tile : width * tile + width])
            if trial not in self._tried:
                self._tried.add(trial)
                new.append(tile)
        return self._claims_of(*self._surveyed(roi, new)) if new else None

    def _surveyed(self, roi: BoolArray, tiles: list[int]) -> tuple[Survey, _Macs]:
        frame, numbers = self._frame, np.array(tiles, np.int64)
        survey = _survey(frame, roi, self.grid, numbers, self._lattice, self._site_words())
        return survey, _Macs(frame, roi, self.grid, survey, self._lattice, self._keys)

    def _claims_of(self, survey: Survey, macs: _Macs) -> _Opening:
        """What the tiles of a survey claim; those with sites enough for a packet are its places."""
        table, bounds = survey.table, self._frame.plane_bounds
        values, masks = table.every.values(self._frame.planes), self._tile_masks()[survey.tiles]
        heads = peek(values, table, bounds, _TRIAL_TABLE, 8)
        claims = np.where(heads < 0, 0, heads ^ masks[:, :1])
        places = np.flatnonzero(np.diff(table.starts) >= _LENGTHS[0]).tolist()
        ahead = _Ahead(values, self._frame, table, masks, claims)
        tiles = survey.tiles.tolist()
        return _Opening(macs, table.every.index, tiles, claims, claims.tolist(), places, ahead)

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

    def _read_packet(self, opening: _Opening, place: int, needed: int, following: Sequence[int]) -> bool:
        """Try all bands under which the tile claims `needed` and every length; on success keep the packet.

        `following` are the places that will be asked for next.
        """
        claims = opening.listed[place]
        for trial in self._order:
            if claims[trial] == needed and self._read_by(opening, place, trial, following):
                _to_front(self._order, trial)  # which ends the loop over it, too
                return True
        return False

    def _read_by(self, opening: _Opening, place: int, trial: int, following: Sequence[int]) -> bool:
        """Try the length that was right last, then all others, of which hardly any is taken for nothing."""
        sizes, ahead = self._sizes, opening.ahead
        if not self.packets:  # no length is likelier than another, so what follows is not taken ahead by one
            return self._keep(opening, ahead.of(place, trial, len(sizes) - 1, ()), place, sizes)
        found = ahead.of(place, trial, sizes[0], following)
        return self._keep(opening, found, place, sizes[:1]) or self._keep(
            opening, ahead.of(place, trial, len(sizes) - 1, ()), place, sizes[1:]
        )

    def _keep(self, opening: _Opening, found: _Found, place: int, sizes: list[int]) -> bool:
        """Keep the packet of the first of `sizes` whose MAC is right; whether there is one."""
        for size in sizes:
            end, length = found.ends[size], _SIZES[size]
            if end == 0:
                continue
            head, tag = found.packet[: length - V1.mac_bytes], found.packet[length - V1.mac_bytes : length]
            if opening.macs.tag(place, head, found.before[: 2 * end], found.after[2 * end :]) == tag:
                _to_front(self._sizes, size)
                tile, start = opening.tiles[place], opening.ahead.starts[place]
                self._taken_off.append((opening.index[start : start + end], found.restored[:end]))
                self.packets[tile] = Packet(tile, head[0], head[1:])
                return True
        return False


@dataclass(frozen=True, slots=True)
class _Opening:
    """Tiles under one map: what each of `_TRIALS` would have each of them claim.

    `claims` is int64 [tiles of the survey, trials], a k for each trial and 0 where it finds too few bits;
    `listed` is the same as lists. `index` are the sites of all of them in coding order, `tiles` their
    numbers; `places` are the tiles with sites enough for a packet, by their place in the survey.
    """

    macs: _Macs
    index: PlaceArray
    tiles: list[int]
    claims: IndexArray
    listed: list[list[int]]
    places: list[int]
    ahead: _Ahead

    def claimed(self) -> BoolArray:
        """bool [tiles of the survey, 256]: which k some trial would have each tile claim."""
        claimed = np.zeros((len(self.claims), _MOST_CLAIMED + 1), np.bool_)
        places = np.array(self.places, np.int64)
        claimed[places[:, None], self.claims[places]] = True
        return claimed


class _Found(NamedTuple):
    """What one trial takes off one tile.

    Attributes
    ----------
    packet : the bytes, unmasked; as many as were asked for
    ends : for each packet size the site after the one with its last bit; 0 where there are not that many
    restored : int16, what planes hold at the sites before the last end
    before, after : the values of all sites, uint16, little-endian: restored, and as they are
    """

    packet: bytes
    ends: list[int]
    restored: PlaneArray
    before: memoryview
    after: memoryview


class _Ahead:
    """Takes packets off the tiles of a survey, ahead of being asked as long as it is asked as foreseen.

    What was right for one tile is tried first for the next, and mostly is right: then the tiles that follow
    are done in one call, four times as many each time. What is foreseen wrongly is done again.
    """

    def __init__(
        self, values: PlaneArray, frame: Frame, table: SiteTable, masks: BitArray, claims: IndexArray
    ) -> None:
        self._values, self._frame, self._table, self._masks = values, frame, table, masks
        self._claims, self._after, self.starts = claims, _bytes_of(values, frame), table.starts.tolist()
        self._foreseen: dict[int, tuple[int, int, _Found]] = {}
        self._width = 1

    def of(self, place: int, trial: int, size: int, following: Sequence[int]) -> _Found:
        """What `trial` takes off one tile, up to packets of that size.

        `following` will be asked for next, those by the same trial by which it claims the same k.
        """
        foreseen = self._foreseen.pop(place, None)
        if foreseen is not None and foreseen[:2] == (trial, size):
            return foreseen[2]
        if not following:
            return next(self._taken([place], trial, size))
        self._width = 1 if foreseen is not None else min(4 * self._width, _AHEAD)
        next_, needed = following[: self._width - 1], self._claims[place, trial]
        places = [place, *(each for each in next_ if self._claims[each, trial] == needed)]
        taken = self._taken(places, trial, size)
        first = next(taken)
        self._foreseen = {each: (trial, size, found) for each, found in zip(places[1:], taken, strict=True)}
        return first

    def _taken(self, places: list[int], trial: int, size: int) -> Iterator[_Found]:
        windows = np.array(places, np.int64)
        lengths = _LENGTHS[: size + 1]
        bounds = self._frame.plane_bounds
        taken = take_all(self._values, self._table, windows, bounds, _TRIALS[trial], lengths)
        width = taken.content.shape[1]
        content = (taken.content ^ self._masks[windows, :width]).tobytes()
        before, own = _bytes_of(taken.restored, self._frame), taken.starts.tolist()
        starts, ends = self.starts, taken.ends.tolist()
        for row, place in enumerate(places):
            start, end = own[row], own[row + 1]
            yield _Found(
                content[width * row : width * row + width],
                ends[row] + [0] * (len(_SIZES) - len(lengths)),
                taken.restored[start:end],
                before[2 * start : 2 * end],
                self._after[2 * starts[place] : 2 * starts[place + 1]],
            )


def _to_front(order: list[int], found: int) -> None:
    """What was right for one tile is tried first for the next."""
    if order[0] != found:
        order.insert(0, order.pop(order.index(found)))


def _by_claims(claimed: BoolArray, known: list[int]) -> list[int]:
    """Every k that a tile claims, those of `known` first, then those that most tiles claim."""
    counts = claimed.sum(axis=0).tolist()
    ranked = sorted(
        (needed for needed in range(1, len(counts)) if counts[needed]), key=lambda needed: -counts[needed]
    )
    return known + [needed for needed in ranked if needed not in known]


def band_candidates(max_change: int) -> list[Bands]:
    """Every (T, Z) that needs no header, in the order in which a reader tries them."""
    return [
        Bands(_UP, _DOWN, t, t << doubling, t << doubling)
        for t in V1.expansions
        if t <= max_change
        for doubling in range(V1.shift_doublings)
    ]


@lru_cache(maxsize=16)
def _bands_to(max_change: int) -> IndexArray:
    """The rows of `_TRIAL_TABLE` that move no sample further; not to be written to."""
    return table_of(band_candidates(max_change))


#: What a reader tries.
_TRIALS = band_candidates(V1.expansions[-1])
_TRIAL_TABLE = table_of(_TRIALS)


def _packet_sizes(plan: Plan, needed: int, resilient: bool) -> IndexArray | None:
    """Which packet size every tile of the survey carries, as positions in `shards_per_packet`, -1 for none.

    None when too few fit. Every usable tile is filled, with packets no larger than resilience takes, or with
    the largest that fit when that does not suffice and `resilient` does not insist.
    """
    total, sizes, shards = 0, plan.fits - 1, np.zeros(len(plan.grid), np.int64)
    for largest in range(len(_LENGTHS)):
        sizes = np.minimum(plan.fits - 1, largest)
        shards[plan.survey.tiles] = _SHARDS[sizes]
        total = int(shards.sum())
        if total - _heaviest_hit(shards.reshape(plan.grid.shape)) >= _RESERVE * needed:
            return sizes
    if resilient or total * _PARITY[1] < needed * _PARITY[0] or _distinct_points(shards) < needed:
        return None
    return sizes


@compiled
def _heaviest_hit(shards: IndexArray) -> int:
    """Most shards that any 4 x 4 window of tiles holds."""
    high, wide = min(_HIT_TILES, shards.shape[0]), min(_HIT_TILES, shards.shape[1])
    most = 0
    for row in range(shards.shape[0] - high + 1):
        for col in range(shards.shape[1] - wide + 1):
            held = 0
            for r in range(row, row + high):
                for c in range(col, col + wide):
                    held += shards[r, c]
            most = max(most, held)
    return most


def _distinct_points(shards: IndexArray) -> int:
    """How many different evaluation points the packets hold; beyond 4096 tiles they repeat."""
    most = np.zeros(V1.point_tiles, np.int64)
    np.maximum.at(most, np.arange(len(shards)) % V1.point_tiles, shards)
    return int(most.sum())


class _Macs:
    """MACs of the tiles of one survey; everything that no trial changes is hashed once, when first asked for.

    That part is the place and the untouched pixels, so it is the same for a frame and for what was embedded
    into it.
    """

    def __init__(
        self,
        frame: Frame,
        roi: BoolArray,
        grid: TileGrid,
        survey: Survey,
        lattice: Lattice,
        keys: DerivedKeys,
    ) -> None:
        self._frame, self._roi, self._grid, self._survey, self._lattice = frame, roi, grid, survey, lattice
        self._fresh = tile_mac(keys)
        self._hashes: dict[int, hashlib.blake2b] = {}

    def tag(self, place: int, head: bytes | memoryview, *restored: memoryview) -> bytes:
        """4 bytes over the place, the untouched pixels, the restored sites in coding order and the head.

        `restored` is uint16, little-endian, in as many parts as the caller has.
        """
        if place not in self._hashes:
            self.begin([place])
        hash_ = self._hashes[place].copy()
        for part in restored:
            hash_.update(part)
        hash_.update(head)
        return hash_.digest()

    def begin(self, places: list[int]) -> None:
        """Hash what no trial changes of those tiles, so many at a time that it stays in the cache."""
        missing = [place for place in places if place not in self._hashes]
        if not missing:
            return
        boxes = self._grid.boxes(self._survey.tiles[missing])
        heads = self._heads_of(missing, boxes)
        for first in range(0, len(missing), _CUT_AT_ONCE):
            part = slice(first, first + _CUT_AT_ONCE)
            samples, starts = untouched(self._frame, self._roi, boxes[part], self._lattice)
            content, ends, start = little_endian(samples), (2 * starts).tolist(), 0
            for place, head, end in zip(missing[part], heads[part], ends[1:], strict=True):
                hash_ = self._fresh.copy()
                hash_.update(head)
                hash_.update(content[start:end])
                self._hashes[place], start = hash_, end

    def _heads_of(self, places: list[int], boxes: IndexArray) -> list[bytes]:
        """What the MACs of those tiles begin with: where they are, and how many sites they have."""
        frame, survey, lattice = self._frame, self._survey, int(self._lattice)
        tiles, counts = survey.tiles[places], np.diff(survey.table.starts)[places].tolist()
        wide, sides = self._grid.shape[1], (boxes[:, 2:] - boxes[:, :2]).tolist()
        return [
            _PLACE.pack(frame.number, tile // wide, tile % wide, high, across, frame.channels, lattice, count)
            for tile, (high, across), count in zip(tiles.tolist(), sides, counts, strict=True)
        ]


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
    tiles, counts = np.array([p.tile for p in found]), np.array([p.count for p in found])
    points, owners = packets.points(tiles, counts), np.repeat(tiles, counts)
    shards = packets.shards_in(b"".join(p.content for p in found))
    for decoded in erasure.decode(points, shards, needed, groups=owners):
        disagreeing = set(owners[~decoded.agrees].tolist())
        yield packets.message_of(decoded.data), frozenset(set(owners.tolist()) - disagreeing)
