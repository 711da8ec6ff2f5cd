"""Small contents are deflated to the very bytes of `zlib.compress(content, 9)`, with smaller tables."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blessmark.deflate import _SMALL_BYTES, deflated

#: what a portrait, and elements of a header, look like to a compressor
_CONTENTS = st.one_of(
    st.binary(max_size=1100),
    st.lists(st.sampled_from([b"\0", b"ab", b"1.2.840.10008", b"\x08\0\x08\0", b" "]), max_size=400).map(
        b"".join
    ),
    st.lists(st.integers(0, 1 << 16), max_size=270).map(
        lambda numbers: struct.pack(f">{len(numbers)}i", *numbers)
    ),
)


@settings(max_examples=500, deadline=None)
@given(_CONTENTS)
def test_the_bytes_are_those_of_large_tables(content):
    assert deflated(content) == zlib.compress(content, 9)


@pytest.mark.parametrize("size", [0, 1, _SMALL_BYTES, _SMALL_BYTES + 1, 100_000])
def test_any_size(size):
    content = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    assert deflated(content) == zlib.compress(content, 9)
    assert zlib.decompress(deflated(content)) == content
