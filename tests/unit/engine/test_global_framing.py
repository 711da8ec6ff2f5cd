"""Global framing: one message over a whole frame, and what a reader makes of anything else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from blessmark.carrier import global_framing
from blessmark.payload import crypto
from blessmark.roi import pixel_mask
from blessmark.types import Frame, Lattice
from blessmark.view import lattice_mask
from tests.strategies import KEY, OTHER_KEY

KEYS = crypto.derive(KEY)
MESSAGE = np.random.default_rng(8).bytes(96)
ROI = np.zeros((12, 12), np.bool_)
ROI[2:5, 3:9] = True


def frame(noise: float = 1.0, hi: int = 4095, middle: int = 500, channels: int = 1) -> Frame:
    samples = np.random.default_rng(9).normal(middle, noise, (channels, 96, 96)).round()
    return Frame(np.clip(samples, 0, hi).astype(np.int32), 0, hi, number=5)


def embedded(
    original: Frame, lattice: Lattice, message: bytes = MESSAGE, cap: int = 4
) -> tuple[global_framing.Plan, Frame]:
    plan = global_framing.plan(original, ROI, lattice, KEYS, cap)
    marked = global_framing.embed(plan, KEYS, message)
    assert marked is not None
    return plan, marked


@pytest.mark.parametrize("lattice", Lattice)
@pytest.mark.parametrize("channels", [1, 3])
def test_message_and_samples_come_back(lattice, channels):
    original = frame(channels=channels)
    before = original.samples.copy()
    _, marked = embedded(original, lattice)
    assert np.array_equal(original.samples, before)
    reading = global_framing.read(marked, ROI, lattice, KEYS)
    assert reading is not None
    assert reading.message == MESSAGE
    assert reading.lattice is lattice
    assert np.array_equal(reading.restored.samples, before)


@pytest.mark.parametrize("lattice", Lattice)
def test_touches_the_lattice_of_free_blocks_only(lattice):
    original = frame()
    _, marked = embedded(original, lattice)
    changed = marked.samples != original.samples
    assert changed.any()
    assert not changed[:, pixel_mask(ROI, 96, 96)].any()
    assert not changed[:, ~lattice_mask(96, 96, lattice)].any()


@pytest.mark.parametrize("length", [1, 2, 55, 200])
def test_lengths_of_any_number_of_bytes(length):
    message = np.random.default_rng(length).bytes(length)
    original = frame(noise=0.7)
    _, marked = embedded(original, Lattice.QUINCUNX, message)
    reading = global_framing.read(marked, ROI, Lattice.QUINCUNX, KEYS)
    assert reading is not None
    assert reading.message == message


def test_quiet_images_move_by_one_and_noisy_ones_by_no_more_than_the_cap():
    for noise, caps in ((0.5, {1, 2, 4}), (6.0, {4})):
        for cap in (1, 2, 4):
            original = frame(noise)
            plan = global_framing.plan(original, ROI, Lattice.QUINCUNX, KEYS, cap)
            marked = global_framing.embed(plan, KEYS, MESSAGE)
            assert (marked is not None) >= (cap in caps)
            if marked is not None:
                assert np.abs(marked.samples - original.samples).max() <= cap


def test_the_smallest_expansion_that_fits_is_taken():
    original = frame(noise=0.5)
    _, marked = embedded(original, Lattice.QUARTER, cap=4)
    assert np.abs(marked.samples - original.samples).max() == 1


@pytest.mark.parametrize("value", [0, 255])
def test_frames_at_the_limit_of_their_range(value):
    original = frame(noise=0.0, hi=255, middle=value)
    plan = global_framing.plan(original, ROI, Lattice.QUARTER, KEYS, 1)
    marked = global_framing.embed(plan, KEYS, MESSAGE)
    if marked is not None:
        reading = global_framing.read(marked, ROI, Lattice.QUARTER, KEYS)
        assert reading is not None
        assert np.array_equal(reading.restored.samples, original.samples)
        assert 0 <= marked.samples.min() <= marked.samples.max() <= 255
    assert (marked is not None) == (value == 0), "the upper side is open at the bottom, neither is at the top"


def test_padding_is_a_bound():
    original = replace(frame(noise=0.5, middle=11), padding=(0, 10))
    original.samples[:, :32] = 10
    roi = ROI.copy()
    roi[:4] = True
    plan = global_framing.plan(original, roi, Lattice.QUINCUNX, KEYS, 1)
    marked = global_framing.embed(plan, KEYS, MESSAGE[:40])
    assert marked is not None
    assert np.array_equal(marked.samples <= 10, original.samples <= 10)
    reading = global_framing.read(marked, roi, Lattice.QUINCUNX, KEYS)
    assert reading is not None
    assert np.array_equal(reading.restored.samples, original.samples)


@pytest.mark.parametrize("blocks", [0, 1, 9])
def test_no_room_is_none(blocks):
    roi = np.ones((12, 12), np.bool_)
    roi.reshape(-1)[:blocks] = False
    plan = global_framing.plan(frame(), roi, Lattice.QUARTER, KEYS, 4)
    assert global_framing.embed(plan, KEYS, MESSAGE) is None
    assert global_framing.read(frame(), roi, Lattice.QUARTER, KEYS) is None


def test_pure_noise_has_no_room():
    noise = np.random.default_rng(1).integers(0, 65536, (1, 96, 96)).astype(np.int32)
    plan = global_framing.plan(Frame(noise, 0, 65535), ROI, Lattice.QUARTER, KEYS, 4)
    assert global_framing.embed(plan, KEYS, MESSAGE) is None


class TestNothingIsRead:
    """The header's MAC covers the place, the key and its own bands."""

    def test_from_an_unmarked_frame(self):
        for lattice in Lattice:
            assert global_framing.read(frame(), ROI, lattice, KEYS) is None

    def test_with_another_key(self):
        _, marked = embedded(frame(), Lattice.QUARTER)
        assert global_framing.read(marked, ROI, Lattice.QUARTER, crypto.derive(OTHER_KEY)) is None

    def test_as_another_frame(self):
        _, marked = embedded(frame(), Lattice.QUARTER)
        assert global_framing.read(replace(marked, number=6), ROI, Lattice.QUARTER, KEYS) is None

    def test_on_the_other_lattice(self):
        _, marked = embedded(frame(), Lattice.QUARTER)
        assert global_framing.read(marked, ROI, Lattice.QUINCUNX, KEYS) is None

    def test_with_another_map(self):
        _, marked = embedded(frame(), Lattice.QUARTER)
        roi = ROI.copy()
        roi[8:, 8:] = True
        assert global_framing.read(marked, roi, Lattice.QUARTER, KEYS) is None

    def test_once_a_site_of_the_header_changed(self):
        plan, marked = embedded(frame(), Lattice.QUARTER)
        for place in plan.sites.index[: plan.header_end : 17]:
            samples = marked.samples.copy()
            samples.reshape(-1)[place] += 1
            reading = global_framing.read(marked.with_samples(samples), ROI, Lattice.QUARTER, KEYS)
            assert reading is None or reading.message == MESSAGE

    def test_a_changed_site_behind_the_header_shows_in_what_is_read(self):
        plan, marked = embedded(frame(), Lattice.QUARTER)
        samples = marked.samples.copy()
        samples.reshape(-1)[plan.sites.index[plan.header_end]] += 1
        reading = global_framing.read(marked.with_samples(samples), ROI, Lattice.QUARTER, KEYS)
        original = frame().samples
        assert (
            reading is None
            or reading.message != MESSAGE
            or not np.array_equal(reading.restored.samples, original)
        )
