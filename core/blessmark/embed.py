"""Put a record into a frame: the ladder from the roomiest record and the safest framing downwards.

`extract` mirrors this file step by step.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np

from blessmark.carrier import global_framing, tile_framing
from blessmark.errors import CapacityError, WatermarkError
from blessmark.extract import read as read_back
from blessmark.fidelity import psnr_db
from blessmark.payload import crypto, record
from blessmark.roi import block_map, pixel_mask, roi_share
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
)
from blessmark.view import invariant_view

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
    rungs = [_Rung(frame, segmenter, keys, *step, max_change) for step in LADDER if step[0] in framings]
    for tier in Tier:
        messages = [
            (sent, crypto.seal_message(keys, record.encode(sent), crypto.context(frame)))
            for sent in _with_and_without_digests(record.reduce(full, tier))
        ]
        for rung, resilient in itertools.product(rungs, (True, False)):
            for sent, message in messages:
                marked = rung.place(message, resilient)
                if marked is not None:
                    return _release(frame, frame.with_samples(marked), rung, segmenter, key, sent, message)
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


def allowed_change(frame: Frame, lattice: Lattice) -> int:
    """1 % of the range present in the invariant view, padding apart; at least 1."""
    view = invariant_view(frame, lattice).samples
    if frame.padding is not None:
        low, high = frame.padding
        view = view[(view < low) | (view > high)]
    if view.size == 0:
        return 1
    return max(1, (int(view.max()) - int(view.min())) // 100)


@dataclass
class _Rung:
    """One step of the ladder; its map and plan are made when first needed and then kept."""

    frame: Frame
    segmenter: Segmenter
    keys: crypto.DerivedKeys
    framing: Framing
    lattice: Lattice
    max_change: int | None
    _roi: BoolArray | None = None
    _tiles: tile_framing.Plan | None = None
    _global: global_framing.Plan | None = None

    @property
    def roi(self) -> BoolArray:
        if self._roi is None:
            self._roi = block_map(self.segmenter, self.frame, self.lattice)
        return self._roi

    @property
    def cap(self) -> int:
        return self.max_change if self.max_change is not None else allowed_change(self.frame, self.lattice)

    @property
    def usable(self) -> bool:
        return not self.roi.all()

    @property
    def tiles(self) -> tile_framing.Plan:
        if self._tiles is None:
            self._tiles = tile_framing.plan(self.frame, self.roi, self.lattice, self.keys, self.cap)
        return self._tiles

    @property
    def whole(self) -> global_framing.Plan:
        if self._global is None:
            self._global = global_framing.plan(self.frame, self.roi, self.lattice, self.keys, self.cap)
        return self._global

    def place(self, message: bytes, resilient: bool) -> IntArray | None:
        """The marked samples, or None when `message` does not fit this rung.

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


def _release(
    frame: Frame,
    marked: Frame,
    rung: _Rung,
    segmenter: Segmenter,
    key: SiteKey,
    sent: Record,
    message: bytes,
) -> Embedded:
    """Read the marked frame back before anybody sees it, and write its receipt."""
    _check_read_back(frame, marked, rung, segmenter, key, sent)
    changes = np.abs(marked.samples - frame.samples)
    receipt = Receipt(
        tier=sent.tier,
        framing=rung.framing,
        lattice=rung.lattice,
        segmenter=segmenter.id,
        key_id=key.id,
        message_bits=8 * len(message),
        capacity_bits=rung.capacity_bits(),
        changed_samples=int(np.count_nonzero(changes)),
        max_change=int(changes.max()),
        psnr_db=psnr_db(frame, marked.samples),
        roi_share=roi_share(rung.roi),
        localised=bool(sent.digests),
    )
    return Embedded(marked, receipt)


def _check_read_back(
    frame: Frame, marked: Frame, rung: _Rung, segmenter: Segmenter, key: SiteKey, sent: Record
) -> None:
    """Raise WatermarkError unless the receiver will see the same map, the same record, the same original.

    The map needs no second run of the segmenter: it depends on the view alone, and the views are equal.
    """
    same_view = np.array_equal(
        invariant_view(frame, rung.lattice).samples, invariant_view(marked, rung.lattice).samples
    )
    roi_pixels = pixel_mask(rung.roi, frame.rows, frame.cols)
    same_roi = bool((marked.samples[:, roi_pixels] == frame.samples[:, roi_pixels]).all())
    found = read_back(marked, rung.roi, rung.framing, rung.lattice, segmenter, key)
    exact = found is not None and found.record == sent and np.array_equal(found.restored, frame.samples)
    if not (same_view and same_roi and exact):
        raise WatermarkError(
            f"frame {frame.number}: the marked image did not read back "
            f"(view {same_view}, region of interest {same_roi}, record and pixels {exact}); not released"
        )
