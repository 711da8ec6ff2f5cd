"""What the node accepts on the wire: one table of SOP classes and transfer syntaxes, and the choice in it.

Rules that bind here:
1. Whatever is stored is taken, private and future storage classes included; beyond it only `SERVICES` are.
2. A transfer syntax outside the table is never accepted: nobody could tell later what the bytes mean.
3. In each presentation context the sender's order decides: we take the first syntax it proposes that we know.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from pydicom._uid_dict import UID_dictionary
from pynetdicom import sop_class

VERIFICATION = "1.2.840.10008.1.1"
#: the Push Model, and its only instance (PS3.4 section J.3.5)
STORAGE_COMMITMENT = "1.2.840.10008.1.20.1"
STORAGE_COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1.1"
#: PS3.5 section 9.1
LONGEST_UID = 64

#: every standard storage class, by UID, with the keyword of the standard
STORAGE_CLASSES: dict[str, str] = {
    uid: keyword
    for group in (sop_class._STORAGE_CLASSES, sop_class._NON_PATIENT_OBJECT_CLASSES)
    for keyword, uid in group.items()
}

_UNCOMPRESSED = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
_DEFLATED = ("1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.8.1")
_ENCAPSULATED_UNCOMPRESSED = ("1.2.840.10008.1.2.1.98",)
_RLE = ("1.2.840.10008.1.2.5",)
_JPEG = tuple(f"1.2.840.10008.1.2.4.{n}" for n in (*range(50, 67), 70))
_JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
_JPEG_2000 = tuple(f"1.2.840.10008.1.2.4.{n}" for n in range(90, 96))
_JPEG_XL = tuple(f"1.2.840.10008.1.2.4.{n}" for n in (110, 111, 112))
_HTJ2K = tuple(f"1.2.840.10008.1.2.4.{n}" for n in range(201, 206))
_VIDEO = (
    *(f"1.2.840.10008.1.2.4.{n}" for n in range(100, 109)),
    *(f"1.2.840.10008.1.2.4.{n}.1" for n in range(100, 107)),
)

#: the transfer syntaxes accepted and passed on; the SMPTE ones are for real-time video, not for C-STORE
TRANSFER_SYNTAXES: tuple[str, ...] = (
    *_UNCOMPRESSED,
    *_DEFLATED,
    *_ENCAPSULATED_UNCOMPRESSED,
    *_RLE,
    *_JPEG,
    *_JPEG_LS,
    *_JPEG_2000,
    *_JPEG_XL,
    *_HTJ2K,
    *_VIDEO,
)

#: what is served besides storage: SOP class -> transfer syntaxes that its contexts may have. A class gets its
#: line here and its handlers by `Receiver(services=...)`. Neither has pixels to compress.
SERVICES: dict[str, tuple[str, ...]] = {VERIFICATION: _UNCOMPRESSED, STORAGE_COMMITMENT: _UNCOMPRESSED}

_KNOWN_SYNTAXES = frozenset(TRANSFER_SYNTAXES)
_DICOM_ROOT = "1.2.840.10008."
_STORAGE_ROOT = "1.2.840.10008.5.1.4.1.1."
# Registered SOP classes whose name speaks of storage although a C-STORE of them means nothing.
_NOT_OBJECTS = re.compile(r"Storage Commitment|Media Storage Directory|Storage Management")
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")


def is_uid(text: str) -> bool:
    """True for 1..64 characters of dotted decimals (PS3.5 section 9.1); leading zeros are forgiven."""
    return len(text) <= LONGEST_UID and _UID.fullmatch(text) is not None


def is_storage(sop_class_uid: str) -> bool:
    """True when a C-STORE of this SOP class is taken: standard, retired, private or unregistered storage."""
    if sop_class_uid in STORAGE_CLASSES:
        return True
    if not is_uid(sop_class_uid) or sop_class_uid in SERVICES:
        return False
    registered = UID_dictionary.get(sop_class_uid)
    if registered is not None:
        name, kind = registered[0], registered[1]
        return kind == "SOP Class" and "Storage" in name and not _NOT_OBJECTS.search(name)
    return not sop_class_uid.startswith(_DICOM_ROOT) or sop_class_uid.startswith(_STORAGE_ROOT)


def choose_syntax(sop_class_uid: str, proposed: Iterable[str]) -> str | None:
    """The first proposed transfer syntax that is accepted for a class; None refuses the context."""
    accepted = SERVICES.get(sop_class_uid, _KNOWN_SYNTAXES)
    return next((uid for uid in proposed if uid in accepted), None)


def is_accepted_class(sop_class_uid: str) -> bool:
    """True for every class a context of which may be accepted: storage and `SERVICES`."""
    return sop_class_uid in SERVICES or is_storage(sop_class_uid)
