"""PSNR, by figures worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from blessmark.fidelity import psnr_db
from blessmark.types import Frame


def frame(hi: int, low: int, high: int) -> Frame:
    samples = np.full((1, 10, 10), low, np.int32)
    samples[0, 0, 0] = high
    return Frame(samples, 0, hi)


def changed(original: Frame, count: int, step: int) -> np.ndarray:
    samples = original.samples.copy()
    samples.reshape(-1)[-count:] += step
    return samples


def test_equal_frames_are_infinitely_close():
    original = frame(255, 0, 9)
    assert psnr_db(original, original.samples.copy()) == math.inf


def test_eight_bits_have_the_full_scale_as_peak():
    original = frame(255, 100, 110)
    assert psnr_db(original, changed(original, 100, 1)) == pytest.approx(48.1308, abs=1e-4)
    assert psnr_db(original, changed(original, 1, 1)) == pytest.approx(48.1308 + 20, abs=1e-4)
    assert psnr_db(original, changed(original, 1, -10)) == pytest.approx(48.1308, abs=1e-4)


def test_deep_images_have_the_used_range_as_peak():
    original = frame(65535, 1000, 2000)
    assert psnr_db(original, changed(original, 100, 1)) == pytest.approx(60)
    twelve = frame(4095, 0, 100)
    assert psnr_db(twelve, changed(twelve, 100, 1)) == pytest.approx(40)
    flat = frame(65535, 7, 7)
    assert psnr_db(flat, changed(flat, 100, 1)) == 0


def test_the_widest_differences_do_not_wrap():
    original = Frame(np.array([[[0, 65535]]], np.int32), 0, 65535)
    assert psnr_db(original, np.array([[[65535, 0]]], np.int32)) == 0
