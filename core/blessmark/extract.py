"""Read what `embed` put into a frame, with nothing but the frame and the keys.

Mirrors `embed` step by step: map, sites, packets, message, record.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import numpy as np

from blessmark.carrier import global_framing, tile_framing
from blessmark.payload import crypto, record
from blessmark.profile import V1
from blessmark.roi import Maps, fixed_blocks
from blessmark.types import (
    BoolArray,
    Frame,
    Framing,
    KeyRing,
    Lattice,
    Record,
    Segmenter,
    SiteKey,
    View,
)
from blessmark.view import invariant_view

#: A tile with that many neighbours in doubt is in doubt itself, as far as the map goes.
_NEIGHBOURS_IN_DOUBT = 3
#: Vain tries after which an image is taken to hold nothing in tiles without ROI.
_PATIENCE = 400

#: (tile row, tile column)
TileAt = tuple[int, int]


@runtime_checkable
class Redraws(Protocol):
    """What a segmenter of unlimited reach may offer, so that damage stays where it was done."""

    def redraw(self, view: View, hidden: BoolArray, wanted: BoolArray) -> Iterator[BoolArray]:
        """Maps that the view may have had before the blocks `hidden` changed, the likeliest first.

        They need to be right in the blocks `wanted` only, and some of these may not have changed at all.
        `hidden`, `wanted` and the maps are bool [rows // 8, cols // 8].
        """


@dataclass(frozen=True, slots=True)
class Extraction:
    """What was found in a frame under one key, framing, lattice and map.

    `record` is None when packets authenticate but too few survive to read the message. `authentic` are the
    tiles whose packets belong to the record, `foreign` those whose packets authenticate but belong to
    another image or an earlier watermark. `restored` is the frame with everything readable of the record's
    own taken off.
    """

    key: SiteKey
    framing: Framing
    lattice: Lattice
    segmenter: Segmenter
    roi: BoolArray
    record: Record | None
    restored: Frame
    shards_needed: int = 0
    authentic: frozenset[TileAt] = frozenset()
    foreign: frozenset[TileAt] = frozenset()
    reader: tile_framing.Reader | None = field(default=None, repr=False)


def extract(
    frame: Frame, ring: KeyRing, segmenters: Sequence[Segmenter], maps: Maps | None = None
) -> Extraction | None:
    """Find the watermark of `frame`, or None.

    Tries the segmenters in their order, tile framing before global, every key of the ring; none draws a map
    before those in front of it have failed. A record that opens ends the search. If none does, the image may
    be damaged so that its map is drawn differently now, and maps drawn from each tile alone are tried; the
    reading with most authentic packets is returned. `maps` are those of `frame`, where others use them too.
    """
    search = _Search(frame, ring, segmenters, maps or Maps(frame))
    partial: list[Extraction] = []
    for found in itertools.chain(search.by_segmenters(), search.by_tiles()):
        if found.record is not None:
            return search.attributed(found)
        partial.append(found)
    return max(partial, key=lambda found: len(found.authentic), default=None)


def read(
    frame: Frame,
    roi: BoolArray,
    framing: Framing,
    lattice: Lattice,
    segmenter: Segmenter,
    key: SiteKey,
    *,
    of: tile_framing.Plan | global_framing.Plan | None = None,
) -> Extraction | None:
    """Read `frame` in one framing, on one lattice, with one map and one key; None when nothing is there.

    `of` is the plan that it was marked by, where its sender reads it back and has made sure that nothing but
    sites changed.
    """
    if roi.all():
        return None
    if framing is Framing.GLOBAL:
        whole = of if isinstance(of, global_framing.Plan) else None
        return _read_global(frame, roi, lattice, segmenter, key, whole)
    tiles = of if isinstance(of, tile_framing.Plan) else None
    reader = tile_framing.Reader(frame, lattice, crypto.derive(key), of=tiles)
    reader.read(roi)
    return _opened(frame, roi, lattice, segmenter, key, reader)


def read_again(frame: Frame, found: Extraction, tiles: Iterable[TileAt]) -> Extraction:
    """The same extraction after a closer look at `tiles`, which ought to hold packets and gave none.

    Tried are the maps that the segmenter would have drawn had it not seen these tiles, if it can tell
    (`Redraws`), then maps drawn from each tile alone.
    """
    if found.reader is None:
        return found
    fixed, tile_cols = fixed_blocks(frame, found.lattice), found.reader.grid.shape[1]
    numbers = [row * tile_cols + col for row, col in sorted(tiles)]
    before = len(found.reader.packets)
    if isinstance(found.segmenter, Redraws):
        view, wanted = invariant_view(frame, found.lattice), _in_doubt(found, numbers)
        for hidden in _guesses_at_damage(found, wanted):
            for roi in found.segmenter.redraw(view, _blocks_of(hidden, found), _blocks_of(wanted, found)):
                found.reader.retry(roi | fixed, numbers)
            if len(found.reader.packets) > before:
                break
    found.reader.search(numbers, fixed)
    again = _opened(frame, found.roi, found.lattice, found.segmenter, found.key, found.reader)
    return found if again is None else again


def _in_doubt(found: Extraction, numbers: list[int]) -> BoolArray:
    """bool [tile rows, tile cols]: True in the tiles of those numbers."""
    assert found.reader is not None, "global framing has no tiles"
    doubtful = np.zeros(found.reader.grid.shape, np.bool_)
    doubtful.flat[numbers] = True
    return doubtful


def _guesses_at_damage(found: Extraction, doubtful: BoolArray) -> Iterator[BoolArray]:
    """Which tiles may have changed: those in doubt, then with those amid them, then all without a packet.

    One digest in 256 does not show a change, and without digests a tile without sites never does.
    """
    assert found.reader is not None, "global framing has no tiles"
    silent = np.ones_like(doubtful)
    silent.flat[list(found.reader.packets)] = False
    around = np.lib.stride_tricks.sliding_window_view(np.pad(doubtful, 1), (3, 3)).sum(axis=(2, 3))
    amid = silent & (around >= _NEIGHBOURS_IN_DOUBT)
    yield doubtful
    if (amid & ~doubtful).any():
        yield doubtful | amid
    if found.record is not None and not found.record.digests:
        yield silent


def _blocks_of(tiles: BoolArray, found: Extraction) -> BoolArray:
    """bool like the map: the blocks of the given tiles."""
    side, (rows, cols) = V1.tile_px // V1.block_px, found.roi.shape
    return tiles.repeat(side, axis=0).repeat(side, axis=1)[:rows, :cols]


class _Search:
    """One frame's readers and maps, kept from one attempt to the next."""

    def __init__(self, frame: Frame, ring: KeyRing, segmenters: Sequence[Segmenter], maps: Maps) -> None:
        self._frame, self._segmenters, self._maps = frame, segmenters, maps
        self._readers = {
            (lattice, key): tile_framing.Reader(frame, lattice, crypto.derive(key))
            for lattice, key in itertools.product(Lattice, ring.keys)
        }

    def by_segmenters(self) -> Iterator[Extraction]:
        """What each map shows, tile framing first."""
        framings = (Framing.TILE, Framing.GLOBAL)
        for segmenter, framing, at in itertools.product(self._segmenters, framings, self._readers):
            found = self._by_map(framing, segmenter, *at)
            if found is not None:
                yield found

    def by_tiles(self) -> Iterator[Extraction]:
        """What maps drawn from each tile alone show, wherever a tile without ROI has a packet."""
        for (lattice, key), reader in self._readers.items():
            fixed = fixed_blocks(self._frame, lattice)
            reader.read(fixed, patience=_PATIENCE)
            if not reader.packets:
                continue
            reader.search(range(len(reader.grid)), fixed)
            segmenter = self._segmenters[0]
            roi = self._maps.of(segmenter, lattice)
            found = _opened(self._frame, roi, lattice, segmenter, key, reader)
            if found is not None:
                yield found

    def attributed(self, found: Extraction) -> Extraction:
        """The same read by the segmenter that the record names.

        Another's map may have opened the record where the two agree, and a damaged image may be readable by
        another's only.
        """
        named = [segmenter for segmenter in self._segmenters if segmenter.id == _named(found)]
        if not named or named[0] is found.segmenter:
            return found
        again = self._by_map(found.framing, named[0], found.lattice, found.key)
        if again is not None and again.record is not None:
            return again
        return replace(found, segmenter=named[0], roi=self._maps.of(named[0], found.lattice))

    def _by_map(
        self, framing: Framing, segmenter: Segmenter, lattice: Lattice, key: SiteKey
    ) -> Extraction | None:
        roi = self._maps.of(segmenter, lattice)
        if roi.all():
            return None
        if framing is Framing.GLOBAL:
            return _read_global(self._frame, roi, lattice, segmenter, key)
        reader = self._readers[lattice, key]
        reader.read(roi)
        return _opened(self._frame, roi, lattice, segmenter, key, reader)


def _named(found: Extraction) -> str:
    """The segmenter that drew the map: the record's word, or where it has none, whose map was read by."""
    return (
        found.record.segmenter if found.record is not None and found.record.segmenter else found.segmenter.id
    )


def _opened(
    frame: Frame,
    roi: BoolArray,
    lattice: Lattice,
    segmenter: Segmenter,
    key: SiteKey,
    reader: tile_framing.Reader,
) -> Extraction | None:
    """What the packets of `reader` say, None when it has none."""
    if not reader.packets:
        return None
    keys, tile_cols = crypto.derive(key), reader.grid.shape[1]
    everywhere = frozenset(divmod(tile, tile_cols) for tile in reader.packets)
    found = Extraction(key, Framing.TILE, lattice, segmenter, roi, None, reader.restored, reader=reader)
    for message, tiles in reader.messages():
        opened = _open(frame, keys, message)
        if opened is not None:
            own = frozenset(divmod(tile, tile_cols) for tile in tiles)
            needed = len(message) // V1.shard_bytes
            foreign = everywhere - own
            restored = put_back(frame, reader, foreign)
            return replace(
                found, record=opened, restored=restored, shards_needed=needed, authentic=own, foreign=foreign
            )
    needed = max(packet.needed for packet in reader.packets.values())
    return replace(found, shards_needed=needed, authentic=everywhere)


def put_back(frame: Frame, reader: tile_framing.Reader, foreign: frozenset[TileAt]) -> Frame:
    """What `reader` restored of `frame`, without the tiles of other messages.

    Where a marked image was marked again, what the first message left in tiles that the second does not
    use is part of the original.
    """
    if not foreign:
        return reader.restored
    planes = reader.restored.planes.copy()
    for row, col in foreign:
        window = reader.grid.window(row * reader.grid.shape[1] + col)
        place = np.s_[:, window.top : window.bottom, window.left : window.right]
        planes[place] = frame.planes[place]
    return frame.with_planes(planes)


def _read_global(
    frame: Frame,
    roi: BoolArray,
    lattice: Lattice,
    segmenter: Segmenter,
    key: SiteKey,
    of: global_framing.Plan | None = None,
) -> Extraction | None:
    keys = crypto.derive(key)
    reading = global_framing.read(frame, roi, lattice, keys, of=of)
    if reading is None:
        return None
    opened = _open(frame, keys, reading.message)
    restored = reading.restored if opened is not None else frame
    return Extraction(key, Framing.GLOBAL, lattice, segmenter, roi, opened, restored)


def _open(frame: Frame, keys: crypto.DerivedKeys, message: bytes) -> Record | None:
    plaintext = crypto.open_message(keys, message, crypto.context(frame))
    return None if plaintext is None else record.decode(plaintext, frame.number)
