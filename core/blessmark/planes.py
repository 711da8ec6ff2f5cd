"""Samples as planes of 16 bits, which is what the engine's loops walk over.

A sample of 8 to 16 bits, signed or not, less the `shift` of its range is an int16: 0 for everything that fits
as it is, and the middle of the range for the rest (unsigned samples of 16 bits). What the format does with
samples are differences, means and comparisons, which do not see a shift; where their bytes are hashed, it is
added again.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from blessmark.jit import compiled

IntArray = npt.NDArray[np.int32]
PlaneArray = npt.NDArray[np.int16]
WordArray = npt.NDArray[np.uint16]
BoxArray = npt.NDArray[np.int64]

LEAST, GREATEST = -(1 << 15), (1 << 15) - 1


def shift_of(lo: int, hi: int) -> int:
    """What samples of `lo..hi` are held less of."""
    return 0 if lo >= LEAST and hi <= GREATEST else lo - LEAST


def narrowed(samples: IntArray, shift: int) -> PlaneArray:
    """int16 [channels, rows, cols] of int32 samples in any order of their axes.

    Raises
    ------
    ValueError
        a sample is beyond the 16 bits that there are from `shift` - 32768 on
    """
    planes, beyond = _narrowed(np.ascontiguousarray(samples), shift)
    if beyond:
        raise ValueError(f"a sample is outside {shift + LEAST}..{shift + GREATEST}")
    return planes


def widened(planes: PlaneArray, shift: int) -> IntArray:
    """The samples, int32: the inverse of `narrowed`."""
    samples = planes.astype(np.int32)
    if shift:
        samples += shift
    return samples


def of_words(words: npt.NDArray[np.integer], shift: int) -> PlaneArray:
    """int16 planes of the pixel words of samples, 8 or 16 bits each; a copy in every case."""
    planes = words.astype(np.int16, order="C")  # of 16 bits without a sign, the bits as they are
    if shift:
        planes ^= np.int16(LEAST)  # samples without a sign, less the middle of their range
    return planes


def low_words(planes: PlaneArray, shift: int) -> WordArray:
    """uint16: the lowest 16 bits of every sample; not to be written to: it may be the planes themselves."""
    words = planes.view(np.uint16)
    return words + np.uint16(shift & 0xFFFF) if shift else words


def little_endian(words: WordArray) -> memoryview:
    """The bytes of 16-bit words, the lower ones first; without a copy where the machine has them so."""
    return words.astype("<u2", copy=False).reshape(-1).view(np.uint8).data


@compiled
def cut_out(planes: PlaneArray, shift: int, boxes: BoxArray, first: int, rows: WordArray) -> None:
    """Write the lowest 16 bits of every sample of a box into a row of `rows`, from place `first` on.

    `boxes` are int64 [n, 4] of top, left, bottom, right, inside the planes; in a row their samples stand as
    [channels, rows, cols], and zeros behind them.
    """
    flat, high, wide, target = planes.reshape(-1), planes.shape[1], planes.shape[2], rows.reshape(-1)
    more = np.uint16(shift & 0xFFFF)
    for n in range(len(boxes)):
        top, left, bottom, right = boxes[n, 0], boxes[n, 1], boxes[n, 2], boxes[n, 3]
        at = n * rows.shape[1] + first
        for channel in range(planes.shape[0]):
            for r in range(top, bottom):
                start, source = np.uint64(at), np.uint64((channel * high + r) * wide + left)
                for c in range(np.uint64(right - left)):
                    target[start + c] = np.uint16(np.uint16(flat[source + c]) + more)
                at += right - left
        for i in range(np.uint64(at), np.uint64((n + 1) * rows.shape[1])):
            target[i] = np.uint16(0)


@compiled
def _narrowed(samples: IntArray, shift: int) -> tuple[PlaneArray, bool]:
    planes, beyond = np.empty(samples.shape, np.int16), np.uint32(0)
    flat, target = samples.reshape(-1), planes.reshape(-1)
    low = np.int32(shift + LEAST)
    for i in range(flat.size):
        beyond |= np.uint32(np.int32(flat[i] - low)) >> np.uint32(16)
        target[i] = np.int16(np.int32(flat[i] - np.int32(shift)))
    return planes, beyond != 0


@compiled
def extremes(planes: PlaneArray) -> tuple[int, int]:
    """The least and the greatest of some planes, which are contiguous; 0 and 0 of none."""
    flat = planes.reshape(-1)
    if flat.size == 0:
        return 0, 0
    least, greatest = flat[0], flat[0]
    for i in range(np.uint64(flat.size)):
        least, greatest = np.int16(min(least, flat[i])), np.int16(max(greatest, flat[i]))
    return int(least), int(greatest)


@compiled
def same(one: PlaneArray, other: PlaneArray) -> bool:
    """`np.array_equal`, without an array in between; both contiguous."""
    if one.shape != other.shape:
        return False
    for channel in range(one.shape[0]):
        for r in range(one.shape[1]):
            a, b, differing = one[channel, r], other[channel, r], np.int16(0)
            for c in range(a.size):
                differing = np.int16(differing | np.int16(a[c] ^ b[c]))
            if differing:
                return False
    return True
