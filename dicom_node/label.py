"""What a protected object says about itself, and where the sealed parts travel beside it.

An image whose pixels were changed must say so (PS3.3 C.7.6.1.1.2, C.12.4.1.1): Image Type becomes DERIVED, in
the functional groups of an enhanced image too; Derivation Description and Code tell what was done; a source
image is named where the instance has a new UID; Contributing Equipment gains an item. Statistics of the old
pixels go, and so do digital signatures, which no longer hold. Everything that this replaces travels along,
sealed, so that `pixels.undo` gives the original back.

The private block (creator `DICOM-NODE`, group 0099) holds a hint at the key and the sealed parts. Nothing
in it is needed to read a watermark; it tells `wrong-key` and `unknown-segmenter` from `unmarked`.
"""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence as DicomSequence

from blessmark import pixels
from blessmark.pixels import Content, Fixed
from dicom_node import header
from dicom_node.errors import InputError
from dicom_node.rewrite import Element, Fate, as_sequence, rewrite, shallow

SOP_INSTANCE_UID = 0x00080018
_GROUP, _CREATOR = 0x0099, "DICOM-NODE"
_FORMAT, _KEYS, _RECORDS, _ORIGINALS = 0x01, 0x02, 0x03, 0x04
_SEGMENTERS = 0x05
_SIGNATURES = 0x06
_PORTRAITS = 0x07
#: what a hint may look like, since it is shown: name, version, and the weights of a network
_SEGMENTER_ID = re.compile(r"[a-z][a-z0-9-]{0,31}/[0-9]{1,4}(-[0-9a-f]{12})?")
_MOST_SEGMENTERS = 8

_IMAGE_TYPE, _FRAME_TYPE = 0x00080008, 0x00089007
_SHARED_GROUPS, _FRAME_GROUPS = 0x52009229, 0x52009230
_DERIVATION_IMAGE = 0x00089124
#: what was computed from the pixels: smallest and largest values of image, series, plane (PS3.3 C.7.6.3)
_STALE = (0x00280106, 0x00280107, 0x00280108, 0x00280109, 0x00280110, 0x00280111)
#: MAC Parameters and Digital Signatures of the whole data set (PS3.3 C.12.1.1.3)
SIGNATURES = (0x4FFE0001, 0xFFFAFFFA)
_FINGERPRINT_BYTES = 4

FORMAT_NAME = "blessmark/1"
#: the private coding scheme of what PS3.16 CID 7203 has no code for
CODING_SCHEME = "99DNODE"
#: what the sealed copy of the replaced elements is bound to
ORIGINALS_CONTEXT = b"blessmark originals"


@dataclass(frozen=True, slots=True)
class Mark:
    """What the private block of a data set says.

    `fingerprint` is the public hint at the key, `sealed_records` the records of frames whose pixels could
    not carry them (frame number -> sealed bytes), `sealed_originals` the replaced elements, `segmenters` the
    ids of those that drew the maps: a hint for a reader that has others. `signatures` are those of frames
    whose pixels had no room for them (frame number -> as they travel); that pixels hold some is told by the
    id `signature.LAYER_ID` among `segmenters`. `sealed_portraits` are for `portraits`.
    """

    fingerprint: bytes
    sealed_records: tuple[tuple[int, bytes], ...] = ()
    sealed_originals: bytes = b""
    segmenters: tuple[str, ...] = ()
    signatures: tuple[tuple[int, bytes], ...] = ()
    sealed_portraits: bytes = b""


@dataclass(frozen=True, slots=True)
class Source:
    """The image that a derived one was made from, and where it belongs; four UIDs."""

    sop_class: str
    sop_instance: str
    study: str
    series: str

    @classmethod
    def of(cls, ds: Dataset) -> Source:
        """`ds` itself, as the source of another."""
        return cls(*(header.text(ds, tag) for tag in (0x00080016, 0x00080018, 0x0020000D, 0x0020000E)))


@dataclass(frozen=True, slots=True)
class Note:
    """What was done to a data set, by whom and when.

    Attributes
    ----------
    node, version : of the program that did it
    time_s : seconds since 1970-01-01 UTC
    description : one line
    pixels_changed : the image is a derived one now
    deidentified : the data set lost what identifies the patient
    source : the original, where it may be told and the instance has other UIDs
    """

    node: str
    version: str
    time_s: int
    description: str
    pixels_changed: bool = True
    deidentified: bool = False
    source: Source | None = None

    @property
    def when(self) -> str:
        """The time as a DT value."""
        return _moment(self.time_s)


@functools.lru_cache(maxsize=8)
def _moment(time_s: int) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y%m%d%H%M%S+0000")


def mark(ds: Dataset, mark: Mark, note: Note) -> None:
    """Label `ds` as changed by this node.

    Raises
    ------
    InputError
        an element that must be changed cannot be read, or there is no room for the private block; `ds`
        was not changed
    """
    contributors = _read(ds, 0x0018A001) or []
    creator = next(iter(_creators(ds)), None) or _free_creator(ds)
    if note.pixels_changed:
        _label_derived(ds, note)
    for tag in SIGNATURES:
        if header.holds(ds, tag):
            del ds[tag]
    if not note.deidentified:  # the time of arrival tells when the examination was
        pixels.add(ds, {"InstanceCoercionDateTime": note.when})
    pixels.add(ds, {"ContributingEquipmentSequence": [*contributors, *_equipment(note)]})
    _write_block(ds, mark, creator)


def is_signed(ds: Dataset, *, deep: bool = False) -> bool:
    """Whether a data set holds digital signatures; with `deep`, whether it or an item below it does."""
    if any(header.holds(ds, tag) for tag in SIGNATURES):
        return True
    sequences = (as_sequence(ds, ds.get_item(tag, keep_deferred=True)) for tag in _tags(ds)) if deep else ()
    return any(is_signed(item, deep=True) for found in sequences if found is not None for item in found.value)


def seal(ds: Dataset, sealed_originals: bytes) -> None:
    """Put the sealed originals into the block that `mark` has made room in."""
    block = _own_block(ds)
    assert block is not None, "a data set is marked before its originals are sealed"
    pixels.put(ds, block | _ORIGINALS, "OB", _join(((1, sealed_originals),)))


def read_mark(ds: Dataset) -> Mark | None:
    """The private block, None when there is none or it is malformed; a hint, not evidence."""
    block = _own_block(ds)
    if block is None:
        return None
    fingerprint, records, sealed, signatures, portraits = (
        header.value_bytes(ds, block | element) or b""
        for element in (_KEYS, _RECORDS, _ORIGINALS, _SIGNATURES, _PORTRAITS)
    )
    if len(fingerprint) != _FINGERPRINT_BYTES:
        return None
    segmenters = header.text(ds, block | _SEGMENTERS).split("\\")[:_MOST_SEGMENTERS]
    return Mark(
        fingerprint,
        _split(records),
        next((value for _, value in _split(sealed)), b""),
        tuple(filter(_SEGMENTER_ID.fullmatch, segmenters)),
        _split(signatures),
        next((value for _, value in _split(portraits)), b""),
    )


def _label_derived(ds: Dataset, note: Note) -> None:
    """Everything that says the pixels are not those of the source; reads all before it changes anything."""
    earlier = _read(ds, 0x00082111)
    codes, sources = _read(ds, 0x00089215) or [], _read(ds, 0x00082112) or []
    schemes = _read(ds, 0x00080110) or []
    enhanced = header.holds(ds, _SHARED_GROUPS) or header.holds(ds, _FRAME_GROUPS)
    _derive_image_type(ds)
    if enhanced:
        _label_groups(ds, note)
        if note.source is not None:
            evidence = _read(ds, 0x00089154) or []
            pixels.add(ds, {"SourceImageEvidenceSequence": [*evidence, _evidence(note.source)]})
    else:
        described = _appended(str(earlier or ""), note.description)
        pixels.add(ds, {"DerivationDescription": described, "DerivationCodeSequence": [*codes, _DERIVED]})
        if note.source is not None:
            pixels.add(ds, {"SourceImageSequence": [*sources, _source_image(note.source)]})
    coded = not enhanced or note.source is not None
    if coded and all(scheme.get("CodingSchemeDesignator") != CODING_SCHEME for scheme in schemes):
        pixels.add(ds, {"CodingSchemeIdentificationSequence": [*schemes, _SCHEME]})
    for tag in _STALE:
        if header.holds(ds, tag):
            del ds[tag]


def _derive_image_type(ds: Dataset) -> None:
    if not pixels.put_first(ds, _IMAGE_TYPE, "DERIVED"):
        image_type = _values(_read(ds, _IMAGE_TYPE)) or ["ORIGINAL", "PRIMARY"]
        pixels.add(ds, {"ImageType": "\\".join(["DERIVED", *image_type[1:]])})


def _label_groups(ds: Dataset, note: Note) -> None:
    """The functional groups of an enhanced image (PS3.3 C.7.6.16): Frame Type, and the derivation.

    The Derivation Image macro (C.7.6.16.2.6) is for images made from another instance: it gains an item where
    there is one, in every frame if frames have it, in the shared groups else.
    """
    per_frame = any(_DERIVATION_IMAGE in item for item in _read(ds, _FRAME_GROUPS) or [])
    if note.source is not None and not per_frame and not (_read(ds, _SHARED_GROUPS) or []):
        ds[_SHARED_GROUPS] = DataElement(_SHARED_GROUPS, "SQ", DicomSequence([Dataset()]))

    def rule(_holder: Dataset, tag: int, element: Element) -> Fate | Element:
        if tag == _FRAME_TYPE:
            return _derived(element)
        if tag in (_SHARED_GROUPS, _FRAME_GROUPS):
            return Fate.KEEP
        return Fate.KEEP if tag >> 16 != 0x7FE0 else Fate.LEAVE

    groups = Dataset()
    for tag in (_SHARED_GROUPS, _FRAME_GROUPS):
        if tag in ds:
            groups[tag] = ds[tag]
    rewrite(groups, rule)
    if note.source is not None:
        where = _FRAME_GROUPS if per_frame else _SHARED_GROUPS
        fresh = DataElement(
            where,
            "SQ",
            DicomSequence([_with_derivation(item, note, note.source) for item in groups[where].value]),
        )
        fresh.is_undefined_length = groups[where].is_undefined_length
        groups[where] = fresh
    for tag in (_SHARED_GROUPS, _FRAME_GROUPS):
        if tag in groups:
            ds[tag] = groups[tag]


def _derived(element: Element) -> Element:
    """A Frame Type with DERIVED as its first value."""
    value = element.value
    words = (
        bytes(value).split(b"\\") if isinstance(value, bytes) else [str(w).encode() for w in _values(value)]
    )
    text = b"\\".join((b"DERIVED", *words[1:]))
    return DataElement(element.tag, "CS", text.decode("ascii", "replace").rstrip(" \0"))


def _with_derivation(item: Dataset, note: Note, source: Source) -> Dataset:
    derivation: Content = {
        "DerivationDescription": note.description,
        "DerivationCodeSequence": [_DERIVED],
        "SourceImageSequence": [_source_image(source)],
    }
    fresh = shallow(item)
    earlier = fresh[_DERIVATION_IMAGE].value if _DERIVATION_IMAGE in fresh else []
    fresh.DerivationImageSequence = DicomSequence([*earlier, pixels.made(derivation)])
    return fresh


def _code(value: str, scheme: str, meaning: str) -> Content:
    return {"CodeValue": value, "CodingSchemeDesignator": scheme, "CodeMeaning": meaning}


_DERIVED = Fixed(_code("WATERMARK", CODING_SCHEME, "Reversible watermark"))
_SCHEME = Fixed({"CodingSchemeDesignator": CODING_SCHEME, "CodingSchemeName": "dicom-node private codes"})


def _reference(source: Source) -> Content:
    return {
        "ReferencedSOPClassUID": source.sop_class,
        "ReferencedSOPInstanceUID": source.sop_instance,
    }


def _evidence(source: Source) -> Content:
    """The source by study and series, which an enhanced image keeps beside its groups (PS3.3 C.8.13.2.1)."""
    series: Content = {"SeriesInstanceUID": source.series, "ReferencedSOPSequence": [_reference(source)]}
    return {"StudyInstanceUID": source.study, "ReferencedSeriesSequence": [series]}


def _source_image(source: Source) -> Content:
    purpose = _code("121322", "DCM", "Source image for image processing operation")
    return {
        **_reference(source),
        "PurposeOfReferenceCodeSequence": [purpose],
        "SpatialLocationsPreserved": "YES",
    }


def mark_restored(ds: Dataset, note: Note, before: Dataset) -> None:
    """Say of a restored data set how far it is the original, by whom and when.

    `before` has what `held` found in fields that were put right since; what became of each is compared. They
    are corrections of an instance that stays the same (Original Attributes Sequence, PS3.3 C.12.1.1.9);
    pixels that are not the original's make a derived image (C.7.6.1.1.2).

    Raises
    ------
    InputError
        an element that must be changed cannot be read
    """
    contributors, earlier = _read(ds, 0x0018A001) or [], _read(ds, 0x04000561) or []
    if note.pixels_changed:
        _label_derived(ds, note)
    corrected = [tag for tag in _tags(before) if _differs(before, ds, tag)]
    if corrected:
        item = _corrections(before, corrected, note)
        ds.OriginalAttributesSequence = DicomSequence([*earlier, item])
    pixels.add(ds, {"ContributingEquipmentSequence": [*contributors, *_equipment(note)]})


def held(ds: Dataset, tags: Collection[int]) -> Dataset:
    """What these elements hold now, with the character set of their text.

    One that is absent, or cannot be read as its type, is there without a value (PS3.3 C.12.1.1.9.1).
    """
    found = Dataset()
    for tag in sorted({*tags, header.SPECIFIC_CHARACTER_SET} if tags else ()):
        try:
            found[tag] = copy.deepcopy(ds[tag])
        except Exception:
            found[tag] = DataElement(tag, header.value_representation(ds, tag), None)
    return found


def is_corrected(before: Dataset, ds: Dataset) -> bool:
    """Whether any element of `before` is another one now."""
    return any(_differs(before, ds, tag) for tag in _tags(before))


def _tags(ds: Dataset) -> list[int]:
    return list(map(int, ds.keys()))


def _differs(before: Dataset, ds: Dataset, tag: int) -> bool:
    was, now = (header.value_bytes(each, tag) or b"" for each in (before, ds))
    return was.strip(b" \0") != now.strip(b" \0")


def _corrections(before: Dataset, tags: Collection[int], note: Note) -> Dataset:
    """An item of Original Attributes Sequence: what the fields were before they were put right."""
    modified = Dataset()
    for tag in tags:
        modified[tag] = before[tag]
    item = Dataset()
    item.ModifiedAttributesSequence = DicomSequence([modified])
    item.AttributeModificationDateTime, item.ModifyingSystem = note.when, note.node
    item.SourceOfPreviousValues, item.ReasonForTheAttributeModification = "", "CORRECT"
    return item


def _read(ds: Dataset, tag: int) -> Any:
    """The decoded value of an element, None when it is absent."""
    try:
        return ds[tag].value if header.holds(ds, tag) else None
    except Exception:
        # "from None": pydicom quotes values, which a log must not repeat
        raise header.misfit(tag) from None


def _values(value: Any) -> list[str]:
    """The values of a text element, one or several."""
    if not value:
        return []
    return [str(each) for each in value] if isinstance(value, MultiValue) else [str(value)]


def _appended(text: str, addition: str) -> str:
    """`text; addition`, within the 1 024 characters of an ST."""
    return (f"{text}; {addition}" if text else addition)[:1024]


def _equipment(note: Note) -> Sequence[Fixed]:
    """What this node did, as items for the earlier contributors (PS3.3 C.12.1.1.5, PS3.16 CID 7005)."""
    # nothing of an instance is kept for the next
    return _contributed(note if note.source is None else replace(note, source=None))


@functools.lru_cache(maxsize=32)
def _contributed(note: Note) -> tuple[Fixed, ...]:
    """Images of a second that moved as far have theirs in common."""
    purposes = [_code("109103", "DCM", "Modifying Equipment")]
    if note.deidentified:
        purposes.append(_code("109104", "DCM", "De-identifying Equipment"))
    done: Content = {
        "Manufacturer": "dicom-node",
        "ManufacturerModelName": "dicom-node",
        "SoftwareVersions": note.version,
        "ContributionDescription": note.description,
    }
    if note.node and not note.deidentified:
        done = {**done, "StationName": note.node, "ContributionDateTime": note.when}
    return tuple(Fixed({**done, "PurposeOfReferenceCodeSequence": [purpose]}) for purpose in purposes)


def _write_block(ds: Dataset, mark: Mark, creator: int) -> None:
    """Fill the block of a private creator, which is there already or stands where there is none."""
    block = _block_of(creator)
    if not header.holds(ds, creator):
        pixels.put(ds, creator, "LO", _CREATOR)
    for tag in _block_tags(ds):
        del ds[tag]
    pixels.put(ds, block | _FORMAT, "LO", FORMAT_NAME)
    pixels.put(ds, block | _KEYS, "OB", mark.fingerprint)
    if mark.segmenters:
        pixels.put(ds, block | _SEGMENTERS, "LO", "\\".join(mark.segmenters))
    if mark.sealed_records:
        pixels.put(ds, block | _RECORDS, "OB", _join(mark.sealed_records))
    if mark.signatures:
        pixels.put(ds, block | _SIGNATURES, "OB", _join(mark.signatures))
    if mark.sealed_portraits:
        pixels.put(ds, block | _PORTRAITS, "OB", _join(((1, mark.sealed_portraits),)))
    originals = _join(((1, mark.sealed_originals),)) if mark.sealed_originals else b""
    pixels.put(ds, block | _ORIGINALS, "OB", originals)


def _creators(ds: Dataset) -> list[int]:
    """Private creator elements of the group that name this program (PS3.5 section 7.8.1)."""
    first, last = _GROUP << 16 | 0x10, _GROUP << 16 | 0xFF
    places = sorted([tag for tag in _tags(ds) if first <= tag <= last])
    return [tag for tag in places if (header.value_bytes(ds, tag) or b"").strip(b" \0") == _CREATOR.encode()]


def _own_block(ds: Dataset) -> int | None:
    """First tag of the block that this program owns, None when it has none."""
    return next((_block_of(creator) for creator in _creators(ds)), None)


def _free_creator(ds: Dataset) -> int:
    """Where a private creator of the group may stand; the first of 240 places (PS3.5 section 7.8.1)."""
    places = (_GROUP << 16 | slot for slot in range(0x10, 0x100))
    free = next((tag for tag in places if not header.holds(ds, tag)), None)
    if free is None:
        raise InputError(
            f"all 240 private blocks of group {_GROUP:04X} are taken, and none is left for what the node "
            "has to say; remove some at the source"
        )
    return free


def _block_of(creator: int) -> int:
    return creator & 0xFFFF0000 | (creator & 0xFF) << 8


def _block_tags(ds: Dataset) -> list[int]:
    """Every element of this program's blocks."""
    inside = [tag for tag in _tags(ds) if tag >> 16 == _GROUP and tag & 0xFFFF >= 0x1000]
    blocks = {_block_of(creator) for creator in _creators(ds)} if inside else ()
    return [tag for tag in inside if tag & 0xFFFFFF00 in blocks]


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
