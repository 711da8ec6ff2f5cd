"""Laws of the whole engine: `embed` refuses, or gives a frame that is the original but for a record."""

from __future__ import annotations

import itertools
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from blessmark.embed import allowed_change, describe, embed
from blessmark.errors import CapacityError
from blessmark.payload import crypto, record
from blessmark.roi import block_map, pixel_mask
from blessmark.segment.anatomy import Anatomy
from blessmark.types import About, Embedded, Finding, Frame, Framing, Lattice, Segmenter, Tier
from blessmark.verify import verify
from blessmark.view import lattice_mask
from tests.strategies import (
    ABOUT,
    KEY,
    OTHER_KEY,
    RING,
    ROOMY,
    Drawn,
    Ring,
    bodies,
    frames,
    maps,
    scarce_maps,
)

FRAMINGS = ((Framing.TILE,), (Framing.GLOBAL,), (Framing.TILE, Framing.GLOBAL))
CAPS = (None, 1, 2, 4)
#: T of the widest bands, whatever the policy allows
WIDEST = 4


def laws(examples: int) -> settings:
    """Settings of a law; compiling on first use is slow and no fault of it."""
    return settings(max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def abouts(draw: st.DrawFn) -> About:
    """The record of an instance: from next to nothing to more than a small image can hold."""
    extra = draw(st.sampled_from((0, 0, 0, 60, 700)))
    fields = dict(ABOUT.fields)
    if extra:
        fields[0x00081030] = np.random.default_rng(extra).integers(1, 256, extra).astype(np.uint8).tobytes()
    return replace(
        ABOUT, fields=fields, frames=draw(st.integers(1, 600)), time_s=draw(st.integers(0, 2**32 - 1))
    )


def check(frame: Frame, done: Embedded, about: About, segmenter: Segmenter, cap: int | None) -> None:
    """Everything that must hold between a frame and its marked version."""
    marked, receipt = done.frame, done.receipt
    roi = block_map(segmenter, frame, receipt.lattice)
    changed = marked.samples != frame.samples

    assert not changed[:, pixel_mask(roi, frame.rows, frame.cols)].any()
    assert not changed[:, ~lattice_mask(frame.rows, frame.cols, receipt.lattice)].any()
    for drawn in (segmenter, Anatomy()):
        again = block_map(drawn, marked, receipt.lattice)
        assert np.array_equal(again, block_map(drawn, frame, receipt.lattice))

    most = int(np.abs(marked.samples - frame.samples).max())
    allowed = allowed_change(frame, receipt.lattice) if cap is None else cap
    assert most <= min(WIDEST, allowed)
    assert receipt.max_change == most
    assert receipt.changed_samples == np.count_nonzero(changed)
    assert marked.samples.min() >= frame.lo
    assert marked.samples.max() <= frame.hi
    check_padding(frame, marked)

    header = {**about.fields, 0x00080005: about.charset}
    verdict = verify(marked, RING, (segmenter,), header=header)
    assert verdict.finding is Finding.AUTHENTIC
    assert verdict.exact
    assert verdict.restored is not None
    assert np.array_equal(verdict.restored.samples, frame.samples)
    check_record(frame, done, about, segmenter, verdict.record)


def check_padding(frame: Frame, marked: Frame) -> None:
    """No padding sample changed, none appeared, none vanished."""
    if frame.padding is None:
        return
    low, high = frame.padding
    was, now = ((s >= low) & (s <= high) for s in (frame.samples, marked.samples))
    assert np.array_equal(was, now)
    assert np.array_equal(marked.samples[was], frame.samples[was])


def check_record(
    frame: Frame, done: Embedded, about: About, segmenter: Segmenter, read: record.Record | None
) -> None:
    """The record that arrives is the one that was sent, less what its tier leaves out."""
    sent = record.reduce(describe(frame, about, segmenter, crypto.derive(KEY)), done.receipt.tier)
    if not done.receipt.localised:
        sent = replace(sent, digests=b"")
    assert read == sent


def check_locked(done: Embedded, segmenter: Segmenter) -> None:
    """Neither another key nor another frame number opens the record."""
    for frame, ring in (
        (done.frame, Ring(OTHER_KEY)),
        (replace(done.frame, number=done.frame.number + 1), RING),
    ):
        verdict = verify(frame, ring, (segmenter,))
        assert verdict.record is None
        assert not verdict.exact
        assert verdict.finding is Finding.UNMARKED


@laws(120)
@given(
    st.data(),
    st.one_of(frames(8, 200), frames(64, 200, ROOMY), frames(64, 200, ROOMY)),
    abouts(),
    st.sampled_from(FRAMINGS),
    st.sampled_from(CAPS),
)
def test_any_frame_with_any_map(data, frame, about, framings, cap):
    """Every depth, sign, size and content; the map says nothing about the picture."""
    segmenter = Drawn(data.draw(st.one_of(maps(frame), scarce_maps(frame))))
    before = frame.samples.copy()
    try:
        done = embed(frame, about, RING, segmenter, max_change=cap, framings=framings)
    except CapacityError:
        event("does not fit")
        return
    finally:
        assert np.array_equal(frame.samples, before)
    event(f"{done.receipt.tier.name} {done.receipt.framing} {done.receipt.lattice.name}")
    assert done.receipt.framing in framings
    check(frame, done, about, segmenter, cap)
    check_locked(done, segmenter)


@laws(50)
@given(bodies(100, 260), st.sampled_from(FRAMINGS))
def test_a_body_in_air_with_the_map_that_anatomy_draws(frame, framings):
    """The segmenter draws its map from the marked frame, as a receiver does."""
    before = frame.samples.copy()
    try:
        done = embed(frame, ABOUT, RING, Anatomy(), framings=framings)
    except CapacityError:
        event("does not fit")
        return
    finally:
        assert np.array_equal(frame.samples, before)
    event(f"{done.receipt.tier.name} {done.receipt.framing} {done.receipt.lattice.name}")
    check(frame, done, ABOUT, Anatomy(), None)


def test_every_step_of_the_ladder():
    """A law that no example reaches proves nothing: here each framing, lattice and tier must be reached."""
    samples = np.random.default_rng(5).normal(2000, 0.8, (1, 192, 192)).round().astype(np.int32)
    frame = Frame(samples, 0, 4095, number=3)
    about = replace(ABOUT, fields={**ABOUT.fields, 0x00081030: bytes(range(33, 113))})
    reached = set()
    for blocks, framing, lattice in itertools.product(range(20, 480, 20), FRAMINGS[:2], Lattice):
        roi = np.ones((24, 24), np.bool_)
        roi.reshape(-1)[: blocks // (1 + lattice)] = False
        done = embed_on(frame, about, roi, framing[0], lattice)
        if done is not None:
            check(frame, done, about, Drawn(roi), 1)
            reached.add((done.receipt.tier, framing[0], lattice))
    assert reached == set(itertools.product(Tier, (Framing.TILE, Framing.GLOBAL), Lattice))


def embed_on(
    frame: Frame, about: About, roi: np.ndarray, framing: Framing, lattice: Lattice
) -> Embedded | None:
    """Embed on one rung only, whichever the ladder would take."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["blessmark.embed"], "LADDER", ((framing, lattice),))
        try:
            return embed(frame, about, RING, Drawn(roi), max_change=1)
        except CapacityError:
            return None
