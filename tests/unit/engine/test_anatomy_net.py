"""From a view to block codes, and the codes' independence of gain and depth."""

from __future__ import annotations

import numpy as np
import pytest

from blessmark.segment import anatomy_net
from blessmark.types import Frame, Lattice, View
from blessmark.view import invariant_view
from tests.phantoms import body_in_air


def view_of(plane: np.ndarray, lo: int = 0, hi: int = 4095, channels: int = 1) -> View:
    return invariant_view(Frame(np.stack([plane] * channels).astype(np.int32), lo, hi), Lattice.QUARTER)


@pytest.mark.parametrize(
    ("value", "lo", "code"),
    [(0, 0, 0), (1, 0, 16), (3, 0, 32), (2, 0, 24), (65534, 0, 255), (5, 5, 0), (65535, 0, 255),
     (0, -1024, 128), (1, -1024, 136), (-1, -1024, 120), (32767, -32768, 248), (-32767, -32768, 8)],
)  # fmt: skip
def test_codes_are_logarithms(value: int, lo: int, code: int) -> None:
    assert anatomy_net.companded(np.array([value]), lo).item() == code


def test_codes_never_fall() -> None:
    for values, lo in ((np.arange(65536), 0), (np.arange(-32768, 32768), -32768)):
        codes = anatomy_net.companded(values, lo).astype(int)
        assert (np.diff(codes) >= 0).all()
        assert (np.diff(codes) <= 16).all()


def test_twice_the_gain_is_sixteen_steps() -> None:
    values = np.arange(500, 5000)
    difference = anatomy_net.companded(2 * values + 1, 0).astype(int) - anatomy_net.companded(values, 0)
    assert (difference == 16).all()


def test_a_block_tells_its_least_and_greatest_cell() -> None:
    plane = np.full((16, 16), 1000, np.int32)
    plane[2:4, 4:6] = 20
    plane[4:6, 10:12] = 3000
    codes = anatomy_net.network_input(plane, 0)
    assert codes.shape == (4, 4, 2)
    assert codes[0, 0].tolist() == anatomy_net.companded(np.array([20, 1000]), 0).tolist()
    assert codes[0, 1].tolist() == anatomy_net.companded(np.array([1000, 3000]), 0).tolist()


@pytest.mark.parametrize("size", [(7, 30), (8, 8), (75, 131)])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_map_has_one_entry_a_whole_block(size: tuple[int, int], channels: int) -> None:
    plane = np.full(size, 90, np.int32)
    roi = anatomy_net.packaged().roi_blocks(view_of(plane, channels=channels))
    assert roi.shape == (size[0] // 8, size[1] // 8)
    assert roi.dtype == np.bool_


def test_channels_are_united() -> None:
    segmenter = anatomy_net.packaged()
    one, other = body_in_air((128, 128)), body_in_air((128, 128)).T.copy()
    both = invariant_view(Frame(np.stack([one, other]).astype(np.int32), 0, 4095), Lattice.QUARTER)
    union = segmenter.roi_blocks(view_of(one)) | segmenter.roi_blocks(view_of(other))
    assert np.array_equal(segmenter.roi_blocks(both), union)


def test_a_body_in_air_is_region_of_interest() -> None:
    roi = anatomy_net.packaged().roi_blocks(view_of(body_in_air((256, 256))))
    assert roi[12:20, 12:20].mean() > 0.9


def test_nothing_beyond_the_reach_changes_the_map() -> None:
    segmenter = anatomy_net.packaged()
    plane = body_in_air((128, 640))
    changed = plane.copy()
    changed[:, 480:] = 4000
    near = (480 - segmenter.reach_px) // 8
    assert near > 20
    one, other = (segmenter.roi_blocks(view_of(each)) for each in (plane, changed))
    assert np.array_equal(one[:, :near], other[:, :near])
