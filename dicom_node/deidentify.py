"""What identifies the patient, taken out of a header: PS3.15 Annex E, from the standard's own table.

`table_e1_1.tsv` is Table E.1-1 as data. Each of its attributes has one action under a profile; the rule below
applies it at any depth. What the table leaves open is decided the safe way that keeps an object valid:

* of several actions, the one that keeps the attribute (X/Z empties, X/D and Z/D replace): a type 1 or 2
  attribute must not vanish, and neither an empty value nor a dummy tells anything;
* a sequence to be replaced keeps its items, cleaned by the same table and without any free text: of a
  structured report the codes and numbers stay;
* patient's name and ID become one pseudonym, made under the key, so that a patient's studies stay together;
* private attributes go unless they are listed as safe, and so does what no dictionary knows;
* a text that repeats a name or number of the patient goes, wherever it stands;
* a sequence or UID that cannot be read goes, for nobody knows what is in it.

Nothing is lost: what is taken out travels sealed (`originals`), and the record in the pixels.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import lru_cache
from importlib import resources

from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement, convert_raw_data_element
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence as DicomSequence

from blessmark.payload import crypto
from blessmark.types import KeyRing
from dicom_node import __version__, header, uids
from dicom_node.config import Dates, Deidentify, Descriptors, Retain
from dicom_node.rewrite import Element, Fate, Rule, as_sequence, entered, rewrite

EDITION = "2026c"

_NAME, _ID, _ISSUER, _BIRTH_DATE = 0x00100010, 0x00100020, 0x00100021, 0x00100030
_STUDY = 0x0020000D
#: values that would identify the patient in whatever text they stand
_TELLING = (_NAME, _ID, 0x00101000, 0x00101001, 0x00101005, 0x00101060, 0x00080050, 0x00102154)
_SOP_CLASS_META = (0x00020000, 0x00020001, 0x00020002, 0x00020003, 0x00020010, 0x00020012, 0x00020013)
_TEXT_VRS = frozenset({"LO", "SH", "ST", "LT", "UT", "UC", "PN"})
#: where a name may stand, if only by mistake
_SPEAKING_VRS = _TEXT_VRS | {"AE", "UR"}
#: Code Value, Coding Scheme Designator and Version
_CODE = frozenset({0x00080100, 0x00080102, 0x00080103})
_CODE_MEANING = 0x00080104
#: coding schemes whose meanings are theirs and not a local user's
_STANDARD_SCHEMES = frozenset({"DCM", "SCT", "SRT", "SNM3", "LN", "UCUM", "FMA", "RADLEX", "NCIt", "MDC"})
_LEAST_TELLING = 3
_UIDS = re.compile(r"[0-9.\\ \0]*")
_WORD = re.compile(r"[^\W_]+")
#: words run together in a keyword, `AbdominalAorta`
_TERM = re.compile(r"[A-Z][a-z]+")
_SHIFT_DAYS = 3650

#: what stands in the place of a value that must not be empty
_DUMMIES: Mapping[str, str | int | float | bytes] = {
    **dict.fromkeys(("LO", "SH", "ST", "LT", "UT", "UC", "CS", "AE"), "REMOVED"),
    "PN": "Removed^Name",
    "DA": "19000101",
    "DT": "19000101000000",
    "TM": "000000",
    "AS": "000D",
    "DS": "0",
    "IS": "0",
    "UR": "urn:removed",
    **dict.fromkeys(("US", "SS", "UL", "SL", "UV", "SV"), 0),
    **dict.fromkeys(("FL", "FD"), 0.0),
    **dict.fromkeys(("OB", "OW", "OD", "OF", "OL", "OV", "UN"), b"\0\0"),
}

#: PS3.16 CID 7050
_PROFILE_CODES: Mapping[str, tuple[str, str]] = {
    "basic": ("113100", "Basic Application Confidentiality Profile"),
    "clean": ("113105", "Clean Descriptors Option"),
    Dates.RETAIN.value: ("113106", "Retain Longitudinal Temporal Information Full Dates Option"),
    Dates.MODIFY: ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
    Retain.PATIENT: ("113108", "Retain Patient Characteristics Option"),
    Retain.DEVICE: ("113109", "Retain Device Identity Option"),
    Retain.UIDS: ("113110", "Retain UIDs Option"),
    "private": ("113111", "Retain Safe Private Option"),
    Retain.INSTITUTION: ("113112", "Retain Institution Identity Option"),
}
#: Longitudinal Temporal Information Modified (0028,0303)
_TEMPORAL = {Dates.REMOVE: "REMOVED", Dates.MODIFY: "MODIFIED", Dates.RETAIN: "UNMODIFIED"}


@dataclass(frozen=True, slots=True)
class Row:
    """One attribute of Table E.1-1: its action in the Basic Profile, and `K` or `C` under each option."""

    basic: str
    uids: str
    device: str
    institution: str
    patient: str
    full_dates: str
    modified_dates: str
    descriptors: str
    structured: str
    graphics: str


@lru_cache(maxsize=1)
def table() -> Mapping[int, Row]:
    """Table E.1-1, without its rows for whole groups."""
    text = resources.files("dicom_node").joinpath("table_e1_1.tsv").read_text("utf-8")
    lines = (line.split("\t") for line in text.splitlines() if line and not line.startswith("#"))
    return {int(line[0], 16): Row(*line[1:11]) for line in lines}


def action(tag: int, profile: Deidentify) -> str:
    """What happens to an attribute: X, Z, D, U, K (keep), C (clean) or S (shift)."""
    row = table().get(tag)
    if row is None:
        kept = _UNLISTED.get(tag, "K")
        return "K" if kept == "U" and Retain.UIDS in profile.retain else kept
    options = (
        (row.uids, Retain.UIDS in profile.retain),
        (row.device, Retain.DEVICE in profile.retain),
        (row.institution, Retain.INSTITUTION in profile.retain),
        (row.patient, Retain.PATIENT in profile.retain),
        (row.full_dates, profile.dates is Dates.RETAIN),
        ("S" if row.modified_dates == "C" else "-", profile.dates is Dates.MODIFY),
        (row.descriptors, profile.descriptors is Descriptors.CLEAN),
    )
    chosen = [found for found, wanted in options if wanted and found != "-"]
    return chosen[0] if chosen else _VALID.get(tag) or _KEEPING[row.basic]


#: of the actions that the table leaves to the type of the attribute, the one that is right for all types
_KEEPING = {
    "X": "X",
    "Z": "Z",
    "D": "D",
    "U": "U",
    "X/Z": "Z",
    "X/D": "D",
    "Z/D": "D",
    "X/Z/D": "D",
    "X/Z/U*": "U",
}


#: where an object would not be valid: a sequence that may be absent but not empty, and times of type 1
_VALID = {0x00081110: "X", 0x00700082: "D", 0x00700083: "D"}

#: what the table does not list although it names an instance or a space, or the place where an object lies
_UNLISTED: Mapping[int, str] = {
    0x00081167: "U",  # Multi-frame Source SOP Instance UID
    0x00083012: "U",  # Radiopharmaceutical Administration Event UID
    0x0018991E: "U",  # Target Frame of Reference UID
    0x00200242: "U",  # SOP Instance UID of Concatenation Source
    0x00209312: "U",  # Volume Frame of Reference UID
    0x00209313: "U",  # Table Frame of Reference UID
    0x300A0675: "U",  # Equipment Frame of Reference UID
    0x00080407: "D",  # Stored Instance Base URI
    0x00080408: "D",  # Folder Access URI
    0x00080409: "D",  # File Access URI
    0x00081190: "D",  # Retrieve URL
    0x00287FE0: "D",  # Pixel Data Provider URL
    0x00404073: "D",  # Storage URL
    0x0040E010: "D",  # Retrieve URI
    0x0074100A: "D",  # Contact URI
}


@dataclass(frozen=True, slots=True)
class Patient:
    """What an object says of its patient, and what stands in for it."""

    pseudonym: str
    shift: timedelta
    telling: frozenset[str] = field(repr=False)


def patient_of(ds: Dataset, ring: KeyRing) -> Patient:
    """The stand-ins of an object's patient, the same for every object of theirs under one key ring."""
    keys = crypto.derive(min(ring.keys, key=lambda key: key.id))
    parts = [(header.value_bytes(ds, tag) or b"").strip(b" \0") for tag in (_ID, _ISSUER)]
    if not parts[0]:
        parts = [(header.value_bytes(ds, tag) or b"").strip(b" \0") for tag in (_NAME, _BIRTH_DATE)]
    mark = crypto.stand_in(keys, b"patient", b"\0".join(parts))
    days = 1 + int.from_bytes(mark[16:20]) % _SHIFT_DAYS
    pseudonym = "P" + base64.b32encode(mark[:10]).decode("ascii") if any(parts) else ""
    return Patient(pseudonym, timedelta(days=days), frozenset(_telling_words(ds)))


def deidentify(ds: Dataset, profile: Deidentify, ring: KeyRing) -> None:
    """Take out of `ds` what the profile says, and have it say so (PS3.15 E.1.1, PS3.3 C.12.1.1.9)."""
    cleaner = _Cleaner(profile, patient_of(ds, ring), uids.deriver(ring))
    has_patient = any(tag in ds for tag in (_NAME, _ID, _STUDY))
    rewrite(ds, cleaner.rule)
    if has_patient:
        _replace_identity(ds, cleaner.patient.pseudonym)
    ds.PatientIdentityRemoved = "YES"
    ds.DeidentificationMethod = f"dicom-node {__version__}, PS3.15 Annex E {EDITION}"
    ds.DeidentificationMethodCodeSequence = DicomSequence(_codes(profile))
    ds.LongitudinalTemporalInformationModified = _TEMPORAL[profile.dates]
    _bare_file_meta(ds)


#: Basic Voice Audio and General Audio Waveform Storage
_VOICES = ("1.2.840.10008.5.1.4.1.1.9.4.1", "1.2.840.10008.5.1.4.1.1.9.4.2")


def telling_content(ds: Dataset) -> str:
    """Why the content of an object may identify the patient and cannot be cleaned; "" if it does not."""
    if 0x00420011 in ds:
        return "encapsulated-document"
    if header.text(ds, 0x00280301) == "YES":
        return "burned-in-annotation"
    if header.text(ds, 0x00280302) == "YES":
        return "recognizable-features"
    if header.text(ds, 0x00080016) in _VOICES:
        return "voice"
    return ""


def _codes(profile: Deidentify) -> Iterator[Dataset]:
    used: list[str] = ["basic", *profile.retain, profile.dates]
    used += ["clean"] * (profile.descriptors is Descriptors.CLEAN) + ["private"] * bool(profile.safe_private)
    for value, meaning in sorted(_PROFILE_CODES[what] for what in used if what in _PROFILE_CODES):
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
        yield item


def _replace_identity(ds: Dataset, pseudonym: str) -> None:
    ds.PatientName = f"Anonymous^{pseudonym}" if pseudonym else ""
    ds.PatientID = pseudonym


def _bare_file_meta(ds: Dataset) -> None:
    """Only what a file must say: application entity titles and private information may identify."""
    meta = getattr(ds, "file_meta", None)
    if meta is None:
        return
    bare = FileMetaDataset()
    for tag in _SOP_CLASS_META:
        if tag in meta:
            bare[tag] = meta[tag]
    ds.file_meta = bare
    if getattr(ds, "preamble", None):
        ds.preamble = bytes(128)


class _Cleaner:
    """The rule of one object."""

    def __init__(self, profile: Deidentify, patient: Patient, derive: uids.Deriver) -> None:
        self.patient = patient
        self._profile = profile
        self._derive = derive
        self._safe = {_safe_private(entry) for entry in profile.safe_private}

    def rule(self, holder: Dataset, tag: int, element: Element) -> Fate | Element:
        """What becomes of one element, at any depth."""
        return self._readable(holder, element, self._fate(holder, tag, element), self.rule)

    def _readable(
        self, holder: Dataset, element: Element, fate: Fate | Element, within: Rule
    ) -> Fate | Element:
        """What is to be kept, if it can be read: what is no sequence, or no UID, may hold anything."""
        vr = _vr(holder, int(element.tag))
        if fate is not Fate.KEEP or vr not in ("SQ", "UI"):
            return fate
        if vr == "UI":
            return fate if _UIDS.fullmatch(header.text(holder, int(element.tag))) else Fate.REMOVE
        sequence = as_sequence(holder, element)
        return Fate.REMOVE if sequence is None else entered(holder, sequence, within) or Fate.LEAVE

    def _fate(self, holder: Dataset, tag: int, element: Element) -> Fate | Element:
        group = tag >> 16
        if group % 2:
            return self._private(holder, tag)
        if group & 0xFF00 in (0x5000, 0x6000):
            return Fate.REMOVE  # curves and overlays: graphics that nothing here can clean
        if not dictionary_has_tag(tag) and tag not in table():
            return Fate.REMOVE  # retired group lengths too
        return _ACTIONS[action(tag, self._profile)](self, holder, element)

    def _private(self, holder: Dataset, tag: int) -> Fate:
        """Keep what is listed, and the creator of its block."""
        group, slot = tag >> 16, tag & 0xFFFF
        if 0x10 <= slot <= 0xFF:
            creator = header.value_bytes(holder, tag) or b""
            listed = any((group, _creator(creator)) == (g, name) for g, _, name in self._safe)
            return Fate.LEAVE if listed else Fate.REMOVE
        creator = header.value_bytes(holder, group << 16 | slot >> 8) or b""
        return Fate.KEEP if (group, slot & 0xFF, _creator(creator)) in self._safe else Fate.REMOVE

    def keep(self, holder: Dataset, element: Element) -> Fate | Element:
        """As it is, unless it repeats what identifies the patient."""
        tag = int(element.tag)
        # a writer may call a text what it is not
        meant = dictionary_VR(tag) if dictionary_has_tag(tag) else ""
        is_text = not _SPEAKING_VRS.isdisjoint((_vr(holder, tag), meant))
        if not is_text or tag in _CODE or not self._tells(holder, element):
            return Fate.KEEP
        return self.dummy(holder, element)

    def remove(self, _holder: Dataset, _element: Element) -> Fate:
        """Gone."""
        return Fate.REMOVE

    def empty(self, holder: Dataset, element: Element) -> Element:
        """There, without a value."""
        vr = _vr(holder, int(element.tag))
        return DataElement(element.tag, vr, DicomSequence() if vr == "SQ" else None)

    def dummy(self, holder: Dataset, element: Element) -> Fate | Element:
        """Another value in its place; the items of a sequence are cleaned one by one."""
        tag = int(element.tag)
        vr = _vr(holder, tag)
        if vr == "UI":
            return self.uid(holder, element)
        if as_sequence(holder, element) is not None:
            return entered(holder, element, self._content_rule) or Fate.LEAVE
        return DataElement(tag, vr, _DUMMIES.get(vr))

    def _content_rule(self, holder: Dataset, tag: int, element: Element) -> Fate | Element:
        """As `rule`, and free text goes: in a sequence to be replaced only codes and numbers stay."""
        fate = self._readable(holder, element, self._fate(holder, tag, element), self._content_rule)
        vr = _vr(holder, tag)
        if fate is not Fate.KEEP or vr not in _TEXT_VRS or tag in _CODE:
            return fate
        if tag == _CODE_MEANING and header.text(holder, 0x00080102) in _STANDARD_SCHEMES:
            return fate
        return DataElement(tag, vr, _DUMMIES[vr])

    def uid(self, holder: Dataset, element: Element) -> Fate | Element:
        """The UID that stands in for it; a sequence has its own inside."""
        if _vr(holder, int(element.tag)) != "UI":
            return Fate.KEEP
        return uids.derived(holder, element, self._derive)

    def shift(self, holder: Dataset, element: Element) -> Fate | Element:
        """Dates moved by the patient's number of days; times stay, what is no date goes."""
        vr = _vr(holder, int(element.tag))
        if vr not in ("DA", "DT"):
            return Fate.KEEP
        text = (header.value_bytes(holder, int(element.tag)) or b"").decode("ascii", "replace").strip(" \0")
        moved = "\\".join(_moved(value, self.patient.shift) for value in text.split("\\"))
        return DataElement(element.tag, vr, moved)

    def clean(self, holder: Dataset, element: Element) -> Fate | Element:
        """Only the words that are terms of anatomy and imaging, and none that identifies the patient."""
        vr = _vr(holder, int(element.tag))
        if vr not in _TEXT_VRS:
            return self.dummy(holder, element)
        words = [w for w in _WORD.findall(_text(holder, element)) if w.casefold() in vocabulary()]
        kept = " ".join(word for word in words if word.casefold() not in self.patient.telling)
        return DataElement(element.tag, vr, kept[:64].strip() or "REMOVED")

    def _tells(self, holder: Dataset, element: Element) -> bool:
        words = {word.casefold() for word in _WORD.findall(_text(holder, element))}
        return bool(words & self.patient.telling)


_ACTIONS = {
    "K": _Cleaner.keep,
    "X": _Cleaner.remove,
    "Z": _Cleaner.empty,
    "D": _Cleaner.dummy,
    "U": _Cleaner.uid,
    "S": _Cleaner.shift,
    "C": _Cleaner.clean,
}


def _vr(holder: Dataset, tag: int) -> str:
    """The VR of an element; where a writer gave up (UN), what the dictionary says."""
    stated = header.value_representation(holder, tag)
    return dictionary_VR(tag)[:2] if stated == "UN" and dictionary_has_tag(tag) else stated


def _moved(text: str, shift: timedelta) -> str:
    """A DA or DT value so many days earlier; its date is dropped to 1900 where it is none."""
    try:
        day = date(int(text[:4]), int(text[4:6]), int(text[6:8])) - shift
    except (ValueError, OverflowError):
        return "19000101" if text else ""
    return f"{day:%Y%m%d}" + text[8:]


def _safe_private(entry: str) -> tuple[int, int, str]:
    """`gggg,xxee,CREATOR` -> group, last byte of the element, creator."""
    group, place, creator = entry.split(",", 2)
    return int(group, 16), int(place[2:], 16), creator


def _creator(value: bytes) -> str:
    return value.decode("ascii", "replace").strip(" \0")


def _text(holder: Dataset, element: Element) -> str:
    """The text of an element, "" where its bytes are none."""
    if isinstance(element, RawDataElement):
        try:
            element = convert_raw_data_element(element, encoding=holder._character_set, ds=holder)
        except Exception:
            return ""
    value = element.value
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return " ".join(map(str, value)) if isinstance(value, MultiValue) else str(value or "")


def _telling_words(ds: Dataset) -> Iterator[str]:
    """Words that name or number the patient, long enough to mean something elsewhere."""
    for tag in _TELLING:
        element = ds.get_item(tag, keep_deferred=True)
        if element is not None:
            for word in _WORD.findall(_text(ds, element)):
                if len(word) >= _LEAST_TELLING:
                    yield word.casefold()


@lru_cache(maxsize=1)
def vocabulary() -> frozenset[str]:
    """Words of the coded terms of PS3.16 that pydicom knows (anatomy, views, procedures), in lower case."""
    from pydicom.sr._concepts_dict import concepts

    words = (word for scheme in concepts.values() for term in scheme for word in _TERM.findall(term))
    return frozenset(word.lower() for word in words if len(word) >= _LEAST_TELLING)
