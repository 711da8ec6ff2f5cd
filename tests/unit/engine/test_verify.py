"""What a reader with the key says about a frame that was left alone, altered, replaced or never protected."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from blessmark.carrier import dct_framing
from blessmark.carrier.block_maps import maps_for
from blessmark.embed import embed, seal_for_header
from blessmark.embed_dct import embed_dct
from blessmark.payload import crypto
from blessmark.payload.crypto import fingerprint
from blessmark.payload.record import Grid
from blessmark.segment.anatomy import Anatomy
from blessmark.segment.whole import Whole
from blessmark.types import About, Finding, Frame, Framing, Tier, TileState, Verdict
from blessmark.verify import altered_fields, verify
from tests.phantoms import blocks_of, body, body_in_air, frame, noise
from tests.strategies import ABOUT, KEY, OTHER_KEY, RING, Drawn, Ring

SHAPE = (512, 512)
PLANE = body_in_air(SHAPE)
IMAGE = frame(PLANE)
ROI = blocks_of(body(SHAPE), grown_by=1)
DRAWN = Drawn(ROI)
DONE = embed(IMAGE, ABOUT, RING, DRAWN)
MARKED = DONE.frame
HEADER = dict(ABOUT.fields)
IN_ROI, BESIDE = (256, 256), (40, 300)


#: the same image by the carrier `dct`, with room all around the body
LARGE = frame(body_in_air((640, 640)))
IN_BLOCKS = embed_dct(LARGE, ABOUT, RING, Anatomy()).frame


def judge(image: Frame, ring: Ring = RING, **options) -> Verdict:
    return verify(image, ring, [DRAWN], **options)


def changed(image: Frame, rows: slice | int, cols: slice | int, value) -> Frame:
    samples = image.samples.copy()
    samples[:, rows, cols] = value
    return image.with_samples(samples)


def one_more(image: Frame, row: int, col: int) -> Frame:
    return changed(image, row, col, image.samples[:, row, col] + 1)


def test_an_untouched_frame_is_authentic():
    verdict = judge(MARKED, header=HEADER)

    assert verdict.finding is Finding.AUTHENTIC
    assert verdict.exact
    assert verdict.record.fields == ABOUT.fields
    assert (verdict.restored.samples == IMAGE.samples).all()
    evidence = verdict.evidence
    assert (evidence.key_id, evidence.framing, evidence.tier) == (KEY.id, Framing.TILE, Tier.FULL)
    assert evidence.altered_tiles == ()
    assert set(np.unique(evidence.tiles)) == {TileState.QUIET, TileState.PACKET}
    assert evidence.packets == (evidence.tiles == TileState.PACKET).sum() > 0
    assert evidence.changed_samples == DONE.receipt.changed_samples
    assert evidence.psnr_db == DONE.receipt.psnr_db


@pytest.mark.parametrize(
    ("value", "altered"), [(b"Phantom^Test ", False), (b"Phantom^Test\0", False), (b"Phantom^Tost", True)]
)
def test_a_header_that_disagrees_is_reported(value, altered):
    verdict = judge(MARKED, header=HEADER | {0x00100010: value})

    assert verdict.finding is (Finding.HEADER_ALTERED if altered else Finding.AUTHENTIC)
    assert verdict.evidence.altered_fields == ((0x00100010,) if altered else ())
    assert verdict.exact


def test_a_missing_field_counts_as_altered_and_an_added_one_does_not():
    header = {tag: value for tag, value in HEADER.items() if tag != 0x00100020} | {0x00100030: b"19700101"}

    assert altered_fields(judge(MARKED).record, header) == (0x00100020,)


@pytest.mark.parametrize("name", ["M\xfcller".encode("latin-1"), b"\x1b$B;3ED"])
def test_another_character_set_makes_another_name_of_the_same_bytes(name):
    sent = replace(judge(MARKED).record, fields={0x00100010: name}, charset=b"ISO_IR 100")
    header = {0x00100010: name, 0x00080018: b"2.25.1234567890"}

    assert altered_fields(sent, header | {0x00080005: b"ISO_IR 100"}) == ()
    assert altered_fields(sent, header | {0x00080005: b"ISO_IR 144"}) == (0x00080005,)
    assert altered_fields(sent, header) == (0x00080005,)
    plain = {0x00100010: b"Mueller"}
    assert altered_fields(replace(sent, fields=plain), header | plain) == ()


@pytest.mark.parametrize(
    ("uid", "altered"), [(b"2.25.1234567890\0", ()), (b"2.25.99", (0x00080018,)), (b"", (0x00080018,))]
)
def test_a_record_without_the_uid_is_still_bound_to_it(uid, altered):
    sealed = replace(judge(MARKED).record, fields={})

    assert altered_fields(sealed, {0x00080018: uid}) == altered


@pytest.mark.parametrize(("row", "col"), [IN_ROI, BESIDE, (41, 301), (511, 0), (0, 511)])
def test_one_pixel_is_located_to_its_tile(row, col):
    assert Grid.of(*SHAPE).step == 1

    verdict = judge(one_more(MARKED, row, col), header=HEADER)

    assert verdict.finding is Finding.PIXELS_ALTERED
    assert not verdict.exact
    assert verdict.evidence.altered_tiles == ((row // 64, col // 64),)
    assert verdict.evidence.localisation == "exact"


def test_altered_pixels_outrank_an_altered_header():
    verdict = judge(one_more(MARKED, *IN_ROI), header=HEADER | {0x00100010: b"Other"})

    assert verdict.finding is Finding.PIXELS_ALTERED
    assert verdict.evidence.altered_fields == (0x00100010,)


def test_without_digests_a_silent_tile_is_altered():
    """A message so long that the digests were left out."""
    description = noise((1, 90), 256).astype(np.uint8).tobytes()
    about = replace(ABOUT, fields={**ABOUT.fields, 0x00081030: description})
    roi = np.ones((32, 32), bool)
    roi[:8] = roi[-8:] = False
    image, segmenter = frame(body_in_air()), Drawn(roi)
    done = embed(image, about, RING, segmenter, framings=(Framing.TILE,))
    assert not done.receipt.localised

    verdict = verify(one_more(done.frame, 5, 70), RING, [segmenter])

    assert verdict.finding is Finding.PIXELS_ALTERED
    assert verdict.evidence.altered_tiles == ((0, 1),)


@pytest.mark.parametrize("top", [100, 230], ids=["beside", "inside"])
@pytest.mark.parametrize("value", [0, 4095, None], ids=["black", "white", "noise"])
def test_a_patch_is_located_and_the_rest_restored(top, value):
    rows, cols = slice(top, top + 100), slice(190, 290)
    patch = noise((100, 100), 4096) if value is None else value

    verdict = judge(changed(MARKED, rows, cols, patch))

    tiles = {(row, col) for row in range(top // 64, (top + 99) // 64 + 1) for col in range(2, 5)}
    assert verdict.finding is Finding.PIXELS_ALTERED
    assert set(verdict.evidence.altered_tiles) == tiles
    different = np.argwhere(verdict.restored.samples[0] != IMAGE.samples[0]) // 64
    assert {tuple(tile) for tile in different.tolist()} <= tiles


def test_a_tile_of_another_image_is_foreign():
    other = embed(frame(PLANE[::-1].copy()), replace(ABOUT, node="else"), RING, DRAWN).frame
    verdict = judge(changed(MARKED, slice(0, 64), slice(64, 128), other.samples[:, :64, 64:128]))

    assert verdict.finding is Finding.PIXELS_ALTERED
    assert verdict.evidence.tiles[0, 1] == TileState.FOREIGN
    assert verdict.evidence.altered_tiles == ((0, 1),)


def test_the_carrier_of_another_image_is_not_authentic():
    """All background of one image on the body of another: every packet covers pixels that differ."""
    bodies = PLANE.copy()
    bodies[body(SHAPE)] += 1 + noise(SHAPE, 3)[body(SHAPE)]
    other = embed(frame(bodies), replace(ABOUT, node="else"), RING, DRAWN).frame
    outside = ~ROI.repeat(8, 0).repeat(8, 1)
    samples = np.where(outside, other.samples, MARKED.samples)

    assert judge(MARKED.with_samples(samples)).finding is Finding.PIXELS_ALTERED


@pytest.mark.parametrize("key", [KEY, OTHER_KEY], ids=["same key", "another key"])
def test_a_second_watermark_is_no_proof_for_the_first(key):
    about = About(sop_instance_uid="2.25.9", fields={0x00100010: b"Other^Name"})
    again = embed(MARKED, about, Ring(key), DRAWN).frame

    verdict = judge(again, Ring(KEY, OTHER_KEY), header=HEADER)

    assert verdict.finding is Finding.HEADER_ALTERED
    assert verdict.evidence.key_id == key.id
    assert (verdict.restored.samples == MARKED.samples).all()


@pytest.mark.parametrize(
    ("ring", "hints", "finding"),
    [
        (Ring(OTHER_KEY), (), Finding.UNMARKED),
        (Ring(OTHER_KEY), (fingerprint(KEY),), Finding.WRONG_KEY),
        (Ring(OTHER_KEY), (fingerprint(KEY), fingerprint(OTHER_KEY)), Finding.DAMAGED),
        (Ring(OTHER_KEY, KEY), (fingerprint(KEY),), Finding.AUTHENTIC),
        (RING, (fingerprint(OTHER_KEY),), Finding.AUTHENTIC),
    ],
    ids=["no hint", "hint to a key that is missing", "hint to a key that is held", "two keys", "false hint"],
)
def test_what_the_keys_say(ring, hints, finding):
    assert judge(MARKED, ring, hinted_keys=hints).finding is finding


@pytest.mark.parametrize(
    ("hints", "finding"),
    [((), Finding.UNMARKED), ((fingerprint(KEY),), Finding.DAMAGED), ((b"else",), Finding.WRONG_KEY)],
)
def test_a_ruined_frame_is_damaged_only_where_the_header_names_our_key(hints, finding):
    ruined = MARKED.with_samples(MARKED.samples ^ noise(SHAPE, 8)[None])

    verdict = judge(ruined, hinted_keys=hints)

    assert verdict.finding is finding
    assert verdict.record is None
    assert verdict.restored is None
    assert verdict.evidence.tiles is None


def test_a_frame_with_too_few_packets_is_damaged():
    lost = changed(MARKED, slice(64, None), slice(None), 0)
    lost = changed(lost, slice(None), slice(64, None), 0)

    verdict = judge(lost)

    assert verdict.finding is Finding.DAMAGED
    assert verdict.evidence.packets == 1
    assert verdict.evidence.shards_needed > 1
    assert verdict.evidence.localisation == "none"
    assert (verdict.restored.samples[:, :64, :64] == IMAGE.samples[:, :64, :64]).all()


@pytest.mark.parametrize("number", [2, 65536])
def test_a_frame_in_the_place_of_another_is_unmarked(number):
    assert judge(replace(MARKED, number=number)).finding is Finding.UNMARKED


def test_colour_is_judged_as_a_whole():
    image = frame(PLANE // 20, PLANE // 21, PLANE // 22, hi=255)
    marked = embed(image, ABOUT, RING, DRAWN).frame
    samples = marked.samples.copy()
    samples[1, 256, 256] += 1

    assert judge(marked).finding is Finding.AUTHENTIC
    assert (judge(marked).restored.samples == image.samples).all()
    verdict = judge(marked.with_samples(samples))
    assert verdict.finding is Finding.PIXELS_ALTERED
    assert verdict.evidence.altered_tiles == ((4, 4),)


def test_a_mark_over_the_whole_image_is_judged():
    marked = embed(IMAGE, ABOUT, RING, Whole()).frame

    verdict = verify(marked, RING, [Anatomy(), Whole()])

    assert verdict.finding is Finding.AUTHENTIC
    assert verdict.evidence.segmenter == "whole/1"
    verdict = verify(one_more(marked, *IN_ROI), RING, [Anatomy(), Whole()])
    assert verdict.evidence.altered_tiles == ((4, 4),)


def test_global_framing_is_located_by_its_digests():
    marked = embed(IMAGE, ABOUT, RING, DRAWN, framings=(Framing.GLOBAL,)).frame

    assert judge(marked).finding is Finding.AUTHENTIC
    verdict = judge(one_more(marked, *IN_ROI))
    assert verdict.finding is Finding.PIXELS_ALTERED
    assert verdict.evidence.altered_tiles == ((4, 4),)


class TestSealedHeader:
    sealed = seal_for_header(IMAGE, ABOUT, RING, DRAWN)

    def test_the_original_is_authentic(self):
        verdict = judge(IMAGE, sealed=self.sealed, header=HEADER)

        assert verdict.finding is Finding.AUTHENTIC
        assert verdict.evidence.framing is Framing.HEADER
        assert verdict.record.fields == ABOUT.fields

    def test_one_pixel_is_located(self):
        verdict = judge(one_more(IMAGE, *IN_ROI), sealed=self.sealed)

        assert verdict.finding is Finding.PIXELS_ALTERED
        assert verdict.evidence.altered_tiles == ((4, 4),)

    def test_an_altered_header_is_reported(self):
        verdict = judge(IMAGE, sealed=self.sealed, header={})

        assert verdict.finding is Finding.HEADER_ALTERED
        assert verdict.evidence.altered_fields == tuple(sorted(ABOUT.fields))

    @pytest.mark.parametrize("sealed", [b"", bytes(16), bytes(300), sealed[:-1]])
    def test_a_broken_seal_is_none(self, sealed):
        assert judge(IMAGE, sealed=sealed).finding is Finding.UNMARKED

    def test_every_key_is_tried(self):
        verdict = judge(IMAGE, Ring(OTHER_KEY, KEY), sealed=self.sealed)

        assert verdict.evidence.key_id == KEY.id

    def test_the_pixels_come_first(self):
        """A watermark in the pixels outranks a seal in the header, which anybody may have replaced."""
        assert judge(MARKED, sealed=self.sealed).evidence.framing is Framing.TILE


#: two sets of weights that agree in the upper half of the image
SPECKLED = Drawn(
    ROI | ((noise(ROI.shape, 3) == 0) & (np.indices(ROI.shape)[0] >= 32)), id="net/1-0123456789ab"
)
OTHER_WEIGHTS = Drawn(
    ROI | ((noise(ROI.shape, 3) == 1) & (np.indices(ROI.shape)[0] >= 32)), id="net/1-a9876543210b"
)
BY_WEIGHTS = embed(IMAGE, ABOUT, RING, SPECKLED).frame
MINE = (fingerprint(KEY),)


@pytest.mark.parametrize(
    ("held", "hints", "finding"),
    [
        (OTHER_WEIGHTS, (), Finding.UNKNOWN_SEGMENTER),
        (OTHER_WEIGHTS, (SPECKLED.id,), Finding.UNKNOWN_SEGMENTER),
        (OTHER_WEIGHTS, (OTHER_WEIGHTS.id,), Finding.UNKNOWN_SEGMENTER),
        (SPECKLED, (OTHER_WEIGHTS.id,), Finding.AUTHENTIC),
    ],
    ids=["no hint", "true hint", "false hint", "false hint, right map"],
)
def test_the_record_says_that_the_map_was_another_one(held, hints, finding):
    """Many tiles read all the same; those that do not are no evidence of tampering."""
    verdict = verify(BY_WEIGHTS, RING, [held], hinted_keys=MINE, hinted_segmenters=hints)

    assert verdict.finding is finding
    assert verdict.record.segmenter == SPECKLED.id
    if finding is Finding.UNKNOWN_SEGMENTER:
        assert verdict.evidence.segmenter == SPECKLED.id
        assert verdict.evidence.altered_tiles == ()
        assert not verdict.exact


def test_a_header_is_compared_with_a_genuine_record_even_where_its_map_is_lacking():
    header = dict(ABOUT.fields) | {0x00100010: b"Another^Name"}
    verdict = verify(BY_WEIGHTS, RING, [OTHER_WEIGHTS], header=header)

    assert verdict.finding is Finding.UNKNOWN_SEGMENTER
    assert verdict.evidence.altered_fields == (0x00100010,)


def test_tampering_is_still_told_where_the_segmenter_is_held():
    verdict = verify(
        one_more(MARKED, *IN_ROI), RING, [OTHER_WEIGHTS, DRAWN], hinted_segmenters=("nonesuch/1",)
    )

    assert verdict.finding is Finding.PIXELS_ALTERED


@pytest.mark.parametrize(
    ("keys", "hints", "finding"),
    [
        (MINE, ("vessels/2-ba9876543210",), Finding.UNKNOWN_SEGMENTER),
        (MINE, (DRAWN.id,), Finding.DAMAGED),
        (MINE, (), Finding.DAMAGED),
        ((b"else",), ("vessels/2-ba9876543210",), Finding.WRONG_KEY),
        ((), ("vessels/2-ba9876543210",), Finding.UNMARKED),
    ],
)
def test_where_nothing_is_found_the_header_may_say_why(keys, hints, finding):
    ruined = MARKED.with_samples(MARKED.samples ^ noise(SHAPE, 8)[None])

    verdict = judge(ruined, hinted_keys=keys, hinted_segmenters=hints)

    assert verdict.finding is finding
    assert verdict.evidence.segmenter == (hints[0] if finding is Finding.UNKNOWN_SEGMENTER else "")


def test_too_few_packets_may_be_the_fault_of_another_map():
    lost = changed(MARKED, slice(64, None), slice(None), 0)
    lost = changed(lost, slice(None), slice(64, None), 0)

    verdict = judge(lost, hinted_keys=MINE, hinted_segmenters=("vessels/2-ba9876543210",))

    assert verdict.finding is Finding.UNKNOWN_SEGMENTER
    assert verdict.evidence.segmenter == "vessels/2-ba9876543210"


def test_a_map_that_is_right_in_some_tiles_only_does_not_accuse_the_others():
    """The record opens by the first segmenter's map; the pixels are restored by the one that it names."""
    assert not verify(BY_WEIGHTS, RING, [OTHER_WEIGHTS]).exact

    verdict = verify(BY_WEIGHTS, RING, [OTHER_WEIGHTS, SPECKLED])

    assert verdict.finding is Finding.AUTHENTIC
    assert verdict.evidence.segmenter == SPECKLED.id


class TestBlocks:
    """Frames that the carrier `dct` marked: the seal proves them as released, restoring is approximate."""

    @staticmethod
    def judge(image: Frame, **options) -> Verdict:
        return verify(image, RING, (Anatomy(),), **options)

    def test_untouched_they_are_authentic_and_not_exact(self):
        verdict = self.judge(IN_BLOCKS, header=HEADER)
        assert verdict.finding is Finding.AUTHENTIC
        assert verdict.approximate
        assert not verdict.exact
        evidence = verdict.evidence
        assert (evidence.framing, evidence.block_px, evidence.lattice) == (Framing.BLOCKS, 6, None)
        assert evidence.segmenter == verdict.record.segmenter == "veiled-anatomy-6/1"
        assert evidence.altered_tiles == ()
        assert evidence.restored_psnr_db > evidence.psnr_db

    @pytest.mark.parametrize("place", [(320, 320), (3, 3), (639, 0)])
    def test_one_step_of_one_sample_is_located(self, place):
        verdict = self.judge(one_more(IN_BLOCKS, *place))
        assert verdict.finding is Finding.PIXELS_ALTERED
        cell = tuple(2 * (side // 128) for side in place)
        assert cell in verdict.evidence.altered_tiles, "cells of this image are 2 x 2 tiles"
        assert len(verdict.evidence.altered_tiles) <= 4
        assert not verdict.approximate
        assert verdict.evidence.restored_psnr_db is None

    def test_a_header_that_differs_is_named(self):
        verdict = self.judge(IN_BLOCKS, header={**HEADER, 0x00100020: b"other"})
        assert verdict.finding is Finding.HEADER_ALTERED
        assert verdict.evidence.altered_fields == (0x00100020,)
        assert verdict.approximate

    def test_a_wrong_bit_of_the_message_is_damage(self):
        block_map = maps_for((Anatomy(),), (6,))[0]
        last = int(dct_framing.read(IN_BLOCKS, block_map, crypto.derive(KEY)).places[-1])
        row, col = divmod(last, 640 // 6)
        block = IN_BLOCKS.samples[:, 6 * row : 6 * row + 6, 6 * col : 6 * col + 6]
        there = slice(6 * row, 6 * row + 6), slice(6 * col, 6 * col + 6)
        verdict = self.judge(changed(IN_BLOCKS, *there, block.swapaxes(1, 2).copy()))
        assert verdict.finding is Finding.DAMAGED
        assert verdict.restored is None

    def test_without_the_key_nothing_is_there(self):
        ring = Ring(OTHER_KEY)
        assert verify(IN_BLOCKS, ring, (Anatomy(),)).finding is Finding.UNMARKED
        hinted = verify(IN_BLOCKS, ring, (Anatomy(),), hinted_keys=[fingerprint(KEY)])
        assert hinted.finding is Finding.WRONG_KEY

    def test_a_record_in_the_pixels_outweighs_one_in_the_header_that_does_not_fit(self):
        sealed = seal_for_header(LARGE, ABOUT, RING, Anatomy())
        assert self.judge(LARGE, sealed=sealed).evidence.framing is Framing.HEADER
        assert self.judge(IN_BLOCKS, sealed=sealed).evidence.framing is Framing.BLOCKS


class TestProvenTiles:
    """Of the altered tiles, those that certainly are: what is told of them is never wrong."""

    def test_a_segmenter_that_sees_no_further_than_the_block_proves_every_one(self):
        verdict = judge(changed(MARKED, slice(10, 30), slice(200, 220), 3000))
        assert verdict.evidence.altered_tiles == verdict.evidence.proven_tiles == ((0, 3),)

    def test_one_that_sees_everything_proves_none_by_silence(self):
        marked = embed(IMAGE, ABOUT, RING, Anatomy()).frame
        verdict = verify(changed(marked, slice(30, 190), slice(250, 410), 700), RING, [Anatomy()])
        assert verdict.evidence.altered_tiles
        assert verdict.evidence.proven_tiles == ()

    def test_neighbours_may_have_silenced_each_other_within_reach(self):
        class Seeing(Drawn):
            reach_px = 40

        done = embed(IMAGE, ABOUT, RING, Seeing(ROI)).frame
        both = changed(changed(done, 20, 20, 3000), 20, 90, 3000)
        alone = changed(done, 20, 20, 3000)
        assert verify(both, RING, [Seeing(ROI)]).evidence.proven_tiles == ()
        assert verify(alone, RING, [Seeing(ROI)]).evidence.proven_tiles == ((0, 0),)

    def test_the_packet_of_another_image_proves_its_tile(self):
        theirs = embed(one_more(IMAGE, 300, 300), ABOUT, RING, Anatomy()).frame
        marked = embed(IMAGE, ABOUT, RING, Anatomy()).frame
        samples = marked.samples.copy()
        samples[:, :64, 128:192] = theirs.samples[:, :64, 128:192]
        samples[:, 300, 256] += 9
        verdict = verify(marked.with_samples(samples), RING, [Anatomy()])
        assert verdict.finding is Finding.PIXELS_ALTERED
        assert set(verdict.evidence.proven_tiles) <= set(verdict.evidence.altered_tiles)

    def test_a_sealed_record_proves_its_cells(self):
        sealed = seal_for_header(IMAGE, ABOUT, RING, DRAWN)
        verdict = judge(one_more(IMAGE, *IN_ROI), sealed=sealed)
        assert verdict.evidence.proven_tiles == verdict.evidence.altered_tiles == ((4, 4),)

    def test_the_seal_of_the_other_carrier_proves_its_cells(self):
        verdict = verify(one_more(IN_BLOCKS, 320, 320), RING, [Anatomy()])
        assert verdict.finding is Finding.PIXELS_ALTERED
        step = Grid.of(640, 640).step
        expected = verdict.evidence.altered_tiles if step == 1 else ()
        assert verdict.evidence.proven_tiles == expected
