"""Values of a Dataset without touching it.

`ds[tag]` makes pydicom replace the bytes it read by a decoded value, which it later writes its own way.
Everything here decodes a copy, so that elements nobody changed are written byte by byte as they came.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from pydicom.datadict import dictionary_has_tag, dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement, convert_raw_data_element
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag

from blessmark.errors import PixelError

_UID = re.compile(r"[0-9.]{1,64}")
#: one value of plain characters
_ONE_WORD = re.compile(rb"[ -\[\]-~]*\0?")


@functools.lru_cache(maxsize=256)
def tag_of(keyword: str) -> int:
    """The tag of a standard keyword, group << 16 | element."""
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(keyword)
    return int(tag)


#: pydicom's object for a tag. Of equal objects that are not the same one, it is asked in Python whether they
#: are equal, which takes several times as long as to look up an element
tag_object = functools.lru_cache(maxsize=1 << 13)(BaseTag)


def has(ds: Dataset, tag: int) -> bool:
    """Whether the element exists, empty or not."""
    return tag_object(tag) in ds._dict


def holds(ds: Dataset, keyword: str) -> bool:
    """Whether the element of a keyword exists, empty or not."""
    return has(ds, tag_of(keyword))


def held(ds: Dataset, tag: int) -> DataElement | RawDataElement | None:
    """The element as it stands in the Dataset, None if absent."""
    # as `ds.get_item(tag, keep_deferred=True)`, which first makes a tag of a number that is one
    return ds._dict.get(tag_object(tag) if type(tag) is int else cast(BaseTag, tag))


def value(ds: Dataset, tag: int, what: str) -> Any:
    """Decoded value of one element, None if absent or empty.

    Raises
    ------
    PixelError : the bytes are not a value of the element's type
    """
    item = held(ds, tag)
    if item is None or item.value is None:
        return None
    try:
        if isinstance(item, RawDataElement):
            item = convert_raw_data_element(item, ds=ds)
        return None if item.is_empty else item.value
    except Exception:
        # "from None": pydicom quotes the offending value, which a log must not repeat
        raise PixelError(f"{what} holds bytes that are not a value of its type") from None


def number(ds: Dataset, keyword: str) -> int | None:
    """Value of a one-number element, None if absent or empty."""
    return number_at(ds, tag_of(keyword), keyword)


def number_at(ds: Dataset, tag: int, what: str) -> int | None:
    """Value of a one-number element by its tag, None if absent or empty.

    An element that may be signed or not (US or SS) comes out of implicit VR as two bytes; it is read as
    unsigned, and its user folds it.
    """
    item = held(ds, tag)
    if isinstance(item, RawDataElement) and (quick := _plain_number(item)) is not None:
        return quick
    found = value(ds, tag, what)
    if found is None:
        return None
    if isinstance(found, bytes) and len(found) == 2:
        return int.from_bytes(found, "big" if ds.original_encoding[1] is False else "little")
    if isinstance(found, (bytes, MultiValue)):
        raise PixelError(f"{what} is not one number")
    try:
        return int(found)
    except (TypeError, ValueError, OverflowError):
        raise PixelError(f"{what} is not a number") from None


def required(ds: Dataset, keyword: str) -> int:
    """Value of a one-number element that every image must have."""
    found = number(ds, keyword)
    if found is None:
        raise PixelError(f"{keyword} is missing")
    return found


def text(ds: Dataset, keyword: str) -> str:
    """Value of a one-string element, "" if absent or empty."""
    item = held(ds, tag_of(keyword))
    if isinstance(item, RawDataElement):
        if (quick := _plain_text(item)) is not None:
            return quick
    elif item is not None and isinstance(item.value, str):
        return item.value.strip(" \0")
    found = value(ds, tag_of(keyword), keyword)
    return "" if found is None else str(found).strip(" \0")


def _plain_number(item: RawDataElement) -> int | None:
    """What pydicom makes of an unsigned short, in a tenth of its time; None for anything else."""
    if item.value is None or len(item.value) != 2 or _vr_of(item) != "US":
        return None
    return int.from_bytes(item.value, "little" if item.is_little_endian else "big")


def _plain_text(item: RawDataElement) -> str | None:
    """What pydicom makes of one code string or UID, without its padding; None for anything else."""
    if item.value is None or _vr_of(item) not in ("CS", "UI") or not _ONE_WORD.fullmatch(item.value):
        return None
    return item.value.decode("ascii").strip(" \0")


def _vr_of(item: RawDataElement) -> str | None:
    return item.VR if item.VR is not None else _known_vr(int(item.tag))


@functools.lru_cache(maxsize=256)
def _known_vr(tag: int) -> str | None:
    return dictionary_VR(tag) if dictionary_has_tag(tag) else None


def pixel_element(ds: Dataset) -> DataElement | RawDataElement | None:
    """The element Pixel Data as it stands in the Dataset."""
    return held(ds, tag_of("PixelData"))


def pixel_bytes(ds: Dataset) -> bytes:
    """The value of Pixel Data: samples, or fragments with their item headers."""
    item = pixel_element(ds)
    content = item.value if item is not None else b""
    return bytes(content) if isinstance(content, (bytes, bytearray)) else b""


def stated_syntax(ds: Dataset) -> str:
    """The UID of the transfer syntax that the Dataset came in, "" where it is not stated."""
    meta = ds.__dict__.get("file_meta")
    return text(meta, "TransferSyntaxUID") if meta is not None else ""


def transfer_syntax(ds: Dataset) -> str:
    """The UID of the transfer syntax that the Dataset came in."""
    found = stated_syntax(ds)
    if not found:
        raise PixelError("the transfer syntax is not stated")
    return found


@contextmanager
def named(ds: Dataset) -> Iterator[None]:
    """Put the SOP Instance UID in front of every PixelError raised inside."""
    try:
        yield
    except PixelError as error:
        raise PixelError(f"instance {_instance_uid(ds)}: {error}") from error


def _instance_uid(ds: Dataset) -> str:
    """The UID if it is one: a malformed one could hold anything, and goes into a message."""
    try:
        found = text(ds, "SOPInstanceUID")
    except PixelError:
        found = ""
    return found if _UID.fullmatch(found) else "without a valid UID"
