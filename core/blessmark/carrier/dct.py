"""The paper's carrier: one bit a block, by which of two transform coefficients is the greater.

BlessMark, Algorithms 1 (embed), 2 (extract), 3 (recover). Of an m x m block the coefficients c(i, i+1) and
c(i+1, i) are compared, i = 5, 7, 9 for m = 6, 8, 10 (counted from 1). Bit 0 reads as c(i, i+1) > c(i+1, i).

Everything is integer arithmetic on basis patterns in 20 fractional bits, so that a block reads the same bit
and is marked the same way on every machine (docs/format/dct.md section 3). Only these two coefficients
change, so no transform is needed: marking adds a multiple of two patterns to the block.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy.linalg import hadamard as sylvester

from blessmark.errors import CapacityError
from blessmark.jit import compiled
from blessmark.types import BoolArray, IntArray

Wide = npt.NDArray[np.int64]
Bits = npt.NDArray[np.uint8]
#: numbers of blocks, row by row
Places = npt.NDArray[np.intp]
#: (which of the blocks, int [k]; their content, int32 [k, channels, side, side]) -> bool [k, channels]:
#: whether they are outside the region of interest; a map bound to the places of some blocks
Stays = Callable[[Places, IntArray], BoolArray]

#: block sides that the paper uses, pixels
SIDES = (6, 8, 10)
#: fractional bits of a pattern
_FRACTION = 20
#: thresholds are counted in hundredths of a grey level
HUNDREDTHS = 100
#: how often the threshold is doubled for a block that does not read, before it is given up
_DOUBLINGS = 4
#: blocks that are worked on at once, so that large images need little memory
_CHUNK = 16_384


@dataclass(frozen=True, slots=True)
class Pair:
    """The two patterns that a carrier compares: `first` and `second`, int64 [side * side].

    Any orthonormal transform gives such pairs; the algorithms below know nothing else of it.
    """

    name: str
    side: int
    first: Wide
    second: Wide


@cache
def dct_pair(side: int) -> Pair:
    """The paper's pair of the orthonormal DCT-II: coefficients (side - 1, side) and (side, side - 1)."""
    place = (2 * np.arange(side) + 1) * (math.pi / (2 * side))
    below, last = (np.cos(place * order) * math.sqrt(2 / side) for order in (side - 2, side - 1))
    return _pair(f"dct-{side}", np.outer(below, last))


@cache
def hadamard_pair(side: int) -> Pair:
    """The same place in the Walsh-Hadamard transform by sequency; `side` is a power of two."""
    rows = sylvester(side)
    by_sequency = rows[np.argsort((np.diff(rows, axis=1) != 0).sum(axis=1))]
    return _pair(f"hadamard-{side}", np.outer(by_sequency[-2], by_sequency[-1]) / side)


def _pair(name: str, pattern: npt.NDArray[np.float64]) -> Pair:
    first = np.rint(pattern * 2**_FRACTION).astype(np.int64)
    return Pair(name, len(first), first.ravel(), first.T.copy().ravel())


def cut(samples: IntArray, side: int) -> IntArray:
    """[block rows, block cols, channels, side, side]: the whole blocks of a frame, sharing its memory."""
    channels, rows, cols = samples.shape
    high, wide = rows // side, cols // side
    whole = samples[:, : high * side, : wide * side].reshape(channels, high, side, wide, side)
    return whole.transpose(1, 3, 0, 2, 4)


def read_bits(pair: Pair, blocks: IntArray) -> Bits:
    """Algorithm 2: uint8 [n] of int32 [n, side, side]."""
    first, second = _coefficients(pair, blocks.reshape(len(blocks), pair.side**2))
    return (first <= second).astype(np.uint8)


def marked(pair: Pair, blocks: IntArray, bit: int, threshold: int, bounds: tuple[int, int]) -> IntArray:
    """Algorithm 1 for blocks int32 [n, side, side], all to carry `bit`; what reads it already stays as it is.

    `threshold` is in hundredths of a grey level, `bounds` the range that samples are clipped to. A block that
    does not read after rounding and clipping is tried again at up to 16 times the threshold; what still does
    not read is returned as it is, for the caller to find with `read_bits`.
    """
    result = blocks.copy()
    flat = result.reshape(len(blocks), pair.side**2)
    for doubling in range(_DOUBLINGS + 1):
        wrong = np.flatnonzero(~_reads(pair, flat, bit))
        for at in np.split(wrong, range(_CHUNK, len(wrong), _CHUNK)):
            original = blocks[at].reshape(len(at), pair.side**2)
            flat[at] = _swapped(pair, original, bit, threshold << doubling, bounds)
    return result


def unmarked(pair: Pair, blocks: IntArray, bits: Bits, threshold: int, bounds: tuple[int, int]) -> IntArray:
    """Algorithm 3 for blocks int32 [n, side, side] that were altered to carry `bits`, uint8 [n]."""
    flat = blocks.reshape(len(blocks), pair.side**2)
    first, second = _coefficients(pair, flat)
    step = _in_fraction(threshold)
    won, lost = np.where(bits == 0, first, second) - step, np.where(bits == 0, second, first)
    swap = won > lost
    add_won = np.where(swap, lost - won, 0) - step
    add_lost = np.where(swap, won - lost, 0)
    zero = bits == 0
    add_first, add_second = np.where(zero, add_won, add_lost), np.where(zero, add_lost, add_won)
    return _added(pair, flat, add_first, add_second, bounds).reshape(blocks.shape)


def _reads(pair: Pair, flat: IntArray, bit: int) -> BoolArray:
    """Whether blocks carry `bit` with the order strict; a tie reads as 1, but is not left to stand for it."""
    first, second = _coefficients(pair, flat)
    return np.asarray(first < second if bit else first > second)


def _swapped(pair: Pair, flat: IntArray, bit: int, threshold: int, bounds: tuple[int, int]) -> IntArray:
    first, second = _coefficients(pair, flat)
    gap, step = second - first, _in_fraction(threshold)
    return _added(pair, flat, gap + (0 if bit else step), -gap + (step if bit else 0), bounds)


def _coefficients(pair: Pair, flat: IntArray) -> tuple[Wide, Wide]:
    """Both coefficients with 20 fractional bits; sums stay below 2^53, so float64 holds them exactly."""
    both = flat.astype(np.float64) @ np.stack([pair.first, pair.second], axis=1).astype(np.float64)
    return both[:, 0].astype(np.int64), both[:, 1].astype(np.int64)


def _in_fraction(threshold: int) -> int:
    return (threshold << _FRACTION) // HUNDREDTHS


def _added(
    pair: Pair, flat: IntArray, add_first: Wide, add_second: Wide, bounds: tuple[int, int]
) -> IntArray:
    """`flat` with its two coefficients raised, rounded half up, clipped."""
    change = add_first[:, None] * pair.first + add_second[:, None] * pair.second
    change = (change + (1 << (2 * _FRACTION - 1))) >> (2 * _FRACTION)
    return np.asarray(np.clip(flat + change, *bounds), np.int32)


@dataclass(frozen=True, slots=True)
class Choices:
    """What both values of a bit make of some blocks, all channels of them.

    Attributes
    ----------
    blocks : int32 [2, n, channels, side, side]: by bit
    reads : bool [2, n, channels]: whether the bit can be read from it
    stays : bool [2, n, channels]: whether the block is then still outside the region of interest
    """

    blocks: IntArray
    reads: BoolArray
    stays: BoolArray


@dataclass(frozen=True, slots=True)
class Placed:
    """Where bits went, in the order of the blocks that were walked.

    Attributes
    ----------
    walked : how many blocks were taken, those that switched included
    switched : bool [walked]: blocks that turned region of interest and carry nothing
    blocks : int32 [walked, channels, side, side]: their content now
    """

    walked: int
    switched: BoolArray
    blocks: IntArray


def choices(
    pair: Pair,
    blocks: IntArray,
    threshold: int,
    bounds: tuple[int, int],
    stays: Stays,
) -> Choices:
    """Evaluate both bits of every block, int32 [n, channels, side, side], in one batch.

    The blocks are outside the region of interest as they are, so only what marking changes is asked about.
    """
    count, channels = blocks.shape[:2]
    flat = blocks.reshape(-1, pair.side, pair.side)
    variants = [marked(pair, flat, bit, threshold, bounds) for bit in (0, 1)]
    reads = np.stack([read_bits(pair, each) == bit for bit, each in enumerate(variants)])
    shaped = np.stack(variants).reshape(2, *blocks.shape)
    outside = np.ones((2, count, channels), np.bool_)
    for bit in (0, 1):
        changed = np.flatnonzero((shaped[bit] != blocks).any(axis=(1, 2, 3)))
        outside[bit, changed] = stays(changed, shaped[bit, changed])
    return Choices(shaped, reads.reshape(2, count, channels), outside)


def place(chosen: Choices, original: IntArray, bits: Bits) -> Placed | None:
    """Put `bits` into the blocks in one scan; None when there are too few blocks.

    A block that would turn region of interest keeps the content that made it so and carries nothing; its
    bits go into the next one. This is the fixed point that the paper reaches by segmenting the whole image
    again and again, because what a block turns into depends on that block alone.

    Raises
    ------
    CapacityError
        a block can carry its bit at no threshold, and nothing would tell a reader to skip it
    """
    walked, placed, states = _scan(chosen.reads, chosen.stays, bits)
    if placed < 0:
        raise CapacityError("a block outside the region of interest cannot carry its bit within the range")
    if placed < len(bits):
        return None
    return Placed(walked, states[:walked] == 1, _content(chosen, original[:walked], bits, states[:walked]))


def _content(chosen: Choices, original: IntArray, bits: Bits, states: Bits) -> IntArray:
    """The blocks that were walked, each channel as its bit wants it; channels beyond the last bit stay."""
    channels = original.shape[1]
    carried = np.cumsum(states == 0) - (states == 0)
    index = carried[:, None] * channels + np.arange(channels)
    beyond = index >= len(bits)
    wanted = bits[np.minimum(index, len(bits) - 1)].astype(np.intp)
    n, c = np.ogrid[: len(original), :channels]
    content: IntArray = chosen.blocks[wanted, n, c]
    content[beyond] = original[beyond]
    return content


@compiled
def _scan(reads: BoolArray, stays: BoolArray, bits: Bits) -> tuple[int, int, Bits]:
    """(blocks walked, bits placed, state of each: 0 carries, 1 switched); -1 bits when a block is stuck."""
    _, count, channels = reads.shape
    states = np.zeros(count, np.uint8)
    placed = 0
    walked = 0
    while walked < count and placed < len(bits):
        keeps = True
        for c in range(channels):
            if placed + c < len(bits):
                bit = bits[placed + c]
                if not stays[bit, walked, c]:
                    keeps = False
                elif not reads[bit, walked, c]:
                    return walked, -1, states
        if keeps:
            placed += channels
        else:
            states[walked] = 1
        walked += 1
    return walked, min(placed, len(bits)), states
