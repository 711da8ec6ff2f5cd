"""A second reader of the carrier `dct`, written from docs/format/dct.md and on `second_reader` alone.

Plain loops, nothing of the engine: what both read alike, the document says. Maps by network are left out.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tests.vectors.second_reader import (
    Frame,
    anatomy,
    blake2b,
    context,
    decode_record,
    derive,
    keystream,
    xor,
)


@dataclass
class BlockReading:
    """What was read; `carriers` are numbers of blocks, `altered` places in the grid of cells."""

    side: int
    carriers: list[int]
    threshold: int
    message: bytes
    record: dict
    detector: int
    half_db: int
    intact: bool
    altered: list[int]


def read(frame: Frame, segmenter: str, blocks: np.ndarray, secret: bytes) -> BlockReading | None:
    """Try every side; `blocks` is the answer of a stated map, bool [rows // 8, cols // 8]."""
    keys = derive(secret)
    keys["blocks"] = HKDF(SHA256(), 32, b"blessmark", b"v1 blocks").derive(secret)
    for side in (6, 8, 10):
        found = read_side(frame, side, segmenter, blocks, keys)
        if found is not None:
            return found
    return None


# 2. Blocks, 3. Bits


def pixels(frame: Frame, side: int, number: int) -> np.ndarray:
    columns = frame.x.shape[2] // side
    row, column = side * (number // columns), side * (number % columns)
    return frame.x[:, row : row + side, column : column + side]


def pattern(side: int) -> np.ndarray:
    def t(u: int, r: int) -> float:
        return math.sqrt(2 / side) * math.cos((2 * r + 1) * u * math.pi / (2 * side))

    return np.array(
        [[round(2**20 * t(side - 2, r) * t(side - 1, q)) for q in range(side)] for r in range(side)], np.int64
    )


def bits_of(frame: Frame, side: int, numbers: list[int]) -> list[int]:
    f = pattern(side)
    return [
        0 if int((f * plane).sum()) > int((f.T * plane).sum()) else 1
        for number in numbers
        for plane in pixels(frame, side, number)
    ]


# 4. Maps


def carriers(frame: Frame, side: int, segmenter: str, blocks: np.ndarray, words: np.ndarray) -> list[int]:
    _, rows, columns = frame.x.shape
    high, wide = rows // side, columns // side
    low_bound, high_bound = frame.bounds
    veil = None if segmenter == "whole/1" else Veil(frame, side, segmenter, blocks)
    found = []
    for number in range(high * wide):
        row, column = divmod(number, wide)
        content = pixels(frame, side, number)
        forced = any(
            top < side * (row + 1)
            and bottom > side * row
            and left < side * (column + 1)
            and right > side * column
            for top, left, bottom, right in frame.rectangles
        )
        inside = content.min() >= low_bound and content.max() <= high_bound
        if not forced and inside and (veil is None or veil.allows(row, column, content)):
            found.append(number)
    return sorted(found, key=lambda number: (words[number], number))


class Veil:
    """The veiled frame and what a segmenter says of it."""

    def __init__(self, frame: Frame, side: int, segmenter: str, blocks: np.ndarray) -> None:
        self.side, self.frame = side, frame
        self.high, self.wide = frame.x.shape[1] // side, frame.x.shape[2] // side
        self.x = frame.x.copy()
        for row in range(1, self.high - 1):
            for column in range(1, self.wide - 1):
                if (row + column) % 2:
                    self._hide(row, column)
        if segmenter == "anatomy/1":
            blocks = anatomy(self.x, frame.lo, frame.hi, frame.padding)
        self.roi = np.ones(frame.x.shape[1:], bool)
        self.roi[: 8 * blocks.shape[0], : 8 * blocks.shape[1]] = blocks.repeat(8, 0).repeat(8, 1)
        low, high = frame.bounds
        used = self.x[(self.x >= low) & (self.x <= high)]
        self.g = max(3, (int(used.max() - used.min()) if used.size else 0) // 100)

    def _hide(self, row: int, column: int) -> None:
        m, x = self.side, self.frame.x
        top, left = m * row, m * column
        for r in range(m):
            for q in range(m):
                west, east = x[:, top + r, left - 1], x[:, top + r, left + m]
                north, south = x[:, top - 1, left + q], x[:, top + m, left + q]
                self.x[:, top + r, left + q] = (west + east + north + south + 2) >> 2

    def allows(self, row: int, column: int, content: np.ndarray) -> bool:
        m = self.side
        inner = 0 < row < self.high - 1 and 0 < column < self.wide - 1
        if not inner or (row + column) % 2 == 0:
            return False
        if self.roi[m * row : m * row + m, m * column : m * column + m].any():
            return False
        around = ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1))
        for channel, plane in enumerate(content):
            near = np.stack([self.x[channel, m * r : m * r + m, m * q : m * q + m] for r, q in around])
            if plane.min() < near.min() - self.g or plane.max() > near.max() + self.g:
                return False
        return True


# 5. Order, header, message; 7. Reading


def place_of(frame: Frame, side: int) -> bytes:
    channels, rows, columns = frame.x.shape
    return struct.pack(">IIIBBii", frame.number, rows, columns, channels, side, frame.lo, frame.hi)


def packed(bits: list[int]) -> bytes:
    return np.packbits(np.array(bits, np.uint8)).tobytes()


def read_side(
    frame: Frame, side: int, segmenter: str, blocks: np.ndarray, keys: dict[str, bytes]
) -> BlockReading | None:
    channels, rows, columns = frame.x.shape
    count = (rows // side) * (columns // side)
    stream = keystream(keys["order"], b"blk", side, frame.number, 4 * count)
    order = carriers(frame, side, segmenter, blocks, np.frombuffer(stream, "<u4"))
    masked = packed(bits_of(frame, side, order[: -(-64 // channels)])[:64])
    header = xor(masked, keystream(keys["mask"], b"bhd", side, frame.number, 8))
    place = place_of(frame, side)
    if len(header) < 8 or header[4:] != blake2b(keys["blocks"], b"bm1 blockheader", 4, place + header[:4]):
        return None
    length, threshold = struct.unpack(">HH", header[:4])
    used = -(-(64 + 8 * length) // channels)
    bits = bits_of(frame, side, order[:used])[: 64 + 8 * length]
    message = packed(bits[64:])
    try:
        plaintext = AESSIV(keys["message"]).decrypt(message, [context(frame) + b"dct" + bytes([side])])
    except InvalidTag:
        return None
    detector, half_db, intact, altered = read_seal(frame, side, order[used:], keys, place)
    record = decode_record(plaintext, frame.number)
    return BlockReading(side, order[:used], threshold, message, record, detector, half_db, intact, altered)


# 6. Seal


def cells_of(rows: int, columns: int) -> list[tuple[int, int, int]]:
    """(top, left, side) of every cell of v1 section 10.5, in pixels."""
    high, wide, step = -(-rows // 64), -(-columns // 64), 1
    while -(-high // step) * -(-wide // step) > 64:
        step *= 2
    return [(64 * top, 64 * left, 64 * step) for top in range(0, high, step) for left in range(0, wide, step)]


def read_seal(
    frame: Frame, side: int, order: list[int], keys: dict[str, bytes], place: bytes
) -> tuple[int, int, bool, list[int]]:
    channels, rows, columns = frame.x.shape
    low, high = frame.bounds
    cells = cells_of(rows, columns)
    needed = 8 * (18 + len(cells))
    sites = []
    for number in order:
        top, left = side * (number // (columns // side)), side * (number % (columns // side))
        for c in range(channels):
            for r in range(top, top + side):
                for q in range(left, left + side):
                    v = int(frame.x[c, r, q])
                    if v - (v - low) % 2 + 1 <= high:
                        sites.append((c, r, q))
        if len(sites) >= needed:
            break
    cleared, bits = frame.x.copy(), []
    for site in sites[:needed]:
        bit = (int(cleared[site]) - low) % 2
        cleared[site] -= bit
        bits.append(bit)
    content = packed(bits)
    words = (cleared % 65536).astype("<u2")
    digests = [
        blake2b(
            keys["blocks"],
            b"bm1 blockcell",
            1,
            struct.pack(">II", frame.number, index)
            + words[:, top : top + size, left : left + size].tobytes(),
        )[0]
        for index, (top, left, size) in enumerate(cells)
    ]
    body = place + content[:2] + bytes(digests) + words.tobytes()
    mac = blake2b(keys["blocks"], b"bm1 blockseal", 16, body)
    wrong = [index for index, digest in enumerate(digests) if digest != content[2 + index]]
    return content[0], content[1], not wrong and mac == content[-16:], wrong
