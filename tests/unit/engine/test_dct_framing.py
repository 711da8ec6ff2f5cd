"""Header, message and seal in the blocks: what is written reads, what is changed shows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from blessmark.carrier import dct_framing
from blessmark.carrier.block_maps import Open, Veiled, maps_for
from blessmark.carrier.dct import cut
from blessmark.payload import crypto
from blessmark.segment import segmenter
from blessmark.segment.anatomy import Anatomy
from blessmark.types import Frame
from tests.phantoms import body_in_air, frame, noise
from tests.strategies import KEY, OTHER_KEY

KEYS, OTHERS = crypto.derive(KEY), crypto.derive(OTHER_KEY)
MESSAGE = bytes(range(60))
OPEN = Open(6)


def air(rows: int = 150, cols: int = 170, channels: int = 1, hi: int = 255) -> Frame:
    return replace(frame(*[noise((rows, cols), 9, seed) for seed in range(channels)], hi=hi), number=3)


def sealed(image: Frame, block_map=OPEN, message: bytes = MESSAGE) -> Frame:
    carried = dct_framing.embed(image, block_map, KEYS, message, 255)
    assert carried is not None
    samples = dct_framing.seal(image, block_map, KEYS, carried, 2, 63.4)
    assert samples is not None
    return image.with_samples(samples)


class TestRoundTrip:
    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize("side", [6, 8, 10])
    def test_reads_what_was_written(self, side, channels):
        marked = sealed(air(channels=channels, rows=340), Open(side))
        reading = dct_framing.read(marked, Open(side), KEYS)
        assert reading is not None
        assert (reading.message, reading.threshold) == (MESSAGE, 255)
        assert reading.seal == dct_framing.Seal(2, 63.0, intact=True, wrong_cells=())

    @pytest.mark.parametrize("name", ["vessels", "anatomy"])
    def test_finds_the_same_blocks_again(self, name):
        image = frame(body_in_air((400, 400), air=30, tissue=150), hi=255)
        block_map = maps_for((segmenter(name),), (6,))[0]
        marked = sealed(image, block_map, MESSAGE[:20])
        reading = dct_framing.read(marked, block_map, KEYS)
        assert reading is not None
        assert reading.message == MESSAGE[:20]

    def test_an_exact_restoration_is_told_as_the_greatest_figure(self):
        image = air()
        carried = dct_framing.embed(image, OPEN, KEYS, MESSAGE, 255)
        samples = dct_framing.seal(image, OPEN, KEYS, carried, 1, float("inf"))
        reading = dct_framing.read(image.with_samples(samples), OPEN, KEYS)
        assert reading.seal == dct_framing.Seal(1, 127.5, intact=True, wrong_cells=())


class TestRoom:
    def test_too_small_an_image_is_refused(self):
        assert dct_framing.embed(air(60, 60), OPEN, KEYS, MESSAGE, 255) is None

    def test_room_for_the_message_alone_is_not_enough(self):
        """The seal needs blocks of its own behind the message."""
        blocks = 8 * (len(MESSAGE) + 8)
        image = air(6 * 4, 6 * (blocks // 4))
        carried = dct_framing.embed(image, OPEN, KEYS, MESSAGE, 255)
        assert carried is not None
        assert dct_framing.seal(image, OPEN, KEYS, carried, 2, 60) is None

    def test_a_message_longer_than_the_header_can_say_does_not_fit(self):
        assert dct_framing.embed(air(), OPEN, KEYS, bytes(65_536), 255) is None

    def test_a_message_cut_off_with_the_image_is_none(self):
        marked = sealed(air())
        cropped = Frame(np.ascontiguousarray(marked.samples[:, :60]), 0, 255, number=3)
        assert dct_framing.read(cropped, OPEN, KEYS) is None


class TestKeys:
    def test_another_key_reads_nothing(self):
        assert dct_framing.read(sealed(air()), OPEN, OTHERS) is None

    @pytest.mark.parametrize("change", [{"number": 4}, {"hi": 511}, {"lo": -1}])
    def test_another_frame_number_or_range_reads_nothing(self, change):
        assert dct_framing.read(replace(sealed(air()), **change), OPEN, KEYS) is None

    def test_an_unmarked_image_reads_nothing(self):
        assert dct_framing.read(air(), OPEN, KEYS) is None
        assert dct_framing.read(Frame(np.zeros((1, 5, 5), np.int32), 0, 255), OPEN, KEYS) is None

    def test_the_key_orders_the_blocks(self):
        ours, others = (dct_framing.Walk(air(), OPEN, keys).first(50) for keys in (KEYS, OTHERS))
        assert not np.array_equal(ours, others)


class TestSeal:
    """Whatever single sample changes, by however little, the seal breaks or the message is gone."""

    @pytest.mark.parametrize("step", [1, 2, 64])
    def test_covers_every_sample(self, step):
        image = air(130, 140)
        marked = sealed(image, message=MESSAGE[:6])
        rng = np.random.default_rng(step)
        for row, col in zip(rng.integers(0, 130, 150), rng.integers(0, 140, 150), strict=True):
            samples = marked.samples.copy()
            samples[0, row, col] += step
            reading = dct_framing.read(marked.with_samples(samples), OPEN, KEYS)
            assert reading is None or reading.seal is None or not reading.seal.intact

    def test_covers_its_own_bits_and_blocks(self):
        image = air(130, 140)
        marked = sealed(image, message=MESSAGE[:6])
        walk = dct_framing.Walk(marked, OPEN, KEYS)
        carriers = len(dct_framing.read(marked, OPEN, KEYS).places)
        _, sites = dct_framing._seal_sites(marked, walk, carriers)
        for site in sites[::7]:
            for bit in (1, 2):
                samples = marked.samples.copy()
                samples.reshape(-1)[site] ^= bit
                assert not dct_framing.read(marked.with_samples(samples), OPEN, KEYS).seal.intact

    def test_says_where(self):
        marked = sealed(air(300, 300))
        used = dct_framing.read(marked, OPEN, KEYS).places
        spare = next(
            (r, c) for r in range(31, 40) for c in range(31, 40) if r * 50 + c not in set(used.tolist())
        )
        samples = marked.samples.copy()
        samples[0, spare[0] * 6, spare[1] * 6] += 1
        reading = dct_framing.read(marked.with_samples(samples), OPEN, KEYS)
        tile = (spare[0] * 6 // 64) * 5 + spare[1] * 6 // 64
        assert reading.seal.wrong_cells == (tile,)

    @pytest.mark.parametrize("hi", [254, 255])
    def test_keeps_the_range(self, hi):
        """With an even number of steps the greatest value has no partner and takes no part."""
        samples = np.where(noise((200, 200), 2) == 1, hi, hi - 9)[None].astype(np.int32)
        marked = sealed(Frame(samples, 0, hi))
        assert marked.samples.max() <= hi
        assert dct_framing.read(marked, OPEN, KEYS).seal.intact

    def test_makes_no_padding(self):
        image = frame(noise((200, 200), 5) + 1, hi=255, padding=(0, 0))
        marked = sealed(image)
        assert marked.samples.min() >= 1

    def test_moves_on_where_it_would_switch_a_block(self):
        """A map that calls every sixteenth sum region of interest, whatever the block shows."""

        class Picky(Open):
            def bound(self, image: Frame):
                bound = super().bound(image)
                honest = bound.stays
                bound.stays = lambda places, blocks: (
                    honest(places, blocks) & (blocks.sum(axis=(2, 3)) % 16 != 3)
                )
                return bound

        image, block_map = air(500, 500), Picky(6)
        marked = sealed(image, block_map, MESSAGE[:8])
        reading = dct_framing.read(marked, block_map, KEYS)
        assert reading.message == MESSAGE[:8]
        assert reading.seal.intact


def test_nothing_outside_the_blocks_that_may_be_used_changes():
    image = frame(body_in_air((420, 420)))
    block_map = Veiled(Anatomy(), 6)
    carried = dct_framing.embed(image, block_map, KEYS, MESSAGE[:20], 1040)
    samples = dct_framing.seal(image, block_map, KEYS, carried, 2, 50)
    changed = cut((samples != image.samples).astype(np.int32), 6).any(axis=(2, 3, 4))
    assert changed.any()
    assert block_map.bound(image).free[changed].all()
    assert int((samples != image.samples).sum()) == int((cut(samples, 6) != cut(image.samples, 6)).sum())
