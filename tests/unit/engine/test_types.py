"""The plain data refuses impossible values, and the bounds keep padding what it is."""

from __future__ import annotations

import numpy as np
import pytest

from blessmark.types import Frame, SiteKey


def frame(lo: int = 0, hi: int = 255, padding: tuple[int, int] | None = None) -> Frame:
    return Frame(np.zeros((1, 8, 16), np.int32), lo, hi, padding)


@pytest.mark.parametrize(
    ("lo", "hi", "padding", "bounds"),
    [
        (0, 255, None, (0, 255)),
        (0, 255, (0, 0), (1, 255)),
        (0, 255, (255, 255), (0, 254)),
        (-2048, 2047, (-2048, -2000), (-1999, 2047)),
        (-2048, 2047, (2000, 2047), (-2048, 1999)),
        (0, 255, (127, 128), (129, 255)),
    ],
)
def test_padding_bounds_the_end_that_it_is_nearer_to(
    lo: int, hi: int, padding: tuple[int, int] | None, bounds: tuple[int, int]
) -> None:
    assert frame(lo, hi, padding).bounds == bounds


def test_a_frame_knows_its_shape() -> None:
    assert (frame().channels, frame().rows, frame().cols) == (1, 8, 16)


@pytest.mark.parametrize("samples", [np.zeros((8, 8), np.int32), np.zeros((1, 8, 8), np.int64)])
def test_samples_are_int32_planes(samples: np.ndarray) -> None:
    with pytest.raises(ValueError, match="int32"):
        Frame(samples, 0, 255)


def test_a_range_is_not_empty() -> None:
    with pytest.raises(ValueError, match="below"):
        frame(5, 5)


def test_other_samples_have_the_same_shape() -> None:
    assert frame().with_samples(np.ones((1, 8, 16), np.int32)).samples.sum() == 128
    with pytest.raises(ValueError, match="shape"):
        frame().with_samples(np.ones((1, 8, 8), np.int32))


@pytest.mark.parametrize(("identity", "secret"), [(256, bytes(32)), (-1, bytes(32)), (1, bytes(31))])
def test_a_key_has_one_byte_of_id_and_32_of_secret(identity: int, secret: bytes) -> None:
    with pytest.raises(ValueError, match=r"key"):
        SiteKey(identity, secret)


def test_a_key_never_shows_its_secret() -> None:
    assert "abc" not in repr(SiteKey(1, b"abc" + bytes(29)))
