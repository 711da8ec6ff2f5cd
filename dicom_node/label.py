"""What a protected image says about itself, and how those labels are taken off again.

An image whose pixels were changed must say so (PS3.3 C.7.6.1.1.2, C.12.4.1.1): ImageType value 1 becomes
DERIVED, the Derivation Description tells what was done, and Contributing Equipment gains an item. What the
labels replace travels beside them, sealed, so that `unmark` gives the original elements back.

The private block (creator `DICOM-NODE`, group 0099) holds a hint at the key and the sealed parts. Nothing
in it is needed to read a watermark; it tells `wrong-key` and `unknown-segmenter` from `unmarked`.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_data_element
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence as DicomSequence
from pydicom.tag import Tag

from dicom_node import header
from dicom_node.errors import InputError

_GROUP, _CREATOR = 0x0099, "DICOM-NODE"
_FORMAT, _KEYS, _RECORDS, _ORIGINALS = 0x01, 0x02, 0x03, 0x04
_SEGMENTERS = 0x05
#: what a hint may look like, since it is shown: name, version, and the weights of a network
_SEGMENTER_ID = re.compile(r"[a-z][a-z0-9-]{0,31}/[0-9]{1,4}(-[0-9a-f]{12})?")
_MOST_SEGMENTERS = 8

#: every element that `mark` may write or remove, the private block apart
_TOUCHED = (
    0x00080008,  # ImageType
    0x00080015,  # InstanceCoercionDateTime
    0x00082111,  # DerivationDescription
    0x0018A001,  # ContributingEquipmentSequence
    0x00280106,  # SmallestImagePixelValue
    0x00280107,  # LargestImagePixelValue
)
_STALE = (0x00280106, 0x00280107)
_FINGERPRINT_BYTES = 4

FORMAT_NAME = "blessmark/1"
#: what the sealed copy of the replaced elements is bound to
ORIGINALS_CONTEXT = b"blessmark originals"
#: first byte of that copy, so that it is never empty: an instance may have none of the elements
_ORIGINALS_VERSION = b"\x01"


@dataclass(frozen=True, slots=True)
class Mark:
    """What the private block of a data set says.

    `fingerprint` is the public hint at the key, `sealed_records` the records of frames whose pixels could
    not carry them (frame number -> sealed bytes), `sealed_originals` the replaced elements, `segmenters` the
    ids of those that drew the maps: a hint for a reader that has others.
    """

    fingerprint: bytes
    sealed_records: tuple[tuple[int, bytes], ...] = ()
    sealed_originals: bytes = b""
    segmenters: tuple[str, ...] = ()


def originals(ds: Dataset) -> bytes:
    """A version byte and the elements that `mark` is about to replace, in Explicit VR Little Endian.

    Values are the bytes that the data set holds. An earlier node's private block is among them, so that
    marks nest.

    Raises
    ------
    InputError
        an element that must be kept cannot be read
    """
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    buffer.write(_ORIGINALS_VERSION)
    for tag in sorted((*_TOUCHED, *_block_tags(ds))):
        if tag in ds:
            write_data_element(buffer, _kept(ds, tag), ds.get("SpecificCharacterSet") or None)
    return bytes(buffer.getvalue())


def mark(ds: Dataset, mark: Mark, *, node: str, version: str, time_s: int, description: str) -> None:
    """Label `ds` as changed by this node; `time_s` is seconds since 1970-01-01 UTC.

    Raises
    ------
    InputError
        an element that must be changed cannot be read; `ds` was not changed
    """
    when = datetime.fromtimestamp(time_s, UTC).strftime("%Y%m%d%H%M%S+0000")
    image_type = _values(_read(ds, 0x00080008)) or ["ORIGINAL", "PRIMARY"]
    earlier = _read(ds, 0x00082111)
    contributors = _read(ds, 0x0018A001) or []
    ds.ImageType = ["DERIVED", *image_type[1:]]
    ds.DerivationDescription = _appended(str(earlier or ""), description)
    ds.InstanceCoercionDateTime = when
    ds.ContributingEquipmentSequence = DicomSequence(
        [*contributors, _equipment(node, version, when, description)]
    )
    for tag in _STALE:
        if tag in ds:
            del ds[tag]
    _write_block(ds, mark)


def read_mark(ds: Dataset) -> Mark | None:
    """The private block, None when there is none or it is malformed; a hint, not evidence."""
    block = _own_block(ds)
    if block is None:
        return None
    fingerprint, records, sealed = (
        header.value_bytes(ds, block | element) or b"" for element in (_KEYS, _RECORDS, _ORIGINALS)
    )
    if len(fingerprint) != _FINGERPRINT_BYTES:
        return None
    segmenters = header.text(ds, block | _SEGMENTERS).split("\\")[:_MOST_SEGMENTERS]
    return Mark(
        fingerprint,
        _split(records),
        next((value for _, value in _split(sealed)), b""),
        tuple(filter(_SEGMENTER_ID.fullmatch, segmenters)),
    )


def unmark(ds: Dataset, kept: bytes) -> None:
    """Undo `mark`: `kept` is what `originals` returned, unsealed.

    Raises
    ------
    InputError
        `kept` is of a later version
    """
    if kept[:1] != _ORIGINALS_VERSION:
        raise InputError(
            "the labels were sealed by a newer dicom-node; recover the instance with that version"
        )
    for tag in (*_TOUCHED, *_block_tags(ds)):
        if tag in ds:
            del ds[tag]
    restored = read_dataset(io.BytesIO(kept[1:]), is_implicit_VR=False, is_little_endian=True)
    for tag in list(restored.keys()):
        vr = header.value_representation(restored, tag)
        if vr == "SQ":
            ds[tag] = restored[tag]
        else:
            header.put_bytes(ds, tag, vr, header.value_bytes(restored, tag) or b"")


def _kept(ds: Dataset, tag: int) -> DataElement | RawDataElement:
    """One element as `originals` keeps it: sequences decoded, everything else as raw bytes."""
    vr = header.value_representation(ds, tag)
    if vr == "SQ":
        _read(ds, tag)
        return ds[tag]
    value = header.value_bytes(ds, tag) or b""
    return RawDataElement(Tag(tag), vr, len(value), value, 0, False, True)


def _read(ds: Dataset, tag: int) -> Any:
    """The decoded value of an element, None when it is absent."""
    try:
        return ds[tag].value if tag in ds else None
    except Exception:
        # "from None": pydicom quotes values, which a log must not repeat
        raise InputError(
            f"element ({tag >> 16:04X},{tag & 0xFFFF:04X}) holds bytes that are not a value of its type; "
            "correct or remove it at the source"
        ) from None


def _values(value: Any) -> list[str]:
    """The values of a text element, one or several."""
    if not value:
        return []
    return list(value) if isinstance(value, MultiValue) else [str(value)]


def _appended(text: str, addition: str) -> str:
    """`text; addition`, within the 1 024 characters of an ST."""
    return (f"{text}; {addition}" if text else addition)[:1024]


def _equipment(node: str, version: str, when: str, description: str) -> Dataset:
    """An item (109103, DCM, "Modifying Equipment") for the earlier contributors (PS3.3 C.12.1.1.5)."""
    purpose = Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator = "109103", "DCM"
    purpose.CodeMeaning = "Modifying Equipment"
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = DicomSequence([purpose])
    item.Manufacturer, item.ManufacturerModelName = "dicom-node", "dicom-node"
    item.StationName, item.SoftwareVersions = node, version
    item.ContributionDateTime, item.ContributionDescription = when, description
    return item


def _write_block(ds: Dataset, mark: Mark) -> None:
    block = _own_block(ds)
    if block is None:
        block = _claim_block(ds)
    for tag in _block_tags(ds):
        if tag & 0xFFFF >= 0x1000:
            del ds[tag]
    ds.add_new(block | _FORMAT, "LO", FORMAT_NAME)
    ds.add_new(block | _KEYS, "OB", mark.fingerprint)
    if mark.segmenters:
        ds.add_new(block | _SEGMENTERS, "LO", list(mark.segmenters))
    if mark.sealed_records:
        ds.add_new(block | _RECORDS, "OB", _join(mark.sealed_records))
    if mark.sealed_originals:
        ds.add_new(block | _ORIGINALS, "OB", _join(((1, mark.sealed_originals),)))


def _creators(ds: Dataset) -> list[int]:
    """Private creator elements of the group that name this program (PS3.5 section 7.8.1)."""
    places = (_GROUP << 16 | slot for slot in range(0x10, 0x100))
    return [tag for tag in places if (header.value_bytes(ds, tag) or b"").strip(b" \0") == _CREATOR.encode()]


def _own_block(ds: Dataset) -> int | None:
    """First tag of the block that this program owns, None when it has none."""
    return next((_block_of(creator) for creator in _creators(ds)), None)


def _claim_block(ds: Dataset) -> int:
    """First tag of a free block, now owned."""
    creator = next(tag for slot in range(0x10, 0x100) if (tag := _GROUP << 16 | slot) not in ds)
    ds.add_new(creator, "LO", _CREATOR)
    return _block_of(creator)


def _block_of(creator: int) -> int:
    return creator & 0xFFFF0000 | (creator & 0xFF) << 8


def _block_tags(ds: Dataset) -> list[int]:
    """Every element of this program: private creators and what lies in their blocks."""
    creators = _creators(ds)
    blocks = {_block_of(creator) for creator in creators}
    inside = [int(tag) for tag in ds.keys() if int(tag) & 0xFFFFFF00 in blocks]  # noqa: SIM118
    return [*creators, *inside]


def _join(parts: tuple[tuple[int, bytes], ...]) -> bytes:
    """number u32 | length u32 | bytes, big endian, one after the other, padded to an even length (OB)."""
    joined = b"".join(
        number.to_bytes(4, "big") + len(value).to_bytes(4, "big") + value for number, value in parts
    )
    return joined + b"\0" * (len(joined) % 2)


def _split(joined: bytes) -> tuple[tuple[int, bytes], ...]:
    """Undo `_join`; stops at padding or at the first part that does not fit."""
    parts, at = [], 0
    while at + 8 <= len(joined):
        number = int.from_bytes(joined[at : at + 4], "big")
        length = int.from_bytes(joined[at + 4 : at + 8], "big")
        if number == 0 or at + 8 + length > len(joined):
            break
        parts.append((number, joined[at + 8 : at + 8 + length]))
        at += 8 + length
    return tuple(parts)
