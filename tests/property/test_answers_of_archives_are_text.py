"""Whatever bytes an archive answers with, under whatever character set: text that harms no terminal."""

from __future__ import annotations

import unicodedata
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.charset import python_encoding

from dicom_node.inquiry import readable
from dicom_node.web import parts

CHARSETS = st.lists(st.sampled_from([*python_encoding, "UTF8", "ISO IR 100", "nonsense", "\\"]), max_size=3)
VALUES = st.binary(max_size=60) | st.text(max_size=20).map(lambda text: text.encode("utf-8", "replace"))


@given(VALUES, CHARSETS)
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_text_that_moves_no_cursor(value: bytes, charsets: list[str]) -> None:
    text = readable(value, charsets)
    assert not [character for character in text if unicodedata.category(character)[0] == "C"]


@given(st.text(st.characters(codec="latin-1", exclude_categories=["C"]), max_size=30))
@settings(deadline=None)
def test_what_is_declared_rightly_is_read_rightly(text: str) -> None:
    wanted = text.strip(" ")
    assert readable(text.encode("latin-1"), ["ISO_IR 100"]).strip(" ") == wanted
    assert readable(text.encode(), ["ISO_IR 192"]) == wanted


@given(
    st.lists(st.binary(max_size=40).filter(lambda body: b"--xx" not in body), max_size=5),
    st.lists(st.integers(0, 400), max_size=20),
)
@settings(max_examples=300, deadline=None)
def test_a_multipart_message_is_the_same_cut_anywhere(bodies: list[bytes], cuts: list[int]) -> None:
    message = b"".join(b"--xx\r\nA: b\r\n\r\n" + body + b"\r\n" for body in bodies) + b"--xx--"
    places = sorted({0, len(message), *(cut for cut in cuts if cut < len(message))})
    pieces = (message[start:end] for start, end in pairwise(places))
    assert [b"".join(part) for part in parts(pieces, "multipart/related; boundary=xx")] == bodies
