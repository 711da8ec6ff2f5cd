"""What a protected image says about itself, and how those labels are taken off again.

An image whose pixels were changed must say so (PS3.3 C.7.6.1.1.2, C.12.4.1.1): ImageType value 1 becomes
DERIVED, the Derivation Description tells what was done, and Contributing Equipment gains an item. What the
labels replace travels beside them, sealed, so that `unmark` gives the original elements back.

The private block (creator `DICOM-NODE`, group 0099) holds a hint at the key and the sealed parts. Nothing
in it is needed to read a watermark; it tells `wrong-key` from `unmarked`.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from datetime import UTC, datetime

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.tag import Tag

_GROUP, _CREATOR = 0x0099, "DICOM-NODE"
_FORMAT, _KEYS, _RECORDS, _ORIGINALS = 0x01, 0x02, 0x03, 0x04

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

FORMAT_NAME = "blessmark/1"
#: what the sealed copy of the replaced elements is bound to
ORIGINALS_CONTEXT = b"blessmark originals"


@dataclass(frozen=True, slots=True)
class Mark:
    """What the private block of a data set says.

    `fingerprint` is the public hint at the key, `sealed_records` the records of frames whose pixels could
    not carry them (frame number -> sealed bytes), `sealed_originals` the replaced elements.
    """

    fingerprint: bytes
    sealed_records: tuple[tuple[int, bytes], ...] = ()
    sealed_originals: bytes = b""


def originals(ds: Dataset) -> bytes:
    """The elements that `mark` is about to replace, encoded in Explicit VR Little Endian.

    An earlier node's private block is among them, so that marks nest.
    """
    kept = Dataset()
    for tag in (*_TOUCHED, *_block_tags(ds)):
        if tag in ds:
            kept.add(ds[tag])
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, kept, ds.get("SpecificCharacterSet") or "iso8859")
    return bytes(buffer.getvalue())


def mark(ds: Dataset, mark: Mark, *, node: str, version: str, time_s: int, description: str) -> None:
    """Label `ds` as changed by this node; `time_s` is seconds since 1970-01-01 UTC."""
    when = datetime.fromtimestamp(time_s, UTC).strftime("%Y%m%d%H%M%S+0000")
    image_type = list(ds.get("ImageType") or ["ORIGINAL", "PRIMARY"])
    ds.ImageType = ["DERIVED", *image_type[1:]]
    ds.DerivationDescription = _appended(ds.get("DerivationDescription"), description)
    ds.InstanceCoercionDateTime = when
    _append_equipment(ds, node, version, when, description)
    for tag in _STALE:
        if tag in ds:
            del ds[tag]
    _write_block(ds, mark)


def read_mark(ds: Dataset) -> Mark | None:
    """The private block, None when there is none or it is malformed; a hint, not evidence."""
    try:
        block = ds.private_block(_GROUP, _CREATOR)
        fingerprint = bytes(block[_KEYS].value)
        records = bytes(block[_RECORDS].value) if _RECORDS in block else b""
        sealed = bytes(block[_ORIGINALS].value) if _ORIGINALS in block else b""
    except (KeyError, TypeError, ValueError):
        return None
    sealed_originals = next((value for _, value in _split(sealed)), b"")
    return Mark(fingerprint[:4], _split(records), sealed_originals)


def unmark(ds: Dataset, kept: bytes) -> None:
    """Undo `mark`: `kept` is what `originals` returned, unsealed."""
    for tag in (*_TOUCHED, *_block_tags(ds)):
        if tag in ds:
            del ds[tag]
    restored = read_dataset(io.BytesIO(kept), is_implicit_VR=False, is_little_endian=True)
    for element in restored:
        ds[element.tag] = element


def _appended(text: str | None, addition: str) -> str:
    """`text; addition`, within the 1 024 characters of an ST."""
    return (f"{text}; {addition}" if text else addition)[:1024]


def _append_equipment(ds: Dataset, node: str, version: str, when: str, description: str) -> None:
    """Add an item (109103, DCM, "Modifying Equipment"); earlier contributors stay (PS3.3 C.12.1.1.5)."""
    purpose = Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator = "109103", "DCM"
    purpose.CodeMeaning = "Modifying Equipment"
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = DicomSequence([purpose])
    item.Manufacturer, item.ManufacturerModelName = "dicom-node", "dicom-node"
    item.StationName, item.SoftwareVersions = node, version
    item.ContributionDateTime, item.ContributionDescription = when, description
    earlier = list(ds.get("ContributingEquipmentSequence") or [])
    ds.ContributingEquipmentSequence = DicomSequence([*earlier, item])


def _write_block(ds: Dataset, mark: Mark) -> None:
    block = ds.private_block(_GROUP, _CREATOR, create=True)
    block.add_new(_FORMAT, "LO", FORMAT_NAME)
    block.add_new(_KEYS, "OB", mark.fingerprint)
    if mark.sealed_records:
        block.add_new(_RECORDS, "OB", _join(mark.sealed_records))
    if mark.sealed_originals:
        block.add_new(_ORIGINALS, "OB", _join(((1, mark.sealed_originals),)))


def _block_tags(ds: Dataset) -> list[int]:
    return [element.tag for element in ds.group_dataset(_GROUP) if _is_ours(ds, int(element.tag))]


def _is_ours(ds: Dataset, tag: int) -> bool:
    element = tag & 0xFFFF
    creator = element if element < 0x100 else element >> 8
    owner = ds.get(Tag(_GROUP, creator))
    return owner is not None and bool(owner.value == _CREATOR)


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
