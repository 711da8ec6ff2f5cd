"""The ladder, its receipt, and what happens when a step goes wrong."""

from __future__ import annotations

import itertools
import sys
from dataclasses import replace

import numpy as np
import pytest

from blessmark.carrier import global_framing, sites, tile_framing
from blessmark.embed import LADDER, allowed_change, describe, embed, seal_for_header
from blessmark.errors import CapacityError, WatermarkError
from blessmark.fidelity import psnr_db
from blessmark.payload import crypto, record
from blessmark.types import Finding, Frame, Framing, Lattice, Rectangle, Tier
from blessmark.verify import verify
from blessmark.view import lattice_mask
from tests.strategies import ABOUT, KEY, OTHER_KEY, RING, Drawn, Ring

KEYS = crypto.derive(KEY)
LONG = replace(ABOUT, fields={**ABOUT.fields, 0x00081030: bytes(range(1, 121))})


def frame(side: int = 256, noise: float = 1.0, hi: int = 4095) -> Frame:
    samples = np.random.default_rng(2).normal(1000, noise, (1, side, side)).round()
    return Frame(np.clip(samples, 0, hi).astype(np.int32), 0, hi, number=2)


def drawn(side: int = 256, blocks: int | None = None) -> Drawn:
    """A map with that many free blocks from the top left on; all of them when None."""
    roi = np.ones((side // 8) ** 2, np.bool_)
    roi[:blocks] = False
    return Drawn(roi.reshape(side // 8, side // 8))


class TestLadder:
    def test_is_tiles_before_global_and_the_sharper_view_first(self):
        assert tuple(itertools.product((Framing.TILE, Framing.GLOBAL), Lattice)) == LADDER

    def test_roomy_images_take_the_full_record_in_tiles(self):
        receipt = embed(frame(), ABOUT, RING, drawn()).receipt
        assert (receipt.tier, receipt.framing, receipt.lattice) == (Tier.FULL, Framing.TILE, Lattice.QUARTER)
        assert receipt.localised

    def test_goes_down_as_room_gets_scarce(self):
        taken = []
        for blocks in range(1024, 15, -16):
            try:
                receipt = embed(frame(), LONG, RING, drawn(blocks=blocks)).receipt
            except CapacityError:
                break
            taken.append((receipt.tier, receipt.framing, receipt.lattice))
        ranks = [taken.index(step) for step in taken]
        assert ranks == sorted(ranks), "once a step was left it is not taken again"
        assert {framing for _, framing, _ in taken} == {Framing.TILE, Framing.GLOBAL}
        assert {tier for tier, _, _ in taken} == set(Tier)

    @pytest.mark.parametrize("framing", [Framing.TILE, Framing.GLOBAL])
    def test_can_be_limited_to_one_framing(self, framing):
        assert embed(frame(), ABOUT, RING, drawn(), framings=(framing,)).receipt.framing is framing

    def test_a_smaller_record_is_what_reduce_makes_of_the_full_one(self):
        about = replace(ABOUT, fields={**ABOUT.fields, 0x00081030: bytes(range(1, 241))})
        done = embed(frame(64), about, RING, drawn(64), framings=(Framing.GLOBAL,))
        assert done.receipt.tier is Tier.CORE
        read = verify(done.frame, RING, (drawn(64),)).record
        expected = record.reduce(describe(frame(64), about, drawn(64), KEYS), Tier.CORE)
        assert read == expected


class TestReceipt:
    @pytest.mark.parametrize("framing", [Framing.TILE, Framing.GLOBAL])
    def test_says_what_was_done(self, framing):
        original, segmenter = frame(), drawn(blocks=700)
        done = embed(original, ABOUT, RING, segmenter, framings=(framing,))
        change = np.abs(done.frame.samples - original.samples)
        receipt = done.receipt
        assert receipt.changed_samples == np.count_nonzero(change) > 0
        assert receipt.max_change == change.max()
        assert receipt.psnr_db == psnr_db(original, done.frame.samples)
        assert receipt.roi_share == pytest.approx(1 - 700 / 1024)
        assert (receipt.key_id, receipt.segmenter) == (KEY.id, "drawn/1")
        assert receipt.message_bits % 48 == 0
        assert receipt.message_bits <= receipt.capacity_bits

    def test_digests_are_left_out_where_the_room_is_needed(self):
        receipts = [embed(frame(), LONG, RING, drawn(blocks=b)).receipt for b in range(400, 340, -8)]
        first = [r for r in receipts if (r.framing, r.lattice) == (Framing.TILE, Lattice.QUARTER)]
        localised = [receipt.localised for receipt in first]
        assert localised == sorted(localised, reverse=True)
        assert set(localised) == {True, False}
        assert {receipt.tier for receipt in first} == {Tier.FULL}


class TestCap:
    def test_is_one_per_cent_of_the_range_in_the_view(self):
        samples = np.full((1, 16, 16), 100, np.int32)
        samples[0, 0, 0] = 1099
        assert allowed_change(Frame(samples, 0, 4095), Lattice.QUARTER) == 9
        samples[0, 0, 0] = 120
        assert allowed_change(Frame(samples, 0, 4095), Lattice.QUARTER) == 1

    def test_does_not_look_at_the_lattice_or_at_padding(self):
        samples = np.full((1, 16, 16), 100, np.int32)
        samples[:, lattice_mask(16, 16, Lattice.QUARTER)] = 4000
        assert allowed_change(Frame(samples, 0, 4095), Lattice.QUARTER) == 1
        samples[0, 4, 4] = 4095  # no lattice pixel's direct neighbour, so no mean of the view mixes it in
        assert allowed_change(Frame(samples, 0, 4095), Lattice.QUARTER) == 39
        assert allowed_change(Frame(samples, 0, 4095, padding=(4095, 4095)), Lattice.QUARTER) == 1
        everything = Frame(np.zeros((1, 16, 16), np.int32), 0, 4095, padding=(0, 0))
        assert allowed_change(everything, Lattice.QUARTER) == 1

    def test_decides_whether_a_noisy_image_is_marked(self):
        noisy = frame(noise=24)
        with pytest.raises(CapacityError):
            embed(noisy, ABOUT, RING, drawn(), max_change=1, framings=(Framing.TILE,))
        done = embed(noisy, ABOUT, RING, drawn(), max_change=4, framings=(Framing.TILE,))
        assert 1 < done.receipt.max_change <= 4


class TestRefusal:
    @pytest.mark.parametrize("blocks", [0, 3])
    def test_without_room(self, blocks):
        original = frame()
        before = original.samples.copy()
        with pytest.raises(CapacityError, match=r"^frame 2: "):
            embed(original, ABOUT, RING, drawn(blocks=blocks))
        assert np.array_equal(original.samples, before)

    def test_where_a_forced_region_covers_everything(self):
        covered = replace(frame(), forced_roi=(Rectangle(0, 0, 256, 256),))
        with pytest.raises(CapacityError):
            embed(covered, ABOUT, RING, drawn())

    def test_smaller_than_a_block(self):
        with pytest.raises(CapacityError):
            embed(
                Frame(np.zeros((1, 7, 40), np.int32), 0, 255), ABOUT, RING, Drawn(np.zeros((0, 5), np.bool_))
            )


class TestReadBack:
    """A marked frame that does not read back is never released, whatever broke."""

    @staticmethod
    def spoiled(monkeypatch: pytest.MonkeyPatch, spoil) -> None:
        for module in (tile_framing, global_framing):
            honest = module.embed

            def broken(*args, _honest=honest, **kwargs):
                marked = _honest(*args, **kwargs)
                if marked is not None:
                    spoil(marked)
                return marked

            monkeypatch.setattr(module, "embed", broken)

    @pytest.mark.parametrize("framing", [Framing.TILE, Framing.GLOBAL])
    @pytest.mark.parametrize(
        "place",
        [pytest.param((0, 250, 250), id="roi"), pytest.param((0, 0, 0), id="view"), (0, 1, 1), (0, 65, 67)],
    )
    def test_one_wrong_sample_is_enough(self, monkeypatch, framing, place):
        def spoil(marked: Frame) -> None:
            marked.planes[place] += 1

        original = frame()
        before = original.samples.copy()
        self.spoiled(monkeypatch, spoil)
        with pytest.raises(WatermarkError, match="did not read back"):
            embed(original, ABOUT, RING, drawn(blocks=800), framings=(framing,))
        assert np.array_equal(original.samples, before)

    def test_another_record_is_refused(self, monkeypatch):
        module = sys.modules["blessmark.embed"]
        other = replace(ABOUT, fields={0x00100010: b"Somebody^Else "})
        honest = module.read_back

        def lying(*args, **kwargs):
            found = honest(*args, **kwargs)
            return replace(found, record=describe(frame(), other, drawn(), KEYS))

        monkeypatch.setattr(module, "read_back", lying)
        with pytest.raises(WatermarkError, match="did not read back"):
            embed(frame(), ABOUT, RING, drawn())

    @pytest.mark.parametrize("framing", [Framing.TILE, Framing.GLOBAL])
    def test_sites_that_turn_on_a_changed_pixel_are_refused(self, monkeypatch, framing):
        """Sender and reader agree on the sites of one frame; a reader has the marked one only."""
        honest = sites.find_all_sites

        def fooled(image, *rest):
            found = honest(image, *rest)
            if image is original:
                return found
            predicted = found.every.predicted.copy()
            predicted[found.starts[:-1]] ^= 1
            return replace(found, every=replace(found.every, predicted=predicted))

        original = frame()
        for module in (sites, tile_framing):
            monkeypatch.setattr(module, "find_all_sites", fooled)
        with pytest.raises(WatermarkError, match="sites False, record and pixels True"):
            embed(original, ABOUT, RING, drawn(blocks=800), framings=(framing,))

    def test_a_view_that_turns_on_a_changed_pixel_is_refused(self, monkeypatch):
        """Sender and reader agree on the view of one frame; a reader has the marked one only."""
        module = sys.modules["blessmark.embed"]
        honest = module.shows

        def fooled(image, seen):
            return honest(image, replace(seen, samples=seen.samples + 1))

        monkeypatch.setattr(module, "shows", fooled)
        with pytest.raises(WatermarkError, match="view False"):
            embed(frame(), ABOUT, RING, drawn())


class TestHeaderSeal:
    def test_is_read_by_verify(self):
        sealed = seal_for_header(frame(), ABOUT, RING, drawn())
        verdict = verify(frame(), RING, (drawn(),), header=dict(ABOUT.fields), sealed=sealed)
        assert verdict.finding is Finding.AUTHENTIC
        assert verdict.evidence.framing is Framing.HEADER
        assert verdict.record == describe(frame(), ABOUT, drawn(), KEYS)

    def test_holds_for_one_key_one_frame_and_these_pixels(self):
        sealed = seal_for_header(frame(), ABOUT, RING, drawn())
        altered = frame().samples.copy()
        altered[0, 200, 200] ^= 1
        findings = [
            verify(frame(), Ring(OTHER_KEY), (drawn(),), sealed=sealed).finding,
            verify(replace(frame(), number=3), RING, (drawn(),), sealed=sealed).finding,
            verify(frame().with_samples(altered), RING, (drawn(),), sealed=sealed).finding,
            verify(frame(), RING, (drawn(),), sealed=sealed[:-1] + bytes([sealed[-1] ^ 1])).finding,
        ]
        assert findings == [Finding.UNMARKED, Finding.UNMARKED, Finding.PIXELS_ALTERED, Finding.UNMARKED]

    def test_names_no_patient_in_the_clear(self):
        sealed = seal_for_header(frame(), ABOUT, RING, drawn())
        assert not any(value in sealed for value in ABOUT.fields.values())
        assert len(sealed) < 400
