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
37(4), 1991, with a heavier escape.) p <= 2^24 and n_k < 2^16, so the sums stay below 2^41: 64-bit floating
point holds them exactly, and `_weigh`, which uses it for its vector units, says why its quotients are exact.

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
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, cast

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
#: added to a quotient before it is rounded down: more than it can be off by, and less than the least fraction
#: that may stand below a whole number, 1 / (N_k + 4 d_k) > 2^-16
_NUDGE = 2.0**-20
#: most symbols of one record; bounds the work that a message can ask for
RECORD_SYMBOLS = 10_240

#: how long a number is, 0..32 bits: usually 0
_LENGTH_WEIGHTS = (992, *[1] * 32)
#: whether a value is written as the model expects it
_EXPECTED_WEIGHTS = (63, 1)
#: bits within which floating point does not say which of two ways to write a value is shorter
_NEAR = 1e-6
#: most bits of a number that is put at once
_PIECE = 30


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


#: (f, c, M) of one symbol, M <= 2^31
_Step = tuple[int, int, int]
Steps = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint32]


class _State(NamedTuple):
    """The history and what is counted in it, in arrays for the loops below.

    Attributes
    ----------
    history : int16 [room], dictionary and record
    earlier : int32 [room], for each place the one before whose last two symbols fall into the same bucket
    last : int32 [4096], the last place of each bucket; -1 if there is none, as in `earlier`
    after : uint16 [257 + 256, 257], how often each symbol came next after each; at most 10 304 + 4 * 10 240
    counts : int32 [7, 257], n_k(s)
    totals : int64 [2, 7], N_k and d_k
    shares : float64 [257], p(s)
    weights : int32 [257], of what may come next
    own : where the record begins
    """

    history: npt.NDArray[np.int16]
    earlier: npt.NDArray[np.int32]
    last: npt.NDArray[np.int32]
    after: npt.NDArray[np.uint16]
    counts: npt.NDArray[np.int32]
    totals: npt.NDArray[np.int64]
    shares: npt.NDArray[np.float64]
    weights: npt.NDArray[np.int32]
    own: int


def _arrays(state: _State) -> tuple[npt.NDArray[Any], ...]:
    return cast("tuple[npt.NDArray[Any], ...]", state[:-1])


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
        np.zeros((_ORDER + 1, _SYMBOLS), np.int32),
        np.zeros((2, _ORDER + 1), np.int64),
        np.zeros(_SYMBOLS),
        np.zeros(_SYMBOLS, np.int32),
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
def _forget(state: _State, length: int) -> None:
    """Undo every `_append` since the record began; nothing of it, nor of what was expected of it, is left."""
    history, counts, totals = state.history, state.counts, state.totals
    for place in range(length - 1, state.own - 1, -1):
        symbol, bucket = history[place], _bucket(history, place)
        state.last[bucket] = state.earlier[place]
        if symbol < _SYMBOLS:
            state.after[history[place - 1], symbol] -= _OWN_WEIGHT
            counts[0, symbol] -= _OWN_WEIGHT
            totals[0, 0] -= _OWN_WEIGHT
            totals[1, 0] -= counts[0, symbol] == 0
        history[place] = state.earlier[place] = 0
    counts[1:] = 0
    totals[:, 1:] = 0
    state.shares[:] = 0
    state.weights[:] = 0


@compiled
def _expect(state: _State, length: int) -> int:
    """Write the weights of what may follow from `history[:length]` into `weights`; returns their sum."""
    counts, totals = state.counts, state.totals
    counts[2:] = 0
    totals[:, 1:] = 0
    _count_after_one(state.after[state.history[length - 1]], counts, totals)
    if state.history[length - 1] < _SYMBOLS:  # a context never reaches back past a marker
        _count_after_more(state.history, state.earlier, counts, totals, state.own, length)
    return _weigh(counts, totals, state.shares, state.weights)


@compiled
def _count_after_one(
    after: npt.NDArray[np.uint16], counts: npt.NDArray[np.int32], totals: npt.NDArray[np.int64]
) -> None:
    """Write n_1, N_1 and d_1 into `counts` and `totals`."""
    seen, different = 0, 0
    for symbol in range(_SYMBOLS):
        counts[1, symbol] = after[symbol]
        seen += after[symbol]
        different += after[symbol] > 0
    totals[0, 1], totals[1, 1] = seen, different


@compiled
def _count_after_more(
    history: npt.NDArray[np.int16],
    earlier: npt.NDArray[np.int32],
    counts: npt.NDArray[np.int32],
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
def _weigh(
    counts: npt.NDArray[np.int32],
    totals: npt.NDArray[np.int64],
    shares: npt.NDArray[np.float64],
    weights: npt.NDArray[np.int32],
) -> int:
    """Write the weights that follow from `counts` into `weights`; returns their sum.

    A share is a whole number of at most 2^24. A quotient by multiplication is off by less than 2^-26, however
    it is rounded, and what is no whole number is at least 2^-16 below the next: so rounding down is exact.
    """
    shares[:] = (1 << 24) // _SYMBOLS
    for k in range(_ORDER + 1):
        if totals[0, k] == 0:
            break
        whole = totals[0, k] + _ESCAPE * totals[1, k]
        each, kept = (1 << 24) / whole, _ESCAPE * totals[1, k] / whole
        for symbol in range(_SYMBOLS):
            shares[symbol] = np.floor(counts[k, symbol] * each + kept * shares[symbol] + _NUDGE)
    total = 0
    for symbol in range(_SYMBOLS):
        weights[symbol] = (np.int32(shares[symbol]) >> 6) + 1
        total += weights[symbol]
    return total


@compiled
def _spell(
    state: _State, length: int, codes: npt.NDArray[np.int32], plain: Steps
) -> tuple[Steps, npt.NDArray[np.float64]]:
    """Steps of a whole record, int64 [n, 3], and how many bits each of its texts saves against its bytes.

    A code is a symbol less one, which from then on belongs to the history; one of -2, -3 ... is a step of
    `plain`, the first, the second ... A marker is known beforehand: its step is that of nothing.
    """
    steps, saved = np.ones((len(codes), 3), np.int64), np.zeros(len(codes))
    texts, share = 0, 1.0
    for i, code in enumerate(codes):
        if code < -1:
            steps[i] = plain[-2 - code]
            continue
        symbol = code + 1
        if symbol < _SYMBOLS:
            steps[i, 2] = _expect(state, length)
            steps[i, 0], steps[i, 1] = state.weights[symbol], state.weights[:symbol].sum()
            share *= 256 * steps[i, 0] / steps[i, 2]
        else:
            steps[i, 1] = 0
        if symbol == _END or not 1e-200 < share < 1e200:
            saved[texts] += np.log2(share)
            share = 1.0
        texts += symbol == _END
        _append(state, length, symbol)
        length += 1
    return steps, saved[:texts]


@compiled
def _coded(steps: Steps) -> Words:
    """The integer that `steps` are read from, in words of 32 bits, the lowest first."""
    words, size = np.zeros(len(steps) + 1, np.uint32), 0
    for i in range(len(steps) - 1, -1, -1):
        factor, below, total = steps[i, 0], steps[i, 1], steps[i, 2]
        rest = _divide(words[:size], factor)
        size += 1
        _multiply(words[:size], total, below + rest)
        size = _used(words, size)
    return words[:size]


@compiled
def _read_texts(
    state: _State,
    length: int,
    words: Words,
    kinds: npt.NDArray[np.int64],
    weights: npt.NDArray[np.int32],
    expected: npt.NDArray[np.int32],
    absent: int,
    found: npt.NDArray[np.int64],
) -> tuple[int, int]:
    """Undo the steps of texts of `kinds`, each behind a choice among `weights`, missing if that is `absent`.

    `expected` are `_EXPECTED_WEIGHTS`. Writes the choices, and the history's lengths behind each text, into
    `found`, int64 [n, 2]. Returns how many texts it read and the history's length; it stops in front of one
    that is not written as the model expects. Where the history would outgrow its room, its length does.
    """
    for i in range(len(kinds)):
        found[i, 0] = _take(words, weights, weights.sum())
        if found[i, 0] != absent:
            if length >= len(state.history):
                return i, length + 1
            _append(state, length, _SYMBOLS + kinds[i])
            length += 1
            if _take(words, expected, expected.sum()):
                return i, length
            length = _read(state, length, words)
            if length > len(state.history):
                return i, length
        found[i, 1] = length
    return len(kinds), length


@compiled
def _read(state: _State, length: int, words: Words) -> int:
    """Undo the steps of symbols up to END, which then belong to the history; returns its length.

    `words` are left as what remains to be read. Where the history would outgrow its room, its length does.
    """
    size = len(words)
    while length < len(state.history):
        total, size = _expect(state, length), _used(words, size)
        symbol = _take(words[:size], state.weights, total)
        _append(state, length, symbol)
        length += 1
        if symbol == _END:
            return length
    return length + 1


@compiled
def _take(words: Words, weights: npt.NDArray[np.int32], total: int) -> int:
    """Undo the step of a choice among `weights`, whose sum is `total`."""
    slot, value, below = _divide(words, total), 0, 0
    while slot >= below + weights[value]:
        below += weights[value]
        value += 1
    _multiply(words, weights[value], slot - below)
    return value


@compiled
def _used(words: Words, size: int) -> int:
    """How many of the first `size` words there are without the zeros at the end."""
    while size > 0 and words[size - 1] == 0:
        size -= 1
    return size


@compiled
def _divide(words: Words, divisor: int) -> int:
    """Divide the integer in place; returns the rest."""
    by, rest = np.uint64(divisor), np.uint64(0)
    for i in range(len(words) - 1, -1, -1):
        part = (rest << np.uint64(32)) | np.uint64(words[i])
        quotient = part // by
        words[i], rest = quotient, part - quotient * by
    return int(rest)


@compiled
def _multiply(words: Words, factor: int, carry: int) -> None:
    """Multiply the integer in place and add `carry`; the words must have room for what comes of it."""
    by, more = np.uint64(factor), np.uint64(carry)
    for i in range(len(words)):
        part = np.uint64(words[i]) * by + more
        words[i], more = part & np.uint64(0xFFFFFFFF), part >> np.uint64(32)


#: states that were used and are as `_fresh` again, so that the next record need not copy half a megabyte
_SPARE: list[_State] = []
_MOST_SPARE = 4


class _Model:
    """The history and what it predicts."""

    def __init__(self, *, anew: bool = False) -> None:
        """`anew`: the state is that of the dictionary itself, whatever was undone in it before."""
        fresh = _fresh()
        try:
            self._state = _SPARE.pop()  # at once: another thread may do the same
        except IndexError:
            self._state = _State._make([*(array.copy() for array in fresh[:-1]), fresh.own])
        else:
            if anew:
                for used, array in zip(_arrays(self._state), _arrays(fresh), strict=True):
                    np.copyto(used, array)
        self._length = fresh.own

    def forget(self, length: int) -> None:
        """Hand the state back, whose history has so many symbols; the model is of no use from then on."""
        state = self._state
        del self._state  # a use of it from here on would be a use of another record's
        _forget(state, length)
        if len(_SPARE) < _MOST_SPARE:
            _SPARE.append(state)

    @property
    def length(self) -> int:
        """Of the history."""
        return self._length

    def append(self, symbols: Sequence[int]) -> None:
        """Let `symbols` of the record count from now on; raises RecordError when they become too many."""
        self.check_room(self._length + len(symbols))
        _extend(self._state, self._length, np.array(symbols, np.int16))
        self._length += len(symbols)

    def spell(self, codes: Sequence[int], plain: Sequence[_Step]) -> tuple[Steps, list[float]]:
        """What `_spell` says of a whole record, for which there must be room."""
        steps = np.array(plain, np.int64).reshape(-1, 3)
        spelled, saved = _spell(self._state, self._length, np.array(codes, np.int32), steps)
        return spelled, saved.tolist()

    def read(
        self, words: Words, kinds: Sequence[int], weights: tuple[int, ...], absent: int
    ) -> tuple[int, npt.NDArray[np.int64]]:
        """How many texts `_read_texts` has read, and what it found; raises as `append` does."""
        found = np.empty((len(kinds), 2), np.int64)
        choice, expected = _array(weights), _array(_EXPECTED_WEIGHTS)
        count, length = _read_texts(
            self._state, self._length, words, np.array(kinds), choice, expected, absent, found
        )
        self.check_room(length)
        self._length = length
        return count, found

    def text(self, start: int, end: int) -> bytes:
        """The bytes of a part of the history that holds nothing else."""
        return (self._state.history[start:end] - 1).astype(np.uint8).tobytes()

    def check_room(self, length: int) -> None:
        """Raise RecordError when the history has no room to become so long."""
        if length > len(self._state.history):
            raise RecordError(f"the record is longer than {RECORD_SYMBOLS} bytes; choose fewer fields")


class Encoder:
    """Takes the parts of a record in reading order, gives bytes. Mirrors `Decoder`.

    What the model makes of the texts is worked out at the end, for all of them at once.
    """

    def __init__(self) -> None:
        self._model = _Model()
        self._length = self._model.length
        self._codes: list[int] = []
        self._plain: list[_Step] = []
        self._texts: list[tuple[int, bytes]] = []

    def choice(self, value: int, weights: Sequence[int]) -> None:
        """One of `len(weights)` alternatives."""
        self._put([_choice(value, weights)])

    def uniform(self, value: int, radix: int) -> None:
        """One of 0 .. radix - 1, all equally likely; `radix` is a power of two if it is above 2^30."""
        self._put(_uniform(value, radix))

    def number(self, value: int) -> None:
        """A number of 0 .. 2^32 - 1, usually 0."""
        self._put(_number(value))

    def text(self, kind: int, value: bytes) -> None:
        """Bytes, as the model expects them or, where that is shorter, 8 bits each."""
        self._length += len(value) + 2
        self._model.check_room(self._length)
        self._texts.append((len(self._codes), value))
        self.choice(0, _EXPECTED_WEIGHTS)
        self._codes += (_SYMBOLS + kind - 1, *value, _END - 1)

    def finish(self) -> bytes:
        """Everything taken so far, as few bytes as hold it."""
        steps, saved = self._model.spell(self._codes, self._plain)
        parts, done = [], 0
        for (start, value), bits in zip(self._texts, saved, strict=True):
            end = start + len(value) + 3
            if _longer(steps[start + 1 : end], bits, len(value) + 1):
                parts += [steps[done:start], np.array(_in_bytes(value), np.int64)]
                done = end
        if parts:
            steps = np.concatenate([*parts, steps[done:]])
        self._model.forget(self._length)
        return _coded(steps).astype("<u4").tobytes().rstrip(b"\0")

    def _put(self, steps: Sequence[_Step]) -> None:
        for step in steps:
            self._codes.append(-2 - len(self._plain))
            self._plain.append(step)


class Decoder:
    """Gives the parts of a record in the order in which `Encoder` took them.

    It never starts from a state as a writer left it: else a sender whose state was not wholly undone would
    read back what nobody else can.
    """

    def __init__(self, content: bytes) -> None:
        self._model = _Model(anew=True)
        self._words = np.frombuffer(content + bytes(-len(content) % 4), "<u4").astype(np.uint32)

    def choice(self, weights: tuple[int, ...]) -> int:
        """Which of `len(weights)` alternatives."""
        return int(_take(self._words, _array(weights), sum(weights)))

    def uniform(self, radix: int) -> int:
        """One of 0 .. radix - 1."""
        if radix < 1 << 31:
            return int(_divide(self._words, radix))
        rest, value = divmod(int.from_bytes(self._words.astype("<u4").tobytes(), "little"), radix)
        self._words = np.frombuffer(rest.to_bytes(4 * len(self._words), "little"), "<u4").astype(np.uint32)
        return value

    def number(self) -> int:
        """A number of 0 .. 2^32 - 1."""
        bits = self.choice(_LENGTH_WEIGHTS)
        return (1 << (bits - 1)) + self.uniform(1 << (bits - 1)) if bits else 0

    def text(self, kind: int) -> bytes:
        """Bytes."""
        return self._texts((kind,), (1,), absent=-1)[0][1]

    def choices_and_texts(self, kinds: Sequence[int], weights: tuple[int, ...]) -> list[tuple[int, bytes]]:
        """For each of `kinds` a choice among `weights` and, unless it is the first of them, a text."""
        return self._texts(kinds, weights, absent=0)

    def _texts(self, kinds: Sequence[int], weights: tuple[int, ...], absent: int) -> list[tuple[int, bytes]]:
        texts: list[tuple[int, bytes]] = []
        while len(texts) < len(kinds):
            start = self._model.length
            count, found = self._model.read(self._words, kinds[len(texts) :], weights, absent)
            for choice, end in found[:count].tolist():
                # in front of its bytes stands the marker, behind them the END
                texts.append((choice, self._model.text(start + 1, end - 1) if choice != absent else b""))
                start = end
            if len(texts) < len(kinds):
                texts.append((int(found[count, 0]), self._in_bytes()))
        return texts

    def _in_bytes(self) -> bytes:
        """A text that is not written as the model expects, and yet belongs to the history."""
        length = self.number()
        if length > RECORD_SYMBOLS:
            raise RecordError(f"the record claims a value of {length} bytes")
        value = self.uniform(256**length).to_bytes(length)
        self._model.append([*(1 + byte for byte in value), _END])
        return value

    def finish(self) -> None:
        """Raise RecordError unless everything has been read; nothing can be read any more."""
        self._model.forget(self._model.length)
        if self._words.any():
            raise RecordError("the record goes on after its end")


@lru_cache(maxsize=16)
def _array(weights: tuple[int, ...]) -> npt.NDArray[np.int32]:
    return np.array(weights, np.int32)


def _choice(value: int, weights: Sequence[int]) -> _Step:
    return weights[value], sum(weights[:value]), sum(weights)


def _uniform(value: int, radix: int) -> list[_Step]:
    """Piece by piece, the lowest first: it reads back as one number."""
    pieces = []
    while radix > 1 << _PIECE:
        pieces.append((1, value & ((1 << _PIECE) - 1), 1 << _PIECE))
        value, radix = value >> _PIECE, radix >> _PIECE
    return [*pieces, (1, value, radix)]


def _number(value: int) -> list[_Step]:
    bits = value.bit_length()
    length = _choice(bits, _LENGTH_WEIGHTS)
    return [length] if bits < 2 else [length, *_uniform(value - (1 << (bits - 1)), 1 << (bits - 1))]


def _in_bytes(value: bytes) -> list[_Step]:
    """The steps of a text that is not written as the model expects it."""
    bits = _uniform(int.from_bytes(value), 256 ** len(value))
    return [_choice(1, _EXPECTED_WEIGHTS), *_number(len(value)), *bits]


def _longer(steps: Steps, saved: float, length: int) -> bool:
    """Whether `steps`, which save about so many bits, take more than `length` bytes do.

    Where that is not sure it is decided by whole numbers, so that it is the same everywhere.
    """
    if abs(saved) > _NEAR:
        return bool(saved < 0)
    weights, _, totals = zip(*steps.tolist(), strict=True)
    return bool(math.prod(totals) > math.prod(weights) << (8 * length))
