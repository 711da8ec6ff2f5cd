"""Reading a frame with nothing but the frame and the keys."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from blessmark.embed import embed
from blessmark.extract import Redraws, extract, read, read_again
from blessmark.roi import block_map
from blessmark.segment.anatomy import Anatomy
from blessmark.segment.whole import Whole
from blessmark.types import Frame, Framing, Lattice, Tier
from tests.phantoms import blocks_of, body, body_in_air, frame, noise
from tests.strategies import ABOUT, KEY, OTHER_KEY, RING, Drawn, Ring

SHAPE = (256, 256)
IMAGE = frame(body_in_air())
DRAWN = Drawn(blocks_of(body(SHAPE), grown_by=1))
MARKED = embed(IMAGE, ABOUT, RING, DRAWN).frame


def damaged(image: Frame, where: tuple[slice, slice], value: int) -> Frame:
    samples = image.samples.copy()
    samples[(slice(None), *where)] = value
    return image.with_samples(samples)


@pytest.mark.parametrize("segmenter", [DRAWN, Anatomy(), Whole()], ids=lambda segmenter: segmenter.id)
def test_everything_that_was_embedded_is_read(segmenter):
    marked = embed(IMAGE, ABOUT, RING, segmenter).frame

    found = extract(marked, RING, [segmenter])

    assert found is not None
    assert found.record is not None
    assert found.record.fields == ABOUT.fields
    assert (found.key, found.framing, found.segmenter) == (KEY, Framing.TILE, segmenter)
    assert found.shards_needed <= sum(p.count for p in found.reader.packets.values())
    assert found.authentic
    assert not found.foreign
    assert (found.restored.samples == IMAGE.samples).all()


def test_global_framing_is_read():
    marked = embed(IMAGE, ABOUT, RING, DRAWN, framings=(Framing.GLOBAL,)).frame

    found = extract(marked, RING, [DRAWN])

    assert found is not None
    assert found.record is not None
    assert found.framing is Framing.GLOBAL
    assert (found.restored.samples == IMAGE.samples).all()


def test_the_other_lattice_is_read():
    """The air is too small for one pixel in four."""
    roi = np.ones((16, 16), bool)
    roi[:3] = roi[-3:] = False
    image, segmenter = frame(noise((128, 128), 9)), Drawn(roi)
    done = embed(image, ABOUT, RING, segmenter, framings=(Framing.TILE,), max_change=4)
    assert done.receipt.lattice is Lattice.QUINCUNX

    found = extract(done.frame, RING, [segmenter])

    assert found is not None
    assert found.lattice is Lattice.QUINCUNX
    assert (found.restored.samples == image.samples).all()


@pytest.mark.parametrize("ring", [Ring(OTHER_KEY, KEY), Ring(KEY, OTHER_KEY)], ids=["last", "first"])
def test_every_key_of_the_ring_is_tried(ring):
    found = extract(MARKED, ring, [DRAWN])

    assert found is not None
    assert found.record is not None
    assert found.key == KEY


def test_the_segmenter_that_drew_the_map_is_found_among_others():
    everything, nothing = Drawn(np.ones((32, 32), bool)), Drawn(np.zeros((32, 32), bool))
    everything.id, nothing.id = "everything/1", "nothing/1"

    found = extract(MARKED, RING, [everything, nothing, DRAWN])

    assert found is not None
    assert found.segmenter is DRAWN
    assert (found.restored.samples == IMAGE.samples).all()


@pytest.mark.parametrize(
    "other",
    [
        IMAGE,
        replace(MARKED, number=2),
        MARKED.with_samples(np.roll(MARKED.samples, 1, axis=1)),
        replace(MARKED, samples=MARKED.samples[:, 8:].copy()),
        damaged(MARKED, np.s_[:, :], 0),
    ],
    ids=["unmarked", "another frame number", "shifted", "cropped", "blank"],
)
def test_nothing_is_read(other):
    segmenter = Drawn(DRAWN.roi_blocks(None)[: other.rows // 8])

    assert extract(other, RING, [segmenter]) is None


def test_the_range_is_bound():
    """Packets authenticate pixels, the record beyond that what the pixels mean."""
    found = extract(replace(MARKED, lo=-5), RING, [DRAWN])

    assert found is None or found.record is None


def test_too_few_packets_are_not_a_record_but_not_nothing():
    blank = damaged(MARKED, np.s_[64:, :], 0)
    blank = damaged(blank, np.s_[:, 128:], 0)

    found = extract(blank, RING, [DRAWN])

    assert found is not None
    assert found.record is None
    assert found.authentic == {(0, 0), (0, 1)}
    assert found.shards_needed > 2
    assert (found.restored.samples[:, :64, :128] == IMAGE.samples[:, :64, :128]).all()


def test_a_record_is_read_though_the_segmenter_sees_all_as_body_now():
    image = frame(body_in_air((512, 512)))
    marked = embed(image, ABOUT, RING, Anatomy()).frame
    rim = np.ones((512, 512), bool)
    rim[8:-8, 8:-8] = False
    hit = marked.with_samples(np.where(rim, noise((512, 512), 4096), marked.samples))
    assert block_map(Anatomy(), hit, Lattice.QUARTER).all()

    found = extract(hit, RING, [Anatomy(), Whole()])

    assert found is not None
    assert found.record is not None
    assert found.record.fields == ABOUT.fields
    assert found.segmenter.id == "anatomy/1"


def test_a_tile_of_another_image_is_foreign():
    other = embed(frame(body_in_air(tissue=900)), replace(ABOUT, node="else"), RING, DRAWN).frame
    samples = MARKED.samples.copy()
    samples[:, :64, :64] = other.samples[:, :64, :64]

    found = extract(MARKED.with_samples(samples), RING, [DRAWN])

    assert found is not None
    assert found.foreign == {(0, 0)}
    assert (0, 0) not in found.authentic


def test_a_second_look_asks_the_segmenter_what_it_would_have_drawn():
    class Redrawing(Drawn):
        """Sees nothing but body in the upper half, until it is told what is hidden."""

        id = "drawn/1"
        asked = ()

        def roi_blocks(self, view):
            roi = super().roi_blocks(view).copy()
            roi[:16] = True
            return roi

        def redraw(self, view, hidden, wanted):
            self.asked = hidden.copy(), wanted.copy()
            yield np.ones_like(hidden)
            yield DRAWN.roi_blocks(view)

    segmenter = Redrawing(DRAWN.roi_blocks(None))
    assert isinstance(segmenter, Redraws)
    assert not isinstance(DRAWN, Redraws)
    first = read(MARKED, segmenter.roi_blocks(None), Framing.TILE, Lattice.QUARTER, segmenter, KEY)
    assert first is not None
    assert not any(row < 2 for row, _ in first.authentic)

    again = read_again(MARKED, first, [(0, 0), (1, 3)])

    assert again.authentic - first.authentic == {(0, 0), (1, 3)}
    hidden, wanted = segmenter.asked
    assert set(zip(*np.nonzero(wanted), strict=True)) == {
        (row, col) for row in range(16) for col in range(32) if (row // 8, col // 8) in {(0, 0), (1, 3)}
    }
    assert (hidden >= wanted).all()


def test_a_second_look_at_global_framing_changes_nothing():
    marked = embed(IMAGE, ABOUT, RING, DRAWN, framings=(Framing.GLOBAL,)).frame
    found = extract(marked, RING, [DRAWN])
    assert found is not None

    assert read_again(marked, found, [(0, 0)]) is found


def test_the_smallest_record_is_read():
    """Room for the seal only."""
    roi = np.ones((8, 8), bool)
    roi[:, :4] = False
    done = embed(frame(noise((64, 64), 3)), ABOUT, RING, Drawn(roi), max_change=4)

    found = extract(done.frame, RING, [Drawn(roi)])

    assert done.receipt.tier is not Tier.FULL
    assert found is not None
    assert found.record is not None
    assert found.record.tier is done.receipt.tier
