"""The bytes of a packet."""

from __future__ import annotations

import numpy as np
import pytest

from blessmark.errors import RecordError
from blessmark.payload import packets
from blessmark.profile import V1

MESSAGE = bytes(range(18))


def test_shards_are_big_endian_words() -> None:
    shards = packets.shards_of(MESSAGE)
    assert shards.dtype == np.uint16
    assert shards.tolist() == [[0x0001, 0x0203, 0x0405], [0x0607, 0x0809, 0x0A0B], [0x0C0D, 0x0E0F, 0x1011]]
    assert packets.message_of(shards) == MESSAGE


@pytest.mark.parametrize("length", [0, 1, 7, 6 * V1.max_shards + 6])
def test_only_whole_shards_and_not_too_many(length: int) -> None:
    with pytest.raises(RecordError, match=f"{length} bytes"):
        packets.shards_of(bytes(length))


def test_the_longest_message_has_a_count_that_fits_a_byte() -> None:
    assert len(packets.shards_of(bytes(6 * V1.max_shards))) == 255


def points(tiles: list[int], counts: list[int]) -> np.ndarray:
    return packets.points(np.array(tiles, np.int64), np.array(counts, np.int64))


def test_points_of_tiles_do_not_overlap_until_they_wrap() -> None:
    assert points([0, 5], [3, 2]).tolist() == [0, 1, 2, 80, 81]
    assert points([4095], [16]).tolist()[-1] == 65_535
    assert points([4096], [1]).tolist() == [0]
    assert points([1, 2, 3], [1, 0, 1]).tolist() == [16, 48]
    assert points([1], [1]).dtype == np.int64


def test_shards_of_several_packets_stand_one_after_the_other() -> None:
    assert packets.message_of(packets.shards_in(MESSAGE + MESSAGE)) == MESSAGE + MESSAGE
    assert packets.shards_in(b"").shape == (0, 3)


@pytest.mark.parametrize("length", range(1, 40))
def test_padding_fills_whole_shards_with_the_tag(length: int) -> None:
    padded = packets.padded_plaintext_length(length)
    assert (padded + 16) % 6 == 0
    assert 0 <= padded - length < 6
