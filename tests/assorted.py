"""One object of every kind that is handed on untouched, written byte by byte; no patient in any of them.

for name, thing in OBJECTS.items(): thing.data_set, thing.part10()
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

from tests.data_sets import BIG, DEFLATED, EXPLICIT, IMPLICIT, MPEG2, Writer, deflated, padded

H264 = "1.2.840.10008.1.2.4.102"
PRIVATE = "1.3.46.670589.11.0.0.12.4"
_STORAGE = "1.2.840.10008.5.1.4.1.1."
#: "Yamada^Tarou" of PS3.5 annex H.3.1: roman, ideographic and phonetic, with escape sequences
_JAPANESE = b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B"


@dataclass(frozen=True)
class Thing:
    """An object: what it is, how it is encoded, its bytes."""

    sop_class: str
    sop_instance: str
    syntax: str
    data_set: bytes

    def part10(self) -> bytes:
        """The object as a file (PS3.10 section 7.1)."""
        writer = Writer(EXPLICIT)
        meta = b"".join(
            writer.element(0x00020000 + number, vr, value)
            for number, vr, value in (
                (0x01, "OB", b"\0\1"),
                (0x02, "UI", padded(self.sop_class)),
                (0x03, "UI", padded(self.sop_instance)),
                (0x10, "UI", padded(self.syntax)),
                (0x12, "UI", padded("1.2.3.4")),
            )
        )
        length = writer.element(0x00020000, "UL", struct.pack("<I", len(meta)))
        return bytes(128) + b"DICM" + length + meta + self.data_set


def _thing(number: int, suffix: str, syntax: str, *contents: tuple[int, str, bytes]) -> Thing:
    """An object with the usual identifying elements and `contents`, as (tag, VR, value)."""
    sop_class = suffix if suffix == PRIVATE else _STORAGE + suffix
    sop_instance = f"1.2.826.0.1.3680043.9.{number}"
    writer = Writer(syntax)
    elements = {tag: writer.element(tag, vr, value) for tag, vr, value in contents}
    if sop_class != PRIVATE:
        elements[0x00080016] = writer.element(0x00080016, "UI", padded(sop_class))
        elements[0x00080018] = writer.element(0x00080018, "UI", padded(sop_instance))
    elements |= {
        0x0020000D: writer.element(0x0020000D, "UI", padded("1.2.826.0.1.1")),
        0x0020000E: writer.element(0x0020000E, "UI", padded("1.2.826.0.1.2")),
        0x00100020: writer.element(0x00100020, "LO", b"0000"),
    }
    if syntax in (MPEG2, H264):
        elements[0x7FE00010] = writer.fragments(0x7FE00010, [b"", bytes(range(256)) * 9, b"\0\0\1\xb7"])
    nested = writer.item(writer.element(0x00080100, "SH", b"121322"), delimited=number % 2 == 0)
    elements[0x00081140] = writer.sequence(0x00081140, [nested], delimited=number % 3 == 0)
    data = b"".join(elements[tag] for tag in sorted(elements))
    return Thing(sop_class, sop_instance, syntax, deflated(data) if syntax == DEFLATED else data)


_CHARSET, _MODALITY, _NAME = 0x00080005, 0x00080060, 0x00100010
_ROWS, _COLS, _PIXELS = 0x00280010, 0x00280011, 0x7FE00010


def _modality(name: str) -> tuple[int, str, bytes]:
    return _MODALITY, "CS", name.encode() + b" " * (len(name) % 2)


_FRAME = ((_ROWS, "US", b"\x10\0"), (_COLS, "US", b"\x10\0"))
_ONE_BIT = (
    (0x00280002, "US", b"\1\0"),
    (0x00280004, "CS", b"MONOCHROME2 "),
    (0x00280100, "US", b"\1\0"),
    (0x00280101, "US", b"\1\0"),
    (0x00280102, "US", b"\0\0"),
    (0x00280103, "US", b"\0\0"),
    (_PIXELS, "OB", bytes(range(32))),
)
_PRIVATE_ELEMENTS = (
    (0x00990010, "LO", b"TEST"),
    (0x00991001, "UN", bytes(range(255)) + b"!"),
    (0xFFFCFFFC, "OB", bytes(50)),
)
_LATIN = (_CHARSET, "CS", b"ISO_IR 192"), (_NAME, "PN", "Å^Ж^山".encode() + b" ")
_KANJI = (_CHARSET, "CS", b"\\ISO 2022 IR 87 "), (_NAME, "PN", _JAPANESE + b" " * (len(_JAPANESE) % 2))
_DOCUMENT = (0x00420011, "OB", b"%PDF-1.4 odd"[:-1]), (0x00420012, "LO", b"application/pdf ")

OBJECTS: dict[str, Thing] = {
    "SR, Japanese names": _thing(1, "88.33", EXPLICIT, _modality("SR"), *_KANJI),
    "SR, UTF-8, deflated": _thing(2, "88.22", DEFLATED, _modality("SR"), *_LATIN),
    "PR, implicit": _thing(3, "11.1", IMPLICIT, _modality("PR")),
    "KO": _thing(4, "88.59", EXPLICIT, _modality("KO")),
    "SEG, one bit": _thing(5, "66.4", EXPLICIT, _modality("SEG"), *_FRAME, *_ONE_BIT),
    "RTSTRUCT, big endian": _thing(6, "481.3", BIG, _modality("RTSTRUCT")),
    "RTPLAN": _thing(7, "481.5", IMPLICIT, _modality("RTPLAN")),
    "PDF of odd length": _thing(8, "104.1", EXPLICIT, _modality("DOC"), *_DOCUMENT),
    "private class without UIDs": _thing(9, PRIVATE, EXPLICIT, *_PRIVATE_ELEMENTS),
    "MPEG-2": _thing(10, "77.1.4.1", MPEG2, _modality("XC"), *_FRAME),
    "H.264": _thing(11, "77.1.1.1", H264, _modality("ES"), *_FRAME),
    "waveform, zeros behind it": _thing(12, "9.1.1", EXPLICIT, _modality("ECG"), (0x54000100, "SQ", b"")),
}
_PADDED = "waveform, zeros behind it"
OBJECTS[_PADDED] = replace(OBJECTS[_PADDED], data_set=OBJECTS[_PADDED].data_set + bytes(6))
