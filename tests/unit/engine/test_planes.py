"""Planes of 16 bits hold every sample that there is, and the engine's own way never makes int32 of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from blessmark import planes, types
from blessmark.embed import embed
from blessmark.planes import (
    cut_out,
    extremes,
    little_endian,
    low_words,
    narrowed,
    of_words,
    same,
    shift_of,
    widened,
)
from blessmark.portrait import portrait
from blessmark.segment import segmenter
from blessmark.types import About, Frame, Lattice, View
from blessmark.view import invariant_view
from tests.phantoms import body_in_air, frame
from tests.strategies import RING

#: every range that a header can state, signed and not
RANGES = [(-(1 << (bits - 1)), (1 << (bits - 1)) - 1) for bits in range(8, 17)] + [
    (0, (1 << bits) - 1) for bits in range(8, 17)
]


def samples(lo: int, hi: int) -> np.ndarray:
    """Both ends of the range and what lies between."""
    found = np.random.default_rng(hi - lo).integers(lo, hi + 1, (2, 9, 13)).astype(np.int32)
    found[0, 0, :2] = lo, hi
    return found


class TestPlanes:
    @pytest.mark.parametrize(("lo", "hi"), RANGES)
    def test_hold_every_sample_of_a_range(self, lo, hi):
        held = narrowed(samples(lo, hi), shift_of(lo, hi))
        assert held.dtype == np.int16
        assert (widened(held, shift_of(lo, hi)) == samples(lo, hi)).all()

    @pytest.mark.parametrize(("lo", "hi"), RANGES)
    def test_have_the_lowest_16_bits_of_samples(self, lo, hi):
        shift = shift_of(lo, hi)
        words = low_words(narrowed(samples(lo, hi), shift), shift)
        assert (words == (samples(lo, hi) & 0xFFFF)).all()
        assert bytes(little_endian(words)) == (samples(lo, hi) & 0xFFFF).astype("<u2").tobytes()

    @pytest.mark.parametrize(("lo", "hi"), RANGES)
    @pytest.mark.parametrize("order", "<>")
    def test_are_made_of_pixel_words(self, lo, hi, order):
        kind, size = "i" if lo < 0 else "u", 1 if hi - lo < 256 else 2
        words = samples(lo, hi).astype(f"{order}{kind}{size}")
        held = of_words(words, shift_of(lo, hi))
        assert (held == narrowed(samples(lo, hi), shift_of(lo, hi))).all()
        assert held.flags.c_contiguous
        assert not np.shares_memory(held, words)

    @pytest.mark.parametrize(("lo", "hi"), RANGES)
    def test_have_extremes(self, lo, hi):
        held = narrowed(samples(lo, hi), shift_of(lo, hi))
        assert extremes(held) == (held.min(), held.max())
        assert extremes(held[:, :0].copy()) == (0, 0)
        assert extremes(held[1:, 3:, :1].copy()) == (held[1:, 3:, :1].min(), held[1:, 3:, :1].max())

    @pytest.mark.parametrize(("lo", "hi"), RANGES)
    def test_are_cut_into_rows(self, lo, hi):
        boxes, shift = np.array([(0, 0, 9, 13), (2, 5, 8, 6), (8, 0, 9, 4)]), shift_of(lo, hi)
        rows = np.full((3, 2 + 2 * 9 * 13 + 3), 7, np.uint16)
        cut_out(narrowed(samples(lo, hi), shift), shift, boxes, 2, rows)
        assert (rows[:, :2] == 7).all()
        for row, (top, left, bottom, right) in zip(rows[:, 2:], boxes.tolist(), strict=True):
            own = (samples(lo, hi)[:, top:bottom, left:right] & 0xFFFF).reshape(-1)
            assert (row[: own.size] == own).all()
            assert not row[own.size :].any()

    def test_are_contiguous_whatever_they_are_made_of(self):
        interleaved = np.moveaxis(np.arange(60, dtype=np.uint8).reshape(4, 5, 3), 2, 0)
        assert of_words(interleaved, 0).flags.c_contiguous
        assert (narrowed(interleaved.astype(np.int32)[:, ::-1], 0) == interleaved[:, ::-1]).all()

    @pytest.mark.parametrize("value", [-1, 65536, -(1 << 31), (1 << 31) - 1])
    def test_refuse_what_they_cannot_hold(self, value):
        with pytest.raises(ValueError, match=r"outside 0\.\.65535"):
            narrowed(np.full((1, 2, 2), value, np.int32), shift_of(0, 65535))

    def test_are_the_same_only_if_every_sample_is(self):
        one = np.arange(70, dtype=np.int16).reshape(1, 7, 10)
        assert same(one, one.copy())
        assert not same(one, one[:, :6].copy())
        for at in range(70):
            other = one.copy()
            other.reshape(-1)[at] ^= 1 << (at % 16 if at % 16 < 15 else 0)
            assert not same(one, other)


class TestFrames:
    @pytest.mark.parametrize(
        "kind", [Frame.of_planes, lambda held, *range_: Frame(widened(held, 0), *range_)]
    )
    def test_give_either_kind_of_samples(self, kind):
        held = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
        found = kind(held, -50, 50)
        assert (found.shape, found.channels, found.rows, found.cols) == ((2, 3, 4), 2, 3, 4)
        assert (found.planes == held).all()
        assert (found.samples == held).all()
        assert found.samples.dtype == np.int32

    def test_shift_bounds_and_padding_alike(self):
        found = Frame(np.full((1, 2, 2), 40_000, np.int32), 0, 65535, padding=(0, 100))
        assert (found.shift, found.plane_bounds, found.plane_padding) == (
            32768,
            (-32667, 32767),
            (-32768, -32668),
        )
        assert (found.planes == 40_000 - 32768).all()
        assert frame(body_in_air((8, 8))).plane_padding is None

    def test_are_replaced_whole(self):
        held = Frame.of_planes(np.ones((1, 2, 2), np.int16), 0, 255)
        assert (replace(held, number=7).planes == 1).all()
        assert (held.with_planes(held.planes + np.int16(1)).samples == 2).all()
        view = View.of_planes(held.planes, Lattice.QUARTER, 0, 255, None)
        assert (replace(view, samples=view.samples + 1).planes == 2).all()

    def test_show_what_was_written_to_samples_before_they_are_used(self):
        """As into an array of one's own: what somebody blacks out must not be embedded into and stored."""
        found = Frame.of_planes(np.ones((1, 4, 4), np.int16), 0, 65535)
        assert found.planes[0, 0, 0] == 1
        found.samples[0, 0] = 7
        assert (found.planes[0, 0] == 7 - 32768).all()
        assert (found.samples[0, 1:] == 32769).all()
        assert found.samples is found.samples
        found.planes  # noqa: B018 - and asked for again
        assert found.shape == (1, 4, 4)

    def test_view_keeps_its_planes_whatever_a_segmenter_writes(self):
        view = View.of_planes(np.ones((1, 4, 4), np.int16), Lattice.QUARTER, 0, 255, None)
        view.samples[:] = 0
        assert (view.planes == 1).all()

    def test_are_planes_of_16_bits(self):
        with pytest.raises(ValueError, match="int16"):
            Frame.of_planes(np.ones((1, 2, 2), np.int32), 0, 255)
        with pytest.raises(ValueError, match="shape"):
            Frame.of_planes(np.ones((1, 2, 2), np.int16), 0, 255).with_planes(np.ones((1, 2, 3), np.int16))
        with pytest.raises(AttributeError, match="sample"):
            _ = Frame.of_planes(np.ones((1, 2, 2), np.int16), 0, 255).sample  # type: ignore[attr-defined]


def test_no_samples_of_32_bits_are_made_on_the_way(monkeypatch):
    """They would be twice as large, and are what the caches have no room for."""
    whole = frame(body_in_air())
    image = Frame.of_planes(whole.planes, whole.lo, whole.hi)
    for module in (planes, types):
        monkeypatch.setattr(module, "widened", None)
    done = embed(image, About("1.2.3"), RING, segmenter("anatomy"))
    assert "samples" not in done.frame.__dict__
    assert "samples" not in image.__dict__
    portrait(done.frame)
    invariant_view(done.frame, Lattice.QUINCUNX)
