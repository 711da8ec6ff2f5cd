"""The carrier's arithmetic, by hand and against the specification written out plainly."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from blessmark.carrier import lattice
from blessmark.carrier.lattice import (
    NO_DOWN,
    Bands,
    Sites,
    Window,
    find_sites,
    fits,
    insert,
    predict_again,
    remove,
)
from blessmark.types import Frame, Lattice

BOUNDS = (0, 4095)
UP_ONLY = Bands(0, NO_DOWN, 2, 8, 8)
BOTH = Bands(0, -1, 2, 8, 8)


def values_of(*errors: int, predicted: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """Samples that differ from their prediction by `errors`."""
    p = np.full(len(errors), predicted, np.int32)
    return (p + np.array(errors)).astype(np.int32), p


def costs(
    values: np.ndarray, predicted: np.ndarray, bounds: tuple[int, int], bands: Bands, lengths: np.ndarray
) -> np.ndarray:
    """What `cheapest` compares."""
    reach = lattice._reach(values, predicted, *bounds, bands.up, bands.down)
    return lattice._costs(*reach, bands.expansion, bands.z_up, lengths, 1 << 62)


def marked(bands: Bands, bits: list[int], *errors: int, bounds: tuple[int, int] = BOUNDS) -> list[int]:
    """Errors after insertion."""
    values, predicted = values_of(*errors)
    insert(values, predicted, bounds, bands, 0, np.array(bits, np.uint8))
    return (values - predicted).tolist()


class TestInsertion:
    def test_errors_below_t_are_doubled_and_carry_a_bit(self):
        assert marked(UP_ONLY, [0, 1, 0, 1], 0, 0, 1, 1) == [0, 1, 2, 3]

    def test_errors_below_z_are_shifted_by_t(self):
        assert marked(UP_ONLY, [1], 2, 7, 0) == [4, 9, 1]

    def test_errors_beyond_the_gap_stay(self):
        assert marked(UP_ONLY, [1], 10, 500, 0) == [10, 500, 1]

    def test_the_lower_side_mirrors_the_upper(self):
        assert marked(BOTH, [0, 1, 0, 1], -1, -1, -2, -2) == [-1, -2, -3, -4]
        assert marked(BOTH, [1], -3, -8, -11, 0) == [-5, -10, -11, 1]

    def test_one_sided_bands_leave_the_other_side_alone(self):
        assert marked(UP_ONLY, [1], -1, -5, 0) == [-1, -5, 1]

    def test_a_shifted_centre(self):
        assert marked(Bands(3, 1, 1, 4, 4), [1, 0, 1], 3, 2, 1, 1, 0) == [4, 2, 1, 0, 0]

    def test_nothing_moves_after_the_last_bit(self):
        assert marked(UP_ONLY, [1], 0, 0, 5, 1) == [1, 0, 5, 1]

    def test_the_gap_must_be_empty(self):
        for error in (8, 9):
            values, predicted = values_of(0, error, 0)
            bits = np.array([1, 1], np.uint8)
            assert insert(values, predicted, BOUNDS, UP_ONLY, 0, bits) == -1

    def test_says_when_the_sites_run_out(self):
        values, predicted = values_of(0, 5)
        assert insert(values, predicted, BOUNDS, UP_ONLY, 0, np.array([1, 1], np.uint8)) == -1

    def test_returns_the_site_after_the_last_used(self):
        values, predicted = values_of(20, 0, 5, 1, 0)
        assert insert(values, predicted, BOUNDS, UP_ONLY, 1, np.array([1, 1], np.uint8)) == 4
        assert (values - predicted).tolist() == [20, 1, 7, 3, 0]


class TestRange:
    """A side is open only where its widest result stays in the bounds: judged by the prediction alone."""

    def test_the_upper_side_closes_near_the_top(self):
        open_, closed = 4095 - (8 + 2 - 1), 4095 - (8 + 2 - 1) + 1
        for predicted, moves in ((open_, True), (closed, False)):
            values = np.array([predicted, predicted], np.int32)
            end = insert(
                values, values.copy(), BOUNDS, Bands(0, NO_DOWN, 2, 8, 8), 0, np.array([1], np.uint8)
            )
            assert (end == 1) is moves

    def test_the_lower_side_closes_near_the_bottom(self):
        open_, closed = 8 + 2 - 1 + 1, 8 + 2 - 1
        for predicted, moves in ((open_, True), (closed, False)):
            p = np.array([predicted], np.int32)
            values = p - 1
            assert (insert(values, p, BOUNDS, BOTH, 0, np.array([1], np.uint8)) == 1) is moves

    @pytest.mark.parametrize("bands", [UP_ONLY, BOTH, Bands(-2, -3, 4, 4, 16), Bands(1, 0, 1, 1, 2)])
    def test_every_value_and_prediction_of_a_small_range_comes_back(self, bands):
        bounds = (0, 40)
        for predicted, value, bit in itertools.product(range(41), range(41), (0, 1)):
            p, values = np.array([predicted], np.int32), np.array([value], np.int32)
            if insert(values, p, bounds, bands, 0, np.array([bit], np.uint8)) != 1:
                continue
            assert 0 <= values[0] <= 40
            assert abs(values[0] - value) <= bands.expansion
            found, ends = remove(values, p, bounds, bands, 0, 1)
            assert (found.tolist(), ends.tolist(), values.tolist()) == ([bit], [1], [value])


class TestRemoval:
    def test_walks_as_insertion_did(self):
        errors = [0, -1, 7, 1, -3, 500, -2, 0]
        values, predicted = values_of(*errors)
        bits = np.array([1, 0, 1, 1], np.uint8)
        end = insert(values, predicted, BOUNDS, BOTH, 0, bits)
        found, ends = remove(values, predicted, BOUNDS, BOTH, 0, 4)
        assert found.tolist() == bits.tolist()
        assert (values - predicted).tolist() == errors
        assert ends.tolist() == [1, 2, 4, 7]
        assert end == 7

    def test_gives_what_there_is(self):
        values, predicted = values_of(0, 500)
        found, ends = remove(values, predicted, BOUNDS, UP_ONLY, 0, 9)
        assert (found.size, ends.size) == (1, 1)


class TestCosts:
    def test_counts_twice_the_expected_squared_change(self):
        # k = 0 costs (0 + 1) / 2, k = 1 costs (1 + 4) / 2, a shift by T = 2 costs 4
        values, predicted = values_of(0, 1, 5, 0)
        assert costs(values, predicted, BOUNDS, UP_ONLY, np.array([1, 2, 3, 4])).tolist() == [1, 6, 15, -1]

    def test_agrees_with_fits_for_every_length(self):
        rng = np.random.default_rng(4)
        for bands in (UP_ONLY, BOTH, Bands(0, -1, 1, 64, 64)):
            values, predicted = values_of(*rng.normal(0, 2, 400).round().astype(int))
            lengths = np.arange(1, 401)
            found = [fits(values, predicted, BOUNDS, bands, 0, int(n)) for n in lengths]
            expected = [cost if end >= 0 else -1 for end, cost, _, _ in found]
            assert costs(values, predicted, BOUNDS, bands, lengths).tolist() == expected

    def test_fits_names_what_is_in_the_gap(self):
        values, predicted = values_of(0, 9)
        assert fits(values, predicted, BOUNDS, BOTH, 0, 2)[2:] == (9, -1)
        values, predicted = values_of(0, -10)
        assert fits(values, predicted, BOUNDS, BOTH, 0, 2)[2:] == (-1, 9)


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
