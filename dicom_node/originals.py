"""The sealed originals: everything that the node changed in a data set, for those who hold the key.

They are made by comparing the data set with the bytes it was read from, so that nothing that was changed can
be forgotten. Sealed with them goes what the node wrote in place of the record's fields: a reader compares a
field with what it should be now, and takes it for what it was.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from pydicom.dataset import Dataset

from blessmark import pixels
from blessmark.errors import PixelError
from blessmark.payload import crypto
from blessmark.types import KeyRing
from dicom_node import header, label

SOP_INSTANCE_UID = 0x00080018
#: length that stands for "the element is not there"
_ABSENT = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Originals:
    """What undoes the node's work, and what a field of the record holds since.

    `written` has those fields of the record that the node changed: tag -> value bytes, None where it was
    removed. The SOP Instance UID is always among them: it ties the originals to their data set.
    """

    changes: pixels.Changes
    written: Mapping[int, bytes | None] = field(repr=False)

    def belongs_to(self, ds: Dataset) -> bool:
        """Whether these are the originals of `ds`, and not of another instance under the same key."""
        return _bare(header.value_bytes(ds, SOP_INSTANCE_UID)) == _bare(self.written[SOP_INSTANCE_UID])

    def sop_instance_uid(self, ds: Dataset) -> str:
        """The UID that `ds` had before."""
        before = pixels.original(self.changes)
        return header.text(before if SOP_INSTANCE_UID in before else ds, SOP_INSTANCE_UID)

    def to_bytes(self) -> bytes:
        """What is sealed; `from_bytes` is its inverse."""
        fields = b"".join(
            struct.pack(">II", tag, _ABSENT if value is None else len(value)) + (value or b"")
            for tag, value in sorted(self.written.items())
        )
        return struct.pack(">I", len(self.written)) + fields + self.changes.to_bytes()

    @classmethod
    def from_bytes(cls, content: bytes) -> Originals:
        """What `to_bytes` wrote; raises PixelError for anything else."""
        try:
            return cls._parsed(content)
        except struct.error as error:
            raise PixelError("the sealed originals are malformed") from error

    @classmethod
    def _parsed(cls, content: bytes) -> Originals:
        (count,) = struct.unpack_from(">I", content)
        at, written = 4, dict[int, bytes | None]()
        for _ in range(count):
            tag, size = struct.unpack_from(">II", content, at)
            at += 8
            written[tag] = None if size == _ABSENT else content[at : at + size]
            at += 0 if size == _ABSENT else size
        return cls(pixels.Changes.from_bytes(content[at:]), written)


def seal(ds: Dataset, ring: KeyRing, digest: bytes, fields: Mapping[int, bytes]) -> None:
    """Put what was done to `ds` since it was read into its private block; `label.mark` comes first.

    `digest` is what `pixels.settle` said of the original, `fields` are the record's as they were.
    """
    found = pixels.changes(ds, digest)
    now = {tag: header.value_bytes(ds, tag) for tag in {*fields, SOP_INSTANCE_UID}}
    written = {tag: value for tag, value in now.items() if value != fields.get(tag)}
    written[SOP_INSTANCE_UID] = now[SOP_INSTANCE_UID]
    content = Originals(found, written).to_bytes()
    label.seal(ds, crypto.seal_element(crypto.derive(ring.current), content, label.ORIGINALS_CONTEXT))


def unseal(ds: Dataset, ring: KeyRing) -> Originals | None:
    """The originals of `ds`, None if it has none, no key of `ring` opens them, or they are of another."""
    mark = label.read_mark(ds)
    if mark is None:
        return None
    for key in ring.keys:
        content = crypto.open_element(crypto.derive(key), mark.sealed_originals, label.ORIGINALS_CONTEXT)
        if content is not None:
            found = Originals.from_bytes(content)
            return found if found.belongs_to(ds) else None
    return None


class OriginalFields(Mapping[int, bytes]):
    """A data set seen as tag -> value bytes of the original.

    A field that the node changed is what it was, as long as it still holds what the node wrote; else it is
    what somebody else made of it.
    """

    def __init__(self, ds: Dataset, found: Originals | None) -> None:
        self._now = header.HeaderFields(ds)
        self._written = {} if found is None else found.written
        self._was: Mapping[int, bytes] = (
            {} if found is None else header.HeaderFields(pixels.original(found.changes))
        )

    def __getitem__(self, tag: int) -> bytes:
        if tag in self._written and _bare(self._now.get(tag)) == _bare(self._written[tag]):
            return self._was[tag] if tag in self._was else self._now[tag]
        return self._now[tag]

    def __iter__(self) -> Iterator[int]:
        return iter({*self._now, *self._was})

    def __len__(self) -> int:
        return len({*self._now, *self._was})


def _bare(value: bytes | None) -> bytes:
    return (value or b"").strip(b" \0")
