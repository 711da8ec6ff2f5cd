"""What a portrait keeps of a frame, whatever its size, and how it travels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from blessmark.portrait import LENGTH, SIDE, Portrait, portrait
from blessmark.types import Frame
from tests.phantoms import body_in_air, frame


def of(samples: np.ndarray, lo: int = 0, hi: int = 4095) -> Portrait:
    return portrait(Frame(samples.astype(np.int32), lo, hi))


def test_a_flat_frame_is_flat() -> None:
    found = of(np.full((3, 64, 80), 7))
    assert (found.mean == 7).all()
    assert (found.rough == 0).all()
    assert (found.rows, found.cols, found.channels, found.lo, found.hi) == (64, 80, 3, 0, 4095)


def test_means_are_those_of_the_cells() -> None:
    samples = np.arange(SIDE * SIDE).reshape(1, SIDE, SIDE).repeat(10, axis=1).repeat(6, axis=2)
    assert np.array_equal(of(samples).mean.ravel(), np.arange(SIDE * SIDE))


def test_noise_is_rough_and_where_it_is() -> None:
    samples = np.zeros((1, 160, 160))
    samples[0, :80] = np.random.default_rng(1).integers(0, 100, (80, 160))
    rough = of(samples).rough
    assert (rough[:4] > 50).all()
    assert (rough[5:] == 0).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (5, 9), (8, 8), (7, 513), (1200, 30)])
def test_frames_of_any_shape_have_one(shape: tuple[int, int]) -> None:
    found = of(np.full((1, *shape), 12))
    assert found.mean.shape == found.rough.shape == (SIDE, SIDE)
    assert (found.mean == 12).all()
    assert np.isfinite(found.rough).all()


def test_a_large_frame_is_looked_at_in_part_and_looks_the_same() -> None:
    small = body_in_air((256, 256))
    large = small.repeat(5, axis=0).repeat(5, axis=1)
    assert np.abs(of(small[None]).mean - of(large[None]).mean).max() < 1


def test_it_travels_in_530_bytes() -> None:
    found = portrait(frame(body_in_air((200, 300)), lo=-1000, hi=3000))
    content = found.to_bytes()
    assert len(content) == LENGTH == 530
    back = Portrait.from_bytes(content)
    assert back is not None
    assert (back.rows, back.cols, back.channels, back.lo, back.hi) == (200, 300, 1, -1000, 3000)
    assert np.abs(back.mean - found.mean).max() <= 1 / 32
    assert np.abs(back.rough - found.rough).max() <= 1 / 32
    assert back.to_bytes() == content


@pytest.mark.parametrize("content", [b"", b"\1" * 529, b"\2" + b"\0" * 529])
def test_anything_else_is_none(content: bytes) -> None:
    assert Portrait.from_bytes(content) is None


@pytest.mark.parametrize(("rows", "cols"), [(511, 64), (64, 511), (520, 1100), (2000, 16)])
def test_sums_are_exact_where_they_are_largest(rows: int, cols: int) -> None:
    """Sixteen bits that alternate both ways, three channels and one: the ways of adding up agree."""
    alternating = 65_535 * ((np.arange(rows)[:, None] + np.arange(cols)) % 2)
    one, three = (of(alternating[None].repeat(channels, axis=0), 0, 65_535) for channels in (1, 3))
    assert one.to_bytes() == replace(three, channels=1).to_bytes()
    assert np.array_equal(one.rough, three.rough)
