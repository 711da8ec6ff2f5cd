"""The structure of a data set on its way in: is it whole, and which instance does it say it is?

Rules that bind here:
1. No value is decoded, only element headers and the two UIDs of the SOP Common module are looked at.
2. Memory, depth and number of elements are bounded, whatever arrives.
3. What is whole is told from what is not; what is merely odd, and can be read in one way only, passes:
   odd lengths, unknown VRs (read as DCMTK reads them), zeros after the last element, elements of group 0002,
   elements out of order, a delimiter at the very end of an item or sequence whose length is given.
4. What can be read in two ways of which one is "cut off" does not pass: pixel fragments without their
   delimiter may be all there or may lack the last ones.

A cut at the boundary of two elements of the data set itself cannot be seen here.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct
from typing import NamedTuple

from pydicom._dicom_dict import DicomDictionary

from dicom_node.errors import DataSetError

#: sequences in sequences; a structured report has a dozen, and readers that recurse fail at several hundred
DEEPEST = 100
#: elements, items and fragments of one object; a slide of 100 000 frames has two million
MOST_ELEMENTS = 5_000_000
#: bytes that a deflated data set may unfold to; 4 GiB is the longest value of an element
MOST_INFLATED = 1 << 32

_IMPLICIT = "1.2.840.10008.1.2"
_BIG_ENDIAN = "1.2.840.10008.1.2.2"
#: the whole data set is deflated: Deflated Explicit VR, JPIP Referenced Deflate (two)
_DEFLATED = frozenset({"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"})

_CLASS, _INSTANCE = 0x00080016, 0x00080018
_PIXELS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF
#: groups of the UIDs, and of items and delimiters
_CLOSER_LOOK = frozenset({0x0008, 0xFFFE})
#: no UID is longer (64 and a padding byte); a longer value equals none
_LONGEST_UID = 128
_INFLATE_BYTES = 1 << 20
#: a byte of padding, and the checksum and length that some writers leave behind a deflated stream
_TRAILER_BYTES = 9

_SHORT = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
#: other VRs with a long length, but for sequences
_LONG = frozenset(b"OB OD OF OL OV OW SV UC UN UR UT UV".split())
_FRAGMENTED = frozenset(b"OB OD OF OL OV OW".split())
#: standard sequences, which implicit VR does not tell apart from other values
_SEQUENCES = frozenset(tag for tag, entry in DicomDictionary.items() if entry[0] == "SQ")


@dataclass(frozen=True, slots=True)
class Found:
    """What the data set says it is; an empty string where it says nothing."""

    sop_class_uid: str
    sop_instance_uid: str


class _Encoding(NamedTuple):
    explicit: bool
    #: group, element, length
    implicit_header: Struct
    #: group, element, VR, length or zero
    explicit_header: Struct
    long: Struct


_IMPLICIT_LITTLE = _Encoding(False, Struct("<HHI"), Struct("<HH2sH"), Struct("<I"))
_EXPLICIT_LITTLE = _Encoding(True, Struct("<HHI"), Struct("<HH2sH"), Struct("<I"))
_EXPLICIT_BIG = _Encoding(True, Struct(">HHI"), Struct(">HH2sH"), Struct(">I"))
_ENCODINGS = {_IMPLICIT: _IMPLICIT_LITTLE, _BIG_ENDIAN: _EXPLICIT_BIG}

#: what a level of nesting may hold
_ELEMENTS, _ITEMS, _FRAGMENTS, _PADDING = range(4)


class _Level(NamedTuple):
    holds: int
    encoding: _Encoding
    #: where it ends, None if a delimiter says so
    end: int | None
    #: what nothing inside may reach beyond: the nearest end around it
    limit: int | None


class _Header(NamedTuple):
    tag: int
    vr: bytes
    length: int
    #: where the value starts
    start: int


class StructureWalk:
    """Reads a data set as it arrives, in pieces of any size; not for use by two threads.

    Parameters
    ----------
    transfer_syntax_uid : how it is encoded; encapsulated and unknown syntaxes are Explicit VR Little Endian
    """

    def __init__(self, transfer_syntax_uid: str) -> None:
        encoding = _ENCODINGS.get(transfer_syntax_uid, _EXPLICIT_LITTLE)
        deflated = transfer_syntax_uid in _DEFLATED
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS) if deflated else None
        self._levels = [_Level(_ELEMENTS, encoding, None, None)]
        self._elements = 0
        #: bytes read so far, up to the first of `_rest`
        self._position = 0
        #: bytes to pass over before the next header
        self._skip = 0
        #: a header that has not arrived whole
        self._rest = b""
        self._trailer = 0
        self._odd = False
        self._uids = {_CLASS: "", _INSTANCE: ""}

    def feed(self, chunk: bytes | memoryview) -> None:
        """Read the next piece. Raises DataSetError as soon as it is certain."""
        if self._inflater is None:
            self._advance(memoryview(chunk))
        else:
            for piece in self._inflate(chunk):
                self._advance(memoryview(piece))

    def close(self) -> Found:
        """What the data set said, now that it is over. Raises DataSetError unless it is whole."""
        if self._inflater is not None and not self._inflater.eof:
            raise self._broken("deflated-stream-cut-off")
        if self._skip:
            raise self._broken("value-cut-off")
        self._leave_finished(self._position)
        if len(self._levels) > 1 and self._levels[-1].holds != _PADDING:
            raise self._broken("no-delimiter")
        if self._rest and not self._is_padding(self._rest):
            raise self._broken("element-cut-off")
        if not self._elements:
            raise self._broken("no-elements")
        return Found(self._uids[_CLASS], self._uids[_INSTANCE])

    def _inflate(self, chunk: bytes | memoryview) -> Iterator[bytes]:
        inflater = self._inflater
        assert inflater is not None
        if inflater.eof:
            self._check_after_stream(bytes(chunk))
            return
        data: bytes | memoryview = chunk
        while data and not inflater.eof:
            try:
                yield inflater.decompress(data, _INFLATE_BYTES)
            except zlib.error as error:
                raise self._broken("not-deflated") from error
            if self._position > MOST_INFLATED:
                raise self._broken("too-large-inflated")
            data = inflater.unconsumed_tail
        self._check_after_stream(inflater.unused_data)

    def _check_after_stream(self, data: bytes) -> None:
        self._trailer += len(data.rstrip(b"\0"))
        if self._trailer > _TRAILER_BYTES:
            raise self._broken("bytes-after-deflated-stream")

    def _advance(self, data: memoryview) -> None:
        """Walk through `data`, which follows what was read before."""
        if self._skip >= len(data):
            self._skip -= len(data)
            self._position += len(data)
            return
        at, self._skip = self._skip, 0
        if self._rest:
            data, at, self._rest = memoryview(self._rest + data[at:]), 0, b""
        base = self._position
        while at < len(data):
            self._leave_finished(base + at)
            at = self._pass_plain(data, at, base)
            if at >= len(data):
                break
            after = self._step(data, at, base)
            if after is None:
                self._rest = bytes(data[at:])
                break
            at = after
        self._skip = max(at - len(data), 0)
        self._position = base + min(at, len(data))

    def _pass_plain(self, data: memoryview, at: int, base: int) -> int:
        """Pass over explicit elements that need no closer look, which most are; returns where one may."""
        level = self._levels[-1]
        if level.holds != _ELEMENTS or not level.encoding.explicit:
            return at
        limit = (1 << 63) if level.limit is None else level.limit - base
        header, long = level.encoding.explicit_header.unpack_from, level.encoding.long.unpack_from
        last, count, odd = len(data) - 12, 0, self._odd
        while at <= last:
            group, _, vr, length = header(data, at)
            if vr in _SHORT:
                after = at + 8 + length
            elif vr in _LONG:
                (length,) = long(data, at + 8)
                after = at + 12 + length
            else:
                break
            if after >= limit or length == _UNDEFINED or group in _CLOSER_LOOK:
                break
            at, odd = after, bool(length % 2)
            count += 1
        self._elements, self._odd = self._elements + count, odd
        return at

    def _step(self, data: memoryview, at: int, base: int) -> int | None:
        """Read one header at `at`; where the next one is, or None until more has arrived."""
        level = self._levels[-1]
        if level.holds == _PADDING:
            if any(data[at:]):
                raise self._broken("bytes-after-the-end", base + at)
            return len(data)
        header = _read(data, at, level.encoding)
        if header is None:
            return None
        if level.limit is not None and base + header.start > level.limit:
            raise self._broken("header-crosses-the-end-of-its-item", base + at)
        self._elements += 1
        if self._elements > MOST_ELEMENTS:
            raise self._broken("too-many-elements", base + at)
        if header.tag >= _ITEM and header.tag >> 16 == 0xFFFE:
            return self._at_mark(header, level, base)
        if level.holds != _ELEMENTS:
            raise self._broken("no-item-where-one-is-due", base + at)
        return self._at_element(header, level, data, base)

    def _at_mark(self, header: _Header, level: _Level, base: int) -> int:
        """An item or a delimiter; returns where its content starts, or ends if that is passed over."""
        at = base + header.start
        if header.tag == _ITEM and level.holds == _ITEMS:
            end = None if header.length == _UNDEFINED else at + header.length
            self._enter(_ELEMENTS, level.encoding, end, at)
            return header.start
        if header.tag == _ITEM and level.holds == _FRAGMENTS and header.length != _UNDEFINED:
            return self._passed(header, level, base)
        closes = _ITEM_END if level.holds == _ELEMENTS else _SEQUENCE_END
        if header.tag != closes or len(self._levels) == 1 or level.end not in (None, at):
            raise self._broken("unexpected-item-or-delimiter", at)
        self._levels.pop()
        return header.start

    def _at_element(self, header: _Header, level: _Level, data: memoryview, base: int) -> int | None:
        outermost = len(self._levels) == 1
        if outermost and header.tag == 0 and header.length == 0 and self._elements > 1:
            self._enter(_PADDING, level.encoding, None, base + header.start)
            return header.start
        if header.length == _UNDEFINED:
            self._enter_undefined(header, level, base)
            return header.start
        after = self._passed(header, level, base)
        if header.vr == b"SQ" or (not level.encoding.explicit and header.tag in _SEQUENCES):
            self._enter(_ITEMS, level.encoding, base + after, base + header.start)
            return header.start
        if outermost and header.tag in self._uids:
            if after > len(data) and header.length <= _LONGEST_UID:
                self._elements -= 1
                return None
            self._note(header.tag, bytes(data[header.start : after]), base + header.start)
        self._odd = bool(header.length % 2)
        return after

    def _enter_undefined(self, header: _Header, level: _Level, base: int) -> None:
        at = base + header.start
        explicit = level.encoding.explicit
        if header.tag in _PIXELS or (explicit and header.vr in _FRAGMENTED):
            self._enter(_FRAGMENTS, level.encoding, None, at)
        elif not explicit or header.vr == b"SQ":
            self._enter(_ITEMS, level.encoding, None, at)
        elif (
            header.vr == b"UN"
        ):  # PS3.5 section 6.2.2 note 2: such a sequence is in Implicit VR Little Endian
            self._enter(_ITEMS, _IMPLICIT_LITTLE, None, at)
        else:
            raise self._broken("value-without-length", at)

    def _passed(self, header: _Header, level: _Level, base: int) -> int:
        """Where the value ends, which must be inside what is around it."""
        after = header.start + header.length
        if level.limit is not None and base + after > level.limit:
            raise self._broken("value-crosses-the-end-of-its-item", base + header.start)
        return after

    def _enter(self, holds: int, encoding: _Encoding, end: int | None, at: int) -> None:
        limit = self._levels[-1].limit
        if end is not None and limit is not None and end > limit:
            raise self._broken("item-crosses-the-end-of-its-sequence", at)
        if len(self._levels) > 2 * DEEPEST:
            raise self._broken("too-deep", at)
        self._levels.append(_Level(holds, encoding, end, limit if end is None else end))

    def _leave_finished(self, position: int) -> None:
        while self._levels[-1].end == position:
            self._levels.pop()

    def _note(self, tag: int, value: bytes, position: int) -> None:
        uid = value.decode("latin-1").strip("\0 ")
        if self._uids[tag] not in ("", uid):
            raise self._broken("two-values-of-one-uid", position)
        self._uids[tag] = uid

    def _is_padding(self, rest: bytes) -> bool:
        """Whether a tail too short for an element is padding; one zero may also be half a group number."""
        return not any(rest) and (len(rest) > 1 or self._odd or len(self._levels) > 1)

    def _broken(self, reason: str, position: int | None = None) -> DataSetError:
        return DataSetError(reason, self._position if position is None else position)


def _read(data: memoryview, at: int, encoding: _Encoding) -> _Header | None:
    """The header at `at` (PS3.5 sections 7.1 and 7.5), None if it has not arrived whole."""
    if len(data) - at < 8:
        return None
    group, element, length = encoding.implicit_header.unpack_from(data, at)
    tag = group << 16 | element
    if not encoding.explicit or group == 0xFFFE:
        return _Header(tag, b"", length, at + 8)
    _, _, vr, length = encoding.explicit_header.unpack_from(data, at)
    # an unknown VR of two capitals may be a future one, which has a long length; any other is a slip
    if vr in _SHORT or not (vr.isalpha() and vr.isupper()):
        return _Header(tag, vr, length, at + 8)
    if len(data) - at < 12:
        return None
    return _Header(tag, vr, encoding.long.unpack_from(data, at + 8)[0], at + 12)
