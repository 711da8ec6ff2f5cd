"""Every use of a site key: derivation, sealing, keyed order, masks, packet MACs.

One 32-byte site key gives one sub-key per purpose (HKDF-SHA256, RFC 5869), so that no two purposes ever
share key material. Messages are sealed with AES-256-SIV (RFC 5297): deterministic and misuse resistant,
so no nonce has to be carried (96 bits, a tenth of a typical message) and none can be repeated. What
determinism gives away, that two equal records under one context have equal messages, says nothing here:
the record holds the digest of the image and the time.

Keyed order and masks depend on the key, the lattice and the frame number alone, because a reader knows
nothing else beforehand. They hide structure from those without the key; secrecy and authenticity of the
record rest on the sealing alone.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from blessmark.payload import blake
from blessmark.profile import V1
from blessmark.types import Frame, Lattice, SiteKey

#: length of the authentication tag at the head of a sealed message, bytes
TAG_BYTES = 16
#: length of one tile's mask, bytes; the longest packet takes 101 of them
MASK_BYTES = 128
#: the words of an image of so many pixels at most are kept for the next one of its shape; four bytes each
_KEPT_WORDS = 1 << 20
#: the same of the masks of so many tiles
_KEPT_MASKS = 1 << 10


@dataclass(frozen=True, slots=True)
class DerivedKeys:
    """The sub-keys of one site key.

    Attributes
    ----------
    message : 64 bytes, AES-256-SIV of the message in the pixels
    order : 32 bytes, AES-256-CTR of the keyed site order
    packet : 32 bytes, BLAKE2b MAC of a tile packet
    mask : 32 bytes, AES-256-CTR of packet and header masks
    header : 32 bytes, BLAKE2b MAC of the global framing's header
    cells : 32 bytes, BLAKE2b digests of the localisation cells
    element : 64 bytes, AES-256-SIV of the sealed header element
    names : 32 bytes, HMAC-SHA256 of what stands in for a UID or an identity
    blocks : 32 bytes, BLAKE2b MACs of the `dct` carrier
    """

    message: bytes = field(repr=False)
    order: bytes = field(repr=False)
    packet: bytes = field(repr=False)
    mask: bytes = field(repr=False)
    header: bytes = field(repr=False)
    cells: bytes = field(repr=False)
    element: bytes = field(repr=False)
    names: bytes = field(repr=False)
    blocks: bytes = field(repr=False)


@lru_cache(maxsize=64)
def derive(key: SiteKey) -> DerivedKeys:
    """The sub-keys of `key`."""
    return DerivedKeys(
        message=_expand(key, b"message", 64),
        order=_expand(key, b"order", 32),
        packet=_expand(key, b"packet", 32),
        mask=_expand(key, b"mask", 32),
        header=_expand(key, b"header", 32),
        cells=_expand(key, b"cells", 32),
        element=_expand(key, b"element", 64),
        names=_expand(key, b"names", 32),
        blocks=_expand(key, b"blocks", 32),
    )


def fingerprint(key: SiteKey) -> bytes:
    """4 bytes that name a key in public; a hint, proof of nothing."""
    return _expand(key, b"fingerprint", 4)


def _expand(key: SiteKey, purpose: bytes, length: int) -> bytes:
    return HKDF(SHA256(), length, salt=b"blessmark", info=b"v1 " + purpose).derive(key.secret)


def context(frame: Frame) -> bytes:
    """What a message is bound to beside its key: format, frame number, shape and range of the samples."""
    shape = struct.pack(">IIIB", frame.number, frame.rows, frame.cols, frame.channels)
    return b"blessmark" + bytes([V1.id]) + shape + struct.pack(">ii", frame.lo, frame.hi)


def seal_message(keys: DerivedKeys, plaintext: bytes, context: bytes) -> bytes:
    """The message for the pixels: tag, then ciphertext as long as `plaintext` (which must not be empty)."""
    return _seal(keys.message, plaintext, context)


def open_message(keys: DerivedKeys, message: bytes, context: bytes) -> bytes | None:
    """The plaintext of a message; None when it does not authenticate under this key and context."""
    return _open(keys.message, message, context)


def seal_element(keys: DerivedKeys, plaintext: bytes, context: bytes) -> bytes:
    """As `seal_message`, for the sealed element in the header."""
    return _seal(keys.element, plaintext, context)


def open_element(keys: DerivedKeys, message: bytes, context: bytes) -> bytes | None:
    """As `open_message`, for the sealed element in the header."""
    return _open(keys.element, message, context)


def _seal(key: bytes, plaintext: bytes, context: bytes) -> bytes:
    return _cipher(key).encrypt(plaintext, [context])


def _open(key: bytes, message: bytes, context: bytes) -> bytes | None:
    if len(message) <= TAG_BYTES:
        return None
    try:
        return _cipher(key).decrypt(message, [context])
    except InvalidTag:
        return None


#: of the keys that `derive` keeps, with what the cipher makes of them
_cipher = lru_cache(maxsize=128)(AESSIV)


def stand_in(keys: DerivedKeys, purpose: bytes, value: bytes) -> bytes:
    """32 bytes that stand in for `value`: the same under one key, and without it no way back."""
    return hmac.digest(keys.names, purpose + b"\0" + value, "sha256")


def order_words(
    keys: DerivedKeys, frame_number: int, lattice: Lattice, rows: int, cols: int
) -> npt.NDArray[np.uint32]:
    """uint32 [rows, cols]: the keyed word of every pixel, which settles ties in the site order.

    Not to be written to: the images of a series have theirs in common.
    """
    if rows * cols > _KEPT_WORDS:
        return _order_words(keys, frame_number, lattice, rows, cols)
    return _kept_words(keys, frame_number, lattice, rows, cols)


def _order_words(
    keys: DerivedKeys, frame_number: int, lattice: Lattice, rows: int, cols: int
) -> npt.NDArray[np.uint32]:
    stream = _keystream(keys.order, b"ord", frame_number, lattice, 4 * rows * cols)
    return stream.view("<u4").astype(np.uint32, copy=False).reshape(rows, cols)


_kept_words = lru_cache(maxsize=4)(_order_words)


def packet_masks(keys: DerivedKeys, frame_number: int, lattice: Lattice, tiles: int) -> npt.NDArray[np.uint8]:
    """uint8 [tiles, 128]: what the packet of each tile is XORed with; its head is used.

    They cannot be written to: the images of a series have theirs in common.
    """
    if tiles > _KEPT_MASKS:
        return _packet_masks(keys, frame_number, lattice, tiles)
    return _kept_masks(keys, frame_number, lattice, tiles)


def _packet_masks(
    keys: DerivedKeys, frame_number: int, lattice: Lattice, tiles: int
) -> npt.NDArray[np.uint8]:
    stream = _keystream(keys.mask, b"msk", frame_number, lattice, MASK_BYTES * tiles)
    stream.flags.writeable = False
    return stream.reshape(tiles, MASK_BYTES)


_kept_masks = lru_cache(maxsize=4)(_packet_masks)


def header_mask(keys: DerivedKeys, frame_number: int, lattice: Lattice, length: int) -> npt.NDArray[np.uint8]:
    """uint8 [length]: what the header of the global framing is XORed with."""
    return _keystream(keys.mask, b"hdr", frame_number, lattice, length)


def block_words(keys: DerivedKeys, frame_number: int, side: int, count: int) -> npt.NDArray[np.uint32]:
    """uint32 [count]: the keyed word of every block of the `dct` carrier, which orders them."""
    stream = _keystream(keys.order, b"blk", frame_number, side, 4 * count)
    return stream.view("<u4").astype(np.uint32, copy=False)


def block_mask(keys: DerivedKeys, frame_number: int, side: int, length: int) -> npt.NDArray[np.uint8]:
    """uint8 [length]: what the header of the `dct` carrier is XORed with."""
    return _keystream(keys.mask, b"bhd", frame_number, side, length)


def _keystream(key: bytes, label: bytes, frame_number: int, kind: int, length: int) -> npt.NDArray[np.uint8]:
    """`length` bytes of AES-256-CTR; the counter starts at label | kind | frame | 64 zero bits.

    `kind` is the lattice, or the side of a block.
    """
    counter = label + struct.pack(">BI", kind, frame_number) + bytes(8)
    stream = np.empty(length + 15, np.uint8)  # update_into asks for a block less one byte of spare room
    Cipher(AES(key), CTR(counter)).encryptor().update_into(bytes(length), stream.data)
    return stream[:length]


def tile_mac(keys: DerivedKeys) -> blake.StateArray:
    """The 4-byte MAC of tile packets, of which many are made together."""
    return blake.keyed(keys.packet, b"bm1 tile", V1.mac_bytes)


def header_mac(keys: DerivedKeys) -> hashlib.blake2b:
    """A fresh 4-byte MAC for the header of the global framing."""
    return hashlib.blake2b(digest_size=V1.mac_bytes, key=keys.header, person=b"bm1 header")


def cell_mac(keys: DerivedKeys) -> blake.StateArray:
    """The 1-byte digest of cells of the localisation grid, of which many are made together."""
    return blake.keyed(keys.cells, b"bm1 cell", 1)


def block_header_mac(keys: DerivedKeys) -> hashlib.blake2b:
    """A fresh 4-byte MAC for the header of the `dct` carrier."""
    return hashlib.blake2b(digest_size=V1.mac_bytes, key=keys.blocks, person=b"bm1 blockheader")


def block_seal_mac(keys: DerivedKeys) -> hashlib.blake2b:
    """A fresh 16-byte MAC over every sample of a frame that the `dct` carrier marked."""
    return hashlib.blake2b(digest_size=16, key=keys.blocks, person=b"bm1 blockseal")


def block_cell_mac(keys: DerivedKeys) -> hashlib.blake2b:
    """A fresh 1-byte digest for a cell of the marked frame."""
    return hashlib.blake2b(digest_size=1, key=keys.blocks, person=b"bm1 blockcell")
