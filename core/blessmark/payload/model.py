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
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

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


@compiled
def _link(
    history: npt.NDArray[np.int16],
    start: int,
    end: int,
    last: npt.NDArray[np.int32],
    earlier: npt.NDArray[np.int32],
) -> None:
    """Extend `earlier`, for each place the one before that holds the same symbol (-1: none), to `end`."""
    for place in range(start, end):
        earlier[place] = last[history[place]]
        last[history[place]] = place


@compiled
def _count(
    history: npt.NDArray[np.int16],
    length: int,
    own: int,
    earlier: npt.NDArray[np.int32],
    counts: npt.NDArray[np.int64],
) -> None:
    """Write n_k(s) after `history[:length]` for k >= 1 into `counts`, int64 [7, 257]."""
    counts[1:] = 0
    place = earlier[length - 1]
    while place >= 0:
        symbol, weight = history[place + 1], 1 if place + 1 < own else _OWN_WEIGHT
        for k in range(min(_ORDER, place + 1)):
            before = history[place - k]
            if before != history[length - 1 - k]:
                break
            counts[k + 1, symbol] += weight
            if before >= _SYMBOLS:
                break
        place = earlier[place]


@compiled
def _weigh(counts: npt.NDArray[np.int64], sums: npt.NDArray[np.int64]) -> None:
    """Write the running sums of the weights that follow from `counts` into `sums`, int64 [257]."""
    sums[:] = (1 << 24) // _SYMBOLS
    for k in range(_ORDER + 1):
        total, escape = np.sum(counts[k]), _ESCAPE * np.count_nonzero(counts[k])
        if total == 0:
            break
        for symbol in range(_SYMBOLS):
            seen = counts[k, symbol] << 24
            sums[symbol] = (seen + escape * sums[symbol]) // (total + escape)
    below = 0
    for symbol in range(_SYMBOLS):
        below += (sums[symbol] >> 6) + 1
        sums[symbol] = below


class _Model:
    """The history and what it predicts."""

    def __init__(self) -> None:
        dictionary = _dictionary()
        room = len(dictionary) + RECORD_SYMBOLS
        self._history = np.empty(room, np.int16)
        self._earlier = np.empty(room, np.int32)
        self._last = np.full(_SYMBOLS + 256, -1, np.int32)
        self._counts = np.zeros((_ORDER + 1, _SYMBOLS), np.int64)
        self._sums = np.empty(_SYMBOLS, np.int64)
        self._length = 0
        self._extend(dictionary, 1)
        self._own = self._length

    def append(self, symbols: Sequence[int]) -> None:
        """Let `symbols` of the record count from now on; raises RecordError when they become too many."""
        if self._length + len(symbols) > len(self._history):
            raise RecordError(f"the record is longer than {RECORD_SYMBOLS} bytes; choose fewer fields")
        self._extend(np.array(symbols, np.int16), _OWN_WEIGHT)

    def _extend(self, symbols: npt.NDArray[np.int16], weight: int) -> None:
        end = self._length + len(symbols)
        self._history[self._length : end] = symbols
        _link(self._history, self._length, end, self._last, self._earlier)
        self._counts[0] += weight * np.bincount(symbols[symbols < _SYMBOLS], minlength=_SYMBOLS)
        self._length = end

    def sums(self) -> npt.NDArray[np.int64]:
        """int64 [257]: running sums of the weights of the symbols that may come next."""
        _count(self._history, self._length, self._own, self._earlier, self._counts)
        _weigh(self._counts, self._sums)
        return self._sums


#: (f, c, M) of one symbol
_Step = tuple[int, int, int]


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
        symbols = [*(1 + byte for byte in value), _END]
        self._model.append([_SYMBOLS + kind])
        steps = [self._step(symbol) for symbol in symbols]
        expected = _odds(steps) <= Fraction(256) ** (len(value) + 1)
        self.choice(int(not expected), _EXPECTED_WEIGHTS)
        if expected:
            self._steps += steps
        else:
            self.number(len(value))
            self.uniform(int.from_bytes(value), 256 ** len(value))

    def _step(self, symbol: int) -> _Step:
        sums = self._model.sums()
        below = int(sums[symbol - 1]) if symbol else 0
        self._model.append([symbol])
        return int(sums[symbol]) - below, below, int(sums[-1])

    def finish(self) -> bytes:
        """Everything taken so far, as few bytes as hold it."""
        state = 0
        for weight, below, total in reversed(self._steps):
            state = state // weight * total + below + state % weight
        return state.to_bytes((state.bit_length() + 7) // 8, "little")


class Decoder:
    """Gives the parts of a record in the order in which `Encoder` took them."""

    def __init__(self, content: bytes) -> None:
        self._model = _Model()
        self._state = int.from_bytes(content, "little")

    def choice(self, weights: Sequence[int]) -> int:
        """Which of `len(weights)` alternatives."""
        sums = list(accumulate(weights))
        return self._take(sums[-1], lambda slot: _span(sums, bisect_right(sums, slot)))

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
            return bytes(self._expected())
        value = self._unexpected(self.number())
        self._model.append([*(1 + byte for byte in value), _END])
        return value

    def _expected(self) -> Iterator[int]:
        while symbol := self._symbol():
            yield symbol - 1

    def _unexpected(self, length: int) -> bytes:
        if length > RECORD_SYMBOLS:
            raise RecordError(f"the record claims a value of {length} bytes")
        return self.uniform(256**length).to_bytes(length)

    def _symbol(self) -> int:
        sums = self._model.sums()
        symbol = self._take(
            int(sums[-1]), lambda slot: _span(sums, int(np.searchsorted(sums, slot, side="right")))
        )
        self._model.append([symbol])
        return symbol

    def finish(self) -> None:
        """Raise RecordError unless everything has been read."""
        if self._state:
            raise RecordError("the record goes on after its end")

    def _take(self, total: int, find: Callable[[int], tuple[int, int, int]]) -> int:
        """Undo one step; `find` gives the symbol whose span holds a slot, its weight and what lies below."""
        quotient, slot = divmod(self._state, total)
        symbol, weight, below = find(slot)
        self._state = weight * quotient + slot - below
        return symbol


def _odds(steps: Sequence[_Step]) -> Fraction:
    """How unlikely `steps` were: 2 to the number of bits that they take; exact, so equal everywhere."""
    return Fraction(math.prod(total for _, _, total in steps), math.prod(weight for weight, _, _ in steps))


def _span(sums: Sequence[int] | npt.NDArray[np.int64], symbol: int) -> tuple[int, int, int]:
    """`symbol`, its weight and the sum of the weights below it."""
    below = int(sums[symbol - 1]) if symbol else 0
    return symbol, int(sums[symbol]) - below, below
