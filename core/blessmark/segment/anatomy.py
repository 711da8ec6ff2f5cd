"""`anatomy/1`: what is certainly outside the patient, for every modality without a trained network.

Conservative by construction: a block counts as background only if it is air (or collimation, or black
surround), is reached from the image border through air, and lies at least one block away from anything
else. Where the border shows no plateau of air, everything is ROI. Integers only, so that the map is
bit-identical on every machine.

    view -> cells (2 x 2 sums) -> Otsu, air level and spread on the border -> blocks of air
         -> reached from the border -> outside

Many CT reconstructions fill the corners around a circular field of view with one constant. Such a fill is
a plateau of its own, far below air, and would hide the air inside the circle. It is recognised by its
shape, and the air level is then taken again from the pixels beside it.

What grey levels alone cannot tell: an ultrasound sector whose interior is exactly black and open to the
surround (`Frame.forced_roi` covers it), and uniform tissue that is the darkest thing in an image, fills its
border and leaves no air (a CT reconstructed inside the body).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from blessmark.jit import compiled
from blessmark.planes import IntArray, PlaneArray
from blessmark.profile import V1
from blessmark.types import BoolArray, View

_BLOCK = V1.block_px
_CELLS = _BLOCK // 2  #: cells along a block's side
_OTSU_BITS = 10
#: a variance below this share of the greatest cannot be the greatest, whatever floating point made of either
_NEAR = 1 - 1e-9
#: beyond every sum of four samples
_NO_LEVEL = 1 << 20
#: beyond the square of every distance
_NO_DISTANCE = 1 << 62
#: least share of the border, and of the ring beside a circular fill, that must be air
_AIR_PERCENT = 5
_AIR_PERCENT_BESIDE_FILL = 25
#: air is a plateau if the threshold is this many spreads above it
_SPREADS_TO_THRESHOLD = 16
_SPREADS_TO_LIMIT = 6
_LEAST_OUTSIDE_BLOCKS = 16
_LEAST_FILLED_BLOCKS = 64
_DISC_TOLERANCE_BLOCKS = 2
_BESIDE_FILL_BLOCKS = 4
#: how many levels above and below the likeliest one a redrawn map may turn on
_STEPS_OF_LEVEL = 24
#: how many of these go with all contours, and with each hidden tile in turn taken as it shows
_LEVELS_IN_DETAIL = 3
#: contours through what is hidden, in eighths of the way from body (-8) to air (8)
_CONTOURS = (0, -2, 2, -4, 4, -6, 6, -9, 8, -1, 1, -3, 3)
_FEW_CONTOURS = (0, -9, 8)
#: tiles x blocks up to which tiles are taken in turn: 32 tiles of 512 x 512 pixels
_MOST_TILE_BY_TILE = 1 << 17
_EIGHT_NEIGHBOURS = np.ones((3, 3), np.bool_)


class Anatomy:
    """Body against background, from grey levels and connectivity alone; see `types.Segmenter`."""

    id: str = "anatomy/1"
    reach_px: int | None = None

    def roi_blocks(self, view: View) -> BoolArray:
        """bool [rows // 8, cols // 8]: False where every channel is certainly outside the patient."""
        rows, cols = (side // _BLOCK for side in view.shape[1:])
        outside = np.full((rows, cols), rows * cols > 0)
        for plane in view.planes:
            if not outside.any():
                break
            inner = np.ascontiguousarray(plane[: rows * _BLOCK, : cols * _BLOCK])
            outside &= _reached(_air_blocks(inner, view))
        return ~outside

    def redraw(self, view: View, hidden: BoolArray, wanted: BoolArray) -> Iterator[BoolArray]:
        """Maps that the view may have had before the blocks `hidden` changed, the likeliest first.

        Levels are taken without these blocks. What borderline blocks turn on is one level, which the rest of
        the image fixes up to a few blocks; so there is a map for each level nearby, and for each of these one
        map for every guess at what the hidden blocks held. As a tile that a map is wanted for may not have
        changed at all, each tile of `wanted` in turn is also taken as it shows.

        `hidden`, `wanted` and the maps are bool [rows // 8, cols // 8].
        """
        rows, cols = hidden.shape
        inner = np.ascontiguousarray(view.planes[:, : rows * _BLOCK, : cols * _BLOCK])
        planes = [_guesses(plane, view, hidden) for plane in inner]
        if hidden.all() or not all(planes):
            return
        for number in range(max(map(len, planes))):
            guesses = [plane[min(number, len(plane) - 1)] for plane in planes]
            if number >= _LEVELS_IN_DETAIL:
                yield from _maps(guesses, hidden, _FEW_CONTOURS)
                continue
            yield from _maps(guesses, hidden, _CONTOURS)
            for part in _without_one_tile(hidden, wanted):
                yield from _maps(guesses, part, _CONTOURS)


@dataclass(frozen=True, slots=True)
class _Field:
    """One plane, measured in cells: sums over 2 x 2 pixels, counted from the smallest one.

    Attributes
    ----------
    cells : int32 [4 R, 4 C], 0..top where used
    used : bool [4 R, 4 C], False where a cell holds a filled pixel or touches a cell that does
    base : what was subtracted from every sum
    top : the largest used cell
    low, high : int32 [R, C], least and greatest used cell of a block; top + 1 and -1 if it has none
    """

    cells: IntArray
    used: BoolArray
    base: int
    top: int
    low: IntArray
    high: IntArray

    def mirrored(self) -> _Field:
        """The same field with dark and bright exchanged."""
        top = self.top
        return _Field(top - self.cells, self.used, self.base, top, top - self.high, top - self.low)


@dataclass(frozen=True, slots=True)
class _Air:
    """The level of the surround, and the level up to which a block still is surround.

    They are equal if software made the surround: then only exactly constant blocks belong to it.
    """

    level: int
    limit: int


def _air_blocks(plane: PlaneArray, view: View) -> BoolArray:
    """bool [R, C]: blocks of one plane that hold nothing but air, fill or padding, wherever they lie."""
    padding = _padding(plane, view)
    may_be_disc = view.shape[0] == 1 and view.hi - view.lo > 255  # a fundus or an endoscope is no CT
    if may_be_disc and _is_disc(padding):
        return _air_in_disc(plane, padding)
    field = _measure(plane, padding)
    air = _find_air(field, _border(field.used.shape), _AIR_PERCENT)
    if air is None:
        return _saturated_blocks(field)
    blocks, level = field.high <= air.limit, air.level + field.base
    filled = may_be_disc and air.level == air.limit and _fills_corners(plane, level, padding)
    if filled and _looks_like_disc(_solid(plane, level, padding)):
        blocks |= _air_in_disc(plane, _filled_with(plane, level, padding))
    return blocks


def _fills_corners(plane: PlaneArray, level: int, padding: BoolArray) -> bool:
    """What `_filled_with` says of the corners, of which it mostly is untrue: a look at four pixels."""
    at = np.ix_([0, -1], [0, -1])
    return bool(((4 * plane[at].astype(np.int32) == level) | padding[at]).all())


@compiled
def _filled_with(plane: PlaneArray, level: int, padding: BoolArray) -> BoolArray:
    """Where four times a pixel is `level`, or padding is."""
    fill = np.empty(plane.shape, np.bool_)
    for r in range(plane.shape[0]):
        for c in range(plane.shape[1]):
            fill[r, c] = (4 * plane[r, c] == level) | padding[r, c]
    return fill


@compiled
def _solid(plane: PlaneArray, level: int, padding: BoolArray) -> BoolArray:
    """bool [R, C]: the blocks that `_filled_with` fills."""
    solid = np.empty((plane.shape[0] // _BLOCK, plane.shape[1] // _BLOCK), np.bool_)
    value, is_one, column = np.int16(level >> 2), level & 3 == 0, np.empty(plane.shape[1], np.bool_)
    for row in range(solid.shape[0]):
        column[:] = True
        for r in range(row * _BLOCK, (row + 1) * _BLOCK):
            line, padded = plane[r], padding[r]
            for c in range(len(line)):
                column[c] &= ((line[c] == value) & is_one) | padded[c]
        for col in range(solid.shape[1]):
            filled = True
            for c in range(col * _BLOCK, (col + 1) * _BLOCK):
                filled &= column[c]
            solid[row, col] = filled
    return solid


def _guesses(plane: PlaneArray, view: View, hidden: BoolArray) -> list[BoolArray]:
    """What `_air_blocks` may have found before the blocks `hidden` changed, the likeliest first."""
    padding, seen = _padding(plane, view), ~hidden.repeat(_BLOCK, 0).repeat(_BLOCK, 1)
    may_be_disc = view.shape[0] == 1 and view.hi - view.lo > 255
    if may_be_disc and _is_disc(padding, hidden):
        return _nested(_Shown.of(plane, padding, hidden), _beside(padding & seen), _AIR_PERCENT_BESIDE_FILL)
    shown = _Shown.of(plane, padding, hidden)
    ring = _border(shown.known.used.shape)
    air = shown.air(ring, _AIR_PERCENT)
    if air is None:
        return shown.saturated(ring)
    if not may_be_disc or air.level < air.limit:
        return _nested(shown, ring, _AIR_PERCENT)
    constant = shown.high <= air.limit
    fill = _filled_with(plane, air.level + shown.known.base, padding)
    if not _is_disc(fill, hidden):
        return [constant]
    inside = _Shown.of(plane, fill, hidden)
    return [
        constant | blocks for blocks in _nested(inside, _beside(fill & seen), _AIR_PERCENT_BESIDE_FILL)
    ] or [constant]


def _nested(shown: _Shown, ring: BoolArray, percent: int) -> list[BoolArray]:
    """The blocks of air for every level near the one that the ring shows, the nearest first."""
    air = shown.air(ring, percent, sure=False)
    if air is None:
        return []
    levels = np.unique(shown.high[~shown.hidden])
    here = int(np.searchsorted(levels, air.limit, "right")) - 1
    steps = sorted(range(-_STEPS_OF_LEVEL, _STEPS_OF_LEVEL + 1), key=abs)
    return [shown.high <= levels[here + step] for step in steps if 0 <= here + step < levels.size]


@dataclass(frozen=True, slots=True)
class _Shown:
    """A plane of which some blocks are hidden.

    Attributes
    ----------
    known : measured without the hidden blocks
    hidden : bool [R, C]
    low, high : as in `_Field`, of all blocks, counted from `known.base`
    """

    known: _Field
    hidden: BoolArray
    low: IntArray
    high: IntArray

    @classmethod
    def of(cls, plane: PlaneArray, fill: BoolArray, hidden: BoolArray) -> _Shown:
        """Measure a plane; `fill` is left out of everything."""
        whole = _measure(plane, fill)
        known = _measure(plane, fill | hidden.repeat(_BLOCK, 0).repeat(_BLOCK, 1))
        higher = whole.base - known.base
        return cls(known, hidden, whole.low + higher, whole.high + higher)

    def air(self, ring: BoolArray, percent: int, *, sure: bool = True) -> _Air | None:
        """The plateau of air among the cells of `ring` that are not hidden."""
        return _find_air(self.known, self._seen(ring), percent, sure=sure)

    def saturated(self, ring: BoolArray) -> list[BoolArray]:
        """The blocks of a saturated white surround, if it shows on the ring."""
        air = _find_air(self.known.mirrored(), self._seen(ring), _AIR_PERCENT)
        return [] if air is None or air.limit > 0 else [self.low >= self.known.top]

    def _seen(self, ring: BoolArray) -> BoolArray:
        return ring & ~self.hidden.repeat(_CELLS, 0).repeat(_CELLS, 1)


def _maps(planes: list[BoolArray], hidden: BoolArray, contours: tuple[int, ...]) -> Iterator[BoolArray]:
    """A map for each guess at what the `hidden` blocks hold, given the blocks of air of every plane."""
    for closed in zip(*(_closed(air, hidden, contours) for air in planes), strict=True):
        yield ~np.logical_and.reduce([_reached(air) for air in closed])


def _closed(air: BoolArray, hidden: BoolArray, contours: tuple[int, ...]) -> Iterator[BoolArray]:
    """Blocks of air: as shown, then with contours drawn through `hidden` that meet those outside it.

    A block's place between body and air is (distance to body - distance to air) / their sum; each contour
    is a level of that, from a straight one to the utmost bulges either way.
    """
    yield air
    to_body = ndimage.distance_transform_edt(air | hidden)
    to_air = ndimage.distance_transform_edt(~air | hidden)
    for level in contours:
        yield np.where(hidden, 8 * (to_body - to_air) > level * (to_body + to_air), air)


def _without_one_tile(hidden: BoolArray, wanted: BoolArray) -> Iterator[BoolArray]:
    """`hidden` without each tile of `wanted` in turn; none where that would take too long."""
    side = V1.tile_px // _BLOCK
    tiles = np.argwhere(_any_per_tile(hidden & wanted)).tolist()
    if len(tiles) * hidden.size > _MOST_TILE_BY_TILE:
        return
    for row, col in tiles:
        part = hidden.copy()
        part[row * side : (row + 1) * side, col * side : (col + 1) * side] = False
        yield part


def _any_per_tile(hidden: BoolArray) -> BoolArray:
    side = V1.tile_px // _BLOCK
    rows, cols = hidden.shape
    padded = np.pad(hidden, ((0, -rows % side), (0, -cols % side)))
    return _any_of(padded, side)


def _air_in_disc(plane: PlaneArray, fill: BoolArray) -> BoolArray:
    """Blocks of air around a body in a circular field of view, and of the fill around that."""
    field = _measure(plane, fill)
    air = _find_air(field, _beside(fill), _AIR_PERCENT_BESIDE_FILL)
    return np.zeros_like(field.high, np.bool_) if air is None else field.high <= air.limit


def _saturated_blocks(field: _Field) -> BoolArray:
    """Blocks of a saturated white surround, as inverted radiographs have it.

    Uniform tissue may be the brightest thing in an image, so a plateau below saturation is not enough.
    """
    mirror = field.mirrored()
    air = _find_air(mirror, _border(field.used.shape), _AIR_PERCENT)
    if air is None or air.limit > 0:
        return np.zeros_like(field.high, np.bool_)
    return mirror.high <= 0


def _find_air(field: _Field, ring: BoolArray, percent: int, *, sure: bool = True) -> _Air | None:
    """The plateau of air among the cells of `ring`, or None if there is none (to be `sure` of).

    Spread is the median absolute deviation; medians are lower medians, so that they are levels that occur.
    """
    threshold = _otsu(field)
    air, around = _darker(field.cells, field.used, ring, threshold)
    if air.size == 0 or 100 * air.size < percent * around:
        return None
    level = _median(air)
    spread = _median(np.abs(air - level))
    contrast = threshold - level
    if sure and _SPREADS_TO_THRESHOLD * spread > contrast:
        return None
    return _Air(level, level + (max(_SPREADS_TO_LIMIT * spread, contrast // 8) if spread else 0))


@compiled
def _darker(cells: IntArray, used: BoolArray, ring: BoolArray, threshold: int) -> tuple[IntArray, int]:
    """The used cells of `ring` below the threshold, and how many cells the ring has."""
    found, count, around = np.empty(cells.size, np.int32), 0, 0
    for r in range(cells.shape[0]):
        for c in range(cells.shape[1]):
            if not ring[r, c]:
                continue
            around += 1
            if used[r, c] and cells[r, c] < threshold:
                found[count] = cells[r, c]
                count += 1
    return found[:count], around


def _median(values: IntArray) -> int:
    middle = (values.size - 1) // 2
    return int(np.partition(values, middle)[middle])


def _otsu(field: _Field) -> int:
    """The level that separates the used cells best (Otsu 1979), 0 if they are all equal.

    Exact: between-class variances are compared as fractions of Python integers. Floating point only says
    which few of them are so near the greatest that they have to be compared.
    """
    shift = max(0, field.top.bit_length() - _OTSU_BITS)
    counts = _histogram(field.cells, field.used, shift, (field.top >> shift) + 1)
    total, moment, splits = _near_best(counts)
    best = best_over = threshold = 0
    for split, under, under_moment in splits.tolist():
        gain, over = (moment * under - under_moment * total) ** 2, under * (total - under)
        if gain * max(1, best_over) > best * over:
            best, best_over, threshold = gain, over, (split + 1) << shift
    return int(threshold)


@compiled
def _near_best(counts: npt.NDArray[np.int64]) -> tuple[int, int, npt.NDArray[np.int64]]:
    """How many cells there are, the sum of their levels, and what splits them about as well as can be.

    Of each such split, int64 [n, 3]: the level below it, how many cells lie there, and the sum of theirs.
    """
    total, moment = 0, 0
    for level, count in enumerate(counts):
        total, moment = total + count, moment + level * count
    splits, variances = np.empty((len(counts), 3), np.int64), np.zeros(len(counts))
    found, below, below_moment, best = 0, 0, 0, 0.0
    for level, count in enumerate(counts):
        below, below_moment = below + count, below_moment + level * count
        if count > 0 and below < total:
            # both factors of a product stay below 2^36 and 2^26: a frame has 2^28 samples at most
            apart = float(moment * below - below_moment * total)
            variances[found] = apart * apart / (below * (total - below))
            best = max(best, variances[found])
            splits[found, 0], splits[found, 1], splits[found, 2] = level, below, below_moment
            found += 1
    return total, moment, splits[:found][variances[:found] >= best * _NEAR]


@compiled
def _histogram(cells: IntArray, used: BoolArray, shift: int, size: int) -> npt.NDArray[np.int64]:
    """int64 [size]: how many used cells there are of each level, their lowest `shift` bits apart.

    Neighbours are mostly alike, and counting one thing again waits for the count before: four take turns.
    """
    turns = np.zeros((4, size), np.int64)
    for r in range(cells.shape[0]):
        for c in range(cells.shape[1]):
            if used[r, c]:
                turns[c & 3, cells[r, c] >> shift] += 1
    counts: npt.NDArray[np.int64] = turns[0]
    for turn in turns[1:]:
        counts += turn
    return counts


def _measure(plane: PlaneArray, fill: BoolArray) -> _Field:
    """Cells and block extremes of a plane, leaving out what `fill` marks and what it bleeds into.

    Lattice pixels of the view are means of their neighbours, so a cell beside a filled one may hold
    a mixture.
    """
    used = ~_grown(_any_of(fill, 2))
    cells = _cells(plane)
    low, high = _extremes(cells, used)
    base, top = (int(low.min()), int(high.max()) - int(low.min())) if used.any() else (0, 0)
    _count_from(base, cells, low, high, top)
    return _Field(cells, used, base, top, low, high)


@compiled
def _cells(plane: PlaneArray) -> IntArray:
    """Sums over 2 x 2 pixels."""
    cells = np.empty((plane.shape[0] // 2, plane.shape[1] // 2), np.int32)
    for r in range(cells.shape[0]):
        upper, lower = plane[2 * r], plane[2 * r + 1]
        for c in range(cells.shape[1]):
            left, right = np.int32(upper[2 * c]) + np.int32(lower[2 * c]), np.int32(upper[2 * c + 1])
            cells[r, c] = left + right + np.int32(lower[2 * c + 1])
    return cells


@compiled
def _extremes(cells: IntArray, used: BoolArray) -> tuple[IntArray, IntArray]:
    """Least and greatest used cell of every block; `_NO_LEVEL` and its negative if it has none."""
    shape = cells.shape[0] // _CELLS, cells.shape[1] // _CELLS
    low, high = np.full(shape, _NO_LEVEL, np.int32), np.full(shape, -_NO_LEVEL, np.int32)
    for row in range(shape[0]):
        for r in range(row * _CELLS, (row + 1) * _CELLS):
            for col in range(shape[1]):
                least, most = low[row, col], high[row, col]
                for c in range(col * _CELLS, (col + 1) * _CELLS):
                    least = min(least, cells[r, c] if used[r, c] else _NO_LEVEL)
                    most = max(most, cells[r, c] if used[r, c] else -_NO_LEVEL)
                low[row, col], high[row, col] = least, most
    return low, high


@compiled
def _count_from(base: int, cells: IntArray, low: IntArray, high: IntArray, top: int) -> None:
    """Subtract `base` from everything; blocks without a used cell get `top` + 1 and -1."""
    for r in range(cells.shape[0]):
        for c in range(cells.shape[1]):
            cells[r, c] -= base
    for row in range(low.shape[0]):
        for col in range(low.shape[1]):
            empty = high[row, col] == -_NO_LEVEL
            low[row, col] = top + 1 if empty else low[row, col] - base
            high[row, col] = -1 if empty else high[row, col] - base


def _padding(plane: PlaneArray, view: View) -> BoolArray:
    if view.plane_padding is None:
        return np.zeros(plane.shape, np.bool_)
    low, high = view.plane_padding
    return (plane >= low) & (plane <= high)


def _any_of(mask: BoolArray, side: int) -> BoolArray:
    """True where any of the side x side elements is."""
    if not mask.any():  # as most masks are
        return np.zeros((mask.shape[0] // side, mask.shape[1] // side), np.bool_)
    return np.asarray(_any(np.ascontiguousarray(mask), side))


@compiled
def _any(mask: BoolArray, side: int) -> BoolArray:
    result = np.zeros((mask.shape[0] // side, mask.shape[1] // side), np.bool_)
    column = np.zeros(mask.shape[1], np.bool_)
    for row in range(result.shape[0]):
        column[:] = False
        for r in range(row * side, (row + 1) * side):
            for c in range(mask.shape[1]):
                column[c] |= mask[r, c]
        for col in range(result.shape[1]):
            for c in range(col * side, (col + 1) * side):
                result[row, col] |= column[c]
    return result


def _grown(mask: BoolArray, steps: int = 1) -> BoolArray:
    """True within `steps` elements of a True one, diagonals included."""
    if not mask.any():
        return mask
    grown: BoolArray = ndimage.binary_dilation(mask, _EIGHT_NEIGHBOURS, steps)
    return grown


@lru_cache(maxsize=2)
def _border(shape: tuple[int, int]) -> BoolArray:
    """The cells of the outermost blocks; not to be written to."""
    ring = np.ones(shape, np.bool_)
    ring[_CELLS:-_CELLS, _CELLS:-_CELLS] = False
    return ring


def _beside(fill: BoolArray) -> BoolArray:
    """The cells of blocks that hold no fill but lie near blocks that hold nothing else."""
    solid, touched = ~_any_of(~fill, _BLOCK), _any_of(fill, _BLOCK)
    ring = _grown(solid, _BESIDE_FILL_BLOCKS) & ~touched
    return ring.repeat(_CELLS, 0).repeat(_CELLS, 1)


def _is_disc(fill: BoolArray, hidden: BoolArray | None = None) -> bool:
    """Whether what is not filled is a disc about the middle that reaches all sides and spares all corners.

    Blocks that are `hidden` are taken for whatever a disc would have there.
    """
    if hidden is None and not fill[[0, 0, -1, -1], [0, -1, 0, -1]].all():
        return False  # without a look at the rest
    return _looks_like_disc(~_any_of(~fill, _BLOCK), hidden)


def _looks_like_disc(solid: BoolArray, hidden: BoolArray | None = None) -> bool:
    """`_is_disc`, told by the blocks that are filled all over."""
    shown = np.ones_like(solid) if hidden is None else ~hidden
    reaches, nearest, farthest = _around_middle(solid, shown)
    return bool(reaches) and math.isqrt(farthest) - math.isqrt(nearest) <= 2 * _DISC_TOLERANCE_BLOCKS


@compiled
def _around_middle(solid: BoolArray, shown: BoolArray) -> tuple[bool, int, int]:
    """Whether there are blocks of both kinds, solid ones in all corners and others at all sides.

    Also the squares of twice the distance from the middle: that of the nearest solid block, and of the
    farthest other. Blocks that are not shown may be of either kind.
    """
    rows, cols = solid.shape
    top = bottom = left = right = False
    nearest, farthest = _NO_DISTANCE, -1
    for r in range(rows):
        for c in range(cols):
            distance = (2 * r + 1 - rows) ** 2 + (2 * c + 1 - cols) ** 2
            if not solid[r, c] or not shown[r, c]:
                top, bottom = top or r < 2, bottom or r >= rows - 2
                left, right = left or c < 2, right or c >= cols - 2
            if shown[r, c]:
                if solid[r, c]:
                    nearest = min(nearest, distance)
                else:
                    farthest = max(farthest, distance)
    corners = True
    for r in (0, rows - 1):
        for c in (0, cols - 1):
            corners = corners and (solid[r, c] or not shown[r, c])
    both = nearest < _NO_DISTANCE and farthest >= 0
    return corners and top and bottom and left and right and both, nearest, max(farthest, 0)


@compiled
def _reached(air: BoolArray) -> BoolArray:
    """Blocks of air, a block away from anything else, that the border reaches and no body encloses."""
    rows, cols = air.shape
    labels, sizes = _labelled(_shrunk(air), False)
    kept = np.zeros(len(sizes), np.bool_)
    for r in range(rows):
        kept[labels[r, 0]] = kept[labels[r, cols - 1]] = True
    for c in range(cols):
        kept[labels[0, c]] = kept[labels[rows - 1, c]] = True
    kept[0] = False
    body = np.ones(air.shape, np.bool_)
    for r in range(rows):
        for c in range(cols):
            body[r, c] = not kept[labels[r, c]] or sizes[labels[r, c]] < _LEAST_OUTSIDE_BLOCKS
    labels, sizes = _labelled(body, True)
    _fill_spans(labels, sizes, body)
    _fill_spans(labels.T, sizes, body.T)
    return ~body


@compiled
def _shrunk(mask: BoolArray) -> BoolArray:
    """True where all that surrounds an element of the mask, diagonals included, is True too."""
    rows, cols = mask.shape
    shrunk, column = np.ones((rows, cols), np.bool_), np.ones(cols, np.bool_)
    for r in range(rows):
        above, here, below = mask[max(r - 1, 0)], mask[r], mask[min(r + 1, rows - 1)]
        for c in range(cols):
            column[c] = above[c] & here[c] & below[c]
        for c in range(cols):
            shrunk[r, c] = column[max(c - 1, 0)] & column[c] & column[min(c + 1, cols - 1)]
    return shrunk


@compiled
def _labelled(mask: BoolArray, diagonals: bool) -> tuple[IntArray, npt.NDArray[np.int64]]:
    """int32 like the mask: the number of each connected part, else 0. And how large each is, from 1 on.

    What has no number yet lies in a margin of what needs none, so that no step has to look where it leads.
    """
    rows, cols = mask.shape
    wide = cols + 2
    labels, sizes = np.zeros((rows + 2) * wide, np.int32), np.zeros(mask.size + 1, np.int64)
    open_, waiting = np.zeros((rows + 2) * wide, np.bool_), np.empty(mask.size + 1, np.int64)
    for r in range(rows):
        open_[(r + 1) * wide + 1 : (r + 2) * wide - 1] = mask[r]
    steps, label = (-wide, -1, 1, wide, -wide - 1, 1 - wide, wide - 1, wide + 1), 0
    for start in range(wide + 1, (rows + 1) * wide):
        if not open_[start]:
            continue
        label += 1
        waiting[0], open_[start], count = start, False, 1
        while count > 0:
            count -= 1
            place = waiting[count]
            labels[place], sizes[label] = label, sizes[label] + 1
            for way in range(8 if diagonals else 4):
                near = place + steps[way]
                if open_[near]:
                    waiting[count], open_[near], count = near, False, count + 1
    return labels.reshape(rows + 2, wide)[1:-1, 1:-1].copy(), sizes[: label + 1]


@compiled
def _fill_spans(labels: IntArray, sizes: npt.NDArray[np.int64], mask: BoolArray) -> None:
    """Set the mask from the first to the last element of each large part in every row."""
    firsts, lasts = np.zeros(len(sizes), np.int64), np.zeros(len(sizes), np.int64)
    for r in range(labels.shape[0]):
        for c in range(labels.shape[1] - 1, -1, -1):
            firsts[labels[r, c]] = c
        for c in range(labels.shape[1]):
            lasts[labels[r, c]] = c
        for c in range(labels.shape[1]):
            label = labels[r, c]
            if label > 0 and sizes[label] >= _LEAST_FILLED_BLOCKS and c == firsts[label]:
                mask[r, c : lasts[label] + 1] = True
