"""Whatever the image: what the `dct` carrier embeds is read, proves every sample, and spares the ROI."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from blessmark.carrier.block_maps import maps_for
from blessmark.carrier.dct import SIDES, cut
from blessmark.embed_dct import embed_dct
from blessmark.errors import CapacityError
from blessmark.segment.anatomy import Anatomy
from blessmark.segment.whole import Whole
from blessmark.types import BlockSettings, Finding, Frame, Segmenter
from blessmark.verify import verify
from tests.strategies import ABOUT, OTHER_KEY, RING, Drawn, Ring, bodies, frames, maps


def check(frame: Frame, segmenter: Segmenter, side: int, data: st.DataObject) -> None:
    try:
        done = embed_dct(frame, ABOUT, RING, segmenter, BlockSettings(side))
    except CapacityError:
        return
    marked = done.frame
    assert frame.lo <= marked.samples.min()
    assert marked.samples.max() <= frame.hi
    if frame.padding is not None:
        before, after = (_padding(frame, each.samples) for each in (frame, marked))
        assert np.array_equal(before, after)
    block_map = maps_for((segmenter,), (side,))[0]
    free, again = block_map.bound(frame).free, block_map.bound(marked).free
    assert np.array_equal(free, again)
    changed = cut((marked.samples != frame.samples).astype(np.int32), side).any(axis=(2, 3, 4))
    assert free[changed].all()
    verdict = verify(marked, RING, (segmenter,))
    assert verdict.finding is Finding.AUTHENTIC
    assert verdict.exact or verdict.approximate
    assert verify(marked, Ring(OTHER_KEY), (segmenter,)).finding is Finding.UNMARKED
    _check_one_change(marked, segmenter, data)


def _check_one_change(marked: Frame, segmenter: Segmenter, data: st.DataObject) -> None:
    """One sample, one grey level: the image is not authentic any more."""
    at = data.draw(st.integers(0, marked.samples.size - 1))
    samples = marked.samples.copy()
    samples.flat[at] += 1 if samples.flat[at] < marked.hi else -1
    verdict = verify(marked.with_samples(samples), RING, (segmenter,))
    assert verdict.finding in (Finding.PIXELS_ALTERED, Finding.DAMAGED, Finding.UNMARKED)
    assert not verdict.exact
    assert not verdict.approximate


def _padding(frame: Frame, samples: np.ndarray) -> np.ndarray:
    assert frame.padding is not None
    return np.asarray((samples >= frame.padding[0]) & (samples <= frame.padding[1]))


@settings(max_examples=25)
@given(st.data())
def test_with_any_content(data):
    frame = data.draw(frames(min_side=120, max_side=220))
    roi = data.draw(maps(frame))
    segmenter = data.draw(st.sampled_from((Whole(), Drawn(roi))))
    check(frame, segmenter, data.draw(st.sampled_from(SIDES)), data)


@settings(max_examples=15)
@given(st.data())
def test_with_anatomy(data):
    frame = data.draw(bodies(min_side=160, max_side=260))
    check(frame, Anatomy(), data.draw(st.sampled_from(SIDES)), data)
