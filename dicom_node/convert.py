"""The same object in another transfer syntax: every sample, and every value of every element, as it was.

    inflate a deflated data set, decompress Pixel Data, write element by element in the other encoding

Rules that bind here:
1. Values travel as bytes. Only what a transfer syntax says about an element changes: how its VR and length
   are written, whether a sequence states its length, and the order of bytes in numbers of big endian.
2. Nothing is left out but retired group lengths (PS3.5 section 7.2), which would be wrong, and offset tables
   of what is no longer compressed. What cannot be converted is an error.
3. Uncompressed objects are read and written piece by piece; of a compressed one all samples are in memory.

Runs in a process of its own; see `transcode`.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from pydicom import uid
from pydicom.datadict import dictionary_VR
from pydicom.dataset import FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset, read_preamble
from pydicom.filewriter import write_file_meta_info
from pydicom.tag import BaseTag
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32

from blessmark import pixels
from dicom_node.errors import InputError

_CHUNK = 1 << 20
_UNDEFINED = 0xFFFFFFFF
_LONGEST_SHORT = 0xFFFE
_DEEPEST = 64
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_BITS_ALLOCATED, _PIXEL_REPRESENTATION, _PIXEL_DATA = 0x00280100, 0x00280103, 0x7FE00010

#: bytes of one number of a VR; values of every other VR are the same in either order of bytes
_WORD_BYTES = {
    **dict.fromkeys(("US", "SS", "OW", "AT"), 2),
    **dict.fromkeys(("UL", "SL", "FL", "OL", "OF"), 4),
    **dict.fromkeys(("UV", "SV", "FD", "OV", "OD"), 8),
}


@dataclass(frozen=True, slots=True)
class Form:
    """How the elements of a transfer syntax are written."""

    implicit: bool
    little: bool = True


_FORMS = {
    str(uid.ImplicitVRLittleEndian): Form(implicit=True),
    str(uid.ExplicitVRLittleEndian): Form(implicit=False),
    str(uid.DeflatedExplicitVRLittleEndian): Form(implicit=False),
    str(uid.ExplicitVRBigEndian): Form(implicit=False, little=False),
}


def converted(path: Path, target: str) -> Iterator[bytes]:
    """The Part 10 file at `path` as one in `target`, Explicit or Implicit VR Little Endian, in pieces.

    Raises
    ------
    InputError : it is no DICOM file, is cut short, or cannot be written in `target`
    PixelError : its pixels cannot be decompressed
    OSError : it cannot be read
    """
    with path.open("rb") as file:
        meta = _meta(file)
        syntax = str(meta.get("TransferSyntaxUID", ""))
        source, form = _uncompressed(path, file, syntax)
        meta.TransferSyntaxUID = uid.UID(target)
        yield _head(meta)
        wanted = _FORMS[target]
        yield from _copied(source) if form == wanted else recoded(source, form, wanted)


def _meta(file: BinaryIO) -> FileMetaDataset:
    """The file meta information; `file` then stands at the data set."""
    try:
        read_preamble(file, False)
        elements = read_dataset(file, is_implicit_VR=False, is_little_endian=True, stop_when=_beyond_meta)
    except InvalidDicomError:
        raise InputError("the object is not a DICOM file: it lacks the DICM prefix") from None
    meta = FileMetaDataset()
    meta.update(elements)
    return meta


def _beyond_meta(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return tag.group != 2


def _head(meta: FileMetaDataset) -> bytes:
    """Preamble, prefix and file meta information (PS3.10 section 7.1)."""
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    meta.FileMetaInformationGroupLength = 0  # the writer counts
    write_file_meta_info(buffer, meta, enforce_standard=False)
    return bytes(128) + b"DICM" + bytes(buffer.getvalue())


def _uncompressed(path: Path, file: BinaryIO, syntax: str) -> tuple[BinaryIO, Form]:
    """The data set with nothing compressed in it, and how it is written."""
    if syntax == uid.DeflatedExplicitVRLittleEndian:
        return io.BufferedReader(_Inflated(file), _CHUNK), _FORMS[syntax]
    if syntax in _FORMS:
        return file, _FORMS[syntax]
    ds = pixels.read(path)
    pixels.decompress(ds)
    buffer = io.BytesIO()
    pixels.write(ds, buffer)
    buffer.seek(0)
    _meta(buffer)
    return buffer, _FORMS[str(uid.ExplicitVRLittleEndian)]


class _Inflated(io.RawIOBase):
    """What a deflated stream (PS3.5 annex A.5) holds, for reading once."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._stream = zlib.decompressobj(-zlib.MAX_WBITS)

    def readable(self) -> bool:
        return True

    def readinto(self, target: object, /) -> int:
        view = memoryview(target).cast("B")  # type: ignore[arg-type]
        while not self._stream.eof:
            packed = self._stream.unconsumed_tail or self._file.read(_CHUNK)
            if not packed:
                raise InputError("the deflated data set is cut short; send the object again")
            try:
                content = self._stream.decompress(packed, len(view))
            except zlib.error:
                raise InputError("the deflated data set is broken; send the object again") from None
            if content:
                view[: len(content)] = content
                return len(content)
        return 0


def _copied(source: BinaryIO) -> Iterator[bytes]:
    while chunk := source.read(_CHUNK):
        yield chunk


class _Source:
    """Bytes taken one after the other, and how many were."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.position = 0

    def take(self, size: int) -> bytes:
        """Exactly `size` bytes."""
        content = self.some(size)
        if len(content) != size:
            raise InputError("the data set ends within an element; send the object again")
        return content

    def some(self, size: int) -> bytes:
        """As many bytes as there are, at most `size`."""
        content = self._file.read(size)
        self.position += len(content)
        return content

    def pieces(self, size: int) -> Iterator[bytes]:
        """`size` bytes, in pieces that hold whole numbers of any width."""
        while size:
            piece = self.take(min(size, _CHUNK))
            size -= len(piece)
            yield piece


@dataclass(slots=True)
class _Level:
    """One data set or item: what decides how others of its elements are written, and how deep it lies."""

    bits_allocated: int = 16
    signed: bool = False
    depth: int = 0

    def inner(self) -> _Level:
        if self.depth == _DEEPEST:
            raise InputError(f"sequences are nested more than {_DEEPEST} deep")
        return replace(self, depth=self.depth + 1)

    def note(self, tag: int, value: bytes) -> None:
        """Learn from the value of an element, in little endian."""
        if tag == _BITS_ALLOCATED and len(value) == 2:
            self.bits_allocated = int.from_bytes(value, "little")
        elif tag == _PIXEL_REPRESENTATION and len(value) == 2:
            self.signed = value == b"\1\0"


def recoded(source: BinaryIO, given: Form, wanted: Form) -> Iterator[bytes]:
    """The uncompressed data set that `source` holds in the form `given`, in the form `wanted`, in pieces.

    Raises
    ------
    InputError : it is cut short, contradicts itself, or holds numbers whose width nothing tells
    """
    return _elements(_Source(source), given, wanted, None, _Level())


def _elements(source: _Source, given: Form, wanted: Form, end: int | None, level: _Level) -> Iterator[bytes]:
    """The elements up to position `end`; without one, up to the end of the item or of the file."""
    while end is None or source.position < end:
        tag = _tag(source, given, level)
        if tag is None or tag == _ITEM_END:
            break
        vr, length = _vr_and_length(source, given)
        if tag & 0xFFFF == 0:
            source.take(length)
            continue
        yield from _element(source, given, wanted, level, tag, vr, length)
    if end is not None and source.position != end:
        raise InputError("an item is longer or shorter than it states; send the object again")


def _tag(source: _Source, given: Form, level: _Level) -> int | None:
    """The next tag, None at the end of the file; the end of an item is eaten whole."""
    content = source.some(4)
    if not content and level.depth == 0:
        return None
    if len(content) != 4:
        raise InputError("the data set ends within an element; send the object again")
    group, element = struct.unpack("<HH" if given.little else ">HH", content)
    tag = int(group) << 16 | int(element)
    if tag == _ITEM_END:
        if level.depth == 0:
            raise InputError("an item ends outside of a sequence; send the object again")
        source.take(4)
    return tag


def _vr_and_length(source: _Source, given: Form) -> tuple[str, int]:
    """VR ("" where it is implicit) and length of an element whose tag was read."""
    order = "little" if given.little else "big"
    if given.implicit:
        return "", int.from_bytes(source.take(4), "little")
    head = source.take(4)
    vr = head[:2].decode("ascii", "replace")
    if not (vr.isalpha() and vr.isupper()):
        raise InputError("an element has no VR although the transfer syntax is an explicit one")
    if vr in EXPLICIT_VR_LENGTH_32:
        return vr, int.from_bytes(source.take(4), order)  # type: ignore[arg-type]
    return vr, int.from_bytes(head[2:], order)  # type: ignore[arg-type]


def _element(
    source: _Source, given: Form, wanted: Form, level: _Level, tag: int, vr: str, length: int
) -> Iterator[bytes]:
    if vr == "UN" and length == _UNDEFINED:
        # a sequence of unknown kind is in Implicit VR Little Endian whatever is around it (PS3.5 6.2.2)
        unknown = Form(implicit=True)
        yield _written(wanted, tag, "UN", _UNDEFINED)
        yield from _items(source, unknown, unknown, None, level)
        return
    known = vr or _implied_vr(tag, level, length)
    if known == "SQ":
        yield _written(wanted, tag, "SQ", _UNDEFINED)
        end = None if length == _UNDEFINED else source.position + length
        yield from _items(source, given, wanted, end, level)
        return
    if length == _UNDEFINED:
        raise InputError(
            f"element ({tag >> 16:04X},{tag & 0xFFFF:04X}) is compressed in an uncompressed object"
        )
    yield _written(wanted, tag, known, length)
    yield from _value(source, given, level, tag, known, length)


def _value(source: _Source, given: Form, level: _Level, tag: int, vr: str, length: int) -> Iterator[bytes]:
    ordered = _in_little_endian(given, tag, vr, length)
    for piece in source.pieces(length):
        swapped = ordered(piece)
        level.note(tag, swapped)
        yield swapped


def _in_little_endian(given: Form, tag: int, vr: str, length: int) -> Callable[[bytes], bytes]:
    """What puts the numbers of a value in the right order."""
    if given.little:
        return lambda piece: piece
    if vr == "UN" and length > 1:
        raise InputError(
            f"element ({tag >> 16:04X},{tag & 0xFFFF:04X}) of unknown kind cannot be taken out of big endian"
        )
    width = _WORD_BYTES.get(vr, 1)
    if length % width:
        raise InputError(f"element ({tag >> 16:04X},{tag & 0xFFFF:04X}) holds no whole numbers")
    return lambda piece: np.frombuffer(piece, f"u{width}").byteswap().tobytes()


def _items(source: _Source, given: Form, wanted: Form, end: int | None, level: _Level) -> Iterator[bytes]:
    """The items of a sequence, and its end; lengths are left undefined, so that nothing must be held back."""
    order = "<" if given.little else ">"
    while end is None or source.position < end:
        group, element, length = struct.unpack(f"{order}HHI", source.take(8))
        tag = group << 16 | element
        if tag == _SEQUENCE_END and end is None:
            break
        if tag != _ITEM:
            raise InputError("a sequence holds something other than items; send the object again")
        yield struct.pack("<HHI", 0xFFFE, 0xE000, _UNDEFINED)
        inner_end = None if length == _UNDEFINED else source.position + length
        yield from _elements(source, given, wanted, inner_end, level.inner())
        yield struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
    if end is not None and source.position != end:
        raise InputError("a sequence is longer or shorter than it states; send the object again")
    yield struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def _written(wanted: Form, tag: int, vr: str, length: int) -> bytes:
    """Tag, VR and length of an element."""
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    if wanted.implicit:
        return head + struct.pack("<I", length)
    if vr not in EXPLICIT_VR_LENGTH_32:
        if length <= _LONGEST_SHORT:
            return head + vr.encode() + struct.pack("<H", length)
        vr = "UN"  # a value that is too long for its VR (PS3.5 6.2.2)
    return head + vr.encode() + b"\0\0" + struct.pack("<I", length)


def _implied_vr(tag: int, level: _Level, length: int) -> str:
    """The VR of an element that does not state it (PS3.6); UN where nobody knows."""
    group, element = tag >> 16, tag & 0xFFFF
    creator = group % 2 == 1 and 0x10 <= element <= 0xFF
    known = "LO" if creator else "UN" if group % 2 else _known_vr(tag)
    if length == _UNDEFINED and known != "SQ":
        return "SQ"  # nothing else leaves its length open here
    if tag == _PIXEL_DATA:
        return "OW" if level.bits_allocated > 8 else "OB"
    if len(known) == 2:
        return known
    if known == "US or SS":
        return "SS" if level.signed else "US"
    return "OW"


def _known_vr(tag: int) -> str:
    """The VR of the data dictionary, groups that repeat (50xx, 60xx) included; UN where it has none."""
    try:
        return dictionary_VR(tag)
    except KeyError:
        return "UN"
