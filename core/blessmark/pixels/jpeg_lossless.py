"""Lossless JPEG (ITU-T T.81 process 14), decoded strictly.

The libraries that read it decode damaged data with a warning on the console, or abort the process.
Lossless JPEG is what many archives hold, and what is decoded here is what gets signed: so a code that is
not in the table or a stream that ends early is an error.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from blessmark.jit import compiled
from blessmark.pixels.codestream import START_OF_SCAN, Codestream, Segment, segments

_HUFFMAN, _RESTART = 0xC4, 0xDD
#: the end of a scan: a marker that is neither a stuffed zero nor a restart
_NEXT_MARKER = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]", re.DOTALL)
_RESTART_MARKER = re.compile(rb"\xff+[\xd0-\xd7]", re.DOTALL)

Lookup = npt.NDArray[np.int32]


@dataclass(slots=True)
class _Tables:
    """What the marker segments have declared so far."""

    huffman: dict[int, Lookup] = field(default_factory=dict)
    restart_samples: int = 0
    components: bytes = b""


def decode(encoded: bytes, declared: Codestream) -> npt.NDArray[np.uint16]:
    """uint16 [rows, cols, channels], each sample in 0 .. 2**precision - 1.

    Raises
    ------
    ValueError : a stream that T.81 does not allow, or that ends early
    """
    planes = np.zeros((declared.channels, declared.rows, declared.cols), np.int32)
    tables, done, at = _Tables(), 0, 2
    while done < declared.channels:
        scan = _next_scan(encoded, at, tables)
        end = _NEXT_MARKER.search(encoded, scan.end)
        if end is None:
            raise ValueError("a scan has no end")
        done += _decode_scan(scan.content, encoded[scan.end : end.start()], tables, declared, planes)
        at = end.start()
    if planes.max() >> declared.precision:
        raise ValueError("samples exceed the precision")
    return np.moveaxis(planes.astype(np.uint16), 0, 2)


def _next_scan(encoded: bytes, at: int, tables: _Tables) -> Segment:
    """Take in the tables before the next scan, and return the header of that scan."""
    for segment in segments(encoded, at):
        if segment.marker == START_OF_SCAN:
            return segment
        if segment.marker == 0xC3:
            tables.components = _component_ids(segment.content)
        elif segment.marker == _HUFFMAN:
            _read_huffman(segment.content, tables)
        elif segment.marker == _RESTART:
            tables.restart_samples = int.from_bytes(segment.content[:2], "big")
    raise ValueError("a component has no scan")


def _component_ids(content: bytes) -> bytes:
    components = content[6:]
    if any(sampling != 0x11 for sampling in components[1::3]):
        raise ValueError("components of different size")
    return components[::3]


def _read_huffman(content: bytes, tables: _Tables) -> None:
    """Turn each table of a DHT segment (T.81 B.2.4.2) into a lookup of the next 16 bits.

    An entry is code length << 8 | category, 0 where no code begins like that.
    """
    while content:
        counts, total = content[1:17], sum(content[1:17])
        lookup = np.zeros(1 << 16, np.int32)
        start, symbols = 0, iter(content[17 : 17 + total])
        for length, count in enumerate(counts, start=1):
            width = 1 << (16 - length)
            for symbol in (next(symbols, 0xFF) for _ in range(count)):
                if symbol > 16 or start + width > lookup.size:
                    raise ValueError("an impossible Huffman table")
                lookup[start : start + width] = length << 8 | symbol
                start += width
        tables.huffman[content[0]] = lookup
        content = content[17 + total :]


def _decode_scan(
    scan: bytes, content: bytes, tables: _Tables, declared: Codestream, planes: npt.NDArray[np.int32]
) -> int:
    """Decode one scan (T.81 B.2.3) into its planes; returns how many those are."""
    count = scan[0] if scan else 0
    ids, selectors = scan[1 : 1 + 2 * count : 2], scan[2 : 2 + 2 * count : 2]
    predictor, point_shift = scan[1 + 2 * count], scan[3 + 2 * count] & 15
    channels = [tables.components.index(component) for component in ids]
    lookups = np.stack([tables.huffman[selector >> 4] for selector in selectors])
    if not 1 <= predictor <= 7 or point_shift >= declared.precision or len(set(channels)) != count:
        raise ValueError("an impossible scan header")
    target = np.zeros((count, declared.rows, declared.cols), np.int32)
    lines = _lines_between_restarts(tables.restart_samples, declared)
    parts = _RESTART_MARKER.split(content)
    if len(parts) < -(-declared.rows // lines):
        raise ValueError("restart intervals are missing")
    for first, part in zip(range(0, declared.rows, lines), parts, strict=False):
        bits = np.frombuffer(part.replace(b"\xff\x00", b"\xff"), np.uint8)
        strip = target[:, first : first + lines]
        if not _decode_lines(bits, lookups, strip, predictor, 1 << (declared.precision - point_shift - 1)):
            raise ValueError("damaged entropy-coded data")
    planes[channels] = target << point_shift
    return count


def _lines_between_restarts(restart_samples: int, declared: Codestream) -> int:
    if restart_samples % declared.cols:
        raise ValueError("a restart within a line")
    return restart_samples // declared.cols or declared.rows


@compiled
def _decode_lines(
    data: npt.NDArray[np.uint8],
    lookups: npt.NDArray[np.int32],
    out: npt.NDArray[np.int32],
    predictor: int,
    start: int,
) -> bool:
    """Huffman-decode and undo the prediction of one restart interval (T.81 H.1.2, H.2).

    `lookups` is int32 [components, 65536], `out` int32 [components, lines, cols]. False where a code is
    not in the table, or the data end before the samples do.
    """
    components, lines, cols = out.shape
    held, bits, position = 0, 0, 0
    for row in range(lines):
        for col in range(cols):
            for component in range(components):
                while bits < 32:  # a code and its difference take 32 bits at most
                    held = held << 8 | (int(data[position]) if position < data.size else 0)
                    position += 1
                    bits += 8
                entry = int(lookups[component, (held >> (bits - 16)) & 0xFFFF])
                bits -= entry >> 8
                category = entry & 0xFF
                difference = 0
                if category == 16:
                    difference = 32768
                elif category > 0:
                    bits -= category
                    difference = (held >> bits) & ((1 << category) - 1)
                    if difference < 1 << (category - 1):
                        difference -= (1 << category) - 1
                held &= (1 << bits) - 1
                if entry == 0 or position * 8 - bits > data.size * 8:
                    return False
                guess = _predicted(out[component], row, col, predictor, start)
                out[component, row, col] = (guess + difference) & 0xFFFF
    return True


@compiled
def _predicted(plane: npt.NDArray[np.int32], row: int, col: int, predictor: int, start: int) -> int:
    """The prediction of T.81 table H.1, with its exceptions in the first line and the first column."""
    if row == 0:
        return start if col == 0 else int(plane[0, col - 1])
    above = int(plane[row - 1, col])
    if col == 0 or predictor == 2:
        return above
    left, corner = int(plane[row, col - 1]), int(plane[row - 1, col - 1])
    if predictor == 1:
        return left
    if predictor == 3:
        return corner
    if predictor == 4:
        return left + above - corner
    if predictor == 5:
        return left + ((above - corner) >> 1)
    if predictor == 6:
        return above + ((left - corner) >> 1)
    return (left + above) >> 1
