"""The carrier's arithmetic, by hand and against the specification written out plainly."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from blessmark.carrier import lattice
from blessmark.carrier.lattice import (
    NO_DOWN,
    Bands,
    cheapest,
    fits,
    fitting,
    insert,
    remove,
    table_of,
    take_all,
)
from blessmark.carrier.sites import Sites, SiteTable

BOUNDS = (0, 4095)
UP_ONLY = Bands(0, NO_DOWN, 2, 8, 8)
BOTH = Bands(0, -1, 2, 8, 8)


def values_of(*errors: int, predicted: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """Samples that differ from their prediction by `errors`."""
    p = np.full(len(errors), predicted, np.int32)
    return (p + np.array(errors)).astype(np.int32), p


def cost(values: np.ndarray, predicted: np.ndarray, bands: Bands, need: int, limit: int = 1 << 62) -> int:
    """What `cheapest` compares."""
    reach = lattice._reach(values, predicted, *BOUNDS, bands.up, bands.down)
    return int(lattice._cost(*reach, bands.expansion, bands.z_up, need, limit))


def table_for(*windows: np.ndarray) -> SiteTable:
    """Windows with those predictions."""
    starts = np.cumsum([0, *map(len, windows)])
    every = np.concatenate(windows)
    return SiteTable(Sites(np.arange(every.size), every), starts)


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
        assert [cost(values, predicted, UP_ONLY, need) for need in (1, 2, 3, 4)] == [1, 6, 15, -1]

    def test_at_the_limit_there_is_no_interest_any_more(self):
        values, predicted = values_of(0, 1, 5, 0)
        assert [cost(values, predicted, UP_ONLY, 3, limit) for limit in (14, 15, 16)] == [-1, -1, 15]

    def test_agrees_with_fits_for_every_length(self):
        rng = np.random.default_rng(4)
        for bands in (UP_ONLY, BOTH, Bands(0, -1, 1, 64, 64)):
            values, predicted = values_of(*rng.normal(0, 2, 400).round().astype(int))
            found = [fits(values, predicted, BOUNDS, bands, 0, need) for need in range(1, 401)]
            expected = [each if end >= 0 else -1 for end, each, _, _ in found]
            assert [cost(values, predicted, bands, need) for need in range(1, 401)] == expected

    def test_fits_names_what_is_in_the_gap(self):
        values, predicted = values_of(0, 9)
        assert fits(values, predicted, BOUNDS, BOTH, 0, 2)[2:] == (9, -1)
        values, predicted = values_of(0, -10)
        assert fits(values, predicted, BOUNDS, BOTH, 0, 2)[2:] == (-1, 9)


class TestSearch:
    """Many bands over many windows, against `fits` of one band in one window."""

    BANDS = tuple(Bands(0, -1, t, t << d, t << d) for t in (1, 2, 4) for d in range(7))
    LENGTHS = np.array([10, 40, 90, 200])

    @staticmethod
    def windows(bounds: tuple[int, int]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Smooth and noisy, far from the bounds and close to them, with few sites and with none."""
        rng, found = np.random.default_rng(11), []
        for count, spread, level in itertools.product((0, 9, 70, 64, 300), (0.4, 2, 9, 60), (bounds[0], 500)):
            predicted = np.clip(level + rng.integers(0, 30, count), *bounds).astype(np.int32)
            errors = rng.normal(0, spread, count).round().astype(np.int32)
            found.append((np.clip(predicted + errors, *bounds).astype(np.int32), predicted))
        return found

    @pytest.mark.parametrize("bounds", [(0, 4095), (-1024, 3071)])
    def test_agrees_with_every_band_tried_alone(self, bounds):
        windows, rows = self.windows(bounds), table_of(self.BANDS)
        values, table = np.concatenate([v for v, _ in windows]), table_for(*(p for _, p in windows))
        fitting_ = fitting(values, table, bounds, rows, self.LENGTHS)
        seen = set()
        for need in self.LENGTHS.tolist():
            best = cheapest(values, table, bounds, rows, np.full(len(windows), need))
            for w, window in enumerate(windows):
                tried = [fits(*window, bounds, bands, 0, need)[:2] for bands in self.BANDS]
                costs = [cost for end, cost in tried if end >= 0]
                assert (fitting_[w] > self.LENGTHS.tolist().index(need)) == bool(costs)
                assert best[w] == ([c if e >= 0 else -1 for e, c in tried].index(min(costs)) if costs else -1)
                seen.add(int(best[w]))
        assert len(seen) > 5

    def test_a_window_that_is_to_hold_nothing_has_no_bands(self):
        window = values_of(*[0] * 50)
        assert (
            cheapest(window[0], table_for(window[1]), BOUNDS, table_of(self.BANDS), np.zeros(1, np.int64))
            == -1
        )


class TestTaking:
    def test_is_removal_in_each_window_on_a_copy(self):
        windows = TestSearch.windows(BOUNDS)
        table = table_for(*(p for _, p in windows))
        values, lengths, asked = (
            np.concatenate([v for v, _ in windows]),
            np.array([16, 40]),
            np.array([30, 3, 11]),
        )
        before = values.copy()
        taken = take_all(values, table, asked, BOUNDS, BOTH, lengths)
        assert np.array_equal(values, before)
        for row, w in enumerate(asked.tolist()):
            part, predicted = windows[w][0].copy(), windows[w][1]
            bits, ends = remove(part, predicted, BOUNDS, BOTH, 0, 40)
            assert np.array_equal(taken.restored[taken.starts[row] : taken.starts[row + 1]], part)
            content = np.unpackbits(taken.content[row])
            assert content[: len(bits)].tolist() == bits.tolist()
            assert not content[len(bits) :].any()
            assert taken.ends[row].tolist() == [ends[n - 1] if len(ends) >= n else 0 for n in lengths]
