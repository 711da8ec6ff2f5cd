"""Header fields as the record carries them: value bytes exactly as stored, never decoded text.

Copying bytes instead of text is what keeps every character set intact (PS3.5 section 6.1.2.3): a value
is only right together with the Specific Character Set beside it, and both travel untouched.

Numbers are the one exception: they are given in little endian whatever the data set is stored in, so that
an instance that was re-coded on its way still agrees with its record.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import cast

from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element
from pydicom.tag import BaseTag, Tag
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32

from blessmark import pixels
from blessmark.errors import WatermarkError
from dicom_node.errors import InputError, NodeError

SPECIFIC_CHARACTER_SET = 0x00080005

#: bytes of one number of a VR; values of every other VR are the same in either byte order
_WORD_BYTES = {
    **dict.fromkeys(("US", "SS", "OW", "AT", "US or SS", "US or OW", "US or SS or OW"), 2),
    **dict.fromkeys(("UL", "SL", "FL", "OL", "OF"), 4),
    **dict.fromkeys(("UV", "SV", "FD", "OV", "OD"), 8),
}


#: what pydicom raises where a value is not of its type
_MISFITS = (
    ValueError,
    TypeError,
    OSError,
    NotImplementedError,
    LookupError,
    ArithmeticError,
    AttributeError,
    struct.error,
)


def value_bytes(ds: Dataset, tag: int) -> bytes | None:
    """The value field of one element as it stands in the data set, None when it is absent."""
    element = _held(ds, tag)
    if element is None:
        return None
    if isinstance(element, RawDataElement):
        value = bytes(element.value or b"")
        return value if element.is_little_endian else _swapped(value, value_representation(ds, tag))
    if (plain := pixels.plain_value(element)) is not None:
        return plain
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_data_element(buffer, element, ds.get("SpecificCharacterSet") or None)
    prefix = 12 if element.VR in EXPLICIT_VR_LENGTH_32 else 8
    return bytes(buffer.getvalue()[prefix:])


def holds(ds: Dataset, tag: int) -> bool:
    """Whether the data set has an element, empty or not; as `tag in ds`, at a fifth of its price."""
    return pixels.has(ds, tag)


def value_representation(ds: Dataset, tag: int) -> str:
    """The VR of an element, two letters: what the data set says, else what the dictionary does, else UN.

    What the dictionary leaves to the sign of the pixels (PS3.6, "US or SS") is decided by it.
    """
    element = _held(ds, tag)
    stated = element.VR if element is not None else None
    vr = stated or (dictionary_VR(tag) if dictionary_has_tag(tag) else "UN")
    if len(vr) == 2:
        return vr
    return "SS" if vr == "US or SS" and ds.get("PixelRepresentation") == 1 else "US"


def text(ds: Dataset, tag: int) -> str:
    """The value of a UI or CS element without its padding, "" when it is absent."""
    return (value_bytes(ds, tag) or b"").decode("ascii", "replace").strip(" \0")


def read_fields(ds: Dataset, tags: Iterable[int]) -> dict[int, bytes]:
    """Tag -> value bytes of those `tags` that the header has."""
    values = {tag: value_bytes(ds, tag) for tag in tags}
    return {tag: value for tag, value in values.items() if value is not None}


def restore_fields(ds: Dataset, fields: Mapping[int, bytes], charset: bytes) -> None:
    """Write value bytes back; an element that already holds them is left exactly as it is.

    `charset` is the Specific Character Set that belongs to `fields`, b"" if there was none. Where the data
    set was re-coded into another one, all its text goes back to `charset`, or values would change meaning.
    """
    if _stripped(value_bytes(ds, SPECIFIC_CHARACTER_SET)) != _stripped(charset):
        _use_charset(ds, charset)
    for tag, value in fields.items():
        if value_bytes(ds, tag) != value:
            put_bytes(ds, tag, value_representation(ds, tag), value)


def put_bytes(ds: Dataset, tag: int, vr: str, value: bytes) -> None:
    """Set an element to value bytes as `value_bytes` gives them; not for sequences."""
    little = ds.original_encoding[1] is not False
    stored = value if little else _swapped(value, vr)
    ds[tag] = RawDataElement(Tag(tag), vr, len(stored), stored, 0, False, little)


@contextlib.contextmanager
def readable(ds: Dataset) -> Iterator[None]:
    """Say what a sender can act on where pydicom finds an element that is not what its VR says.

    Raises
    ------
    InputError : in place of what pydicom raises, which quotes values that a log must not repeat
    """
    try:
        yield
    except (NodeError, WatermarkError):
        raise
    except _MISFITS:
        raise misfit(_misfit(ds)) from None


def misfit(tag: int | None) -> InputError:
    """The error of an element, None for one that cannot be told, whose bytes are no value of its type."""
    which = "an element of the header" if tag is None else f"element ({tag >> 16:04X},{tag & 0xFFFF:04X})"
    return InputError(
        f"{which} holds bytes that are not a value of its type; correct or remove it at the source"
    )


def _misfit(ds: Dataset) -> int | None:
    """The first element that pydicom can neither decode nor write."""
    for holder in (ds, getattr(ds, "file_meta", None) or Dataset()):
        for tag in sorted(map(int, holder._dict)):
            try:
                value_bytes(holder, tag)
                holder[tag]
                value_bytes(holder, tag)
            except Exception:
                return tag
    return None


def _use_charset(ds: Dataset, charset: bytes) -> None:
    """Decode every text by the character set that `ds` claims now, and have it written in `charset`."""
    ds.decode()
    if charset:
        put_bytes(ds, SPECIFIC_CHARACTER_SET, "CS", charset)
    elif SPECIFIC_CHARACTER_SET in ds:
        del ds[SPECIFIC_CHARACTER_SET]


def _held(ds: Dataset, tag: int) -> DataElement | RawDataElement | None:
    """The element as it stands; as `ds.get_item` with `keep_deferred`, at a tenth of its price."""
    return ds._dict.get(pixels.tag_object(tag) if type(tag) is int else cast(BaseTag, tag))


def _stripped(value: bytes | None) -> bytes:
    return (value or b"").strip(b" \0")


def _swapped(value: bytes, vr: str) -> bytes:
    """The value in the other byte order."""
    step = _WORD_BYTES.get(vr, 1)
    return b"".join(value[at : at + step][::-1] for at in range(0, len(value), step))


class HeaderFields(Mapping[int, bytes]):
    """A data set seen as tag -> value bytes, read on demand."""

    def __init__(self, ds: Dataset) -> None:
        self._ds = ds

    def __getitem__(self, tag: int) -> bytes:
        value = value_bytes(self._ds, tag)
        if value is None:
            raise KeyError(tag)
        return value

    def __iter__(self) -> Iterator[int]:
        return (int(tag) for tag in self._ds.keys())  # noqa: SIM118 - iterating a Dataset decodes it

    def __len__(self) -> int:
        return len(self._ds)
