"""PDUs from a file: every byte once, in order, within bounds; and what a connection does meanwhile."""

from __future__ import annotations

import socket
import struct
import threading
import time
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from dicom_node.dimse import stream
from dicom_node.dimse.reception import part10_head
from dicom_node.dimse.stream import DataSet, Request, batches, data_set_of, store
from dicom_node.errors import SpoolError
from dicom_node.jobs import Arrival

REQUEST = Request(7, CTImageStorage, "1.2.3")


def fragments(pdus: bytes) -> list[tuple[int, int, bytes]]:
    """(context id, control header, fragment) of each PDU; the lengths must fit into each other."""
    found, at = [], 0
    while at < len(pdus):
        kind, _, length, item, context, control = struct.unpack_from(">BBIIBB", pdus, at)
        assert (kind, length) == (0x04, item + 4)
        found.append((context, control, pdus[at + 12 : at + 6 + length]))
        at += 6 + length
    return found


@given(size=st.integers(1, 5000), fragment=st.sampled_from([2, 10, 100, 4090]), start=st.integers(0, 20))
def test_the_data_set_goes_out_whole_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, size: int, fragment: int, start: int
) -> None:
    path = tmp_path_factory.mktemp("stream") / "object"
    content = bytes(number % 251 for number in range(start + size))
    path.write_bytes(content)
    sent = b"".join(bytes(batch) for batch in batches(DataSet(path, start, size, "1.2"), 5, fragment))
    found = fragments(sent)
    assert b"".join(part for *_, part in found) == content[start:]
    assert {context for context, *_ in found} == {5}
    assert [control for _, control, _ in found] == [0x00] * (len(found) - 1) + [0x02]
    assert all(len(part) <= fragment for *_, part in found)


def test_an_object_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "object"
    with path.open("wb") as file:
        file.truncate(50_000_000)
    tracemalloc.start()
    sent = sum(len(batch) for batch in batches(DataSet(path, 0, 50_000_000, "1.2"), 1, 16378))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sent > 50_000_000
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
    path.write_bytes(bytes(100))
    with pytest.raises(SpoolError, match="cannot be read to its end"):
        list(batches(DataSet(path, 0, 200, "1.2"), 1, 50))


class Line:
    """As much of an association as `store` touches, over a pair of sockets."""

    def __init__(self, *answers: Any, largest: int = 16384) -> None:
        self.near, self.far = socket.socketpair()
        self.dul = SimpleNamespace(socket=SimpleNamespace(socket=self.near))
        self.dimse = SimpleNamespace(maximum_pdu_size=largest, get_msg=lambda block: (1, self.answers.pop(0)))
        self.answers = list(answers)
        self.dimse_timeout = 0.0
        self._is_paused = True
        self._reactor_checkpoint = threading.Event()

    def close(self) -> None:
        self.near.close()
        self.far.close()


def answer(message_id: int, status: int | None) -> Any:
    return SimpleNamespace(MessageIDBeingRespondedTo=message_id, Status=status)


def some_object(folder: Path, size: int = 1000) -> DataSet:
    path = folder / "object"
    with path.open("wb") as file:
        file.truncate(size)
    return DataSet(path, 0, size, ExplicitVRLittleEndian)


def test_the_command_comes_first_and_names_the_object(tmp_path: Path) -> None:
    line = Line(answer(7, 0xB000))
    assert store(line, 3, REQUEST, some_object(tmp_path), 5.0) == 0xB000
    line.near.close()
    received = fragments(line.far.makefile("rb").read())
    assert [control for _, control, _ in received] == [0x03, 0x02]
    command = received[0][2]
    assert struct.unpack_from("<HHII", command) == (0, 0, 4, len(command) - 12)
    assert CTImageStorage.encode() in command
    assert b"1.2.3\0" in command
    assert line._reactor_checkpoint.is_set()
    line.close()


@pytest.mark.parametrize("said", [answer(8, 0x0000), answer(7, None), object()])
def test_an_answer_to_something_else(tmp_path: Path, said: Any) -> None:
    line = Line(said)
    assert store(line, 3, REQUEST, some_object(tmp_path), 5.0) is None
    line.close()


def test_no_answer_in_time_and_an_end_before_it(tmp_path: Path) -> None:
    """The library says None either way."""
    line = Line(None)
    line.dimse.get_msg = lambda block: time.sleep(line.dimse_timeout) or (None, None)
    assert store(line, 3, REQUEST, some_object(tmp_path), 0.05) is None
    line.close()
    line = Line(None)
    with pytest.raises(ConnectionError, match="ended instead of an answer"):
        store(line, 3, REQUEST, some_object(tmp_path), 5.0)
    line.close()


def test_a_peer_that_takes_nothing_is_given_up_within_one_batch(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(stream, "SLOWEST_BYTES_S", 1 << 40)
    line, started = Line(), time.monotonic()
    with pytest.raises(TimeoutError):
        store(line, 3, REQUEST, some_object(tmp_path, 1 << 30), 0.2)
    assert time.monotonic() - started < 5.0
    assert line._reactor_checkpoint.is_set()
    line.close()


def test_a_peer_that_hangs_up_in_the_middle(tmp_path: Path) -> None:
    line = Line()
    line.far.close()
    with pytest.raises(OSError, match=r"Broken pipe|reset"):
        store(line, 3, REQUEST, some_object(tmp_path, 1 << 22), 5.0)
    line.close()


def test_an_association_without_a_connection(tmp_path: Path) -> None:
    line = Line()
    line.dul.socket.socket = None
    with pytest.raises(ConnectionError):
        store(line, 3, REQUEST, some_object(tmp_path), 5.0)
    line.close()


def test_an_association_whose_loop_has_ended_is_not_waited_for(tmp_path: Path) -> None:
    over = SimpleNamespace(
        _reactor_checkpoint=threading.Event(),
        _is_paused=False,
        is_alive=lambda: False,
        dimse=SimpleNamespace(maximum_pdu_size=0),
        dul=SimpleNamespace(socket=None),
    )
    with pytest.raises(ConnectionError):
        store(over, 1, Request(1, "1.2", "1.2.3"), DataSet(tmp_path, 0, 1, "1.2"), 1.0)
