"""The exact carrier: predict a lattice pixel from its untouched neighbours, shift the error, and back.

Rules that bind here (docs/format/v1.md section 4):
1. Order, prediction and eligibility of a site depend only on pixels that are no sites, and on the bounds
   and the bands; the receiver finds them all unchanged.
2. A site moves by at most T, and never leaves the bounds: that follows from `_up_open` and `_down_open`,
   not from a check on the result.
3. `insert` and `remove` walk the same sites in the same order; a change to one without the other is a bug.

Everything is integer arithmetic, so the result is the same on every machine.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from blessmark.carrier.sites import IndexArray, PlaceArray, SiteTable
from blessmark.jit import compiled
from blessmark.planes import IntArray, PlaneArray

BitArray = npt.NDArray[np.uint8]

_NO_LIMIT = 1 << 62
#: so many sites are looked at as one, where only few of them matter
_AT_ONCE = 64

#: `Bands.down` when only the upper side is used
NO_DOWN = 127


@dataclass(frozen=True, slots=True)
class Bands:
    """Where on the error axis bits ride; e = sample - prediction.

    Upper side: k = e - up >= 0. Lower side: k = down - e >= 0. On either, k < T carries a bit,
    T <= k < Z is shifted by T, [Z, Z + T) must be empty among the sites used, the rest stays.
    """

    up: int
    down: int
    expansion: int
    z_up: int
    z_down: int


def fits(
    values: PlaneArray, predicted: PlaneArray, bounds: tuple[int, int], bands: Bands, start: int, need: int
) -> tuple[int, int, int, int]:
    """Walk from site `start` until `need` bits would ride.

    Returns (end, cost, k_up, k_down): the site after the last one used, or -1; twice the expected sum of
    squared changes; and the error bins that violated [Z, Z + T) on either side, -1 where none did.
    """
    end, cost, k_up, k_down = _fits(values, predicted, *bounds, *_numbers(bands), start, need)
    return int(end), int(cost), int(k_up), int(k_down)


def insert_all(
    planes: PlaneArray,
    table: SiteTable,
    bounds: tuple[int, int],
    bands: IndexArray,
    packets: BitArray,
    bits: IndexArray,
) -> None:
    """`insert` in every window, changing `planes` in place: `bits[w]` bits of `packets[w]`, by `bands[w]`.

    `packets` is uint8 [windows, bytes], the highest bit first; `bands` are rows of `table_of`.
    """
    sites = table.every
    _insert_all(planes.reshape(-1), sites.index, sites.predicted, table.starts, *bounds, bands, packets, bits)


@dataclass(frozen=True, slots=True)
class Taken:
    """What `take_all` found in some windows, one after the other.

    Attributes
    ----------
    restored : int16, the values of their sites, as far as bits were taken; behind that, what they were
    starts : int64 [windows + 1], where each window begins in `restored`
    content : uint8 [windows, bytes], the bits, the highest first, zeros behind the last
    ends : int64 [windows, lengths], for each length the site after the one with its last bit; 0 where there
        are not that many
    """

    restored: PlaneArray
    starts: IndexArray
    content: BitArray
    ends: IndexArray


def take_all(
    values: PlaneArray,
    table: SiteTable,
    windows: IndexArray,
    bounds: tuple[int, int],
    bands: Bands,
    lengths: IndexArray,
) -> Taken:
    """`remove` in some windows, up to the last of the ascending `lengths` in bits.

    `values` are those of all sites of `table`, and are not changed.
    """
    numbers = _numbers(bands)
    return Taken(*_take_all(values, table.every.predicted, table.starts, windows, *bounds, *numbers, lengths))


def fitting(
    values: PlaneArray, table: SiteTable, bounds: tuple[int, int], bands: IndexArray, lengths: IndexArray
) -> IndexArray:
    """int64 [windows]: how many of the ascending `lengths` in bits fit under some row of `bands`.

    `values` are those of all sites of `table`. The bands differ in T and in Z alone, the same on both sides.
    """
    counts: IndexArray = _fitting(values, table.every.predicted, table.starts, *bounds, bands, lengths)
    return counts


def cheapest(
    values: PlaneArray, table: SiteTable, bounds: tuple[int, int], bands: IndexArray, bits: IndexArray
) -> IndexArray:
    """int64 [windows]: the row of `bands` under which `bits[w]` bits cost least, -1 where they do not fit.

    As in `fitting`; of equal costs the first row's is taken. Windows that are to hold no bits have -1 too.
    """
    best: IndexArray = _cheapest(values, table.every.predicted, table.starts, *bounds, bands, bits)
    return best


def insert(
    values: PlaneArray,
    predicted: PlaneArray,
    bounds: tuple[int, int],
    bands: Bands,
    start: int,
    bits: BitArray,
) -> int:
    """Put `bits` on the sites from `start` on, changing `values` in place; returns the site after the last.

    The caller has made sure by `fits` or `cheapest` that they fit; -1 says that they did not.
    """
    return int(_insert(values, predicted, *bounds, *_numbers(bands), start, bits))


def remove(
    values: PlaneArray, predicted: PlaneArray, bounds: tuple[int, int], bands: Bands, start: int, most: int
) -> tuple[BitArray, IndexArray]:
    """Take up to `most` bits off the sites from `start` on, restoring `values` in place.

    Returns the bits and, for each, the site after the one that carried it. Sites behind the last bit are
    restored too as long as they were walked; the caller keeps only the prefix that authenticates.
    """
    bits = np.empty(most, np.uint8)
    ends = np.empty(most, np.int64)
    count = _remove(values, predicted, *bounds, *_numbers(bands), start, bits, ends)
    return bits[:count], ends[:count]


def table_of(candidates: Iterable[Bands]) -> IndexArray:
    """int64 [n, 5]: bands as `cheapest`, `peek` and `insert_all` take them."""
    return np.array([_numbers(bands) for bands in candidates], np.int64).reshape(-1, 5)


def peek(
    values: PlaneArray, table: SiteTable, bounds: tuple[int, int], bands: IndexArray, count: int
) -> IndexArray:
    """The first `count` (at most 62) bits of every window under each row of `bands` (from `table_of`).

    int64 [windows, bands]; the first bit is the highest; -1 where there are not that many.
    """
    heads: IndexArray = _peek(values, table.every.predicted, table.starts, *bounds, bands, count)
    return heads


def _numbers(bands: Bands) -> tuple[int, int, int, int, int]:
    return bands.up, bands.down, bands.expansion, bands.z_up, bands.z_down


@compiled
def _up_open(p: int, lo: int, hi: int, up: int, expansion: int, z_up: int) -> bool:
    """Whether every result on the upper side of `p` stays within lo..hi."""
    return hi - p >= up + z_up + expansion - 1 and p + up >= lo


@compiled
def _down_open(p: int, lo: int, hi: int, down: int, expansion: int, z_down: int) -> bool:
    """Whether every result on the lower side of `p` stays within lo..hi."""
    return p - lo >= z_down + expansion - 1 - down and p + down <= hi


@compiled
def _side(
    x: int, p: int, lo: int, hi: int, up: int, down: int, expansion: int, z_up: int, z_down: int
) -> tuple[int, int, int]:
    """(sign, k, Z) of sample `x`: sign +1 above, -1 below, 0 when it takes no part."""
    e = x - p
    if e >= up:
        if _up_open(p, lo, hi, up, expansion, z_up):
            return 1, e - up, z_up
    elif down != NO_DOWN and e <= down and _down_open(p, lo, hi, down, expansion, z_down):
        return -1, down - e, z_down
    return 0, 0, 0


@compiled
def _fits(
    values: PlaneArray,
    predicted: PlaneArray,
    lo: int,
    hi: int,
    up: int,
    down: int,
    expansion: int,
    z_up: int,
    z_down: int,
    start: int,
    need: int,
) -> tuple[int, int, int, int]:
    cost, found = 0, 0
    for i in range(start, values.size):
        sign, k, z = _side(values[i], predicted[i], lo, hi, up, down, expansion, z_up, z_down)
        if sign == 0 or k >= z + expansion:
            continue
        if k >= z:
            return -1, cost, k if sign > 0 else -1, k if sign < 0 else -1
        if k >= expansion:
            cost += 2 * expansion * expansion
            continue
        cost += k * k + (k + 1) * (k + 1)
        found += 1
        if found == need:
            return i + 1, cost, -1, -1
    return -1, cost, -1, -1


@compiled
def _reach(
    values: PlaneArray, predicted: PlaneArray, lo: int, hi: int, up: int, down: int
) -> tuple[IntArray, IntArray]:
    """k of every site, and the greatest Z + T with which it takes part (`_side`, solved for Z + T)."""
    steps, rooms = np.empty(values.size, np.int32), np.empty(values.size, np.int32)
    two_sided = down != NO_DOWN
    for i in range(values.size):
        p = np.int32(predicted[i])
        e = np.int32(values[i]) - p
        above = e >= up
        steps[i] = e - up if above else down - e
        room = hi - p - up + 1 if above else p + down - lo + 1
        open_ = (above & (p + up >= lo)) | (two_sided & (e <= down) & (p + down <= hi) & (e < up))
        rooms[i] = room if open_ else 0
    return steps, rooms


@compiled
def _carriers(steps: IntArray, rooms: IntArray, expansion: int, z: int, enough: int) -> int:
    """How many bits these bands take before the gap is not empty; `enough` will do."""
    found, reach = 0, z + expansion
    for start in range(0, steps.size, _AT_ONCE):
        here, room = steps[start : start + _AT_ONCE], rooms[start : start + _AT_ONCE]
        carry, stop = np.int32(0), np.int32(0)
        for i in range(here.size):
            carry += np.int32((here[i] < expansion) & (room[i] >= reach))
            stop |= np.int32((here[i] >= z) & (here[i] < reach) & (room[i] >= reach))
        if stop:
            for i in range(here.size):
                if room[i] < reach or here[i] >= reach:
                    continue
                if here[i] >= z:
                    return found
                found += here[i] < expansion
        found += int(carry)
        if found >= enough:
            break
    return found


@compiled
def _cost(steps: IntArray, rooms: IntArray, expansion: int, z: int, need: int, limit: int) -> int:
    """Twice the expected sum of squared changes for `need` bits; -1 if they do not fit, or cost `limit`."""
    cost, found = 0, 0
    for i in range(steps.size):
        k = steps[i]
        if rooms[i] < z + expansion or k >= z + expansion:
            continue
        if k >= z or cost >= limit:
            break
        if k >= expansion:
            cost += 2 * expansion * expansion
            continue
        cost += k * k + (k + 1) * (k + 1)
        found += 1
        if found == need:
            return cost if cost < limit else -1
    return -1


@compiled
def _insert(
    values: PlaneArray,
    predicted: PlaneArray,
    lo: int,
    hi: int,
    up: int,
    down: int,
    expansion: int,
    z_up: int,
    z_down: int,
    start: int,
    bits: BitArray,
) -> int:
    done = 0
    for i in range(start, values.size):
        if done == bits.size:
            return i
        sign, k, z = _side(values[i], predicted[i], lo, hi, up, down, expansion, z_up, z_down)
        if sign == 0 or k >= z + expansion:
            continue
        if k >= z:
            return -1
        if k >= expansion:
            values[i] += sign * expansion
        else:
            values[i] += sign * (k + bits[done])
            done += 1
    return values.size if done == bits.size else -1


@compiled
def _remove(
    values: PlaneArray,
    predicted: PlaneArray,
    lo: int,
    hi: int,
    up: int,
    down: int,
    expansion: int,
    z_up: int,
    z_down: int,
    start: int,
    bits: BitArray,
    ends: IndexArray,
) -> int:
    done = 0
    for i in range(start, values.size):
        if done == bits.size:
            break
        sign, k, z = _side(values[i], predicted[i], lo, hi, up, down, expansion, z_up, z_down)
        if sign == 0 or k >= z + expansion:
            continue
        if k >= 2 * expansion:
            values[i] -= sign * expansion
            continue
        bits[done] = k & 1
        values[i] -= sign * (k - (k >> 1))
        done += 1
        ends[done - 1] = i + 1
    return done


@compiled
def _peek(
    values: PlaneArray,
    predicted: PlaneArray,
    starts: IndexArray,
    lo: int,
    hi: int,
    bands: IndexArray,
    count: int,
) -> IndexArray:
    heads = np.full((len(starts) - 1, len(bands)), -1, np.int64)
    for w in range(len(starts) - 1):
        for b in range(len(bands)):
            up, down, expansion, z_up, z_down = bands[b]
            head, done = 0, 0
            for i in range(starts[w], starts[w + 1]):
                sign, k, _ = _side(values[i], predicted[i], lo, hi, up, down, expansion, z_up, z_down)
                if sign == 0 or k >= 2 * expansion:
                    continue
                head, done = 2 * head + (k & 1), done + 1
                if done == count:
                    heads[w, b] = head
                    break
    return heads


@compiled
def _fitting(
    values: PlaneArray,
    predicted: PlaneArray,
    starts: IndexArray,
    lo: int,
    hi: int,
    bands: IndexArray,
    lengths: IndexArray,
) -> IndexArray:
    counts = np.zeros(len(starts) - 1, np.int64)
    for w in range(len(starts) - 1):
        here, there = values[starts[w] : starts[w + 1]], predicted[starts[w] : starts[w + 1]]
        possible = np.searchsorted(lengths, here.size, side="right")
        if possible == 0 or len(bands) == 0:
            continue
        steps, rooms = _reach(here, there, lo, hi, bands[0, 0], bands[0, 1])
        for b in range(len(bands) - 1, -1, -1):  # the widest take most
            found = _carriers(steps, rooms, bands[b, 2], bands[b, 3], lengths[possible - 1])
            while counts[w] < possible and lengths[counts[w]] <= found:
                counts[w] += 1
            if counts[w] == possible:
                break
    return counts


@compiled
def _cheapest(
    values: PlaneArray,
    predicted: PlaneArray,
    starts: IndexArray,
    lo: int,
    hi: int,
    bands: IndexArray,
    bits: IndexArray,
) -> IndexArray:
    best = np.full(len(starts) - 1, -1, np.int64)
    for w in range(len(starts) - 1):
        here, there = values[starts[w] : starts[w + 1]], predicted[starts[w] : starts[w + 1]]
        if bits[w] == 0 or len(bands) == 0:
            continue
        steps, rooms = _reach(here, there, lo, hi, bands[0, 0], bands[0, 1])
        least = _NO_LIMIT
        for b in range(len(bands)):
            cost = _cost(steps, rooms, bands[b, 2], bands[b, 3], bits[w], least)
            if cost >= 0:
                best[w], least = b, cost
            if least == bits[w]:  # no bit costs less than one
                break
    return best


@compiled
def _insert_all(
    flat: PlaneArray,
    index: PlaceArray,
    predicted: PlaneArray,
    starts: IndexArray,
    lo: int,
    hi: int,
    bands: IndexArray,
    packets: BitArray,
    bits: IndexArray,
) -> None:
    for w in range(len(bits)):
        if bits[w] == 0:
            continue
        here = index[starts[w] : starts[w + 1]]
        values, content = np.empty(here.size, np.int16), np.empty(bits[w], np.uint8)
        for i in range(here.size):
            values[i] = flat[here[i]]
        for i in range(content.size):
            content[i] = (packets[w, i >> 3] >> (7 - (i & 7))) & 1
        up, down, expansion, z_up, z_down = bands[w]
        there = predicted[starts[w] : starts[w + 1]]
        end = _insert(values, there, lo, hi, up, down, expansion, z_up, z_down, 0, content)
        for i in range(end):
            flat[here[i]] = values[i]


@compiled
def _take_all(
    values: PlaneArray,
    predicted: PlaneArray,
    starts: IndexArray,
    windows: IndexArray,
    lo: int,
    hi: int,
    up: int,
    down: int,
    expansion: int,
    z_up: int,
    z_down: int,
    lengths: IndexArray,
) -> tuple[PlaneArray, IndexArray, BitArray, IndexArray]:
    own, most = np.zeros(len(windows) + 1, np.int64), lengths[-1]
    for n in range(len(windows)):
        own[n + 1] = own[n] + starts[windows[n] + 1] - starts[windows[n]]
    restored, ends = np.empty(own[-1], np.int16), np.empty(most, np.int64)
    content, reached = (
        np.zeros((len(windows), (most + 7) // 8), np.uint8),
        np.zeros((len(windows), lengths.size), np.int64),
    )
    bits = np.empty(most, np.uint8)
    for n in range(len(windows)):
        first, last = starts[windows[n]], starts[windows[n] + 1]
        part = restored[own[n] : own[n + 1]]
        part[:] = values[first:last]
        done = _remove(part, predicted[first:last], lo, hi, up, down, expansion, z_up, z_down, 0, bits, ends)
        for i in range(done):
            content[n, i >> 3] |= bits[i] << (7 - (i & 7))
        for size in range(lengths.size):
            if lengths[size] <= done:
                reached[n, size] = ends[lengths[size] - 1]
    return restored, own, content, reached
