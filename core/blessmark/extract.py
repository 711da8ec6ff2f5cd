"""Read what `embed` put into a frame, with nothing but the frame and the keys.

Mirrors `embed` step by step: map, sites, packets, message, record.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from blessmark.carrier import global_framing, tile_framing
from blessmark.payload import crypto, record
from blessmark.profile import V1
from blessmark.roi import block_map, fixed_blocks
from blessmark.types import BoolArray, Frame, Framing, IntArray, KeyRing, Lattice, Record, Segmenter, SiteKey

#: (tile row, tile column)
TileAt = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Extraction:
    """What was found in a frame under one key, framing, lattice and map.

    `record` is None when packets authenticate but too few survive to read the message. `authentic` are the
    tiles whose packets belong to the record, `foreign` those whose packets authenticate but belong to
    another image. `restored` is int32 [channels, rows, cols] with everything readable taken off.
    """

    key: SiteKey
    framing: Framing
    lattice: Lattice
    segmenter: Segmenter
    roi: BoolArray
    record: Record | None
    restored: IntArray
    packets_needed: int = 0
    authentic: frozenset[TileAt] = frozenset()
    foreign: frozenset[TileAt] = frozenset()
    reader: tile_framing.Reader | None = field(default=None, repr=False)


def extract(frame: Frame, ring: KeyRing, segmenters: Sequence[Segmenter]) -> Extraction | None:
    """Find the watermark of `frame`, or None.

    Tries the segmenters in their order, tile framing before global, every key of the ring. A record that
    opens ends the search. If none does, the image may be damaged so that its map is drawn differently now,
    and maps drawn from each tile alone are tried; the reading with most authentic packets is returned.
    """
    maps: dict[tuple[str, Lattice], BoolArray] = {}
    partial: list[Extraction] = []
    for framing, segmenter, lattice, key in itertools.product(
        (Framing.TILE, Framing.GLOBAL), segmenters, Lattice, ring.keys
    ):
        at = (segmenter.id, lattice)
        if at not in maps:
            maps[at] = block_map(segmenter, frame, lattice)
        found = read(frame, maps[at], framing, lattice, segmenter, key)
        if found is not None and found.record is not None:
            return found
        partial += [found] if found is not None else []
    for segmenter, lattice, key in itertools.product(segmenters[:1], Lattice, ring.keys):
        found = _search(frame, maps[segmenter.id, lattice], lattice, segmenter, key)
        if found is not None and found.record is not None:
            return found
        partial += [found] if found is not None else []
    return max(partial, key=lambda found: len(found.authentic), default=None)


def read(
    frame: Frame, roi: BoolArray, framing: Framing, lattice: Lattice, segmenter: Segmenter, key: SiteKey
) -> Extraction | None:
    """Read `frame` in one framing, on one lattice, with one map and one key; None when nothing is there."""
    if roi.all():
        return None
    if framing is Framing.GLOBAL:
        return _read_global(frame, roi, lattice, segmenter, key)
    reader = tile_framing.Reader(frame, lattice, crypto.derive(key))
    reader.read(roi)
    return _opened(frame, roi, lattice, segmenter, key, reader)


def read_again(frame: Frame, found: Extraction, tiles: Iterable[TileAt]) -> Extraction:
    """The same extraction after a search of `tiles` by local maps; for tiles that ought to hold packets."""
    if found.reader is None:
        return found
    tile_cols = found.reader.grid.shape[1]
    numbers = (row * tile_cols + col for row, col in sorted(tiles))
    found.reader.search(numbers, fixed_blocks(frame, found.lattice))
    again = _opened(frame, found.roi, found.lattice, found.segmenter, found.key, found.reader)
    return found if again is None else again


def _search(
    frame: Frame, roi: BoolArray, lattice: Lattice, segmenter: Segmenter, key: SiteKey
) -> Extraction | None:
    """Read by the map, then as if nothing were ROI; where that finds a packet at all, search every tile."""
    reader = tile_framing.Reader(frame, lattice, crypto.derive(key))
    reader.read(roi)
    fixed = fixed_blocks(frame, lattice)
    reader.read(fixed)
    if reader.packets:
        reader.search(range(len(reader.grid)), fixed)
    return _opened(frame, roi, lattice, segmenter, key, reader)


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
            return replace(
                found, record=opened, packets_needed=needed, authentic=own, foreign=everywhere - own
            )
    needed = max(packet.needed for packet in reader.packets.values())
    return replace(found, packets_needed=needed, authentic=everywhere)


def _read_global(
    frame: Frame, roi: BoolArray, lattice: Lattice, segmenter: Segmenter, key: SiteKey
) -> Extraction | None:
    keys = crypto.derive(key)
    reading = global_framing.read(frame, roi, lattice, keys)
    if reading is None:
        return None
    opened = _open(frame, keys, reading.message)
    restored = reading.restored if opened is not None else frame.samples
    return Extraction(key, Framing.GLOBAL, lattice, segmenter, roi, opened, restored)


def _open(frame: Frame, keys: crypto.DerivedKeys, message: bytes) -> Record | None:
    plaintext = crypto.open_message(keys, message, crypto.context(frame))
    return None if plaintext is None else record.decode(plaintext, frame.number)
