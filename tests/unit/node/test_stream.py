"""PDUs from a file: every byte once, in order, within bounds."""

from __future__ import annotations

import os
import struct
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom.dsutils import split_dataset

from dicom_node.dimse import stream
from dicom_node.dimse.reception import part10_head
from dicom_node.dimse.stream import DataSet, Outgoing, Request, batches, command, data_set_of, led, room
from dicom_node.errors import SpoolError
from dicom_node.jobs import Arrival

REQUEST = Request(7, CTImageStorage, "1.2.3")
HEAD = part10_head(Arrival(CTImageStorage, "1.2.3", ExplicitVRLittleEndian, "A", "B", "r"))


def sent(path: Path, context_id: int, fragment: int) -> Iterator[memoryview]:
    with Outgoing(path) as out:
        yield from batches(out, context_id, fragment, room(fragment))


def fragments(pdus: bytes) -> list[tuple[int, int, bytes]]:
    """(context id, control header, fragment) of each PDU; the lengths must fit into each other."""
    found, at = [], 0
    while at < len(pdus):
        kind, _, length, item, context, control = struct.unpack_from(">BBIIBB", pdus, at)
        assert (kind, length) == (0x04, item + 4)
        found.append((context, control, pdus[at + 12 : at + 6 + length]))
        at += 6 + length
    return found


@given(size=st.integers(12, 5000), fragment=st.sampled_from([2, 10, 100, 4090]))
def test_the_data_set_goes_out_whole_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, size: int, fragment: int
) -> None:
    path = tmp_path_factory.mktemp("stream") / "object"
    content = bytes(number % 251 for number in range(8, 8 + size))
    path.write_bytes(HEAD + content)
    found = fragments(b"".join(bytes(batch) for batch in sent(path, 5, fragment)))
    assert b"".join(part for *_, part in found) == content
    assert {context for context, *_ in found} == {5}
    assert [control for _, control, _ in found] == [0x00] * (len(found) - 1) + [0x02]
    assert all(len(part) <= fragment for *_, part in found)


def test_an_object_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "object"
    with path.open("wb") as file:
        file.write(HEAD)
        file.truncate(50_000_000)
    tracemalloc.start()
    size = sum(len(batch) for batch in sent(path, 1, 16378))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size > 50_000_000
    assert peak < 2 * stream.BATCH_BYTES


def test_where_the_data_set_lies(tmp_path: Path) -> None:
    path = tmp_path / "object"
    head = part10_head(Arrival(CTImageStorage, "1.2.3", ExplicitVRLittleEndian, "A", "B", "r"))
    path.write_bytes(head + b"data set")
    assert data_set_of(path) == DataSet(path, len(head), 8, ExplicitVRLittleEndian)


@pytest.mark.parametrize(
    ("content", "said"), [(b"", "cannot be read as a DICOM"), (None, "gone from the spool")]
)
def test_what_is_no_dicom_file(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "object"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SpoolError, match=said):
        data_set_of(path)


def test_a_file_that_holds_no_data_set(tmp_path: Path) -> None:
    path = tmp_path / "object"
    path.write_bytes(part10_head(Arrival(CTImageStorage, "1.2.3", ExplicitVRLittleEndian, "A", "B", "r")))
    with pytest.raises(SpoolError, match="holds no data set"):
        data_set_of(path)


def test_a_file_that_shrinks_while_it_is_sent(tmp_path: Path) -> None:
    path = tmp_path / "object"
    path.write_bytes(HEAD + bytes(100))
    with Outgoing(path) as out:
        os.truncate(path, len(HEAD) + 50)
        with pytest.raises(SpoolError, match="cannot be read to its end"):
            list(batches(out, 1, 10, room(10)))


def test_a_read_that_the_system_cuts_short_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """preadv may return less than was asked for, in the middle of a place."""
    path, read = tmp_path / "object", os.preadv
    path.write_bytes(HEAD + bytes(range(100)))
    monkeypatch.setattr(os, "preadv", lambda handle, places, at: read(handle, [places[0][:7]], at))
    found = fragments(b"".join(bytes(batch) for batch in sent(path, 1, 30)))
    assert b"".join(part for *_, part in found) == bytes(range(100))


def test_the_command_names_the_object_in_one_pdu_or_several() -> None:
    ((context, control, whole),) = fragments(command(REQUEST, 3, 4090))
    assert (context, control) == (3, 0x03)
    assert struct.unpack_from("<HHII", whole) == (0, 0, 4, len(whole) - 12)
    assert CTImageStorage.encode() in whole
    assert b"1.2.3\0" in whole
    parts = fragments(command(REQUEST, 3, 20))
    assert b"".join(part for *_, part in parts) == whole
    assert [control for _, control, _ in parts] == [0x01] * (len(parts) - 1) + [0x03]


@pytest.mark.parametrize("uid", ["1.2.3", "1" * 64])
def test_the_command_goes_out_with_the_first_batch(tmp_path: Path, uid: str) -> None:
    path, memory = tmp_path / "object", room(90)
    path.write_bytes(HEAD + bytes(range(100)))
    asked = command(Request(7, CTImageStorage, uid), 3, 90)
    for _ in range(2):  # the second finds what the first has left
        with Outgoing(path) as out:
            parts = batches(out, 3, 90, memory)
            (piece,) = led(asked, next(parts), memory)
            assert bytes(piece) == asked + b"".join(bytes(part) for part in sent(path, 3, 90))
            assert list(parts) == []


def test_a_long_command_goes_out_by_itself(tmp_path: Path) -> None:
    path, memory = tmp_path / "object", room(4)
    path.write_bytes(HEAD + bytes(range(100)))
    asked = command(REQUEST, 3, 2)
    with Outgoing(path) as out:
        first = next(batches(out, 3, 4, memory))
        assert list(led(asked, first, memory)) == [asked, first]


def test_the_most_common_image_is_one_batch_in_the_longest_pdus(tmp_path: Path) -> None:
    path, fragment = tmp_path / "object", stream.fragment_size(0)
    with path.open("wb") as file:
        file.write(HEAD)
        file.truncate(len(HEAD) + 2 * 512 * 512 + 4096)
    assert len(list(sent(path, 1, fragment))) == 1


@pytest.mark.parametrize(("largest", "size"), [(0, (1 << 17) - 6), (16384, 16378), (16383, 16376), (4, 2)])
def test_fragments_are_even_and_fit_what_the_peer_takes(largest: int, size: int) -> None:
    assert stream.fragment_size(largest) == size


def meta(*elements: bytes) -> bytes:
    return bytes(128) + b"DICM" + b"".join(elements)


SYNTAX = b"\2\0\x10\0UI\x14\x001.2.840.10008.1.2.1\0"


@pytest.mark.parametrize(
    "head",
    [
        HEAD,
        meta(SYNTAX),
        meta(b"\2\0\1\0OB\0\0\2\0\0\0\0\1", SYNTAX, b"\2\0\x16\0AE\4\0NODE"),
        meta(SYNTAX, b"\2\0\2\1OB\0\0\x10\x27\0\0" + bytes(10_000)),  # longer than what is read at first
        meta(b"\2\0\2\1LO\4\0word", SYNTAX),  # no element of this VR belongs here
        meta(b"\2\0\x10\0UI\x16\x00 1.2.840.10008.1.2.1 \0"),
    ],
)
@pytest.mark.parametrize("content", [b"\x08\0\5\0CS\0\0", bytes(range(8, 40))])
def test_heads_are_read_as_the_library_reads_them(tmp_path: Path, head: bytes, content: bytes) -> None:
    path = tmp_path / "object"
    path.write_bytes(head + content)
    expected, start = split_dataset(path)
    assert start == len(head)
    assert data_set_of(path) == DataSet(path, start, len(content), str(expected.TransferSyntaxUID))
