"""Put a record into a frame: the ladder from the roomiest record and the safest framing downwards.

`extract` mirrors this file step by step.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from blessmark.carrier import global_framing, tile_framing
from blessmark.errors import CapacityError, WatermarkError
from blessmark.extract import read as read_back
from blessmark.fidelity import psnr_of
from blessmark.jit import compiled
from blessmark.payload import crypto, record
from blessmark.planes import PlaneArray, extremes, same
from blessmark.roi import block_map, roi_share
from blessmark.types import (
    About,
    BoolArray,
    Embedded,
    Frame,
    Framing,
    IntArray,
    KeyRing,
    Lattice,
    Receipt,
    Record,
    Segmenter,
    SiteKey,
    Tier,
    View,
)
from blessmark.view import invariant_view, shows

#: The ladder: framing and lattice, tried in this order for each tier.
LADDER = tuple((framing, lattice) for framing in (Framing.TILE, Framing.GLOBAL) for lattice in Lattice)


def embed(
    frame: Frame,
    about: About,
    ring: KeyRing,
    segmenter: Segmenter,
    *,
    max_change: int | None = None,
    framings: tuple[Framing, ...] = (Framing.TILE, Framing.GLOBAL),
) -> Embedded:
    """Hide the record of `about` outside the region of interest of `frame`.

    The record shrinks (`full`, `core`, `seal`) until it fits one of `framings`; the digests that locate
    tampering inside the ROI are left out where the room is needed to survive a hit. No sample moves by more
    than `max_change`; None means 1 % of the range present in the invariant view, at least 1. The result
    has been read back: it restores to `frame` bit for bit, and its ROI is untouched.

    Raises
    ------
    CapacityError
        not even the seal fits; `frame` was not changed.
    """
    key = ring.current
    keys = crypto.derive(key)
    full = describe(frame, about, segmenter, keys)
    grounds = {lattice: _Ground(frame, segmenter, lattice, max_change) for lattice in Lattice}
    rungs = [_Rung(grounds[lattice], keys, framing) for framing, lattice in LADDER if framing in framings]
    for tier in Tier:
        letters = [
            _Letter(sent, keys, frame) for sent in _with_and_without_digests(record.reduce(full, tier))
        ]
        for rung, resilient in itertools.product(rungs, (True, False)):
            for letter in letters:
                marked = rung.place(letter.message, resilient)
                if marked is not None:
                    return _release(marked, rung, key, letter)
    raise CapacityError(
        f"frame {frame.number}: {sum(r.usable for r in rungs)} of {len(rungs)} framings have usable pixels "
        "outside the region of interest, none has room for the seal"
    )


def seal_for_header(frame: Frame, about: About, ring: KeyRing, segmenter: Segmenter) -> bytes:
    """The full record of `frame`, sealed for a header element; for frames that pixels cannot protect.

    Shorter than about 400 bytes for ordinary records; authenticated for this frame number and geometry.
    """
    keys = crypto.derive(ring.current)
    sealed = record.encode(describe(frame, about, segmenter, keys))
    return crypto.seal_element(keys, sealed, crypto.context(frame))


def describe(frame: Frame, about: About, segmenter: Segmenter, keys: crypto.DerivedKeys) -> Record:
    """The full record of `frame`, with the hashes of its original pixels."""
    return Record(
        tier=Tier.FULL,
        pixel_digest=record.pixel_digest(frame),
        uid_digest=record.uid_digest(about.sop_instance_uid),
        frame=frame.number,
        frames=about.frames,
        time_s=about.time_s,
        node=about.node,
        segmenter=segmenter.id,
        charset=about.charset,
        fields=about.fields,
        digests=record.cell_digests(keys, frame),
    )


def allowed_change(frame: Frame, lattice: Lattice, view: View | None = None) -> int:
    """1 % of the range present in the invariant view, padding apart; at least 1.

    `view` is that of `frame`, where the caller has it.
    """
    planes = (view or invariant_view(frame, lattice)).planes
    padding = frame.plane_padding
    if padding is None:
        least, greatest = extremes(planes)
    else:
        least, greatest = _range(planes, *padding)
    return max(1, (greatest - least) // 100)


@compiled
def _range(planes: PlaneArray, low: int, high: int) -> tuple[int, int]:
    """The least and the greatest sample that is not in `low..high`; 0 and 0 if there is none."""
    least, greatest = 1 << 32, -(1 << 32)
    for sample in planes.flat:
        if sample < low or sample > high:
            least, greatest = min(least, int(sample)), max(greatest, int(sample))
    return (least, greatest) if least <= greatest else (0, 0)


@dataclass
class _Ground:
    """A frame on one lattice: what the two framings have in common, made when first needed and then kept."""

    frame: Frame
    segmenter: Segmenter
    lattice: Lattice
    max_change: int | None

    @cached_property
    def view(self) -> View:
        return invariant_view(self.frame, self.lattice)

    @cached_property
    def roi(self) -> BoolArray:
        return block_map(self.segmenter, self.frame, self.lattice, self.view)

    @cached_property
    def cap(self) -> int:
        return (
            allowed_change(self.frame, self.lattice, self.view)
            if self.max_change is None
            else self.max_change
        )


@dataclass
class _Letter:
    """A record to be sent, sealed when first needed."""

    sent: Record
    keys: crypto.DerivedKeys
    frame: Frame

    @cached_property
    def message(self) -> bytes:
        return crypto.seal_message(self.keys, record.encode(self.sent), crypto.context(self.frame))


@dataclass
class _Rung:
    """One step of the ladder; its plan is made when first needed and then kept."""

    ground: _Ground
    keys: crypto.DerivedKeys
    framing: Framing

    @property
    def usable(self) -> bool:
        return not self.ground.roi.all()

    @cached_property
    def tiles(self) -> tile_framing.Plan:
        ground = self.ground
        return tile_framing.plan(ground.frame, ground.roi, ground.lattice, self.keys, ground.cap)

    @cached_property
    def whole(self) -> global_framing.Plan:
        ground = self.ground
        return global_framing.plan(ground.frame, ground.roi, ground.lattice, self.keys, ground.cap)

    @property
    def plan(self) -> tile_framing.Plan | global_framing.Plan:
        """That of its framing."""
        return self.tiles if self.framing is Framing.TILE else self.whole

    def place(self, message: bytes, resilient: bool) -> Frame | None:
        """The marked frame, or None when `message` does not fit this rung.

        `resilient` asks for room to lose a part of the image, which global framing never has.
        """
        if not self.usable:
            return None
        if self.framing is Framing.TILE:
            return tile_framing.embed(self.tiles, self.keys, message, resilient=resilient)
        return None if resilient else global_framing.embed(self.whole, self.keys, message)

    def capacity_bits(self) -> int:
        """Bits that this rung could carry at most, parity included."""
        if self.framing is Framing.TILE:
            return 48 * self.tiles.capacity_shards
        return self.whole.sites.index.size - self.whole.header_end


def _with_and_without_digests(full: Record) -> tuple[Record, ...]:
    return (full, replace(full, digests=b"")) if full.digests else (full,)


def _release(marked: Frame, rung: _Rung, key: SiteKey, letter: _Letter) -> Embedded:
    """Read the marked frame back before anybody sees it, and write its receipt."""
    ground, sent = rung.ground, letter.sent
    changes = _Changes(*_compared(ground.frame.planes, marked.planes, ground.roi, int(ground.lattice)))
    _check_read_back(marked, rung, key, letter, changes)
    receipt = Receipt(
        tier=sent.tier,
        framing=rung.framing,
        lattice=ground.lattice,
        segmenter=ground.segmenter.id,
        key_id=key.id,
        message_bits=8 * len(letter.message),
        capacity_bits=rung.capacity_bits(),
        changed_samples=changes.samples,
        max_change=changes.greatest,
        psnr_db=psnr_of(ground.frame, changes.squares, changes.used),
        roi_share=roi_share(ground.roi),
        localised=bool(sent.digests),
    )
    return Embedded(marked, receipt)


def _check_read_back(marked: Frame, rung: _Rung, key: SiteKey, letter: _Letter, changes: _Changes) -> None:
    """Raise WatermarkError unless the receiver will see the same map, the same record, the same original.

    The map needs no second run of the segmenter: it depends on the view alone, and the views are equal. Sites
    and their order depend on pixels outside the lattice alone, and none of these has changed; that they do is
    looked at in some tiles of every frame. What turns on a changed pixel is done again by the reader's code.
    """
    ground, sent = rung.ground, letter.sent
    frame, same_roi, exact, same_sites = ground.frame, not changes.in_roi, False, False
    same_view = not changes.in_view and shows(marked, ground.view)
    if same_view and same_roi:
        found = read_back(
            marked, ground.roi, rung.framing, ground.lattice, ground.segmenter, key, of=rung.plan
        )
        exact = found is not None and found.record == sent and same(found.restored.planes, frame.planes)
        # the ciphertext picks the tiles, so that it is not always the same ones
        same_sites = rung.plan.holds_in(marked, letter.message[-1])
    if not (exact and same_sites):
        raise WatermarkError(
            f"frame {frame.number}: the marked image did not read back "
            f"(view {same_view}, region of interest {same_roi}, sites {same_sites}, "
            f"record and pixels {exact}); not released"
        )


class _Changes(NamedTuple):
    """How a marked frame differs from its original.

    Attributes
    ----------
    in_view : whether a pixel outside the lattice did change; without one, the views are equal
    in_roi : whether one of the region of interest, or of a partial block, did
    samples : how many did
    greatest, squares : the greatest change, and the sum of their squares
    used : of the original's samples, the greatest less the least
    """

    in_view: bool
    in_roi: bool
    samples: int
    greatest: int
    squares: int
    used: int


@compiled
def _compared(
    before: PlaneArray, after: PlaneArray, roi: BoolArray, lattice: int
) -> tuple[bool, bool, int, int, int, int]:
    """The fields of `_Changes`."""
    channels, rows, cols = before.shape
    in_view, in_roi, count, greatest, squares = False, False, 0, np.int32(0), 0
    change, least, most = np.empty(cols, np.int32), before[0, 0, 0], before[0, 0, 0]
    for channel in range(channels):
        for r in range(rows):
            old, new, moved = before[channel, r], after[channel, r], np.int16(0)
            for c in range(cols):
                moved = np.int16(moved | np.int16(new[c] ^ old[c]))
            for c in range(cols):
                least, most = np.int16(min(least, old[c])), np.int16(max(most, old[c]))
            if moved == 0:
                continue
            differing = np.int32(0)
            for c in range(cols):
                change[c] = np.int32(np.int32(new[c]) - np.int32(old[c]))
                differing = np.int32(differing + np.int32(change[c] != 0))
            for c in range(cols):
                greatest = np.int32(max(greatest, np.int32(abs(change[c]))))
            for c in range(cols):
                squares += int(change[c]) * int(change[c])
            count += int(differing)
            in_view |= _view_moved(change, r, lattice)
            in_roi |= _roi_moved(change, roi, r >> 3)
    return in_view, in_roi, count, int(greatest), squares, int(most) - int(least)


@compiled
def _view_moved(change: IntArray, row: int, lattice: int) -> bool:
    """Whether a pixel outside the lattice changed in a row."""
    moved = np.int32(0)
    if lattice == 0 and row & 1 == 0:
        for c in range(change.size):
            moved |= change[c]
        return bool(moved != 0)
    own = change[row & 1 if lattice == 1 else 0 :]
    for j in range((own.size + 1) // 2):
        moved |= own[2 * j]
    return bool(moved != 0)


@compiled
def _roi_moved(change: IntArray, roi: BoolArray, row: int) -> bool:
    """Whether a row changed in the region of interest, or in a partial block; `row` is that of its blocks."""
    last = roi.shape[1] if row < roi.shape[0] else 0
    moved = np.int32(0)
    for block in range(last):
        if roi[row, block]:
            for c in range(8 * block, 8 * block + 8):
                moved |= change[c]
    for c in range(8 * last, change.size):
        moved |= change[c]
    return bool(moved != 0)
