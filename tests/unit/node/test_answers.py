"""What a peer says instead of, before, inside and after an answer; in whatever pieces."""

from __future__ import annotations

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.dimse import answers
from dicom_node.dimse.answers import Answer, Answers
from tests.answering import response


def taken(data: bytes, largest: int = 16384) -> Answer | None:
    return Answers(largest).take(data)


def item(control: int, content: bytes) -> bytes:
    return struct.pack(">IBB", len(content) + 2, 1, control) + content


def pdu(*items: bytes, kind: int = 0x04) -> bytes:
    body = b"".join(items)
    return struct.pack(">BxI", kind, len(body)) + body


def element(number: int, value: int) -> bytes:
    return struct.pack("<HHIH", 0, number, 2, value)


def test_a_status_and_what_it_answers() -> None:
    assert taken(response(7, 0xB000)) == Answer(7, 0xB000)


@given(cuts=st.lists(st.integers(0, 200)), fragment=st.integers(1, 60))
def test_an_answer_comes_in_any_pieces(cuts: list[int], fragment: int) -> None:
    """The command set in fragments of any size, the bytes in any portions."""
    data, reader, found = response(7, 0x0000, fragment=fragment), Answers(16384), []
    edges = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    for start, end in itertools.pairwise(edges):
        found.append(reader.take(data[start:end]))
    assert found[-1] == Answer(7, 0x0000)
    assert found[:-1] == [None] * (len(found) - 1)
    assert not reader.waiting


def test_what_follows_an_answer_is_kept_and_told() -> None:
    reader = Answers(16384)
    assert reader.take(response(7, 0x0000) + response(8, 0xA700)) == Answer(7, 0x0000)
    assert reader.waiting
    assert reader.take(b"") == Answer(8, 0xA700)
    assert not reader.waiting


def test_a_request_of_the_peer_is_no_status() -> None:
    echo = element(0x0100, 0x0030) + element(0x0110, 1) + element(0x0900, 0)
    assert taken(pdu(item(0x03, echo))) == Answer(None, None)


def test_an_answer_without_a_status() -> None:
    assert taken(pdu(item(0x03, element(0x0100, 0x8001) + element(0x0120, 7)))) == Answer(7, None)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (bytes.fromhex("07000000000400000000"), "aborted"),
        (bytes.fromhex("05000000000400000000"), "asked for release"),
        (b"HTTP/1.1 400", "no PDU that belongs here"),
        (struct.pack(">BxI", 4, 16385), "longer than was agreed"),
        (pdu(item(0x02, b"data")), "a data set instead"),
        (pdu(struct.pack(">IBB", 90, 1, 3) + b"short"), "does not fit its PDU"),
        (pdu(b"\0\0\0\1\1"), "more than an answer"),
        (pdu(item(0x03, element(0x0100, 0x8001)), item(0x03, b"")), "more than an answer"),
        (pdu(item(0x03, struct.pack("<HHI", 0, 0x0902, 100) + b"cut off")), "no command set"),
        (pdu(item(0x03, struct.pack("<HHI", 8, 0x0018, 0))), "no command set"),
        (pdu(item(0x03, b"tiny")), "cut off"),
        (pdu(item(0x03, element(0x0100, 0x8001) + element(0x0800, 1))), "with a data set"),
    ],
)
def test_what_is_no_answer_ends_it(data: bytes, said: str) -> None:
    with pytest.raises(ConnectionError, match=said):
        taken(data)


def test_a_command_without_an_end_is_not_collected_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "LARGEST_COMMAND", 1000)
    reader = Answers(16384)
    assert reader.take(pdu(item(0x01, bytes(1000)))) is None
    with pytest.raises(ConnectionError, match="too long"):
        reader.take(pdu(item(0x01, b"\0")))


@given(data=st.binary(max_size=300))
def test_rubbish_is_refused_or_waited_for(data: bytes) -> None:
    try:
        answer = taken(b"\x04\0" + data)
    except ConnectionError:
        return
    assert answer is None or isinstance(answer, Answer)
