"""Uncompressed pixel data as planes: a view of the very bytes, so that writing it patches them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import uid
from pydicom.dataset import Dataset

from blessmark.errors import PixelError
from blessmark.pixels import elements
from blessmark.pixels.header import Header

Words = npt.NDArray[Any]


def checked_bytes(ds: Dataset, header: Header) -> bytes:
    """The pixel data, long enough for every frame and with nothing but padding behind them.

    Raises
    ------
    PixelError : bytes are missing, or there are more than the header accounts for
    """
    held = elements.pixel_bytes(ds)
    if len(held) < header.total_bytes:
        raise PixelError(
            f"Pixel Data holds {len(held)} of the {header.total_bytes} bytes of {header.size}; "
            "send the instance again"
        )
    surplus = np.frombuffer(held, np.uint8, offset=header.total_bytes)
    if surplus.size > 1 and surplus.any():
        raise PixelError(f"Pixel Data holds {surplus.size} bytes more than {header.size} need")
    return held


def planes(buffer: bytes | memoryview, header: Header) -> Words:
    """View [frames, channels, rows, cols] of pixel words, writable if `buffer` is."""
    count = header.frames * header.frame_samples
    flat = np.frombuffer(buffer, header.word, count=count)
    if header.planar == 1 or header.channels == 1:
        return flat.reshape(header.frames, header.channels, header.rows, header.cols)
    return np.moveaxis(flat.reshape(header.frames, header.rows, header.cols, header.channels), 3, 1)


def in_sample_order(held: bytes, ds: Dataset, header: Header) -> bytes:
    """The bytes in the order of the samples; its own inverse.

    8-bit samples in words (OW) of big endian lie swapped in pairs (PS3.5 8.1.2, annex A.3).
    """
    item = elements.pixel_element(ds)
    swapped = header.syntax == uid.ExplicitVRBigEndian and header.bits_allocated == 8
    if not swapped or item is None or item.VR != "OW":
        return held
    ordered = bytearray(held)
    even = len(held) // 2 * 2
    ordered[0:even:2], ordered[1:even:2] = held[1:even:2], held[0:even:2]
    return bytes(ordered)
