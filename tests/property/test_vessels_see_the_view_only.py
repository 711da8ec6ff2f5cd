"""Law: the vessel map is the same whatever the lattice pixels hold, on both lattices and at every depth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blessmark.segment.vessels import packaged
from blessmark.types import Lattice
from blessmark.view import invariant_view, lattice_mask
from tests.strategies import frames

SEGMENTER = packaged()


@pytest.mark.parametrize("lattice", Lattice)
@given(frame=frames(max_side=80), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=12, deadline=None)
def test_lattice_pixels_do_not_reach_the_map(lattice, frame, seed):
    mask = lattice_mask(frame.rows, frame.cols, lattice)
    other = frame.samples.copy()
    rng = np.random.default_rng(seed)
    other[:, mask] = rng.integers(frame.lo, frame.hi + 1, other[:, mask].shape)

    before = SEGMENTER.roi_blocks(invariant_view(frame, lattice))
    after = SEGMENTER.roi_blocks(invariant_view(frame.with_samples(other), lattice))

    assert before.shape == (frame.rows // 8, frame.cols // 8)
    assert np.array_equal(before, after)
