"""MACs of tiles, against the specification written out: docs/format/v1.md section 5."""

from __future__ import annotations

import hashlib
import struct

import numpy as np
import pytest

from blessmark.carrier.sites import SiteTable, find_all_sites
from blessmark.carrier.tile_macs import Macs, Windows
from blessmark.payload.crypto import derive
from blessmark.types import BoolArray, Frame, Lattice
from tests.strategies import KEY

KEYS = derive(KEY)
SHAPE = (141, 201)
#: row and column in the grid, and pixels; some partial, not in the order of the grid
AT = np.array([(0, 0), (1, 2), (2, 0), (0, 3), (1, 1), (2, 3), (1, 0), (0, 1), (0, 2), (2, 1)])
LATTICES = pytest.mark.parametrize("lattice", Lattice)


def boxes() -> np.ndarray:
    top, left = 64 * AT.T
    return np.stack([top, left, np.minimum(top + 64, SHAPE[0]), np.minimum(left + 64, SHAPE[1])], axis=1)


def frame(lo: int, hi: int, channels: int) -> Frame:
    samples = np.random.default_rng(hi).integers(lo, hi + 1, (channels, *SHAPE)).astype(np.int32)
    return Frame(samples, lo, hi, number=7)


def roi() -> BoolArray:
    return np.random.default_rng(5).random((SHAPE[0] // 8, SHAPE[1] // 8)) < 0.3


def begun(image: Frame, lattice: Lattice) -> tuple[Macs, SiteTable]:
    words = np.zeros(SHAPE, np.uint32)
    table = find_all_sites(image, roi(), boxes(), lattice, 3 - 3 * lattice, words)
    return Macs(image, roi(), lattice, KEYS, Windows(AT, boxes(), np.diff(table.starts))), table


def expected(
    image: Frame, lattice: Lattice, table: SiteTable, place: int, values: list[int], head: bytes
) -> bytes:
    top, left, bottom, right = boxes()[place].tolist()
    index, blank = table.of(place).index, image.samples.copy()
    blank.reshape(-1)[index] = 0
    numbers = (7, *AT[place].tolist(), bottom - top, right - left, image.channels, lattice, index.size)
    content = struct.pack(">IHHHHBBH", *numbers) + blank[:, top:bottom, left:right].astype("<u2").tobytes()
    content += np.array(values).astype("<u2").tobytes() + head
    return hashlib.blake2b(content, digest_size=4, key=KEYS.packet, person=b"bm1 tile").digest()


@LATTICES
@pytest.mark.parametrize(
    ("lo", "hi", "channels"), [(0, 4095, 1), (-2048, 2047, 2), (0, 65535, 1), (0, 255, 3)]
)
def test_are_those_of_the_specification(lo, hi, channels, lattice):
    image = frame(lo, hi, channels)
    macs, table = begun(image, lattice)
    heads, ends = np.random.default_rng(1).integers(0, 256, (10, 101)).astype(np.uint8), np.arange(7, 107, 10)
    ends = np.minimum(ends, 97)
    sent = np.random.default_rng(2).integers(lo, hi + 1, table.every.index.size)
    values = (sent - image.shift).astype(np.int16)

    for places in ([3], [0, 1, 2], [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]):
        asked = np.array(places)
        tags = macs.tags(asked, values, table.starts[asked], heads[asked], ends[asked])
        for place, tag in zip(places, tags, strict=True):
            own = sent[table.starts[place] : table.starts[place + 1]].tolist()
            head = heads[place, : ends[place]].tobytes()
            assert bytes(tag) == expected(image, lattice, table, place, own, head)


def test_one_place_may_be_asked_for_several_times_at_once():
    """With heads of one length, over values that stand elsewhere."""
    image = frame(0, 4095, 1)
    macs, table = begun(image, Lattice.QUARTER)
    count, head = table.size(1), np.arange(20, dtype=np.uint8)
    values = np.arange(3 + 2 * count, dtype=np.int16)

    tags = macs.tags(np.array([1, 1]), values, np.array([3, 3 + count]), np.stack([head, head]), 9)

    for tag, first in zip(tags, (3, 3 + count), strict=True):
        own = list(range(first, first + count))
        assert bytes(tag) == expected(image, Lattice.QUARTER, table, 1, own, bytes(range(9)))


def test_what_no_trial_changes_is_hashed_once(monkeypatch):
    image = frame(0, 4095, 1)
    macs, table = begun(image, Lattice.QUARTER)
    hashed: list[int] = []
    monkeypatch.setattr(
        macs, "_hash", lambda places, hash_=macs._hash: hashed.extend(places) or hash_(places)
    )
    heads = np.zeros((10, 11), np.uint8)

    macs.begin(np.array([2, 4]))
    macs.tags(np.array([1, 4]), table.every.values(image.planes), table.starts[[1, 4]], heads[:2], 7)
    macs.begin(np.arange(5))

    assert hashed == [2, 4, 1, 0, 3]


def test_more_tiles_than_are_cut_out_at_once():
    shape = (64, 64 * 70)
    image = Frame(np.random.default_rng(3).integers(0, 255, (1, *shape)).astype(np.int32), 0, 255)
    left = 64 * np.arange(70)
    windows = np.stack([0 * left, left, 64 + 0 * left, left + 64], axis=1)
    at = np.stack([0 * left, np.arange(70)], axis=1)
    whole = np.ones((8, 8 * 70), np.bool_)
    macs = Macs(image, whole, Lattice.QUARTER, KEYS, Windows(at, windows, np.zeros(70, np.int64)))

    tags = macs.tags(
        np.arange(70), np.empty(0, np.int16), np.zeros(70, np.int64), np.ones((70, 1), np.uint8), 1
    )

    for place in (0, 63, 64, 69):
        content = struct.pack(">IHHHHBBH", 1, 0, place, 64, 64, 1, 0, 0)
        content += image.samples[:, :, 64 * place : 64 * place + 64].astype("<u2").tobytes() + b"\1"
        mac = hashlib.blake2b(content, digest_size=4, key=KEYS.packet, person=b"bm1 tile")
        assert bytes(tags[place]) == mac.digest()
