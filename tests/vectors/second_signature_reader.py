"""A second reader of signature layers, written from docs/format/signature.md; section numbers are its.

It builds on the second reader of v1 and shares no line with the engine.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

import numpy as np
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from tests.vectors import second_reader as v1


@dataclass
class Layer:
    """What is below a layer, and what the layer says; `message` is None if too little of it is left."""

    below: v1.Frame
    message: bytes | None
    key: bytes = b""
    time_s: int = 0
    signature: bytes = b""


# 1. The layer


def read(frame: v1.Frame, blocks: np.ndarray) -> Layer | None:
    """Find a layer by the segmenter's answer, bool [R, C], the same for both lattices."""
    keys = v1.derive(hashlib.sha256(b"blessmark signature layer").digest())
    found = None
    for lattice in (v1.QUARTER, v1.QUINCUNX):
        nroi = v1.nroi_pixels(frame, blocks, lattice)
        packets, restored = v1.read_tiles(frame, nroi, lattice, keys)
        packets = [packet for packet in packets if packet.k == 16]
        message = v1.decode_shards(packets, 16) if packets else None
        opened = None if message is None else _opened(frame, restored, keys, message)
        if opened is not None:
            return opened
        if packets:
            found = Layer(_below(frame, restored), None)
    for lattice in (v1.QUARTER, v1.QUINCUNX):
        whole = v1.read_global(frame, v1.nroi_pixels(frame, blocks, lattice), lattice, keys)
        if whole is not None:
            _, message, restored = whole
            if len(message) != 96 or np.abs(frame.x - restored).max() > 4:
                continue
            opened = _opened(frame, restored, keys, message)
            return opened or Layer(_below(frame, restored), None)
    return found


def _opened(frame: v1.Frame, restored: np.ndarray, keys: dict, message: bytes) -> Layer | None:
    try:
        content = AESSIV(keys["message"]).decrypt(message, [v1.context(frame) + b"signature"])
    except InvalidTag:
        return None
    version, key, time_s, signature = struct.unpack(">B8sI64s", content[:77])
    assert version == 1
    assert not content[77:].strip(b"\0")
    return Layer(_below(frame, restored), message, key, time_s, signature)


def _below(frame: v1.Frame, restored: np.ndarray) -> v1.Frame:
    return v1.Frame(restored, frame.lo, frame.hi, frame.padding, frame.number, frame.rectangles)


# 2. What is signed


def statement(below: v1.Frame, frames: int, time_s: int, uid: str) -> bytes:
    head = struct.pack(">IIIii", *below.x.shape, below.lo, below.hi)
    pixels = b"blessmark pixels" + head + below.x.astype("<u2").tobytes()
    return b"".join(
        [
            b"blessmark signature\x01",
            v1.context(below),
            struct.pack(">II", frames, time_s),
            hashlib.sha256(uid.encode()).digest(),
            hashlib.sha256(pixels).digest(),
        ]
    )


# 4. Reading


def state(layer: Layer | None, keys: list[dict], frames: int, uid: str) -> str:
    if layer is None:
        return "none"
    if layer.message is None:
        return "invalid"
    for key in keys:
        raw = bytes.fromhex(key["raw"])
        if hashlib.sha256(raw).digest()[:8] != layer.key:
            continue
        said = statement(layer.below, frames, layer.time_s, uid)
        try:
            Ed25519PublicKey.from_public_bytes(raw).verify(layer.signature, said)
        except InvalidSignature:
            return "invalid"
        return "revoked" if key["revoked"] else "valid"
    return "unknown-key"
