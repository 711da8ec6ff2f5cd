"""One C-STORE request, from its file straight into the connection.

pynetdicom hands an object to another thread PDU by PDU, through a queue without an end: whatever the peer
does not take yet lies in memory (measured: 410 MB of a 1 GB object). Here the thread that sends writes to the
connection itself, a few PDUs at a time, and waits where the peer makes it wait.

Rules that bind here:
1. The bytes of the data set go out as they are in the file.
2. No more than `BATCH_BYTES` of an object are in memory at once.
3. Whoever takes less than `SLOWEST_BYTES_S` is given up within one batch, not at the end of the object.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from pydicom.errors import InvalidDicomError
from pynetdicom.dsutils import split_dataset

from dicom_node.errors import SpoolError

BATCH_BYTES = 1 << 19
#: a peer that takes less than this many bytes per second is given up
SLOWEST_BYTES_S = 1 << 16
#: a peer may need a second for every so many bytes before it answers
SLOWEST_ANSWER_BYTES_S = 1 << 20

# P-DATA-TF with one presentation data value (PS3.8 section 9.3.5, annex E.2):
# type, reserved, length of the PDU; length of the item, context id, message control header
_HEADER = struct.Struct(">BBIIBB")
_P_DATA, _ITEM_OVERHEAD = 0x04, 6
_COMMAND_LAST, _DATA_MORE, _DATA_LAST = 0x03, 0x00, 0x02
#: longest PDU sent to a peer that takes any (announces 0)
_LARGEST_PDU = 1 << 17

_C_STORE_RQ, _MEDIUM, _WITH_DATA_SET = 0x0001, 0x0000, 0x0001


@dataclass(frozen=True, slots=True)
class Request:
    """What a C-STORE-RQ says about the object that it carries (PS3.7 table 9.3-1)."""

    message_id: int
    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True)
class DataSet:
    """Where in a Part 10 file the data set lies, and in which transfer syntax: `size` bytes from `start`."""

    path: Path
    start: int
    size: int
    transfer_syntax_uid: str


def data_set_of(path: Path) -> DataSet:
    """Find the data set of a Part 10 file; raises SpoolError if it is none."""
    try:
        meta, start = split_dataset(path)
        syntax = str(meta.TransferSyntaxUID)
        size = path.stat().st_size - start
    except FileNotFoundError as error:
        raise SpoolError(f"{path.name} is gone from the spool; send the object again") from error
    except (OSError, AttributeError, InvalidDicomError) as error:
        raise SpoolError(f"{path.name} cannot be read as a DICOM file; check the disk") from error
    if size <= 0:
        raise SpoolError(f"{path.name} holds no data set; send the object again")
    return DataSet(path, start, size, syntax)


def store(association: Any, context_id: int, request: Request, data: DataSet, timeout_s: float) -> int | None:
    """Send one object over an open association and return the status of the peer; None without an answer.

    Raises
    ------
    OSError : the connection broke, or took too little for `timeout_s` seconds (TimeoutError)
    SpoolError : the file cannot be read; the message on the wire is then incomplete
    """
    # the association's own loop would take the answer away; see `patches._Gate`
    association._reactor_checkpoint.clear()
    try:
        while not association._is_paused and association.is_alive():  # a loop that has ended never pauses
            time.sleep(0.0001)
        _send(association, context_id, request, data, timeout_s)
        return _answer(association, request, timeout_s + data.size / SLOWEST_ANSWER_BYTES_S)
    finally:
        association._reactor_checkpoint.set()


def _send(association: Any, context_id: int, request: Request, data: DataSet, timeout_s: float) -> None:
    largest = association.dimse.maximum_pdu_size or _LARGEST_PDU
    # fragments are of even length (PS3.8 annex D.1 counts the headers of the item)
    fragment = max((min(largest, _LARGEST_PDU) - _ITEM_OVERHEAD) & ~1, 2)
    wrapper = association.dul.socket
    if wrapper is None or wrapper.socket is None:
        raise ConnectionError("the association has no connection any more")
    # an own handle: the association's thread may close its own at any moment, and the number be given away
    with wrapper.socket.dup() as connection:
        connection.settimeout(timeout_s)
        connection.sendall(b"".join(_command(request, context_id, fragment)))
        for batch in batches(data, context_id, fragment):
            connection.settimeout(timeout_s + len(batch) / SLOWEST_BYTES_S)
            connection.sendall(batch)


def _command(request: Request, context_id: int, fragment: int) -> Iterator[bytes]:
    """The command set as PDUs: Implicit VR Little Endian whatever the data set is (PS3.7 section 6.3.1)."""
    elements = b"".join(
        _element(number, value)
        for number, value in (
            (0x0002, _uid(request.sop_class_uid)),
            (0x0100, struct.pack("<H", _C_STORE_RQ)),
            (0x0110, struct.pack("<H", request.message_id)),
            (0x0700, struct.pack("<H", _MEDIUM)),
            (0x0800, struct.pack("<H", _WITH_DATA_SET)),
            (0x1000, _uid(request.sop_instance_uid)),
        )
    )
    command = _element(0x0000, struct.pack("<I", len(elements))) + elements
    for start in range(0, len(command), fragment):
        part = command[start : start + fragment]
        control = _COMMAND_LAST if start + fragment >= len(command) else 0x01
        yield _header(len(part), context_id, control) + part


def _element(number: int, value: bytes) -> bytes:
    return struct.pack("<HHI", 0x0000, number, len(value)) + value


def _uid(uid: str) -> bytes:
    value = uid.encode("ascii", "replace")
    return value + b"\0" * (len(value) % 2)


def _header(size: int, context_id: int, control: int) -> bytes:
    return _HEADER.pack(_P_DATA, 0, size + _ITEM_OVERHEAD, size + 2, context_id, control)


def batches(data: DataSet, context_id: int, fragment: int) -> Iterator[memoryview]:
    """The data set as PDUs of `fragment` bytes, several at a time, each batch in the place of the last."""
    stride = _HEADER.size + fragment
    view = memoryview(bytearray(max(BATCH_BYTES // stride, 1) * stride))
    left = data.size
    try:
        with data.path.open("rb", buffering=0) as file:
            file.seek(data.start)
            while left:
                end = 0
                while left and end < len(view):
                    size = min(fragment, left)
                    left -= size
                    control = _DATA_MORE if left else _DATA_LAST
                    view[end : end + _HEADER.size] = _header(size, context_id, control)
                    _fill(file, view[end + _HEADER.size : end + _HEADER.size + size])
                    end += _HEADER.size + size
                yield view[:end]
    except (OSError, EOFError) as error:
        raise SpoolError(f"{data.path.name} cannot be read to its end; check the disk") from error


def _fill(file: FileIO, target: memoryview) -> None:
    while target:
        count = file.readinto(target)
        if not count:
            raise EOFError("the file ended before the data set did")
        target = target[count:]


def _answer(association: Any, request: Request, patience_s: float) -> int | None:
    """The status of the C-STORE-RSP to this request; None if the peer says something else or nothing."""
    association.dimse_timeout = patience_s
    deadline = time.monotonic() + patience_s
    _, answer = association.dimse.get_msg(block=True)
    if answer is None and time.monotonic() < deadline:
        raise ConnectionError("the association ended instead of an answer")
    if answer is None or getattr(answer, "MessageIDBeingRespondedTo", None) != request.message_id:
        return None
    status = getattr(answer, "Status", None)
    return None if status is None else int(status)
