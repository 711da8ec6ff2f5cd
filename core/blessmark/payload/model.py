"""Few bytes for few words: a byte model with a frozen dictionary, and an exact entropy coder.

A record is twenty short strings, names, numbers and UIDs; general compressors need more text than that to
learn from. On the headers of 75 public studies deflate with the same dictionary, and UIDs, dates and times
packed beforehand, makes messages of 1 048 bits (median; 90 % under 1 224), this model 824 (1 061).

The model. The alphabet is END = 0 and 1 + b for each byte b. A history of symbols starts as the
dictionary and grows by what has been coded; a marker (257 + class of the value) precedes each value.
Let n_k(s) count how often s followed, anywhere in the history, the last k symbols of it (k = 0..6; a
context never reaches back past a marker; occurrences in the current record count four), N_k be their sum
and d_k the number of s with n_k(s) > 0. Starting from p(s) = floor(2^24 / 257), for k = 0, 1 ... while
N_k > 0:

    p(s) := floor((n_k(s) * 2^24 + 4 d_k p(s)) / (N_k + 4 d_k))

and the weight of s is floor(p(s) / 64) + 1. (Witten and Bell's interpolation, IEEE Trans. Inf. Theory
37(4), 1991, with a heavier escape.) All integers: p <= 2^24 and n_k < 2^17, so the sums stay below 2^42.

The coder. A message is one integer, little-endian. To put a symbol of weight f, whose predecessors in the
alphabet weigh c, out of a total M:

    N := floor(N / f) * M + c + (N mod f)

which is a bijection; the reader undoes it. Symbols are put last to first, so that they are read first to
last; the reader must end at N = 0. (Duda's range asymmetric numeral system, arXiv 1311.2540, on an
unbounded integer.) An integer does not see zero bytes beyond its end, so a message may be padded freely.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from blessmark.errors import RecordError
from blessmark.jit import compiled

DICTIONARY_SHA256 = "12d8c3527cf771ecafc21b8a455e4352f30d15c75b7334bd404bb07837d88e47"
_DICTIONARY = Path(__file__).with_name("dictionary_v1.bin")

_END = 0
_SYMBOLS = 257
_ORDER = 6
_OWN_WEIGHT = 4
_ESCAPE = 4
#: what two symbols are filed under
_BUCKETS = 4096
#: how many n_0 are told apart when equal ones are looked up
_SLOTS = 256
#: most symbols of one record; bounds the work that a message can ask for
RECORD_SYMBOLS = 10_240

#: how long a number is, 0..32 bits: usually 0
_LENGTH_WEIGHTS = (992, *[1] * 32)
#: whether a value is written as the model expects it
_EXPECTED_WEIGHTS = (63, 1)


@lru_cache(maxsize=1)
def _dictionary() -> npt.NDArray[np.int16]:
    """The symbols of the frozen dictionary, whose file is a list of (class u8, length u8, bytes)."""
    content = _DICTIONARY.read_bytes()
    if hashlib.sha256(content).hexdigest() != DICTIONARY_SHA256:
        raise RecordError(f"{_DICTIONARY.name} is not the dictionary of format v1; install the package again")
    symbols: list[int] = []
    position = 0
    while position < len(content):
        kind, length = content[position], content[position + 1]
        position += 2 + length
        value = content[position - length : position]
        symbols += [_SYMBOLS + kind, *(1 + byte for byte in value), _END]
    return np.array(symbols, np.int16)


#: (f, c, M) of one symbol
_Step = tuple[int, int, int]


class _State(NamedTuple):
    """The history and what is counted in it, in arrays for the loops below.

    Attributes
    ----------
    history : int16 [room], dictionary and record
    earlier : int32 [room], for each place the one before whose last two symbols fall into the same bucket
    last : int32 [4096], the last place of each bucket; -1 if there is none, as in `earlier`
    after : uint16 [257 + 256, 257], how often each symbol came next after each; at most 10 304 + 4 * 10 240
    counts : int64 [7, 257], n_k(s)
    totals : int64 [2, 7], N_k and d_k
    sums : int64 [257], running sums of the weights of what may come next
    own : where the record begins
    """

    history: npt.NDArray[np.int16]
    earlier: npt.NDArray[np.int32]
    last: npt.NDArray[np.int32]
    after: npt.NDArray[np.uint16]
    counts: npt.NDArray[np.int64]
    totals: npt.NDArray[np.int64]
    sums: npt.NDArray[np.int64]
    own: int


@lru_cache(maxsize=1)
def _fresh() -> _State:
    """The state before any record: the dictionary has been read."""
    dictionary = _dictionary()
    room = len(dictionary) + RECORD_SYMBOLS
    state = _State(
        np.zeros(room, np.int16),
        np.zeros(room, np.int32),
        np.full(_BUCKETS, -1, np.int32),
        np.zeros((_SYMBOLS + 256, _SYMBOLS), np.uint16),
        np.zeros((_ORDER + 1, _SYMBOLS), np.int64),
        np.zeros((2, _ORDER + 1), np.int64),
        np.zeros(_SYMBOLS, np.int64),
        len(dictionary),
    )
    _extend(state, 0, dictionary)
    return state


@compiled
def _bucket(history: npt.NDArray[np.int16], place: int) -> int:
    """Where the symbols before and at `place` are filed; which two they are has still to be compared."""
    return (int(history[place - 1]) * 37 + int(history[place])) & (_BUCKETS - 1)


@compiled
def _extend(state: _State, length: int, symbols: npt.NDArray[np.int16]) -> None:
    """Let `symbols` follow in the history, whose length was `length`."""
    for symbol in symbols:
        _append(state, length, symbol)
        length += 1


@compiled
def _append(state: _State, length: int, symbol: int) -> None:
    """Let `symbol` be the next of the history, whose length was `length`."""
    history, counts, totals = state.history, state.counts, state.totals
    history[length] = symbol
    weight = 1 if length < state.own else _OWN_WEIGHT
    if symbol < _SYMBOLS:
        totals[0, 0] += weight
        totals[1, 0] += counts[0, symbol] == 0
        counts[0, symbol] += weight
    if length > 0:
        bucket = _bucket(history, length)
        state.earlier[length] = state.last[bucket]
        state.last[bucket] = length
        if symbol < _SYMBOLS:
            state.after[history[length - 1], symbol] += weight


@compiled
def _expect(state: _State, length: int) -> None:
    """Write the running sums of the weights that follow from `history[:length]` into `sums`."""
    counts, totals = state.counts, state.totals
    counts[2:] = 0
    totals[:, 1:] = 0
    _count_after_one(state.after[state.history[length - 1]], counts, totals)
    if state.history[length - 1] < _SYMBOLS:  # a context never reaches back past a marker
        _count_after_more(state.history, state.earlier, counts, totals, state.own, length)
    _weigh(counts, totals, state.sums)


@compiled
def _count_after_one(
    after: npt.NDArray[np.uint16], counts: npt.NDArray[np.int64], totals: npt.NDArray[np.int64]
) -> None:
    """Write n_1, N_1 and d_1 into `counts` and `totals`."""
    for symbol in range(_SYMBOLS):
        seen = np.int64(after[symbol])
        counts[1, symbol] = seen
        totals[0, 1] += seen
        totals[1, 1] += seen > 0


@compiled
def _count_after_more(
    history: npt.NDArray[np.int16],
    earlier: npt.NDArray[np.int32],
    counts: npt.NDArray[np.int64],
    totals: npt.NDArray[np.int64],
    own: int,
    length: int,
) -> None:
    """Add up n_k, N_k and d_k for k >= 2; all of them were 0."""
    place = earlier[length - 1]
    while place > 0:
        symbol, weight = history[place + 1], 1 if place + 1 < own else _OWN_WEIGHT
        for k in range(min(_ORDER, place + 1)):
            before = history[place - k]
            if before != history[length - 1 - k]:
                break
            if k > 0:
                totals[0, k + 1] += weight
                totals[1, k + 1] += counts[k + 1, symbol] == 0
                counts[k + 1, symbol] += weight
            if before >= _SYMBOLS:
                break
        place = earlier[place]


@compiled
def _weigh(counts: npt.NDArray[np.int64], totals: npt.NDArray[np.int64], sums: npt.NDArray[np.int64]) -> None:
    """Write the running sums of the weights that follow from `counts` into `sums`.

    Most symbols never followed the last one. What they weigh turns on n_0 alone, so symbols of equal n_0
    are worked out once: `known` and `weights` remember, in a slot for each n_0 modulo their length.
    """
    known, weights = np.full(_SLOTS, -1, np.int64), np.empty(_SLOTS, np.int64)
    orders = 0
    while orders <= _ORDER and totals[0, orders] > 0:
        orders += 1
    below = 0
    for symbol in range(_SYMBOLS):
        seen = counts[0, symbol]
        slot = seen & (_SLOTS - 1)
        if counts[1, symbol] > 0:
            below += _weight(counts, totals, symbol, orders)
        else:
            if known[slot] != seen:
                known[slot], weights[slot] = seen, _weight(counts, totals, symbol, orders)
            below += weights[slot]
        sums[symbol] = below


@compiled
def _weight(counts: npt.NDArray[np.int64], totals: npt.NDArray[np.int64], symbol: int, orders: int) -> int:
    """The weight of one symbol by the contexts of length 0 to `orders` - 1."""
    share = (1 << 24) // _SYMBOLS
    for k in range(orders):
        escape = _ESCAPE * totals[1, k]
        share = ((counts[k, symbol] << 24) + escape * share) // (totals[0, k] + escape)
    return (share >> 6) + 1


@compiled
def _spell(state: _State, length: int, symbols: npt.NDArray[np.int16]) -> npt.NDArray[np.int64]:
    """int64 [n, 3]: the step of each of `symbols`, which from then on belong to the history."""
    steps = np.empty((len(symbols), 3), np.int64)
    for i, symbol in enumerate(symbols):
        _expect(state, length + i)
        below = state.sums[symbol - 1] if symbol else 0
        steps[i, 0], steps[i, 1], steps[i, 2] = state.sums[symbol] - below, below, state.sums[-1]
        _append(state, length + i, symbol)
    return steps


@compiled
def _read(state: _State, length: int, message: npt.NDArray[np.uint32]) -> int:
    """Undo the steps of symbols up to END, which then belong to the history; returns its length.

    `message` is the integer in words of 32 bits, the lowest first; it is left as what remains to be read.
    Where the history would outgrow its room, what is returned does.
    """
    while length < len(state.history):
        _expect(state, length)
        slot = _divide(message, state.sums[-1])
        symbol = int(np.searchsorted(state.sums, slot, side="right"))
        below = state.sums[symbol - 1] if symbol else 0
        _multiply(message, state.sums[symbol] - below, slot - below)
        _append(state, length, symbol)
        length += 1
        if symbol == _END:
            return length
    return length + 1


@compiled
def _divide(message: npt.NDArray[np.uint32], divisor: int) -> int:
    """Divide the integer in place; returns the rest."""
    rest = 0
    for i in range(len(message) - 1, -1, -1):
        part = (rest << 32) | int(message[i])
        message[i] = part // divisor
        rest = part % divisor
    return rest


@compiled
def _multiply(message: npt.NDArray[np.uint32], factor: int, carry: int) -> None:
    """Multiply the integer in place and add `carry`; no more words are needed than before dividing it."""
    for i in range(len(message)):
        part = int(message[i]) * factor + carry
        message[i] = part & 0xFFFFFFFF
        carry = part >> 32


class _Model:
    """The history and what it predicts."""

    def __init__(self) -> None:
        fresh = _fresh()
        self._state = _State._make([*(array.copy() for array in fresh[:-1]), fresh.own])
        self._length = fresh.own

    def append(self, symbols: Sequence[int]) -> None:
        """Let `symbols` of the record count from now on; raises RecordError when they become too many."""
        self._check_room(len(symbols))
        _extend(self._state, self._length, np.array(symbols, np.int16))
        self._length += len(symbols)

    def spell(self, symbols: Sequence[int]) -> list[_Step]:
        """The steps of `symbols`, which count from now on; raises as `append` does."""
        self._check_room(len(symbols))
        steps = _spell(self._state, self._length, np.array(symbols, np.int16))
        self._length += len(symbols)
        return [(weight, below, total) for weight, below, total in steps.tolist()]

    def read(self, message: int) -> tuple[list[int], int]:
        """The symbols up to END that `message` begins with, and what remains; raises as `append` does."""
        count = -(-message.bit_length() // 32)
        words = np.frombuffer(bytearray(message.to_bytes(4 * count, "little")), "<u4").astype(np.uint32)
        start = self._length
        end = _read(self._state, start, words)
        self._check_room(end - start)
        self._length = end
        symbols = self._state.history[start : end - 1].tolist()
        return symbols, int.from_bytes(words.astype("<u4").tobytes(), "little")

    def _check_room(self, more: int) -> None:
        if self._length + more > len(self._state.history):
            raise RecordError(f"the record is longer than {RECORD_SYMBOLS} bytes; choose fewer fields")


class Encoder:
    """Takes the parts of a record in reading order, gives bytes. Mirrors `Decoder`."""

    def __init__(self) -> None:
        self._model = _Model()
        self._steps: list[_Step] = []

    def choice(self, value: int, weights: Sequence[int]) -> None:
        """One of `len(weights)` alternatives."""
        self._steps.append((weights[value], sum(weights[:value]), sum(weights)))

    def uniform(self, value: int, radix: int) -> None:
        """One of 0 .. radix - 1, all equally likely."""
        self._steps.append((1, value, radix))

    def number(self, value: int) -> None:
        """A number of 0 .. 2^32 - 1, usually 0."""
        bits = value.bit_length()
        self.choice(bits, _LENGTH_WEIGHTS)
        if bits > 1:
            self.uniform(value - (1 << (bits - 1)), 1 << (bits - 1))

    def text(self, kind: int, value: bytes) -> None:
        """Bytes, as the model expects them or, where that is shorter, 8 bits each."""
        self._model.append([_SYMBOLS + kind])
        steps = self._model.spell([*(1 + byte for byte in value), _END])
        expected = not _longer(steps, len(value) + 1)
        self.choice(int(not expected), _EXPECTED_WEIGHTS)
        if expected:
            self._steps += steps
        else:
            self.number(len(value))
            self.uniform(int.from_bytes(value), 256 ** len(value))

    def finish(self) -> bytes:
        """Everything taken so far, as few bytes as hold it."""
        state = 0
        for weight, below, total in reversed(self._steps):
            quotient, rest = divmod(state, weight)
            state = quotient * total + below + rest
        return state.to_bytes((state.bit_length() + 7) // 8, "little")


class Decoder:
    """Gives the parts of a record in the order in which `Encoder` took them."""

    def __init__(self, content: bytes) -> None:
        self._model = _Model()
        self._state = int.from_bytes(content, "little")

    def choice(self, weights: Sequence[int]) -> int:
        """Which of `len(weights)` alternatives."""
        sums = list(accumulate(weights))
        quotient, slot = divmod(self._state, sums[-1])
        value = bisect_right(sums, slot)
        self._state = weights[value] * quotient + slot - (sums[value] - weights[value])
        return value

    def uniform(self, radix: int) -> int:
        """One of 0 .. radix - 1."""
        self._state, value = divmod(self._state, radix)
        return value

    def number(self) -> int:
        """A number of 0 .. 2^32 - 1."""
        bits = self.choice(_LENGTH_WEIGHTS)
        return (1 << (bits - 1)) + self.uniform(1 << (bits - 1)) if bits else 0

    def text(self, kind: int) -> bytes:
        """Bytes."""
        self._model.append([_SYMBOLS + kind])
        if not self.choice(_EXPECTED_WEIGHTS):
            symbols, self._state = self._model.read(self._state)
            return bytes(symbol - 1 for symbol in symbols)
        value = self._unexpected(self.number())
        self._model.append([*(1 + byte for byte in value), _END])
        return value

    def _unexpected(self, length: int) -> bytes:
        if length > RECORD_SYMBOLS:
            raise RecordError(f"the record claims a value of {length} bytes")
        return self.uniform(256**length).to_bytes(length)

    def finish(self) -> None:
        """Raise RecordError unless everything has been read."""
        if self._state:
            raise RecordError("the record goes on after its end")


def _longer(steps: Sequence[_Step], length: int) -> bool:
    """Whether `steps` take more bits than `length` bytes do; exact, so equal everywhere."""
    weights = math.prod(weight for weight, _, _ in steps)
    return math.prod(total for _, _, total in steps) > weights << (8 * length)
