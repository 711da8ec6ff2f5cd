"""Packets in tiles: what is read, what authenticates, and what one tile's loss costs the others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from blessmark.carrier import tile_framing
from blessmark.carrier.tile_framing import Reader, TileGrid, plan
from blessmark.payload.crypto import derive
from blessmark.types import BoolArray, Frame, Lattice
from blessmark.view import invariant_view
from tests.phantoms import blocks_of, body, body_in_air, frame
from tests.strategies import KEY, OTHER_KEY

KEYS = derive(KEY)
SHAPE = (256, 256)
ROI = blocks_of(body(SHAPE), grown_by=1)
IMAGE = frame(body_in_air())
MESSAGE = bytes(range(60))
LATTICES = pytest.mark.parametrize("lattice", Lattice)


def marked(
    image: Frame = IMAGE,
    roi: BoolArray = ROI,
    lattice: Lattice = Lattice.QUARTER,
    message: bytes = MESSAGE,
    *,
    resilient: bool = False,
) -> Frame:
    found = tile_framing.embed(plan(image, roi, lattice, KEYS, 40), KEYS, message, resilient=resilient)
    assert found is not None
    return found


def read(image: Frame, roi: BoolArray = ROI, lattice: Lattice = Lattice.QUARTER, keys=KEYS) -> Reader:
    reader = Reader(image, lattice, keys)
    reader.read(roi)
    return reader


def message_of(reader: Reader) -> bytes | None:
    return next((message for message, _ in reader.messages()), None)


@LATTICES
@pytest.mark.parametrize("shape", [(256, 256), (250, 201), (183, 400)])
def test_every_planned_tile_is_read_and_restored(lattice, shape):
    image, roi = frame(body_in_air(shape)), blocks_of(body(shape), grown_by=1)

    reader = read(marked(image, roi, lattice), roi, lattice)

    assert set(reader.packets) == set(plan(image, roi, lattice, KEYS, 40).tiles)
    assert message_of(reader) == MESSAGE
    assert (reader.restored.samples == image.samples).all()


def test_colour_and_signed_samples_are_restored():
    grey = body_in_air() - 1000
    image = frame(grey, grey + 3, grey[::-1].copy(), lo=-2048, hi=2047)
    roi = np.zeros((32, 32), bool)

    reader = read(marked(image, roi), roi)

    assert message_of(reader) == MESSAGE
    assert (reader.restored.samples == image.samples).all()


def test_reading_leaves_the_frame_alone():
    image = marked()
    before = image.samples.copy()

    read(image)

    assert (image.samples == before).all()


@pytest.mark.parametrize(
    ("image", "roi", "lattice", "keys"),
    [
        (marked(), ROI, Lattice.QUARTER, derive(OTHER_KEY)),
        (replace(marked(), number=2), ROI, Lattice.QUARTER, KEYS),
        (marked(), ROI, Lattice.QUINCUNX, KEYS),
        (IMAGE, ROI, Lattice.QUARTER, KEYS),
    ],
    ids=["another key", "another frame number", "another lattice", "unmarked"],
)
def test_nothing_is_found(image, roi, lattice, keys):
    reader = read(image, roi, lattice, keys)

    assert not reader.packets
    assert list(reader.messages()) == []
    assert (reader.restored.samples == image.samples).all()


def test_tiles_with_fewer_sites_than_the_shortest_packet_has_bits_hold_nothing():
    roi = np.ones_like(ROI)
    roi[::8, ::8] = False
    planned = plan(IMAGE, roi, Lattice.QUARTER, KEYS, 40)

    assert (len(planned.survey.tiles), planned.tiles, planned.capacity_shards) == (16, [], 0)
    assert tile_framing.embed(planned, KEYS, MESSAGE, resilient=False) is None
    assert not read(IMAGE, roi).packets


@pytest.mark.parametrize("row", [128, 131], ids=["in the region of interest", "beside it"])
def test_one_pixel_silences_its_tile_and_no_other(row):
    image = marked()
    col = int(np.argwhere(ROI[16])[0, 0]) * 8 + (4 if row == 128 else -4)
    samples = image.samples.copy()
    samples[0, row, col] += 1
    tile = row // 64 * 4 + col // 64

    silent = set(read(image).packets) - set(read(image.with_samples(samples)).packets)

    assert silent == {tile}


def test_a_tile_moved_to_another_place_is_silent():
    """Equal pixels, equal map: only the place differs."""
    flat, roi = frame(np.full(SHAPE, 700)), np.zeros((32, 32), bool)
    image = marked(flat, roi)
    samples = image.samples.copy()
    samples[0, :64, :64] = image.samples[0, :64, 64:128]

    assert set(read(image.with_samples(samples), roi).packets) == set(range(16)) - {0}


def test_a_tile_of_another_message_is_told_apart():
    image, other = marked(), marked(message=MESSAGE[::-1])
    samples = image.samples.copy()
    samples[0, :64, :64] = other.samples[0, :64, :64]

    reader = read(image.with_samples(samples))
    message, tiles = next(reader.messages())

    assert message == MESSAGE
    assert set(reader.packets) - tiles == {0}


def test_resilient_message_survives_the_loss_of_any_four_by_four_tiles():
    shape = (512, 512)
    roi = blocks_of(body(shape), grown_by=1)
    image = marked(frame(body_in_air(shape)), roi, resilient=True)

    for top, left in np.ndindex(5, 5):
        samples = image.samples.copy()
        samples[0, 64 * top : 64 * top + 256, 64 * left : 64 * left + 256] = 0
        assert message_of(read(image.with_samples(samples), roi)) == MESSAGE


def test_a_message_that_leaves_no_reserve_is_not_resilient():
    """All tiles of 256 x 256 pixels are lost to one hit."""
    planned = plan(IMAGE, ROI, Lattice.QUARTER, KEYS, 40)

    assert tile_framing.embed(planned, KEYS, MESSAGE, resilient=True) is None
    assert tile_framing.embed(planned, KEYS, MESSAGE, resilient=False) is not None


def test_a_message_without_room_for_parity_does_not_fit():
    planned = plan(IMAGE, ROI, Lattice.QUARTER, KEYS, 40)
    room = 6 * planned.capacity_shards

    assert tile_framing.embed(planned, KEYS, bytes(room * 4 // 5), resilient=False) is not None
    assert tile_framing.embed(planned, KEYS, bytes(room * 4 // 5 + 6), resilient=False) is None


def test_few_tiles_left_of_a_large_image_are_found():
    """What most tiles claim comes first; the message must not drown in what noise claims."""
    image, roi = frame(body_in_air((960, 960))), np.zeros((120, 120), bool)
    samples = marked(image, roi).samples.copy()
    samples[0, 256:] = np.random.default_rng(1).integers(0, 4096, (704, 960))
    samples[0, :256, 320:] = np.random.default_rng(2).integers(0, 4096, (256, 640))

    reader = read(image.with_samples(samples.astype(np.int32)), roi)

    assert len(reader.packets) == 20
    assert message_of(reader) == MESSAGE


def test_retry_reads_where_the_map_is_right_once_a_message_is_known():
    image, wrong = marked(), ROI.copy()
    wrong[:8] = True
    wrong[0, ::8] = False
    fresh, reader = Reader(image, Lattice.QUARTER, KEYS), read(image, wrong)
    assert not set(reader.packets) & set(range(4))

    fresh.retry(ROI, range(16))
    reader.retry(ROI, (0, 2))

    assert not fresh.packets
    assert set(reader.packets) & set(range(4)) == {0, 2}


def test_no_tile_is_tried_twice_by_one_map(monkeypatch):
    calls = []
    find = tile_framing.find_all_sites
    monkeypatch.setattr(
        tile_framing, "find_all_sites", lambda *args: calls.extend(args[2].tolist()) or find(*args)
    )
    reader = read(IMAGE)
    tried = len(calls)
    elsewhere = ROI.copy()
    elsewhere[0, 0] = True

    reader.read(ROI)
    assert len(calls) == tried > 0

    reader.read(elsewhere)
    assert calls[tried:] == [[0, 0, 64, 64]]


def test_search_finds_the_map_of_a_tile_from_the_tile_alone():
    """The map was "darker than body, one block away"; the proposed one has no background in these tiles."""
    roi = blocks_of(invariant_view(IMAGE, Lattice.QUARTER).samples[0] > 500, grown_by=1)
    image, wrong = marked(roi=roi), roi.copy()
    wrong[8:16] = True
    reader = read(image, wrong)
    assert not set(reader.packets) & set(range(4, 8))

    reader.search(range(16), np.zeros_like(roi))

    assert set(reader.packets) == set(read(image, roi).packets)
    assert (reader.restored.samples == IMAGE.samples).all()


@pytest.mark.parametrize(
    ("rows", "cols", "usable"),
    [(64, 64, [0]), (79, 64, [0]), (80, 80, [0, 1, 2, 3]), (15, 64, []), (1, 1, [])],
)
def test_partial_tiles_count_from_sixteen_pixels(rows, cols, usable):
    grid = TileGrid(rows, cols)

    assert np.flatnonzero(grid.usable(np.zeros((rows // 8, cols // 8), bool))).tolist() == usable


def test_a_tile_without_background_is_no_candidate():
    roi = np.ones((16, 16), bool)
    roi[8, 15] = False

    assert np.flatnonzero(TileGrid(128, 128).usable(roi)).tolist() == [3]
