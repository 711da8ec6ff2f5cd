"""A second reader of format v1, written from docs/format/v1.md alone. Section numbers below are its.

It shares no line with the engine, prefers clarity to speed, and takes the segmenter's map as given. What it
proves is that the document says enough.
"""

from __future__ import annotations

import base64
import bz2
import hashlib
import struct
from dataclasses import dataclass, field
from math import isqrt
from pathlib import Path

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

QUARTER, QUINCUNX = 0, 1
BANDS_WITHOUT_HEADER = [(t, t << n) for t in (1, 2, 4) for n in range(7)]
PACKET_SHARDS = (1, 2, 4, 8, 16)
DICTIONARY_SHA256 = "12d8c3527cf771ecafc21b8a455e4352f30d15c75b7334bd404bb07837d88e47"


# 2. The frame


@dataclass
class Frame:
    x: np.ndarray  # int64 [channels, rows, columns]
    lo: int
    hi: int
    padding: tuple[int, int] | None
    number: int
    rectangles: list[tuple[int, int, int, int]] = field(default_factory=list)

    @property
    def bounds(self) -> tuple[int, int]:
        if self.padding is None:
            return self.lo, self.hi
        a, b = self.padding
        if a - self.lo <= self.hi - b:
            return max(self.lo, b + 1), self.hi
        return self.lo, min(self.hi, a - 1)


# 3, 4. Lattices and map


def lattice_pixels(rows: int, columns: int, lattice: int) -> np.ndarray:
    r, q = np.indices((rows, columns))
    return (r % 2 == 1) & (q % 2 == 1) if lattice == QUARTER else (r + q) % 2 == 1


def view(frame: Frame, lattice: int) -> np.ndarray:
    _, rows, columns = frame.x.shape
    v = frame.x.copy()
    for r, q in np.argwhere(lattice_pixels(rows, columns, lattice)):
        x = frame.x[:, r]
        if 0 < r < rows - 1 and 0 < q < columns - 1:
            v[:, r, q] = (frame.x[:, r - 1, q] + frame.x[:, r + 1, q] + x[:, q - 1] + x[:, q + 1] + 2) >> 2
        else:
            v[:, r, q] = x[:, q - 1] if q > 0 else frame.x[:, r - 1, q]
    return v


def nroi_pixels(frame: Frame, segmented: np.ndarray, lattice: int) -> np.ndarray:
    """bool [rows, columns]: pixels of NROI blocks; `segmented` is what the segmenter says of the blocks."""
    _, rows, columns = frame.x.shape
    roi = segmented.copy()
    fixed = np.zeros((rows, columns), bool)
    if frame.padding is not None:
        a, b = frame.padding
        padded = ((frame.x >= a) & (frame.x <= b)).any(axis=0)
        fixed |= padded & ~lattice_pixels(rows, columns, lattice)
    for top, left, bottom, right in frame.rectangles:
        fixed[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = True
    result = np.zeros((rows, columns), bool)
    for i in range(rows // 8):
        for j in range(columns // 8):
            block = slice(8 * i, 8 * i + 8), slice(8 * j, 8 * j + 8)
            result[block] = not (roi[i, j] or fixed[block].any())
    return result


# 5. Sites


@dataclass
class Sites:
    """Sites of a window in coding order: where they are, and their predictions by every predictor."""

    channel: np.ndarray
    row: np.ndarray
    column: np.ndarray
    predictions: dict[int, np.ndarray]

    def of(self, x: np.ndarray) -> np.ndarray:
        return x[self.channel, self.row, self.column]


def shifted(plane: np.ndarray, down: int, right: int, absent: int) -> np.ndarray:
    """The plane whose element (r, q) is that of (r + down, q + right), `absent` beyond the edges."""
    rows, columns = plane.shape
    wide = np.pad(plane, 2, constant_values=absent)
    return wide[2 + down : 2 + down + rows, 2 + right : 2 + right + columns]


def predictions(ring: dict[str, np.ndarray], lattice: int) -> dict[int, np.ndarray]:
    n, s, w, e = ring["N"], ring["S"], ring["W"], ring["E"]
    cross = n + s + w + e
    v, h = abs(n - s) + 1, abs(w - e) + 1
    cardinal = np.stack([n, s, w, e])
    result = {
        0: (cross + 2) >> 2,
        2: ((n + s) * h + (w + e) * v + (v + h)) // (2 * (v + h)),
        5: (cross - cardinal.max(axis=0) - cardinal.min(axis=0) + 1) >> 1,
    }
    if lattice == QUARTER:
        diag = ring["NW"] + ring["NE"] + ring["SE"] + ring["SW"]
        result |= {1: (2 * cross - diag + 2) >> 2, 3: (3 * cross - diag + 4) >> 3, 4: (cross + diag + 4) >> 3}
    return result


def activity(ring: dict[str, np.ndarray], lattice: int) -> np.ndarray:
    names = ["N", "NE", "E", "SE", "S", "SW", "W", "NW"] if lattice == QUARTER else ["N", "E", "S", "W"]
    around = sum(abs(ring[a] - ring[b]) for a, b in zip(names, names[1:] + names[:1], strict=True))
    return around + abs(ring["N"] - ring["S"]) + abs(ring["W"] - ring["E"])


def find_sites(frame: Frame, nroi: np.ndarray, lattice: int, words: np.ndarray, window: tuple) -> Sites:
    top, left, bottom, right = window
    part = slice(top, bottom), slice(left, right)
    low, high = frame.bounds
    inner = np.zeros((bottom - top, right - left), bool)
    inner[1:-1, 1:-1] = True
    inner &= lattice_pixels(*frame.x.shape[1:], lattice)[part]
    found = []
    for channel, plane in enumerate(frame.x):
        x = plane[part]
        ring = {
            name: shifted(x, down, right, 0)
            for name, down, right in (
                ("NW", -1, -1), ("N", -1, 0), ("NE", -1, 1), ("W", 0, -1),
                ("E", 0, 1), ("SW", 1, -1), ("S", 1, 0), ("SE", 1, 1),
            )
        }  # fmt: skip
        a = np.where(inner, activity(ring, lattice), -1)
        total = 0
        nearest = (
            ((-2, 0), (2, 0), (0, -2), (0, 2)) if lattice == QUARTER else ((-1, -1), (-1, 1), (1, -1), (1, 1))
        )
        for down, right_ in nearest:
            other = shifted(a, down, right_, -1)
            total = total + np.where(other < 0, a, other)
        complexity = 2 * a + (total >> 1)
        r, q = np.nonzero(inner & nroi[part])
        guesses = [np.clip(p, low, high)[r, q] for _, p in sorted(predictions(ring, lattice).items())]
        key = (complexity[r, q] << 34) | ((words[part][r, q] >> 2) << 4) | channel
        found.append(np.stack([key, np.full(len(r), channel), r + top, q + left, *guesses]))
    table = np.concatenate(found, axis=1)
    table = table[:, np.lexsort((table[3], table[2], table[0]))]
    names = (0, 1, 2, 3, 4, 5) if lattice == QUARTER else (0, 2, 5)
    return Sites(table[1], table[2], table[3], dict(zip(names, table[4:], strict=True)))


# 6. Bands


@dataclass
class Walk:
    """Bits read, for each the place behind the site that carried it, and the values of all sites restored."""

    bits: np.ndarray
    ends: np.ndarray
    restored: np.ndarray


def walk(
    x: np.ndarray, p: np.ndarray, bounds: tuple, u: int, d: int | None, t: int, zu: int, zd: int
) -> Walk:
    """Every site is read for itself, so a walk needs no loop; the caller cuts it off."""
    low, high = bounds
    e = x - p
    up = (e >= u) & (high - p >= u + zu + t - 1) & (p + u >= low)
    down = np.zeros_like(up)
    if d is not None:
        down = (e < u) & (e <= d) & (p - low >= zd + t - 1 - d) & (p + d <= high)
    sign = up.astype(int) - down.astype(int)
    k = np.where(up, e - u, 0 if d is None else d - e)
    z = np.where(up, zu, zd)
    part = up | down
    carries = part & (k < 2 * t)
    moved = part & (k >= 2 * t) & (k < z + t)
    restored = x - sign * np.where(carries, k - (k >> 1), np.where(moved, t, 0))
    return Walk((k[carries] % 2).astype(np.uint8), np.flatnonzero(carries) + 1, restored)


# 7. Tile framing


@dataclass
class Packet:
    row: int
    column: int
    tile: int
    t: int
    z: int
    k: int
    shards: list[bytes]


def read_tiles(frame: Frame, nroi: np.ndarray, lattice: int, keys: dict) -> tuple[list[Packet], np.ndarray]:
    channels, rows, columns = frame.x.shape
    grid_rows, grid_columns = -(-rows // 64), -(-columns // 64)
    words = order_words(keys, frame, lattice)
    masks = keystream(keys["mask"], b"msk", lattice, frame.number, 128 * grid_rows * grid_columns)
    restored = frame.x.copy()
    packets = []
    for tile in range(grid_rows * grid_columns):
        row, column = divmod(tile, grid_columns)
        window = 64 * row, 64 * column, min(64 * row + 64, rows), min(64 * column + 64, columns)
        if min(window[2] - window[0], window[3] - window[1]) < 16:
            continue
        sites = find_sites(frame, nroi, lattice, words, window)
        mask = masks[128 * tile : 128 * tile + 128]
        place = struct.pack(">IHHHHBBH", frame.number, row, column, window[2] - window[0],
                            window[3] - window[1], channels, lattice, len(sites.row))  # fmt: skip
        found = read_tile(frame, sites, window, lattice, keys, place, mask)
        if found is not None:
            values, t, z, content = found
            restored[sites.channel, sites.row, sites.column] = values
            shards = [content[at : at + 6] for at in range(1, len(content), 6)]
            packets.append(Packet(row, column, tile, t, z, content[0], shards))
    return packets, restored


def read_tile(frame, sites, window, lattice, keys, place, mask):
    """(values of the sites, T, Z, packet without MAC), None where nothing authenticates."""
    top, left, bottom, right = window
    untouched = frame.x.copy()
    untouched[sites.channel, sites.row, sites.column] = 0
    untouched = untouched[:, top:bottom, left:right].astype("<u2").tobytes()
    x, p = sites.of(frame.x), sites.predictions[3 if lattice == QUARTER else 0]
    for t, z in BANDS_WITHOUT_HEADER:
        read = walk(x, p, frame.bounds, 0, -1, t, z, z)
        for j in PACKET_SHARDS:
            length = 8 * (1 + 6 * j + 4)
            if len(read.bits) < length:
                break
            end = read.ends[length - 1]
            values = np.concatenate([read.restored[:end], x[end:]])
            packet = xor(np.packbits(read.bits[:length]).tobytes(), mask)
            content, mac = packet[:-4], packet[-4:]
            covered = place + untouched + values.astype("<u2").tobytes() + content
            if content[0] and mac == blake2b(keys["packet"], b"bm1 tile", 4, covered):
                return values, t, z, content
    return None


def multiply(a: int, b: int) -> int:
    """In GF(2^16), 7.2."""
    product = 0
    while b:
        if b & 1:
            product ^= a
        a <<= 1
        if a > 0xFFFF:
            a ^= 0x1100B
        b >>= 1
    return product


def invert(a: int) -> int:
    """a^(2^16 - 2)."""
    result, power = 1, 0xFFFE
    while power:
        if power & 1:
            result = multiply(result, a)
        a = multiply(a, a)
        power >>= 1
    return result


def interpolate(shards: dict[int, bytes], k: int) -> bytes:
    """The message of k shards at distinct points, by Newton's divided differences."""
    points = sorted(shards)[:k]
    columns = []
    for c in range(3):
        difference = [int.from_bytes(shards[a][2 * c : 2 * c + 2]) for a in points]
        for order in range(1, k):
            for i in range(k - 1, order - 1, -1):
                rise = difference[i] ^ difference[i - 1]
                difference[i] = multiply(rise, invert(points[i] ^ points[i - order])) if rise else 0
        coefficients = [0] * k
        for i in range(k - 1, -1, -1):  # coefficients := coefficients * (X - point) + difference
            times_point = [multiply(value, points[i]) for value in coefficients]
            coefficients = [
                above ^ here for above, here in zip([0, *coefficients], times_point, strict=False)
            ]
            coefficients[0] ^= difference[i]
        columns.append(coefficients)
    return b"".join(value.to_bytes(2) for row in zip(*columns, strict=True) for value in row)


def evaluate(message: bytes, point: int) -> bytes:
    """The shard of a point."""
    shard = b""
    for c in range(3):
        value = 0
        for at in range(len(message) - 6, -1, -6):
            value = multiply(value, point) ^ int.from_bytes(message[at + 2 * c : at + 2 * c + 2])
        shard += value.to_bytes(2)
    return shard


def decode_shards(packets: list[Packet], k: int) -> bytes | None:
    """The message if no shard is wrong; that is all the positive vectors need."""
    shards = {16 * (p.tile % 4096) + i: s for p in packets if p.k == k for i, s in enumerate(p.shards)}
    return interpolate(shards, k) if len(shards) >= k else None


# 8. Global framing


@dataclass
class Header:
    predictor: int
    u: int
    d: int | None
    t: int
    zu: int
    zd: int
    bits: int
    own_t: int
    own_z: int


def read_global(frame: Frame, nroi: np.ndarray, lattice: int, keys: dict):
    """(header, message, restored samples), None where no header authenticates."""
    channels, rows, columns = frame.x.shape
    sites = find_sites(frame, nroi, lattice, order_words(keys, frame, lattice), (0, 0, rows, columns))
    x, p = sites.of(frame.x), sites.predictions[3 if lattice == QUARTER else 0]
    mask = keystream(keys["mask"], b"hdr", lattice, frame.number, 17)
    for t, z in BANDS_WITHOUT_HEADER:
        read = walk(x, p, frame.bounds, 0, -1, t, z, z)
        if len(read.bits) < 136:
            continue
        packet = xor(np.packbits(read.bits[:136]).tobytes(), mask)
        place = struct.pack(">IIIBBHH", frame.number, rows, columns, channels, lattice, t, z)
        if packet[13:] != blake2b(keys["header"], b"bm1 header", 4, place + packet[:13]):
            continue
        predictor, u, d, t_, zu, zd, bits = struct.unpack(">BbbHHHI", packet[:13])
        header = Header(predictor, u, None if d == 127 else d, t_, zu, zd, bits, t, z)
        end = read.ends[135]
        tail = walk(x[end:], sites.predictions[predictor][end:], frame.bounds, u, header.d, t_, zu, zd)
        if len(tail.bits) < bits:
            return None
        last = tail.ends[bits - 1]
        values = np.concatenate([read.restored[:end], tail.restored[:last], x[end:][last:]])
        restored = frame.x.copy()
        restored[sites.channel, sites.row, sites.column] = values
        return header, np.packbits(tail.bits[:bits]).tobytes(), restored
    return None


# 9. Keys, keystreams, message


def derive(secret: bytes) -> dict[str, bytes]:
    lengths = {"message": 64, "order": 32, "packet": 32, "mask": 32, "header": 32, "cells": 32,
               "element": 64, "fingerprint": 4}  # fmt: skip
    return {
        name: HKDF(SHA256(), length, b"blessmark", b"v1 " + name.encode()).derive(secret)
        for name, length in lengths.items()
    }


def keystream(key: bytes, label: bytes, lattice: int, number: int, length: int) -> bytes:
    counter = label + struct.pack(">BIQ", lattice, number, 0)
    return Cipher(algorithms.AES(key), modes.CTR(counter)).encryptor().update(bytes(length))


def order_words(keys: dict, frame: Frame, lattice: int) -> np.ndarray:
    _, rows, columns = frame.x.shape
    stream = keystream(keys["order"], b"ord", lattice, frame.number, 4 * rows * columns)
    return np.frombuffer(stream, "<u4").astype(np.int64).reshape(rows, columns)


def blake2b(key: bytes, person: bytes, size: int, content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=size, key=key, person=person).digest()


def xor(content: bytes, mask: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(content, mask, strict=False))


def context(frame: Frame) -> bytes:
    channels, rows, columns = frame.x.shape
    return b"blessmark" + struct.pack(
        ">BIIIBii", 1, frame.number, rows, columns, channels, frame.lo, frame.hi
    )


def unseal(key: bytes, message: bytes, frame: Frame) -> bytes | None:
    try:
        return AESSIV(key).decrypt(message, [context(frame)])
    except InvalidTag:
        return None


# 10. Record


def words(text: str) -> list[str]:
    return text.split()


FULL = words(
    """00100010 00100020 00100030 00100040 00080020 00080030 00080050 00080060 00080080 00080090
       0020000D 0020000E 00080018"""
)
CORE = words("00100010 00100020 00100030 00100040 00080020 00080060 00080018")
TABLE = words(
    """00100010 0 00100020 1 00100021 8 00100030 2 00100040 3 00101010 14 00101000 1 00101001 0
       00080020 4 00080030 5 00080021 4 00080031 5 00080022 4 00080032 5 00080023 4 00080033 5
       00080050 6 00080060 7 00080070 18 00080080 8 00081040 8 00080090 9 00081048 9 00081050 9
       00081070 9 00081030 11 0008103E 11 00181030 11 00081010 18 00081090 18 00180015 13 00200010 6
       00200011 12 00200012 12 00200013 12 0020000D 10 0020000E 10 00080016 10 00080018 10
       00200052 10"""
)
TAGS, CLASSES = TABLE[0::2], dict(zip(TABLE[0::2], map(int, TABLE[1::2]), strict=True))
CHARSET, NODE, SEGMENTER, OTHER, UID = 15, 16, 17, 19, 10


def decode_record(plaintext: bytes, number: int) -> dict:
    tier = plaintext[0] - 0x10
    result = {
        "tier": ("full", "core", "seal")[tier],
        "pixel_digest": plaintext[1:17].hex(),
        "frame": number,
    }
    if tier == 2:
        assert not plaintext[25:].strip(b"\0")
        return result | {
            "uid_digest": plaintext[17:25].hex(), "frames": 0, "time_s": 0, "node": "", "segmenter": "",
            "charset": "", "fields": {}, "digests": "",
        }  # fmt: skip
    m = plaintext[21]
    result |= {"time_s": int.from_bytes(plaintext[17:21]), "digests": plaintext[22 : 22 + m].hex()}
    coded = Coded(plaintext[22 + m :])
    result["frames"] = coded.number() + 1
    result["charset"] = (coded.value(CHARSET) or b"").hex()
    result["node"] = coded.text(NODE).decode()
    result["segmenter"] = coded.text(SEGMENTER).decode()
    fields = {tag: coded.value(CLASSES[tag]) for tag in (FULL, CORE)[tier]}
    while coded.choice(15, 1):
        index = coded.uniform(64)
        tag = f"{coded.uniform(1 << 32):08X}" if index == 63 else TAGS[index]
        fields[tag] = coded.value(OTHER if index == 63 else CLASSES[tag])
    fields = {tag: value for tag, value in sorted(fields.items()) if value is not None}
    uid = fields.get("00080018")
    if uid is None or coded.choice(255, 1):
        result["uid_digest"] = coded.uniform(1 << 64).to_bytes(8).hex()
    else:
        result["uid_digest"] = hashlib.sha256(uid.rstrip(b"\0 ")).digest()[:8].hex()
    assert coded.n == 0
    return result | {"fields": {tag: value.hex() for tag, value in fields.items()}}


class Coded:
    """The coded part of a record (10.2) and the model (10.4)."""

    def __init__(self, content: bytes) -> None:
        self.n = int.from_bytes(content, "little")
        self.history = dictionary()
        self.own = len(self.history)

    def take(self, weights: list[int]) -> int:
        slot, below = self.n % sum(weights), 0
        for symbol, weight in enumerate(weights):
            if slot < below + weight:
                self.n = weight * (self.n // sum(weights)) + slot - below
                return symbol
            below += weight
        raise AssertionError("slot is below the total")

    def choice(self, *weights: int) -> int:
        return self.take(list(weights))

    def uniform(self, n: int) -> int:
        self.n, value = divmod(self.n, n)
        return value

    def number(self) -> int:
        b = self.choice(992, *[1] * 32)
        return (1 << (b - 1)) + self.uniform(1 << (b - 1)) if b else 0

    def value(self, class_: int) -> bytes | None:
        mode = self.choice(8, 55, 1)
        if mode == 0:
            return None
        text = self.text(class_)
        return text + (b"\0" if class_ == UID else b" ") if mode == 1 and len(text) % 2 else text

    def text(self, class_: int) -> bytes:
        self.history.append(257 + class_)
        if self.choice(63, 1):
            length = self.number()
            text = self.uniform(256**length).to_bytes(length)
            self.history += [*(1 + byte for byte in text), 0]
            return text
        text = b""
        while symbol := self.symbol():
            text += bytes([symbol - 1])
        return text

    def symbol(self) -> int:
        symbol = self.take(self.weights())
        self.history.append(symbol)
        return symbol

    def weights(self) -> list[int]:
        history = np.array(self.history)
        p = np.full(257, 2**24 // 257)
        places = np.arange(len(history))  # where a symbol stands behind an occurrence of the context
        for k in range(7):
            if k:
                last = history[len(history) - k]
                places = places[places >= k]
                places = places[history[places - k] == last]
            if k > 1 and (history[len(history) - k + 1 :] >= 257).any():
                break
            followers = places[history[places] < 257]
            n = np.bincount(history[followers], np.where(followers < self.own, 1, 4), 257).astype(np.int64)
            if n.sum() == 0:
                break
            d = np.count_nonzero(n)
            p = (n * 2**24 + 4 * d * p) // (n.sum() + 4 * d)
        return (p // 64 + 1).tolist()


def dictionary() -> list[int]:
    path = Path(__file__).parents[2] / "core" / "blessmark" / "payload" / "dictionary_v1.bin"
    content, history = path.read_bytes(), []
    assert hashlib.sha256(content).hexdigest() == DICTIONARY_SHA256
    while content:
        class_, length = content[0], content[1]
        history += [257 + class_, *(1 + byte for byte in content[2 : 2 + length]), 0]
        content = content[2 + length :]
    return history


def pixel_digest(frame: Frame) -> str:
    head = struct.pack(">IIIii", *frame.x.shape, frame.lo, frame.hi)
    return hashlib.sha256(b"blessmark pixels" + head + frame.x.astype("<u2").tobytes()).digest()[:16].hex()


def cell_digests(frame: Frame, keys: dict) -> str:
    _, rows, columns = frame.x.shape
    grid_rows, grid_columns, step = -(-rows // 64), -(-columns // 64), 1
    while -(-grid_rows // step) * -(-grid_columns // step) > 64:
        step *= 2
    side, digests = 64 * step, b""
    for top in range(0, rows, side):
        for left in range(0, columns, side):
            cell = frame.x[:, top : top + side, left : left + side].astype("<u2").tobytes()
            place = struct.pack(">II", frame.number, len(digests))
            digests += blake2b(keys["cells"], b"bm1 cell", 1, place + cell)
    return digests.hex()


# 11. anatomy/1


def anatomy(v: np.ndarray, lo: int, hi: int, padding: tuple[int, int] | None) -> np.ndarray:
    """bool [R, C]: ROI blocks of a view."""
    rows, columns = v.shape[1] // 8, v.shape[2] // 8
    outside = np.ones((rows, columns), bool)
    if not outside.size:
        return outside
    for plane in v:
        plane = plane[: 8 * rows, : 8 * columns]
        filled = np.zeros(plane.shape, bool)
        if padding is not None:
            filled = (plane >= padding[0]) & (plane <= padding[1])
        outside &= reached(air_blocks(plane, filled, len(v) == 1 and hi - lo > 255))
    return ~outside


def air_blocks(plane: np.ndarray, filled: np.ndarray, maybe_disc: bool) -> np.ndarray:
    if maybe_disc and is_disc(filled):
        return in_disc(plane, filled)
    cells, used, base, top = measure(plane, filled)
    ring = np.ones(used.shape, bool)
    ring[4:-4, 4:-4] = False
    air = plateau(cells, used, top, ring, 5)
    if air is None:
        mirrored = plateau(top - cells, used, top, ring, 5)
        if mirrored is None or mirrored[1] != 0:
            return np.zeros((used.shape[0] // 4, used.shape[1] // 4), bool)
        return blocks_all(~used | (top - cells <= 0))
    level, limit = air
    result = blocks_all(~used | (cells <= limit))
    if maybe_disc and limit == level:
        fill = filled | (4 * plane == level + base)
        if is_disc(fill):
            result |= in_disc(plane, fill)
    return result


def in_disc(plane: np.ndarray, fill: np.ndarray) -> np.ndarray:
    cells, used, _, top = measure(plane, fill)
    solid, touched = blocks_all(fill, 8), ~blocks_all(~fill, 8)
    beside = np.kron(grown(solid, 4) & ~touched, np.ones((4, 4), bool))
    air = plateau(cells, used, top, beside, 25)
    return np.zeros(solid.shape, bool) if air is None else blocks_all(~used | (cells <= air[1]))


def blocks_all(mask: np.ndarray, side: int = 4) -> np.ndarray:
    """True where all side x side elements are."""
    rows, columns = mask.shape[0] // side, mask.shape[1] // side
    return mask.reshape(rows, side, columns, side).all(axis=(1, 3))


def grown(mask: np.ndarray, steps: int = 1) -> np.ndarray:
    """True within that many steps, diagonals included, of a True one."""
    for _ in range(steps):
        wide = np.pad(mask, 1)
        rows, columns = mask.shape
        mask = np.any([wide[r : r + rows, q : q + columns] for r in range(3) for q in range(3)], axis=0)
    return mask


def measure(plane: np.ndarray, fill: np.ndarray):
    """(cells, used, base, top)."""
    sums = plane[0::2, 0::2] + plane[0::2, 1::2] + plane[1::2, 0::2] + plane[1::2, 1::2]
    used = ~grown(~blocks_all(~fill, 2))
    base, top = (int(sums[used].min()), int(sums[used].max())) if used.any() else (0, 0)
    return sums - base, used, base, top - base


def plateau(cells: np.ndarray, used: np.ndarray, top: int, ring: np.ndarray, percent: int) -> tuple | None:
    """(level, limit)."""
    t = threshold(cells[used], top)
    values = np.sort(cells[ring & used & (cells < t)])
    if len(values) == 0 or 100 * len(values) < percent * ring.sum():
        return None
    level = int(values[(len(values) - 1) // 2])
    spread = int(np.sort(abs(values - level))[(len(values) - 1) // 2])
    if 16 * spread > t - level:
        return None
    return level, level + (max(6 * spread, (t - level) // 8) if spread else 0)


def threshold(cells: np.ndarray, top: int) -> int:
    shift = max(0, top.bit_length() - 10)
    levels, counts = np.unique(cells >> shift, return_counts=True)
    pairs = [(int(level), int(count)) for level, count in zip(levels, counts, strict=True)]
    n, m = sum(c for _, c in pairs), sum(level * c for level, c in pairs)
    b = s = t = 0
    best = (0, 1)
    for level, count in pairs[:-1]:
        b, s = b + count, s + level * count
        gain = ((m * b - s * n) ** 2, b * (n - b))
        if gain[0] * best[1] > best[0] * gain[1]:
            best, t = gain, (level + 1) << shift
    return t


def is_disc(fill: np.ndarray) -> bool:
    solid = blocks_all(fill, 8)
    rows, columns = solid.shape
    if not (solid[0, 0] and solid[0, -1] and solid[-1, 0] and solid[-1, -1]):
        return False
    if any(strip.all() for strip in (solid[:2], solid[-2:], solid[:, :2], solid[:, -2:])):
        return False
    i, j = np.indices(solid.shape)
    distance = (2 * i + 1 - rows) ** 2 + (2 * j + 1 - columns) ** 2
    return isqrt(int(distance[~solid].max())) - isqrt(int(distance[solid].min())) <= 4


def components(mask: np.ndarray, diagonals: bool) -> list[list[tuple[int, int]]]:
    steps = [(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1) if (a, b) != (0, 0) and (diagonals or not a * b)]
    left = set(map(tuple, np.argwhere(mask).tolist()))
    found = []
    while left:
        frontier = [left.pop()]
        component = []
        while frontier:
            r, q = frontier.pop()
            component.append((r, q))
            for a, b in steps:
                if (r + a, q + b) in left:
                    left.remove((r + a, q + b))
                    frontier.append((r + a, q + b))
        found.append(component)
    return found


def reached(air: np.ndarray) -> np.ndarray:
    rows, columns = air.shape
    outside = np.zeros(air.shape, bool)
    for component in components(~grown(~air), diagonals=False):
        at_border = any(r in (0, rows - 1) or q in (0, columns - 1) for r, q in component)
        if at_border and len(component) >= 16:
            outside[tuple(zip(*component, strict=True))] = True
    body = ~outside
    for component in components(~outside, diagonals=True):
        if len(component) < 64:
            continue
        part = np.zeros(air.shape, bool)
        part[tuple(zip(*component, strict=True))] = True
        for r in range(rows):
            if part[r].any():
                body[r, np.argmax(part[r]) : columns - np.argmax(part[r, ::-1])] = True
        for q in range(columns):
            if part[:, q].any():
                body[np.argmax(part[:, q]) : rows - np.argmax(part[::-1, q]), q] = True
    return ~body


# Planes of the vectors (tests/vectors/README.md)


def generate(plane: dict) -> np.ndarray:
    channels, rows, columns = plane["channels"], plane["rows"], plane["cols"]
    x = np.zeros((channels, rows, columns), np.int64)
    r, q = np.indices((rows, columns))
    for number, layer in enumerate(plane["layers"]):
        a, b, c, d = layer["area"]["at"]
        if layer["area"]["shape"] == "rectangle":
            inside = (a <= r) & (r < c) & (b <= q) & (q < d)
        else:
            inside = ((r - a) * d) ** 2 + ((q - b) * c) ** 2 <= (c * d) ** 2
        inside = inside != layer["area"]["outside"]
        slope = (layer["slope"][0] * r + layer["slope"][1] * q) >> layer["shift"]
        for channel in range(channels):
            if layer["levels"] == 1:
                x[channel][inside] = (layer["base"][channel] + slope)[inside]
                continue
            seed, texts = f"{plane['seed']}/{number}/{channel}", rows * columns // 16 + 1
            stream = b"".join(hashlib.sha256(f"{seed}/{i}".encode()).digest() for i in range(texts))
            noise = np.frombuffer(stream, ">u2", rows * columns).reshape(rows, columns).astype(np.int64)
            x[channel][inside] = (layer["base"][channel] + slope + noise % layer["levels"])[inside]
    return x


def received(vector: dict) -> Frame:
    """What the reader of a vector receives."""
    facts = vector["frame"] | vector["read"]["frame"]
    original = generate(vector["plane"])
    changes = np.frombuffer(bz2.decompress(base64.b64decode(vector["received"]["changes"])), "<i4")
    x = (original + changes.reshape(original.shape))[
        :, : vector["received"]["rows"], : vector["received"]["cols"]
    ]
    return Frame(x, facts["lo"], facts["hi"], facts["padding"], vector["read"]["number"], facts["forced_roi"])


# 12. Reading


@dataclass
class Reading:
    """What is found; `packets` of tile framing, `header` of global framing."""

    message: bytes
    record: dict
    restored: np.ndarray
    exact: bool
    lattice: int | None = None
    packets: list[Packet] = field(default_factory=list)
    header: Header | None = None


def read(
    frame: Frame, maps: dict[int, np.ndarray], secret: bytes, sealed: bytes | None = None
) -> Reading | None:
    """Read a frame; `maps` are the segmenter's answers by lattice, bool [R, C]."""
    keys = derive(secret)
    nroi = {lattice: nroi_pixels(frame, blocks, lattice) for lattice, blocks in maps.items()}
    for lattice in maps:
        packets, restored = read_tiles(frame, nroi[lattice], lattice, keys)
        for k in sorted({p.k for p in packets}, key=lambda k: -sum(p.k == k for p in packets)):
            message = decode_shards(packets, k)
            plaintext = None if message is None else unseal(keys["message"], message, frame)
            if plaintext is not None:
                return judged(frame, message, plaintext, restored, lattice, packets=packets)
    for lattice in maps:
        found = read_global(frame, nroi[lattice], lattice, keys)
        if found is not None:
            header, message, restored = found
            plaintext = unseal(keys["message"], message, frame)
            if plaintext is not None:
                return judged(frame, message, plaintext, restored, lattice, header=header)
    if sealed is not None:
        plaintext = unseal(keys["element"], sealed, frame)
        if plaintext is not None:
            return judged(frame, sealed, plaintext, frame.x, None)
    return None


def judged(frame: Frame, message: bytes, plaintext: bytes, restored: np.ndarray, lattice, **how) -> Reading:
    original = Frame(restored, frame.lo, frame.hi, frame.padding, frame.number)
    record = decode_record(plaintext, frame.number)
    exact = pixel_digest(original) == record["pixel_digest"]
    return Reading(message, record, restored, exact, lattice, **how)
