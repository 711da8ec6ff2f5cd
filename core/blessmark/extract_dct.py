"""Read what `embed_dct` put into a frame, with nothing but the frame and the keys; mirrors it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from blessmark.carrier import dct_framing
from blessmark.carrier.block_maps import BlockMap, maps_for
from blessmark.carrier.dct_detector import Detector, restored
from blessmark.payload import crypto, record
from blessmark.types import Frame, IntArray, KeyRing, Record, Segmenter, SiteKey

_DETECTORS = frozenset(Detector)


@dataclass(frozen=True, slots=True)
class BlockExtraction:
    """What was found in a frame under one key and map.

    `record` is None when the header authenticates but the record does not open. `restored` is int32
    [channels, rows, cols], as near to the original as the detector comes.
    """

    key: SiteKey
    block_map: BlockMap
    record: Record | None
    restored: IntArray
    seal: dct_framing.Seal | None


def extract_dct(frame: Frame, ring: KeyRing, segmenters: Sequence[Segmenter]) -> BlockExtraction | None:
    """Find a record that the `dct` carrier holds, or None; every map of `segmenters` with every key.

    A map is drawn once for all keys, or a long ring would make every image without a watermark expensive.
    """
    partial = None
    for block_map in maps_for(segmenters):
        survey = dct_framing.Survey(frame, block_map)
        for key in ring.keys:
            found = read(frame, block_map, key, survey)
            if found is not None and found.record is not None:
                return found
            partial = partial or found
    return partial


def read(
    frame: Frame, block_map: BlockMap, key: SiteKey, survey: dct_framing.Survey | None = None
) -> BlockExtraction | None:
    """Read `frame` with one map and one key; None if nothing is there. `survey` as in `dct_framing.read`."""
    keys = crypto.derive(key)
    reading = dct_framing.read(frame, block_map, keys, survey)
    if reading is None:
        return None
    plaintext = crypto.open_message(keys, reading.message, context(frame, block_map.side))
    if plaintext is None:
        return BlockExtraction(key, block_map, None, frame.samples, reading.seal)
    number = 0 if reading.seal is None else reading.seal.detector
    detector = Detector(number) if number in _DETECTORS else Detector.NONE
    samples = restored(
        frame.samples, frame, block_map.side, reading.places, reading.bits, reading.threshold, detector
    )
    return BlockExtraction(key, block_map, record.decode(plaintext, frame.number), samples, reading.seal)


def context(frame: Frame, side: int) -> bytes:
    """What a message in blocks is bound to: all that one in tiles is, and the carrier."""
    return crypto.context(frame) + b"dct" + bytes([side])
