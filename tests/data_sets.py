"""Data sets written by hand, byte by byte: every encoding, every nesting, and where each may be cut.

    Writer("1.2.840.10008.1.2.1").element(0x00080060, "CS", b"CT")
    simple(class, instance, syntax)     a small object of that identity in that transfer syntax

Nothing here uses pydicom, so that it can say what a reader must make of the bytes.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable

IMPLICIT, EXPLICIT, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
DEFLATED, JPEG, MPEG2 = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.100"
UNDEFINED = 0xFFFFFFFF
LONG = frozenset(["OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"])


class Writer:
    """Elements in one transfer syntax."""

    def __init__(self, syntax: str) -> None:
        self.explicit = syntax != IMPLICIT
        self.order = ">" if syntax == BIG else "<"

    def element(self, tag: int, vr: str, value: bytes, length: int | None = None) -> bytes:
        """An element; `length` is what its header claims."""
        claimed = len(value) if length is None else length
        head = struct.pack(self.order + "HH", tag >> 16, tag & 0xFFFF)
        if not self.explicit:
            return head + struct.pack(self.order + "I", claimed) + value
        form = "xxI" if vr in LONG else "H"
        return head + vr.encode() + struct.pack(self.order + form, claimed) + value

    def item(self, content: bytes, *, delimited: bool) -> bytes:
        """An item of a sequence."""
        if delimited:
            return self.mark(0xE000, UNDEFINED) + content + self.mark(0xE00D, 0)
        return self.mark(0xE000, len(content)) + content

    def sequence(self, tag: int, items: Iterable[bytes], *, delimited: bool, vr: str = "SQ") -> bytes:
        """A sequence of such items."""
        content = b"".join(items)
        if delimited:
            return self.element(tag, vr, content + self.mark(0xE0DD, 0), UNDEFINED)
        return self.element(tag, vr, content)

    def fragments(self, tag: int, pieces: Iterable[bytes], vr: str = "OB") -> bytes:
        """Encapsulated pixel data."""
        content = b"".join(self.mark(0xE000, len(piece)) + piece for piece in pieces)
        return self.element(tag, vr, content + self.mark(0xE0DD, 0), UNDEFINED)

    def mark(self, element: int, length: int) -> bytes:
        """An item or a delimiter."""
        return struct.pack(self.order + "HHI", 0xFFFE, element, length)

    def identity(self, sop_class: str, sop_instance: str) -> bytes:
        """The two UIDs of the SOP Common module."""
        return self.element(0x00080016, "UI", padded(sop_class)) + self.element(
            0x00080018, "UI", padded(sop_instance)
        )


def padded(uid: str) -> bytes:
    """A UID as a value."""
    return uid.encode() + b"\0" * (len(uid) % 2)


def deflated(data: bytes) -> bytes:
    """A raw deflate stream of even length (PS3.5 annex A.5)."""
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    stream = packer.compress(data) + packer.flush()
    return stream + b"\0" * (len(stream) % 2)


def simple(sop_class: str, sop_instance: str, syntax: str = EXPLICIT, pixels: int = 3000) -> bytes:
    """A whole data set, with sequences, private and odd elements, and pixels that differ per instance."""
    data = b"".join(parts(sop_class, sop_instance, syntax, pixels))
    return deflated(data) if syntax == DEFLATED else data


def parts(sop_class: str, sop_instance: str, syntax: str, pixels: int) -> list[bytes]:
    """The elements of `simple`, not yet deflated."""
    writer = Writer(syntax)
    inner = writer.element(0x00080100, "SH", b"CODE") + writer.element(0x00990010, "LO", b"TEST")
    noise = (f"{sop_instance}!".encode() * (pixels // (len(sop_instance) + 1) + 1))[:pixels]
    native = writer.element(0x7FE00010, "OW", noise)
    encapsulated = writer.fragments(0x7FE00010, [b"", noise[: pixels // 2], noise[pixels // 2 :]])
    return [
        writer.element(0x00080016, "UI", padded(sop_class)),
        writer.element(0x00080018, "UI", padded(sop_instance)),
        writer.element(0x00080060, "CS", b"OT"),
        writer.sequence(0x00081140, [writer.item(inner, delimited=True)], delimited=True),
        writer.sequence(0x00082218, [writer.item(inner, delimited=False)], delimited=False),
        writer.element(0x00990010, "LO", b"TEST"),
        writer.element(0x00991001, "UN", bytes(range(255))),
        native if syntax in (IMPLICIT, EXPLICIT, BIG, DEFLATED) else encapsulated,
    ]
