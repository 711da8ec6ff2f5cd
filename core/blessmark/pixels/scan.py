"""A usual DICOM file, cut into its elements in one pass over its bytes.

pydicom reads every file there is, and its loop is made for all of them. Most files are of one kind: a
preamble, little endian, each element as long as it says, nothing behind the last. Those are cut here, to the
very data set and layout that pydicom's reader and `layout.keep` would make of them. Of any other file `scan`
says nothing, and pydicom reads it from the start: what a broken file is called is pydicom's to say.

Sequences of undefined length are pydicom's too, one by one.
"""

from __future__ import annotations

import functools
import io
import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import BinaryIO, NamedTuple, cast

from pydicom import uid
from pydicom.charset import convert_encodings, default_encoding
from pydicom.dataelem import RawDataElement, empty_value_for_VR
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.filereader import data_element_generator
from pydicom.tag import BaseTag
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, STANDARD_VR
from pydicom.values import convert_string

from blessmark.pixels import layout
from blessmark.pixels.layout import PIXEL_DATA, Layout, Piece
from blessmark.pixels.plain import Encoding, Item
from blessmark.pixels.syntax import DEFLATED

_PREFIX, _PREAMBLE_BYTES = b"DICM", 128
_START = _PREAMBLE_BYTES + len(_PREFIX)
_META = Encoding(implicit=False, little=True)
_META_GROUP, _CHARACTER_SET = b"\2\0", 0x00080005
#: groups that mean something else where they stand in a data set: commands, file meta, items
_OTHER_GROUPS = frozenset({0x0000, 0x0002, 0xFFFE})
_UNDEFINED = 0xFFFFFFFF
_DELIMITER_BYTES, _UID_LETTERS = 8, 64
#: how much is read at once while elements are looked for, bytes
_WINDOW_BYTES = 1 << 16
#: the longest head of an element: tag, VR, reserved, length
_HEAD_BYTES = 12
_EXPLICIT, _IMPLICIT, _LENGTH = struct.Struct("<HH2sH"), struct.Struct("<HHI"), struct.Struct("<I")
_VRS = {str(vr).encode(): str(vr) for vr in STANDARD_VR}
#: what pydicom makes of a value of no length
_EMPTY = {vr: cast("bytes | None", empty_value_for_VR(vr, raw=True)) for vr in (None, *_VRS.values())}
_LONG = frozenset(str(vr) for vr in EXPLICIT_VR_LENGTH_32)


class _Unusual(Exception):  # noqa: N818 - no error: pydicom reads the file
    """The file is not of the usual kind."""


class _Head(NamedTuple):
    """The head of an element: where its value starts, and what it says of it."""

    tag: int
    vr: str | None
    value_at: int
    length: int


class _Window:
    """A part of a file in memory, moved along as needed; a value that is longer is read alone."""

    def __init__(self, file: BinaryIO) -> None:
        self.size = file.seek(0, io.SEEK_END)
        self.file = file
        self._at, self._held = 0, b""

    def head(self, at: int, encoding: Encoding) -> _Head:
        """The head of the element at `at`."""
        held, offset = self._around(at, _HEAD_BYTES)
        try:
            if encoding.implicit:
                group, number, length = _IMPLICIT.unpack_from(held, offset)
                return _Head(group << 16 | number, None, at + 8, length)
            group, number, code, length = _EXPLICIT.unpack_from(held, offset)
            vr = _VRS[code]
            if vr not in _LONG:
                return _Head(group << 16 | number, vr, at + 8, length)
            (length,) = _LENGTH.unpack_from(held, offset + 8)
        except (struct.error, KeyError):
            raise _Unusual from None
        return _Head(group << 16 | number, vr, at + 12, length)

    def between(self, start: int, end: int) -> bytes:
        """The bytes `start..end-1` of the file."""
        if end > self.size:
            raise _Unusual
        if end - start > _WINDOW_BYTES // 2:
            self.file.seek(start)
            return self.file.read(end - start)
        held, offset = self._around(start, end - start)
        return held[offset : offset + end - start]

    def _around(self, at: int, count: int) -> tuple[bytes, int]:
        """Bytes of the file that hold `count` from `at` on, and where they do."""
        if not self._at <= at <= at + count <= self._at + len(self._held):
            self.file.seek(at)
            self._at, self._held = at, self.file.read(_WINDOW_BYTES)
        return self._held, at - self._at


def scan(file: BinaryIO) -> Dataset | None:
    """The data set of a usual file with its layout attached, None for a file that pydicom must read."""
    try:
        return _scanned(_Window(file))
    except Exception:  # pydicom meets it again, and says what it is
        return None


def _scanned(window: _Window) -> Dataset:
    if window.between(_PREAMBLE_BYTES, _START) != _PREFIX:
        raise _Unusual
    meta, start = _meta(window)
    encoding = _encoding(meta.get("TransferSyntaxUID"))
    pieces = tuple(_pieces(window, start, encoding))
    items = {piece.item.tag: piece.item for piece in pieces if piece.item is not None}
    if not items or len(items) != len(pieces):
        raise _Unusual
    preamble = window.between(0, _PREAMBLE_BYTES)
    ds = FileDataset(window.file, items, preamble, meta, encoding.implicit, encoding.little)
    if _CHARACTER_SET in ds:  # pydicom asks for it, and what was asked for is held decoded
        pieces = tuple(p if p.tag != _CHARACTER_SET else replace(p, item=ds[_CHARACTER_SET]) for p in pieces)
    ds.set_original_encoding(encoding.implicit, encoding.little, ds._character_set)
    layout.attach(ds, Layout(encoding, pieces))
    return ds


def _meta(window: _Window) -> tuple[FileMetaDataset, int]:
    """The File Meta Information, and where the data set starts."""
    items: dict[BaseTag, Item] = {}
    at = _START
    while window.between(at, at + 2) == _META_GROUP:
        head = window.head(at, _META)
        value = window.between(head.value_at, head.value_at + head.length)
        items[BaseTag(head.tag)], at = _item(head, value, _META), head.value_at + head.length
    meta = FileMetaDataset(items)
    meta.set_original_encoding(
        is_implicit_vr=False, is_little_endian=True, character_encoding=default_encoding
    )
    meta[min(map(int, items))]  # pydicom tries the first, which is held decoded since
    return meta, at


@functools.lru_cache(maxsize=64)
def _usual(syntax: str) -> Encoding | None:
    known = uid.UID(syntax)
    others = {*DEFLATED, uid.ExplicitVRBigEndian}
    usual = known.is_transfer_syntax and not known.is_private and known not in others
    return Encoding.of_syntax(syntax) if usual else None


def _encoding(syntax: object) -> Encoding:
    """How the elements of a transfer syntax lie in the file, if they do."""
    found = _usual(syntax) if isinstance(syntax, uid.UID) and len(syntax) <= _UID_LETTERS else None
    if found is None:
        raise _Unusual
    return found


def _pieces(window: _Window, at: int, encoding: Encoding) -> Iterator[Piece]:
    """The elements from `at` to the last byte of the file."""
    if encoding.implicit and _looks_explicit(window.between(at + 4, at + 6)):
        raise _Unusual
    names: str | list[str] = default_encoding
    while at < window.size:
        head = window.head(at, encoding)
        if head.tag >> 16 in _OTHER_GROUPS:
            raise _Unusual
        if head.length == _UNDEFINED:
            piece, end = _delimited(window, at, head, encoding, names)
        else:
            piece, end = _stated(window, at, head, encoding), head.value_at + head.length
        if head.tag == _CHARACTER_SET and isinstance(piece.item, RawDataElement):
            names = convert_encodings(convert_string(piece.item.value or b"", True))
        yield piece
        at = end


def _looks_explicit(code: bytes) -> bool:
    """Whether pydicom would take what it finds in the place of a VR for one."""
    return len(code) == 2 and all(0x40 < letter < 0x5B for letter in code)


def _item(head: _Head, value: bytes, encoding: Encoding) -> RawDataElement:
    return RawDataElement(
        BaseTag(head.tag),
        head.vr,
        head.length,
        value if head.length else _EMPTY[head.vr],
        head.value_at,
        encoding.implicit,
        encoding.little,
    )


def _stated(window: _Window, at: int, head: _Head, encoding: Encoding) -> Piece:
    """An element that says how long it is."""
    end = head.value_at + head.length
    if head.tag == PIXEL_DATA:  # not to be copied
        item = _item(head, window.between(head.value_at, end), encoding)
        return Piece(head.tag, window.between(at, head.value_at), b"", item)
    raw = window.between(at, end)
    return Piece(head.tag, raw, b"", _item(head, raw[head.value_at - at :], encoding))


def _delimited(
    window: _Window, at: int, head: _Head, encoding: Encoding, names: str | list[str]
) -> tuple[Piece, int]:
    """An element that ends with a delimiter: fragments, or a sequence, as pydicom reads it; and its end."""
    window.file.seek(at)
    item = next(data_element_generator(window.file, encoding.implicit, encoding.little, encoding=names))
    end = window.file.tell()
    if isinstance(item, RawDataElement) and end != head.value_at + len(item.value or b"") + _DELIMITER_BYTES:
        raise _Unusual  # pydicom does not mind that the file ends within the delimiter
    if head.tag != PIXEL_DATA:
        return Piece(head.tag, window.between(at, end), b"", item), end
    tail = window.between(end - _DELIMITER_BYTES, end)
    return Piece(head.tag, window.between(at, head.value_at), tail, item), end
