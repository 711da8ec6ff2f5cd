"""Which blocks the `dct` carrier may use, and that a reader finds the same ones."""

from __future__ import annotations

import numpy as np
import pytest

from blessmark.carrier import block_maps
from blessmark.carrier.dct import SIDES, cut
from blessmark.roi import pixel_mask
from blessmark.segment import segmenter
from blessmark.segment.anatomy import Anatomy
from blessmark.segment.block import packaged
from blessmark.types import Frame, IntArray, Lattice, Rectangle
from blessmark.view import invariant_view
from tests.phantoms import body, body_in_air, frame, noise
from tests.strategies import Drawn


@pytest.fixture(params=SIDES)
def side(request) -> int:
    return request.param


def carriers(found: block_maps.BlockMap, image: Frame) -> np.ndarray:
    """bool [rows // side, cols // side]: blocks that may carry."""
    bound = found.bound(image)
    places = np.flatnonzero(bound.free)
    blocks = cut(image.samples, found.side).reshape(-1, image.channels, found.side, found.side)
    result = np.zeros_like(bound.free)
    result.flat[places] = bound.stays(places, blocks[places]).all(axis=1)
    return result


def pixels_of(blocks: np.ndarray, side: int, image: Frame) -> np.ndarray:
    mask = np.zeros((1, image.rows, image.cols), np.int32)
    cut(mask, side)[blocks] = 1
    return mask[0] == 1


def scrambled(image: Frame, blocks: np.ndarray, side: int, levels: int) -> Frame:
    """The image with other content in those blocks."""
    samples = image.samples.copy()
    change = noise(samples.shape[1:], levels, seed=5)
    samples[:, pixels_of(blocks, side, image)] += change[pixels_of(blocks, side, image)]
    return image.with_samples(samples)


class TestChoice:
    def test_follows_the_segmenter(self):
        named = {
            name: [each.id for each in block_maps.maps_for((segmenter(name),), (8,))]
            for name in ("vessels", "anatomy", "whole")
        }
        assert named == {
            "vessels": [packaged(8).id],
            "anatomy": ["veiled-anatomy-8/1"],
            "whole": ["whole-8/1"],
        }

    def test_gives_each_map_once(self):
        found = block_maps.maps_for((segmenter("anatomy"), Anatomy(), segmenter("whole")))
        assert [each.id for each in found] == [
            f"{name}-{side}/1" for name in ("veiled-anatomy", "whole") for side in SIDES
        ]


class TestVeiled:
    def test_is_the_same_whatever_is_in_the_blocks_that_may_be_used(self, side):
        image = frame(body_in_air((160, 200)))
        found = block_maps.Veiled(Anatomy(), side)
        free = found.bound(image).free
        assert free.any()
        assert np.array_equal(found.bound(scrambled(image, free, side, 4000)).free, free)

    def test_is_outside_the_body_as_the_whole_image_shows_it(self, side):
        image = frame(body_in_air((256, 256)))
        used = pixels_of(carriers(block_maps.Veiled(Anatomy(), side), image), side, image)
        view = invariant_view(image, Lattice.QUARTER)
        roi = pixel_mask(Anatomy().roi_blocks(view), image.rows, image.cols)
        assert used.sum() > 2000
        assert not (used & body((256, 256))).any()
        assert (used & roi).sum() < 0.02 * used.sum()

    def test_uses_every_second_block_and_none_at_the_border(self, side):
        image = frame(np.zeros((100, 120), np.int32))
        free = block_maps.Veiled(Drawn(np.zeros((12, 15), np.bool_)), side).bound(image).free
        row, col = np.nonzero(free)
        assert ((row + col) % 2 == 1).all()
        assert row.min() > 0
        assert col.min() > 0
        assert row.max() < free.shape[0] - 1
        assert 0.3 < free.mean() < 0.5

    def test_spares_what_hides_in_a_hidden_block(self, side):
        """A mark smaller than a block, amid air: no segmenter sees it, so the block itself is looked at."""
        plane = noise((120, 120), 3)
        found = block_maps.Veiled(Drawn(np.zeros((15, 15), np.bool_)), side)
        row, col = np.argwhere(found.bound(frame(plane)).free)[4]
        plane[row * side + 2, col * side + 2] = 90
        free = found.bound(frame(plane)).free
        assert free[row, col]
        assert not carriers(found, frame(plane))[row, col]
        assert carriers(found, frame(plane)).sum() == free.sum() - 1

    def test_flat_background_stays_flat(self, side):
        """`anatomy` knows synthetic fill by its being exactly constant."""
        samples = np.full((1, 90, 90), 17, np.int32)
        hidden = block_maps._hidden(Frame(samples, 0, 255), side)
        assert np.array_equal(block_maps._veiled(samples, side, hidden), samples)


class TestBlocks:
    def test_ask_the_network_about_the_middle_channel(self, side):
        image = Frame(np.stack([noise((64, 80), 200, seed) for seed in range(3)]), 0, 255)
        found = block_maps.maps_for((segmenter("vessels"),), (side,))[0]
        network = block_maps.packaged(side)
        assert np.array_equal(carriers(found, image), ~network.roi_map(image.samples, 0, 255))

    def test_know_nothing_of_places(self, side):
        image = frame(noise((60, 60), 50), hi=255)
        bound = block_maps.maps_for((segmenter("vessels"),), (side,))[0].bound(image)
        blocks: IntArray = cut(image.samples, side)[0, :3]
        places = np.array([5, 0, 9])
        assert np.array_equal(bound.stays(places, blocks), bound.stays(places[::-1], blocks))


@pytest.mark.parametrize("name", ["vessels", "anatomy", "whole"])
class TestEveryMap:
    def test_spares_forced_rectangles(self, name, side):
        forced = (Rectangle(20, 30, 41, 52), Rectangle(-5, -5, 1, 1), Rectangle(90, 90, 400, 400))
        image = frame(np.zeros((128, 128), np.int32), forced_roi=forced)
        used = pixels_of(carriers(block_maps.maps_for((segmenter(name),), (side,))[0], image), side, image)
        assert not any(used[r.top : r.bottom, r.left : r.right].any() for r in forced[:1] + forced[2:])
        assert not used[0, 0]

    def test_spares_padding_and_what_lies_beyond_it(self, name, side):
        plane = noise((120, 120), 3) + 10
        plane[:40, :50] = 2
        plane[100, 100] = 0  # below the padding: out of the bounds that embedding keeps
        image = frame(plane, padding=(1, 3))
        used = pixels_of(carriers(block_maps.maps_for((segmenter(name),), (side,))[0], image), side, image)
        assert not used[plane <= 3].any()


def test_a_veiled_map_is_not_kept_for_a_frame_that_looks_otherwise() -> None:
    image = frame(body_in_air((256, 256)))
    (veiled,) = block_maps.maps_for((Anatomy(),), (8,))
    first = veiled.bound(image)
    assert veiled.bound(image) is first
    visible = image.samples.copy()
    visible[:, :8, :8] += 500
    for other in (
        image.with_samples(visible),
        Frame(image.samples, 0, 8191),
        Frame(image.samples, 0, 4095, (0, 3)),
        Frame(image.samples, 0, 4095, None, 1, (Rectangle(0, 0, 90, 90),)),
    ):
        again = veiled.bound(other)
        assert again is not first
        (fresh,) = block_maps.maps_for((Anatomy(),), (8,))
        assert np.array_equal(again.free, fresh.bound(other).free)
