"""The paper's Algorithms 1 to 3 on single blocks and in one scan over many."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from scipy.fft import dctn

from blessmark.carrier import dct
from blessmark.errors import CapacityError

BOUNDS = (0, 255)
#: SHA-256 of the pattern tables as little-endian int64, `first` then `second`: part of the format
TABLES = {
    6: "0caff734517e738b6621a693c094e0c95ea1d44ccb0a225c17ac37adb5cebf9c",
    8: "7b51747ebacf9db17fc477a2e650acf1624d4b1dc242539e0f87b015627976da",
    10: "74b906caf63a6bca75719ff3db6f8c180df685d75d7a1263efd816846e5a6be9",
}


def blocks(side: int, count: int = 400, hi: int = 255, seed: int = 1) -> np.ndarray:
    """Smooth blocks with a little noise, some of them flat, some at the ends of the range."""
    rng = np.random.default_rng(seed)
    base = rng.integers(0, hi + 1, (count, 1, 1))
    noise = rng.normal(0, rng.choice([0, 1, 5, 60], (count, 1, 1)), (count, side, side))
    return np.clip(base + noise.round(), 0, hi).astype(np.int32)


@pytest.fixture(params=dct.SIDES)
def pair(request) -> dct.Pair:
    return dct.dct_pair(request.param)


class TestPatterns:
    def test_are_the_papers_coefficients(self, pair):
        """c(i, i+1) and c(i+1, i) with i = 5, 7, 9 of the orthonormal DCT, counted from 1."""
        i = {6: 5, 8: 7, 10: 9}[pair.side]
        for pattern, at in ((pair.first, (i - 1, i)), (pair.second, (i, i - 1))):
            spectrum = dctn(pattern.reshape(pair.side, pair.side) / 2**20, norm="ortho")
            assert spectrum[at] == pytest.approx(1, abs=1e-5)
            spectrum[at] = 0
            assert np.abs(spectrum).max() < 1e-5

    def test_are_the_integers_of_the_format(self, pair):
        table = np.concatenate([pair.first, pair.second]).astype("<i8").tobytes()
        assert hashlib.sha256(table).hexdigest() == TABLES[pair.side]

    def test_exchange_by_transposition(self, pair):
        assert np.array_equal(pair.first.reshape(pair.side, -1).T.ravel(), pair.second)

    def test_of_hadamard_are_orthogonal(self):
        pair = dct.hadamard_pair(8)
        assert pair.first @ pair.second == 0
        assert pair.first @ pair.first == 2**40


class TestReading:
    def test_is_algorithm_2(self, pair):
        i, found = pair.side - 2, blocks(pair.side)
        spectrum = dctn(found, axes=(1, 2), norm="ortho").round(6)
        expected = spectrum[:, i, i + 1] <= spectrum[:, i + 1, i]
        assert np.array_equal(dct.read_bits(pair, found), expected)

    def test_of_nothing_is_nothing(self, pair):
        assert dct.read_bits(pair, blocks(pair.side, 0)).shape == (0,)


class TestMarking:
    @pytest.mark.parametrize("bit", [0, 1])
    @pytest.mark.parametrize(("bits", "signed"), [(8, False), (12, False), (16, True)])
    def test_reads_back_at_every_depth(self, pair, bits, signed, bit):
        lo = -(1 << (bits - 1)) if signed else 0
        hi = lo + (1 << bits) - 1
        found = blocks(pair.side, hi=hi - lo) + lo
        marked = dct.marked(pair, found, bit, round((hi - lo) * 1), (lo, hi))
        assert (dct.read_bits(pair, marked) == bit).all()
        assert marked.min() >= lo
        assert marked.max() <= hi

    @pytest.mark.parametrize("bit", [0, 1])
    def test_is_algorithm_1_where_nothing_has_to_be_raised(self, pair, bit):
        i, threshold = pair.side - 2, 2.55
        found = blocks(pair.side)
        spectrum = dctn(found.astype(float), axes=(1, 2), norm="ortho")
        first, second = spectrum[:, i, i + 1].round(9), spectrum[:, i + 1, i].round(9)
        wrong = first <= second if bit == 0 else first >= second
        spectrum[wrong, i, i + 1] = second[wrong] + (threshold if bit == 0 else 0)
        spectrum[wrong, i + 1, i] = first[wrong] + (threshold if bit == 1 else 0)
        expected = np.clip(np.floor(_inverse(spectrum) + 0.5), *BOUNDS)
        marked = dct.marked(pair, found, bit, 255, BOUNDS)
        readable = dct.read_bits(pair, expected.astype(np.int32)) == bit
        assert readable.mean() > 0.9
        # a pattern in 20 fractional bits may round the other way when a sample lies on the border
        assert (marked[readable] != expected[readable]).mean() < 1e-3

    def test_leaves_blocks_that_read_the_bit_already(self, pair):
        found = blocks(pair.side)
        for bit in (0, 1):
            marked = dct.marked(pair, found, bit, 255, BOUNDS)
            reads = (marked == found).all(axis=(1, 2))
            assert (dct.read_bits(pair, found[reads]) == bit).all()
            assert 0.3 < reads.mean() < 0.7

    def test_ties_are_never_left_standing(self, pair):
        flat = np.full((3, pair.side, pair.side), 100, np.int32)
        for bit in (0, 1):
            assert (dct.marked(pair, flat, bit, 255, BOUNDS) != flat).any(axis=(1, 2)).all()

    def test_raises_the_threshold_for_a_block_that_does_not_read(self, pair):
        """At a thousandth of the threshold rounding eats every bit of a flat block."""
        flat = np.full((1, pair.side, pair.side), 0, np.int32)
        marked = dct.marked(pair, flat, 0, 40, BOUNDS)
        assert dct.read_bits(pair, marked).tolist() == [0]
        assert marked.max() >= 1

    def test_does_not_touch_its_input(self, pair):
        found = blocks(pair.side)
        before = found.copy()
        dct.marked(pair, found, 1, 255, BOUNDS)
        assert np.array_equal(found, before)


def _inverse(spectrum: np.ndarray) -> np.ndarray:
    from scipy.fft import idctn

    return np.asarray(idctn(spectrum, axes=(1, 2), norm="ortho"))


class TestUnmarking:
    def test_undoes_marking_but_for_rounding(self, pair):
        found = np.clip(blocks(pair.side), 20, 235)
        for bit in (0, 1):
            marked = dct.marked(pair, found, bit, 255, BOUNDS)
            altered = (marked != found).any(axis=(1, 2))
            altered &= (marked.min(axis=(1, 2)) > 0) & (marked.max(axis=(1, 2)) < 255)  # nothing was clipped
            bits = np.full(int(altered.sum()), bit, np.uint8)
            back = dct.unmarked(pair, marked[altered], bits, 255, BOUNDS)
            error = np.abs(back - found[altered])
            assert error.max() <= 1
            assert error.mean() < 0.2
            assert np.abs(marked[altered] - found[altered]).mean() > 2 * error.mean()


class TestCut:
    def test_shares_memory_and_leaves_partial_blocks(self):
        samples = np.arange(2 * 20 * 15, dtype=np.int32).reshape(2, 20, 15)
        grid = dct.cut(samples, 6)
        assert grid.shape == (3, 2, 2, 6, 6)
        assert np.array_equal(grid[1, 1], samples[:, 6:12, 6:12])
        grid[0, 0] = -1
        assert (samples[:, :6, :6] == -1).all()
        assert (samples[:, :, 12:] >= 0).all()


class TestPlace:
    @staticmethod
    def chosen(pair: dct.Pair, content: np.ndarray, turns=lambda k, found: np.zeros(found.shape[:2], bool)):
        def stays(which, found):
            return ~turns(which, found)

        return dct.choices(pair, content, 255, BOUNDS, stays)

    def test_puts_bits_in_order(self, pair):
        content = blocks(pair.side, 120).reshape(40, 3, pair.side, pair.side)
        bits = np.random.default_rng(0).integers(0, 2, 100).astype(np.uint8)
        placed = dct.place(self.chosen(pair, content), content, bits)
        assert placed is not None
        assert placed.walked == 34
        assert not placed.switched.any()
        read = dct.read_bits(pair, placed.blocks.reshape(-1, pair.side, pair.side))
        assert np.array_equal(read[:100], bits)
        assert np.array_equal(placed.blocks[33, 1:], content[33, 1:]), "nothing is carried there"

    def test_skips_a_block_that_switches_and_keeps_what_switched_it(self, pair):
        content = blocks(pair.side, 30).reshape(30, 1, pair.side, pair.side)
        bits = np.ones(10, np.uint8)
        changed = dct.read_bits(pair, content[:, 0]) == 0
        third = int(np.flatnonzero(changed)[2])
        chosen = self.chosen(pair, content, lambda k, found: (k == third)[:, None])
        placed = dct.place(chosen, content, bits)
        assert placed is not None
        assert np.flatnonzero(placed.switched).tolist() == ([third] if third < placed.walked else [])
        read = dct.read_bits(pair, placed.blocks[:, 0])[~placed.switched]
        assert read.tolist() == [1] * 10
        if third < placed.walked:
            assert not np.array_equal(placed.blocks[third], content[third])

    def test_has_too_few_blocks(self, pair):
        content = blocks(pair.side, 5).reshape(5, 1, pair.side, pair.side)
        assert dct.place(self.chosen(pair, content), content, np.zeros(6, np.uint8)) is None

    def test_refuses_a_block_that_cannot_carry(self, pair):
        """Bounds of a single value leave a block no way to read both bits."""
        content = np.full((2, 1, pair.side, pair.side), 7, np.int32)
        chosen = dct.choices(pair, content, 255, (7, 7), lambda k, found: np.ones(found.shape[:2], bool))
        with pytest.raises(CapacityError, match="cannot carry"):
            dct.place(chosen, content, np.zeros(1, np.uint8))
