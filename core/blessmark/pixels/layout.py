"""The elements of a data set as the bytes that they were read from.

pydicom keeps values; how an element was written (undefined lengths, odd paddings, VRs that it would choose
otherwise, retired group lengths, the order of tags) it mostly keeps, and sometimes tidies. A layout keeps the
bytes themselves, so that what nobody changed is written exactly as it came, and so that what was changed can
be put back exactly.

Only Pixel Data is left out: its value lives in the data set alone, its header and what follows it are kept.
"""

from __future__ import annotations

import functools
import hashlib
import operator
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import BinaryIO, NamedTuple, cast

from pydicom.charset import convert_encodings
from pydicom.dataelem import DataElement, RawDataElement, convert_raw_data_element
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import correct_ambiguous_vr_element, write_data_element
from pydicom.tag import Tag
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32

from blessmark.pixels import elements
from blessmark.pixels.plain import Encoding, Item, plain

PIXEL_DATA = 0x7FE00010
#: tag of a piece that no element accounts for: repeated elements, bytes behind the last one
NO_TAG = 0
_UNDEFINED = 0xFFFFFFFF
_CHARACTER_SET = 0x00080005
_DELIMITER_BYTES = 8
#: what is hashed together with others, bytes
_SMALL = 1 << 12


class Piece(NamedTuple):
    """One top-level element as it lay in the data set.

    `raw` is the whole element. Of Pixel Data it is what stands before the value, and `tail` what stands
    behind it. `item` is what pydicom made of the element.
    """

    tag: int
    raw: bytes
    tail: bytes = b""
    item: Item | None = None

    def __repr__(self) -> str:
        return f"Piece(tag={self.tag:#010x})"  # and no value of it


@dataclass(frozen=True)
class Layout:
    """The pieces of a data set in the order in which they lay there."""

    encoding: Encoding
    pieces: tuple[Piece, ...]

    @functools.cached_property
    def tags(self) -> tuple[int, ...]:
        """The tag of every piece, in their order."""
        return tuple(piece.tag for piece in self.pieces)

    @functools.cached_property
    def known(self) -> frozenset[int]:
        """The tags without their order."""
        return frozenset(self.tags)


def keep(ds: Dataset, content: BinaryIO, start: int, size: int) -> None:
    """Attach to `ds` the layout of the bytes `start..size-1` that it was parsed from."""
    encoding = _encoding(ds)
    found = ((_start(content, item, encoding), item) for item in _items(ds) if _position(item))
    items = sorted(found, key=lambda placed: placed[0])
    bounds = [*(begin for begin, _ in items), size]
    ahead = _between(content, start, bounds[0])
    pieces = [Piece(NO_TAG, ahead)] if ahead else []
    for (_, item), (begin, end) in zip(items, pairwise(bounds), strict=True):
        pieces += _cut(content, item, begin, end)
    attach(ds, Layout(encoding, tuple(pieces)))


def attach(ds: Dataset, layout: Layout) -> None:
    """Let `layout` be the one that `ds` is compared with and written by."""
    ds.__dict__["blessmark_layout"] = layout


def kept(ds: Dataset) -> Layout | None:
    """The layout that `ds` was read with, None if it was made in memory."""
    return cast("Layout | None", ds.__dict__.get("blessmark_layout"))


def layout_of(ds: Dataset) -> Layout:
    """The layout that `ds` was read with; one made in memory is written once, to have one."""
    found = kept(ds)
    if found is None:
        encoding = Encoding.of_syntax(elements.transfer_syntax(ds))
        found = Layout(encoding, tuple(_made(ds, item, encoding) for item in _items(ds)))
        attach(ds, found)
    return found


def settle(ds: Dataset) -> bytes:
    """Let `ds` as it is now be what it is compared with from here on; returns its `digest`."""
    layout = layout_of(ds)
    if _is_untouched(ds, layout):
        return _hash(_as_read(ds, layout))
    now = compared(ds)
    if not now.stale:
        return _digest(ds, now)
    lying = [(piece, fits) for piece, fits in now.pieces if not now.is_lost(piece)]
    pieces = [p if fits else _made(ds, now.items[p.tag], layout.encoding) for p, fits in lying]
    fresh = [_made(ds, now.items[tag], layout.encoding) for tag in now.fresh]
    attach(ds, Layout(layout.encoding, tuple(sorted([*pieces, *fresh], key=lambda p: p.tag))))
    return digest(ds)


def _is_untouched(ds: Dataset, layout: Layout) -> bool:
    """Whether every piece stands for the very element that was read, one by one."""
    held = ds._dict.values()
    return len(held) == len(layout.pieces) and all(
        map(operator.is_, held, [piece.item for piece in layout.pieces])
    )


def _as_read(ds: Dataset, layout: Layout) -> Iterator[bytes]:
    for piece in layout.pieces:
        yield piece.raw
        if piece.tag == PIXEL_DATA:
            yield elements.pixel_bytes(ds)
            yield piece.tail


@dataclass(frozen=True, slots=True)
class Compared:
    """A data set at this moment beside the layout that it was read with; made once for whoever asks much.

    Attributes
    ----------
    items : tag -> the element as it stands now
    pieces : each with whether its bytes still stand for the element; of Pixel Data, if its length is the same
    fresh : tags that the layout does not have, ascending
    stale : groups in which an element was added, changed or removed, Pixel Data of the same length apart
    """

    items: Mapping[int, Item] = field(repr=False)
    pieces: tuple[tuple[Piece, bool], ...] = field(repr=False)
    fresh: tuple[int, ...]
    stale: frozenset[int]

    def is_lost(self, piece: Piece) -> bool:
        """Whether a piece is left out when the data set is written.

        Group lengths (PS3.5 7.2, retired) go where their group has changed, and so does what no element
        accounts for where anything has.
        """
        tag = piece.tag
        if tag == NO_TAG:
            return bool(self.stale)
        if tag & 0xFFFF == 0 and tag >> 16 in self.stale:
            return True
        return tag not in self.items


def compared(ds: Dataset) -> Compared:
    """What `ds` holds now, beside its layout."""
    layout = layout_of(ds)
    # plain integers: every comparison of pydicom's tags runs Python code
    items = dict(zip(map(int, ds._dict), ds._dict.values(), strict=True))
    now = [items.get(piece.tag) for piece in layout.pieces]
    pieces = tuple(
        [
            # most were never touched, which is soon told
            (
                piece,
                (item is piece.item and item is not None and piece.tag != PIXEL_DATA)
                or _fits(ds, piece, items),
            )
            for piece, item in zip(layout.pieces, now, strict=True)
        ]
    )
    fresh = tuple(sorted(items.keys() - layout.known))
    stale = {tag >> 16 for tag in fresh} | {piece.tag >> 16 for piece, fits in pieces if not fits}
    return Compared(items, pieces, fresh, frozenset(stale))


def _unchanged(ds: Dataset, piece: Piece, items: Mapping[int, Item]) -> bool:
    """Whether an element is what it was when the data set was read, looked at or not."""
    now = items.get(piece.tag) if piece.tag else piece.item
    if now is piece.item:
        return True
    if now is None or piece.item is None:
        return False
    if isinstance(now, RawDataElement):
        was = piece.item
        return isinstance(was, RawDataElement) and (now.VR, now.value, now.is_little_endian) == (
            was.VR,
            was.value,
            was.is_little_endian,
        )
    try:
        return bool(_decoded(ds, piece.item) == now)
    except Exception:  # bytes that are no value of their type
        return False


def same_form(ds: Dataset) -> bool:
    """Whether restoring the samples restores the bytes of Pixel Data: uncompressed, or never touched."""
    piece = next((piece for piece in layout_of(ds).pieces if piece.tag == PIXEL_DATA), None)
    if piece is None:
        return True
    now = elements.held(ds, PIXEL_DATA)
    items = {} if now is None else {PIXEL_DATA: now}
    if _unchanged(ds, piece, items):
        return True
    return piece.item is not None and not _undefined(piece.item) and _fits(ds, piece, items)


def parts(ds: Dataset, encoding: Encoding | None = None) -> list[bytes]:
    """The bytes of the data set, in parts: untouched elements as they were, the others by pydicom.

    In another `encoding` than it was read in, every element is written anew.
    """
    layout = layout_of(ds)
    if encoding not in (None, layout.encoding):
        return [encoded(ds, int(item.tag), encoding) for item in _items(ds) if item.tag.element]
    return _parts(ds, compared(ds), layout.encoding)


def _parts(ds: Dataset, now: Compared, encoding: Encoding) -> list[bytes]:
    found: list[bytes] = []
    fresh = list(reversed(now.fresh))
    for piece, fits in now.pieces:
        tag, raw, tail, _ = piece
        while fresh and tag and fresh[-1] < tag:
            found.append(written(ds, now.items[fresh.pop()], encoding))
        if (tag not in now.items or not tag & 0xFFFF) and now.is_lost(piece):
            continue
        if not fits:
            found.append(written(ds, now.items[tag], encoding))
        elif tag == PIXEL_DATA:
            found += (raw, elements.pixel_bytes(ds), tail)
        else:
            found.append(raw)
    found += [written(ds, now.items[tag], encoding) for tag in reversed(fresh)]
    return found


def stale_groups(ds: Dataset) -> frozenset[int]:
    """Groups in which an element was added, changed or removed, Pixel Data of the same length apart."""
    return compared(ds).stale


def digest(ds: Dataset) -> bytes:
    """SHA-256 of the data set as it would be written now."""
    return _digest(ds, compared(ds))


def _digest(ds: Dataset, now: Compared) -> bytes:
    return _hash(_parts(ds, now, layout_of(ds).encoding))


def _hash(parts: Iterable[bytes]) -> bytes:
    """SHA-256 of all of them, small ones together: each step costs as much as to hash half a kilobyte."""
    found, small = hashlib.sha256(), list[bytes]()
    for part in parts:
        if len(part) < _SMALL:
            small.append(part)
        else:
            found.update(b"".join(small))
            found.update(part)
            small.clear()
    found.update(b"".join(small))
    return found.digest()


def encoded(ds: Dataset, tag: int, encoding: Encoding) -> bytes:
    """One element of the data set, written by pydicom."""
    return written(ds, _item(ds, tag), encoding)


def written(ds: Dataset, item: Item, encoding: Encoding) -> bytes:
    """An element as pydicom writes it into the data set, by pydicom where the element is not plain."""
    if (found := plain(item, encoding)) is not None:
        return found
    if isinstance(item, RawDataElement) and not encoding.wrote(item):
        item = _decoded(ds, item)
    if isinstance(item, RawDataElement) and item.value is None:
        item = item._replace(value=b"")
    if isinstance(item, DataElement) and len(item.VR) != 2:
        item = correct_ambiguous_vr_element(item, ds, encoding.little)
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = encoding.little, encoding.implicit
    write_data_element(buffer, item, _character_sets(ds))
    return bytes(buffer.getvalue())


def _fits(ds: Dataset, piece: Piece, items: Mapping[int, Item]) -> bool:
    """Whether the bytes of a piece still stand for the element; of Pixel Data, if its length is the same."""
    if piece.tag != PIXEL_DATA:
        return _unchanged(ds, piece, items)
    now, was = items.get(PIXEL_DATA), piece.item
    if now is None or was is None or _undefined(now) != _undefined(was):
        return False
    same_vr = was.VR in (None, now.VR)
    return same_vr and (_undefined(now) or len(now.value or b"") == _stated_length(was))


def _stated_length(was: Item) -> int:
    return was.length if isinstance(was, RawDataElement) else len(was.value or b"")


def _undefined(item: Item) -> bool:
    return item.length == _UNDEFINED if isinstance(item, RawDataElement) else bool(item.is_undefined_length)


def _items(ds: Dataset) -> list[Item]:
    return [_item(ds, tag) for tag in sorted(ds.keys())]


def _item(ds: Dataset, tag: int) -> Item:
    found = elements.held(ds, tag)
    assert found is not None
    return found


def _decoded(ds: Dataset, item: Item) -> DataElement:
    """What pydicom reads out of an element."""
    if not isinstance(item, RawDataElement):
        return item
    return convert_raw_data_element(item, encoding=_character_sets(ds), ds=ds)


def _character_sets(ds: Dataset) -> list[str]:
    item = elements.held(ds, _CHARACTER_SET)
    if isinstance(item, RawDataElement) and isinstance(item.value, bytes):
        return list(_sets_named(item.VR, item.value, item.is_implicit_VR, item.is_little_endian))
    return convert_encodings(elements.value(ds, _CHARACTER_SET, "SpecificCharacterSet"))


@functools.lru_cache(maxsize=64)
def _sets_named(vr: str | None, value: bytes, implicit: bool, little: bool) -> tuple[str, ...]:
    """What pydicom calls the character sets of an element; asked for with every text that is written."""
    holder = Dataset()
    raw = RawDataElement(Tag(_CHARACTER_SET), vr, len(value), value, 0, implicit, little)
    holder[raw.tag] = raw
    return tuple(convert_encodings(elements.value(holder, _CHARACTER_SET, "SpecificCharacterSet")))


def _position(item: Item) -> int:
    return (item.value_tell if isinstance(item, RawDataElement) else item.file_tell) or 0


def _encoding(ds: Dataset) -> Encoding:
    """How the data set was really written, which a careless writer's transfer syntax may not tell."""
    implicit, little = ds.original_encoding
    raw = next((item for item in _items(ds) if isinstance(item, RawDataElement)), None)
    return Encoding(bool(implicit) if raw is None else raw.is_implicit_VR, little is not False)


def _start(content: BinaryIO, item: Item, encoding: Encoding) -> int:
    """Where an element begins: its value less its tag, VR and length."""
    position = _position(item)
    if encoding.implicit:
        return position - 8
    if isinstance(item, RawDataElement):
        return position - (12 if item.VR in EXPLICIT_VR_LENGTH_32 else 8)
    # what pydicom has decoded already may have been UN
    order = "<HH" if encoding.little else ">HH"
    tag = struct.pack(order, item.tag.group, item.tag.element)
    # the first element of an inflated data set may leave no room for the longer form
    is_long = position >= 12 and _between(content, position - 12, position - 8) == tag
    return position - (12 if is_long else 8)


def _cut(content: BinaryIO, item: Item, start: int, end: int) -> list[Piece]:
    """The piece of an element, and one of what lies between it and the next."""
    value = _position(item)
    tag = int(item.tag)
    own_end = _own_end(item, end)
    if tag == PIXEL_DATA:
        tail = value + len(item.value or b"")
        pieces = [Piece(tag, _between(content, start, value), _between(content, tail, own_end), item)]
    else:
        pieces = [Piece(tag, _between(content, start, own_end), b"", item)]
    if own_end < end:
        pieces.append(Piece(NO_TAG, _between(content, own_end, end)))
    return pieces


def _own_end(item: Item, end: int) -> int:
    """Where an element ends; a sequence of undefined length reaches to the next element."""
    if not isinstance(item, RawDataElement):
        return end
    size = len(item.value or b"") + _DELIMITER_BYTES if item.length == _UNDEFINED else item.length
    return min(end, item.value_tell + size)


def _between(content: BinaryIO, start: int, end: int) -> bytes:
    content.seek(start)
    return content.read(end - start)


def _made(ds: Dataset, item: Item, encoding: Encoding) -> Piece:
    tag = int(item.tag)
    if tag != PIXEL_DATA:
        return Piece(tag, encoded(ds, tag, encoding), b"", item)
    whole = encoded(ds, tag, encoding)
    value = elements.pixel_bytes(ds)
    tail = _DELIMITER_BYTES if _undefined(item) else 0
    head = len(whole) - len(value) - tail
    return Piece(tag, whole[:head], whole[len(whole) - tail :] if tail else b"", item)
