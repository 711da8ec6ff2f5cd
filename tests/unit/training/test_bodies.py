"""Planes, crops and agreement of the anatomy network's training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from training.bodies import Agreement, Body, bodies, by_folder, compare, draw
from training.photos import DataError
from training.recipe import BODIES

SMALL = replace(BODIES, side=8, batch=5)


def body(folder: str = "made", rows: int = 12, cols: int = 10) -> Body:
    """Bright rows 4 to 7 are the body; codes padded as the network wants them."""
    roi = np.zeros((rows, cols), np.bool_)
    roi[4:8] = True
    codes = np.where(roi[..., None], [180, 200], [20, 30]).astype(np.uint8)
    return Body(folder, np.pad(codes, ((0, -rows % 4), (0, -cols % 4), (0, 0)), mode="edge"), roi)


def test_crops_carry_their_truth_along() -> None:
    codes, roi = draw([body(), body("other", 4, 30)], SMALL, 3)
    assert codes.shape == (5, 8, 8, 2)
    assert roi.shape == (5, 8, 8, 1)
    assert ((codes.mean(axis=-1, keepdims=True) > 100) == (roi > 0.5)).all()
    assert (codes[..., 0] <= codes[..., 1]).all()


def test_a_step_draws_the_same_crops_whenever_it_is_run() -> None:
    plates = [body()]
    assert np.array_equal(draw(plates, SMALL, 4)[0], draw(plates, SMALL, 4)[0])
    assert not np.array_equal(draw(plates, SMALL, 4)[0], draw(plates, SMALL, 5)[0])


def test_agreement_counts_what_the_network_alone_frees() -> None:
    one = body(rows=8, cols=2)
    logits = np.full((8, 4), 5, np.int32)
    logits[2:5, 0] = 0
    found = compare(one, logits)
    assert found == Agreement("made", 1, 16, 8, 3, 1)
    assert found.row()["wrongly_free_per_10000"] == round(1e4 / 3, 1)


def test_folders_are_added_up_and_then_all() -> None:
    found = [Agreement(name, 1, 10, 4, 3, 1) for name in ("b", "a", "b")]
    assert by_folder(found) == [
        Agreement("a", 1, 10, 4, 3, 1),
        Agreement("b", 2, 20, 8, 6, 2),
        Agreement("all", 3, 30, 12, 9, 3),
    ]


def test_a_folder_without_images_is_an_error(tmp_path) -> None:
    (tmp_path / "broken.dcm").write_bytes(b"not DICOM")
    with pytest.raises(DataError, match="no DICOM images"):
        bodies(tmp_path, held_out=False)


@pytest.mark.slow
def test_scanners_are_held_out_whole(shared_data) -> None:
    held_out = {each.folder for each in bodies(shared_data / "dicom", held_out=True)}
    trained = {each.folder for each in bodies(shared_data / "dicom", held_out=False)}
    assert held_out
    assert not held_out & trained
