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
from collections.abc import Callable, Iterator
from typing import BinaryIO, TypeVar, cast

from pydicom import uid
from pydicom.charset import convert_encodings, default_encoding
from pydicom.dataelem import DataElement, RawDataElement, empty_value_for_VR
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.filereader import data_element_generator
from pydicom.tag import BaseTag
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, STANDARD_VR
from pydicom.values import convert_string

from blessmark.pixels import layout
from blessmark.pixels.elements import tag_object
from blessmark.pixels.layout import PIXEL_DATA, Layout, Piece
from blessmark.pixels.plain import Encoding, Item
from blessmark.pixels.syntax import DEFLATED

_PREFIX, _PREAMBLE_BYTES = b"DICM", 128
_START = _PREAMBLE_BYTES + len(_PREFIX)
_META = Encoding(implicit=False, little=True)
_META_GROUP, _CHARACTER_SET = b"\2\0", 0x00080005
#: groups that mean something else where they stand in a data set: commands, file meta, items
_OTHER_GROUPS = frozenset({0x0000, 0x0002, 0xFFFE})
_META_LENGTH, _SYNTAX = 0x00020000, 0x00020010
_UNDEFINED = 0xFFFFFFFF
_DELIMITER_BYTES, _UID_LETTERS = 8, 64
#: how much is read at once while elements are looked for, bytes
_WINDOW_BYTES = 1 << 14
#: the longest head of an element: tag, VR, reserved, length
_HEAD_BYTES = 12
_EXPLICIT, _IMPLICIT, _LENGTH = struct.Struct("<HH2sH"), struct.Struct("<HHI"), struct.Struct("<I")
_VRS = {str(vr).encode(): str(vr) for vr in STANDARD_VR}
#: what pydicom makes of a value of no length
_EMPTY = {vr: cast("bytes | None", empty_value_for_VR(vr, raw=True)) for vr in (None, *_VRS.values())}
_LONG = frozenset(str(vr) for vr in EXPLICIT_VR_LENGTH_32)


_DS = TypeVar("_DS", bound=Dataset)


#: the tuples that they are, without the functions in Python that name their parts: a header has a hundred
_raw: Callable[[tuple[object, ...]], RawDataElement] = functools.partial(tuple.__new__, RawDataElement)
_piece: Callable[[tuple[object, ...]], Piece] = functools.partial(tuple.__new__, Piece)


class _Unusual(Exception):  # noqa: N818 - no error: pydicom reads the file
    """The file is not of the usual kind."""


#: the head of an element: its tag and VR, where its value starts, and how long that is
_Head = tuple[int, str | None, int, int]


class _Window:
    """A part of a file in memory, moved along as needed; a value that is longer is read alone."""

    def __init__(self, file: BinaryIO) -> None:
        self.size = file.seek(0, io.SEEK_END)
        self.file = file
        self._at, self._end, self._held = 0, 0, b""

    def head(self, at: int, encoding: Encoding) -> _Head:
        """The head of the element at `at`."""
        if at < self._at or self._end < at + _HEAD_BYTES <= self.size:
            self._move(at)
        offset = at - self._at
        try:
            if encoding.implicit:
                group, number, length = _IMPLICIT.unpack_from(self._held, offset)
                return group << 16 | number, None, at + 8, length
            group, number, code, length = _EXPLICIT.unpack_from(self._held, offset)
            vr = _VRS[code]
            if vr not in _LONG:
                return group << 16 | number, vr, at + 8, length
            (length,) = _LENGTH.unpack_from(self._held, offset + 8)
        except (struct.error, KeyError):
            raise _Unusual from None
        return group << 16 | number, vr, at + 12, length

    def between(self, start: int, end: int) -> bytes:
        """The bytes `start..end-1` of the file."""
        if end > self.size:
            raise _Unusual
        if start < self._at or end > self._end:
            if end - start > _WINDOW_BYTES // 2:
                return self._read(start, end - start)
            self._move(start)
        return self._held[start - self._at : end - self._at]

    def _move(self, at: int) -> None:
        self._held = self._read(at, min(_WINDOW_BYTES, self.size - at))
        self._at, self._end = at, at + len(self._held)

    def _read(self, at: int, count: int) -> bytes:
        """Bytes from `at` on; a file without a buffer gives 2 GB at a time."""
        self.file.seek(at)
        found = self.file.read(count)
        while len(found) < count and (more := self.file.read(count - len(found))):
            found += more
        return found


def scan(file: BinaryIO) -> Dataset | None:
    """The data set of a usual file with its layout attached, None for a file that pydicom must read."""
    try:
        return _scanned(_Window(file))
    except Exception:  # pydicom meets it again, and says what it is
        return None


def _scanned(window: _Window) -> Dataset:
    if window.between(_PREAMBLE_BYTES, _START) != _PREFIX:
        raise _Unusual
    preamble = window.between(0, _PREAMBLE_BYTES)
    meta, start = _meta(window)
    encoding = _encoding(_decoded(meta, _SYNTAX).value)
    pieces = tuple(_pieces(window, start, encoding))
    items = {piece.item.tag: piece.item for piece in pieces if piece.item is not None}
    if not items or len(items) != len(pieces):
        raise _Unusual
    ds = _like(_bare(encoding), items)
    ds.__dict__.update(preamble=preamble, file_meta=meta)
    if tag_object(_CHARACTER_SET) in items:  # pydicom asks for it, and what was asked for is held decoded
        held = _decoded(ds, _CHARACTER_SET)
        ds.__dict__["_read_charset"] = (
            list(_names_of(held.value)) if type(held.value) is str else ds._character_set
        )
        pieces = tuple(p if p.tag != _CHARACTER_SET else p._replace(item=held) for p in pieces)
    layout.attach(ds, Layout(encoding, pieces))
    return ds


@functools.lru_cache(maxsize=2)
def _bare(encoding: Encoding) -> FileDataset:
    """A data set of a file without any element, to make others like it."""
    ds = FileDataset("", {}, b"", FileMetaDataset(), encoding.implicit, encoding.little)
    ds.set_original_encoding(encoding.implicit, encoding.little, default_encoding)
    return ds


@functools.lru_cache(maxsize=1)
def _bare_meta() -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.set_original_encoding(
        is_implicit_vr=False, is_little_endian=True, character_encoding=default_encoding
    )
    return meta


def _like(bare: _DS, items: dict[BaseTag, Item]) -> _DS:
    """A data set of these elements, all else as in one without any; its constructor does much for each."""
    fresh = object.__new__(type(bare))
    own = {name: value.copy() if type(value) is dict else value for name, value in bare.__dict__.items()}
    fresh.__dict__.update(own, _dict=items)
    return fresh


def _decoded(ds: Dataset, tag: int) -> DataElement:
    """An element as pydicom decodes it, which `ds` holds from then on."""
    key = tag_object(tag)
    raw = ds._dict[key]
    if isinstance(raw, RawDataElement) and raw.length <= _UID_LETTERS and raw.value:
        known = _word(tag, raw.VR, raw.value, raw.is_implicit_VR)
        if known is not None:
            vr, value = known
            ds._dict[key] = found = DataElement(key, vr, value, raw.value_tell, already_converted=True)
            return found
    return ds[key]


@functools.lru_cache(maxsize=64)
def _word(tag: int, vr: str | None, value: bytes, implicit: bool) -> tuple[str, str] | None:
    """VR and value of an element of one word, which is the same for many files; None for any other."""
    holder = Dataset()
    holder[tag] = RawDataElement(tag_object(tag), vr, len(value), value, 0, implicit, True)
    found = holder[tag]
    return (found.VR, found.value) if isinstance(found.value, str) else None


@functools.lru_cache(maxsize=64)
def _names_of(sets: str) -> tuple[str, ...]:
    return tuple(convert_encodings(sets))


def _meta(window: _Window) -> tuple[FileMetaDataset, int]:
    """The File Meta Information, and where the data set starts."""
    items: dict[BaseTag, Item] = {}
    at = _START
    while window.between(at, at + 2) == _META_GROUP:
        tag, vr, value_at, length = window.head(at, _META)
        at = value_at + length
        items[tag_object(tag)] = _item(tag, vr, window.between(value_at, at), value_at, _META)
    meta = _like(_bare_meta(), items)
    first = tag_object(min(map(int, items)))  # pydicom tries the first, which is held decoded since
    raw = items[first]
    if int(first) == _META_LENGTH and raw.VR == "UL" and isinstance(raw, RawDataElement) and raw.length == 4:
        number = int.from_bytes(raw.value or b"", "little")
        items[first] = DataElement(first, "UL", number, raw.value_tell, already_converted=True)
    else:
        meta[first]
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
    names: tuple[str, ...] = ()
    while at < window.size:
        tag, vr, value_at, length = window.head(at, encoding)
        end = value_at + length
        if tag >> 16 in _OTHER_GROUPS:
            raise _Unusual
        if length == _UNDEFINED:
            piece, end = _delimited(window, at, tag, value_at, encoding, list(names) or default_encoding)
        elif tag == PIXEL_DATA:  # not to be copied
            item = _item(tag, vr, window.between(value_at, end), value_at, encoding)
            piece = Piece(tag, window.between(at, value_at), b"", item)
        else:
            raw = window.between(at, end)
            piece = _piece((tag, raw, b"", _item(tag, vr, raw[value_at - at :], value_at, encoding)))
        if tag == _CHARACTER_SET and isinstance(piece.item, RawDataElement):
            names = _names(piece.item.value or b"")
        yield piece
        at = end


@functools.lru_cache(maxsize=64)
def _names(sets: bytes) -> tuple[str, ...]:
    """The names in Python of the character sets of a value."""
    return tuple(convert_encodings(convert_string(sets, True)))


def _looks_explicit(code: bytes) -> bool:
    """Whether pydicom would take what it finds in the place of a VR for one."""
    return len(code) == 2 and all(0x40 < letter < 0x5B for letter in code)


def _item(tag: int, vr: str | None, value: bytes, value_at: int, encoding: Encoding) -> RawDataElement:
    held = value or _EMPTY[vr]
    implicit, little = encoding.implicit, encoding.little
    return _raw((tag_object(tag), vr, len(value), held, value_at, implicit, little, True, False))


def _delimited(
    window: _Window, at: int, tag: int, value_at: int, encoding: Encoding, names: str | list[str]
) -> tuple[Piece, int]:
    """An element that ends with a delimiter: fragments, or a sequence, as pydicom reads it; and its end."""
    window.file.seek(at)
    item = next(data_element_generator(window.file, encoding.implicit, encoding.little, encoding=names))
    end = window.file.tell()
    if isinstance(item, RawDataElement) and end != value_at + len(item.value or b"") + _DELIMITER_BYTES:
        raise _Unusual  # pydicom does not mind that the file ends within the delimiter
    if tag != PIXEL_DATA:
        return Piece(tag, window.between(at, end), b"", item), end
    tail = window.between(end - _DELIMITER_BYTES, end)
    return Piece(tag, window.between(at, value_at), tail, item), end
