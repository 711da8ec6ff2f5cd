"""A record <-> the plaintext of a message, and the digests that a record holds.

    byte 0      0x10 | tier
    16 bytes    pixel digest
    seal        8 bytes UID digest
    full, core  u32 time | u8 n | n cell digests | the rest as one integer (`payload.model`):
                frames - 1, charset, node, segmenter, the tier's usual fields, others, UID digest
    padding     zero bytes, so that tag and plaintext fill whole shards

Values are the header's bytes, never re-encoded: a malformed date, an odd length or a mixed character set
comes back exactly as it went in. The table of known fields and the classes are part of the format: append,
never change.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import lru_cache

import numpy as np

from blessmark.errors import RecordError
from blessmark.payload import blake
from blessmark.payload.crypto import TAG_BYTES, DerivedKeys, cell_mac
from blessmark.payload.model import Decoder, Encoder
from blessmark.planes import BoxArray, cut_out, little_endian, low_words
from blessmark.profile import V1
from blessmark.types import Frame, Record, Rectangle, Tier

#: what is hashed of a cell before its samples: frame number and cell, in 16-bit numbers
_HEAD_SAMPLES = 4
#: so many bytes of cells are cut out at a time, or eight cells
_CUT_AT_ONCE = 1 << 20

PIXEL_DIGEST_BYTES = 16
UID_DIGEST_BYTES = 8

_VERSION = 0x10
_SOP_INSTANCE_UID = 0x00080018


class Kind(IntEnum):
    """The class of a value: values of one class help to predict each other."""

    PERSON = 0
    PATIENT_ID = 1
    BIRTH_DATE = 2
    SEX = 3
    DATE = 4
    TIME = 5
    ACCESSION = 6
    MODALITY = 7
    INSTITUTION = 8
    PHYSICIAN = 9
    UID = 10
    DESCRIPTION = 11
    NUMBER = 12
    BODY_PART = 13
    AGE = 14
    CHARSET = 15
    NODE = 16
    SEGMENTER = 17
    DEVICE = 18
    OTHER = 19


#: tag -> class, in the order that numbers them; append only
_TABLE: dict[int, Kind] = {
    0x00100010: Kind.PERSON,  # Patient's Name
    0x00100020: Kind.PATIENT_ID,
    0x00100021: Kind.INSTITUTION,  # Issuer of Patient ID
    0x00100030: Kind.BIRTH_DATE,
    0x00100040: Kind.SEX,
    0x00101010: Kind.AGE,
    0x00101000: Kind.PATIENT_ID,  # Other Patient IDs
    0x00101001: Kind.PERSON,  # Other Patient Names
    0x00080020: Kind.DATE,  # Study Date
    0x00080030: Kind.TIME,  # Study Time
    0x00080021: Kind.DATE,  # Series Date
    0x00080031: Kind.TIME,  # Series Time
    0x00080022: Kind.DATE,  # Acquisition Date
    0x00080032: Kind.TIME,  # Acquisition Time
    0x00080023: Kind.DATE,  # Content Date
    0x00080033: Kind.TIME,  # Content Time
    0x00080050: Kind.ACCESSION,
    0x00080060: Kind.MODALITY,
    0x00080070: Kind.DEVICE,  # Manufacturer
    0x00080080: Kind.INSTITUTION,
    0x00081040: Kind.INSTITUTION,  # Institutional Department Name
    0x00080090: Kind.PHYSICIAN,  # Referring Physician's Name
    0x00081048: Kind.PHYSICIAN,  # Physician(s) of Record
    0x00081050: Kind.PHYSICIAN,  # Performing Physician's Name
    0x00081070: Kind.PHYSICIAN,  # Operators' Name
    0x00081030: Kind.DESCRIPTION,  # Study Description
    0x0008103E: Kind.DESCRIPTION,  # Series Description
    0x00181030: Kind.DESCRIPTION,  # Protocol Name
    0x00081010: Kind.DEVICE,  # Station Name
    0x00081090: Kind.DEVICE,  # Manufacturer's Model Name
    0x00180015: Kind.BODY_PART,
    0x00200010: Kind.ACCESSION,  # Study ID
    0x00200011: Kind.NUMBER,  # Series Number
    0x00200012: Kind.NUMBER,  # Acquisition Number
    0x00200013: Kind.NUMBER,  # Instance Number
    0x0020000D: Kind.UID,  # Study Instance UID
    0x0020000E: Kind.UID,  # Series Instance UID
    0x00080016: Kind.UID,  # SOP Class UID
    0x00080018: Kind.UID,  # SOP Instance UID
    0x00200052: Kind.UID,  # Frame of Reference UID
}
_TAGS = tuple(_TABLE)
_NUMBERS = {tag: number for number, tag in enumerate(_TAGS)}
#: room for the table to grow; the last number announces a tag that is spelled out
_TABLE_ROOM = 64

#: what a full record usually holds
FULL_FIELDS = (
    0x00100010,
    0x00100020,
    0x00100030,
    0x00100040,
    0x00080020,
    0x00080030,
    0x00080050,
    0x00080060,
    0x00080080,
    0x00080090,
    0x0020000D,
    0x0020000E,
    0x00080018,
)
#: what is left of it in a core record
CORE_FIELDS = (0x00100010, 0x00100020, 0x00100030, 0x00100040, 0x00080020, 0x00080060, 0x00080018)
_USUAL_FIELDS = {Tier.FULL: FULL_FIELDS, Tier.CORE: CORE_FIELDS}


class _Mode(IntEnum):
    """How a value is written."""

    ABSENT = 0
    PADDED = 1  #: even length; its last byte is left out where padding to even length gives it back
    EXACT = 2  #: as it is


_MODE_WEIGHTS = (8, 55, 1)
_MORE_WEIGHTS = (15, 1)
_UID_DIGEST_WEIGHTS = (255, 1)


def pixel_digest(frame: Frame) -> bytes:
    """16 bytes of SHA-256 over the shape, the range and every sample of a frame."""
    return hashed_pixels(frame).digest()[:PIXEL_DIGEST_BYTES]


def hashed_pixels(frame: Frame) -> hashlib._Hash:
    """SHA-256 over the shape, the range and every sample of a frame."""
    shape = struct.pack(">IIIii", frame.channels, frame.rows, frame.cols, frame.lo, frame.hi)
    digest = hashlib.sha256(b"blessmark pixels" + shape)
    digest.update(little_endian(low_words(frame.planes, frame.shift)))
    return digest


def uid_digest(uid: str) -> bytes:
    """8 bytes of SHA-256 of a UID without its padding."""
    return _digest_of_uid(uid.encode("utf-8", "surrogateescape"))


def _digest_of_uid(value: bytes) -> bytes:
    return hashlib.sha256(value.rstrip(b"\0 ")).digest()[:UID_DIGEST_BYTES]


@dataclass(frozen=True, slots=True)
class Grid:
    """The localisation grid: cells of `step` x `step` tiles, row by row.

    Every tile of the frame counts, partial ones too. `step` is the smallest power of two that gives at
    most `V1.max_cells` cells.
    """

    tile_rows: int
    tile_cols: int
    step: int

    @classmethod
    def of(cls, rows: int, cols: int) -> Grid:
        """The grid of a frame of `rows` x `cols` pixels."""
        tile_rows, tile_cols = _ceil_div(rows, V1.tile_px), _ceil_div(cols, V1.tile_px)
        step = 1
        while _ceil_div(tile_rows, step) * _ceil_div(tile_cols, step) > V1.max_cells:
            step *= 2
        return cls(tile_rows, tile_cols, step)

    @property
    def cells(self) -> tuple[Rectangle, ...]:
        """The pixels of each cell; those at the right and bottom may reach past the frame."""
        side = self.step * V1.tile_px
        tops = range(0, self.tile_rows * V1.tile_px, side)
        lefts = range(0, self.tile_cols * V1.tile_px, side)
        return tuple(Rectangle(top, left, top + side, left + side) for top in tops for left in lefts)


def _ceil_div(value: int, divisor: int) -> int:
    return -(-value // divisor)


def cell_digests(keys: DerivedKeys, frame: Frame) -> bytes:
    """One keyed byte for each cell of the frame's grid, in the order of `Grid.cells`."""
    boxes, fresh = _boxes(frame.rows, frame.cols), cell_mac(keys)
    heads = np.empty((len(boxes), 2), ">u4")
    heads[:, 0], heads[:, 1] = frame.number, np.arange(len(boxes))
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    lengths = 2 * (_HEAD_SAMPLES + frame.channels * areas)
    width = blake.padded(int(lengths.max(initial=0)))
    together = max(blake.LANES, _CUT_AT_ONCE // width // blake.LANES * blake.LANES)
    found = []
    for first in range(0, len(boxes), together):
        part = slice(first, first + together)
        rows = np.empty((len(boxes[part]), width // 2), np.uint16)
        rows[:, :_HEAD_SAMPLES] = heads[part].view("<u2")
        cut_out(frame.planes, frame.shift, boxes[part], _HEAD_SAMPLES, rows)
        found.append(blake.digests(fresh, rows, lengths[part])[:, 0].tobytes())
    return b"".join(found)


@lru_cache(maxsize=16)
def _boxes(rows: int, cols: int) -> BoxArray:
    """int64 [cells, 4]: top, left, bottom, right of the cells of a frame, as far as it has pixels."""
    cells = Grid.of(rows, cols).cells
    boxes = [(cell.top, cell.left, min(cell.bottom, rows), min(cell.right, cols)) for cell in cells]
    return np.array(boxes, np.int64).reshape(-1, 4)


def reduce(record: Record, tier: Tier) -> Record:
    """What of `record` a tier keeps; raises RecordError when `tier` is the bigger one."""
    if tier < record.tier:
        raise RecordError(f"a {record.tier.name} record cannot become a {tier.name} one")
    if tier is record.tier:
        return record
    if tier is Tier.CORE:
        fields = {tag: value for tag, value in record.fields.items() if tag in CORE_FIELDS}
        return replace(record, tier=tier, fields=fields, digests=b"")
    return Record(tier, record.pixel_digest, record.uid_digest, record.frame, frames=0, time_s=0)


def padded_plaintext_length(length: int) -> int:
    """The smallest length from `length` on that fills whole shards together with the tag."""
    return _ceil_div(TAG_BYTES + length, V1.shard_bytes) * V1.shard_bytes - TAG_BYTES


def encode(record: Record) -> bytes:
    """The plaintext of a record, padded to whole shards.

    The frame number is not part of it: the sealing binds it. A seal says neither time nor number of frames
    (both 0 when read back). Raises RecordError when a part of the record is out of its range.
    """
    _check(record)
    plaintext = bytes([_VERSION | record.tier]) + record.pixel_digest
    if record.tier is Tier.SEAL:
        plaintext += record.uid_digest
    else:
        plaintext += struct.pack(">IB", record.time_s, len(record.digests)) + record.digests + _encode(record)
    return plaintext.ljust(padded_plaintext_length(len(plaintext)), b"\0")


def decode(plaintext: bytes, frame_number: int) -> Record:
    """The record that `encode` made a plaintext from; raises RecordError when it made none such."""
    parts = _Parts(plaintext)
    version, pixels = parts.take(1)[0], parts.take(PIXEL_DIGEST_BYTES)
    if version ^ _VERSION not in tuple(Tier):
        raise RecordError(f"the record is of unknown kind 0x{version:02x}; a newer version may read it")
    tier = Tier(version ^ _VERSION)
    if tier is Tier.SEAL:
        uid = parts.take(UID_DIGEST_BYTES)
        if parts.rest().strip(b"\0"):
            raise RecordError("the record goes on after its end")
        return Record(tier, pixels, uid, frame_number, frames=0, time_s=0)
    time_s, count = struct.unpack(">IB", parts.take(5))
    bare = Record(tier, pixels, b"", frame_number, frames=0, time_s=time_s, digests=parts.take(count))
    return _decode(bare, parts.rest())


class _Parts:
    """Takes a plaintext apart from front to back."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._position = 0

    def take(self, count: int) -> bytes:
        part = self._content[self._position : self._position + count]
        if len(part) < count:
            raise RecordError("the record ends early")
        self._position += count
        return part

    def rest(self) -> bytes:
        return self._content[self._position :]


def _check(record: Record) -> None:
    """Raise RecordError when a part of the record has no place in the format."""
    if len(record.pixel_digest) != PIXEL_DIGEST_BYTES or len(record.uid_digest) != UID_DIGEST_BYTES:
        raise RecordError("a record needs a pixel digest of 16 bytes and a UID digest of 8")
    if record.tier is Tier.SEAL:
        return
    if len(record.digests) > 255 or not 0 <= record.time_s < 1 << 32:
        raise RecordError("a record holds at most 255 cell digests and a time in 32 bits")
    if not 1 <= record.frames <= 1 << 32:
        raise RecordError(f"a record speaks of at least one frame, not {record.frames}")
    if any(not 0 <= tag < 1 << 32 for tag in record.fields):
        raise RecordError("a tag has 32 bits")


def _encode(record: Record) -> bytes:
    """The entropy-coded part of a full or core record."""
    encoder = Encoder()
    encoder.number(record.frames - 1)
    _put(encoder, Kind.CHARSET, record.charset or None)
    encoder.text(Kind.NODE, _utf8(record.node))
    encoder.text(Kind.SEGMENTER, _utf8(record.segmenter))
    usual = _USUAL_FIELDS[record.tier]
    for tag in usual:
        _put(encoder, _TABLE[tag], record.fields.get(tag))
    _put_others(encoder, sorted(record.fields.keys() - set(usual)), record)
    _put_uid_digest(encoder, record)
    return encoder.finish()


def _decode(bare: Record, content: bytes) -> Record:
    """`bare` with what `_encode` wrote."""
    decoder = Decoder(content)
    frames = decoder.number() + 1
    charset = _get(decoder, (Kind.CHARSET,))[0] or b""
    node = _text(decoder.text(Kind.NODE))
    segmenter = _text(decoder.text(Kind.SEGMENTER))
    tags = _USUAL_FIELDS[bare.tier]
    values = _get(decoder, [_TABLE[tag] for tag in tags])
    fields = {tag: value for tag, value in zip(tags, values, strict=True) if value is not None}
    _get_others(decoder, fields)
    uid = _get_uid_digest(decoder, fields)
    decoder.finish()
    return replace(
        bare, uid_digest=uid, frames=frames, node=node, segmenter=segmenter, charset=charset, fields=fields
    )


def _put_others(encoder: Encoder, tags: Iterable[int], record: Record) -> None:
    """The fields that the tier does not usually hold."""
    for tag in tags:
        encoder.choice(1, _MORE_WEIGHTS)
        encoder.uniform(_NUMBERS.get(tag, _TABLE_ROOM - 1), _TABLE_ROOM)
        if tag not in _NUMBERS:
            encoder.uniform(tag, 1 << 32)
        _put(encoder, _TABLE.get(tag, Kind.OTHER), record.fields[tag])
    encoder.choice(0, _MORE_WEIGHTS)


def _get_others(decoder: Decoder, fields: dict[int, bytes]) -> None:
    """Add what `_put_others` wrote to `fields`."""
    while decoder.choice(_MORE_WEIGHTS):
        tag, kind = _get_tag(decoder)
        value = _get(decoder, (kind,))[0]
        if value is None or tag in fields:
            raise RecordError(f"the record repeats or lacks field {tag:08X}")
        fields[tag] = value


def _get_tag(decoder: Decoder) -> tuple[int, Kind]:
    """A tag and the class of its value.

    One that is spelled out was unknown to its writer, even where this version's longer table knows it.
    """
    number = decoder.uniform(_TABLE_ROOM)
    if number == _TABLE_ROOM - 1:
        return decoder.uniform(1 << 32), Kind.OTHER
    if number >= len(_TAGS):
        raise RecordError(f"the record holds the unknown field number {number}; a newer version may read it")
    return _TAGS[number], _TABLE[_TAGS[number]]


def _put_uid_digest(encoder: Encoder, record: Record) -> None:
    """The UID digest, where the fields do not tell it."""
    uid = record.fields.get(_SOP_INSTANCE_UID)
    stated = uid is None or record.uid_digest != _digest_of_uid(uid)
    if uid is not None:
        encoder.choice(int(stated), _UID_DIGEST_WEIGHTS)
    if stated:
        encoder.uniform(int.from_bytes(record.uid_digest), 256**UID_DIGEST_BYTES)


def _get_uid_digest(decoder: Decoder, fields: dict[int, bytes]) -> bytes:
    """What `_put_uid_digest` wrote, or what the fields tell."""
    uid = fields.get(_SOP_INSTANCE_UID)
    if uid is None or decoder.choice(_UID_DIGEST_WEIGHTS):
        return decoder.uniform(256**UID_DIGEST_BYTES).to_bytes(UID_DIGEST_BYTES)
    return _digest_of_uid(uid)


def _put(encoder: Encoder, kind: Kind, value: bytes | None) -> None:
    """One value, None if there is none."""
    if value is None:
        encoder.choice(_Mode.ABSENT, _MODE_WEIGHTS)
    elif len(value) % 2:
        encoder.choice(_Mode.EXACT, _MODE_WEIGHTS)
        encoder.text(kind, value)
    else:
        encoder.choice(_Mode.PADDED, _MODE_WEIGHTS)
        encoder.text(kind, value.removesuffix(_padding(kind)))


def _get(decoder: Decoder, kinds: Sequence[Kind]) -> list[bytes | None]:
    """What `_put` wrote, value by value."""
    found = decoder.choices_and_texts(kinds, _MODE_WEIGHTS)
    return [_value(mode, kind, text) for kind, (mode, text) in zip(kinds, found, strict=True)]


def _value(mode: int, kind: Kind, text: bytes) -> bytes | None:
    if mode == _Mode.ABSENT:
        return None
    return text + _padding(kind) * (len(text) % 2) if mode == _Mode.PADDED else text


def _padding(kind: Kind) -> bytes:
    """What pads a value to even length (PS3.5 section 6.2)."""
    return b"\0" if kind is Kind.UID else b" "


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise RecordError("the id of a node or segmenter cannot be written as UTF-8") from error


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise RecordError("the id of a node or segmenter is not UTF-8") from error
