"""Reed-Solomon over GF(2^16): any k shards, of any tiles, give the message back.

The field is GF(2)[x] / (x^16 + x^12 + x^3 + x + 1), that is 0x1100B, whose element x = 2 generates it.
A message is k data shards of three symbols. Column c of the data holds the coefficients of a polynomial
p_c of degree < k, and the shard at point x is (p_0(x), p_1(x), p_2(x)). (Reed and Solomon, J. SIAM 8(2),
1960, in the original, evaluation form: there are as many shards as there are points, 65 536.)

Losses are the usual case and cost one interpolation. Wrong shards, pasted in with a tile of another
image, are found in two ways: by Gao's decoder (in Communications, Information and Network Security,
2003), which is certain as long as fewer than half of the surplus shards are wrong, and beyond that by
trying subsets, whole tiles at a time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from blessmark.jit import compiled
from blessmark.types import BoolArray

Symbols = npt.NDArray[np.uint16]
Points = npt.NDArray[np.int64]

_POLYNOMIAL = 0x1100B
_ORDER = 65_535
#: "logarithm" of zero: so large that adding any other leads into the part of the table that holds zeros
_LOG_ZERO = 2 * _ORDER

#: subsets tried beyond unique decoding, and a bound on tries * points * k that keeps it at a second or so
_TRIES = 200
_WORK = 2 * 10**8
#: Gao's decoder is quadratic; of more distinct points than this it sees the first ones
_GAO_POINTS = 2048


@dataclass(frozen=True, slots=True)
class Decoded:
    """A candidate message.

    Attributes
    ----------
    data : uint16 [k, 3], the data shards
    agrees : bool [n], which of the given shards are the candidate's own
    """

    data: Symbols
    agrees: BoolArray


def _tables() -> tuple[npt.NDArray[np.int32], Symbols]:
    """log, int32 [65536], and exp, uint16: exp[log[a] + log[b]] is the product of any a and b, 0 included."""
    exp = np.zeros(2 * _LOG_ZERO + 1, np.uint16)
    value = 1
    for power in range(_ORDER):
        exp[power] = exp[power + _ORDER] = value
        value <<= 1
        if value > _ORDER:
            value ^= _POLYNOMIAL
    log = np.full(_ORDER + 1, _LOG_ZERO, np.int32)
    log[exp[:_ORDER]] = np.arange(_ORDER)
    return log, exp


_LOG, _EXP = _tables()


def encode(data: Symbols, points: Points) -> Symbols:
    """uint16 [n, 3]: the shards at `points` (int64 [n], 0..65535) of `data`, uint16 [k, 3]."""
    return _evaluate(np.ascontiguousarray(data), points, _LOG, _EXP)


def decode(points: Points, shards: Symbols, k: int, *, groups: Points) -> Iterator[Decoded]:
    """Candidates for the message, best evidence first; stop at the first that authenticates.

    Parameters
    ----------
    points : int64 [n], 0..65535; a point may come more than once, and contradict itself
    shards : uint16 [n, 3]
    k : number of data shards; with fewer distinct points there is no candidate
    groups : int64 [n], the tile of each shard: the shards of a tile are right or wrong together
    """
    first = _first_distinct(points)
    if not 0 < k <= len(first):
        return
    straight = _candidate(points, shards, first[:k])
    if straight.agrees.all():
        yield straight
        return
    seen = set()
    for candidate in _contested(points, shards, k, groups, straight):
        fingerprint = candidate.data.tobytes()
        if fingerprint not in seen:
            seen.add(fingerprint)
            yield candidate


def _contested(
    points: Points, shards: Symbols, k: int, groups: Points, straight: Decoded
) -> Iterator[Decoded]:
    """Candidates when the shards contradict each other: the provably best one, then what subsets give."""
    unique = _uniquely_decoded(points, shards, k)
    if unique is not None:
        yield unique
    tries = min(_TRIES, max(8, _WORK // (len(points) * k)))
    subsets = _subsets(points, shards, k, groups, tries)
    candidates = [straight, *(_candidate(points, shards, subset) for subset in subsets)]
    yield from sorted(candidates, key=lambda candidate: -np.count_nonzero(candidate.agrees))


def _candidate(points: Points, shards: Symbols, chosen: Points) -> Decoded:
    """The message that the chosen shards, k of them at distinct points, belong to."""
    return _compared(_interpolate(points[chosen], shards[chosen], _LOG, _EXP), points, shards)


def _compared(data: Symbols, points: Points, shards: Symbols) -> Decoded:
    return Decoded(data, np.asarray((encode(data, points) == shards).all(axis=1)))


@compiled
def _first_distinct(points: Points) -> Points:
    """Indices of the first occurrence of every point, ascending."""
    seen, found, count = np.zeros(_ORDER + 1, np.bool_), np.empty(len(points), np.int64), 0
    for i in range(len(points)):
        if not seen[points[i]]:
            seen[points[i]], found[count] = True, i
            count += 1
    return found[:count]


def _uniquely_decoded(points: Points, shards: Symbols, k: int) -> Decoded | None:
    """The message that all but fewer than half of the surplus shards belong to, None if there is none.

    Column by column; what disagrees with one is left out for the next.
    """
    kept = _first_distinct(points)[:_GAO_POINTS]
    data = np.empty((k, shards.shape[1]), np.uint16)
    for c in range(shards.shape[1]):
        x, y = points[kept], np.ascontiguousarray(shards[kept, c : c + 1])
        column = _gao(_interpolate(x, y, _LOG, _EXP)[:, 0], x, k, _LOG, _EXP)
        if column is None:
            return None
        data[:, c] = column
        kept = kept[_evaluate(column.reshape(-1, 1), x, _LOG, _EXP)[:, 0] == y[:, 0]]
    return _compared(data, points, shards)


def _subsets(points: Points, shards: Symbols, k: int, groups: Points, tries: int) -> Iterator[Points]:
    """k shards at distinct points, of as few groups as a random order of the groups allows.

    The order follows from the shards, so that a reader always finds the same.
    """
    seed = hashlib.sha256(points.tobytes() + shards.tobytes()).digest()
    random = np.random.default_rng(int.from_bytes(seed))
    names, group = np.unique(groups, return_inverse=True)
    for _ in range(tries):
        order = np.argsort(random.permutation(len(names))[group], kind="stable")
        yield order[_first_distinct(points[order])[:k]]


@compiled
def _evaluate(coefficients: Symbols, points: Points, log: npt.NDArray[np.int32], exp: Symbols) -> Symbols:
    """uint16 [n, columns]: every column of `coefficients`, uint16 [k, columns], at every point."""
    k, columns = coefficients.shape
    logs = np.empty((k, columns), np.int32)
    for i in range(k):
        for c in range(columns):
            logs[i, c] = log[coefficients[i, c]]
    values = np.zeros((len(points), columns), np.uint16)
    for j in range(len(points)):
        if points[j] == 0:
            values[j] = coefficients[0]
            continue
        step, power = log[points[j]], 0
        for i in range(k):
            for c in range(columns):
                values[j, c] ^= exp[logs[i, c] + power]
            power += step
            if power >= _ORDER:
                power -= _ORDER
    return values


@compiled
def _interpolate(points: Points, values: Symbols, log: npt.NDArray[np.int32], exp: Symbols) -> Symbols:
    """uint16 [k, columns]: coefficients of the polynomials through `values` at k distinct points (Newton)."""
    k, columns = values.shape
    newton = values.copy()
    for order in range(1, k):
        for i in range(k - 1, order - 1, -1):
            inverse = _ORDER - log[points[i] ^ points[i - order]]
            for c in range(columns):
                newton[i, c] = exp[log[newton[i, c] ^ newton[i - 1, c]] + inverse]
    result = np.zeros((k, columns), np.uint16)
    for i in range(k - 1, -1, -1):
        _multiply_by_root(result, k - i, points[i], log, exp)
        for c in range(columns):
            result[0, c] ^= newton[i, c]
    return result


@compiled
def _multiply_by_root(
    polynomials: Symbols, length: int, root: int, log: npt.NDArray[np.int32], exp: Symbols
) -> None:
    """Multiply every column by (x - root) in place; `length` coefficients are in use afterwards."""
    for i in range(length - 1, -1, -1):
        for c in range(polynomials.shape[1]):
            lower = polynomials[i - 1, c] if i else np.uint16(0)
            polynomials[i, c] = lower ^ exp[log[polynomials[i, c]] + log[root]]


@compiled
def _degree(polynomial: Symbols) -> int:
    """Degree of a polynomial, -1 of zero."""
    for i in range(len(polynomial) - 1, -1, -1):
        if polynomial[i]:
            return i
    return -1


@compiled
def _gao(
    interpolant: Symbols, points: Points, k: int, log: npt.NDArray[np.int32], exp: Symbols
) -> Symbols | None:
    """uint16 [k]: the polynomial of degree < k closest to the interpolant, None if none is close enough.

    Euclid's algorithm on prod (x - points) and the interpolant, stopped half-way: where the remainder is
    a multiple of the cofactor, the quotient is the message, and the cofactor vanishes at wrong points.
    """
    n = len(points)
    product = np.zeros((n + 1, 1), np.uint16)
    product[0, 0] = 1
    for i in range(n):
        _multiply_by_root(product, i + 2, points[i], log, exp)
    larger, smaller = product[:, 0].copy(), np.zeros(n + 1, np.uint16)
    smaller[:n] = interpolant
    before, cofactor = np.zeros(n + 1, np.uint16), np.zeros(n + 1, np.uint16)
    cofactor[0] = 1
    while 2 * _degree(smaller) >= n + k:
        _reduce(larger, smaller, before, cofactor, log, exp)
        larger, smaller = smaller, larger
        before, cofactor = cofactor, before
    message = np.zeros(n + 1, np.uint16)
    _reduce(smaller, cofactor, message, np.ones(1, np.uint16), log, exp)
    if _degree(smaller) >= 0 or _degree(message) >= k:
        return None
    return message[:k].copy()


@compiled
def _reduce(
    dividend: Symbols,
    divisor: Symbols,
    target: Symbols,
    factor: Symbols,
    log: npt.NDArray[np.int32],
    exp: Symbols,
) -> None:
    """dividend := dividend mod divisor; target := target + quotient * factor."""
    low, factor_degree = _degree(divisor), _degree(factor)
    for high in range(_degree(dividend), low - 1, -1):
        lead = log[exp[log[dividend[high]] + _ORDER - log[divisor[low]]]]
        for i in range(low + 1):
            dividend[high - low + i] ^= exp[log[divisor[i]] + lead]
        for i in range(factor_degree + 1):
            target[high - low + i] ^= exp[log[factor[i]] + lead]
