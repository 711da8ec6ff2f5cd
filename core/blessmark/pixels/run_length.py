"""RLE Lossless (PS3.5 annex G), decoded strictly.

A segment must hold exactly the bytes of one byte plane. The libraries that read it ignore what a segment
holds beyond them, and so would lose it when the frame is written again; or end the process where a run
overflows.
"""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

from blessmark.jit import compiled

_HEADER = struct.Struct("<16I")
_NO_RUN = 0x80


def segment_count(encoded: bytes) -> int:
    """How many segments the frame declares, one for each byte of a pixel; 0 if it has no header."""
    return int(_HEADER.unpack_from(encoded)[0]) if len(encoded) > _HEADER.size else 0


def decode(encoded: bytes, rows: int, cols: int) -> npt.NDArray[np.uint8]:
    """uint8 [segments, rows, cols]: for each channel its bytes, the most significant first.

    Raises
    ------
    ValueError : a segment holds fewer or more bytes than rows x cols, or lies outside the frame
    """
    count, *offsets = _HEADER.unpack_from(encoded)
    if not 1 <= count <= len(offsets):
        raise ValueError("an impossible number of segments")
    ends = [*offsets[1:count], len(encoded)]
    planes = np.zeros((count, rows * cols), np.uint8)
    for plane, start, end in zip(planes, offsets, ends, strict=False):
        if not _HEADER.size <= start <= end <= len(encoded):
            raise ValueError("a segment outside the frame")
        if not _unpack(np.frombuffer(encoded, np.uint8)[start:end], plane):
            raise ValueError("a segment that is not one byte plane")
    return planes.reshape(count, rows, cols)


@compiled
def _unpack(packed: npt.NDArray[np.uint8], plane: npt.NDArray[np.uint8]) -> bool:
    """Undo PackBits (PS3.5 G.3.2); False unless the runs fill the plane exactly.

    Behind them only padding may follow: zeros, or the control byte that stands for no run.
    """
    at, filled = 0, 0
    while filled < plane.size:
        if at >= packed.size:
            return False
        control = int(packed[at])
        at += 1
        if control < _NO_RUN:
            length, taken = control + 1, control + 1
        elif control > _NO_RUN:
            length, taken = 257 - control, 1
        else:
            continue
        if at + taken > packed.size or filled + length > plane.size:
            return False
        if control < _NO_RUN:
            plane[filled : filled + length] = packed[at : at + length]
        else:
            plane[filled : filled + length] = packed[at]
        at += taken
        filled += length
    rest = packed[at:]
    return bool(np.all((rest == 0) | (rest == _NO_RUN)))
