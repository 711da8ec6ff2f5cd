"""Which pixels may carry, in which order, and what their neighbours predict: all told by untouched pixels.

A window is taken apart into its four phases (even or odd row, even or odd column), each of them contiguous
with rows of one stride, so that every neighbour of the site at `k` is at `k` plus a constant and the compiler
makes vectors of the loops over all of a window. What is computed where no site is is never looked at.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from blessmark.jit import compiled
from blessmark.planes import IntArray, PlaneArray, cut_out
from blessmark.types import BoolArray, Frame, Lattice

WordArray = npt.NDArray[np.uint32]
IndexArray = npt.NDArray[np.int64]
PlaceArray = npt.NDArray[np.int32]
KeyArray = npt.NDArray[np.uint64]

#: the predictor that comes with the scan, per lattice
_SCANNED = {Lattice.QUARTER: 3, Lattice.QUINCUNX: 0}

#: A sort key is the complexity (22 bits, for differences of 16), the keyed word (30) and the place of the
#: site in its window (12). A window with more places takes the lowest bits of the word for them.
_PLACE_BITS, _COMPLEXITY_AT = 12, 42

#: lattice, places in a row of a phase, rows of a phase; bits of a key for row, for place in a row, for both
#: and the channel
Layout = tuple[int, int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class Window:
    """The half-open region `rows top..bottom-1`, `cols left..right-1` that is coded on its own."""

    top: int
    left: int
    bottom: int
    right: int


@dataclass(frozen=True, slots=True)
class Sites:
    """The lattice pixels that may carry, in coding order.

    `index`, int32, points into the frame's planes flattened; `predicted` is clipped to the frame's bounds.
    """

    index: PlaceArray
    predicted: PlaneArray

    def values(self, planes: PlaneArray) -> PlaneArray:
        """What planes hold at the sites, in coding order."""
        values: PlaneArray = _taken(planes.reshape(-1), self.index)
        return values

    def put(self, planes: PlaneArray, values: PlaneArray) -> PlaneArray:
        """The same planes with those values at the sites; a copy."""
        changed = planes.copy()
        put_at(changed.reshape(-1), self.index, values)
        return changed

    def same_as(self, other: Sites) -> bool:
        """Whether they are the same sites, in the same order, with the same predictions."""
        return np.array_equal(self.index, other.index) and np.array_equal(self.predicted, other.predicted)


@dataclass(frozen=True, slots=True)
class SiteTable:
    """The sites of several windows, one window after the other.

    `every` holds those of window w from `starts[w]` to before `starts[w + 1]`.
    """

    every: Sites
    starts: IndexArray

    def of(self, window: int) -> Sites:
        """The sites of one window."""
        part = slice(self.starts[window], self.starts[window + 1])
        return Sites(self.every.index[part], self.every.predicted[part])

    def agrees_with(self, other: SiteTable, windows: IndexArray) -> bool:
        """Whether they are the sites of those windows of another one, in the same order, predicted alike."""
        one, two = self.every, other.every
        return bool(
            _agrees(one.index, one.predicted, self.starts, two.index, two.predicted, other.starts, windows)
        )

    def size(self, window: int) -> int:
        """How many there are in one window."""
        return int(self.starts[window + 1] - self.starts[window])


@compiled
def _taken(flat: PlaneArray, index: PlaceArray) -> PlaneArray:
    values = np.empty(index.size, np.int16)
    for i in range(index.size):
        values[i] = flat[index[i]]
    return values


@compiled
def put_at(flat: PlaneArray, index: PlaceArray, values: PlaneArray) -> None:
    """Write values to places of planes that are flattened."""
    for i in range(index.size):
        flat[index[i]] = values[i]


@compiled
def _agrees(
    index: PlaceArray,
    predicted: PlaneArray,
    starts: IndexArray,
    whole_index: PlaceArray,
    whole_predicted: PlaneArray,
    whole_starts: IndexArray,
    windows: IndexArray,
) -> bool:
    if len(starts) != len(windows) + 1:
        return False
    for n in range(len(windows)):
        first, count = whole_starts[windows[n]], whole_starts[windows[n] + 1] - whole_starts[windows[n]]
        if starts[n + 1] - starts[n] != count:
            return False
        for i in range(count):
            if index[starts[n] + i] != whole_index[first + i]:
                return False
            if predicted[starts[n] + i] != whole_predicted[first + i]:
                return False
    return True


def find_sites(
    frame: Frame, roi: BoolArray, window: Window, lattice: Lattice, predictor: int, words: WordArray
) -> Sites:
    """Sites of the NROI blocks inside `window`, smoothest surroundings first, ties by the keyed words.

    `roi` is bool [rows // 8, cols // 8]; `words` uint32 [rows, cols] is the keyed order.
    """
    box = np.array([(window.top, window.left, window.bottom, window.right)], np.int64)
    return find_all_sites(frame, roi, box, lattice, predictor, words).every


def find_all_sites(
    frame: Frame,
    roi: BoolArray,
    boxes: IndexArray,
    lattice: Lattice,
    predictor: int,
    words: WordArray,
) -> SiteTable:
    """`find_sites` for every window of `boxes`, int64 [windows, 4] of top, left, bottom, right."""
    index, predicted, starts = _scan(frame.planes, roi, words, boxes, int(lattice), *frame.plane_bounds)
    sites = Sites(index, predicted)
    if predictor != _SCANNED[lattice]:
        sites = replace(sites, predicted=predict_again(frame, sites, lattice, predictor))
    return SiteTable(sites, starts)


def untouched(
    frame: Frame,
    roi: BoolArray,
    boxes: IndexArray,
    lattice: Lattice,
    first: int,
    rows: npt.NDArray[np.uint16],
) -> None:
    """Write the samples of every window into a row of `rows`, from place `first` on, with 0 at its sites.

    As `planes.cut_out` does; `boxes` are those of `find_all_sites`.
    """
    cut_out(frame.planes, frame.shift, boxes, first, rows)
    _blank(rows, frame.channels, roi, boxes, int(lattice), first)


def predict_again(frame: Frame, sites: Sites, lattice: Lattice, predictor: int) -> PlaneArray:
    """Predictions of the same sites, in the same order, by another predictor."""
    predicted: PlaneArray = _predict_at(
        frame.planes, sites.index, int(lattice), predictor, *frame.plane_bounds
    )
    return predicted


@compiled
def _ring(plane: PlaneArray, r: int, c: int, lattice: int) -> tuple[int, int, int, int, int]:
    """N, E, S, W and the sum of the diagonals: 0 on the quincunx, where they are lattice pixels."""
    n, s = int(plane[r - 1, c]), int(plane[r + 1, c])
    w, e = int(plane[r, c - 1]), int(plane[r, c + 1])
    if lattice == 1:
        return n, e, s, w, 0
    above = int(plane[r - 1, c - 1]) + int(plane[r - 1, c + 1])
    return n, e, s, w, above + int(plane[r + 1, c - 1]) + int(plane[r + 1, c + 1])


@compiled
def _predict(n: int, e: int, s: int, w: int, diagonals: int, predictor: int) -> int:
    """Predictors 0..5 of the format; 1, 3 and 4 need the diagonals of the quarter lattice."""
    cross = n + s + w + e
    if predictor == 0:
        return (cross + 2) >> 2
    if predictor == 1:
        return (2 * cross - diagonals + 2) >> 2
    if predictor == 2:
        vertical, horizontal = abs(n - s) + 1, abs(w - e) + 1
        total = 2 * (vertical + horizontal)
        return ((n + s) * horizontal + (w + e) * vertical + total // 2) // total
    if predictor == 3:
        return (3 * cross - diagonals + 4) >> 3
    if predictor == 4:
        return (cross + diagonals + 4) >> 3
    return (cross - max(max(n, s), max(w, e)) - min(min(n, s), min(w, e)) + 1) >> 1


@compiled
def _predict_at(
    planes: PlaneArray, index: PlaceArray, lattice: int, predictor: int, lo: int, hi: int
) -> PlaneArray:
    _, rows, cols = planes.shape
    result = np.empty(index.size, np.int16)
    for i in range(index.size):
        c = index[i] % cols
        r = (index[i] // cols) % rows
        n, e, s, w, diagonals = _ring(planes[index[i] // (rows * cols)], r, c, lattice)
        result[i] = min(max(_predict(n, e, s, w, diagonals, predictor), lo), hi)
    return result


@compiled
def _bits(number: int) -> int:
    """How many bits `number` has."""
    count = 0
    while number >> count:
        count += 1
    return count


@compiled
def _layout(channels: int, boxes: IndexArray, lattice: int) -> Layout:
    """How the windows are laid out in the buffers, all of them alike."""
    high, wide = 0, 0
    for w in range(len(boxes)):
        high, wide = max(high, boxes[w, 2] - boxes[w, 0]), max(wide, boxes[w, 3] - boxes[w, 1])
    stride, height = (wide + 1) // 2 + 2, (high + 1) // 2 + 1
    col_bits, row_bits = _bits(stride - 1), _bits(2 * height - 1)
    place_bits = max(_PLACE_BITS, _bits(channels - 1) + row_bits + col_bits)
    return lattice, stride, height, row_bits, col_bits, place_bits


@compiled
def _scan(
    planes: PlaneArray, roi: BoolArray, words: WordArray, boxes: IndexArray, lattice: int, lo: int, hi: int
) -> tuple[PlaceArray, PlaneArray, IndexArray]:
    """Flat index and prediction of every site in the windows, each in coding order, and where each begins."""
    channels, room, most = planes.shape[0], 0, 0
    for w in range(len(boxes)):
        rows, cols = boxes[w, 2] - boxes[w, 0], boxes[w, 3] - boxes[w, 1]
        needed = channels * (rows * cols // (4 - 2 * lattice) + rows + cols)
        room, most = room + needed, max(most, needed)
    layout = _layout(channels, boxes, lattice)
    size = (layout[2] + 2) * layout[1] + 2
    phases, active = np.zeros((4, size), np.int32), np.full((2, size), -1, np.int32)
    expected, complexity = np.empty((channels, 2, size), np.int32), np.empty((2, size), np.int32)
    flat = expected.reshape(-1)
    keys, counts = np.empty((2, most), np.uint64), np.empty(257, np.int64)
    index, predicted = np.empty(room, np.int32), np.empty(room, np.int16)
    starts = np.zeros(len(boxes) + 1, np.int64)
    for w in range(len(boxes)):
        count = 0
        for channel in range(channels):
            _part(planes[channel], boxes[w], layout, phases)
            _measure(phases, boxes[w], layout, active, expected[channel], complexity)
            count = _list(roi, words, boxes[w], layout, complexity, channel, keys[0], count)
        ordered = keys[_sort(keys, counts, count)]
        _settle(ordered, count, words, boxes[w], layout)
        _tell(ordered, count, planes.shape, boxes[w], layout, flat, size, lo, hi, index, predicted, starts[w])
        starts[w + 1] = starts[w] + count
    return index[: starts[-1]], predicted[: starts[-1]], starts


@compiled
def _tell(
    keys: KeyArray,
    count: int,
    shape: tuple[int, int, int],
    box: IndexArray,
    layout: Layout,
    expected: IntArray,
    size: int,
    lo: int,
    hi: int,
    index: PlaceArray,
    predicted: PlaneArray,
    start: int,
) -> None:
    """Flat index and prediction of the sites with those keys, from `start` on.

    `_unfolded` and `_pixel`, written out in numbers without a sign: so no place is one from the end.
    """
    lattice, stride, _, row_bits, col_bits, place_bits = layout
    place_mask, row_mask = np.uint64((1 << place_bits) - 1), np.uint64((1 << row_bits) - 1)
    col_mask, row_at, channel_at = (
        np.uint64((1 << col_bits) - 1),
        np.uint64(col_bits),
        np.uint64(row_bits + col_bits),
    )
    rows, cols, first = np.uint64(shape[1]), np.uint64(shape[2]), np.uint64(start)
    corner = np.uint64((box[0] & ~1) * shape[2] + (box[1] & ~1) + 1)
    one, back = np.uint64(1), np.uint64(lattice)
    for i in range(np.uint64(count)):
        place = keys[i] & place_mask
        channel, row, col = place >> channel_at, (place >> row_at) & row_mask, place & col_mask
        at = (channel * rows + row) * cols + corner + col + col - (row & back)
        index[first + i] = np.int32(at)
        value = expected[
            (channel + channel + (row & one)) * np.uint64(size) + (row >> one) * np.uint64(stride) + col
        ]
        predicted[first + i] = min(max(value, lo), hi)


@compiled
def _pixel(box: IndexArray, layout: Layout, row: int, col: int) -> tuple[int, int]:
    """The pixel of the lattice in row `row` of a window, at place `col` of its phase."""
    odd = 1 if layout[0] == 0 else 1 - (row & 1)
    return (box[0] & ~1) + row, (box[1] & ~1) + 2 * col + odd


@compiled
def _unfolded(key: np.uint64, layout: Layout) -> tuple[int, int, int]:
    """Channel, row and place in its phase of the site with that key."""
    _, _, _, row_bits, col_bits, place_bits = layout
    place = int(np.int64(key & np.uint64((1 << place_bits) - 1)))
    row = (place >> col_bits) & ((1 << row_bits) - 1)
    return place >> (row_bits + col_bits), row, place & ((1 << col_bits) - 1)


@compiled
def _part(plane: PlaneArray, box: IndexArray, layout: Layout, phases: IntArray) -> None:
    """The four phases of a window: even or odd row (2), even or odd column (1)."""
    top, left, stride = box[0] & ~1, box[1] & ~1, layout[1]
    width, size, flat, target = box[3] - left, phases.shape[1], plane.reshape(-1), phases.reshape(-1)
    for r in range(top, box[2]):
        at = 2 * (r & 1) * size + stride + 1 + ((r - top) >> 1) * stride
        source, even, odd = np.uint64(r * plane.shape[1] + left), np.uint64(at), np.uint64(at + size)
        for j in range(np.uint64(width >> 1)):
            k = source + j + j
            target[even + j], target[odd + j] = flat[k], flat[k + np.uint64(1)]
        if width & 1:
            target[at + (width >> 1)] = plane[r, left + width - 1]


@compiled
def _measure(
    phases: IntArray,
    box: IndexArray,
    layout: Layout,
    active: IntArray,
    expected: IntArray,
    complexity: IntArray,
) -> None:
    """Prediction and complexity C at every place of the phases that are lattice, by the parity of its row.

    C = 2 A + floor(sum of A at the four nearest lattice pixels / 2), own A where one is missing.
    """
    stride = layout[1]
    size = ((box[2] - (box[0] & ~1) + 1) >> 1) * stride
    if layout[0] == 0:
        _measure_quarter(phases, box, stride, size, active[1], expected[1], complexity[1])
    else:
        _measure_quincunx(phases, box, stride, size, active, expected, complexity)


@compiled
def _measure_quarter(
    phases: IntArray,
    box: IndexArray,
    stride: int,
    size: int,
    active: IntArray,
    expected: IntArray,
    complexity: IntArray,
) -> None:
    at = stride + 1
    nw, n, w = phases[0, at : at + size], phases[1, at:], phases[2, at:]
    _eight(
        nw,
        n,
        phases[0, at + 1 :],
        w,
        w[1:],
        phases[0, at + stride :],
        n[stride:],
        phases[0, at + stride + 1 :],
        active[at:],
        expected,
    )
    _leave_inner(active, box, 1, 1, stride)
    own = active[at : at + size]
    _complexities(own, active[1:], active[at + stride :], active[at - 1 :], active[at + 1 :], complexity)


@compiled
def _measure_quincunx(
    phases: IntArray,
    box: IndexArray,
    stride: int,
    size: int,
    active: IntArray,
    expected: IntArray,
    complexity: IntArray,
) -> None:
    at, even, odd = stride + 1, active[0], active[1]
    ee, oo = phases[0, at:], phases[3, at:]
    _four(phases[3, 1 : 1 + size], oo, ee, ee[1:], even[at:], expected[0])
    _four(ee[:size], ee[stride:], phases[3, at - 1 :], oo, odd[at:], expected[1])
    _leave_inner(even, box, 0, 1, stride)
    _leave_inner(odd, box, 1, 0, stride)
    own, other = even[at : at + size], odd[at : at + size]
    _complexities(own, odd[1:], odd[2:], odd[at:], odd[at + 1 :], complexity[0])
    below = even[at + stride - 1 :]
    _complexities(other, even[at - 1 :], even[at:], below, below[1:], complexity[1])


@compiled
def _apart(a: int, b: int) -> np.int32:
    """|a - b| in 32 bits, so that the loops take eight at a time."""
    return abs(np.int32(a - b))


@compiled
def _eight(
    nw: IntArray,
    n: IntArray,
    ne: IntArray,
    w: IntArray,
    e: IntArray,
    sw: IntArray,
    s: IntArray,
    se: IntArray,
    active: IntArray,
    expected: IntArray,
) -> None:
    """The activity A of rings of eight, and predictor 3."""
    for k in range(nw.size):
        around = _apart(n[k], ne[k]) + _apart(ne[k], e[k]) + _apart(e[k], se[k]) + _apart(se[k], s[k])
        around += _apart(s[k], sw[k]) + _apart(sw[k], w[k]) + _apart(w[k], nw[k]) + _apart(nw[k], n[k])
        active[k] = np.int32(around + _apart(n[k], s[k]) + _apart(w[k], e[k]))
    for k in range(nw.size):
        cross, diagonals = np.int32(n[k] + s[k] + w[k] + e[k]), np.int32(nw[k] + ne[k] + sw[k] + se[k])
        expected[k] = np.int32(np.int32(3 * cross - diagonals + 4) >> np.int32(3))


@compiled
def _four(n: IntArray, s: IntArray, w: IntArray, e: IntArray, active: IntArray, expected: IntArray) -> None:
    """The activity A of rings of four, and predictor 0."""
    for k in range(n.size):
        around = _apart(n[k], e[k]) + _apart(e[k], s[k]) + _apart(s[k], w[k]) + _apart(w[k], n[k])
        active[k] = np.int32(around + _apart(n[k], s[k]) + _apart(w[k], e[k]))
    for k in range(n.size):
        expected[k] = np.int32(np.int32(n[k] + s[k] + w[k] + e[k] + 2) >> np.int32(2))


@compiled
def _leave_inner(active: IntArray, box: IndexArray, row: int, col: int, stride: int) -> None:
    """-1 at every place of a phase whose ring is not inside the window."""
    top, left = box[0] & ~1, box[1] & ~1
    first, last = (box[1] + 2 - left - col) >> 1, (box[3] - left - col) >> 1
    for i in range(((box[2] - top + 1) >> 1) + 1):
        line = active[stride + 1 + i * stride : 2 * stride + 1 + i * stride]
        if box[0] < top + 2 * i + row < box[2] - 1:
            line[:first] = -1
            line[max(first, last) :] = -1
        else:
            line[:] = -1


@compiled
def _complexities(
    own: IntArray, a: IntArray, b: IntArray, c: IntArray, d: IntArray, result: IntArray
) -> None:
    for k in range(own.size):
        around = _or(a[k], own[k]) + _or(b[k], own[k]) + _or(c[k], own[k]) + _or(d[k], own[k])
        result[k] = np.int32(2 * own[k] + np.int32(np.int32(around) >> np.int32(1)))


@compiled
def _or(activity: int, own: int) -> np.int32:
    """`own` where there is no activity; without a branch."""
    return np.int32(activity + np.int32(np.int32(own - activity) & np.int32(activity >> np.int32(31))))


@compiled
def _list(
    roi: BoolArray,
    words: WordArray,
    box: IndexArray,
    layout: Layout,
    complexity: IntArray,
    channel: int,
    keys: KeyArray,
    count: int,
) -> int:
    """The sort key of every site of one channel, behind the first `count` of `keys`."""
    lattice, stride, _, row_bits, col_bits, place_bits = layout
    top, left, measured, every = box[0] & ~1, box[1] & ~1, complexity.reshape(-1), words.reshape(-1)
    cut, up = np.uint64(2 + place_bits - _PLACE_BITS), np.uint64(place_bits)
    for r in range(box[0] + 1, min(box[2] - 1, 8 * roi.shape[0])):
        if lattice == 0 and r & 1 == 0:
            continue
        odd = 1 if lattice == 0 else 1 - (r & 1)
        j, end = (box[1] + 2 - left - odd) >> 1, (min(box[3] - 1, 8 * roi.shape[1]) - left - odd + 1) >> 1
        line = np.uint64((r & 1) * complexity.shape[1] + ((r - top) >> 1) * stride)
        base = ((channel << row_bits) | (r - top)) << col_bits
        while j < end:
            stop = _block_end(left + odd, j, end)
            if roi[r >> 3, (left + 2 * j + odd) >> 3]:
                j = stop
                continue
            while stop < end and not roi[r >> 3, (left + 2 * stop + odd) >> 3]:
                stop = _block_end(left + odd, stop, end)
            word, place = np.uint64(r * words.shape[1] + left + 2 * j + odd), np.uint64(base + j)
            for i in range(np.uint64(stop - j)):
                high = np.uint64(np.uint32(measured[line + np.uint64(j) + i])) << np.uint64(_COMPLEXITY_AT)
                low = np.uint64(every[word + i + i]) >> cut << up
                keys[np.uint64(count) + i] = high | low | (place + i)
            count, j = count + stop - j, stop
    return count


@compiled
def _block_end(first: int, j: int, end: int) -> int:
    """The place behind the last one that lies in a block with place `j`; a row's places begin at `first`."""
    return min(end, (((first + 2 * j) | 7) + 2 - first) >> 1)


@compiled
def _sort(keys: KeyArray, counts: IndexArray, count: int) -> int:
    """Sort the first `count` of `keys[0]`, by the other half or back; returns the half.

    A radix sort by the highest bits, a byte at a time: as many as tell nearly all apart, for the keyed words
    are as good as random. Insertion does what is left.
    """
    every, side = np.uint64(0), 0
    for i in range(count):
        every |= keys[0, i]
    bits = _bits(int(every >> np.uint64(_COMPLEXITY_AT)))
    total, passes = _COMPLEXITY_AT + bits, (bits + _bits(count) + 8) >> 3
    for step in range(max(0, total - 8 * passes), total, 8):
        shift = np.uint64(step)
        source, target = keys[side], keys[1 - side]
        counts[:] = 0
        for i in range(count):
            counts[1 + ((source[i] >> shift) & np.uint64(255))] += 1
        for byte in range(256):
            counts[byte + 1] += counts[byte]
        for i in range(count):
            byte = (source[i] >> shift) & np.uint64(255)
            target[counts[byte]] = source[i]
            counts[byte] += 1
        side = 1 - side
    _insert_sorted(keys[side], count)
    return side


@compiled
def _insert_sorted(keys: KeyArray, count: int) -> None:
    """Insertion sort, for what is nearly in order."""
    for i in range(1, count):
        key, to = keys[i], i
        while to > 0 and keys[to - 1] > key:
            keys[to] = keys[to - 1]
            to -= 1
        keys[to] = key


@compiled
def _settle(keys: KeyArray, count: int, words: WordArray, box: IndexArray, layout: Layout) -> None:
    """Where keys had no room for the whole word, put those that are alike in the order of their words."""
    if layout[5] == _PLACE_BITS:
        return
    up, first = np.uint64(layout[5]), 0
    for i in range(1, count + 1):
        if i == count or keys[i] >> up != keys[first] >> up:
            if i - first > 1:
                _settle_alike(keys[first:i], words, box, layout)
            first = i


@compiled
def _settle_alike(keys: KeyArray, words: WordArray, box: IndexArray, layout: Layout) -> None:
    """Put keys in the order of their words; of equal words the first stays first.

    In an ordinary image there are two or three of them, in a large constant one thousands.
    """
    ranks = np.empty(keys.size, np.uint64)
    for i in range(keys.size):
        ranks[i] = (np.uint64(_word(keys[i], words, box, layout)) << np.uint64(32)) | np.uint64(i)
    ranks.sort()
    before = keys.copy()
    for i in range(keys.size):
        keys[i] = before[np.int64(ranks[i] & np.uint64(0xFFFFFFFF))]


@compiled
def _word(key: np.uint64, words: WordArray, box: IndexArray, layout: Layout) -> int:
    """What settles ties at the site with that key."""
    _, row, col = _unfolded(key, layout)
    r, c = _pixel(box, layout, row, col)
    return int(words[r, c] >> 2)


@compiled
def _blank(
    rows: npt.NDArray[np.uint16], channels: int, roi: BoolArray, boxes: IndexArray, lattice: int, first: int
) -> None:
    """Write 0 to the sites of windows that were cut out."""
    flat = rows.reshape(-1)
    for w in range(len(boxes)):
        top, left, bottom, right = boxes[w, 0], boxes[w, 1], boxes[w, 2], boxes[w, 3]
        at, last = w * rows.shape[1] + first, min(right - 1, 8 * roi.shape[1])
        for _ in range(channels):
            for r in range(top, bottom):
                inner = top < r < bottom - 1 and r < 8 * roi.shape[0] and (lattice == 1 or r & 1 == 1)
                odd = 1 if lattice == 0 else 1 - (r & 1)
                c = left + 1 + ((left + 1 + odd) & 1)
                while inner and c < last:
                    stop = min(last, (c | 7) + 1)
                    if not roi[r >> 3, c >> 3]:
                        for site in range(
                            np.uint64(at + c - left), np.uint64(at + stop - left), np.uint64(2)
                        ):
                            flat[site] = 0
                    c = stop + ((stop + odd) & 1)
                at += right - left
