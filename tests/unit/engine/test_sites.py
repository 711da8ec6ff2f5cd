"""Sites, their order and what predicts them, by hand and against the specification written out plainly."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from blessmark.carrier.sites import Sites, Window, find_all_sites, find_sites, predict_again, untouched
from blessmark.types import Frame, Lattice


class TestPrediction:
    """Each predictor on one ring, worked out by hand."""

    #: NW N NE / W x E / SW S SE
    RING = np.array([[[10, 20, 31], [40, 0, 61], [70, 80, 93]]], np.int32)

    @pytest.mark.parametrize(
        ("predictor", "lattice", "expected"),
        [
            (0, Lattice.QUARTER, 50),  # (20 + 61 + 80 + 40 + 2) >> 2
            (1, Lattice.QUARTER, 50),  # (2 * 201 - 204 + 2) >> 2
            (2, Lattice.QUARTER, 50),  # ((100 * 22 + 101 * 61) + 83) // 166
            (3, Lattice.QUARTER, 50),  # (3 * 201 - 204 + 4) >> 3
            (4, Lattice.QUARTER, 51),  # (201 + 204 + 4) >> 3
            (5, Lattice.QUARTER, 51),  # (201 - 80 - 20 + 1) >> 1
            (0, Lattice.QUINCUNX, 50),
            (5, Lattice.QUINCUNX, 51),
        ],
    )
    def test_by_hand(self, predictor, lattice, expected):
        at = 4 if lattice is Lattice.QUARTER else 5
        samples = np.zeros((1, 3, 4), np.int32)
        samples[:, :, at - 4 : at - 1] = self.RING
        sites = Sites(np.array([1 * 4 + (at - 3)]), np.zeros(1, np.int32))
        frame = Frame(samples, 0, 255)
        assert predict_again(frame, sites, lattice, predictor).tolist() == [expected]

    @pytest.mark.parametrize("lattice", Lattice)
    def test_follows_the_formulas_on_any_ring(self, lattice):
        samples = np.random.default_rng(7).integers(-300, 300, (2, 31, 30)).astype(np.int32)
        frame = Frame(samples, -2048, 2047)
        words, roi = np.zeros((31, 30), np.uint32), np.zeros((3, 3), np.bool_)
        sites = find_sites(frame, roi, Window(0, 0, 31, 30), lattice, 0, words)
        for predictor in (0, 1, 2, 3, 4, 5) if lattice is Lattice.QUARTER else (0, 2, 5):
            expected = [formula(samples, int(at), predictor) for at in sites.index]
            assert predict_again(frame, sites, lattice, predictor).tolist() == expected

    def test_is_clipped_to_the_bounds_that_padding_leaves(self):
        samples = np.zeros((1, 3, 3), np.int32)
        frame = Frame(samples, 0, 255, padding=(0, 9))
        sites = Sites(np.array([4]), np.zeros(1, np.int32))
        assert predict_again(frame, sites, Lattice.QUARTER, 0).tolist() == [10]


def formula(samples: np.ndarray, at: int, predictor: int) -> int:
    """The predictors as the format specifies them, in exact arithmetic."""
    channel, r, c = np.unravel_index(at, samples.shape)
    p = samples[channel].astype(object)
    cross = [p[r - 1, c], p[r + 1, c], p[r, c - 1], p[r, c + 1]]
    diagonals = p[r - 1, c - 1] + p[r - 1, c + 1] + p[r + 1, c - 1] + p[r + 1, c + 1]
    n, s, w, e = cross
    vertical, horizontal = abs(n - s) + 1, abs(w - e) + 1
    weighted = Fraction((n + s) * horizontal + (w + e) * vertical, 2 * (vertical + horizontal))
    exact = {
        0: Fraction(sum(cross), 4),
        1: Fraction(2 * sum(cross) - diagonals, 4),
        2: weighted,
        3: Fraction(3 * sum(cross) - diagonals, 8),
        4: Fraction(sum(cross) + diagonals, 8),
        5: Fraction(sum(sorted(cross)[1:3]), 2),
    }
    return math.floor(exact[predictor] + Fraction(1, 2))


def ring_activity(plane: np.ndarray, r: int, c: int, lattice: Lattice) -> int:
    n, s, w, e = (int(plane[r + dr, c + dc]) for dr, dc in ((-1, 0), (1, 0), (0, -1), (0, 1)))
    if lattice is Lattice.QUARTER:
        around = [(-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1)]
    else:
        around = [(-1, 0), (0, 1), (1, 0), (0, -1)]
    ring = [int(plane[r + dr, c + dc]) for dr, dc in around]
    return sum(abs(a - b) for a, b in zip(ring, ring[1:] + ring[:1], strict=True)) + abs(n - s) + abs(w - e)


@pytest.mark.parametrize("lattice", Lattice)
@pytest.mark.parametrize("window", [Window(0, 0, 40, 33), Window(8, 16, 40, 32), Window(3, 5, 30, 31)])
def test_sites_and_their_order_follow_the_specification(lattice, window):
    """C = 2 A + floor(sum of A of the four nearest / 2), ties by word, then channel, then raster order."""
    rng = np.random.default_rng(6)
    samples = rng.integers(0, 4, (3, 40, 33)).astype(np.int32)
    roi = rng.random((5, 4)) < 0.4
    words = rng.integers(0, 8, (40, 33), dtype=np.uint32)
    nearest = (
        ((-2, 0), (2, 0), (0, -2), (0, 2))
        if lattice is Lattice.QUARTER
        else ((-1, -1), (-1, 1), (1, -1), (1, 1))
    )

    def inside(r: int, c: int) -> bool:
        return window.top < r < window.bottom - 1 and window.left < c < window.right - 1

    expected = []
    for channel, plane in enumerate(samples):
        for r, c in itertools.product(range(40), range(33)):
            odd = r % 2 == c % 2 == 1 if lattice is Lattice.QUARTER else (r + c) % 2 == 1
            if not odd or not inside(r, c) or r // 8 >= 5 or c // 8 >= 4 or roi[r // 8, c // 8]:
                continue
            own = ring_activity(plane, r, c, lattice)
            others = [
                ring_activity(plane, r + dr, c + dc, lattice) if inside(r + dr, c + dc) else own
                for dr, dc in nearest
            ]
            complexity = 2 * own + sum(others) // 2
            expected.append((complexity, int(words[r, c]) >> 2, channel, r, c))
    found = find_sites(Frame(samples, 0, 255), roi, window, lattice, 0, words)
    places = [(channel * 40 + r) * 33 + c for *_, channel, r, c in sorted(expected)]
    assert found.index.tolist() == places


@pytest.mark.parametrize("lattice", Lattice)
@pytest.mark.parametrize("shape", [(8, 8), (9, 8), (8, 15), (17, 31)])
def test_small_and_odd_shapes(lattice, shape):
    """Partial blocks at the right and bottom edge hold no site; the image's border holds none."""
    frame = Frame(np.zeros((1, *shape), np.int32), 0, 255)
    roi = np.zeros((shape[0] // 8, shape[1] // 8), np.bool_)
    words = np.zeros(shape, np.uint32)
    sites = find_sites(frame, roi, Window(0, 0, *shape), lattice, 0, words)
    row, col = np.divmod(sites.index, shape[1])
    assert sites.index.size > 0
    assert row.max() < min(shape[0] - 1, shape[0] // 8 * 8)
    assert col.max() < min(shape[1] - 1, shape[1] // 8 * 8)
    assert min(row.min(), col.min()) >= 1


@pytest.mark.parametrize("lattice", Lattice)
def test_windows_of_several_sizes_are_found_as_each_alone(lattice):
    """What one window leaves in the buffers is nothing to the next."""
    rng = np.random.default_rng(8)
    frame = Frame(rng.integers(0, 900, (2, 150, 141)).astype(np.int32), 0, 1023, padding=(1000, 1023))
    roi, words = rng.random((18, 17)) < 0.3, rng.integers(0, 1 << 32, (150, 141), dtype=np.uint32)
    boxes = np.array([(0, 0, 64, 64), (128, 128, 150, 141), (64, 0, 128, 64), (0, 128, 64, 141)])

    table = find_all_sites(frame, roi, boxes, lattice, 3 - 3 * lattice, words)

    for place, box in enumerate(boxes.tolist()):
        alone = find_sites(frame, roi, Window(*box), lattice, 3 - 3 * lattice, words)
        assert alone.index.size > 0
        assert table.of(place).same_as(alone)


def test_tables_agree_on_the_same_sites_in_the_same_order_with_the_same_predictions():
    rng = np.random.default_rng(12)
    frame = Frame(rng.integers(0, 900, (1, 64, 192)).astype(np.int32), 0, 1023)
    roi, words = rng.random((8, 24)) < 0.3, rng.integers(0, 1 << 32, (64, 192), dtype=np.uint32)
    boxes = np.array([(0, 0, 64, 64), (0, 64, 64, 128), (0, 128, 64, 192)])
    table = find_all_sites(frame, roi, boxes, Lattice.QUARTER, 3, words)
    some = find_all_sites(frame, roi, boxes[1:], Lattice.QUARTER, 3, words)

    assert some.agrees_with(table, np.array([1, 2]))
    assert not some.agrees_with(table, np.array([2, 1]))
    assert not some.agrees_with(table, np.array([1]))
    for name in ("index", "predicted"):
        changed = getattr(some.every, name).copy()
        changed[-1] += 1
        other = replace(some, every=replace(some.every, **{name: changed}))
        assert not other.agrees_with(table, np.array([1, 2]))


def test_deepest_samples_have_room_in_the_keys():
    """The greatest complexity that differences of 16 bits can have comes last, and behind nothing."""
    samples = np.zeros((1, 64, 64), np.int32)
    samples[0, 20:24, 20:24] = np.indices((4, 4)).sum(axis=0) % 2 * 65535
    words = np.full((64, 64), (1 << 32) - 1, np.uint32)
    roi = np.zeros((8, 8), np.bool_)

    sites = find_sites(Frame(samples, 0, 65535), roi, Window(0, 0, 64, 64), Lattice.QUARTER, 3, words)

    assert sites.index.size == 31 * 31
    assert sites.index[0] == 65
    assert sites.index[-1] in {21 * 64 + 21, 21 * 64 + 23, 23 * 64 + 21, 23 * 64 + 23}


@pytest.mark.parametrize("lattice", Lattice)
def test_untouched_are_all_pixels_of_a_window_but_its_sites(lattice):
    rng = np.random.default_rng(9)
    frame = Frame(rng.integers(-900, 900, (2, 75, 141)).astype(np.int32), -1024, 1023)
    roi, words = rng.random((9, 17)) < 0.3, np.zeros((75, 141), np.uint32)
    boxes = np.array([(0, 0, 64, 64), (64, 128, 75, 141), (0, 128, 64, 141)])
    table = find_all_sites(frame, roi, boxes, lattice, 3 - 3 * lattice, words)

    rows = np.full((3, 5 + 2 * 64 * 64 + 7), 77, np.uint16)

    untouched(frame, roi, boxes, lattice, 5, rows)

    assert (rows[:, :5] == 77).all()
    for place, (top, left, bottom, right) in enumerate(boxes.tolist()):
        blank = frame.samples.copy()
        blank.reshape(-1)[table.of(place).index] = 0
        expected = blank[:, top:bottom, left:right].astype(np.uint16).reshape(-1)
        assert np.array_equal(rows[place, 5 : 5 + expected.size], expected)
        assert not rows[place, 5 + expected.size :].any()


@pytest.mark.parametrize("lattice", Lattice)
def test_words_that_differ_in_their_lowest_bits_alone_decide_too(lattice):
    # one window whose places take so many bits of a sort key that nothing of these words is left in it
    words = np.random.default_rng(3).integers(0, 64, (400, 392), dtype=np.uint32)
    frame, roi = Frame(np.zeros((1, 400, 392), np.int32), 0, 255), np.zeros((50, 49), np.bool_)
    found = find_sites(frame, roi, Window(0, 0, 400, 392), lattice, 0, words).index
    order = np.lexsort((found, words.reshape(-1)[found] >> 2))
    assert np.array_equal(found, found[order])
    assert len(np.unique(found)) == len(found) > 30_000
