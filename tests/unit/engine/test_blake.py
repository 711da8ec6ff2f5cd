"""Many hashes at a time are what hashlib makes of each of them."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from blessmark.payload import blake

KEY, PERSON = bytes(range(32)), b"bm1 tile"


def rows_of(messages: list[bytes]) -> np.ndarray:
    """As `blake` takes them, with a block more than they need."""
    width = blake.padded(max(map(len, messages))) + blake.BLOCK_BYTES
    joined = b"".join(message.ljust(width, b"\0") for message in messages)
    return np.frombuffer(joined, "<u2").astype(np.uint16).reshape(len(messages), -1)


def made(seed: int, lengths: list[int]) -> list[bytes]:
    return [np.random.default_rng((seed, n)).bytes(length) for n, length in enumerate(lengths)]


def expected(messages: list[bytes], size: int, key: bytes = KEY, person: bytes = PERSON) -> list[bytes]:
    return [hashlib.blake2b(each, digest_size=size, key=key, person=person).digest() for each in messages]


@pytest.mark.parametrize("count", range(1, 20))
def test_messages_of_any_length_and_number(count: int) -> None:
    lengths = np.random.default_rng(count).integers(1, 700, count).tolist()
    messages = made(count, lengths)
    rows, fresh = rows_of(messages), blake.keyed(KEY, PERSON, 4)
    before = rows.copy()

    found = blake.digests(fresh, rows, np.array(lengths))

    assert [bytes(each[:4]) for each in found] == expected(messages, 4)
    assert np.array_equal(rows, before)


@pytest.mark.parametrize("length", [1, 127, 128, 129, 255, 256, 257, 8192])
def test_ends_of_blocks(length: int) -> None:
    messages = made(length, [length] * 9)
    found = blake.digests(blake.keyed(KEY, PERSON, 4), rows_of(messages), np.full(9, length))
    assert [bytes(each[:4]) for each in found] == expected(messages, 4)


@pytest.mark.parametrize(
    ("key", "person", "size"), [(b"k", b"", 64), (bytes(64), b"sixteen bytes ..", 1), (KEY, b"bm1 cell", 32)]
)
def test_keys_persons_and_sizes(key: bytes, person: bytes, size: int) -> None:
    messages = made(1, [5, 300, 128])
    found = blake.digests(blake.keyed(key, person, size), rows_of(messages), np.array([5, 300, 128]))
    assert [bytes(each[:size]) for each in found] == expected(messages, size, key, person)


def test_what_is_absorbed_needs_not_be_hashed_again() -> None:
    """Of messages that begin alike or not, after no block, one or some."""
    whole = np.array([0, 128, 512, 256, 128, 0, 0, 384, 128, 640, 0])
    ends = np.array([1, 128, 77, 300, 129, 500, 128, 256, 20, 1, 3])
    fronts, tails = made(2, whole.tolist()), made(3, ends.tolist())

    states = blake.absorbed(blake.keyed(KEY, PERSON, 4), rows_of(fronts), whole)
    before = states.copy()
    found = blake.digests(states, rows_of(tails), ends, blake.KEYED + whole)

    messages = [front + tail for front, tail in zip(fronts, tails, strict=True)]
    assert [bytes(each[:4]) for each in found] == expected(messages, 4)
    assert np.array_equal(states, before), "they serve the next tail, too"


def test_no_message_is_no_digest() -> None:
    rows, none = np.empty((0, 64), np.uint16), np.empty(0, np.int64)
    assert blake.digests(blake.keyed(KEY, PERSON, 4), rows, none).shape == (0, 64)


def test_a_keyed_state_is_made_once_and_cannot_be_written_to() -> None:
    state = blake.keyed(KEY, PERSON, 4)
    assert blake.keyed(KEY, PERSON, 4) is state
    with pytest.raises(ValueError, match="read-only"):
        state[:] = 0


@pytest.mark.parametrize(("length", "whole"), [(0, 128), (1, 128), (128, 128), (129, 256)])
def test_padded_to_whole_blocks(length: int, whole: int) -> None:
    assert blake.padded(length) == whole
