"""What a signature says and how it is checked: Ed25519 (RFC 8032) over a frame and what it is part of.

The key that seals a signature for the pixels is no secret: it only lets the carrier be the same as for a
record. What a signature proves rests on the signing key alone (docs/format/signature.md).
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from blessmark.payload import crypto
from blessmark.payload.packets import padded_plaintext_length
from blessmark.payload.record import hashed_pixels
from blessmark.profile import V1
from blessmark.types import Frame, SiteKey

#: what a label calls the layer; stands among the ids of segmenters, so that readers without it do not judge
LAYER_ID = "signature/1"
#: the key of the layer, known to everybody
LAYER_KEY = SiteKey(0, hashlib.sha256(b"blessmark signature layer").digest())

_VERSION = 1
_KEY_ID_BYTES = 8
_SEED_BYTES = _PUBLIC_BYTES = 32
_SIGNATURE_BYTES = 64
_FORM = struct.Struct(f">B{_KEY_ID_BYTES}sI{_SIGNATURE_BYTES}s")
_STATED = struct.Struct(">II")
#: data shards of the message of a layer
SHARDS = (crypto.TAG_BYTES + padded_plaintext_length(_FORM.size)) // V1.shard_bytes


@dataclass(frozen=True, slots=True)
class SigningKey:
    """The secret half of a key; `seed` is 32 bytes."""

    seed: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.seed) != _SEED_BYTES:
            raise ValueError("a signing key is 32 bytes")

    @property
    def public(self) -> bytes:
        """The public half, 32 bytes."""
        return Ed25519PrivateKey.from_private_bytes(self.seed).public_key().public_bytes_raw()


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key that a reader trusts, 32 bytes; or trusted once, if it is `revoked`."""

    raw: bytes
    revoked: bool = False

    def __post_init__(self) -> None:
        if len(self.raw) != _PUBLIC_BYTES:
            raise ValueError("a public key is 32 bytes")

    @property
    def id(self) -> bytes:
        """8 bytes that name it everywhere."""
        return key_id(self.raw)


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature as it travels: the id of its key, the time that the signer claims, 64 bytes."""

    key: bytes
    time_s: int
    value: bytes = field(repr=False)

    def to_bytes(self) -> bytes:
        """77 bytes; `from_bytes` is its inverse."""
        return _FORM.pack(_VERSION, self.key, self.time_s, self.value)

    @classmethod
    def from_bytes(cls, content: bytes) -> Signature | None:
        """What `to_bytes` wrote, zero bytes behind it apart; None for anything else."""
        if len(content) < _FORM.size or content[_FORM.size :].strip(b"\0"):
            return None
        version, key, time_s, value = _FORM.unpack(content[: _FORM.size])
        return cls(key, time_s, value) if version == _VERSION else None


@dataclass(frozen=True, slots=True)
class Instance:
    """What a frame is part of, as it leaves the signer: its SOP Instance UID and how many frames it has."""

    sop_instance_uid: str
    frames: int


def key_id(public: bytes) -> bytes:
    """8 bytes that name a public key."""
    return hashlib.sha256(public).digest()[:_KEY_ID_BYTES]


def sign(frame: Frame, instance: Instance, time_s: int, key: SigningKey) -> Signature:
    """Sign a frame as it is; the same again gives the same signature."""
    private = Ed25519PrivateKey.from_private_bytes(key.seed)
    value = private.sign(_statement(frame, instance, time_s))
    return Signature(key_id(key.public), time_s, value)


def holds(signature: Signature, frame: Frame, instance: Instance, key: PublicKey) -> bool:
    """Whether the holder of `key` signed this very frame as part of this instance."""
    try:
        Ed25519PublicKey.from_public_bytes(key.raw).verify(
            signature.value, _statement(frame, instance, signature.time_s)
        )
    except InvalidSignature:
        return False
    return True


def seal(signature: Signature, frame: Frame) -> bytes:
    """The message of the layer of a frame, whole shards; everybody can open it."""
    content = signature.to_bytes()
    padded = content.ljust(padded_plaintext_length(len(content)), b"\0")
    return crypto.seal_message(crypto.derive(LAYER_KEY), padded, _context(frame))


def unseal(message: bytes, frame: Frame) -> Signature | None:
    """The signature of a message, None if it is none of this place and shape."""
    content = crypto.open_message(crypto.derive(LAYER_KEY), message, _context(frame))
    return None if content is None else Signature.from_bytes(content)


def _context(frame: Frame) -> bytes:
    return crypto.context(frame) + b"signature"


def _statement(frame: Frame, instance: Instance, time_s: int) -> bytes:
    """What is signed; every part has a fixed length."""
    uid = instance.sop_instance_uid.encode("utf-8", "surrogateescape").rstrip(b"\0 ")
    return (
        b"blessmark signature"
        + bytes([_VERSION])
        + crypto.context(frame)
        + _STATED.pack(instance.frames, time_s)
        + hashlib.sha256(uid).digest()
        + hashed_pixels(frame).digest()
    )
