"""A DICOMDIR (PS3.10 section 8): which files of its folder it says are instances.

Read record by record, so that an index of a hundred thousand is never whole in memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import BinaryIO

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset, read_preamble, read_sequence_item
from pydicom.tag import BaseTag

from dicom_node.errors import InputError

_IMPLICIT = "1.2.840.10008.1.2"
_RECORDS, _FILE_ID, _IN_USE = 0x00041220, 0x00041500, 0x00041410
_TRANSFER_SYNTAX = 0x00020010
#: Record In-use Flag of a record that was deleted (PS3.3 F.3.2.2)
_INACTIVE = b"\0\0"


def listed(file: BinaryIO) -> Iterator[tuple[str, ...]]:
    """The files that an index names, in its order, as it names them: they may lead anywhere.

    Raises
    ------
    InputError : the index is broken or cut short
    """
    try:
        read_preamble(file, False)
        meta = read_dataset(file, is_implicit_VR=False, is_little_endian=True, stop_when=_beyond_meta)
        implicit = _value(meta, _TRANSFER_SYNTAX) == _IMPLICIT.encode()
        read_dataset(file, implicit, is_little_endian=True, stop_when=_at_records)
        yield from _files(file, implicit)
    except InputError:
        raise
    except Exception as error:
        # "from None": pydicom quotes values, and records name patients
        raise InputError(
            f"the index of files is broken ({type(error).__name__}); name the files or their folder instead"
        ) from None


def _files(file: BinaryIO, implicit: bool) -> Iterator[tuple[str, ...]]:
    head = file.read(8 if implicit else 12)
    if not head:
        raise InputError("the index of files is cut short; name the files or their folder instead")
    length = int.from_bytes(head[-4:], "little")
    end = None if length == 0xFFFFFFFF else file.tell() + length
    while end is None or file.tell() < end:
        record = read_sequence_item(file, implicit, True, "iso8859")
        if record is None:
            return
        name = os.fsdecode(_value(record, _FILE_ID))
        if name and _value(record, _IN_USE) != _INACTIVE:
            yield tuple(part.strip(" ") for part in name.split("\\"))


def _value(ds: Dataset, tag: int) -> bytes:
    """The value as it lies there; the in-use flag keeps its zeros."""
    element = ds.get_item(tag, keep_deferred=True)
    value = bytes(getattr(element, "value", None) or b"")
    return value if tag == _IN_USE else value.strip(b" \0")


def _beyond_meta(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return tag.group != 2


def _at_records(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return int(tag) >= _RECORDS
