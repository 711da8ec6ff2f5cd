"""Reading blocks: the reader finds carrier, side and map by itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from blessmark.carrier import dct_framing
from blessmark.carrier.block_maps import maps_for
from blessmark.embed import describe, embed
from blessmark.embed_dct import embed_dct
from blessmark.extract_dct import context, extract_dct, read
from blessmark.payload import crypto, record
from blessmark.segment import segmenter
from blessmark.types import BlockSettings, Frame, Tier
from tests.phantoms import body_in_air, frame, noise
from tests.strategies import ABOUT, KEY, OTHER_KEY, RING, Ring

ANATOMY, VESSELS, WHOLE = (segmenter(name) for name in ("anatomy", "vessels", "whole"))
IMAGE = frame(body_in_air((640, 640)))


@pytest.mark.parametrize("side", [6, 8, 10])
def test_finds_the_side(side):
    done = embed_dct(IMAGE, ABOUT, RING, ANATOMY, BlockSettings(side))
    found = extract_dct(done.frame, RING, (ANATOMY,))
    assert found is not None
    assert found.record.fields == ABOUT.fields
    assert found.record.segmenter == found.block_map.id == f"veiled-anatomy-{side}/1"
    assert found.seal.intact


def test_finds_the_map_and_the_key():
    done = embed_dct(IMAGE, ABOUT, RING, WHOLE)
    found = extract_dct(done.frame, Ring(OTHER_KEY, KEY), (ANATOMY, VESSELS, WHOLE))
    assert (found.key, found.block_map.id) == (KEY, "whole-6/1")


def test_a_map_is_drawn_once_for_all_keys():
    drawn = []

    class Counted:
        id, reach_px = ANATOMY.id, None

        def roi_blocks(self, view):
            drawn.append(view)
            return ANATOMY.roi_blocks(view)

    assert extract_dct(IMAGE, Ring(OTHER_KEY, KEY), (Counted(),)) is None
    assert len(drawn) == 3  # one for each side


def test_finds_nothing_where_nothing_is():
    marked = embed_dct(IMAGE, ABOUT, RING, ANATOMY).frame
    assert extract_dct(IMAGE, RING, (ANATOMY, WHOLE)) is None
    assert extract_dct(marked, Ring(OTHER_KEY), (ANATOMY,)) is None
    assert extract_dct(marked, RING, (WHOLE,)) is None
    assert extract_dct(embed(IMAGE, ABOUT, RING, ANATOMY).frame, RING, (ANATOMY,)) is None


def test_a_message_with_a_wrong_bit_does_not_open():
    done = embed_dct(IMAGE, ABOUT, RING, ANATOMY).frame
    block_map = maps_for((ANATOMY,), (6,))[0]
    samples = done.samples.copy()
    last = dct_framing.read(done, block_map, crypto.derive(KEY)).places[-1]
    row, col = np.divmod(last, IMAGE.cols // 6)
    block = samples[0, row * 6 : row * 6 + 6, col * 6 : col * 6 + 6]
    block[:] = block.T.copy()
    found = read(done.with_samples(samples), block_map, KEY)
    assert found.record is None
    assert np.array_equal(found.restored, samples)


def test_a_message_is_bound_to_the_carrier_and_the_side():
    contexts = {context(IMAGE, 6), context(IMAGE, 8), crypto.context(IMAGE)}
    assert len(contexts) == 3


def test_an_unknown_detector_leaves_the_samples_alone():
    """A later version may name one that this one lacks; the record and the seal are read all the same."""
    block_map, keys = maps_for((ANATOMY,), (6,))[0], crypto.derive(KEY)
    sent = record.reduce(describe(IMAGE, ABOUT, ANATOMY, keys), Tier.SEAL)
    message = crypto.seal_message(keys, record.encode(sent), context(IMAGE, 6))
    carried = dct_framing.embed(IMAGE, block_map, keys, message, 900)
    samples = dct_framing.seal(IMAGE, block_map, keys, carried, 9, 61.0)
    found = read(IMAGE.with_samples(samples), block_map, KEY)
    assert found.seal.intact
    assert found.record.pixel_digest == sent.pixel_digest
    assert np.array_equal(found.restored, samples)


def test_every_frame_is_an_image_of_its_own():
    image = Frame(np.stack([noise((300, 300), 6, s) for s in range(3)]) + 20, 0, 255, number=7)
    done = embed_dct(image, replace(ABOUT, frames=9), RING, WHOLE)
    assert extract_dct(done.frame, RING, (WHOLE,)).record.frame == 7
    assert extract_dct(replace(done.frame, number=8), RING, (WHOLE,)) is None
