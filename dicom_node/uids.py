"""New UIDs for changed instances: the same wherever the key is, and every reference follows.

A UID becomes `2.25.` and the first 128 bits of its HMAC (PS3.5 B.2). The key comes from the oldest key of the
ring, so that a rotation splits no study. Nothing else goes in: a reference is rewritten by the same function
in whichever object it stands, without knowing the one that it points at.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from blessmark.payload import crypto
from blessmark.types import KeyRing
from dicom_node import header
from dicom_node.label import SIGNATURES
from dicom_node.rewrite import Element, Fate, rewrite, shallow

Deriver = Callable[[str], str]

#: UIDs of the standard itself: SOP classes, transfer syntaxes, well-known frames of reference
_STANDARD = "1.2.840.10008."

#: what names an instance or a series, and what refers to either; the study and its space stay
INSTANCE_UIDS = frozenset(
    {
        0x00080018,  # SOP Instance UID
        0x0020000E,  # Series Instance UID
        0x00081155,  # Referenced SOP Instance UID
        0x00081167,  # Multi-frame Source SOP Instance UID
        0x00080058,  # Failed SOP Instance UID List
        0x00041511,  # Referenced SOP Instance UID in File
        0x00200242,  # SOP Instance UID of Concatenation Source
        0x00209161,  # Concatenation UID
    }
)


def deriver(ring: KeyRing) -> Deriver:
    """UID -> the one that stands in for it under the oldest key of `ring`; UIDs of the standard stay."""
    keys = _oldest(ring)

    def derive(uid: str) -> str:
        if not uid or uid.startswith(_STANDARD):
            return uid
        return _uid(crypto.stand_in(keys, b"uid", uid.encode()))

    return derive


def restored_uid(ring: KeyRing, original: str, pixel_data: bytes) -> str:
    """The UID of an image that is restored, but not to the pixels of `original`: one for each outcome."""
    content = original.encode() + hashlib.sha256(pixel_data).digest()
    return _uid(crypto.stand_in(_oldest(ring), b"restored uid", content))


def _oldest(ring: KeyRing) -> crypto.DerivedKeys:
    return crypto.derive(min(ring.keys, key=lambda key: key.id))


def _uid(digest: bytes) -> str:
    return f"2.25.{int.from_bytes(digest[:16])}"


def derived(holder: Dataset, element: Element, derive: Deriver) -> DataElement:
    """An element with every UID of its value derived."""
    text = (header.value_bytes(holder, int(element.tag)) or b"").decode("ascii", "replace")
    values = [derive(uid.strip(" \0")) for uid in text.split("\\")]
    return DataElement(element.tag, "UI", values if len(values) > 1 else values[0])


def rewrite_uids(ds: Dataset, derive: Deriver, tags: Collection[int] = INSTANCE_UIDS) -> None:
    """Derive every UID of `ds` that is one of `tags`, at any depth.

    An item that is changed so loses its digital signatures, which no longer hold (PS3.3 C.12.1.1.3).
    """

    def rule(holder: Dataset, tag: int, element: Element) -> Fate | Element:
        if tag in tags:
            return derived(holder, element, derive)
        signature = tag in SIGNATURES and holder is not ds
        return Fate.REMOVE if signature and rewrite(shallow(holder), renaming) else Fate.KEEP

    def renaming(holder: Dataset, tag: int, element: Element) -> Fate | Element:
        return derived(holder, element, derive) if tag in tags else Fate.KEEP

    rewrite(ds, rule)
