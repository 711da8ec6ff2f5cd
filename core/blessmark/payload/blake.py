"""Many BLAKE2b hashes (RFC 7693) at a time: one beside the other in the vector units of the processor.

`hashlib` hashes one message after the other, and each word of a message waits for the one before. Tiles and
cells are dozens of messages of which none waits for another, so here the loop is over messages: the compiler
makes it one of vectors. For one message on its own `hashlib` is as fast.

Messages come in rows of 16-bit numbers, of which the lower byte is the first one. Rows are whole blocks long,
and hold zeros behind their message, up to the end of its last block.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from blessmark.jit import compiled

StateArray = npt.NDArray[np.uint64]
WordArray = npt.NDArray[np.uint64]
RowArray = npt.NDArray[np.uint16]
LengthArray = npt.NDArray[np.int64]
ByteArray = npt.NDArray[np.uint8]

BLOCK_BYTES = 128
#: bytes that a keyed hash has hashed before its message
KEYED = BLOCK_BYTES

#: so many messages go side by side
LANES = 8
_STATE_WORDS, _BLOCK_WORDS = 8, 16
#: where state, block, count and marks stand in what `_compress` works on, each `LANES` words a row
_BLOCK_AT, _COUNT_AT, _LAST_AT, _LIVE_AT, _ROWS = 8, 24, 25, 26, 27
_IV = (
    0x6A09E667F3BCC908,
    0xBB67AE8584CAA73B,
    0x3C6EF372FE94F82B,
    0xA54FF53A5F1D36F1,
    0x510E527FADE682D1,
    0x9B05688C2B3E6C1F,
    0x1F83D9ABFB41BD6B,
    0x5BE0CD19137E2179,
)

_Eight = tuple[np.uint64, np.uint64, np.uint64, np.uint64, np.uint64, np.uint64, np.uint64, np.uint64]
_Sixteen = tuple[np.uint64, ...]


@lru_cache(maxsize=64)
def keyed(key: bytes, person: bytes, size: int) -> StateArray:
    """uint64 [1, 8]: the state of a hash of `size` bytes before its message; not to be written to.

    `key` has 1 to 64 bytes, `person` up to 16. The key's own block is hashed, which `KEYED` counts.
    """
    parameters = bytes((size, len(key), 1, 1)).ljust(48, b"\0") + person.ljust(16, b"\0")
    states: StateArray = (np.array(_IV, np.uint64) ^ np.frombuffer(parameters, "<u8")).reshape(
        1, _STATE_WORDS
    )
    block = np.frombuffer(key.ljust(BLOCK_BYTES, b"\0"), "<u8").astype(np.uint64).reshape(1, -1)
    _hash_all(states, block, np.array([BLOCK_BYTES]), np.zeros(1, np.int64), False)
    states.flags.writeable = False
    return states


def padded(length: int) -> int:
    """The smallest length from `length` on, in bytes, that is whole blocks and one at least."""
    return max(1, -(-length // BLOCK_BYTES)) * BLOCK_BYTES


def absorbed(states: StateArray, rows: RowArray, lengths: LengthArray) -> StateArray:
    """uint64 [n, 8]: the states once that many bytes of each row, whole blocks or none, were hashed.

    More must follow them. `states`, uint64 [n or 1, 8], are those of keyed hashes that have hashed nothing.
    """
    ours = _one_each(states, rows)
    _hash_all(ours, _words(rows), lengths, np.full(len(rows), KEYED), False)
    return ours


def digests(
    states: StateArray, rows: RowArray, lengths: LengthArray, counts: LengthArray | int = KEYED
) -> ByteArray:
    """uint8 [n, 64]: what a message hashes to that ends with so many bytes of its row, one at least.

    The first bytes of each are the digest, as many as its state was made for. `states` are as in `absorbed`
    or come from there; `counts`, int64 [n], then say how many bytes were hashed, the key's block included.
    """
    ours, before = _one_each(states, rows), np.zeros(len(rows), np.int64) + counts
    _hash_all(ours, _words(rows), lengths, before, True)
    return ours.astype("<u8", copy=False).view(np.uint8)


def _one_each(states: StateArray, rows: RowArray) -> StateArray:
    """A copy of the states, one for each row."""
    ours = np.empty((len(rows), _STATE_WORDS), np.uint64)
    ours[:] = states
    return ours


def _words(rows: RowArray) -> WordArray:
    words: WordArray = rows.astype("<u2", copy=False).view("<u8").astype(np.uint64, copy=False)
    return words


@compiled
def _hash_all(
    states: WordArray, messages: WordArray, lengths: LengthArray, counts: LengthArray, last: bool
) -> None:
    """Hash `lengths` bytes of each message into its state, to the end of the message if it is the `last`."""
    work, own, width = np.zeros(_ROWS * LANES, np.uint64), np.zeros(LANES, np.int64), messages.shape[1]
    content = messages.reshape(-1)
    for first in range(0, len(states), LANES):
        lanes, most = min(LANES, len(states) - first), 0
        for lane in range(lanes):
            for i in range(_STATE_WORDS):
                work[i * LANES + lane] = states[first + lane, i]
            blocks = -(-lengths[first + lane] // BLOCK_BYTES)
            own[lane] = max(blocks, 1) if last else blocks
            most = max(most, own[lane])
        for block in range(most):
            for lane in range(lanes):
                n = first + lane
                if block < own[lane]:
                    _put_block(content, n * width + block * _BLOCK_WORDS, work, lane)
                hashed = counts[n] + min(lengths[n], (block + 1) * BLOCK_BYTES)
                work[_COUNT_AT * LANES + lane] = np.uint64(hashed)
                work[_LAST_AT * LANES + lane] = _marked(last and block == own[lane] - 1)
                work[_LIVE_AT * LANES + lane] = _marked(block < own[lane])
            _compress(work, 1 if lanes == 1 else (lanes + 3) & ~3)
        for lane in range(lanes):
            for i in range(_STATE_WORDS):
                states[first + lane, i] = work[i * LANES + lane]


@compiled
def _marked(whether: bool) -> np.uint64:
    """All bits, or none."""
    return np.uint64(0) - np.uint64(whether)


@compiled
def _put_block(content: WordArray, at: int, work: WordArray, lane: int) -> None:
    source, target = np.uint64(at), np.uint64(_BLOCK_AT * LANES + lane)
    for i in range(np.uint64(_BLOCK_WORDS)):
        work[target + i * np.uint64(LANES)] = content[source + i]


@compiled
def _compress(work: WordArray, lanes: int) -> None:
    """One block of each of so many messages; the state of a lane that is not live stays as it is.

    The order in which a round takes the words of a block is a row of the table in RFC 7693, 2.7.
    """
    for lane in range(np.uint64(lanes)):
        h = _eight(work, lane, 0)
        m0, m1, m2, m3, m4, m5, m6, m7 = _eight(work, lane, _BLOCK_AT)
        m8, m9, m10, m11, m12, m13, m14, m15 = _eight(work, lane, _BLOCK_AT + 8)
        count, last, live = _at(work, lane, _COUNT_AT), _at(work, lane, _LAST_AT), _at(work, lane, _LIVE_AT)
        v = _started(h, count, last)
        v = _round(v, m0, m1, m2, m3, m4, m5, m6, m7, m8, m9, m10, m11, m12, m13, m14, m15)
        v = _round(v, m14, m10, m4, m8, m9, m15, m13, m6, m1, m12, m0, m2, m11, m7, m5, m3)
        v = _round(v, m11, m8, m12, m0, m5, m2, m15, m13, m10, m14, m3, m6, m7, m1, m9, m4)
        v = _round(v, m7, m9, m3, m1, m13, m12, m11, m14, m2, m6, m5, m10, m4, m0, m15, m8)
        v = _round(v, m9, m0, m5, m7, m2, m4, m10, m15, m14, m1, m11, m12, m6, m8, m3, m13)
        v = _round(v, m2, m12, m6, m10, m0, m11, m8, m3, m4, m13, m7, m5, m15, m14, m1, m9)
        v = _round(v, m12, m5, m1, m15, m14, m13, m4, m10, m0, m7, m6, m3, m9, m2, m8, m11)
        v = _round(v, m13, m11, m7, m14, m12, m1, m3, m9, m5, m0, m15, m4, m8, m6, m2, m10)
        v = _round(v, m6, m15, m14, m9, m11, m3, m0, m8, m12, m2, m13, m7, m1, m4, m10, m5)
        v = _round(v, m10, m2, m8, m4, m7, m6, m1, m5, m15, m11, m9, m14, m3, m12, m13, m0)
        v = _round(v, m0, m1, m2, m3, m4, m5, m6, m7, m8, m9, m10, m11, m12, m13, m14, m15)
        v = _round(v, m14, m10, m4, m8, m9, m15, m13, m6, m1, m12, m0, m2, m11, m7, m5, m3)
        _keep(work, lane, h, v, live)


@compiled
def _at(work: WordArray, lane: int, row: int) -> np.uint64:
    word: np.uint64 = work[np.uint64(row * LANES) + lane]
    return word


@compiled
def _eight(work: WordArray, lane: int, row: int) -> _Eight:
    """The words of a lane in eight rows."""
    return (
        _at(work, lane, row),
        _at(work, lane, row + 1),
        _at(work, lane, row + 2),
        _at(work, lane, row + 3),
        _at(work, lane, row + 4),
        _at(work, lane, row + 5),
        _at(work, lane, row + 6),
        _at(work, lane, row + 7),
    )


@compiled
def _started(h: _Eight, count: np.uint64, last: np.uint64) -> _Sixteen:
    """What the rounds begin with; no message has 2^64 bytes, so the upper word of its count is 0."""
    i0, i1, i2, i3, i4, i5, i6, i7 = _IV
    a, b = (np.uint64(i0), np.uint64(i1), np.uint64(i2), np.uint64(i3)), (np.uint64(i5), np.uint64(i7))
    return h + a + (np.uint64(i4) ^ count, b[0], np.uint64(i6) ^ last, b[1])


@compiled
def _keep(work: WordArray, lane: int, h: _Eight, v: _Sixteen, live: np.uint64) -> None:
    """Write the state after a block, of a lane that is live."""
    work[np.uint64(0 * LANES) + lane] = h[0] ^ ((v[0] ^ v[8]) & live)
    work[np.uint64(1 * LANES) + lane] = h[1] ^ ((v[1] ^ v[9]) & live)
    work[np.uint64(2 * LANES) + lane] = h[2] ^ ((v[2] ^ v[10]) & live)
    work[np.uint64(3 * LANES) + lane] = h[3] ^ ((v[3] ^ v[11]) & live)
    work[np.uint64(4 * LANES) + lane] = h[4] ^ ((v[4] ^ v[12]) & live)
    work[np.uint64(5 * LANES) + lane] = h[5] ^ ((v[5] ^ v[13]) & live)
    work[np.uint64(6 * LANES) + lane] = h[6] ^ ((v[6] ^ v[14]) & live)
    work[np.uint64(7 * LANES) + lane] = h[7] ^ ((v[7] ^ v[15]) & live)


@compiled
def _round(
    v: _Sixteen,
    m0: np.uint64,
    m1: np.uint64,
    m2: np.uint64,
    m3: np.uint64,
    m4: np.uint64,
    m5: np.uint64,
    m6: np.uint64,
    m7: np.uint64,
    m8: np.uint64,
    m9: np.uint64,
    m10: np.uint64,
    m11: np.uint64,
    m12: np.uint64,
    m13: np.uint64,
    m14: np.uint64,
    m15: np.uint64,
) -> _Sixteen:
    """A round: the columns of the state, then its diagonals."""
    a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3 = v
    a0, b0, c0, d0 = _mixed(a0, b0, c0, d0, m0, m1)
    a1, b1, c1, d1 = _mixed(a1, b1, c1, d1, m2, m3)
    a2, b2, c2, d2 = _mixed(a2, b2, c2, d2, m4, m5)
    a3, b3, c3, d3 = _mixed(a3, b3, c3, d3, m6, m7)
    a0, b1, c2, d3 = _mixed(a0, b1, c2, d3, m8, m9)
    a1, b2, c3, d0 = _mixed(a1, b2, c3, d0, m10, m11)
    a2, b3, c0, d1 = _mixed(a2, b3, c0, d1, m12, m13)
    a3, b0, c1, d2 = _mixed(a3, b0, c1, d2, m14, m15)
    return a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3


@compiled
def _mixed(
    a: np.uint64, b: np.uint64, c: np.uint64, d: np.uint64, x: np.uint64, y: np.uint64
) -> tuple[np.uint64, np.uint64, np.uint64, np.uint64]:
    """The function G."""
    a = a + b + x
    d = _rotated(d ^ a, 32)
    c = c + d
    b = _rotated(b ^ c, 24)
    a = a + b + y
    d = _rotated(d ^ a, 16)
    c = c + d
    return a, _rotated(b ^ c, 63), c, d


@compiled
def _rotated(word: np.uint64, by: int) -> np.uint64:
    """Rotated to the right."""
    return (word >> np.uint64(by)) | (word << np.uint64(64 - by))
