"""One C-STORE request as bytes: from its file to the PDUs that go out. `exchange` sends them.

pynetdicom hands an object to another thread PDU by PDU, through a queue without an end: whatever the peer
does not take yet lies in memory (measured: 410 MB of a 1 GB object). Here it is read a few PDUs at a time,
straight into the places that it has between their headers.

Rules that bind here:
1. The bytes of the data set go out as they are in the file.
2. No more than `BATCH_BYTES` of an object are in memory at once.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydicom.errors import InvalidDicomError
from pynetdicom.dsutils import split_dataset

from dicom_node.errors import SpoolError

#: an image of 512 x 512 samples of two bytes, the most common there is, goes out as one batch: in the longest
#: PDUs it takes five, with their headers
BATCH_BYTES = (5 << 17) + (1 << 10)
#: the memory of a batch begins with so many bytes for the command, which goes out together with the first
_LEAD_BYTES = 1 << 9

# P-DATA-TF with one presentation data value (PS3.8 section 9.3.5, annex E.2):
# type, reserved, length of the PDU; length of the item, context id, message control header
_HEADER = struct.Struct(">BBIIBB")
_P_DATA, _ITEM_OVERHEAD = 0x04, 6
_COMMAND_LAST, _DATA_MORE, _DATA_LAST = 0x03, 0x00, 0x02
#: longest PDU sent to a peer that takes any (announces 0)
_LARGEST_PDU = 1 << 17

# a data element in Explicit VR Little Endian (PS3.5 section 7.1.2): group, element, VR, short length
_ELEMENT, _LONG = struct.Struct("<HH2sH"), struct.Struct("<I")
_UID = re.compile(rb"[0-9.]{1,64}")
_META_GROUP, _TRANSFER_SYNTAX = 0x0002, 0x0010
_LONG_VRS, _SHORT_VRS = frozenset({b"OB", b"UN"}), frozenset({b"UI", b"UL", b"SH", b"AE", b"UR"})
#: the file meta information of this node takes 0.4 kB
_HEAD_BYTES = 2048
#: most places that one call of the system fills (IOV_MAX is 1024)
_MOST_PDUS = 512

_C_STORE_RQ, _MEDIUM, _WITH_DATA_SET = 0x0001, 0x0000, 0x0001
#: an element of a command set: its tag and length, and its value if that is one number of 16 bits
_COMMAND_ELEMENT, _COMMAND_NUMBER = struct.Struct("<HHI"), struct.Struct("<HHIH")


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
    with Outgoing(path) as found:
        return found.data


class Outgoing:
    """A Part 10 file that is about to be sent, open until `close`.

    Raises SpoolError if it is not there or is no such file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._handle: int | None = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise SpoolError(f"{path.name} is gone from the spool; send the object again") from error
        except OSError as error:
            raise _unreadable(path) from error
        try:
            self.data = _located(path, self._handle)
        except BaseException:
            self.close()
            raise

    def read(self, places: list[memoryview], at: int) -> None:
        """Fill `places`, one after the other, from byte `at` of the data set; EOFError if it ends before."""
        assert self._handle is not None, "it is closed"
        at += self.data.start
        while places:
            count = os.preadv(self._handle, places, at)
            if not count:
                raise EOFError("the file ended before the data set did")
            at += count
            places = _left(places, count)

    def close(self) -> None:
        """Close the file; once more is harmless."""
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def _left(places: list[memoryview], count: int) -> list[memoryview]:
    """What is still to be filled after `count` bytes."""
    for number, place in enumerate(places):
        if count < len(place):
            return [place[count:], *places[number + 1 :]]
        count -= len(place)
    return []


def _unreadable(path: Path) -> SpoolError:
    return SpoolError(f"{path.name} cannot be read as a DICOM file; check the disk")


def _located(path: Path, handle: int) -> DataSet:
    try:
        size = os.fstat(handle).st_size
        start, syntax = _head(os.pread(handle, _HEAD_BYTES, 0)) or _unusual_head(path)
    except (OSError, AttributeError, InvalidDicomError) as error:
        raise _unreadable(path) from error
    if size <= start:
        raise SpoolError(f"{path.name} holds no data set; send the object again")
    return DataSet(path, start, size - start, syntax)


def _unusual_head(path: Path) -> tuple[int, str]:
    """As pydicom reads it, which understands more than there should be, and takes ten times as long."""
    meta, start = split_dataset(path)
    return start, str(meta.TransferSyntaxUID)


def _head(head: bytes) -> tuple[int, str] | None:
    """Where the data set begins and its transfer syntax, by the first bytes of a Part 10 file (PS3.10, 7.1).

    None unless every element of the file meta information is as this node and most others write it.
    """
    if head[128:132] != b"DICM":
        return None
    at, syntax = 132, None
    while at + 12 <= len(head):
        group, element, vr, length = _ELEMENT.unpack_from(head, at)
        if group != _META_GROUP:
            return None if syntax is None else (at, syntax)
        if vr in _LONG_VRS:
            (length,) = _LONG.unpack_from(head, at + 8)
            at += 4
        elif vr not in _SHORT_VRS:
            return None
        if element == _TRANSFER_SYNTAX:
            value = head[at + 8 : at + 8 + length].rstrip(b"\0 ")
            if not _UID.fullmatch(value):
                return None
            syntax = value.decode("ascii")
        at += 8 + length
    return None


def fragment_size(largest: int) -> int:
    """Bytes of an object in each PDU to a peer that takes PDUs of `largest` bytes, 0 for any."""
    # fragments are of even length (PS3.8 annex D.1 counts the headers of the item)
    return max((min(largest or _LARGEST_PDU, _LARGEST_PDU) - _ITEM_OVERHEAD) & ~1, 2)


def command(request: Request, context_id: int, fragment: int) -> bytes:
    """The command set as PDUs: Implicit VR Little Endian whatever the data set is (PS3.7 section 6.3.1)."""
    return b"".join(_command(request, context_id, fragment))


def _command(request: Request, context_id: int, fragment: int) -> Iterator[bytes]:
    elements = (
        _uid(0x0002, request.sop_class_uid)
        + _number(0x0100, _C_STORE_RQ)
        + _number(0x0110, request.message_id)
        + _number(0x0700, _MEDIUM)
        + _number(0x0800, _WITH_DATA_SET)
        + _uid(0x1000, request.sop_instance_uid)
    )
    command = _COMMAND_ELEMENT.pack(0x0000, 0x0000, 4) + _LONG.pack(len(elements)) + elements
    for start in range(0, len(command), fragment):
        part = command[start : start + fragment]
        control = _COMMAND_LAST if start + fragment >= len(command) else 0x01
        yield _header(len(part), context_id, control) + part


def _number(element: int, value: int) -> bytes:
    return _COMMAND_NUMBER.pack(0x0000, element, 2, value)


def _uid(element: int, uid: str) -> bytes:
    value = uid.encode("ascii", "replace")
    value += b"\0" * (len(value) % 2)
    return _COMMAND_ELEMENT.pack(0x0000, element, len(value)) + value


def _header(size: int, context_id: int, control: int) -> bytes:
    return _HEADER.pack(_P_DATA, 0, size + _ITEM_OVERHEAD, size + 2, context_id, control)


def room(fragment: int) -> bytearray:
    """Memory for one batch of PDUs behind a command; `batches` fills it again and again."""
    stride = _HEADER.size + fragment
    return bytearray(_LEAD_BYTES + max(min(BATCH_BYTES // stride, _MOST_PDUS), 1) * stride)


def led(command: bytes, first: memoryview, memory: bytearray) -> Iterator[bytes | memoryview]:
    """A command and the first batch, which lies in `memory`: one piece, unless the command is very long."""
    start = _LEAD_BYTES - len(command)
    if start < 0:
        yield command
        yield first
        return
    memory[start:_LEAD_BYTES] = command
    yield memoryview(memory)[start : _LEAD_BYTES + len(first)]


def batches(out: Outgoing, context_id: int, fragment: int, memory: bytearray) -> Iterator[memoryview]:
    """The data set as PDUs of `fragment` bytes, several at a time, each batch in the place of the last.

    Raises SpoolError when it cannot be read to its end.
    """
    view, left = memoryview(memory)[_LEAD_BYTES:], out.data.size
    try:
        while left:
            at, end, places = out.data.size - left, 0, []
            while left and end < len(view):
                size = min(fragment, left)
                left -= size
                control = _DATA_MORE if left else _DATA_LAST
                _HEADER.pack_into(view, end, _P_DATA, 0, size + _ITEM_OVERHEAD, size + 2, context_id, control)
                end += _HEADER.size + size
                places.append(view[end - size : end])
            out.read(places, at)
            yield view[:end]
    except (OSError, EOFError) as error:
        raise SpoolError(f"{out.path.name} cannot be read to its end; check the disk") from error
