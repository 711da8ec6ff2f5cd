"""Put a signature over a marked frame, as a layer that everybody can take off again, and check one.

The layer is a second mark: same carrier, same map, same lattice, under a key that is no secret. What it holds
signs the frame below it, record included, which taking it off gives back bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from blessmark.carrier import global_framing, tile_framing
from blessmark.embed import allowed_change
from blessmark.errors import WatermarkError
from blessmark.extract import put_back
from blessmark.fidelity import psnr_db
from blessmark.payload import crypto, signature
from blessmark.payload.signature import LAYER_KEY, Instance, PublicKey, Signature, SigningKey
from blessmark.profile import V1
from blessmark.roi import Maps, block_map, fixed_blocks, pixel_mask
from blessmark.types import (
    BoolArray,
    Embedded,
    Frame,
    Framing,
    Lattice,
    Segmenter,
    SignatureEvidence,
    SignatureState,
)

_KEYS = crypto.derive(LAYER_KEY)


@dataclass(frozen=True, slots=True)
class Signed:
    """A signed frame; `beside`: the pixels had no room, so that the signature travels beside them."""

    done: Embedded
    signature: Signature
    beside: bool


@dataclass(frozen=True, slots=True)
class Release:
    """What a reader brings to signatures: the instance as it arrived, and the keys that it trusts.

    `beside` is the signature from a header element; `hinted` tells that the header speaks of a layer in the
    pixels, which is then looked for first.
    """

    instance: Instance = Instance("", 1)  # noqa: RUF009 - frozen
    keys: Sequence[PublicKey] = ()
    beside: bytes | None = None
    hinted: bool = False


@dataclass(frozen=True, slots=True)
class Peeled:
    """A frame without its layer, as far as the layer could be read.

    `signature` is None when packets of a layer authenticate, but too few to read what they say.
    """

    frame: Frame
    signature: Signature | None
    received: Frame = field(repr=False)
    reader: tile_framing.Reader | None = field(default=None, repr=False)
    lattice: Lattice = Lattice.QUARTER


def sign(
    original: Frame,
    done: Embedded,
    segmenter: Segmenter,
    instance: Instance,
    time_s: int,
    key: SigningKey,
    *,
    max_change: int | None = None,
) -> Signed:
    """Sign what `embed` made of `original`, in the pixels if they have room.

    `segmenter` and `max_change` are those that `embed` was given: record and layer together move no sample
    further. The result has been read back.

    Raises
    ------
    WatermarkError
        the signed frame did not read back
    """
    made = signature.sign(done.frame, instance, time_s, key)
    signed = _layer(original, done, segmenter, signature.seal(made, done.frame), max_change)
    if signed is None:
        return Signed(done, made, beside=True)
    found = peel(signed, (segmenter,))
    if found is None or found.signature != made or not np.array_equal(found.frame.planes, done.frame.planes):
        raise WatermarkError(f"frame {original.number}: its signature did not read back; not released")
    changes = np.abs(signed.samples - original.samples)
    receipt = replace(
        done.receipt,
        changed_samples=int(np.count_nonzero(changes)),
        max_change=int(changes.max()),
        psnr_db=psnr_db(original, signed.samples),
    )
    return Signed(Embedded(signed, receipt), made, beside=False)


def peel(frame: Frame, segmenters: Sequence[Segmenter], maps: Maps | None = None) -> Peeled | None:
    """Take the signature layer off, None if there is none.

    Needs no secret. The first reading that holds a signature is taken, else the one with most packets.
    `maps` are those of `frame`, where others use them too.
    """
    maps = maps or Maps(frame)
    readers = {lattice: tile_framing.Reader(frame, lattice, _KEYS) for lattice in Lattice}
    partial: list[Peeled] = []
    for segmenter in segmenters:
        for lattice, reader in readers.items():
            roi = maps.of(segmenter, lattice)
            if not roi.all():
                reader.read_only(roi, signature.SHARDS)
                partial.extend(_opened(frame, reader, lattice))
            if partial and partial[-1].signature is not None:
                return partial[-1]
    for segmenter in segmenters:
        for lattice in Lattice:
            whole = _peeled_whole(frame, maps.of(segmenter, lattice), lattice)
            if whole is not None:
                return whole
    return max(partial, key=_packets, default=None)


def peel_again(found: Peeled) -> Peeled:
    """The same after a closer look at silent tiles, by maps drawn from each tile alone.

    A damaged image may have its map drawn differently now.
    """
    if found.reader is None:
        return found
    before = len(found.reader.packets)
    fixed = fixed_blocks(found.received, found.lattice)
    found.reader.search(range(len(found.reader.grid)), fixed)
    if len(found.reader.packets) == before:
        return found
    return next(iter(_opened(found.received, found.reader, found.lattice)), found)


def judged(found: Peeled | None, frame: Frame, release: Release) -> SignatureEvidence:
    """What the signature of `frame`, as received, proves to those who trust the keys of `release`."""
    beside = None if release.beside is None else Signature.from_bytes(release.beside)
    if found is not None and found.signature is not None:
        return _checked(found.signature, found.frame, release, "pixels")
    if beside is not None:
        return _checked(beside, frame, release, "header")  # signed as it left, layers of strangers included
    claimed = found is not None or release.hinted or release.beside is not None
    return SignatureEvidence(SignatureState.INVALID if claimed else SignatureState.NONE)


def check(frame: Frame, segmenters: Sequence[Segmenter], release: Release) -> SignatureEvidence:
    """The same without a key ring: read the layer, take it off, check what it says."""
    found = peel(frame, segmenters)
    if found is not None and found.signature is None:
        found = peel_again(found)
    return judged(found, frame, release)


def _checked(made: Signature, below: Frame, release: Release, carried: str) -> SignatureEvidence:
    key = next((key for key in release.keys if key.id == made.key), None)
    if key is None:
        state = SignatureState.UNKNOWN_KEY
    elif not signature.holds(made, below, release.instance, key):
        state = SignatureState.INVALID
    else:
        state = SignatureState.REVOKED if key.revoked else SignatureState.VALID
    return SignatureEvidence(state, made.key, made.time_s, carried)


def _layer(
    original: Frame, done: Embedded, segmenter: Segmenter, message: bytes, max_change: int | None
) -> Frame | None:
    """The frame with a layer on the lattice and in the framing of the record, None without room."""
    lattice, framing = done.receipt.lattice, done.receipt.framing
    if lattice is None:
        return None
    allowed = allowed_change(original, lattice) if max_change is None else max_change
    spare = allowed - done.receipt.max_change
    if spare < 1:
        return None
    roi = block_map(segmenter, done.frame, lattice)
    if framing is Framing.TILE:
        plan = tile_framing.plan(done.frame, roi, lattice, _KEYS, spare)
        tries = (tile_framing.embed(plan, _KEYS, message, resilient=hard) for hard in (True, False))
        signed = next((found for found in tries if found is not None), None)
    else:
        signed = global_framing.embed(
            global_framing.plan(done.frame, roi, lattice, _KEYS, spare), _KEYS, message
        )
    if signed is None:
        return None
    outside = ~pixel_mask(roi, original.rows, original.cols)
    changes = np.abs(signed.samples - original.samples)
    if (changes.any(axis=0) & ~outside).any() or changes.max() > allowed:
        raise WatermarkError(f"frame {original.number}: its signature left the room it has; not released")
    return signed


def _opened(frame: Frame, reader: tile_framing.Reader, lattice: Lattice) -> Iterator[Peeled]:
    """The signature that the packets of `reader` hold, else what is below them; nothing without packets."""
    if not reader.packets:
        return
    everywhere = frozenset(reader.packets)
    for message, tiles in reader.messages():
        made = signature.unseal(message, frame)
        if made is not None:
            foreign = frozenset(divmod(tile, reader.grid.shape[1]) for tile in everywhere - tiles)
            yield Peeled(put_back(frame, reader, foreign), made, frame, reader, lattice)
            return
    yield Peeled(reader.restored, None, frame, reader, lattice)


def _packets(found: Peeled) -> int:
    return 0 if found.reader is None else len(found.reader.packets)


def _may_be_a_layer(reading: global_framing.Reading, frame: Frame) -> bool:
    """Whether a message is as long as a layer's, and moved no sample further than one in tiles could.

    The header of global framing names any T, and a stranger may write it: the image would come back bit for
    bit, and look like anything until then.
    """
    furthest = np.abs(frame.samples - reading.restored.samples).max()
    return len(reading.message) == signature.SHARDS * V1.shard_bytes and furthest <= V1.expansions[-1]


def _peeled_whole(frame: Frame, roi: BoolArray, lattice: Lattice) -> Peeled | None:
    reading = None if roi.all() else global_framing.read(frame, roi, lattice, _KEYS)
    if reading is None or not _may_be_a_layer(reading, frame):
        return None
    made = signature.unseal(reading.message, frame)
    restored = reading.restored if made is not None else frame
    return Peeled(restored, made, frame, None, lattice)
