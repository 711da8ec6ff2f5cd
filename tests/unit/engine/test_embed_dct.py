"""Records in blocks: the ladder of tiers, receipts, refusals, and that nothing leaves unread."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from blessmark.carrier import dct_framing
from blessmark.carrier.block_maps import maps_for
from blessmark.carrier.dct import cut
from blessmark.embed_dct import embed_dct, threshold_of
from blessmark.errors import CapacityError, WatermarkError
from blessmark.fidelity import psnr_db
from blessmark.segment import segmenter
from blessmark.types import BlockSettings, Frame, Framing, Tier
from blessmark.verify import verify
from tests.phantoms import body, body_in_air, frame, noise
from tests.strategies import ABOUT, KEY, RING, Drawn

LONG = replace(ABOUT, fields={**ABOUT.fields, 0x00081030: bytes(range(1, 121))})


def open_air(rows: int = 400, cols: int = 400) -> Frame:
    return replace(frame(noise((rows, cols), 9) + 30, hi=255), number=2)


def drawn(image: Frame) -> Drawn:
    return Drawn(np.zeros((image.rows // 8, image.cols // 8), np.bool_))


class TestReceipt:
    @pytest.mark.parametrize("side", [6, 8, 10])
    def test_says_what_was_done(self, side):
        image = open_air(600, 600)
        done = embed_dct(image, ABOUT, RING, drawn(image), BlockSettings(side))
        change = np.abs(done.frame.samples - image.samples)
        receipt = done.receipt
        assert (receipt.tier, receipt.framing, receipt.lattice) == (Tier.FULL, Framing.BLOCKS, None)
        assert (receipt.block_px, receipt.segmenter) == (side, f"veiled-drawn-{side}/1")
        assert receipt.key_id == KEY.id
        assert receipt.changed_samples == np.count_nonzero(change) > 0
        assert receipt.max_change == change.max()
        assert receipt.psnr_db == psnr_db(image, done.frame.samples)
        assert receipt.restored_psnr_db is not None
        assert receipt.restored_psnr_db >= receipt.psnr_db
        assert receipt.message_bits < receipt.capacity_bits

    def test_the_restoration_is_as_good_as_it_says(self):
        image = open_air()
        done = embed_dct(image, ABOUT, RING, drawn(image))
        verdict = verify(done.frame, RING, (drawn(image),))
        told, actual = verdict.evidence.restored_psnr_db, psnr_db(image, verdict.restored.samples)
        assert actual == done.receipt.restored_psnr_db
        assert told <= actual + 0.1
        assert told >= actual - 0.6


class TestLadder:
    def test_goes_down_as_room_gets_scarce(self):
        taken = []
        for rows in range(600, 60, -30):
            image = open_air(rows, 300)
            try:
                taken.append(embed_dct(image, LONG, RING, drawn(image)).receipt.tier)
            except CapacityError:
                break
        assert taken == sorted(taken)
        assert set(taken) == set(Tier)

    @pytest.mark.parametrize("size", [(5, 40), (40, 40), (90, 90)])
    def test_refuses_without_room_and_changes_nothing(self, size):
        image = open_air(*size)
        before = image.samples.copy()
        with pytest.raises(CapacityError, match=r"^frame 2: "):
            embed_dct(image, ABOUT, RING, drawn(image))
        assert np.array_equal(image.samples, before)

    def test_refuses_more_change_than_it_may_make(self):
        image = open_air()
        moved = embed_dct(image, ABOUT, RING, drawn(image)).receipt.max_change
        assert embed_dct(image, ABOUT, RING, drawn(image), max_change=moved).receipt.max_change == moved
        with pytest.raises(CapacityError):
            embed_dct(image, ABOUT, RING, drawn(image), max_change=moved - 1)


class TestThreshold:
    def test_is_a_share_of_full_scale_at_8_bits(self):
        assert threshold_of(open_air(), 0.01) == 255
        assert threshold_of(open_air(), 0.02) == 510

    def test_is_a_share_of_the_range_in_use_beyond(self):
        deep = frame(body_in_air((64, 64), air=0, tissue=3000), hi=65535)
        assert threshold_of(deep, 0.01) == int(deep.samples.max()) - int(deep.samples.min())

    def test_looks_past_padding_and_survives_rounding(self):
        plane = np.full((40, 40), 1000, np.int32)
        plane[:10] = -2000
        assert threshold_of(frame(plane, lo=-2048, hi=4095, padding=(-2000, -2000)), 0.01) == 250
        everything = frame(np.zeros((9, 9), np.int32), padding=(0, 0))
        assert threshold_of(everything, 0.01) == 250


class TestRegionOfInterest:
    @pytest.mark.parametrize("side", [6, 8, 10])
    def test_no_sample_of_the_body_changes(self, side):
        image = frame(body_in_air((640, 640)))
        done = embed_dct(image, ABOUT, RING, segmenter("anatomy"), BlockSettings(side))
        assert np.array_equal(done.frame.samples[0][body((640, 640))], image.samples[0][body((640, 640))])

    def test_the_map_is_the_same_afterwards(self):
        rng = np.random.default_rng(0)
        image = Frame(rng.normal(120, 3, (3, 300, 300)).astype(np.int32), 0, 255)
        done = embed_dct(image, ABOUT, RING, segmenter("vessels"))
        block_map = maps_for((segmenter("vessels"),), (6,))[0]
        before, after = (
            block_map.bound(each)
            .stays(np.arange(2500), cut(each.samples, 6).reshape(2500, 3, 6, 6))
            .all(axis=1)
            for each in (image, done.frame)
        )
        assert (before & ~after).sum() == done.receipt.switched_blocks
        assert not (after & ~before).any()


class TestReadBack:
    """A marked frame that does not read back is never released, whatever broke."""

    @pytest.mark.parametrize("place", [(0, 0, 0), (0, 200, 200), (0, 399, 399)])
    def test_one_wrong_sample_is_enough(self, monkeypatch, place):
        honest = dct_framing.seal

        def spoiled(*args):
            samples = honest(*args)
            samples[place] += 1
            return samples

        monkeypatch.setattr(dct_framing, "seal", spoiled)
        image = open_air()
        with pytest.raises(WatermarkError, match="did not read back"):
            embed_dct(image, ABOUT, RING, drawn(image))

    def test_a_change_inside_the_region_of_interest_is_found(self, monkeypatch):
        """Even when it is made before the seal, so that the seal holds."""
        honest = dct_framing.embed

        def careless(*args):
            carried = honest(*args)
            carried.samples[0, 0, 0] += 1
            return carried

        monkeypatch.setattr(dct_framing, "embed", careless)
        image = open_air()
        with pytest.raises(WatermarkError, match="region of interest False"):
            embed_dct(image, ABOUT, RING, drawn(image))


def test_flat_background_is_restored_but_for_the_seal():
    samples = np.zeros((1, 500, 500), np.int32)
    samples[0, 200:300, 200:300] = noise((100, 100), 100) + 100
    done = embed_dct(Frame(samples, 0, 255), ABOUT, RING, segmenter("anatomy"))
    assert done.receipt.restored_psnr_db > done.receipt.psnr_db + 5
    assert not math.isinf(done.receipt.restored_psnr_db)


class TestStuckBlocks:
    def test_a_block_that_is_stuck_ends_its_tier_only(self, monkeypatch):
        """A shorter message has other bits and takes fewer blocks."""
        image, tried = open_air(), []
        genuine = dct_framing.embed

        def stuck_at_first(*arguments):
            tried.append(len(arguments[3]))
            if len(tried) == 1:
                raise CapacityError("a block outside the region of interest cannot carry its bit")
            return genuine(*arguments)

        monkeypatch.setattr(dct_framing, "embed", stuck_at_first)
        done = embed_dct(image, ABOUT, RING, drawn(image))
        assert done.receipt.tier is Tier.CORE
        assert tried[1] <= tried[0]

    def test_stuck_in_every_tier_is_no_room(self, monkeypatch):
        def stuck(*_arguments):
            raise CapacityError("a block outside the region of interest cannot carry its bit")

        image = open_air()
        monkeypatch.setattr(dct_framing, "embed", stuck)
        with pytest.raises(CapacityError, match="no room for the seal"):
            embed_dct(image, ABOUT, RING, drawn(image))

    def test_a_veiled_map_is_drawn_once(self):
        class Counting(Drawn):
            calls = 0

            def roi_blocks(self, view):
                self.calls += 1
                return super().roi_blocks(view)

        image = open_air()
        counting = Counting(np.zeros((image.rows // 8, image.cols // 8), np.bool_))
        embed_dct(image, ABOUT, RING, counting)
        assert counting.calls == 1
