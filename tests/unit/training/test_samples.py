"""Crops depend on seed and step alone, and their truth moves with them."""

from __future__ import annotations

import numpy as np
import pytest

from training.photos import Photo
from training.samples import Augment, Plate, batch, in_blocks, plates_of, reduced, scales_for, vessel_share

PLAIN = Augment(contrast=0, level=0, noise=0, blur_share=0, warp_share=0)


def photo(rows: int, cols: int) -> Photo:
    rgb = np.full((rows, cols, 3), 120, np.uint8)
    vessels = np.zeros((rows, cols), np.bool_)
    vessels[:, cols // 2 : cols // 2 + 6] = True
    rgb[vessels] = 60
    return Photo("made/1", False, rgb, vessels, np.ones((rows, cols), np.bool_))


@pytest.mark.parametrize(
    ("size", "scales"),
    [((584, 565), [1]), ((960, 999), [1]), ((2336, 3504), [2, 3, 4, 5, 6]), ((300, 200), [1])],
)
def test_training_covers_the_scales_that_inference_meets(size: tuple[int, int], scales: list[int]) -> None:
    assert list(scales_for(*size)) == scales


def test_a_photograph_gives_a_plate_per_scale_and_lattice() -> None:
    plates = plates_of(photo(1200, 40))
    assert len(plates) == 2 * 2
    assert all(plate.share.shape == (2 * plate.cells.shape[0], 2 * plate.cells.shape[1]) for plate in plates)
    assert all(plate.fine == 2 for plate in plates)


def test_the_share_of_a_square_is_its_mean() -> None:
    vessels = np.zeros((4, 5), np.bool_)
    vessels[:2, :1] = True
    assert vessel_share(vessels, 2, 3, 3).tolist() == [[127, 0, 0], [0, 0, 0], [0, 0, 0]]


def test_a_step_draws_the_same_crops_whenever_it_is_run() -> None:
    plates = plates_of(photo(96, 160))
    first = batch(plates, 1, 7, 4, 32, Augment())
    again = batch(plates, 1, 7, 4, 32, Augment())
    other = batch(plates, 1, 8, 4, 32, Augment())
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])


@pytest.mark.parametrize("augment", [Augment(), PLAIN, Augment(warp_share=1.0)])
def test_crops_are_whole_steps_and_their_truth_a_share(augment: Augment) -> None:
    cells, truth = batch(plates_of(photo(96, 160)), 1, 3, 6, 32, augment)
    assert cells.shape == (6, 32, 32, 1)
    assert truth.shape == (6, 64, 64, 1)
    assert np.array_equal(cells, np.rint(cells))
    assert cells.min() >= 0
    assert cells.max() <= 255
    assert 0 <= truth.min() <= truth.max() <= 1


@pytest.mark.parametrize("warp_share", [0.0, 1.0])
def test_truth_stays_on_its_vessel(warp_share: float) -> None:
    """Dark cells are where the truth is, after any turn, flip and zoom."""
    cells, truth = batch(plates_of(photo(256, 256)), 1, 2, 16, 32, Augment(0, 0, 0, 0, 0, 0, warp_share, 0.2))
    coarse = truth.reshape(16, 32, 2, 32, 2).mean(axis=(2, 4))
    lit = cells[..., 0] > 20
    vessel, clear = coarse > 0.9, (coarse < 0.1) & lit
    assert vessel.sum() > 100
    assert cells[..., 0][vessel].mean() < 90
    assert cells[..., 0][clear].mean() > 115


def test_plates_smaller_than_a_crop_are_surrounded_by_nothing() -> None:
    cells, truth = batch(
        [Plate(np.full((8, 8), 128, np.uint8), np.full((16, 16), 255, np.uint8))], 1, 1, 2, 32, PLAIN
    )
    assert (cells > 0).sum() == 2 * 64
    assert (truth > 0).sum() == 2 * 256


def test_reduction_takes_means() -> None:
    green, share, field = reduced(photo(1168, 584), 584)
    assert green.shape == share.shape == field.shape == (584, 292)
    assert field.all()
    assert green[0, 0] == 120
    assert green[0, 146] == 60
    assert share[0, 146] == 255


def test_blocks_are_cut_row_by_row() -> None:
    image = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    assert in_blocks(image, 2)[1].ravel().tolist() == [2, 3, 6, 7]
