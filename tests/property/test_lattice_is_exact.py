"""Laws of the carrier: what goes in comes out, nothing else moves, nothing leaves its range."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from blessmark.carrier.lattice import NO_DOWN, Bands, fits, insert, remove
from blessmark.carrier.sites import Window, find_sites, predict_again
from blessmark.types import Lattice
from blessmark.view import invariant_view, lattice_mask
from tests.strategies import frames, maps


@st.composite
def _bands(draw: st.DrawFn) -> Bands:
    expansion = draw(st.sampled_from((1, 2, 3, 4, 8)))
    up = draw(st.integers(-2, 2))
    down = draw(st.sampled_from((up - 1, up - 2, NO_DOWN)))
    z_up, z_down = (expansion << draw(st.integers(0, 7)) for _ in "ud")
    return Bands(up, down, expansion, z_up, z_down)


@given(st.data(), frames(min_side=8), _bands(), st.sampled_from(Lattice))
def test_bits_come_out_and_every_sample_comes_back(data, frame, bands, lattice):
    """remove(insert(frame, bits)) == (bits, frame), from the marked frame alone."""
    if frame.bounds[0] >= frame.bounds[1]:
        return  # nothing but padding
    roi = data.draw(maps(frame))
    predictor = data.draw(st.sampled_from((0, 1, 2, 3, 4, 5) if lattice is Lattice.QUARTER else (0, 2, 5)))
    words = np.random.default_rng(1).integers(0, 2**32, (frame.rows, frame.cols), dtype=np.uint32)
    window = Window(0, 0, frame.rows, frame.cols)
    sites = find_sites(frame, roi, window, lattice, 0, words)
    predicted = predict_again(frame, sites, lattice, predictor)
    original = sites.values(frame.planes)
    start = data.draw(st.integers(0, max(0, original.size // 4)))
    need = data.draw(st.integers(1, max(1, original.size // 4)))
    end, *_ = fits(original, predicted, frame.plane_bounds, bands, start, need)
    event(f"fits: {end >= 0}")
    if end < 0:
        return  # told before anything was touched

    bits = np.random.default_rng(2).integers(0, 2, need).astype(np.uint8)
    values = original.copy()
    assert insert(values, predicted, frame.plane_bounds, bands, start, bits) == end
    received = frame.with_planes(sites.put(frame.planes, values))
    marked = received.samples

    changed = marked != frame.samples
    assert not changed[:, ~lattice_mask(frame.rows, frame.cols, lattice)].any()
    assert np.abs(marked - frame.samples).max() <= bands.expansion
    assert marked.min() >= frame.lo
    assert marked.max() <= frame.hi
    if frame.padding is not None:
        low, high = frame.padding
        was, now = ((a >= low) & (a <= high) for a in (frame.samples, marked))
        assert (was == now).all()
        assert not changed[was].any()

    again = find_sites(received, roi, window, lattice, 0, words)
    assert (again.index == sites.index).all()
    taken = again.values(received.planes)
    found, ends = remove(
        taken, predict_again(received, again, lattice, predictor), received.plane_bounds, bands, start, need
    )
    assert (found == bits).all()
    assert (taken == original).all()
    assert ends[-1] == end


@given(frames(), st.sampled_from(Lattice), st.integers(0, 2**32 - 1))
def test_the_view_forgets_the_lattice(frame, lattice, seed):
    """Whatever the lattice pixels hold, the view is the same."""
    noise = np.random.default_rng(seed).integers(frame.lo, frame.hi + 1, frame.samples.shape)
    mask = lattice_mask(frame.rows, frame.cols, lattice)
    other = frame.with_samples(np.where(mask, noise, frame.samples).astype(np.int32))
    assert (invariant_view(frame, lattice).samples == invariant_view(other, lattice).samples).all()


@pytest.mark.parametrize("lattice", Lattice)
def test_order_follows_complexity_then_the_key(lattice):
    """On a flat image every site is equally smooth, and the keyed words alone decide."""
    from blessmark.types import Frame

    frame = Frame(np.full((1, 32, 32), 100, np.int32), 0, 255)
    roi = np.zeros((4, 4), bool)
    window = Window(0, 0, 32, 32)
    orders = []
    for seed in (1, 2):
        words = np.random.default_rng(seed).integers(0, 2**32, (32, 32), dtype=np.uint32)
        sites = find_sites(frame, roi, window, lattice, 0, words)
        picked = words.reshape(-1)[sites.index] >> 2
        assert (np.diff(picked.astype(np.int64)) >= 0).all()
        orders.append(sites.index)
    assert not np.array_equal(*orders)
    assert set(orders[0]) == set(orders[1])
