"""What a compressed frame says about itself, read before a decoder allocates what it says.

A decoder trusts the dimensions in the codestream; the header of the instance is what was checked against
the limits. Only a codestream that agrees with the header is handed to a decoder.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from pydicom import uid

from blessmark.errors import PixelError
from blessmark.pixels import run_length
from blessmark.pixels.header import Header
from blessmark.pixels.syntax import J2K, JPEG_LOSSLESS, JPEG_LS, RLE

_SOI, _SOC, _SIZ = b"\xff\xd8", b"\xff\x4f", b"\xff\x51"
_JP2 = b"\x00\x00\x00\x0cjP  "
_END = b"\xff\xd9"
START_OF_SCAN = 0xDA
_SOF_LOSSLESS, _SOF_LS = 0xC3, 0xF7


@dataclass(frozen=True, slots=True)
class Codestream:
    """Dimensions that a compressed frame declares; `precision` in bits a sample."""

    rows: int
    cols: int
    channels: int
    precision: int


@dataclass(frozen=True, slots=True)
class Segment:
    """One marker segment of a JPEG stream; `end` is the offset of the byte behind it."""

    marker: int
    content: bytes
    end: int


def checked(encoded: bytes, header: Header) -> Codestream:
    """The codestream's own dimensions, which agree with the header.

    Raises
    ------
    PixelError : the frame is no such codestream, is cut short, or contradicts the header
    """
    declared = _declared(encoded, header)
    if (declared.rows, declared.cols, declared.channels) != (header.rows, header.cols, header.channels):
        raise PixelError(
            f"a compressed frame of {declared.rows} x {declared.cols} x {declared.channels} contradicts "
            f"the header's {header.rows} x {header.cols} x {header.channels}"
        )
    if declared.precision > header.bits_allocated:
        raise PixelError(
            f"a compressed frame of {declared.precision} bits does not fit {header.bits_allocated}-bit words"
        )
    return declared


def _declared(encoded: bytes, header: Header) -> Codestream:
    if header.syntax in RLE:
        return _rle(encoded, header)
    if header.syntax in J2K:
        return _jpeg_2000(encoded)
    frame_marker = _frame_marker(header.syntax)
    if not encoded.startswith(_SOI) or _END not in encoded[-16:]:
        raise PixelError("a compressed frame is not a whole JPEG stream; send the instance again")
    for segment in segments(encoded, len(_SOI)):
        if segment.marker in frame_marker and len(segment.content) >= 6:
            precision, rows, cols, channels = struct.unpack_from(">BHHB", segment.content)
            return Codestream(rows, cols, channels, precision)
    raise PixelError(f"a compressed frame has no frame header of {uid.UID(header.syntax).name}")


def _frame_marker(syntax: str) -> tuple[int, ...]:
    """Start-of-frame markers (ITU-T T.81 table B.1, T.87) of the processes that a syntax allows."""
    if syntax in JPEG_LS:
        return (_SOF_LS,)
    return (_SOF_LOSSLESS,) if syntax in JPEG_LOSSLESS else (0xC0, 0xC1, 0xC2)


def segments(encoded: bytes, at: int) -> Iterator[Segment]:
    """Marker segments of a JPEG stream (ITU-T T.81 B.1) from `at`, up to the first start of scan."""
    while at + 4 <= len(encoded) and encoded[at] == 0xFF:
        marker = encoded[at + 1]
        if marker == 0xFF:
            at += 1  # a fill byte
            continue
        length = int.from_bytes(encoded[at + 2 : at + 4], "big")
        end = at + 2 + length
        if length < 2 or end > len(encoded):
            return
        yield Segment(marker, encoded[at + 4 : end], end)
        if marker == START_OF_SCAN:
            return
        at = end


def _jpeg_2000(encoded: bytes) -> Codestream:
    """Read the SIZ segment of JPEG 2000 (ITU-T T.800 A.5.1), bare or inside a JP2 file."""
    start = encoded.find(_SOC + _SIZ) if encoded.startswith(_JP2) else 0
    if start < 0 or encoded[start : start + 4] != _SOC + _SIZ or len(encoded) < start + 45:
        raise PixelError("a compressed frame is not a JPEG 2000 codestream")
    right, bottom, left, top = struct.unpack_from(">4I", encoded, start + 8)
    (channels,) = struct.unpack_from(">H", encoded, start + 40)
    depths = encoded[start + 42 : start + 42 + 3 * channels : 3]
    return Codestream(bottom - top, right - left, channels, max((d & 0x7F) + 1 for d in depths or b"\xff"))


def _rle(encoded: bytes, header: Header) -> Codestream:
    """RLE (PS3.5 annex G) declares one segment for each byte of a pixel, and nothing else."""
    declared = run_length.segment_count(encoded)
    if declared != header.channels * header.bits_allocated // 8:
        raise PixelError(f"a compressed frame holds {declared} RLE segments, which contradicts the header")
    return Codestream(header.rows, header.cols, header.channels, header.bits_allocated)
