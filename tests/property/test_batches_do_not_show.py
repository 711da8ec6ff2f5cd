"""Law: the vessel map of a frame is the same alone, among others, and whatever the others are."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from blessmark.segment.batch import drawn_ahead
from blessmark.segment.engine import Wish, start
from blessmark.segment.integer import load
from blessmark.segment.vessels import Vessels, packaged
from blessmark.types import Lattice
from blessmark.view import invariant_view
from tests.strategies import frames

REFERENCE = packaged()
ON_ENGINE = Vessels(start(load("vessels"), Wish(batch_samples=700)).runtime)


@given(given_frames=st.lists(frames(max_side=80), min_size=1, max_size=5), count=st.integers(1, 6))
@settings(max_examples=25, deadline=None)
def test_a_frame_has_the_map_that_it_has_alone(given_frames, count):
    for segmenter in (REFERENCE, ON_ENGINE):
        for frame, ahead in drawn_ahead(given_frames, segmenter, count):
            for lattice in Lattice:
                view = invariant_view(frame, lattice)
                assert np.array_equal(ahead.roi_blocks(view), REFERENCE.roi_blocks(view))


@given(frame=frames(max_side=64), others=st.lists(st.integers(0, 255), min_size=1, max_size=4))
@settings(max_examples=25, deadline=None)
def test_frames_of_one_size_go_through_the_network_together(frame, others):
    """A multi-frame instance: the same shape again and again."""
    rng = np.random.default_rng(others)
    series = [frame] + [
        frame.with_samples(rng.integers(frame.lo, frame.hi + 1, frame.samples.shape, dtype=np.int32))
        for _ in others
    ]
    for one, ahead in drawn_ahead(series, ON_ENGINE):
        view = invariant_view(one, Lattice.QUARTER)
        assert np.array_equal(ahead.roi_blocks(view), REFERENCE.roi_blocks(view))
