"""A hit of 160 x 160 pixels anywhere costs the tiles that it touches and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from blessmark.embed import embed
from blessmark.segment.anatomy import Anatomy
from blessmark.types import Finding, Frame
from blessmark.verify import verify
from tests.phantoms import body_in_air, circular_ct, frame
from tests.strategies import ABOUT, RING

SIDE = 160
AIR = frame(body_in_air((512, 512)))
CIRCLE = frame(circular_ct((512, 512)), lo=-32768, hi=32767)
PADDED = frame(circular_ct((512, 512)), lo=-32768, hi=32767, padding=(-2000, -2000))
MARKED = [(image, embed(image, ABOUT, RING, Anatomy()).frame) for image in (AIR, CIRCLE, PADDED)]
HITS = st.tuples(
    st.sampled_from(range(3)),
    st.integers(0, 512 - SIDE),
    st.integers(0, 512 - SIDE),
    st.sampled_from(("least", "most", "noise")),
)


def hit(image: Frame, top: int, left: int, kind: str) -> Frame:
    low, high = int(image.samples.min()), int(image.samples.max())
    patch = {"least": low, "most": high}.get(kind)
    if patch is None:
        patch = np.random.default_rng(top * 512 + left).integers(low, high + 1, (SIDE, SIDE))
    samples = image.samples.copy()
    samples[0, top : top + SIDE, left : left + SIDE] = patch
    return image.with_samples(samples)


def touched(top: int, left: int) -> set[tuple[int, int]]:
    return {
        (row, col)
        for row in range(top // 64, (top + SIDE - 1) // 64 + 1)
        for col in range(left // 64, (left + SIDE - 1) // 64 + 1)
    }


def tiles_that_differ(one: Frame, other: Frame) -> set[tuple[int, int]]:
    return {tuple(tile) for tile in (np.argwhere(one.samples[0] != other.samples[0]) // 64).tolist()}


@given(where=HITS)
@settings(max_examples=6)
def test_the_record_survives_and_no_hit_passes(where):
    number, top, left, kind = where
    original, marked = MARKED[number]
    struck = hit(marked, top, left, kind)

    verdict = verify(struck, RING, [Anatomy()])

    outside = tiles_that_differ(verdict.restored, original) - touched(top, left)
    event(f"tiles lost beside the hit: {len(outside)}")
    assert verdict.finding is Finding.PIXELS_ALTERED
    assert verdict.record.fields == ABOUT.fields
    assert len(outside) <= 2
    assert len(set(verdict.evidence.altered_tiles) - touched(top, left)) <= 2


@pytest.mark.slow
def test_outside_the_hit_all_is_restored_in_97_of_100_hits():
    rng = np.random.default_rng(7)
    exact = 0
    for number in range(100):
        original, marked = MARKED[number % 3]
        top, left = (int(value) for value in rng.integers(0, 512 - SIDE + 1, 2))
        kind = ("least", "most", "noise")[number // 3 % 3]
        verdict = verify(hit(marked, top, left, kind), RING, [Anatomy()])
        exact += tiles_that_differ(verdict.restored, original) <= touched(top, left)

    assert exact >= 97
