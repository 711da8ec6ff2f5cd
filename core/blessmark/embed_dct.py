"""Put a record into a frame by the paper's own carrier: one bit a block, restored approximately.

`extract_dct` mirrors this file step by step.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from blessmark.carrier import dct_framing
from blessmark.carrier.block_maps import BlockMap, maps_for
from blessmark.carrier.dct import HUNDREDTHS, cut
from blessmark.carrier.dct_detector import Detector, restored
from blessmark.embed import describe
from blessmark.errors import CapacityError, WatermarkError
from blessmark.extract_dct import BlockExtraction, context, read
from blessmark.fidelity import psnr_db
from blessmark.payload import crypto, record
from blessmark.types import (
    About,
    BlockSettings,
    Embedded,
    Frame,
    Framing,
    IntArray,
    KeyRing,
    Receipt,
    Record,
    Segmenter,
    Tier,
)

#: below this rounding to whole grey levels destroys bits faster than raised thresholds repair them
_LEAST_THRESHOLD = 250
_MOST_THRESHOLD = 65_535
_DEFAULT = BlockSettings()


def embed_dct(
    frame: Frame,
    about: About,
    ring: KeyRing,
    segmenter: Segmenter,
    settings: BlockSettings = _DEFAULT,
    *,
    max_change: int | None = None,
) -> Embedded:
    """Hide the record of `about` in the blocks outside the region of interest of `frame`.

    The record shrinks (`full`, `core`, `seal`) until it fits. The result has been read back: every bit
    reads, the seal holds, the map is the same, and nothing inside the region of interest was touched.
    `max_change` in grey levels refuses images that would need more.

    Raises
    ------
    CapacityError
        not even the seal fits; `frame` was not changed.
    """
    key, keys = ring.current, crypto.derive(ring.current)
    block_map = maps_for((segmenter,), (settings.side,))[0]
    full = replace(describe(frame, about, segmenter, keys), segmenter=block_map.id, digests=b"")
    threshold = threshold_of(frame, settings.threshold)
    for tier in Tier:
        sent = record.reduce(full, tier)
        message = crypto.seal_message(keys, record.encode(sent), context(frame, settings.side))
        carried = _carried(frame, block_map, keys, message, threshold)
        if carried is None:
            continue
        detector = Detector[settings.detector.upper()]
        marked = _sealed(frame, block_map, keys, carried, threshold, detector)
        if marked is None or (max_change is not None and np.abs(marked - frame.samples).max() > max_change):
            continue
        found = read(frame.with_samples(marked), block_map, key)
        _check_read_back(frame, marked, block_map, found, sent)
        assert found is not None
        return _released(frame, marked, block_map, found, sent, 8 * len(message), carried.switched)
    raise CapacityError(
        f"frame {frame.number}: its {dct_framing.Walk(frame, block_map, keys).free_blocks} blocks of "
        f"{settings.side} x {settings.side} that may be used have no room for the seal"
    )


def _carried(
    frame: Frame, block_map: BlockMap, keys: crypto.DerivedKeys, message: bytes, threshold: int
) -> dct_framing.Carried | None:
    """The frame with its message, None where it does not fit, or meets a block that cannot carry its bit.

    A shorter message takes fewer blocks and has other bits, so it may well not meet that block.
    """
    try:
        return dct_framing.embed(frame, block_map, keys, message, threshold)
    except CapacityError:
        return None


def threshold_of(frame: Frame, share: float) -> int:
    """The threshold in hundredths of a grey level.

    A share of full scale, of images deeper than 8 bits of the range in use. Never below 2.5 grey levels, at
    which bits survive rounding.
    """
    span = frame.hi - frame.lo
    if span > 255:
        low, high = frame.bounds
        used = frame.samples[(frame.samples >= low) & (frame.samples <= high)]
        span = int(used.max()) - int(used.min()) if used.size else 0
    return min(_MOST_THRESHOLD, max(_LEAST_THRESHOLD, round(share * span * HUNDREDTHS)))


def _sealed(
    frame: Frame,
    block_map: BlockMap,
    keys: crypto.DerivedKeys,
    carried: dct_framing.Carried,
    threshold: int,
    detector: Detector,
) -> IntArray | None:
    """The marked samples with a seal that says which detector restores best, and how well."""
    first = dct_framing.seal(frame, block_map, keys, carried, detector, 0)
    if first is None:
        return None
    undone = restored(first, frame, block_map.side, carried.places, carried.bits, threshold, detector)
    with_detector, without = psnr_db(frame, undone), psnr_db(frame, first)
    best = (detector, with_detector) if with_detector > without else (Detector.NONE, without)
    return dct_framing.seal(frame, block_map, keys, carried, *best)


def _check_read_back(
    frame: Frame, marked: IntArray, block_map: BlockMap, found: BlockExtraction | None, sent: Record
) -> None:
    """Raise WatermarkError unless the receiver will read this record and seal, and the ROI is untouched."""
    readable = found is not None and found.record == sent and found.seal is not None and found.seal.intact
    changed = marked != frame.samples
    places = np.flatnonzero(cut(changed.astype(np.int32), block_map.side).any(axis=(2, 3, 4)))
    bound = block_map.bound(frame)
    row, col = np.divmod(places, bound.free.shape[1])
    before = cut(frame.samples, block_map.side)[row, col]
    outside = bool(bound.free[row, col].all() and bound.stays(places, before).all())
    inside_blocks = int(changed.sum()) == int(cut(changed.astype(np.int32), block_map.side).sum())
    if not (readable and outside and inside_blocks):
        raise WatermarkError(
            f"frame {frame.number}: the marked image did not read back "
            f"(record and seal {readable}, region of interest {outside and inside_blocks}); not released"
        )


def _released(
    frame: Frame,
    marked: IntArray,
    block_map: BlockMap,
    found: BlockExtraction,
    sent: Record,
    message_bits: int,
    switched: int,
) -> Embedded:
    changes = np.abs(marked - frame.samples)
    free = block_map.bound(frame).free
    back = psnr_db(frame, found.restored)
    receipt = Receipt(
        tier=sent.tier,
        framing=Framing.BLOCKS,
        lattice=None,
        segmenter=block_map.id,
        key_id=found.key.id,
        message_bits=message_bits,
        capacity_bits=int(free.sum()) * frame.channels,
        changed_samples=int(np.count_nonzero(changes)),
        max_change=int(changes.max()),
        psnr_db=psnr_db(frame, marked),
        roi_share=1 - float(free.mean()),
        localised=True,
        block_px=block_map.side,
        switched_blocks=switched,
        restored_psnr_db=None if math.isinf(back) else back,
    )
    return Embedded(frame.with_samples(marked), receipt)
