"""Elements whose bytes leave no choice (PS3.5 chapter 7), written without a library.

pydicom writes everything, and takes a tenth of a millisecond for an item of a sequence. Most of what a node
adds is ASCII text, UIDs, bytes, and sequences of such; those are written here, to the same bytes. Whatever is
anything else is left to pydicom.

    Encoding(implicit=False, little=True).element(0x00080060, "CS", b"CT")    an element of a given value
    plain(element, encoding)    the element of a data set, None where pydicom must write it
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from operator import itemgetter
from typing import NamedTuple

from pydicom import uid
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32

Item = DataElement | RawDataElement

#: VRs of text, and what fills an odd length
TEXT_PADDING = {
    **dict.fromkeys(("AE", "AS", "CS", "DA", "DT", "LO", "LT", "SH", "ST", "TM", "UC", "UT"), b" "),
    "UI": b"\0",
}
_LONG = frozenset(str(vr) for vr in EXPLICIT_VR_LENGTH_32)
#: most bytes of a value whose length has 16 bits; pydicom has its own way with more
SHORT_BYTES = 0xFFFF
_ITEM = 0xFFFEE000
_UNDEFINED = 0xFFFFFFFF


class _Heads(NamedTuple):
    """Tag, VR and length in one byte order."""

    implicit: struct.Struct
    short: struct.Struct
    long: struct.Struct


_LITTLE, _BIG = (
    _Heads(*(struct.Struct(order + form) for form in ("HHI", "HH2sH", "HH2s2xI"))) for order in "<>"
)


@dataclass(frozen=True, slots=True)
class Encoding:
    """How the elements of a data set are written."""

    implicit: bool
    little: bool

    @classmethod
    def of_syntax(cls, syntax: str) -> Encoding:
        """The encoding that a transfer syntax demands (PS3.5 section 10)."""
        return cls(syntax == uid.ImplicitVRLittleEndian, syntax != uid.ExplicitVRBigEndian)

    def element(self, tag: int, vr: str, value: bytes) -> bytes:
        """An element of defined length; `value` is its value field, in this encoding already."""
        heads = _LITTLE if self.little else _BIG
        group, number = tag >> 16, tag & 0xFFFF
        if self.implicit:
            return heads.implicit.pack(group, number, len(value)) + value
        head = heads.long if vr in _LONG else heads.short
        return head.pack(group, number, vr.encode(), len(value)) + value

    def item(self, content: bytes) -> bytes:
        """An item of a sequence, of defined length, around its elements."""
        heads = _LITTLE if self.little else _BIG
        return heads.implicit.pack(_ITEM >> 16, _ITEM & 0xFFFF, len(content)) + content

    def wrote(self, raw: RawDataElement) -> bool:
        """Whether the value of a raw element can stand in this encoding as it is."""
        same_order = raw.is_little_endian == self.little
        return same_order and raw.is_implicit_VR == self.implicit and (self.implicit or bool(raw.VR))


_META, _META_LENGTH = Encoding(implicit=False, little=True), 0x00020000


def plain(item: Item, encoding: Encoding) -> bytes | None:
    """The bytes of an element as pydicom writes them, None for one that this module does not write."""
    value = _raw_value(item, encoding) if isinstance(item, RawDataElement) else _value(item, encoding)
    if value is None:
        return None
    vr = item.VR or ""
    if not encoding.implicit and (len(vr) != 2 or (vr not in _LONG and len(value) > SHORT_BYTES)):
        return None
    return encoding.element(int(item.tag), vr, value)


def plain_value(item: DataElement) -> bytes | None:
    """The value field of an element in explicit little endian, None as `plain`."""
    value = _value(item, _META) if len(item.VR) == 2 else None
    return None if value is None or (item.VR not in _LONG and len(value) > SHORT_BYTES) else value


def plain_meta(meta: Dataset) -> bytes | None:
    """The File Meta Information (PS3.10 section 7.1) with its length as it is now; None as `plain`."""
    if meta.original_encoding not in ((False, True), (None, None)):
        return None
    parts = [plain(item, _META) for tag, item in _ascending(meta) if tag != _META_LENGTH]
    if None in parts:
        return None
    content = b"".join(filter(None, parts))
    length = _META.element(_META_LENGTH, "UL", struct.pack("<I", len(content)))
    return length + content if _META_LENGTH in meta else content


def _ascending(ds: Dataset) -> list[tuple[int, Item]]:
    return sorted(zip(map(int, ds._dict), ds._dict.values(), strict=True), key=itemgetter(0))


def _raw_value(item: RawDataElement, encoding: Encoding) -> bytes | None:
    if item.length == _UNDEFINED or not encoding.wrote(item) or not isinstance(item.value, bytes):
        return None
    return item.value


def _value(item: DataElement, encoding: Encoding) -> bytes | None:
    value, vr = item.value, item.VR
    if item.is_undefined_length:
        return None
    if vr in TEXT_PADDING:
        return _text(value, TEXT_PADDING[vr])
    if vr == "OB" and type(value) is bytes:
        return value + b"\0" * (len(value) % 2)
    if vr == "SQ":
        return _sequence(value, encoding)
    return None


def _text(value: object, padding: bytes) -> bytes | None:
    if isinstance(value, MultiValue):
        if not all(isinstance(each, str) for each in value):
            return None
        value = "\\".join(value)
    return ascii_text(value, padding) if isinstance(value, str) else None


def ascii_text(text: str, padding: bytes) -> bytes | None:
    """ASCII characters, which every character set of DICOM writes alike (a test asks them all); else None."""
    if not text.isascii():
        return None
    encoded = text.encode("ascii")
    return encoded + padding * (len(encoded) % 2)


def _sequence(items: Iterable[Dataset], encoding: Encoding) -> bytes | None:
    parts = []
    for each in items:
        content = _item_content(each, encoding)
        if content is None:
            return None
        parts.append(encoding.item(content))
    return b"".join(parts)


def _item_content(item: Dataset, encoding: Encoding) -> bytes | None:
    """The elements of an item that was made in memory."""
    if item.is_undefined_length_sequence_item or item.original_encoding != (None, None):
        return None
    parts = []
    for tag, element in _ascending(item):
        written = plain(element, encoding) if tag & 0xFFFF else None
        if written is None:
            return None
        parts.append(written)
    return b"".join(parts)
