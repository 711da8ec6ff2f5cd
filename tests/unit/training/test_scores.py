"""Scores by hand."""

from __future__ import annotations

import numpy as np
import pytest

from training.photos import Photo
from training.scores import Counts, as_table, pooled, score


def photo(vessels: np.ndarray) -> Photo:
    field = np.ones_like(vessels)
    field[:, :8] = False
    return Photo("made/1", True, np.zeros((*vessels.shape, 3), np.uint8), vessels, field)


def test_counts_give_the_usual_ratios() -> None:
    counts = Counts(both=6, found=2, meant=4)
    assert counts.precision == 6 / 8
    assert counts.recall == 6 / 10
    assert counts.dice == 12 / 18


def test_nothing_found_and_nothing_meant_is_zero() -> None:
    assert Counts(0, 0, 0).dice == 0


@pytest.fixture
def half_right() -> tuple[np.ndarray, Photo]:
    """16 x 24: truth in rows 0-3 of columns 8-15; found there, in the masked part and in one far pixel."""
    vessels = np.zeros((16, 24), np.bool_)
    vessels[:4, 8:16] = True
    logits = np.where(vessels, 5, -5).astype(np.int32)
    logits[2:4, 8:16] = 0  # not above 0: not found
    logits[15, 23] = 1
    logits[0, 0] = 1
    return logits, photo(vessels)


def test_a_photograph_is_scored_inside_its_field(half_right: tuple[np.ndarray, Photo]) -> None:
    result = score(*half_right)
    assert result.field == Counts(16, 1, 16)
    assert result.whole == Counts(16, 2, 16)
    assert result.pixels == result.field


def test_one_vessel_pixel_protects_its_block(half_right: tuple[np.ndarray, Photo]) -> None:
    result = score(*half_right)
    assert (result.blocks, result.free_blocks) == (6, 3)
    assert result.protected == 1
    assert result.free == 0.5


def test_pooling_adds_pixels(half_right: tuple[np.ndarray, Photo]) -> None:
    one = score(*half_right)
    assert pooled([one, one]).field == one.field + one.field
    assert pooled([one]).field == one.field


def test_a_table_ends_with_the_pooled_row(half_right: tuple[np.ndarray, Photo]) -> None:
    rows = as_table([score(*half_right)] * 2)
    assert [row["image"] for row in rows] == ["made/1", "made/1", "pooled"]
    assert rows[-1]["dice"] == round(32 / 49, 4) == rows[0]["dice"]
