"""Header fields as the record carries them: value bytes exactly as stored, never decoded text.

Copying bytes instead of text is what keeps every character set intact (PS3.5 section 6.1.2.3): a value
is only right together with the Specific Character Set beside it, and both travel untouched.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element
from pydicom.tag import Tag
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32

SPECIFIC_CHARACTER_SET = 0x00080005


def value_bytes(ds: Dataset, tag: int) -> bytes | None:
    """The value field of one element as it stands in the data set, None when it is absent."""
    element: DataElement | RawDataElement | None = ds.get_item(tag)
    if element is None:
        return None
    if isinstance(element, RawDataElement):
        return bytes(element.value or b"")
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_data_element(buffer, element, ds.get("SpecificCharacterSet") or None)
    prefix = 12 if element.VR in EXPLICIT_VR_LENGTH_32 else 8
    return bytes(buffer.getvalue()[prefix:])


def read_fields(ds: Dataset, tags: Iterable[int]) -> dict[int, bytes]:
    """Tag -> value bytes of those `tags` that the header has."""
    values = {tag: value_bytes(ds, tag) for tag in tags}
    return {tag: value for tag, value in values.items() if value is not None}


def restore_fields(ds: Dataset, fields: Mapping[int, bytes]) -> None:
    """Write value bytes back; an element that already holds them is left exactly as it is."""
    for tag, value in fields.items():
        if value_bytes(ds, tag) != value:
            ds[tag] = _raw(tag, value)


def _raw(tag: int, value: bytes) -> RawDataElement:
    return RawDataElement(Tag(tag), dictionary_VR(tag), len(value), value, 0, False, True)


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
