"""Sealing, derivation and keyed streams against published and independent answers."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

from blessmark.payload import blake, crypto
from blessmark.types import Frame, Lattice, SiteKey

KEY = SiteKey(1, bytes(range(32)))
OTHER = SiteKey(1, bytes(range(1, 33)))
KEYS = crypto.derive(KEY)
FRAME = Frame(np.zeros((1, 40, 48), np.int32), 0, 4095, number=3)


def hkdf(info: bytes, length: int) -> bytes:
    """RFC 5869, written out."""
    secret = hmac.digest(b"blessmark", KEY.secret, "sha256")
    output, block = b"", b""
    while len(output) < length:
        block = hmac.digest(secret, block + info + bytes([len(output) // 32 + 1]), "sha256")
        output += block
    return output[:length]


def counter_stream(key: bytes, label: bytes, lattice: int, frame: int, length: int) -> bytes:
    """AES-256-CTR, block by block."""
    cipher = Cipher(AES(key), ECB()).encryptor()
    head = label + bytes([lattice]) + frame.to_bytes(4)
    return b"".join(cipher.update(head + i.to_bytes(8)) for i in range(-(-length // 16)))[:length]


def test_sealing_is_rfc_5297() -> None:
    """Appendix A.1 of the RFC (there with a 256-bit key)."""
    key = bytes.fromhex("fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff")
    context = bytes.fromhex("101112131415161718191a1b1c1d1e1f2021222324252627")
    sealed = crypto.seal_message(
        replace(KEYS, message=key), bytes.fromhex("112233445566778899aabbccddee"), context
    )
    assert sealed.hex() == "85632d07c6e8f37f950acd320a2ecc9340c02b9690c4dc04daef7f6afe5c"


@pytest.mark.parametrize("name", ["message", "order", "packet", "mask", "header", "cells", "element"])
def test_sub_keys_are_rfc_5869(name: str) -> None:
    sub_key = getattr(KEYS, name)
    assert len(sub_key) == (64 if name in ("message", "element") else 32)
    assert sub_key == hkdf(b"v1 " + name.encode(), len(sub_key))


def test_fingerprint_is_public_and_short() -> None:
    assert crypto.fingerprint(KEY) == hkdf(b"v1 fingerprint", 4)
    assert crypto.fingerprint(KEY) != crypto.fingerprint(OTHER)


def test_secrets_stay_out_of_repr() -> None:
    assert repr(KEYS) == "DerivedKeys()"


@pytest.mark.parametrize("part", ["message", "element"])
def test_opening_needs_the_key_the_context_and_every_bit(part: str) -> None:
    seal, unseal = getattr(crypto, f"seal_{part}"), getattr(crypto, f"open_{part}")
    sealed = seal(KEYS, b"plaintext", b"context")
    assert len(sealed) == crypto.TAG_BYTES + 9
    assert unseal(KEYS, sealed, b"context") == b"plaintext"
    assert unseal(crypto.derive(OTHER), sealed, b"context") is None
    assert unseal(KEYS, sealed, b"contexT") is None
    for bit in range(8 * len(sealed)):
        flipped = bytearray(sealed)
        flipped[bit // 8] ^= 1 << bit % 8
        assert unseal(KEYS, bytes(flipped), b"context") is None


@pytest.mark.parametrize("length", [0, 1, 15, 16, 17])
def test_opening_what_was_never_sealed_finds_nothing(length: int) -> None:
    assert crypto.open_message(KEYS, bytes(length), b"context") is None


def test_message_and_element_do_not_open_each_other() -> None:
    assert crypto.open_element(KEYS, crypto.seal_message(KEYS, b"plaintext", b""), b"") is None


def test_context_binds_what_the_design_says() -> None:
    expected = b"blessmark" + bytes([1]) + bytes.fromhex("00000003 00000028 00000030 01 00000000 00000fff")
    assert crypto.context(FRAME) == expected
    variants = [
        replace(FRAME, number=4),
        replace(FRAME, lo=-1),
        replace(FRAME, hi=4094),
        FRAME.with_samples(FRAME.samples + 1),
        Frame(np.zeros((1, 48, 40), np.int32), 0, 4095, number=3),
    ]
    assert [crypto.context(variant) == expected for variant in variants] == [False, False, False, True, False]
    assert crypto.context(Frame(FRAME.samples, -32768, 32767)).endswith(bytes.fromhex("ffff800000007fff"))


def test_order_words_are_counter_mode_words() -> None:
    words = crypto.order_words(KEYS, 7, Lattice.QUINCUNX, 5, 3)
    stream = counter_stream(KEYS.order, b"ord", 1, 7, 60)
    assert words.dtype == np.uint32
    assert words.tolist() == np.frombuffer(stream, "<u4").reshape(5, 3).tolist()


def test_masks_are_counter_mode_bytes() -> None:
    masks = crypto.packet_masks(KEYS, 9, Lattice.QUARTER, 3)
    assert masks.shape == (3, 128)
    assert masks.tobytes() == counter_stream(KEYS.mask, b"msk", 0, 9, 384)
    header = crypto.header_mask(KEYS, 9, Lattice.QUARTER, 21)
    assert header.tobytes() == counter_stream(KEYS.mask, b"hdr", 0, 9, 21)


def test_streams_can_be_written_to_and_do_not_share_memory() -> None:
    first = crypto.header_mask(KEYS, 1, Lattice.QUARTER, 21)
    first[:] = 0
    assert crypto.header_mask(KEYS, 1, Lattice.QUARTER, 21).any()


@pytest.mark.parametrize("tiles", [1, 64, 1025])
def test_masks_are_kept_for_the_next_image_and_cannot_be_written_to(tiles: int) -> None:
    masks = crypto.packet_masks(KEYS, 1, Lattice.QUARTER, tiles)
    with pytest.raises(ValueError, match="read-only"):
        masks[:] = 0
    kept = crypto.packet_masks(KEYS, 1, Lattice.QUARTER, tiles)
    assert (kept is masks) is (tiles <= 1024)
    assert kept.tobytes() == counter_stream(KEYS.mask, b"msk", 0, 1, 128 * tiles)


def test_macs_are_keyed_blake2b_told_apart_by_purpose() -> None:
    expected = [
        (crypto.header_mac, KEYS.header, b"bm1 header", 4),
        (crypto.block_header_mac, KEYS.blocks, b"bm1 blockheader", 4),
        (crypto.block_seal_mac, KEYS.blocks, b"bm1 blockseal", 16),
        (crypto.block_cell_mac, KEYS.blocks, b"bm1 blockcell", 1),
    ]
    for fresh, key, person, size in expected:
        mac = fresh(KEYS)
        branch = mac.copy()
        branch.update(b"pixels")
        assert (
            branch.digest() == hashlib.blake2b(b"pixels", digest_size=size, key=key, person=person).digest()
        )
        assert mac.digest() == hashlib.blake2b(digest_size=size, key=key, person=person).digest()


def test_macs_of_many_at_once_are_keyed_blake2b_too() -> None:
    row = np.frombuffer(b"pixels".ljust(128, b"\0"), "<u2").astype(np.uint16).reshape(1, -1)
    for fresh, key, person, size in [
        (crypto.tile_mac, KEYS.packet, b"bm1 tile", 4),
        (crypto.cell_mac, KEYS.cells, b"bm1 cell", 1),
    ]:
        digest = blake.digests(fresh(KEYS), row, np.array([6]))[0, :size].tobytes()
        assert digest == hashlib.blake2b(b"pixels", digest_size=size, key=key, person=person).digest()
