"""The distortion detectors and Algorithm 3 with them."""

from __future__ import annotations

import numpy as np
import pytest

from blessmark.carrier import dct, dct_detector
from blessmark.carrier.dct_detector import Dense, Detector
from blessmark.errors import WatermarkError
from blessmark.types import Frame
from tests.phantoms import noise

SIDES = pytest.mark.parametrize("side", dct.SIDES)
DETECTORS = pytest.mark.parametrize("detector", [Detector.PAPER, Detector.CONTEXT])


def picture(rows: int = 240, cols: int = 200, channels: int = 3) -> Frame:
    """Smooth shading with the little noise of a photograph that was reduced."""
    row, col = np.ogrid[:rows, :cols]
    planes = [
        (100 + 40 * np.sin(row / 31 + seed) + 30 * np.cos(col / 23)).astype(np.int32)
        + noise((rows, cols), 2, seed)
        for seed in range(channels)
    ]
    return Frame(np.stack(planes), 0, 255)


def marked(frame: Frame, side: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Marked samples, places, bits [n, channels] and which blocks were altered."""
    samples = frame.samples.copy()
    grid = dct.cut(samples, side)
    places = np.arange(grid.shape[0] * grid.shape[1])
    original = grid.reshape(-1, frame.channels, side, side).copy()
    bits = np.random.default_rng(seed).integers(0, 2, original.shape[:2]).astype(np.uint8)
    flat = original.reshape(-1, side, side)
    variants = [dct.marked(dct.dct_pair(side), flat, bit, 255, (0, 255)) for bit in (0, 1)]
    content = np.where(bits.reshape(-1, 1, 1) == 0, *variants).reshape(original.shape)
    row, col = np.divmod(places, grid.shape[1])
    grid[row, col] = content
    return samples, places, bits, (content != original).any(axis=(2, 3))


@SIDES
@DETECTORS
def test_finds_altered_blocks(detector, side):
    samples, places, bits, truth = marked(picture(), side)
    found = dct_detector.altered(samples, side, places, bits, 255, detector)
    assert 0.3 < truth.mean() < 0.7
    assert (found == truth).mean() > 0.9


@SIDES
@DETECTORS
def test_sees_the_same_at_every_depth(detector, side):
    """Everything is measured in thresholds: an image of 12 bits is one of 8 bits, spread."""
    samples, places, bits, _ = marked(picture(), side)
    shallow = dct_detector.altered(samples, side, places, bits, 255, detector)
    deep = dct_detector.altered(samples * 16, side, places, bits, 255 * 16, detector)
    assert (shallow == deep).mean() > 0.999


@SIDES
@DETECTORS
def test_restoring_comes_closer_to_the_original(detector, side):
    frame = picture()
    samples, places, bits, _ = marked(frame, side)
    back = dct_detector.restored(samples, frame, side, places, bits.ravel(), 255, detector)
    before, after = (float(np.mean((each - frame.samples) ** 2)) for each in (samples, back))
    assert after < before / 2


@SIDES
def test_restoring_without_a_detector_changes_nothing(side):
    frame = picture()
    samples, places, bits, _ = marked(frame, side)
    back = dct_detector.restored(samples, frame, side, places, bits.ravel(), 255, Detector.NONE)
    assert np.array_equal(back, samples)


@SIDES
@DETECTORS
def test_restoring_leaves_everything_alone_that_carries_nothing(detector, side):
    frame = picture()
    samples, places, bits, _ = marked(frame, side)
    few = places[5:40]
    carried = bits[few].ravel()[:-1]
    back = dct_detector.restored(samples, frame, side, few, carried, 255, detector)
    changed = (dct.cut(back, side) != dct.cut(samples, side)).any(axis=(3, 4))
    assert changed.any()
    others = changed.reshape(-1, 3)
    assert not np.delete(others, few, axis=0).any()
    assert not others[few[-1], -1], "the last block carries one bit less"


@SIDES
@pytest.mark.parametrize("level", [0, 1, 40, 255])
def test_flat_background_comes_back_exactly(side, level):
    """What clipping took from a flat block no arithmetic gives back; marking it again shows what it was."""
    frame = Frame(np.full((1, 120, 120), level, np.int32), 0, 255)
    samples, places, bits, truth = marked(frame, side)
    assert truth.all()
    back = dct_detector.restored(samples, frame, side, places, bits.ravel(), 255, Detector.CONTEXT)
    assert np.array_equal(back, frame.samples)


@SIDES
def test_no_block_that_marking_cannot_have_made_is_called_flat(side):
    blocks = noise((side * 50, side), 40).reshape(50, side, side)
    bits = dct.read_bits(dct.dct_pair(side), blocks)
    found, _ = dct_detector.flat_before(dct.dct_pair(side), blocks, bits, 255, (0, 255))
    assert not found.any()


@SIDES
def test_the_papers_network_has_the_papers_shape(side):
    network = dct_detector.packaged(Detector.PAPER, side)
    assert [weights.shape for weights, _ in network.layers] == [
        (side**2, side**2),
        (side**2, side**2),
        (side**2, 1),
    ]


def test_weights_survive_their_file():
    rng = np.random.default_rng(0)
    network = Dense(
        tuple(
            (rng.normal(size=shape).astype(np.float32), rng.normal(size=shape[1]).astype(np.float32))
            for shape in ((9, 4), (4, 1))
        )
    )
    again = dct_detector.parse(dct_detector.dump(network))
    inputs = rng.normal(size=(20, 9)).astype(np.float32)
    assert dct_detector.digest(again) == dct_detector.digest(network)
    assert np.allclose(again.logits(inputs), network.logits(inputs), atol=0.05)


def test_weights_that_are_missing_or_changed_are_refused(monkeypatch, tmp_path):
    with pytest.raises(WatermarkError, match="no weights"):
        dct_detector.packaged(Detector.PAPER, 7)
    dct_detector.packaged.cache_clear()
    monkeypatch.setattr(dct_detector, "digest", lambda network: "something else")
    with pytest.raises(WatermarkError, match="do not match"):
        dct_detector.packaged(Detector.CONTEXT, 6)
