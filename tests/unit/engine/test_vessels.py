"""From a view to vessels: cells, flat field, scale and block map."""

from __future__ import annotations

import numpy as np
import pytest

from blessmark.segment import vessels
from blessmark.types import Frame, IntArray, Lattice, View
from blessmark.view import invariant_view


def view_of(*planes: IntArray, lo: int = 0, hi: int = 255, lattice: Lattice = Lattice.QUARTER) -> View:
    return invariant_view(Frame(np.stack(planes).astype(np.int32), lo, hi), lattice)


def fundus(rows: int = 320, cols: int = 320, vessel: float = 0.7) -> IntArray:
    """A lit disc that fades to its rim, with one dark vertical and one dark horizontal line of 5 pixels."""
    row, col = np.mgrid[:rows, :cols]
    away = np.hypot((row - rows / 2) / rows, (col - cols / 2) / cols)
    lit = 150 * (1.2 - away)
    lit[:, cols // 2 : cols // 2 + 5] *= vessel
    lit[rows // 3 : rows // 3 + 5] *= vessel
    return np.where(away < 0.48, lit, 2).astype(np.int32)


@pytest.mark.parametrize(
    ("rows", "cols", "scale"),
    [(1, 1, 1), (584, 565, 1), (1024, 1024, 1), (1752, 9, 1), (9, 1753, 2), (2336, 3504, 2), (3000, 4000, 3)],
)
def test_the_scale_follows_the_longer_side(rows: int, cols: int, scale: int) -> None:
    assert vessels.scale_of(rows, cols) == scale


def test_the_scale_is_capped() -> None:
    assert vessels.scale_of(100_000, 10) == vessels.MAX_SCALE


def test_cells_are_sums_above_the_low_end() -> None:
    plane = np.arange(16, dtype=np.int32).reshape(4, 4) - 100
    view = View(plane[None], Lattice.QUARTER, -100, 155, None)
    assert vessels.grey_cells(view, 2).tolist() == [[0 + 1 + 4 + 5, 2 + 3 + 6 + 7], [8 + 9 + 12 + 13, 50]]


def test_partial_cells_repeat_the_edge() -> None:
    view = View(np.array([[[1, 2, 3]]], np.int32), Lattice.QUARTER, 0, 255, None)
    assert vessels.grey_cells(view, 2).tolist() == [[6, 12]]


def test_colour_is_seen_through_its_green() -> None:
    red, green, blue = (np.full((8, 8), value, np.int32) for value in (200, 50, 10))
    assert (vessels.grey_cells(view_of(red, green, blue), 2) == 4 * 50).all()


def test_flat_field_ignores_exposure_and_bits() -> None:
    plane = fundus()
    once = vessels.network_input(view_of(plane), 1)
    brighter = vessels.network_input(view_of(plane * 200, hi=65535), 1)
    lit = once > 100
    assert np.abs(once.astype(int) - brighter)[lit].max() <= 2


def test_flat_field_takes_the_vignette_away() -> None:
    cells = vessels.network_input(view_of(fundus()), 1)[..., 0]
    column = cells[20:140, 100]  # from near the rim to the middle, one vessel on the way
    clear = np.delete(column, np.s_[30:40])
    assert np.abs(clear.astype(int) - 128).max() < 24


def test_surround_does_not_brighten_the_rim() -> None:
    plane = np.full((128, 128), 100, np.int32)
    plane[:, :64] = 1
    cells = vessels.network_input(view_of(plane), 1)[..., 0]
    assert (cells[:, 33:] == 128).all()
    assert (cells[:, :31] < 20).all()


def test_black_and_one_bit_images_pass() -> None:
    assert not vessels.network_input(view_of(np.zeros((9, 7), np.int32)), 1).any()
    assert vessels.network_input(view_of(np.eye(16, dtype=np.int32), hi=1), 1).max() > 0


def test_input_can_be_halved_twice() -> None:
    for rows, cols in [(1, 1), (17, 30), (64, 64)]:
        shape = vessels.network_input(view_of(np.full((rows, cols), 9, np.int32)), 1).shape
        assert shape[0] % 4 == shape[1] % 4 == 0


@pytest.mark.parametrize("size", [(3, 3), (8, 8), (15, 40), (1760, 24)])
def test_the_map_has_one_entry_a_whole_block(size: tuple[int, int]) -> None:
    roi = vessels.packaged().roi_blocks(view_of(np.full(size, 90, np.int32)))
    assert roi.shape == (size[0] // 8, size[1] // 8)
    assert roi.dtype == np.bool_


@pytest.mark.parametrize("lattice", Lattice)
def test_vessels_are_found_and_the_rest_is_free(lattice: Lattice) -> None:
    roi = vessels.packaged().roi_blocks(view_of(fundus(), lattice=lattice))
    assert roi[8:32, 20].mean() > 0.8
    assert roi[13, 8:32].mean() > 0.8
    assert roi.mean() < 0.35


def test_many_views_give_the_maps_of_each() -> None:
    segmenter = vessels.packaged()
    views = [view_of(fundus(96, 96)), view_of(fundus(64, 120)), view_of(fundus(96, 96, vessel=0.4))]
    together = segmenter.roi_blocks_of(views)
    assert all(
        np.array_equal(one, segmenter.roi_blocks(view)) for one, view in zip(together, views, strict=True)
    )


def test_no_views_give_no_maps() -> None:
    assert vessels.packaged().roi_blocks_of([]) == []


def test_nothing_beyond_the_reach_changes_the_map() -> None:
    segmenter = vessels.packaged()
    plane = fundus(256, 512)
    changed = plane.copy()
    changed[:, 300:] = 255 - changed[:, 300:]
    reach = segmenter.reach_at(256, 512)
    one, other = segmenter.roi_blocks(view_of(plane)), segmenter.roi_blocks(view_of(changed))
    near = 300 - reach
    assert near > 64
    assert np.array_equal(one[:, : near // 8], other[:, : near // 8])
    assert not np.array_equal(one, other)
    assert reach <= segmenter.reach_px


def test_the_id_names_network_version_and_weights() -> None:
    assert vessels.packaged().id == "vessels/1-32d886903be3"
