"""The invariant view, against its definition written pixel by pixel."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from blessmark.types import Frame, IntArray, Lattice
from blessmark.view import invariant_view, lattice_mask, shows

SHAPES = ((1, 1), (1, 7), (7, 1), (2, 2), (3, 3), (5, 8), (8, 5), (16, 17), (33, 32))


def on_lattice(r: int, c: int, lattice: Lattice) -> bool:
    return (r % 2 == 1 and c % 2 == 1) if lattice is Lattice.QUARTER else (r + c) % 2 == 1


def by_definition(plane: IntArray, lattice: Lattice) -> IntArray:
    rows, cols = plane.shape
    view = plane.copy()
    for r in range(rows):
        for c in range(cols):
            if not on_lattice(r, c, lattice):
                continue
            if 0 < r < rows - 1 and 0 < c < cols - 1:
                view[r, c] = (plane[r - 1, c] + plane[r + 1, c] + plane[r, c - 1] + plane[r, c + 1] + 2) >> 2
            else:
                view[r, c] = plane[r, c - 1] if c > 0 else plane[r - 1, c]
    return view


@pytest.mark.parametrize("lattice", Lattice)
@pytest.mark.parametrize("shape", SHAPES)
def test_follows_its_definition(shape, lattice):
    samples = np.random.default_rng(3).integers(-2048, 2048, (3, *shape)).astype(np.int32)
    view = invariant_view(Frame(samples, -2048, 2047), lattice)
    assert np.array_equal(view.samples, [by_definition(plane, lattice) for plane in samples])


@pytest.mark.parametrize("lattice", Lattice)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_mask_names_the_lattice(shape, lattice):
    mask = lattice_mask(*shape, lattice)
    assert mask.dtype == np.bool_
    assert mask.tolist() == [[on_lattice(r, c, lattice) for c in range(shape[1])] for r in range(shape[0])]


@pytest.mark.parametrize("lattice", Lattice)
def test_keeps_what_a_segmenter_may_know_and_leaves_the_frame_alone(lattice):
    samples = np.arange(64, dtype=np.int32).reshape(1, 8, 8)
    frame = Frame(samples.copy(), 0, 255, padding=(0, 0))
    view = invariant_view(frame, lattice)
    assert (view.lo, view.hi, view.padding, view.lattice) == (0, 255, (0, 0), lattice)
    assert np.array_equal(frame.samples, samples)


def test_means_stay_in_range_at_both_limits():
    for value in (-32768, 32767, 0, 65535):
        frame = Frame(np.full((1, 9, 9), value, np.int32), min(value, 0), max(value, 1))
        assert (invariant_view(frame, Lattice.QUINCUNX).samples == value).all()


@pytest.mark.parametrize("lattice", Lattice)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_view_is_known_again_whatever_the_lattice_holds_and_no_other_is(shape, lattice):
    samples = np.random.default_rng(4).integers(0, 4000, (2, *shape)).astype(np.int32)
    frame = Frame(samples, 0, 4095)
    view, marked = invariant_view(frame, lattice), samples.copy()
    marked[:, lattice_mask(*shape, lattice)] += 1
    assert shows(frame.with_samples(marked), view)
    for place in np.ndindex(samples.shape):
        other = replace(view, samples=view.samples.copy())
        other.samples[place] ^= 1
        assert not shows(frame, other)
    assert not shows(Frame(samples[:1], 0, 4095), view)
