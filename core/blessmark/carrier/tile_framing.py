"""Tile framing: one short authenticated packet a tile, erasure-coded across tiles.

Packet = [k | shards | MAC], masked. k is the number of data shards of the message, the shards are
Reed-Solomon points of it, the MAC covers k, the shards, where the tile is *and its restored pixels, ROI
included*: what authenticates is the place, the message and the picture at once. No header: the reader
finds (T, Z, length) by trial and the MAC decides (docs/format/v1.md section 5).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from blessmark.carrier.lattice import (
    Bands,
    BitArray,
    Taken,
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
)
from blessmark.carrier.tile_macs import Macs, Windows
from blessmark.jit import compiled
from blessmark.payload import erasure, packets
from blessmark.payload.crypto import DerivedKeys, order_words, packet_masks
from blessmark.planes import PlaneArray
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
#: where the MACs of packets begin
_ENDS: IndexArray = _LENGTHS // 8 - V1.mac_bytes
_UP, _DOWN = 0, -1
#: The greatest k that a packet can claim.
_MOST_CLAIMED = 255
#: Of so many tiles at most packets are taken off together.
_TOGETHER, _FEW = 64, 4


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
        boxes = np.empty((len(tiles), 4), np.int64)
        np.multiply(self.places(tiles), V1.tile_px, out=boxes[:, :2])
        np.minimum(boxes[:, :2] + V1.tile_px, (self.rows, self.cols), out=boxes[:, 2:])
        return boxes

    def places(self, tiles: IndexArray) -> IndexArray:
        """int64 [n, 2]: row and column in the grid of each of `tiles`."""
        places = np.empty((len(tiles), 2), np.int64)
        np.divmod(tiles, self.shape[1], out=(places[:, 0], places[:, 1]))
        return places

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
    macs: Macs
    words: npt.NDArray[np.uint32]

    def holds_in(self, marked: Frame, turn: int) -> bool:
        """Whether a reader of `marked` finds the sites of this plan, in order and with their predictions.

        One tile in `_LOOKED_AT` is looked at, one at least; `turn`, any number, says which.
        """
        survey = self.survey
        step = min(_LOOKED_AT, len(survey.tiles))
        places = np.arange(turn % step, len(survey.tiles), step)
        again = _survey(marked, self.roi, self.grid, survey.tiles[places], self.lattice, self.words).table
        return again.agrees_with(survey.table, places)

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
    macs = _macs_of(frame, roi, grid, survey, lattice, keys)
    return Plan(frame, roi, lattice, grid, survey, values, bands, fits, macs, words)


def _macs_of(
    frame: Frame, roi: BoolArray, grid: TileGrid, survey: Survey, lattice: Lattice, keys: DerivedKeys
) -> Macs:
    at = grid.places(survey.tiles)
    return Macs(
        frame, roi, lattice, keys, Windows(at, grid.boxes(survey.tiles), np.diff(survey.table.starts))
    )


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
    tags = plan.macs.tags(places, plan.values, plan.survey.table.starts[places], content[places], ends)
    content[places[:, None], ends[:, None] + np.arange(V1.mac_bytes)] = tags
    return content


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
        self._restored, self._taken_off = frame, list[_Off]()
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
            for off in self._taken_off:
                _put_back(planes.reshape(-1), *off)
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
                places = np.flatnonzero(claimed[:, needed])
                opening.macs.begin(places)
                found = self._read_packets(opening, places, needed)
                claimed[found] = False
                unread, tries = unread - len(found), tries + len(places) - len(found)
                if unread == 0 or (patience is not None and tries >= patience):
                    break
        self._forget_order()

    def read_only(self, roi: BoolArray, needed: int) -> None:
        """`read` for packets of one k alone; costs hardly anything where there are none."""
        opening = self._open(roi, range(len(self.grid)))
        if opening is not None:
            for place in opening.places:
                self._read_packet(opening, place, needed)
        self._forget_order()

    def retry(self, roi: BoolArray, tiles: Iterable[int]) -> None:
        """Look for packets of the messages known so far in those of `tiles` that have not given one yet."""
        known = self._known()
        opening = self._open(roi, tiles)
        if opening is not None:
            for place in opening.places:
                any(self._read_packet(opening, place, needed) for needed in known)

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

    def _surveyed(self, roi: BoolArray, tiles: list[int]) -> tuple[Survey, Macs]:
        frame, numbers = self._frame, np.array(tiles, np.int64)
        survey = _survey(frame, roi, self.grid, numbers, self._lattice, self._site_words())
        return survey, _macs_of(frame, roi, self.grid, survey, self._lattice, self._keys)

    def _claims_of(self, survey: Survey, macs: Macs) -> _Opening:
        """What the tiles of a survey claim; those with sites enough for a packet are its places."""
        table = survey.table
        values, masks = table.every.values(self._frame.planes), self._tile_masks()[survey.tiles]
        heads = peek(values, table, self._frame.plane_bounds, _TRIAL_TABLE, 8)
        claims = np.where(heads < 0, 0, heads ^ masks[:, :1])
        places = np.flatnonzero(np.diff(table.starts) >= _LENGTHS[0]).tolist()
        return _Opening(macs, survey, values, masks, claims, places)

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

    def _read_packets(self, opening: _Opening, places: IndexArray, needed: int) -> list[int]:
        """Try those places in their order, for packets of one k; those that have one.

        What was right for one tile is tried first for the next, and mostly is right: so tiles that follow are
        done together, few at a time where that was wrong before.
        """
        found, at, width, next_ = list[int](), 0, 0, _TOGETHER
        while at < len(places):
            alike = places[at : at + width]
            count = self._read_alike(opening, alike, needed) if width else 0
            found += alike[:count].tolist()
            at += count
            if at < len(places) and count == len(alike) and width:
                width = min(4 * width, _TOGETHER)
            elif at < len(places):
                place, next_ = int(places[at]), _FEW if width else next_
                width = next_ if self._read_packet(opening, place, needed) else 0
                found += [place] if width else []
                at += 1
        return found

    def _read_alike(self, opening: _Opening, places: IndexArray, needed: int) -> int:
        """Keep packets of what was right last, up to the first place that has none such; how many."""
        trial, size = self._order[0], self._sizes[0]
        places = places[: _leading(opening.claims[places, trial] == needed)]
        if not places.size:
            return 0
        taken = opening.take(places, trial, size, self._frame.plane_bounds)
        count = _leading(opening.authentic(places, taken, size))
        self._keep(opening, places[:count], taken, size)
        return count

    def _read_packet(self, opening: _Opening, place: int, needed: int) -> bool:
        """Try all bands under which the tile claims `needed` and every length; on success keep the packet."""
        claims = opening.claims[place].tolist()
        for trial in self._order:
            if claims[trial] == needed and self._read_by(opening, place, trial):
                _to_front(self._order, trial)  # which ends the loop over it, too
                return True
        return False

    def _read_by(self, opening: _Opening, place: int, trial: int) -> bool:
        """Try the length that was right last, then all others, of which hardly any is taken for nothing."""
        sizes = self._sizes
        if not self.packets:  # no length is likelier than another
            return self._read_sizes(opening, place, trial, sizes)
        return self._read_sizes(opening, place, trial, sizes[:1]) or self._read_sizes(
            opening, place, trial, sizes[1:]
        )

    def _read_sizes(self, opening: _Opening, place: int, trial: int, sizes: list[int]) -> bool:
        """Keep the packet of the first of `sizes` whose MAC is right; whether there is one."""
        places = np.array([place])
        taken = opening.take(places, trial, max(sizes), self._frame.plane_bounds)
        sizes = [size for size in sizes if taken.ends[0, size]]
        if not sizes:
            return False
        right = opening.authentic_sizes(place, taken, sizes)
        if not right.any():
            return False
        size = sizes[int(right.argmax())]
        _to_front(self._sizes, size)
        self._keep(opening, places, taken, size)
        return True

    def _keep(self, opening: _Opening, places: IndexArray, taken: Taken, size: int) -> None:
        """Note packets of that size: of the first tiles that `taken` was taken off, those in `places`."""
        if not places.size:
            return
        tiles, content = opening.survey.tiles[places].tolist(), taken.content
        length = _ENDS[size]
        for row, tile in enumerate(tiles):
            head = content[row, :length].tobytes()
            self.packets[tile] = Packet(tile, head[0], head[1:])
        table = opening.survey.table
        self._taken_off.append(
            (table.every.index, table.starts[places], taken.restored, taken.starts, taken.ends[:, size])
        )


#: where sites are in the planes; then for each tile: the place of its first site there, what was restored,
#: where that begins, and how much of it there is
_Off = tuple[PlaceArray, IndexArray, PlaneArray, IndexArray, IndexArray]


@compiled
def _put_back(
    flat: PlaneArray,
    index: PlaceArray,
    firsts: IndexArray,
    restored: PlaneArray,
    starts: IndexArray,
    ends: IndexArray,
) -> None:
    """Write restored values to their sites in planes that are flattened."""
    for n in range(len(firsts)):
        places, values = index[firsts[n] : firsts[n] + ends[n]], restored[starts[n] : starts[n] + ends[n]]
        for i in range(places.size):
            flat[places[i]] = values[i]


@dataclass(frozen=True, slots=True)
class _Opening:
    """Tiles under one map: what each of `_TRIALS` would have each of them claim.

    `values` are what the marked frame holds at the sites of the survey, `masks` what is laid over packets.
    `claims` is int64 [tiles of the survey, trials], a k for each trial and 0 where it finds too few bits.
    `places` are the tiles with sites enough for a packet, by their place in the survey.
    """

    macs: Macs
    survey: Survey
    values: PlaneArray
    masks: BitArray
    claims: IndexArray
    places: list[int]

    def claimed(self) -> BoolArray:
        """bool [tiles of the survey, 256]: which k some trial would have each tile claim."""
        claimed = np.zeros((len(self.claims), _MOST_CLAIMED + 1), np.bool_)
        places = np.array(self.places, np.int64)
        claimed[places[:, None], self.claims[places]] = True
        return claimed

    def take(self, places: IndexArray, trial: int, size: int, bounds: tuple[int, int]) -> Taken:
        """What a trial takes off tiles, up to packets of that size, and unmasked."""
        lengths, table = _LENGTHS[: size + 1], self.survey.table
        taken = take_all(self.values, table, places, bounds, _TRIALS[trial], lengths)
        content = taken.content
        content ^= self.masks[places, : content.shape[1]]
        return taken

    def authentic(self, places: IndexArray, taken: Taken, size: int) -> BoolArray:
        """bool [places]: whether packets of the size up to which they were taken have the right MAC."""
        right = self._right(places, taken.restored, taken.starts[:-1], taken.content, _ENDS[size])
        return np.asarray(right & (taken.ends[:, size] > 0))

    def authentic_sizes(self, place: int, taken: Taken, sizes: list[int]) -> BoolArray:
        """bool [sizes]: whether packets of those sizes, which one tile has bits for, have the right MAC."""
        first, last = self.survey.table.starts[place : place + 2]
        restored = np.tile(self.values[first:last], (len(sizes), 1))
        for row, size in zip(restored, sizes, strict=True):
            row[: taken.ends[0, size]] = taken.restored[: taken.ends[0, size]]
        places, firsts = np.full(len(sizes), place), np.arange(len(sizes)) * (last - first)
        content = np.tile(taken.content, (len(sizes), 1))
        return self._right(places, restored.reshape(-1), firsts, content, _ENDS[sizes])

    def _right(
        self,
        places: IndexArray,
        restored: PlaneArray,
        firsts: IndexArray,
        content: BitArray,
        ends: IndexArray,
    ) -> BoolArray:
        """bool [places]: whether the MACs in packets are those of what stands before their `ends`."""
        ends = np.broadcast_to(ends, places.shape)
        tags = self.macs.tags(places, restored, firsts, content, ends)
        stated = content[np.arange(len(places))[:, None], ends[:, None] + np.arange(V1.mac_bytes)]
        return np.asarray((tags == stated).all(axis=1))


def _leading(right: BoolArray) -> int:
    """How many are right before the first one that is not."""
    return right.size if right.all() else int(right.argmin())


def _to_front(order: list[int], found: int) -> None:
    """What was right for one tile is tried first for the next."""
    if order[0] != found:
        order.insert(0, order.pop(order.index(found)))


def _by_claims(claimed: BoolArray, known: list[int]) -> list[int]:
    """Every k that a tile claims, those of `known` first, then those that most tiles claim."""
    counts = np.count_nonzero(claimed, axis=0)
    counts[0] = 0  # no packet
    ranked = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)].tolist()
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
