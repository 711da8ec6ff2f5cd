"""Command sets as bytes: what a C-STORE or C-ECHO request says, and the answer to it (PS3.7 section 9.3).

Rules that bind here:
1. Only a request that is in order in every respect is read here; whatever is odd is left to the library.
2. An answer fits the PDUs that the peer takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct

from dicom_node.dimse.contexts import is_uid

C_STORE_RQ, C_ECHO_RQ = 0x0001, 0x0030
#: the bit that makes an answer of a request, and what says that no data set follows
_ANSWER, NO_DATA_SET = 0x8000, 0x0101

_CLASS, _FIELD, _MESSAGE, _RESPONDED, _PRIORITY = 0x0002, 0x0100, 0x0110, 0x0120, 0x0700
_DATA_SET, _STATUS, _COMMENT, _INSTANCE = 0x0800, 0x0900, 0x0902, 0x1000
_MOVER, _MOVER_MESSAGE = 0x1030, 0x1031
_LENGTH = 0x0000
#: what a request may say, and those of it that it must
_MAY = frozenset({_LENGTH, _CLASS, _FIELD, _MESSAGE, _PRIORITY, _DATA_SET, _INSTANCE, _MOVER, _MOVER_MESSAGE})
_STORE_MUST = frozenset({_CLASS, _FIELD, _MESSAGE, _PRIORITY, _DATA_SET, _INSTANCE})
_ECHO_MUST = frozenset({_CLASS, _FIELD, _MESSAGE, _DATA_SET})
_PRIORITIES = range(3)
_LONGEST_TITLE = 16

_HEAD, _SHORT, _LONG = Struct("<HHI"), Struct("<H"), Struct("<I")
# P-DATA-TF with one presentation data value (PS3.8 section 9.3.5, annex E.2)
_PDU = Struct(">BBIIBB")
_P_DATA, _ITEM_OVERHEAD, _COMMAND, _LAST = 0x04, 6, 0x01, 0x02


@dataclass(frozen=True, slots=True)
class Request:
    """A C-STORE request with a data set, or a C-ECHO request."""

    kind: int
    message_id: int
    sop_class_uid: str
    sop_instance_uid: str = ""


def read(command: memoryview) -> Request | None:
    """What a whole command set asks for; None unless it is one of the two requests, and in order."""
    values = _values(command)
    if values is None or not _MAY.issuperset(values):
        return None
    kind = _number(values.get(_FIELD)) or 0
    must = _STORE_MUST if kind == C_STORE_RQ else _ECHO_MUST if kind == C_ECHO_RQ else None
    if must is None or not must.issubset(values):
        return None
    message_id, sop_class = _number(values[_MESSAGE]), _uid(values[_CLASS])
    data_set = _number(values[_DATA_SET])
    if message_id is None or sop_class is None or data_set is None:
        return None
    if (data_set == NO_DATA_SET) is (kind == C_STORE_RQ):
        return None
    if kind == C_ECHO_RQ:
        return Request(kind, message_id, sop_class)
    instance = _uid(values[_INSTANCE])
    if instance is None or not _is_plain(values):
        return None
    return Request(kind, message_id, sop_class, instance)


def _values(command: memoryview) -> dict[int, bytes] | None:
    """The elements by number; None unless all are of group 0000, whole, and there once."""
    values: dict[int, bytes] = {}
    at, end = 0, len(command)
    while at < end:
        if end - at < _HEAD.size:
            return None
        group, number, length = _HEAD.unpack_from(command, at)
        at += _HEAD.size + length
        if group or at > end or number in values:
            return None
        values[number] = bytes(command[at - length : at])
    return values


def _number(value: bytes | None) -> int | None:
    return int(_SHORT.unpack(value)[0]) if value is not None and len(value) == _SHORT.size else None


def _uid(value: bytes) -> str | None:
    text = value.decode("latin-1").rstrip("\0")
    return text if is_uid(text) else None


def _is_plain(values: dict[int, bytes]) -> bool:
    """Whether what else a C-STORE request says is as it should be."""
    mover, message = values.get(_MOVER, b""), values.get(_MOVER_MESSAGE, b"\0\0")
    return (
        _number(values[_PRIORITY]) in _PRIORITIES
        and _number(message) is not None
        and len(mover) <= _LONGEST_TITLE
        and mover.isascii()
        and b"\\" not in mover
    )


def answer(request: Request, context_id: int, status: int, comment: str, largest: int) -> bytes:
    """The PDUs that answer a request; `largest` is what the peer takes, 0 any length."""
    sop_class, instance = request.sop_class_uid.encode("ascii"), request.sop_instance_uid.encode("ascii")
    elements = b"".join(
        (
            _element(_CLASS, sop_class + b"\0" * (len(sop_class) % 2)),
            _element(_FIELD, _SHORT.pack(request.kind | _ANSWER)),
            _element(_RESPONDED, _SHORT.pack(request.message_id)),
            _element(_DATA_SET, _SHORT.pack(NO_DATA_SET)),
            _element(_STATUS, _SHORT.pack(status)),
            _element(_COMMENT, _padded(comment)) if comment else b"",
            _element(_INSTANCE, instance + b"\0" * (len(instance) % 2)) if instance else b"",
        )
    )
    return b"".join(_pdus(_element(_LENGTH, _LONG.pack(len(elements))) + elements, context_id, largest))


def _pdus(command: bytes, context_id: int, largest: int) -> Iterator[bytes]:
    # fragments are of even length
    fragment = max((largest - _ITEM_OVERHEAD) & ~1, 2) if largest else len(command)
    for start in range(0, len(command), fragment):
        part = command[start : start + fragment]
        control = _COMMAND | (_LAST if start + fragment >= len(command) else 0)
        size = len(part) + 2
        yield _PDU.pack(_P_DATA, 0, size + 4, size, context_id, control) + part


def _element(number: int, value: bytes) -> bytes:
    return _HEAD.pack(0, number, len(value)) + value


def _padded(text: str) -> bytes:
    value = text.encode("ascii", "replace")
    return value + b" " * (len(value) % 2)
