"""The paper's network: isolated blocks, whatever stands beside them."""

from __future__ import annotations

import re

import numpy as np
import pytest

from blessmark.errors import SegmenterError
from blessmark.segment import block
from blessmark.types import Frame, Lattice
from blessmark.view import invariant_view


@pytest.fixture(params=block.BLOCK_SIDES, scope="module")
def net(request: pytest.FixtureRequest) -> block.BlockNet:
    return block.packaged(request.param)


def noise(seed: int, channels: int, rows: int, cols: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int32]]:
    smooth = np.random.default_rng(seed).integers(20, 140, (channels, rows // 4 + 1, cols // 4 + 1))
    return smooth.repeat(4, axis=1).repeat(4, axis=2)[:, :rows, :cols].astype(np.int32)


def test_the_map_has_one_entry_a_whole_block(net: block.BlockNet) -> None:
    assert net.roi_map(noise(0, 1, 61, 43), 0, 255).shape == (61 // net.side, 43 // net.side)
    assert net.roi_map(noise(0, 1, 3, 43), 0, 255).shape == (0, 43 // net.side)


def test_a_block_is_judged_alone(net: block.BlockNet) -> None:
    samples = noise(1, 1, 6 * net.side, 8 * net.side)
    samples[:, 3 * net.side : 5 * net.side] = 110
    roi = net.roi_map(samples, 0, 255)
    assert roi.any()
    assert not roi.all()
    changed = samples.copy()
    changed[:, : net.side] = 0
    assert np.array_equal(net.roi_map(changed, 0, 255)[1:], roi[1:])
    single = samples[:, net.side : 2 * net.side, 2 * net.side : 3 * net.side]
    assert net.roi_of(single, 0, 255)[0] == roi[1, 2]


def test_only_green_is_looked_at(net: block.BlockNet) -> None:
    samples = noise(2, 3, 4 * net.side, 4 * net.side)
    assert np.array_equal(net.roi_map(samples, 0, 255), net.roi_map(samples[1:2], 0, 255))


def test_a_dark_line_is_found_on_a_bright_ground(net: block.BlockNet) -> None:
    plane = np.full((1, 3 * net.side, 3 * net.side), 110, np.int32)
    plane[:, :, net.side + 2 : net.side + 5] = 70
    roi = net.roi_map(plane, 0, 255)
    assert roi[:, 1].all()
    assert not roi[:, (0, 2)].any()


def test_more_bits_change_nothing(net: block.BlockNet) -> None:
    samples = noise(3, 1, 4 * net.side, 4 * net.side)
    wide = net.roi_map(samples * 16 - 2048, -2048, 2047)
    assert np.array_equal(wide, net.roi_map(samples, 0, 255))


def test_it_is_a_segmenter(net: block.BlockNet) -> None:
    frame = Frame(noise(4, 1, 48, 48), 0, 255)
    view = invariant_view(frame, Lattice.QUARTER)
    assert net.roi_blocks(view).shape == (48 // net.side, 48 // net.side)
    assert re.fullmatch(rf"blessmark-block-{net.side}/1-[0-9a-f]{{12}}", net.id)
    assert net.reach_px == net.side - 1


def test_no_blocks_give_no_answer(net: block.BlockNet) -> None:
    assert net.roi_of(np.zeros((0, net.side, net.side), np.int32), 0, 255).shape == (0,)


def test_other_sides_have_no_weights() -> None:
    with pytest.raises(SegmenterError, match="blessmark-block-7"):
        block.packaged(7)


@pytest.mark.parametrize(
    ("sample", "lo", "hi", "byte"), [(0, 0, 255, 0), (255, 0, 255, 255), (-1, -1024, 3071, 63)]
)
def test_samples_are_brought_to_eight_bits(sample: int, lo: int, hi: int, byte: int) -> None:
    assert block.in_eight_bits(np.array([[[sample]]], np.int32), lo, hi).item() == byte
