"""The law that blind extraction rests on: whatever embedding does, the map stays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from blessmark.roi import block_map
from blessmark.segment import known, segmenter
from blessmark.types import Frame, Lattice, Rectangle
from blessmark.view import lattice_mask
from tests.phantoms import body_in_air, disc, frame
from tests.strategies import frames


@st.composite
def _phantoms(draw: st.DrawFn) -> Frame:
    """Bodies in air: with a plateau, so that the map is neither all nor nothing."""
    shape = draw(st.integers(70, 200)), draw(st.integers(70, 200))
    plane = body_in_air(shape, air=draw(st.integers(0, 100)), tissue=draw(st.integers(800, 3900)))
    fill = draw(st.sampled_from((None, 0, 4095)))
    if fill is not None:
        plane[~disc(shape)] = fill
    if draw(st.booleans()):
        plane = 4095 - plane.clip(0, 4095)
    padding = draw(st.sampled_from((None, (0, 0), (4095, 4095))))
    image = frame(*[plane] * draw(st.sampled_from((1, 3))), padding=padding)
    return replace(image, forced_roi=draw(st.sampled_from(((), (Rectangle(3, 60, 20, 61),)))))


_IMAGES = st.one_of(_phantoms(), frames(max_side=100))


@pytest.mark.parametrize("name", known())
@given(image=_IMAGES, lattice=st.sampled_from(Lattice), seed=st.integers(0, 2**32 - 1))
def test_lattice_pixels_do_not_reach_the_map(name, image, lattice, seed):
    """map(frame) == map(frame with any lattice pixels)."""
    where = lattice_mask(image.rows, image.cols, lattice)
    anything = np.random.default_rng(seed).integers(image.lo, image.hi + 1, image.samples.shape)
    other = image.with_samples(np.where(where, anything, image.samples).astype(np.int32))

    before = block_map(segmenter(name), image, lattice)

    event(f"ROI: {'all' if before.all() else 'some' if before.any() else 'none'}")
    assert (block_map(segmenter(name), other, lattice) == before).all()


@pytest.mark.parametrize("name", known())
@given(image=_IMAGES, lattice=st.sampled_from(Lattice), shift=st.sampled_from((-32768, -1024, -1, 1, 1000)))
def test_signed_and_unsigned_representations_have_the_same_map(name, image, lattice, shift):
    """Adding a constant to every sample, the range and the padding changes nothing."""
    padding = None if image.padding is None else (image.padding[0] + shift, image.padding[1] + shift)
    other = replace(
        image,
        samples=image.samples + np.int32(shift),
        lo=image.lo + shift,
        hi=image.hi + shift,
        padding=padding,
    )

    assert (block_map(segmenter(name), other, lattice) == block_map(segmenter(name), image, lattice)).all()
