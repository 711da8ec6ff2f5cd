"""Hypothesis strategies for frames, maps and keys: every depth, sign, size and nasty content."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from blessmark.types import About, BoolArray, Frame, SiteKey

KEY = SiteKey(7, bytes(range(32)))
OTHER_KEY = SiteKey(8, bytes(range(1, 33)))


class Ring:
    """A key ring in memory."""

    def __init__(self, *keys: SiteKey) -> None:
        self.keys = keys

    @property
    def current(self) -> SiteKey:
        return self.keys[0]


RING = Ring(KEY)
ABOUT = About(
    sop_instance_uid="2.25.1234567890",
    frames=1,
    time_s=1_790_000_000,
    node="test",
    charset=b"ISO_IR 192",
    fields={0x00100010: b"Phantom^Test", 0x00100020: b"P-0001", 0x00080018: b"2.25.1234567890"},
)


class Drawn:
    """A segmenter whose map was drawn by the test; the view is not looked at."""

    reach_px = 0

    def __init__(self, roi: BoolArray, id: str = "drawn/1") -> None:
        self._roi = roi
        self.id = id

    def roi_blocks(self, view: object) -> BoolArray:
        return self._roi


def _content(
    rng: np.random.Generator, kind: str, shape: tuple[int, int, int], lo: int, hi: int
) -> np.ndarray:
    middle = (lo + hi) / 2
    if kind == "noise":
        return rng.integers(lo, hi + 1, shape)
    if kind == "low":
        return np.full(shape, lo)
    if kind == "high":
        return np.full(shape, hi)
    if kind == "salt and pepper":
        return np.where(rng.random(shape) < 0.1, hi, lo)
    if kind == "near the floor":
        return np.clip(lo + np.abs(rng.normal(0, 1.5, shape)).round(), lo, hi)
    if kind == "soft":
        return np.clip(rng.normal(middle, max(1.0, (hi - lo) / 200), shape).round(), lo, hi)
    if kind == "fine":
        return np.clip(rng.normal(middle, 0.8, shape).round(), lo, hi)
    ramp = np.add.outer(np.arange(shape[1]), np.arange(shape[2])) % (hi - lo + 1)
    return np.clip(lo + ramp + rng.integers(-1, 2, shape), lo, hi)


#: Contents of every kind; `ROOMY` ones usually have room for a record.
CONTENTS = ("noise", "low", "high", "salt and pepper", "near the floor", "soft", "fine", "ramp")
ROOMY = ("low", "high", "near the floor", "fine")


@st.composite
def frames(
    draw: st.DrawFn, min_side: int = 1, max_side: int = 150, contents: tuple[str, ...] = CONTENTS
) -> Frame:
    """Frames of 8 to 16 bits, signed or not, grey or colour, odd sizes, with or without padding."""
    bits = draw(st.integers(8, 16))
    lo = draw(st.sampled_from((0, -(1 << (bits - 1)))))
    hi = lo + (1 << bits) - 1
    shape = (
        draw(st.sampled_from((1, 1, 3))),
        draw(st.integers(min_side, max_side)),
        draw(st.integers(min_side, max_side)),
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    samples = _content(rng, draw(st.sampled_from(contents)), shape, lo, hi).astype(np.int32)
    padding = None
    if draw(st.booleans()):
        value = draw(st.sampled_from((lo, hi, lo + 5, int(samples[0, 0, 0]))))
        padding = (value, min(hi, value + draw(st.sampled_from((0, 3)))))
        samples[:, : shape[1] // 3, : shape[2] // 2] = value
    return Frame(samples, lo, hi, padding, number=draw(st.integers(1, 500)))


@st.composite
def maps(draw: st.DrawFn, frame: Frame) -> BoolArray:
    """bool [rows // 8, cols // 8] with a random share of ROI blocks."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return rng.random((frame.rows // 8, frame.cols // 8)) < draw(st.sampled_from((0.0, 0.2, 0.7)))


@st.composite
def scarce_maps(draw: st.DrawFn, frame: Frame) -> BoolArray:
    """bool [rows // 8, cols // 8]: all ROI but for at most 120 blocks, so that the ladder is walked down."""
    shape = frame.rows // 8, frame.cols // 8
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    roi = np.ones(shape[0] * shape[1], np.bool_)
    roi[rng.permutation(roi.size)[: draw(st.integers(0, 120))]] = False
    return roi.reshape(shape)


@st.composite
def bodies(draw: st.DrawFn, min_side: int = 64, max_side: int = 200) -> Frame:
    """Frames that show a body in air, as `anatomy` expects them: some with a fill around, some inverted."""
    bits = draw(st.integers(8, 16))
    lo = draw(st.sampled_from((0, -(1 << (bits - 1)))))
    hi = lo + (1 << bits) - 1
    shape = (
        draw(st.sampled_from((1, 1, 3))),
        draw(st.integers(min_side, max_side)),
        draw(st.integers(min_side, max_side)),
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    air_noise = draw(st.sampled_from((0, 1, 3)))
    samples = np.abs(rng.normal(0, air_noise, shape)) if air_noise else np.zeros(shape)
    y, x = np.ogrid[-1 : 1 : shape[1] * 1j, -1 : 1 : shape[2] * 1j]
    body = (y / draw(st.floats(0.2, 0.7))) ** 2 + (x / draw(st.floats(0.2, 0.7))) ** 2 < 1
    texture = rng.normal((hi - lo) / 2, (hi - lo) / 40, shape)
    values = np.clip(np.where(body, texture, samples), 0, hi - lo).astype(np.int32)
    values = lo + (hi - lo - values if draw(st.booleans()) else values)
    padding = draw(st.sampled_from((None, None, (lo, lo), (hi, hi))))
    return Frame(values.astype(np.int32), lo, hi, padding, number=draw(st.integers(1, 500)))
